"""Detection in one image, from pixels to boxes, compared with YOLO networks of Ultralytics that are
reduced to about the parameters of MobileNetV3 S-1.

python -m benchmarks.detectors runs/hit_uav .. [--size 320 256] [--rounds 100]
"""

import argparse
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import timing

NUM_CLASSES = 3
# File in ultralytics/cfg/models, depth, width, maximum number of channels.
YOLO_SCALES = {
    "YOLO11": ("11/yolo11.yaml", (0.5, 0.07, 1024)),
    "YOLO26": ("26/yolo26.yaml", (0.5, 0.09, 1024)),
    "YOLO26-P2": ("26/yolo26-p2.yaml", (0.5, 0.09, 1024)),
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", help="folders of finished detectors")
    parser.add_argument("--size", nargs=2, type=int, default=(320, 256), metavar=("W", "H"))
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args(argv)
    width, height = options.size
    candidates: dict[str, timing.Candidate] = {
        Path(run).name: (tinyjax_detector, (run, width, height)) for run in options.runs
    }
    for name in YOLO_SCALES:
        candidates[name] = (yolo_detector, (name, width, height))
    print(timing.describe_machine("ultralytics", "torch"))
    print(f"one gray image of {width} x {height}; ratio: {Path(options.runs[0]).name} / other")
    print(timing.HEADER)
    timing.print_comparison("", candidates, options.rounds)


def tinyjax_detector(run: str, width: int, height: int) -> Callable[[], Any]:
    """Build a call of a trained detector."""
    import tinyjax

    model, image = tinyjax.load(run), _image(width, height)
    return lambda: model(image)


def yolo_detector(name: str, width: int, height: int) -> Callable[[], Any]:
    """Build a call of a reduced YOLO with its initial weights, and print its size.

    Raises ImportError if ultralytics is not installed.
    """
    if find_spec("ultralytics") is None:
        raise ImportError("ultralytics is not installed: pip install ultralytics")
    import tempfile

    import ultralytics
    import yaml
    from ultralytics.utils.torch_utils import get_flops

    file, scale = YOLO_SCALES[name]
    source = Path(ultralytics.__file__).parent / "cfg" / "models" / file
    architecture = yaml.safe_load(source.read_bytes())
    architecture |= {"nc": NUM_CLASSES, "scales": {"n": [*scale]}}
    with tempfile.TemporaryDirectory() as folder:
        reduced = Path(folder) / "yolo.yaml"
        reduced.write_text(yaml.safe_dump(architecture), encoding="utf-8")
        yolo = ultralytics.YOLO(reduced, task="detect")
    parameters = sum(parameter.numel() for parameter in yolo.model.parameters())
    giga_flops = get_flops(yolo.model, [height, width])
    print(f"{name}: {parameters:,} parameters, {giga_flops / 2 * 1e3:.0f} M multiply-adds")
    image = np.repeat(_image(width, height)[..., None], 3, axis=-1)
    return lambda: yolo.predict(image, imgsz=[height, width], verbose=False)


def _image(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width), np.uint8)


if __name__ == "__main__":
    main()
