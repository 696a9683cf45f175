"""The same networks by other means: `flax.linen.Conv` in the place of ours, and torch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any
from unittest.mock import patch

from benchmarks import ours

TORCH = ("torch", "torchvision", "timm")
FORMS = ("contiguous", "channels_last", "compiled")


def flax_conv(x, kernel, stride: int = 1, groups: int = 1):
    """`ops.conv.conv2d` by `flax.linen.Conv`."""
    import flax.linen as nn

    k = kernel.shape[0]
    conv = nn.Conv(
        kernel.shape[3], (k, k), stride, padding=k // 2, feature_group_count=groups, use_bias=False
    )
    return conv.apply({"params": {"kernel": kernel}}, x)


@contextmanager
def plain_flax() -> Iterator[None]:
    """Networks traced inside are made of `flax.linen.Conv`."""
    with (
        patch("tinyjax.models.layers.conv2d", flax_conv),
        patch("tinyjax.detectors.point.conv2d", flax_conv),
    ):
        yield


def require() -> None:
    """Raise ImportError, with what to install, if torch or one of its packages is missing."""
    for package in TORCH:
        if find_spec(package) is None:
            raise ImportError(f"{package} is not installed: pip install {' '.join(TORCH)}")


def import_torchvision() -> Any:
    """torchvision. Raises ImportError, with what to install."""
    require()
    import torch

    try:
        import torchvision
    except RuntimeError:  # a CPU build of torch beside a torchvision whose compiled parts need CUDA
        library = torch.library.Library("torchvision", "DEF")
        for operation in ("nms", "qnms"):
            library.define(f"{operation}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
        import torchvision
    return torchvision


def torch_loader(folder: str, side: int, batch: int, batches: int, workers: int) -> Callable:
    """A call that takes so many batches, uint8 [batch, 3, side, side], from torch's DataLoader over
    an ImageFolder by RandomResizedCrop.
    """
    torchvision = import_torchvision()
    import torch
    from torchvision import transforms

    cut = transforms.Compose(
        [transforms.RandomResizedCrop(side, antialias=True), transforms.PILToTensor()]
    )
    data = torchvision.datasets.ImageFolder(folder, cut)
    sampler = torch.utils.data.RandomSampler(data, True, 10**9)
    loader = torch.utils.data.DataLoader(
        data, batch, sampler=sampler, num_workers=workers, multiprocessing_context="fork"
    )
    rows = iter(loader)
    return lambda: [next(rows) for _ in range(batches)]


def torch_network(name: str, classes: int) -> Any:
    """timm's or torchvision's network of the same layers as our backbone "family/variant" with a
    classifier. Raises ImportError, with what to install.
    """
    torchvision = import_torchvision()
    from timm.models import efficientnet
    from torchvision.models import mobilenetv3

    family, variant = name.split("/")
    k = 0 if variant in ("b0", "small") else int(variant.rpartition("-")[2])
    if family == "efficientnet":
        return efficientnet._gen_efficientnet(
            "efficientnet_b0", 1.46**-k, 1.45**-k, num_classes=classes
        )
    conf = mobilenetv3._mobilenet_v3_conf("mobilenet_v3_small", width_mult=1.46**-k)
    return torchvision.models.MobileNetV3(*conf, num_classes=classes)


def torch_step(name: str, batch: int, form: str) -> Callable[[], Any]:
    """A call that takes one step of SGD with Nesterov momentum and decay.

    form: "contiguous" or "channels_last", eager; or "compiled", by `torch.compile`.
    """
    model, x, y = _torch(name, batch, form)
    import torch

    optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9, weight_decay=1e-4, nesterov=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    step()  # what is compiled is compiled now
    return step


def torch_inference(name: str, form: str) -> Callable[[], Any]:
    """A call that gives the logits of one image."""
    model, x, _ = _torch(name, 1, form)
    import torch

    model.eval()

    @torch.inference_mode()
    def infer():
        model(x)

    infer()
    return infer


def _torch(name: str, batch: int, form: str):
    model = torch_network(name, ours.CLASSES)
    import torch

    torch.set_flush_denormal(True)  # as XLA does
    images, labels = ours.random_images(batch)
    layout = torch.contiguous_format if form == "contiguous" else torch.channels_last
    model = model.to(memory_format=layout)
    # b h w c -> b c h w
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=layout)
    return torch.compile(model) if form == "compiled" else model, x, torch.from_numpy(labels).long()
