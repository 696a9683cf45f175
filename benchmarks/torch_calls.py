"""Networks of `tinyjax_calls` in torch: functions that build the call of a step, a prediction or a
loader.

All of them raise ImportError if a package is missing; the message tells what to install.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from benchmarks.common import CLASSES, SIDE, random_images
from tinyjax.errors import UserError

PACKAGES = ("torch", "torchvision", "timm")
EAGER_FORMATS = ("contiguous", "channels_last")
FORMATS = (*EAGER_FORMATS, "compiled")


def check_installed() -> None:
    """Raise ImportError, with the command that installs it, if a package is missing."""
    for package in PACKAGES:
        if find_spec(package) is None:
            raise ImportError(f"{package} is not installed: pip install {' '.join(PACKAGES)}")


def import_torchvision() -> Any:
    check_installed()
    import torch

    try:
        import torchvision
    except RuntimeError:  # a CPU build of torch, but a torchvision whose operations need CUDA
        library = torch.library.Library("torchvision", "DEF")
        for operation in ("nms", "qnms"):
            library.define(f"{operation}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
        import torchvision
    return torchvision


def torch_loader(
    folder: str, side: int, batch: int, batches: int, workers: int
) -> Callable[[], Any]:
    """Build a call that takes `batches` batches, uint8 [batch, 3, side, side], from a DataLoader
    over an ImageFolder with RandomResizedCrop.
    """
    torchvision = import_torchvision()
    import torch
    from torchvision import transforms

    transform = transforms.Compose(
        [transforms.RandomResizedCrop(side, antialias=True), transforms.PILToTensor()]
    )
    data = torchvision.datasets.ImageFolder(folder, transform)
    sampler = torch.utils.data.RandomSampler(data, True, 10**9)
    loader = torch.utils.data.DataLoader(
        data, batch, sampler=sampler, num_workers=workers, multiprocessing_context="fork"
    )
    iterator = iter(loader)
    return lambda: [next(iterator) for _ in range(batches)]


def torch_network(name: str, classes: int) -> Any:
    """Build the network of timm or torchvision with the layers of our classifier `name`,
    "family/variant", without dropout and stochastic depth.
    """
    torchvision = import_torchvision()
    import timm
    from timm.models import efficientnet
    from torchvision.models import mobilenetv3

    family, variant = name.split("/")
    match family:
        case "resnet":
            return getattr(torchvision.models, f"resnet{variant}")(num_classes=classes)
        case "shufflenetv2":
            version = variant.replace(".", "_")
            return getattr(torchvision.models, f"shufflenet_v2_x{version}")(num_classes=classes)
        case "ghostnet":
            width = round(100 * float(variant))
            return timm.create_model(f"ghostnet_{width:03}", num_classes=classes, drop_rate=0)
        case "convnext":
            return timm.create_model(f"convnext_{variant}", num_classes=classes)
        case "swin":
            model = getattr(torchvision.models, f"swin_{variant[0]}")(num_classes=classes)
            for module in model.modules():
                if isinstance(module, torchvision.ops.StochasticDepth):
                    module.p = 0.0
            return model
    k = 0 if variant in ("b0", "small") else int(variant.rpartition("-")[2])
    if family == "efficientnet":
        return efficientnet._gen_efficientnet(
            "efficientnet_b0", 1.46**-k, 1.45**-k, num_classes=classes
        )
    conf = mobilenetv3._mobilenet_v3_conf("mobilenet_v3_small", width_mult=1.46**-k)
    return torchvision.models.MobileNetV3(*conf, num_classes=classes)


def torch_step(name: str, batch: int, format_: str) -> Callable[[], Any]:
    """Build a call of one step of SGD with Nesterov momentum and weight decay.

    format_: "contiguous" or "channels_last", eager; or "compiled", by `torch.compile`.
    """
    model, x, y = _model_and_batch(name, batch, format_)
    import torch

    optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9, weight_decay=1e-4, nesterov=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    step()  # compiles the model if it is to be compiled
    return step


def torch_device_steps(
    name: str, batch: int, side: int, steps: int, graph: bool, allow_cpu: bool
) -> Callable[[], Any]:
    """Build a call that makes `steps` steps of `torch_step` in bfloat16, then waits for the GPU.

    graph: replay the step as one CUDA graph. Raises UserError if torch sees no GPU, unless
    `allow_cpu`, for eager steps.
    """
    model, x, y = _model_and_batch(name, batch, "channels_last", side)
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and (graph or not allow_cpu):
        raise UserError(f"torch {torch.__version__} sees no GPU")
    model, x, y = model.to(device), x.to(device), y.to(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9, weight_decay=1e-4, nesterov=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        # A graph cannot keep casts of the weights, which each step changes.
        with torch.autocast(device, torch.bfloat16, cache_enabled=False):
            loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()

    if graph:
        step = _capture(step)

    def call():
        for _ in range(steps):
            step()
        if device == "cuda":
            torch.cuda.synchronize()

    call()
    return call


def _capture(step: Callable[[], None]) -> Callable[[], None]:
    """Capture a step as a CUDA graph, see torch's notes on CUDA semantics, "Whole-network capture".

    The steps before, on another stream, allocate what a graph cannot: buffers of the optimizer and
    of libraries.
    """
    import torch

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def torch_inference(name: str, format_: str) -> Callable[[], Any]:
    """Build a call that computes the logits of one image. format_: see `torch_step`."""
    model, x, _ = _model_and_batch(name, 1, format_)
    import torch

    model.eval()

    @torch.inference_mode()
    def infer():
        model(x)

    infer()
    return infer


def _model_and_batch(name: str, batch: int, format_: str, side: int = SIDE):
    model = torch_network(name, CLASSES)
    import torch

    torch.set_flush_denormal(True)  # as XLA does
    images, labels = random_images(batch, side)
    layout = torch.contiguous_format if format_ == "contiguous" else torch.channels_last
    model = model.to(memory_format=layout)
    # b h w c -> b c h w
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=layout)
    y = torch.from_numpy(labels).long()
    return torch.compile(model) if format_ == "compiled" else model, x, y
