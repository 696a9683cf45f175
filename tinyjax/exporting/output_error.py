"""The error of an integer file's outputs, on training images."""

import numpy as np

from tinyjax.exporting import runtimes
from tinyjax.exporting.activations import Inputs

Outputs = list[dict[str, np.ndarray]]  # of each batch, by name


def run_file(file: bytes, inputs: Inputs) -> Outputs:
    """The outputs of a file, float32, or dequantized."""
    run = runtimes.load_litert(file)
    return [run(batch) for batch in inputs]


def output_error(expected: Outputs, actual: Outputs) -> float:
    """The greatest of `output_errors`."""
    return max(output_errors(expected, actual).values())


def output_errors(expected: Outputs, actual: Outputs) -> dict[str, float]:
    """Root mean square difference / standard deviation of each output.

    The mean over the cells of a detector is weighted by the square of their highest score: almost
    all cells are background, and whether its logit is -9 or -7 hardly matters.
    """

    def relative(name: str) -> float:
        x, y = (np.stack([outputs[name] for outputs in each]) for each in (expected, actual))
        weights = np.ones_like(x)
        logits = f"logits_{name.rpartition('_')[2]}"  # of the same stride
        if logits in expected[0]:
            scores = 1 / (1 + np.exp(-np.stack([outputs[logits] for outputs in expected])))
            weights = weights * scores.max(-1, keepdims=True) ** 2
        return float(np.sqrt(np.average(np.square(x - y), weights=weights)) / max(x.std(), 1e-12))

    return {name: relative(name) for name in expected[0]}
