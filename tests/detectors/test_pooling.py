"""Levels of boxes by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from tinyjax.detectors.pooling import box_levels, pool_rois

STRIDES = (4, 8, 16, 32)


def squares(*sides):
    side = jnp.array(sides)[:, None]
    corner = jnp.array([[30.0, 7.0]])
    return jnp.concatenate([jnp.broadcast_to(corner, (len(sides), 2)), corner + side], 1)


def test_levels_of_squares():
    boxes = squares(10, 111.9, 112, 223.9, 224, 447.9, 448, 900)
    expected = [2, 2, 3, 3, 4, 4, 5, 5]
    np.testing.assert_array_equal(box_levels(boxes, STRIDES) + 2, expected)


def test_the_area_decides_and_empty_boxes_belong_to_the_finest_level():
    boxes = jnp.array([[0.0, 0, 112, 448], [5, 5, 5, 9], [9, 9, 3, 3]])
    np.testing.assert_array_equal(box_levels(boxes, STRIDES), [2, 0, 0])


def test_canonical_size_and_first_stride():
    boxes = squares(27, 28, 56, 112)
    np.testing.assert_array_equal(box_levels(boxes, STRIDES, 56), [0, 1, 2, 3])
    np.testing.assert_array_equal(box_levels(boxes, (8, 16), 56), [0, 0, 1, 1])


def test_rois_are_pooled_from_their_level_or_the_finest_one():
    """Each level is constant, with the value of its stride."""
    levels = {s: jnp.full((2, 128 // s, 128 // s, 3), float(s)) for s in (16, 8, 4)}
    rois = jnp.stack([squares(10, 28, 56), squares(56, 10, 100)])
    pooled = jax.jit(lambda rois: pool_rois(levels, rois, 2, 56.0))(rois)
    assert pooled.shape == (2, 3, 2, 2, 3)
    np.testing.assert_array_equal(pooled[..., 0, 0, 0], [[4, 8, 16], [16, 4, 16]])
    np.testing.assert_array_equal(pooled, pooled[:, :, :1, :1, :1] * jnp.ones((2, 2, 3)))
    np.testing.assert_array_equal(jax.jit(lambda rois: pool_rois(levels, rois, 2))(rois), 4)
