"""Values of a traced function, and where their axes are in ONNX tensors.

ONNX convolutions read channels first, and jax functions have them last. No axis is moved until an
operation needs it: a value remembers which axis of its tensor is which of its own axes. A network
of convolutions keeps channels first from its input to its outputs, so that the only transposes are
at the boundary: of a color image, and of outputs with several channels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinyjax.exporting.graph import BATCH, Graph

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Value:
    """An array of the traced function: a constant, or a tensor of the graph.

    An axis of the tensor may have size 1 instead of the value's: it broadcasts.
    """

    shape: Shape
    data: np.ndarray | str  # a constant has its axes in the value's order
    order: Shape = ()  # axis of the tensor -> axis of the value

    @property
    def is_constant(self) -> bool:
        return not isinstance(self.data, str)


def constant(array: np.ndarray | np.generic, shape: Shape | None = None) -> Value:
    """A constant. shape: that it broadcasts to."""
    array = np.asarray(array)
    shape = array.shape if shape is None else shape
    return Value(shape, array, tuple(range(len(shape))))


class Layout:
    """Tensors of a graph as values, and operations that move, merge and split their axes."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._reshaped: dict[str, tuple[Value, Value]] = {}  # tensor -> result of reshape, operand

    def sizes(self, value: Value) -> Shape:
        """The shape of the tensor."""
        return self.graph.shapes[value.data] if isinstance(value.data, str) else value.data.shape

    def dtype(self, value: Value) -> np.dtype:
        return self.graph.dtypes[value.data] if isinstance(value.data, str) else value.data.dtype

    def position(self, value: Value, axis: int) -> int:
        """The axis of the tensor that is `axis` of the value."""
        return value.order.index(axis)

    def ordered(self, value: Value, order: Shape) -> np.ndarray | str:
        """The tensor or constant with its axes in the given order; scalars stay scalars."""
        if not value.shape:
            return value.data
        if isinstance(value.data, str):
            moves = tuple(self.position(value, axis) for axis in order)
            return self.graph.transpose(value.data, moves)
        return value.data.transpose(order)

    def common_order(self, values: Sequence[Value], rank: int) -> Shape:
        """The order of axes in which most of the data are; channels first, if in doubt."""
        tensors = [v for v in values if not v.is_constant and len(v.shape) == rank]
        if not tensors:
            return tuple(range(rank))
        return max(
            tensors, key=lambda v: (math.prod(self.sizes(v)), v.order != (*range(rank),))
        ).order

    def expanded(self, value: Value) -> Value:
        """The value without axes that broadcast."""
        full = tuple(value.shape[axis] for axis in value.order)
        sizes = self.sizes(value)
        if sizes == full:
            return value
        grows_batch = any(n % BATCH == 0 and m == 1 for n, m in zip(full, sizes, strict=True))
        if isinstance(value.data, np.ndarray) and not grows_batch:
            return constant(np.broadcast_to(value.data, full))
        # A dimension of 1 leaves that of the tensor as it is.
        shape = [1 if n == m else n for n, m in zip(full, sizes, strict=True)]
        dtype = self.dtype(value)
        target = self._batch_sizes(shape) if grows_batch else np.array(shape, np.int64)
        tensor = self.graph.add("Expand", value.data, target, shape=full, dtype=dtype)
        return Value(value.shape, tensor, value.order)

    def _batch_sizes(self, shape: Sequence[int]) -> str:
        """The shape as a tensor, with the actual batch size."""
        graph, image = self.graph, self.graph.inputs[0]
        batch = graph.add("Shape", image, shape=(1,), dtype=np.int64, start=0, end=1)
        factors = np.array([n // BATCH if n % BATCH == 0 else 0 for n in shape], np.int64)
        rest = np.array([0 if n % BATCH == 0 else n for n in shape], np.int64)
        scaled = graph.add("Mul", batch, factors, shape=(len(shape),), dtype=np.int64)
        return graph.add("Add", scaled, rest, shape=(len(shape),), dtype=np.int64)

    def plain(self, value: Value) -> Value:
        """The value with its axes in order, without any that broadcast."""
        order = tuple(range(len(value.shape)))
        return self.expanded(Value(value.shape, self.ordered(value, order), order))

    def tensor(self, value: Value) -> str:
        """The value as a tensor with its axes in order."""
        data = self.plain(value).data
        return data if isinstance(data, str) else self.graph.constant(data)

    # ---- change of shape

    def insert_axes(self, value: Value, shape: Shape, axes: Shape) -> Value:
        """Axis i of the value becomes axis `axes[i]` of `shape`; the others are new and broadcast.

        A new axis follows the tensor's axis of the one before it: then channels that are stacked
        and merged stay where they are.
        """
        if isinstance(value.data, np.ndarray):
            sizes = [1] * len(shape)
            for axis, n in zip(axes, value.data.shape, strict=True):
                sizes[axis] = n
            return constant(value.data.reshape(sizes), shape)
        order = _with_new_axes([axes[axis] for axis in value.order], len(shape))
        old = dict(zip([axes[axis] for axis in value.order], self.sizes(value), strict=True))
        sizes = [old.get(axis, 1) for axis in order]
        return Value(shape, self.graph.reshape(value.data, tuple(sizes)), order)

    def reshape(self, value: Value, shape: Shape) -> Value:
        """The value with the same elements in another shape."""
        if isinstance(value.data, np.ndarray):
            return constant(np.broadcast_to(value.data, value.shape).reshape(shape))
        result, operand = self._reshaped.get(value.data, (None, None))
        if operand and result == value:  # a reshape of a reshape
            value = operand
        if value.shape == shape:
            return value
        value = self.expanded(value)
        order = _order_after_reshape(value.shape, shape, value.order)
        source = value
        if order is None:
            value, order = self.plain(value), tuple(range(len(shape)))
        tensor = self.graph.reshape(str(value.data), tuple(shape[axis] for axis in order))
        reshaped = Value(shape, tensor, order)
        self._reshaped.setdefault(tensor, (reshaped, source))
        return reshaped

    def drop_axes(self, value: Value, axes: Sequence[int], tensor: str) -> Value:
        """The value of a tensor whose `axes` have been reduced."""
        kept = [axis for axis in range(len(value.shape)) if axis not in axes]
        order = tuple(kept.index(axis) for axis in value.order if axis in kept)
        return Value(tuple(value.shape[axis] for axis in kept), tensor, order)


def _with_new_axes(order: Sequence[int], rank: int) -> Shape:
    """Insert the missing axes of a value into the order of its tensor, see `insert_axes`."""
    result = list(order)
    for axis in range(rank):
        if axis not in result:
            result.insert(result.index(axis - 1) + 1 if axis else 0, axis)
    return tuple(result)


def _order_after_reshape(old: Shape, new: Shape, order: Shape) -> Shape | None:
    """The order of axes after a reshape of the tensor alone, or None if that is impossible.

    A reshape merges and splits groups of neighboring axes. It works on the tensor if the axes of
    each group are neighbors there, too, and in the same order.
    """
    groups = _groups(old, new)
    rank_in_tensor = [axis for axis in order if old[axis] != 1]
    result: list[int] = []
    while rank_in_tensor:
        group = next(g for g in groups if rank_in_tensor[0] in g[0])
        if rank_in_tensor[: len(group[0])] != group[0]:
            return None
        result += group[1]
        rank_in_tensor = rank_in_tensor[len(group[0]) :]
    return _with_new_axes(result, len(new))


def _groups(old: Shape, new: Shape) -> list[tuple[list[int], list[int]]]:
    """Pairs of axes, of more than one element, with equal products of sizes."""
    left = [i for i, n in enumerate(old) if n != 1]
    right = [i for i, n in enumerate(new) if n != 1]
    groups = []
    while left:
        sources, targets = [left.pop(0)], [right.pop(0)]
        a, b = old[sources[0]], new[targets[0]]
        while a != b:
            if a < b:
                sources.append(left.pop(0))
                a *= old[sources[-1]]
            else:
                targets.append(right.pop(0))
                b *= new[targets[-1]]
        groups.append((sources, targets))
    return groups
