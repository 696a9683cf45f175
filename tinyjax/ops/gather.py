"""Rows and entries of arrays by index; on a TPU by products with one-hot matrices.

A TPU stores each gathered row of 4 values in 128 lanes, and scatters the rows of a gradient one
after the other: those of a detector's loss moved six times the bytes of its whole network
(docs/scaling.md). Elsewhere a gather is faster.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

BFLOAT16_BITS = 8  # of a significand
MAX_COLUMNS = 128  # of a product that selects one column per row: the lanes of a TPU

# custom_vjp must wrap platform_dependent: the reverse order fails.


@jax.custom_vjp
def take_rows(values: Array, index: Array) -> Array:
    """values[index]: float [N, C], int [K] in 0 .. N - 1 -> [K, C].

    `values` must be finite: on a TPU, one that is not makes its whole column NaN.
    """
    return lax.platform_dependent(values, index, tpu=_select_rows, default=_gather_rows)


def _take_rows_fwd(values, index):
    return take_rows(values, index), (values, index)


def _take_rows_bwd(residuals, dy):
    forms = {"tpu": _sum_rows, "default": _scatter_rows}
    return lax.platform_dependent(*residuals, dy, **forms), None


take_rows.defvjp(_take_rows_fwd, _take_rows_bwd)


def take_entries(values: Array, rows: Array, columns: Array) -> Array:
    """values[rows, columns]: float [N, C], int [K], int [K] -> [K].

    `values` must be finite, see `take_rows`. With more than MAX_COLUMNS, a TPU gathers, too.
    """
    if values.shape[1] > MAX_COLUMNS:
        return values.at[rows, columns].get(mode="promise_in_bounds")
    return _take_entries(values, rows, columns)


@jax.custom_vjp
def _take_entries(values, rows, columns):
    forms = {"tpu": _select_entries, "default": _gather_entries}
    return lax.platform_dependent(values, rows, columns, **forms)


def _take_entries_fwd(values, rows, columns):
    return _take_entries(values, rows, columns), (values, rows, columns)


def _take_entries_bwd(residuals, dy):
    forms = {"tpu": _sum_entries, "default": _scatter_entries}
    return lax.platform_dependent(*residuals, dy, **forms), None, None


_take_entries.defvjp(_take_entries_fwd, _take_entries_bwd)


def take_last(values: Array, index: Array) -> Array:
    """Values of a short last axis: [.., N], int [.., K] in 0 .. N - 1 -> [.., K]."""
    return lax.platform_dependent(values, index, tpu=_select_last, default=_gather_last)


# ---- gathers and scatters


def _gather_rows(values, index):
    return values.at[index].get(mode="promise_in_bounds")


def _scatter_rows(values, index, dy):
    return jnp.zeros_like(values).at[index].add(dy, mode="promise_in_bounds")


def _gather_entries(values, rows, columns):
    return values.at[rows, columns].get(mode="promise_in_bounds")


def _scatter_entries(values, rows, columns, dy):
    return jnp.zeros_like(values).at[rows, columns].add(dy, mode="promise_in_bounds")


def _gather_last(values, index):
    return jnp.take_along_axis(values, index, -1, mode="promise_in_bounds")


# ---- products and masked sums


def _select_rows(values, index):
    return _product("kn,pnc->pkc", _equal(index, len(values)), values)


def _sum_rows(values, index, dy):
    return _product("kn,pkc->pnc", _equal(index, len(values)), dy)


def _select_entries(values, rows, columns):
    return jnp.where(_equal(columns, values.shape[1]), _select_rows(values, rows), 0).sum(1)


def _sum_entries(values, rows, columns, dy):
    return _sum_rows(values, rows, jnp.where(_equal(columns, values.shape[1]), dy[:, None], 0))


def _select_last(values, index):
    is_index = _equal(index, values.shape[-1])  # [.., K, N]
    return jnp.where(is_index, values[..., None, :], 0).sum(-1, dtype=values.dtype)


def _equal(index, n):
    """int [.., K] -> bool [.., K, n], whether an index is that of the last axis."""
    return index[..., None] == jnp.arange(n)


def _product(axes, one_hot, values):
    """The product of a one-hot matrix and values, which are sums of a few bfloat16 values."""
    parts = []
    for _ in range(-(-(jnp.finfo(values.dtype).nmant + 1) // BFLOAT16_BITS)):
        # A conversion to bfloat16 and back might be optimized away.
        parts.append(lax.reduce_precision(values, exponent_bits=8, mantissa_bits=7))
        values = values - parts[-1]
    one_hot, stacked = one_hot.astype(jnp.bfloat16), jnp.stack(parts).astype(jnp.bfloat16)
    return jnp.einsum(axes, one_hot, stacked, preferred_element_type=values.dtype).sum(0)
