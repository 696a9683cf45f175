"""The values of the activations of a float32 LiteRT file, on batches of its input."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tinyjax.exporting import flatbuffer, padding, runtimes

Inputs = Sequence[np.ndarray]  # batches float32 [B, H, W, C] that the file reads
Range = tuple[float, float]  # least and greatest value
Reduction = Callable[..., np.ndarray]  # (array, axis=..)


def run_batches(file: bytes, inputs: Inputs) -> Iterator[Callable[[int], np.ndarray]]:
    """For each batch, a function from the index of a tensor to its values."""
    interpreter = runtimes.make_interpreter(file, keep_tensors=True)
    run = interpreter.get_signature_runner(runtimes.SIGNATURE)
    name = flatbuffer.input_name(flatbuffer.read(file))
    for batch in inputs:
        run(**{name: batch})
        yield interpreter.get_tensor


def find_activations(model: Any) -> dict[int, str]:
    """The input and the outputs of all operators of a `ModelT`: index -> name."""
    graph = model.subgraphs[0]
    tensors = [*graph.inputs, *(index for op in graph.operators for index in op.outputs)]
    return {index: graph.tensors[index].name.decode() for index in tensors}


def measure(file: bytes, inputs: Inputs) -> dict[str, Range]:
    """Ranges of the input and of all activations, by tensor. The padding of max pooling is no value
    (`padding`).
    """
    names = find_activations(flatbuffer.read(file))
    # From 0, which an integer tensor needs for padding.
    lows, highs = (dict.fromkeys(names.values(), 0.0) for _ in range(2))
    for read in run_batches(file, inputs):
        for index, name in names.items():
            values = read(index)
            low = values.min(initial=0, where=values > padding.LEAST)
            lows[name] = min(lows[name], float(low))
            highs[name] = max(highs[name], float(values.max()))
    return {name: (lows[name], highs[name]) for name in lows}


def count_values(
    file: bytes, ranges: Mapping[str, Range], inputs: Inputs, bins: int
) -> dict[str, np.ndarray]:
    """Histograms of all float activations over their ranges, by tensor: int64 [bins]. The first and
    the last bin have the values outside. 0 is left out: integers represent it exactly.
    """
    names = find_activations(flatbuffer.read(file))
    counts: dict[str, np.ndarray] = {}
    for read in run_batches(file, inputs):
        for index, name in names.items():
            values, (low, high) = read(index), ranges[name]
            if values.dtype != np.float32 or high <= low:
                continue
            numbers = (values[values != 0].clip(low, high) - low) * (bins / (high - low))
            row = np.bincount(numbers.astype(np.int32).clip(max=bins - 1), minlength=bins)
            counts[name] = counts.get(name, 0) + row
    return counts


def channel_values(
    file: bytes,
    tensors: Sequence[int],
    inputs: Inputs,
    reduce: Reduction,
    spans: Sequence[Range] | None = None,
) -> list[np.ndarray]:
    """A number for each channel of tensors over all inputs: [C] of each.

    Args:
        reduce: such as `np.mean`, over the positions of a batch, and then over batches.
        spans: values of each tensor are clipped to these.
    """
    spans, rows = spans or [(-np.inf, np.inf)] * len(tensors), []
    for read in run_batches(file, inputs):
        pairs = zip(tensors, spans, strict=True)
        rows.append([over_positions(read(i).clip(*span), reduce) for i, span in pairs])
    return [reduce(np.stack(column), axis=0) for column in zip(*rows, strict=True)]


def over_positions(values: np.ndarray, reduce: Reduction) -> np.ndarray:
    """[.., C] -> [C]."""
    return reduce(values.reshape(-1, values.shape[-1]), axis=0)
