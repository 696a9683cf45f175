"""Scores of the int8 files that calibration compares, and of the best one by other kernels.

    python -m benchmarks.quantization --workdir runs/mine [--micro]

On the suite `config.monitor` of a run without a second stage, with the agreement by which the best
file is chosen, on training images without labels. The kernels of the last rows round
differently: those of XNNPACK, which apps use, and with --micro those of TensorFlow Lite Micro,
which take half a second per image of a large network (`pip install 'tinyjax[edge]'`).
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import tinyjax
from tinyjax.exporting import acceptance, agreement, calibration, clipping, litert, micro, runtimes
from tinyjax.exporting.activations import Inputs, measure
from tinyjax.exporting.equalization import equalize
from tinyjax.exporting.functions import make_function
from tinyjax.exporting.predictions import make_functions
from tinyjax.exporting.ranges import raise_floors
from tinyjax.exporting.runtimes import FileDescription
from tinyjax.run.text import text_table


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--calibration", type=int, default=200, help="training images")
    parser.add_argument("--micro", action="store_true", help="score TensorFlow Lite Micro, too")
    options = parser.parse_args(argv)
    model = tinyjax.load(options.workdir)
    split = acceptance.load_monitor(model)
    if split is None:
        raise SystemExit("the suite that selects the best weights is missing")
    function = make_function(model, dtype="float32")
    inputs = calibration.make_inputs(model, function, options.calibration, 1)
    shape = {**function.metadata["input"], "dtype": "uint8"}
    description = FileDescription({**function.metadata, "input": shape}, 1)

    def score(run):
        functions = make_functions({"": (run, description)}, model.config)
        scores = acceptance.score_file(model, split, functions)
        return scores | {"file score": scores.pop("file")}

    file = litert.convert(function)
    few = calibration.spread(inputs, calibration.AGREEMENT_IMAGES)
    agree = agreement.make_agreement(model.config, function, file, few)
    rows: list[dict[str, Any]] = []
    files = dict(make_files(file, inputs))
    agreements = {step: agree(int8) for step, int8 in files.items()}
    for step, int8 in files.items():
        scores = score(runtimes.load_litert(int8))
        rows.append({"file": step, "kernels": "LiteRT", "agreement": agreements[step], **scores})
    best = max(files, key=lambda step: agreements[step])
    kernels: dict[str, Callable[[bytes], runtimes.Runner]] = {
        "XNNPACK": partial(runtimes.load_litert, xnnpack=True)
    }
    if options.micro:
        kernels["TensorFlow Lite Micro"] = micro.load
    rows += [
        {"file": best, "kernels": name, "agreement": "", **score(load(files[best]))}
        for name, load in kernels.items()
    ]
    columns = "file", "kernels", "agreement", "suite", "metric", "file score", "run"
    print(text_table(rows, columns, float_format=".4f"))


def make_files(file: bytes, inputs: Inputs) -> Iterator[tuple[str, bytes]]:
    """int8 files, with the names of their steps. file: in float32."""
    yield "measured ranges", litert.quantize(file, "int8", measure(file, inputs))
    file = equalize(file, calibration.spread(inputs, calibration.CORRECTION_IMAGES))
    ranges = measure(file, inputs)
    yield "equalized channels", litert.quantize(file, "int8", ranges)
    ranges = raise_floors(file, ranges)
    few = calibration.spread(inputs, calibration.SCREENING_IMAGES)
    errors = clipping.tensor_errors(file, ranges, few)
    for candidate in calibration.make_candidates(file, ranges, errors, inputs):
        steps = [name.replace("_", " ") for name, done in candidate.fields().items() if done]
        yield ", ".join(["raised floors", *steps]), candidate.content


if __name__ == "__main__":
    main()
