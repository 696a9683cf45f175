"""A graph of ONNX operations while it is built and simplified: nodes, constants, and shapes."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

# The batch size of the traced function: a prime that divides no other dimension, so that a
# dimension k * BATCH is k times the batch size of the file.
BATCH = 8191


Operand = str | np.ndarray | np.generic  # a tensor, or a constant


class Unsupported(Exception):
    """An operation that has no form in ONNX; the message names it."""


@dataclass
class Node:
    """One operation; its outputs are named tensors."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Graph:
    """Nodes in order of computation. A tensor is an input, a constant or an output of a node."""

    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)  # of inputs and of nodes
    dtypes: dict[str, np.dtype] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)  # name in the file -> tensor
    _numbers: Iterator[int] = field(default_factory=count, repr=False)  # of new names

    def add_input(self, name: str, shape: tuple[int, ...], dtype: Any) -> str:
        self.inputs.append(name)
        self.shapes[name], self.dtypes[name] = shape, np.dtype(dtype)
        return name

    def add(
        self,
        op: str,
        *inputs: Operand,
        shape: tuple[int, ...],
        dtype: Any = np.float32,
        **attributes: Any,
    ) -> str:
        """Append a node with one output and return the output's name. Arrays become constants."""
        return self.add_node(op, inputs, [(shape, dtype)], **attributes)[0]

    def add_node(
        self,
        op: str,
        inputs: Iterable[Operand],
        outputs: Iterable[tuple[tuple[int, ...], Any]],
        **attributes: Any,
    ) -> list[str]:
        """Append a node with outputs of the given shapes and dtypes; returns their names."""
        operands = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        names = []
        for shape, dtype in outputs:
            names.append(f"{op.lower()}_{next(self._numbers)}")
            self.shapes[names[-1]], self.dtypes[names[-1]] = tuple(shape), np.dtype(dtype)
        self.nodes.append(Node(op, operands, names, attributes))
        return names

    def constant(self, array: np.ndarray | np.generic) -> str:
        name = f"constant_{next(self._numbers)}"
        self.constants[name] = np.asarray(array)
        return name

    def reshape(self, tensor: str, shape: tuple[int, ...]) -> str:
        """The tensor in another shape; at most one dimension of each shape depends on the batch."""
        if self.shapes[tensor] == shape:
            return tensor
        sizes = np.array(shape, np.int64)
        return self.add("Reshape", tensor, sizes, shape=shape, dtype=self.dtypes[tensor])

    def transpose(self, tensor: str, order: tuple[int, ...]) -> str:
        """The tensor with axis `order[i]` as axis i; moving axes of size 1 is a reshape."""
        shape = self.shapes[tensor]
        moved = [axis for axis in order if shape[axis] != 1]
        new_shape = tuple(shape[axis] for axis in order)
        if moved == sorted(moved):
            return self.reshape(tensor, new_shape)
        return self.add(
            "Transpose", tensor, shape=new_shape, dtype=self.dtypes[tensor], perm=list(order)
        )

    # ---- for simplification

    def producers(self) -> dict[str, Node]:
        """Tensor -> the node that computes it."""
        return {name: node for node in self.nodes for name in node.outputs}

    def uses(self) -> Counter[str]:
        """Tensor -> how many nodes and outputs of the graph read it."""
        return Counter([x for node in self.nodes for x in node.inputs] + [*self.outputs.values()])

    def replace(self, tensor: str, by: str) -> None:
        """Let all readers of `tensor` read `by`."""
        for node in self.nodes:
            node.inputs = [by if x == tensor else x for x in node.inputs]
        self.outputs = {k: by if x == tensor else x for k, x in self.outputs.items()}

    def remove_unused(self) -> None:
        """Remove nodes and constants that no output depends on."""
        needed, kept = {*self.outputs.values()}, []
        for node in reversed(self.nodes):
            if needed & {*node.outputs}:
                needed |= {*node.inputs}
                kept.append(node)
        self.nodes = kept[::-1]
        self.constants = {k: a for k, a in self.constants.items() if k in needed}
