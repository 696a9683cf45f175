"""The cost of each detector with each neck, or of trained detectors.

    python -m benchmarks.detectors [--detector retinanet ..] [--neck fpn ..] [--rounds 10]

Without runs: a training step of configs/hit_uav.py, and the prediction of one image, compared with
the default detector.

    python -m benchmarks.detectors runs/hit_uav .. [--size 320 256] [--rounds 100]

With runs: detection in one image, from pixels to boxes, compared with YOLO networks of Ultralytics
that are reduced to about the parameters of MobileNetV3 S-1.
"""

import argparse
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import timing, tinyjax_calls
from tinyjax.config.detectors import DETECTORS

BATCH = 16
NECKS = ("pan", "fpn", "nasfpn", "bifpn")
DEFAULT = ("point", "pan")
NUM_CLASSES = 3
# File in ultralytics/cfg/models, depth, width, maximum number of channels.
YOLO_SCALES = {
    "YOLO11": ("11/yolo11.yaml", (0.5, 0.07, 1024)),
    "YOLO26": ("26/yolo26.yaml", (0.5, 0.09, 1024)),
    "YOLO26-P2": ("26/yolo26-p2.yaml", (0.5, 0.09, 1024)),
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", help="folders of finished detectors")
    parser.add_argument("--detector", nargs="+", choices=DETECTORS, default=[*DETECTORS])
    parser.add_argument("--neck", nargs="+", choices=NECKS, default=NECKS)
    parser.add_argument("--size", nargs=2, type=int, default=(320, 256), metavar=("W", "H"))
    parser.add_argument("--rounds", type=int)
    options = parser.parse_args(argv)
    if options.runs:
        width, height = options.size
        compare_runs(options.runs, width, height, options.rounds or 100)
    else:
        compare_detectors(options.detector, options.neck, options.rounds or 10)


def compare_detectors(detectors: Sequence[str], necks: Sequence[str], rounds: int) -> None:
    """Print a row for each detector and neck: a training step, and the prediction of one image."""
    print(timing.describe_machine())
    print(f"configs/hit_uav.py, batch {BATCH}; ratio: to {' with '.join(DEFAULT)}")
    print(f"{'':<24}{'ms per step':>16}{'ratio':>8}{'ms per image':>16}{'ratio':>8}")
    for detector in detectors:
        pairs = dict.fromkeys([DEFAULT, *((detector, neck) for neck in necks)])
        configs = {
            (name, neck): f"{tinyjax_calls.DETECTOR}:detector={name},neck={neck}"
            for name, neck in pairs
        }
        seconds = [
            timing.compare({key: (build, (file,)) for key, file in configs.items()}, rounds).seconds
            for build in (detection_step, tinyjax_calls.detection_inference)
        ]
        for neck in necks:
            line = f"{detector:<16}{neck:<8}"
            for times in seconds:
                ratio = timing.median_ratio(times[detector, neck], times[DEFAULT])
                line += f"{timing.milliseconds(times[detector, neck]):>16}{ratio:>8.2f}"
            print(line, flush=True)


def detection_step(config: str) -> Callable[[], Any]:
    """Build a call of a training step."""
    return tinyjax_calls.detection_step(BATCH, config=config)


def compare_runs(runs: Sequence[str], width: int, height: int, rounds: int) -> None:
    """Print the time of an image for each trained detector, and for reduced YOLO networks."""
    candidates: dict[str, timing.Candidate] = {
        Path(run).name: (tinyjax_detector, (run, width, height)) for run in runs
    }
    for name in YOLO_SCALES:
        candidates[name] = (yolo_detector, (name, width, height))
    print(timing.describe_machine("ultralytics", "torch"))
    print(f"one gray image of {width} x {height}; ratio: {Path(runs[0]).name} / other")
    print(timing.HEADER)
    timing.print_comparison("", candidates, rounds)


def tinyjax_detector(run: str, width: int, height: int) -> Callable[[], Any]:
    """Build a call of a trained detector."""
    import tinyjax

    model: Any = tinyjax.load(run)
    image = _image(width, height)
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
