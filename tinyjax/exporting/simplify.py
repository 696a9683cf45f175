"""Simplify a graph: BatchNorm into kernels and biases, sums into means, broadcasts into resizing.

Each step looks at one node and at the one that computes its input, and replaces both.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tinyjax.exporting.graph import Graph, Node

LINEAR = ("Conv", "MatMul")
REDUCTIONS = ("ReduceSum", "ReduceMean", "ReduceMax")


@dataclass
class Context:
    """A graph, and for each tensor its producer and the number of its readers."""

    graph: Graph
    producers: dict[str, Node]
    uses: Counter[str]

    def constant(self, name: str) -> np.ndarray | None:
        return self.graph.constants.get(name)

    def before(self, node: Node, *ops: str, shared: bool = False) -> Node | None:
        """The node that computes the first input, if it is one of `ops` and has no other reader."""
        producer = self.producers.get(node.inputs[0])
        if not producer or producer.op not in ops or (self.uses[node.inputs[0]] > 1 and not shared):
            return None
        return producer

    def shape(self, name: str) -> tuple[int, ...]:
        return self.graph.shapes[name]

    def set_constant(self, node: Node, position: int, array: np.ndarray) -> None:
        name = self.graph.constant(np.asarray(array, np.float32))
        node.inputs[position : position + 1] = [name]


Step = Callable[[Context, Node], bool]  # returns whether it has changed the graph


def simplify(graph: Graph) -> None:
    """Apply all steps until none changes the graph."""
    for node in graph.nodes:
        _write_as_affine(graph, node)
    for steps in (STEPS, (widen,)):  # biases are part of a convolution before it is widened
        while _apply(graph, (*steps, merge_reshapes)):
            pass
    graph.remove_unused()


def _apply(graph: Graph, steps: tuple[Step, ...]) -> bool:
    """Apply steps to each node, in order of computation. Returns whether the graph has changed."""
    changed = False
    context = Context(graph, graph.producers(), graph.uses())
    for node in [*graph.nodes]:
        while context.producers.get(node.outputs[0]) is node and any(
            step(context, node) for step in steps
        ):
            changed = True
            graph.remove_unused()
            context = Context(graph, graph.producers(), graph.uses())
    return changed


def _write_as_affine(graph: Graph, node: Node) -> None:
    """x - c as x + -c, x / c as x * (1 / c), and constants as the second operand."""
    if node.op in ("Add", "Mul") and node.inputs[0] in graph.constants:
        node.inputs.reverse()
    if node.op not in ("Sub", "Div") or node.inputs[1] not in graph.constants:
        return
    array = graph.constants[node.inputs[1]]
    if np.issubdtype(array.dtype, np.floating):
        node.op = {"Sub": "Add", "Div": "Mul"}[node.op]
        inverse = -array if node.op == "Add" else 1 / array.astype(np.float64)
        node.inputs[1] = graph.constant(inverse.astype(array.dtype))


# ---- steps


def merge_constants(context: Context, node: Node) -> bool:
    """(x * a) * b as x * ab, and (x + a) + b as x + (a + b)."""
    inner = context.before(node, node.op) if node.op in ("Add", "Mul") else None
    if not inner or (b := context.constant(node.inputs[1])) is None:
        return False
    if (a := context.constant(inner.inputs[1])) is None or not _is_float(a, b):
        return False
    merged = np.float64(a) + b if node.op == "Add" else np.float64(a) * b
    node.inputs[0] = inner.inputs[0]
    context.set_constant(node, 1, merged)
    return True


def move_scale_inside(context: Context, node: Node) -> bool:
    """(x + a) * b as x * b + ab."""
    inner = context.before(node, "Add") if node.op == "Mul" else None
    if not inner or (b := context.constant(node.inputs[1])) is None:
        return False
    if (a := context.constant(inner.inputs[1])) is None or not _is_float(a, b):
        return False
    inner.op, node.op = "Mul", "Add"
    context.set_constant(inner, 1, b)
    context.set_constant(node, 1, np.float64(a) * b)
    return True


def fold_scale(context: Context, node: Node) -> bool:
    """A factor for each channel after a convolution or product into its kernel and bias."""
    linear = context.before(node, *LINEAR) if node.op == "Mul" else None
    if not linear or (scale := _per_channel(context, node, linear)) is None:
        return False
    kernel = context.constant(linear.inputs[1])
    if kernel is None:
        return False
    shape = (-1,) + (1,) * (kernel.ndim - 1) if linear.op == "Conv" else (-1,)
    context.set_constant(linear, 1, np.float64(kernel) * scale.reshape(shape))
    if len(linear.inputs) > 2:
        context.set_constant(linear, 2, np.float64(context.constant(linear.inputs[2])) * scale)
    context.graph.replace(node.outputs[0], linear.outputs[0])
    return True


def fold_shift(context: Context, node: Node) -> bool:
    """A number added to each channel after a convolution, or a product of matrices, into a bias."""
    linear = context.before(node, *LINEAR) if node.op == "Add" else None
    if not linear or (shift := _per_channel(context, node, linear)) is None:
        return False
    if linear.op == "MatMul":
        weights = context.constant(linear.inputs[1])
        if weights is None or len(context.shape(linear.outputs[0])) != 2:
            return False
        linear.op = "Gemm"
    if len(linear.inputs) < 3:
        linear.inputs.append("")
    else:
        shift = shift + np.float64(context.constant(linear.inputs[2]))
    context.set_constant(linear, 2, shift)
    context.graph.replace(node.outputs[0], linear.outputs[0])
    return True


def sum_to_mean(context: Context, node: Node) -> bool:
    """A sum, perhaps reshaped, times 1 / (number of elements) as a mean."""
    if node.op != "Mul":
        return False
    reshape = context.before(node, "Reshape")
    total = context.before(reshape or node, "ReduceSum")
    if not total or (factor := context.constant(node.inputs[1])) is None or factor.size != 1:
        return False
    axes = context.graph.constants[total.inputs[1]]
    count = np.prod([context.shape(total.inputs[0])[axis] for axis in axes])
    if not np.isclose(factor.item() * count, 1, rtol=1e-6):
        return False
    total.op = "ReduceMean"
    context.graph.replace(node.outputs[0], node.inputs[0])
    return True


def keep_axes(context: Context, node: Node) -> bool:
    """A reduction and a reshape that restores its axes, with size 1, as a reduction with them."""
    total = context.before(node, *REDUCTIONS) if node.op == "Reshape" else None
    if not total or total.attributes["keepdims"]:
        return False
    sizes = [*context.shape(total.inputs[0])]
    for axis in context.graph.constants[total.inputs[1]]:
        sizes[axis] = 1
    if context.shape(node.outputs[0]) != tuple(sizes):
        return False
    total.attributes = {"keepdims": 1}
    total.outputs = node.outputs
    node.outputs = [f"{total.outputs[0]}_unused"]
    return True


def merge_reshapes(context: Context, node: Node) -> bool:
    """A reshape of a reshape as one; a reshape to the same shape as none."""
    if node.op != "Reshape":
        return False
    if context.shape(node.inputs[0]) == context.shape(node.outputs[0]):
        is_output = node.outputs[0] in context.graph.outputs.values()
        if is_output and node.inputs[0] not in context.producers:
            return False  # an output of the graph needs a node of its own
        context.graph.replace(node.outputs[0], node.inputs[0])
        return True
    inner = context.before(node, "Reshape", shared=True)
    if not inner:
        return False
    node.inputs[0] = inner.inputs[0]
    return True


def upsample(context: Context, node: Node) -> bool:
    """Maps [n, c, h, 1, w, 1], broadcast and merged, as resizing by whole factors."""
    expand = context.before(node, "Expand") if node.op == "Reshape" else None
    inner = context.before(expand, "Reshape", shared=True) if expand else None
    if not expand or not inner or len(context.shape(inner.inputs[0])) != 4:
        return False
    n, c, h, w = context.shape(inner.inputs[0])
    wide = context.shape(expand.outputs[0])
    if context.shape(inner.outputs[0]) != (n, c, h, 1, w, 1) or len(wide) != 6:
        return False
    if context.shape(node.outputs[0]) != (n, c, h * wide[3], w * wide[5]):
        return False
    scales = np.array([1, 1, wide[3], wide[5]], np.float32)
    node.op = "Resize"
    node.inputs = [inner.inputs[0], "", context.graph.constant(scales)]
    node.attributes = {
        "mode": "nearest",
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    }
    return True


def widen(context: Context, node: Node) -> bool:
    """A pointwise convolution of flattened maps as one of the maps."""
    inner = context.before(node, "Reshape", shared=True) if node.op == "Conv" else None
    if not inner or len(context.shape(node.inputs[0])) != 3:
        return False
    shape, flat = context.shape(inner.inputs[0]), context.shape(node.inputs[0])
    kernel = context.graph.constants[node.inputs[1]]
    if len(shape) != 4 or shape[:2] != flat[:2] or kernel.shape[2:] != (1,):
        return False
    graph, features = context.graph, context.shape(node.outputs[0])
    inputs = [inner.inputs[0], graph.constant(kernel[..., None]), *node.inputs[2:]]
    maps = graph.add("Conv", *inputs, shape=(features[0], features[1], *shape[2:]))
    # Where the node was, because nodes are in order of computation.
    graph.nodes.insert(graph.nodes.index(node), graph.nodes.pop())
    node.op, node.attributes = "Reshape", {}
    node.inputs = [maps, graph.constant(np.array(features, np.int64))]
    return True


def _is_float(*arrays: np.ndarray) -> bool:
    return all(np.issubdtype(array.dtype, np.floating) for array in arrays)


def _per_channel(context: Context, node: Node, linear: Node) -> np.ndarray | None:
    """The constant operand as one number per channel, float64 [C]; None if it is none."""
    array = context.constant(node.inputs[1])
    shape = context.shape(linear.outputs[0])
    if array is None or not _is_float(array) or array.ndim > len(shape):
        return None
    axis = 1 if linear.op == "Conv" else len(shape) - 1
    sizes = (1,) * (len(shape) - array.ndim) + array.shape
    if any(n != 1 for i, n in enumerate(sizes) if i != axis):
        return None
    return np.broadcast_to(array.reshape(-1).astype(np.float64), (shape[axis],))


STEPS: tuple[Step, ...] = (
    merge_constants, move_scale_inside, fold_scale, fold_shift, keep_axes, sum_to_mean, upsample,
)  # fmt: skip
