"""Box geometry by hand, and its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from tinyjax.detectors import boxes
from tinyjax.detectors.grid import make_grid


def test_decode_inverts_encode():
    """Also for 5-pixel boxes and for cells outside the box."""
    rng = np.random.default_rng(0)
    grid = make_grid(64, 80, (4, 8))
    cell = rng.integers(0, len(grid.cell_strides), 500)
    center, size = rng.uniform(0, 64, (500, 2)), rng.uniform(1, 60, (500, 2))
    box = jnp.asarray(np.concatenate([center - size / 2, center + size / 2], 1), jnp.float32)
    cells, strides = grid.cell_centers[cell], grid.cell_strides[cell]
    decoded = boxes.decode(boxes.encode(box, cells, strides), cells, strides)
    np.testing.assert_allclose(decoded, box, atol=2e-4)
    np.testing.assert_allclose(boxes.iou(decoded, box), 1, atol=1e-3)


def test_grid_by_hand():
    grid = make_grid(9, 16, (4, 8))
    assert grid.shapes == ((3, 4), (2, 2))
    assert grid.level_starts == (0, 12)
    np.testing.assert_array_equal(
        grid.cell_centers[[0, 5, 12, 15]], [[2, 2], [6, 6], [4, 4], [12, 12]]
    )
    np.testing.assert_array_equal(grid.cell_strides[[0, 11, 12]], [4, 4, 8])


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 2, 2), (0, 0, 2, 2), 1.0),
        ((0, 0, 2, 2), (1, 0, 3, 2), 1 / 3),
        ((0, 0, 2, 2), (2, 0, 4, 2), 0.0),
        ((0, 0, 4, 4), (1, 1, 3, 3), 0.25),
        ((10, 20, 30, 60), (12, 18, 40, 70), 0.46875),
        ((0, 0, 0, 0), (0, 0, 0, 0), 0.0),
        ((3, 3, 1, 1), (0, 0, 4, 4), 0.0),  # inverted: empty
    ],
)
def test_iou_by_hand(a, b, expected):
    a, b = jnp.array(a, jnp.float32), jnp.array(b, jnp.float32)
    assert float(boxes.iou(a, b)) == pytest.approx(expected)


def test_diou_by_hand():
    a, b = jnp.array([0.0, 0, 2, 2]), jnp.array([2.0, 0, 4, 2])
    assert float(boxes.diou(a, b)) == pytest.approx(-4 / 20)
    assert float(boxes.diou(a, a)) == pytest.approx(1)


def test_diou_has_a_gradient_toward_an_object_without_overlap():
    truth = jnp.array([10.0, 10, 15, 15])
    shifted = truth + jnp.array([9.0, 0, 9, 0])
    assert jax.grad(lambda dx: boxes.diou(shifted + dx, truth))(0.0) < 0


def test_wasserstein_similarity_by_hand():
    a, b = jnp.array([0.0, 0, 4, 4]), jnp.array([3.0, 4, 7, 8])  # centers 5 apart, same size
    assert float(boxes.wasserstein_similarity(a, b, 10)) == pytest.approx(np.exp(-0.5), rel=1e-5)


def test_gradient_of_the_box_loss_equals_finite_differences():
    cell, stride = jnp.array([14.0, 14.0]), jnp.float32(4)
    truth = jnp.array([[10.0, 10, 16, 18], [30, 30, 34, 35]])  # with and without overlap
    offsets = jnp.array([[0.1, -0.2, 0.3, 0.2], [0.5, 0.4, 0.1, 0.6]])
    loss = lambda o: (1 - boxes.diou(boxes.decode(o, cell, stride), truth)).sum()  # noqa: E731
    check_grads(jax.jit(loss), (offsets,), order=1, modes=["rev"], eps=1e-3, rtol=1e-2, atol=1e-3)


def test_gradients_are_finite_for_padding_boxes():
    zero = jnp.zeros(4)
    for function in (boxes.iou, boxes.diou, boxes.wasserstein_similarity):
        assert jnp.isfinite(jax.grad(function)(zero, zero)).all(), function.__name__
