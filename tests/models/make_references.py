"""Outputs of torchvision's and timm's own networks, stored under references/ for test_parity.py.

Run as `python -m tests.models.make_references [name ..]` with torch 2.13.0, torchvision 0.28.0 and
timm 1.0.31; with names, only references whose names contain one of them are made. Weights are not
stored: both sides draw them by name, see `draw`.
"""

import json
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FOLDER = Path(__file__).parent / "references"
SHAPE = (1, 64, 96, 3)  # not square, to detect a swap of height and width
CLASSES = 1000
# Convolutions that no ReLU follows, where they are many: in ShuffleNetV2, GhostNet and LightCNN.
LINEAR = re.compile(r"branch1\.0|branch2\.3|ghost2|shortcut|\.filter\.")
LOGITS = 40  # every 40th logit is stored
STATISTICS = 8  # every 8th running statistic is stored


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Draw float32 values for the entry `name` of a torch state_dict.

    They depend on name and shape only (the streams of RandomState never change), and their scale
    keeps activations near 1 through all blocks.
    """
    random = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
        return random.uniform(0.5, 1.4, shape).astype(np.float32)
    if len(shape) == 3 and shape[0] == 1:  # class tokens and position embeddings
        return (0.5 * random.standard_normal(shape)).astype(np.float32)
    gain = 0.5 if LINEAR.search(name) else 2
    size = 0.1 if len(shape) == 1 else np.sqrt(gain / np.prod(shape[1:]))
    return (size * random.standard_normal(shape)).astype(np.float32)


def image(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """The input, f32[B, H, W, C]."""
    return np.random.RandomState(0).standard_normal(shape).astype(np.float32)


def digest(feature: np.ndarray) -> np.ndarray:
    """[1, H, W, C] -> [5, C]: the mean over space and the four corners, which padding reaches."""
    corners = feature[0, [0, 0, -1, -1], [0, -1, 0, -1]]
    return np.stack([feature.mean((0, 1, 2)), *corners])


class Reference(NamedTuple):
    """A network of another library; images and features have the layout NCHW unless converted."""

    name: str  # library.family.variant; a further input follows as .HEIGHTxWIDTH
    model: Any
    levels: Iterable[Any]  # modules whose outputs are features; the last one at a stride counts
    to_nhwc: Callable[[Any], Any] = lambda out: out.permute(0, 2, 3, 1)
    shape: tuple[int, int, int, int] = SHAPE  # of the input, NHWC
    train: bool = False  # also store the running statistics after one step in training mode
    sizes: tuple[int, ...] = (224, 320)  # sides of the images whose multiply-adds are counted


def networks() -> Iterator[Reference]:
    yield from efficientnets()
    yield from mobilenets()
    yield from resnets()
    yield from lightcnns()
    yield from vits()
    yield from convnexts()
    yield from swins()
    yield from shufflenets()
    yield from ghostnets()


def from_timm(name: str, model: Any, stages: int) -> Reference:
    return Reference(name, model, [model.bn1, *model.blocks[:stages]])


def efficientnets() -> Iterator[Reference]:
    import torchvision.models as tv
    from timm.models import efficientnet

    for k in range(8):
        model = efficientnet._gen_efficientnet(
            "efficientnet_b0", 1.46**-k, 1.45**-k, num_classes=CLASSES
        )
        yield from_timm(f"timm.efficientnet.{f'b-{k}' if k else 'b0'}", model, 7)
    model = tv.efficientnet_b0(num_classes=CLASSES)
    yield Reference("torchvision.efficientnet.b0", model, model.features[:-1])


def mobilenets() -> Iterator[Reference]:
    import timm
    import torchvision.models as tv
    from torchvision.models import mobilenetv3

    for k in range(7):
        conf = mobilenetv3._mobilenet_v3_conf("mobilenet_v3_small", width_mult=1.46**-k)
        model = tv.MobileNetV3(*conf, num_classes=CLASSES)
        yield Reference(f"torchvision.mobilenetv3.s-{k}", model, model.features[:-1])
    model = tv.mobilenet_v3_large(num_classes=CLASSES)
    yield Reference("torchvision.mobilenetv3.large", model, model.features[:-1])
    for size, stages in (("small", 5), ("large", 6)):
        model = timm.create_model(f"mobilenetv3_{size}_100", num_classes=CLASSES)
        yield from_timm(f"timm.mobilenetv3.{size}", model, stages)


def resnets() -> Iterator[Reference]:
    import torchvision.models as tv

    for depth in (18, 34, 50, 101):
        model = getattr(tv, f"resnet{depth}")(num_classes=CLASSES)
        levels = [model.bn1, model.layer1, model.layer2, model.layer3, model.layer4]
        # The network overwrites the output of bn1 by its ReLU.
        yield Reference(f"torchvision.resnet.{depth}", model, levels, train=depth == 18)


def lightcnns() -> Iterator[Reference]:
    from tests.models.lightcnn_torch import LightCNN

    for variant in ("9", "29", "29v2"):
        model = LightCNN(variant, CLASSES)
        shape = (1, 128, 128, 1)
        yield Reference(
            f"LightCNN.lightcnn.{variant}", model, model.levels(), shape=shape, sizes=(128,)
        )


def vits() -> Iterator[Reference]:
    import timm
    import torchvision.models as tv

    def reference(name, model, norm, shape, sizes=(224, 320)):
        def to_nhwc(tokens):
            rows, columns = shape[1] // 16, shape[2] // 16
            return tokens[:, 1:].reshape(1, rows, columns, tokens.shape[-1])

        return Reference(name, model, [norm], to_nhwc, shape, sizes=sizes)

    for variant, height, width in (("tiny", 160, 192), ("small", 64, 96), ("base", 256, 256)):
        name = f"vit_{variant}_patch16_224"
        model = timm.create_model(name, num_classes=CLASSES, dynamic_img_size=True)
        shape = (1, height, width, 3)
        yield reference(f"timm.vit.{variant}.{height}x{width}", model, model.norm, shape)
    # It accepts images of this size only, and hides linear layers from `multiply_adds`.
    model = tv.vit_b_16(num_classes=CLASSES)
    yield reference("torchvision.vit.base", model, model.encoder.ln, (1, 224, 224, 3), sizes=())


def convnexts() -> Iterator[Reference]:
    import timm
    import torchvision.models as tv
    from torchvision.models.convnext import CNBlockConfig

    widths = (8, 16, 32, 64)
    settings = [CNBlockConfig(*pair, 1) for pair in zip(widths, (*widths[1:], None), strict=True)]
    micro = tv.ConvNeXt(settings, num_classes=CLASSES)
    tiny = tv.convnext_tiny(num_classes=CLASSES)
    for name, model in (("micro", micro), ("tiny", tiny)):
        yield Reference(f"torchvision.convnext.{name}", model, model.features[1::2])
    model = timm.create_model("convnext_tiny", num_classes=CLASSES)
    yield Reference("timm.convnext.tiny", model, model.stages)


def swins() -> Iterator[Reference]:
    import timm
    import torchvision.models as tv

    micro = tv.SwinTransformer([4, 4], 8, [2, 1, 1, 1], [1, 2, 4, 8], [7, 7], num_classes=CLASSES)
    tiny = tv.swin_t(num_classes=CLASSES)
    for name, model, shape in (
        ("micro", micro, SHAPE),
        ("tiny", tiny, SHAPE),
        ("tiny.256x192", tiny, (1, 256, 192, 3)),
    ):
        levels = model.features[1::2]
        yield Reference(f"torchvision.swin.{name}", model, levels, lambda out: out, shape)
    # On maps that are no multiples of the window, timm computes something else.
    name, size = "swin_tiny_patch4_window7_224", (224, 448)
    model = timm.create_model(name, num_classes=CLASSES, img_size=size, strict_img_size=False)
    yield Reference("timm.swin.tiny", model, model.layers, lambda out: out, (1, *size, 3))


def shufflenets() -> Iterator[Reference]:
    import torchvision.models as tv
    from torchvision.models._utils import _make_divisible

    networks = {
        version: getattr(tv, f"shufflenet_v2_x{version.replace('.', '_')}")(num_classes=CLASSES)
        for version in ("0.5", "1.0", "1.5", "2.0")
    }
    for k in range(1, 6):
        channels = [_make_divisible(c * 1.46**-k, 4) for c in (24, 116, 232, 464, 1024)]
        networks[f"n-{k}"] = tv.ShuffleNetV2([4, 8, 4], channels, num_classes=CLASSES)
    for version, model in networks.items():
        levels = [model.conv1, model.maxpool, model.stage2, model.stage3, model.stage4]
        name = f"torchvision.shufflenetv2.{version}"
        yield Reference(name, model, levels, train=version == "0.5")


def ghostnets() -> Iterator[Reference]:
    import torch
    from timm.layers import make_divisible
    from timm.models import ghostnet

    def to_nhwc(out):
        """Interleave the halves of the channels, which is our order."""
        first, second = out.permute(0, 2, 3, 1).chunk(2, -1)
        interleaved = out.new_empty(second.shape[:3] + out.shape[1:2])
        interleaved[..., ::2], interleaved[..., 1::2] = first, second
        return interleaved

    widths = {"0.5": 0.5, "1.0": 1.0, "1.3": 1.3, **{f"g-{k}": 1.46**-k for k in range(1, 8)}}
    for version, width in widths.items():
        model = ghostnet._create_ghostnet("ghostnet_100", width, num_classes=CLASSES)
        if version.startswith("g-"):  # our ladder also scales the hidden layer
            hidden = make_divisible(1280 * width, 4)
            model.conv_head = torch.nn.Conv2d(model.conv_head.in_channels, hidden, 1)
            model.classifier = torch.nn.Linear(hidden, CLASSES)
        reference = from_timm(f"timm.ghostnet.{version}", model, 9)
        yield reference._replace(to_nhwc=to_nhwc, train=version == "0.5")


def multiply_adds(model: Any, shape: tuple[int, ...]) -> int:
    """Count the multiply-adds of convolutions and linear layers for one image [C, H, W]."""
    import torch

    total = []

    def count(module, _inputs, out):
        positions = out.numel() // module.weight.shape[0]
        total.append(module.weight.numel() * positions)

    types = (torch.nn.Conv2d, torch.nn.Linear)
    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, types)]
    model(torch.zeros(1, *shape))
    for hook in hooks:
        hook.remove()
    return sum(total)


def compute(reference: Reference) -> dict[str, np.ndarray]:
    """Return what test_parity.py compares: logits, digests of features, shapes, counts."""
    import torch

    model, (_, height, _, channels) = reference.model.eval(), reference.shape
    counts = [multiply_adds(model, (channels, size, size)) for size in reference.sizes]
    state = {k: v for k, v in model.state_dict().items() if v.is_floating_point()}
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    drawn = {name: torch.from_numpy(draw(name, shape)) for name, shape in shapes.items()}
    model.load_state_dict(drawn, strict=False)
    outputs = []
    for level in reference.levels:
        level.register_forward_hook(lambda _module, _inputs, out: outputs.append(out))
    logits = model(torch.from_numpy(image(reference.shape)).permute(0, 3, 1, 2))
    features = {}  # the last output at each stride
    for out in outputs:
        nhwc = reference.to_nhwc(out).numpy()
        features[height // nhwc.shape[1]] = digest(nhwc)
    statistics = {}
    if reference.train:
        model.train()(torch.from_numpy(image(reference.shape)).permute(0, 3, 1, 2))
        updated = model.state_dict()
        names = sorted(name for name in updated if "running_" in name)
        values = np.concatenate([updated[name].numpy() for name in names])
        statistics = {"statistics": values[::STATISTICS]}
    return {
        "logits": logits.numpy()[:, ::LOGITS],
        **statistics,
        **{f"feature{stride}": feature for stride, feature in features.items()},
        "shapes": np.array(json.dumps(shapes)),
        "input": np.array(reference.shape),
        "multiply_adds": np.array(counts),
    }


def main(only: list[str]) -> None:
    import torch

    FOLDER.mkdir(exist_ok=True)
    with torch.no_grad():
        for reference in networks():
            if only and not any(text in reference.name for text in only):
                continue
            arrays = compute(reference)
            sizes = {k: np.abs(v).mean() for k, v in arrays.items() if v.dtype == np.float32}
            texts = {k: f"{size:.2f}" for k, size in sizes.items()}
            # The sizes should be near 1.
            print(reference.name, arrays["multiply_adds"], texts)
            np.savez_compressed(FOLDER / f"{reference.name}.npz", **arrays)


if __name__ == "__main__":
    main(sys.argv[1:])
