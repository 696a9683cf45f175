"""What int8 detectors need on a device: memory, arithmetic, and cycles of an Arm Ethos-U55-128.

    python -m benchmarks.devices [--backbones mobilenetv3/s-3 ..] [--sizes 160x128 ..]

The detectors are those of configs/quickstart.py, with initial weights, for gray images and three
classes. Training changes cycles and flash of the Ethos-U a little, because Vela compresses weights.
Its columns need `pip install 'tinyjax[edge]'`.
"""

import argparse
from typing import Any

import numpy as np

from tinyjax import config as configs
from tinyjax.exporting import activations, ethos_u, litert, resources
from tinyjax.exporting.functions import make_function
from tinyjax.inference.model import Model
from tinyjax.models import flops
from tinyjax.run.text import text_table
from tinyjax.tasks import get_task

BACKBONES = ("mobilenetv3/s-3", "mobilenetv3/s-5", "efficientnet/b-4", "efficientnet/b-6")
SIZES = ("160x128", "320x256")  # width x height
CLASSES = ("person", "vehicle", "animal")
CALIBRATION_IMAGES = 2  # random ones: ranges do not change the costs


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbones", nargs="+", default=BACKBONES)
    parser.add_argument("--sizes", nargs="+", default=SIZES, metavar="WxH")
    options = parser.parse_args(argv)
    rows = [measure(backbone, size) for size in options.sizes for backbone in options.backbones]
    print(text_table(rows, float_format=".2f"))


def measure(backbone: str, size: str) -> dict[str, Any]:
    """A row of the table: the costs of an int8 file. size: "320x256", width x height."""
    width, height = map(int, size.split("x"))
    model, parameters = untrained_detector(backbone, (height, width, 1))
    file = quantize(model)
    costs: dict[str, Any] = resources.estimate(file)
    row = {
        "backbone": backbone,
        "size": size,
        "parameters": parameters,
        "file KB": len(file) / 1e3,
        "weights KB": costs["weight_bytes"] / 1e3,
        "arena KB": costs["arena_bytes"] / 1e3,
        "multiply-adds M": costs["multiply_adds"] / 1e6,
    }
    if ethos := ethos_u.estimate(file).get(ethos_u.KEY):
        row |= {
            "U55 Mcycles": ethos["cycles"] / 1e6,
            "U55 ms": ethos["milliseconds"],
            "U55 SRAM KB": ethos["sram_bytes"] / 1e3,
            "U55 flash KB": ethos["flash_bytes"] / 1e3,
            "not on U55": ethos["cpu_operators"],
        }
    return row


def untrained_detector(backbone: str, shape: tuple[int, int, int]) -> tuple[Model, int]:
    """A detector with initial weights for images of `shape`, and its number of parameters."""
    config = configs.load("configs/quickstart.py")
    config.model.backbone = backbone
    inputs = {"image": shape}
    variables = get_task("detect").model_functions(config, CLASSES, inputs).init(0)
    metadata = {"inputs": inputs, "classes": CLASSES}
    model = Model.from_weights(variables, config, metadata)
    return model, flops.count_parameters(variables.params)


def quantize(model: Model) -> bytes:
    """An int8 file of a network, with ranges of random images."""
    function = make_function(model, dtype="float32")
    file = litert.convert(function)
    rng = np.random.default_rng(0)
    shape = (CALIBRATION_IMAGES, 1, *model.input_shape)
    images = [*rng.integers(0, 256, shape).astype(np.float32)]
    return litert.quantize(file, "int8", activations.measure(file, images))


if __name__ == "__main__":
    main()
