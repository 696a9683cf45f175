"""Ranges of integer tensors from values of the float32 file, without a look at its outputs."""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from tinyjax.exporting import flatbuffer
from tinyjax.exporting.activations import Inputs, Range, count_values

# operator -> the input below which its result is 0, or almost: hard-swish(-3) = 0,
# silu(-8) = -0.003, and sigmoid(-8) = 0.0003
FLOORS = {"HARD_SWISH": -3.0, "LOGISTIC": -8.0}
SIGMOID_OUTPUT = "logits_"  # start of the names of outputs of which a decoder takes the sigmoid
FRACTIONS = (1.0, 0.85, 0.7, 0.6, 0.5, 0.42, 0.35, 0.3, 0.25, 0.2, 0.15)
BINS = 2048  # of a histogram of a tensor's values
NORM = 3  # our choice


def raise_floors(file: bytes, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Ranges that start at FLOORS, for tensors that only hard-swish or SiLU reads, and for the
    logits of a detector, which can be below -80 where no object is.
    """
    model = flatbuffer.read(file)
    graph, names = model.subgraphs[0], flatbuffer.operator_names(model)
    readers = defaultdict(list)  # tensor -> names and operators
    for op, name in zip(graph.operators, names, strict=True):
        for index in op.inputs:
            readers[index].append((name, op))
    result = dict(ranges)
    for index, tensor in enumerate(graph.tensors):
        name, operators = tensor.name.decode(), list(readers[index])
        if index in graph.outputs:
            if not name.startswith(SIGMOID_OUTPUT):
                continue
            floors = [FLOORS["LOGISTIC"]]
        else:
            floors = [FLOORS[reader] for reader, _ in operators if reader in FLOORS]
        # The other reader of what enters SiLU multiplies it with the sigmoid.
        sigmoids = {op.outputs[0] for reader, op in operators if reader == "LOGISTIC"}
        others = [op for reader, op in operators if reader not in FLOORS]
        if floors and all(sigmoids & {*op.inputs} for op in others):
            low, high = ranges[name]
            result[name] = max(low, min(floors)), max(high, 0.0)
    return result


def fit_ranges(file: bytes, ranges: Mapping[str, Range], inputs: Inputs) -> dict[str, Range]:
    """Ranges clipped to the fraction of their largest absolute value, of FRACTIONS, for which a
    tensor's own values have the least error: that of rounding and that of clipping together (Nagel
    et al., arXiv 2106.08295, section 3.1).

    The error is the mean of its absolute value to the power of NORM. With the square, the usual
    choice, more of the few large activations of small objects are clipped.
    """
    counts = count_values(file, ranges, inputs, BINS)
    return {**ranges, **{name: _fit(row, ranges[name]) for name, row in counts.items()}}


def _fit(counts: np.ndarray, span: Range) -> Range:
    """counts: of values in `span`, [BINS]."""
    (low, high), largest = span, max(-span[0], span[1])
    values = low + (np.arange(BINS) + 0.5) * ((high - low) / BINS)

    def error(candidate: Range) -> float:
        clipped = values.clip(*candidate)
        step = (candidate[1] - candidate[0]) / 255
        # Evenly spread between -step / 2 and step / 2. The first bin has all values below a floor,
        # which is an integer.
        rounding = (step / 2) ** NORM / (NORM + 1) * counts[1:][clipped[1:] == values[1:]].sum()
        return float(rounding + counts @ np.abs(clipped - values) ** NORM)

    spans = [(max(low, -f * largest), min(high, f * largest)) for f in FRACTIONS]
    return min(spans, key=error)
