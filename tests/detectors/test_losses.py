"""The detection loss by hand, against the dense loss, and its gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.platforms import forms_of
from tinyjax.detectors.boxes import decode, encode
from tinyjax.detectors.grid import make_grid
from tinyjax.detectors.long_tail import EQUAL_CLASSES, ClassTerms
from tinyjax.detectors.losses import covered_cells, detection_loss, quality_focal_loss
from tinyjax.detectors.matching import assign

GRID = make_grid(32, 32, (4, 8))
N = len(GRID.cell_strides)
WEIGHTS = {"class": 1.0, "box": 2.0, "offset": 0.25}


jitted_assign = jax.jit(lambda *arrays: assign(*arrays, GRID))


def make_batch(boxes, valid, ignore=None, labels=None):
    boxes = jnp.asarray(boxes, jnp.float32)
    shape = boxes.shape[:2]
    return {
        "boxes": boxes,
        "valid": jnp.asarray(valid),
        "ignore": jnp.zeros(shape, bool) if ignore is None else jnp.asarray(ignore),
        "labels": jnp.zeros(shape, jnp.int32) if labels is None else jnp.asarray(labels),
    }


def random_outputs(images=1):
    """Logits of two classes and offsets."""
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(-2, 1, (images, N, 2)), jnp.float32)
    offsets = jnp.asarray(rng.normal(0, 0.3, (images, N, 4)), jnp.float32)
    return logits, offsets


@jax.jit
def loss_on_grid(logits, offsets, batch, classes=EQUAL_CLASSES):
    return detection_loss(logits, offsets, batch, WEIGHTS, GRID, (), classes)


def test_focal_by_hand():
    assert float(quality_focal_loss(jnp.float32(0.0), 0.0)) == pytest.approx(0.25 * np.log(2))
    assert float(quality_focal_loss(jnp.float32(0.0), 0.5)) == 0
    assert float(quality_focal_loss(jnp.float32(0.0), 1.0)) == pytest.approx(0.25 * np.log(2))


def assign_positives(logits, offsets, batch):
    """The assignment of the first image."""
    boxes = decode(offsets[0], GRID.cell_centers, GRID.cell_strides)
    objects = (batch[name][0] for name in ("boxes", "labels", "valid"))
    return jitted_assign(jax.nn.sigmoid(logits[0]), boxes, *objects)


def test_covered_cells_have_their_center_in_a_box():
    boxes = jnp.array([[[4.0, 8, 12, 12], [0, 0, 0, 0]]])
    cells = np.asarray(GRID.cell_centers)[np.asarray(covered_cells(boxes, GRID)[0])]
    # At stride 8 the box is half as high as a cell, and is widened to a cell's height.
    assert {tuple(c) for c in cells.tolist()} == {(6, 10), (10, 10), (4, 12)}


@pytest.mark.parametrize(
    ("labels", "weight", "included"),
    [([1, 0], (1.0, 1.0), (True, True)), ([1, 1], (0.5, 3.0), (False, True))],
)
def test_class_loss_equals_the_dense_loss(labels, weight, included):
    """The loss over all cells and classes, with the targets and weights of the positives."""
    logits, offsets = random_outputs()
    batch = make_batch([[[10, 10, 16, 18], [20, 4, 30, 12]]], [[True, True]], labels=[labels])
    classes = ClassTerms(jnp.array(weight), jnp.array(included))
    _, terms = loss_on_grid(logits, offsets, batch, classes)
    pairs = assign_positives(logits, offsets, batch)
    dense = np.zeros((N, 2), np.float32)
    for g, label in enumerate(labels):
        kept = np.asarray(pairs.is_positive[g])
        dense[np.asarray(pairs.cell[g])[kept], label] = np.asarray(pairs.target[g])[kept]
    losses = quality_focal_loss(logits[0], jnp.asarray(dense))
    losses = losses * np.where(dense > 0, weight, 1) * np.array(included)
    expected = losses.sum() / max(dense.sum(), 1)
    assert float(terms["class_loss"]) == pytest.approx(float(expected), rel=1e-5)
    assert int(terms["positives"]) == int(pairs.is_positive.sum())


def test_perfect_boxes_have_no_loss():
    box = jnp.array([10.0, 10, 16, 18])
    offsets = encode(
        jnp.broadcast_to(box, (N, 4)),
        jnp.asarray(GRID.cell_centers),
        jnp.asarray(GRID.cell_strides),
    )
    logits, _ = random_outputs()
    _, terms = loss_on_grid(logits, offsets[None], make_batch([[box]], [[True]]))
    assert float(terms["box_loss"]) == pytest.approx(0, abs=1e-5)
    assert float(terms["offset_loss"]) == pytest.approx(0, abs=1e-5)


def test_a_box_smaller_than_a_cell_covers_a_cell():
    boxes = jnp.array([[[7.5, 7.5, 8.5, 8.6]]])  # between all centers
    assert np.asarray(covered_cells(boxes, GRID)[0])[: GRID.level_starts[1]].sum() >= 1
    assert np.asarray(covered_cells(boxes, GRID)[0])[GRID.level_starts[1] :].sum() >= 1


def logit_gradient(logits, offsets, batch):
    return jax.grad(lambda logits: loss_on_grid(logits, offsets, batch)[0])(logits)[0]


def test_only_positives_have_a_gradient_inside_an_ignored_box():
    logits, offsets = random_outputs()
    boxes = [[[8.0, 8, 24, 24], [12, 12, 18, 20]]]
    batch = make_batch(boxes, [[False, True]], ignore=[[True, False]])
    gradient = logit_gradient(logits, offsets, batch)
    inside = np.asarray(covered_cells(batch["boxes"][:, :1], GRID)[0])
    with_gradient = np.asarray((gradient != 0).any(-1)) & inside
    pairs = assign_positives(logits, offsets, batch)
    positives = np.asarray(pairs.cell)[np.asarray(pairs.is_positive)]
    assert set(np.flatnonzero(with_gradient)) == set(positives.tolist())
    assert len(positives) >= 2


def test_no_loss_inside_an_ignored_box():
    logits, offsets = random_outputs()
    batch = make_batch([[[8.0, 8, 24, 24]]], [[False]], ignore=[[True]])
    gradient = logit_gradient(logits, offsets, batch)
    inside = np.asarray(covered_cells(batch["boxes"], GRID)[0])
    assert inside.sum() == 16 + 4
    assert (gradient[inside] == 0).all()
    assert (gradient[~inside] != 0).all()


def test_the_forms_of_a_tpu_have_the_same_loss_and_gradients():
    """The products and comparisons that replace gathers and scatters, run on this machine."""
    outputs = random_outputs(images=2)
    boxes = [[[10, 10, 16, 18], [12, 8, 20, 16], [0, 0, 0, 0]], [[3, 4, 9, 12]] * 3]
    valid, ignore = [[True, True, False], [True] * 3], [[False] * 3, [False, True, False]]
    batch = make_batch(boxes, valid, ignore, [[1, 0, 0], [0, 1, 1]])

    def loss_and_gradients(*outputs):
        def loss(*outputs):
            return detection_loss(*outputs, batch, WEIGHTS, GRID)

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(*outputs)

    expected = jax.jit(loss_and_gradients)(*outputs)

    with forms_of("tpu"):
        actual = jax.jit(lambda *outputs: loss_and_gradients(*outputs))(*outputs)
    assert actual[0][1]["positives"] > 4
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7), actual, expected)


def test_gradients_are_finite_without_objects_and_for_extreme_outputs():
    batch = make_batch(jnp.zeros((2, 3, 4)), jnp.zeros((2, 3), bool))
    loss_and_gradients = jax.jit(
        jax.value_and_grad(lambda logits, offsets: loss_on_grid(logits, offsets, batch)[0], (0, 1))
    )
    for scale in (0.0, 1.0, 100.0):
        value, gradients = loss_and_gradients(*(scale * x for x in random_outputs(images=2)))
        assert jnp.isfinite(value)
        assert all(jnp.isfinite(gradient).all() for gradient in gradients)
        assert (gradients[1] == 0).all()  # boxes have no loss without objects
