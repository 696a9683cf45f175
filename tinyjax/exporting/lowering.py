"""A traced function as a graph of ONNX operations.

Calls are inlined, except those of `rules.CALLS`; where the library has a form for CPU and another
one, the other one is exported; whatever does not depend on the image is computed here.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex

from tinyjax.exporting.functions import ExportedFunction
from tinyjax.exporting.graph import BATCH, Graph, Unsupported
from tinyjax.exporting.layout import Layout, Value, constant
from tinyjax.exporting.rules import CALLS, RULES
from tinyjax.ops import calls

CALLED = {
    **calls.CALLED,
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "call_jaxpr",
    "custom_vmap_call": "call",
}


def lower(function: ExportedFunction) -> Graph:
    """Return the graph of a function, whose outputs have the names and axes of the function's.

    Raises Unsupported for a primitive without a rule.
    """
    struct = function.shape_struct(BATCH)
    traced, shapes = jax.make_jaxpr(function.call, return_shape=True)(struct)
    graph = Graph()
    layout = Layout(graph)
    name = graph.add_input(function.input_name, struct.shape, struct.dtype)
    # Channels first at once, while the image is uint8.
    image = Value(struct.shape, graph.transpose(name, (0, 3, 1, 2)), (0, 3, 1, 2))
    results = _evaluate(layout, traced.jaxpr, traced.consts, [image])
    for output, value in zip(sorted(shapes), results, strict=True):  # in the order of jax's trees
        graph.outputs[output] = layout.tensor(value)
    graph.remove_unused()
    for array in graph.constants.values():
        if array.ndim and any(n and n % BATCH == 0 for n in array.shape):
            raise Unsupported("an array that depends on the batch size alone")
    return graph


def _evaluate(
    layout: Layout, jaxpr: Any, constants: Sequence[Any], inputs: Sequence[Value]
) -> list[Value]:
    values = dict(zip(jaxpr.constvars, (constant(np.asarray(c)) for c in constants), strict=True))
    values |= dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Value:
        if isinstance(atom, jex.Literal):
            return constant(np.asarray(atom.val, getattr(atom.aval, "dtype", None)))
        return values[atom]

    for equation in jaxpr.eqns:
        results = _apply(layout, equation, [read(atom) for atom in equation.invars])
        values |= dict(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _apply(layout: Layout, equation: Any, inputs: list[Value]) -> list[Value]:
    name, params = equation.primitive.name, equation.params
    if name == "platform_index":
        return [constant(np.int32(calls.platform_form(params)))]
    if name == "cond" and inputs[0].is_constant:
        branches = params["branches"]
        branch = branches[min(max(int(inputs[0].data), 0), len(branches) - 1)]
        return _evaluate(layout, branch.jaxpr, branch.consts, inputs[1:])
    variable = any(not value.is_constant for value in inputs)
    if name in CALLED:
        called = params[CALLED[name]]
        rule = CALLS.get(calls.call_name(params, called)) if variable else None
        if rule:
            return [rule(layout, equation, *inputs)]
        return _evaluate(layout, called.jaxpr, called.consts, inputs)
    if not variable and (results := _fold(equation, inputs)) is not None:
        return results
    if name not in RULES:
        raise Unsupported(f"the primitive {name!r} of jax")
    result = RULES[name](layout, equation, *inputs)
    return result if isinstance(result, list) else [result]


# ---- constants

NUMPY: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.true_divide,
    "neg": np.negative, "max": np.maximum, "min": np.minimum, "sqrt": np.sqrt, "exp": np.exp,
    "square": np.square, "rsqrt": lambda x: (1 / np.sqrt(x)).astype(x.dtype),
    "stop_gradient": lambda x: x, "copy": lambda x: x,
}  # fmt: skip
LAZY = ("broadcast_in_dim",)  # results that may be larger than what they are computed from


def _fold(equation: Any, inputs: list[Value]) -> list[Value] | None:
    """The results of an equation of constants; None if a rule must compute them."""
    name, params = equation.primitive.name, equation.params
    out = equation.outvars[0].aval
    if name in LAZY or any(n and n % BATCH == 0 for v in inputs for n in v.shape):
        return None
    arrays = [np.broadcast_to(value.data, value.shape) for value in inputs]
    if name in NUMPY and not np.issubdtype(out.dtype, np.integer):
        return [constant(np.asarray(NUMPY[name](*arrays), out.dtype))]
    if name in ("reshape", "squeeze"):
        return [constant(arrays[0].reshape(out.shape))]
    if name == "convert_element_type":
        return [constant(arrays[0].astype(out.dtype))]
    if any(n and n % BATCH == 0 for n in out.shape):
        return None
    with jax.ensure_compile_time_eval():
        results = equation.primitive.bind(*arrays, **params)
    results = results if equation.primitive.multiple_results else [results]
    return [constant(np.asarray(result)) for result in results]
