"""Rows by index: the products of a TPU against gathers, and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.platforms import forms_of
from tinyjax.ops import gather
from tinyjax.ops.gather import take_entries, take_last, take_rows

N, C, K = 50, 4, 30


@pytest.fixture(params=["cpu", "tpu"])
def platform(request):
    with forms_of(request.param):
        yield request.param


def make_values(seed=0):
    """Values of very different sizes: products in bfloat16 would lose most of their bits."""
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(N, C)) * [1e-3, 1, 1e3, 1e6], jnp.float32)


def make_index(n, size=K, seed=1):
    return np.random.default_rng(seed).integers(0, n, size).astype(np.int32)


def test_rows_are_exact(platform):
    values, index = make_values(), make_index(N)
    np.testing.assert_array_equal(jax.jit(take_rows)(values, index), values[index])


def test_entries_are_exact(platform):
    values, rows, columns = make_values(), make_index(N), make_index(C, seed=2)
    result = jax.jit(take_entries)(values, rows, columns)
    np.testing.assert_array_equal(result, values[rows, columns])


def test_entries_of_many_columns(platform):
    values = jnp.tile(make_values(), gather.MAX_COLUMNS)
    rows, columns = make_index(N), make_index(values.shape[1], seed=2)
    np.testing.assert_array_equal(take_entries(values, rows, columns), values[rows, columns])


def test_rows_are_exact_in_float64(platform):
    with jax.enable_x64(True):
        values, index = jnp.asarray(np.random.default_rng(0).normal(size=(N, C))), make_index(N)
        rows = take_rows(values, index)
    assert rows.dtype == np.float64
    np.testing.assert_array_equal(rows, np.asarray(values)[index])


@pytest.mark.parametrize("dtype", [np.float32, np.int32, bool])
def test_values_of_the_last_axis(platform, dtype):
    values, index = make_values().astype(dtype), make_index(C, (N, 3))
    result = take_last(values, index)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, np.take_along_axis(values, index, -1))


def test_gradients_add_up_where_an_index_is_repeated(platform):
    values, index, columns = make_values(), make_index(N), make_index(C, seed=2)
    assert len(set(index.tolist())) < K
    weights = np.random.default_rng(3).normal(size=(K, C)).astype(np.float32)
    gradient = jax.grad(lambda x: (take_rows(x, index) * weights).sum())(values)
    expected = np.zeros((N, C))
    np.add.at(expected, index, weights)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-6)

    gradient = jax.grad(lambda x: (take_entries(x, index, columns) * weights[:, 0]).sum())(values)
    expected = np.zeros((N, C))
    np.add.at(expected, (index, columns), weights[:, 0])
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-6)


def test_rows_of_a_batch_of_members(platform):
    values = jnp.stack([jnp.stack([make_values(seed) for seed in range(3)])] * 2)  # [2, 3, N, C]
    index = make_index(N, (2, 3, K))
    rows = jax.vmap(jax.vmap(take_rows))(values, index)
    np.testing.assert_array_equal(rows, np.take_along_axis(values, index[..., None], 2))
    gradient = jax.vmap(jax.vmap(jax.grad(lambda x, i: take_rows(x, i).sum())))(values, index)
    counts = [[np.bincount(row, minlength=N) for row in rows] for rows in index]
    np.testing.assert_array_equal(gradient, np.repeat(np.array(counts)[..., None], C, -1))


def test_a_tpu_reads_rows_without_a_gather():
    def loss(values, index, columns):
        rows = take_rows(values, index).sum() + take_last(values.T, index[None, :3] % C).sum()
        return rows + take_entries(values, index, columns).sum()

    def lowered(platform):
        arguments = make_values(), make_index(N), make_index(C)
        exported = jax.export.export(jax.jit(jax.grad(loss)), platforms=[platform])(*arguments)
        return exported.mlir_module()

    assert "scatter" in lowered("cpu")
    assert not {"scatter", "gather"} & {*lowered("tpu").replace('"', ".").split(".")}
