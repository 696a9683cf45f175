"""Outputs of torchvision's and timm's own networks, stored under references/ for test_parity.py.

Run as `python tests/models/make_references.py` with torch 2.13.0, torchvision 0.28.0, timm 1.0.31
(CPU builds suffice). Weights are not stored: both sides draw them by name, see `draw`.
"""

import json
import zlib
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "references"
SHAPE = (1, 64, 96, 3)  # not square, to detect a swap of height and width
CLASSES = 1000
LOGITS = 40  # every 40th logit is stored


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Draw float32 values for the entry `name` of a torch state_dict.

    They depend on name and shape only (the streams of RandomState never change), and their scale
    keeps activations near 1 through all blocks.
    """
    random = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
        return random.uniform(0.5, 1.4, shape).astype(np.float32)
    size = 0.1 if len(shape) == 1 else np.sqrt(2 / np.prod(shape[1:]))
    return (size * random.standard_normal(shape)).astype(np.float32)


def image() -> np.ndarray:
    """The input, f32[SHAPE], NHWC."""
    return np.random.RandomState(0).standard_normal(SHAPE).astype(np.float32)


def digest(feature: np.ndarray) -> np.ndarray:
    """[1, H, W, C] -> [5, C]: the mean over space and the four corners, which padding reaches."""
    corners = feature[0, [0, 0, -1, -1], [0, -1, 0, -1]]
    return np.stack([feature.mean((0, 1, 2)), *corners])


def networks():
    """Yield (file name, model, modules that output the features of stem and blocks)."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for operation in (
        "nms",
        "qnms",
    ):  # compiled operations that torchvision lacks with a CPU build of torch
        library.define(f"{operation}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    import timm
    import torchvision.models as tv
    from timm.models import efficientnet as timm_efficientnet
    from torchvision.models import mobilenetv3 as tv_mobilenetv3

    def from_timm(model, stages):
        return model, [model.bn1, *model.blocks[:stages]]

    def from_torchvision(model):
        return model, [*model.features[:-1]]

    for k in range(8):
        model = timm_efficientnet._gen_efficientnet(
            "efficientnet_b0", 1.46**-k, 1.45**-k, num_classes=CLASSES
        )
        yield f"timm.efficientnet.{f'b-{k}' if k else 'b0'}", *from_timm(model, 7)
    for k in range(7):
        conf = tv_mobilenetv3._mobilenet_v3_conf("mobilenet_v3_small", width_mult=1.46**-k)
        model = tv.MobileNetV3(*conf, num_classes=CLASSES)
        yield f"torchvision.mobilenetv3.s-{k}", *from_torchvision(model)
    large = tv.mobilenet_v3_large(num_classes=CLASSES)
    yield "torchvision.mobilenetv3.large", *from_torchvision(large)
    yield "torchvision.efficientnet.b0", *from_torchvision(tv.efficientnet_b0(num_classes=CLASSES))
    for size, stages in (("small", 5), ("large", 6)):
        model = timm.create_model(f"mobilenetv3_{size}_100", num_classes=CLASSES)
        yield f"timm.mobilenetv3.{size}", *from_timm(model, stages)


def multiply_adds(model, size: int) -> int:
    """Count the multiply-adds of convolutions and linear layers for one size x size image."""
    import torch

    total = []

    def count(module, _inputs, out):
        total.append(module.weight.numel() * out[0, 0].numel())  # [1, C, H, W] or [1, C]

    types = (torch.nn.Conv2d, torch.nn.Linear)
    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, types)]
    model(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return sum(total)


def reference(model, levels) -> dict[str, np.ndarray]:
    """Return what test_parity.py compares: logits, digests of features, shapes, counts."""
    import torch

    model.eval()
    state = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    drawn = {name: torch.from_numpy(draw(name, shape)) for name, shape in shapes.items()}
    model.load_state_dict(drawn, strict=False)

    counts = [multiply_adds(model, size) for size in (224, 320)]
    features = {}  # the last output at each stride

    def keep(_module, _inputs, out):
        features[SHAPE[1] // out.shape[2]] = digest(out.permute(0, 2, 3, 1).numpy())

    for level in levels:
        level.register_forward_hook(keep)
    x = torch.from_numpy(image()).permute(0, 3, 1, 2)
    logits = model(x).numpy()[:, ::LOGITS]
    return {
        "logits": logits,
        **{f"feature{stride}": feature for stride, feature in features.items()},
        "shapes": np.array(json.dumps(shapes)),
        "multiply_adds": np.array(counts),
    }


def main() -> None:
    import torch

    FOLDER.mkdir(exist_ok=True)
    with torch.no_grad():
        for name, model, levels in networks():
            arrays = reference(model, levels)
            sizes = {k: np.abs(v).mean() for k, v in arrays.items() if v.dtype == np.float32}
            texts = {k: f"{size:.2f}" for k, size in sizes.items()}
            print(name, arrays["multiply_adds"], texts)  # the sizes should be near 1
            np.savez_compressed(FOLDER / f"{name}.npz", **arrays)


if __name__ == "__main__":
    main()
