"""Channels of equal size between two layers without an activation.

    file = equalize(file, inputs)  # the same function, float32

An int8 tensor has one scale. If one channel of a convolution has values 100 times as large as
another one, the small one is lost. Where a single convolution or linear layer reads the output,
with no activation between them but ReLU, a channel may be divided by a number by which the kernel
of the next layer multiplies it: cross-layer equalization (Nagel et al., arXiv 1906.04721, equation
11; with the range of the output instead of the first kernel, whose channels have scales).
"""

from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np

from tinyjax.exporting import flatbuffer
from tinyjax.exporting.activations import Inputs, channel_values
from tinyjax.exporting.flatbuffer import CHANNEL_AXES

KEPT = ("PAD", "RESIZE_NEAREST_NEIGHBOR")  # operators whose result scales with their input
MAX_SCALE = 100.0  # and its inverse


class Link(NamedTuple):
    """Two layers, as numbers of operators; the second one alone reads the output of the first."""

    first: int
    second: int


def equalize(file: bytes, inputs: Inputs) -> bytes:
    """A float32 file with the same outputs, in which channels have similar ranges where this is
    possible. inputs: batches that the file reads.
    """
    model = flatbuffer.read(file)
    graph, names = model.subgraphs[0], flatbuffer.operator_names(model)
    links = find_links(model)
    outputs = [graph.operators[link.first].outputs[0] for link in links]
    maxima = channel_values(file, outputs, inputs, largest_size)
    for link, largest in zip(links, maxima, strict=True):
        first, second = graph.operators[link.first], graph.operators[link.second]
        kernel = flatbuffer.constant(model, second.inputs[1])
        scales = np.where(largest > 0, largest / max(largest.max(), 1e-9), 1)
        if names[link.second] != "DEPTHWISE_CONV_2D":  # whose channels have scales of their own
            weights = largest_size(kernel, axis=tuple(range(kernel.ndim - 1)))
            scales = np.sqrt(scales * weights.max() / np.maximum(weights, 1e-9))
        scales = scales.clip(1 / MAX_SCALE, MAX_SCALE).astype(np.float32)
        _scale(model, second, 1, scales, -1)
        _scale(model, first, 1, 1 / scales, CHANNEL_AXES[names[link.first]])
        _scale(model, first, 2, 1 / scales, 0)
    flatbuffer.prune(model)
    return flatbuffer.pack(model)


def largest_size(values: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    """The largest absolute value along axes."""
    return np.abs(values).max(axis)


def find_links(model: Any) -> list[Link]:
    """All pairs of layers of a `ModelT` that can be equalized."""
    graph, names = model.subgraphs[0], flatbuffer.operator_names(model)
    activations = flatbuffer.import_schema().ActivationFunctionType
    readers = defaultdict(list)
    for number, op in enumerate(graph.operators):
        for index in op.inputs:
            readers[index].append(number)
    layers, links = flatbuffer.find_layers(model), []
    for number in layers:
        op = graph.operators[number]
        if op.builtinOptions.fusedActivationFunction not in (activations.NONE, activations.RELU):
            continue
        (tensor,) = op.outputs
        while len(readers[tensor]) == 1 and tensor not in graph.outputs:
            (reader,) = readers[tensor]
            if reader in layers:
                channels = graph.tensors[tensor].shape[-1]
                if graph.tensors[graph.operators[reader].inputs[1]].shape[-1] == channels:
                    links.append(Link(number, reader))
            if names[reader] not in KEPT:
                break
            (tensor,) = graph.operators[reader].outputs
    return links


def _scale(model: Any, op: Any, slot: int, scales: np.ndarray, axis: int) -> None:
    """Multiply the channels of a constant that an operator reads, in place. Other operators that
    read it keep the old one.
    """
    values = flatbuffer.constant(model, op.inputs[slot])
    shape = [1] * values.ndim
    shape[axis] = -1
    name = f"scaled_{len(model.subgraphs[0].tensors)}"
    values = values * scales.reshape(shape)
    op.inputs[slot] = flatbuffer.add_tensor(model, name, values.shape, "FLOAT32", values)
