"""The score of an int8 file after each step of calibration, and by each runtime's kernels.

    python -m benchmarks.quantization --workdir runs/mine [--micro]

On the suite `config.monitor` of a run without a second stage. The kernels of the last rows round
differently: those of XNNPACK, which apps use, and with --micro those of TensorFlow Lite Micro,
which take half a second per image of a large network (`pip install 'tinyjax[edge]'`).
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import tinyjax
from tinyjax.exporting import acceptance, calibration, litert, micro, runtimes
from tinyjax.exporting.activations import Inputs, measure
from tinyjax.exporting.bias_correction import correct_biases
from tinyjax.exporting.equalization import equalize
from tinyjax.exporting.functions import make_function
from tinyjax.exporting.predictions import make_functions
from tinyjax.exporting.ranges import fit_ranges, raise_floors
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

    rows: list[dict[str, Any]] = []
    int8 = b""
    for step, int8 in make_files(litert.convert(function), inputs):
        rows.append({"file": step, "kernels": "LiteRT", **score(runtimes.load_litert(int8))})
    kernels: dict[str, Callable[[bytes], runtimes.Runner]] = {
        "XNNPACK": partial(runtimes.load_litert, xnnpack=True)
    }
    if options.micro:
        kernels["TensorFlow Lite Micro"] = micro.load
    rows += [{"file": "the same", "kernels": k, **score(load(int8))} for k, load in kernels.items()]
    columns = "file", "kernels", "suite", "metric", "file score", "run"
    print(text_table(rows, columns, float_format=".4f"))


def make_files(file: bytes, inputs: Inputs) -> Iterator[tuple[str, bytes]]:
    """The int8 files after each step of `calibration.quantize`, with the name of the step."""
    yield "measured ranges", litert.quantize(file, "int8", measure(file, inputs))
    few = calibration.spread(inputs, calibration.CORRECTION_IMAGES)
    file = equalize(file, few)
    quantize = partial(litert.quantize, file, "int8")
    ranges = measure(file, inputs)
    yield "equalized channels", quantize(ranges)
    ranges = raise_floors(file, ranges)
    yield "raised floors", quantize(ranges)
    yield "fitted ranges", quantize(fit_ranges(file, ranges, few))
    ranges, _ = calibration.reduce_error(file, ranges, inputs)
    int8 = quantize(ranges)
    yield "clipped ranges", int8
    corrected = correct_biases(int8, file, few)
    if calibration.reduces_errors(file, int8, corrected, inputs):
        yield "corrected biases", corrected


if __name__ == "__main__":
    main()
