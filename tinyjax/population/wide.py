"""Members side by side: the channels of all members on the last axis of every activation.

    batched = side_by_side(function, size)  # equals jax.vmap(function) of `size` members

A TPU pads the last axis of an array to 128 lanes. The networks here have 8 to 96 channels, so a
vmapped array [M, B, H, W, C] is mostly padding, and [B, H, W, M C] hardly. Most operations of a
network do not mix channels: they are the same for M C channels as for C. Convolutions that mix
channels have block-diagonal kernels (`ops.block_conv`).

    form      a value [.., C] of one member, as an array
    shared    [.., C]      the same for all members
    stacked   [M, .., C]   as vmap has it
    wide      [.., M C], or in G groups of images [B / G, .., G M C]

Where M C is below 128, groups of images fill the lanes as more members would: image G b + g of a
member is part g of row b. All groups of a member have its kernels.

The function is traced for one member and evaluated with these forms. The output of a convolution is
wide, and what is computed from it stays wide, until an operation has no rule for it (`wide_rules`):
that operation is vmapped.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_batching import custom_vmap
from jax.extend import core as jex

from tinyjax.ops import calls
from tinyjax.population import wide_rules
from tinyjax.population.wide_value import Value


def value_and_grad(loss: Callable[[Any, Any], tuple[Array, Any]]) -> Callable[..., Any]:
    """`jax.value_and_grad(loss, has_aux=True)`, of which vmap evaluates all members side by side.

    loss: (trained, rest) -> (f[], aux), pytrees of arrays.
    """
    function = custom_vmap(jax.value_and_grad(loss, has_aux=True))

    @function.def_vmap
    def _all_members(size, batched, trained, rest):
        def repeat(leaf, is_batched):  # each member has a gradient of its own
            return leaf if is_batched else jnp.broadcast_to(leaf, (size, *leaf.shape))

        trained = jax.tree.map(repeat, trained, batched[0])
        losses_of = side_by_side(loss, size, (True, batched[1]))

        def total(trained):  # members are independent: its gradient has that of each member
            losses, aux = losses_of(trained, rest)
            return losses.sum(), (losses, aux)

        gradients, values = jax.grad(total, has_aux=True)(trained)
        results = values, gradients
        return results, jax.tree.map(lambda _: True, results)

    return function


def side_by_side(
    function: Callable[..., Any], size: int, batched: Sequence[Any] | bool = True
) -> Callable[..., Any]:
    """The function of `size` members: pytrees of arrays [M, ..] -> pytree of arrays [M, ..].

    batched: for each argument, or parts of it, whether it has axis M; members share the others.
    """

    def all_members(*args):
        is_batched = jax.tree.leaves(jax.tree.broadcast(batched, args))
        leaves, structure = jax.tree.flatten(args)
        inputs = [
            Value(leaf, "stacked" if has_members else "shared", size)
            for leaf, has_members in zip(leaves, is_batched, strict=True)
        ]
        member_shapes = [
            jax.ShapeDtypeStruct(leaf.shape[has_members:], leaf.dtype)
            for leaf, has_members in zip(leaves, is_batched, strict=True)
        ]
        traced, shapes = jax.make_jaxpr(function, return_shape=True)(
            *jax.tree.unflatten(structure, member_shapes)
        )
        results = _evaluate(traced.jaxpr, traced.consts, inputs, size)
        return jax.tree.unflatten(jax.tree.structure(shapes), [v.stacked() for v in results])

    return all_members


def _evaluate(
    jaxpr: Any, constants: Sequence[Any], inputs: Sequence[Value], size: int
) -> list[Value]:
    shared = (Value(constant, "shared", size) for constant in constants)
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*shared, *inputs), strict=True))

    def read(atom: Any) -> Value:
        if isinstance(atom, jex.Literal):
            return Value(atom.val, "shared", size)
        return values[atom]

    for equation in jaxpr.eqns:
        results = _apply(equation, [read(atom) for atom in equation.invars], size)
        values |= dict(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _apply(equation: Any, inputs: list[Value], size: int) -> list[Value]:
    name, params = equation.primitive.name, equation.params
    # The rules know the forms that are not for CPU. Of forms for TPU, the compiler chooses.
    if name == "platform_index" and any("cpu" in (names or ()) for names in params["platforms"]):
        return [Value(calls.platform_form(params), "shared", size)]
    if name == "cond" and isinstance(inputs[0].array, int):
        branch = params["branches"][inputs[0].array]
        return _evaluate(branch.jaxpr, branch.consts, inputs[1:], size)
    if name in calls.CALLED:
        called = params[calls.CALLED[name]]
        return _evaluate(*_open(called), inputs, size)
    if name in ("custom_jvp_call", "custom_vjp_call"):
        called = params["call_jaxpr"]
        call_name = calls.call_name(params, called)
        if call_name in wide_rules.INLINED:  # its derivative is that of its operations
            return _evaluate(*_open(called), inputs, size)
        rule = wide_rules.CALLS.get(call_name)
    else:
        rule = wide_rules.RULES.get(name)
    results = rule and rule(equation, inputs)
    return results or _vmap(equation, inputs, size)


def _vmap(equation: Any, inputs: list[Value], size: int) -> list[Value]:
    """The results of an equation by vmap; shared ones if all inputs are shared."""
    variables = {
        atom: value
        for atom, value in zip(equation.invars, inputs, strict=True)
        if not isinstance(atom, jex.Literal)
    }
    names = tuple(str(i) for i in range(len(variables))), tuple(map(str, equation.outvars))
    info = jex.DebugInfo("vmap", equation.primitive.name, *names)
    single = jex.Jaxpr(
        (), [*variables], equation.outvars, [equation], equation.effects, debug_info=info
    )
    function, values = jex.jaxpr_as_fun(jex.ClosedJaxpr(single, ())), variables.values()
    if all(value.form == "shared" for value in values):
        return [Value(x, "shared", size) for x in function(*(value.array for value in values))]
    axes = [None if value.form == "shared" else 0 for value in values]
    arrays = [value.array if value.form == "shared" else value.stacked() for value in values]
    results = jax.vmap(function, axes, axis_size=size)(*arrays)
    return [Value(result, "stacked", size) for result in results]


def _open(called: Any) -> tuple[Any, Sequence[Any]]:
    """The jaxpr and the constants of a called function."""
    return (called.jaxpr, called.consts) if hasattr(called, "consts") else (called, ())
