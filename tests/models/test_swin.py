"""Window attention: its position bias, and maps of any size."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny_backbones import MICRO_SWIN
from tinyjax import models
from tinyjax.models import swin


def test_position_bias_by_relative_row_and_column():
    table = np.random.default_rng(0).standard_normal((13, 13, 2)).astype(np.float32)
    bias = swin.expand_position_bias(jnp.asarray(table))
    rows, columns = np.divmod(np.arange(49), 7)
    for query, key in ((0, 0), (0, 48), (48, 0), (10, 31)):
        entry = table[rows[query] - rows[key] + 6, columns[query] - columns[key] + 6]
        np.testing.assert_array_equal(bias[:, query, key], entry)


def test_windows_are_split_and_merged():
    x = jnp.arange(2 * 14 * 21 * 3.0).reshape(2, 14, 21, 3)
    windows = swin.split_windows(x)
    np.testing.assert_array_equal(windows[1, 4], x[1, 7:14, 7:14].reshape(49, 3))  # of 2 x 3
    np.testing.assert_array_equal(swin.merge_windows(windows, (14, 21)), x)


@pytest.mark.parametrize("sides", [(5, 14), (14, 21)])
def test_shifted_windows_do_not_connect_opposite_borders(sides):
    attention = swin.WindowAttention(heads=2, shifted=True)
    x = jax.random.normal(jax.random.key(0), (1, *sides, 4))
    params = jax.tree.map(
        lambda leaf: 0.5 * jax.random.normal(jax.random.key(1), leaf.shape),
        nn.unbox(attention.init(jax.random.key(0), x)),
    )
    first_output = lambda x: attention.apply(params, x)[0, 0, 0].sum()  # noqa: E731
    gradient = np.abs(jax.jit(jax.grad(first_output))(x)[0]).max(-1)
    # The other 4 positions of a shifted window are those at the opposite border.
    size = [3 if side > 7 else 7 for side in sides]
    inside, outside = gradient[: size[0], : size[1]], gradient.copy()
    outside[: size[0], : size[1]] = 0
    assert (inside > 0).any()
    assert outside.max() < 1e-20 * inside.max()


def test_parameters_are_the_same_for_all_image_sizes():
    model = models.build(MICRO_SWIN, 5)
    sizes = [(1, 16, 20, 1), (1, 224, 320, 1)]
    first, second = (
        jax.eval_shape(lambda shape=shape: models.init(model, 0, shape)) for shape in sizes
    )
    assert first == second
