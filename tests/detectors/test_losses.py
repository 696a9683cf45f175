import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tinyjax.detectors.boxes import decode, encode
from tinyjax.detectors.grid import make_grid
from tinyjax.detectors.losses import covered, detection_loss, focal
from tinyjax.detectors.matching import assign

GRID = make_grid(32, 32, (4, 8))
N = len(GRID.stride)
WEIGHTS = {"class": 1.0, "box": 2.0, "offset": 0.25}


def batch(boxes, valid, ignore=None, labels=None):
    boxes = jnp.asarray(boxes, jnp.float32)
    shape = boxes.shape[:2]
    return {
        "boxes": boxes,
        "valid": jnp.asarray(valid),
        "ignore": jnp.zeros(shape, bool) if ignore is None else jnp.asarray(ignore),
        "labels": jnp.zeros(shape, jnp.int32) if labels is None else jnp.asarray(labels),
    }


def outputs(seed=0, images=1):
    rng = np.random.default_rng(seed)
    logits = jnp.asarray(rng.normal(-2, 1, (images, N, 2)), jnp.float32)
    offsets = jnp.asarray(rng.normal(0, 0.3, (images, N, 4)), jnp.float32)
    return logits, offsets


def test_focal_by_hand():
    assert float(focal(jnp.float32(0.0), 0.0)) == pytest.approx(0.25 * np.log(2))
    assert float(focal(jnp.float32(0.0), 0.5)) == 0
    assert float(focal(jnp.float32(0.0), 1.0)) == pytest.approx(0.25 * np.log(2))


def test_covered_is_the_cells_centerd_in_a_box():
    boxes = jnp.array([[[4.0, 8, 12, 12], [0, 0, 0, 0]]])
    cells = np.asarray(GRID.centers)[np.asarray(covered(boxes, GRID)[0])]
    # at stride 8 the box is as low as half a cell, and widened to one
    assert {tuple(c) for c in cells.tolist()} == {(6, 10), (10, 10), (4, 12)}


def test_class_loss_is_the_dense_one():
    """Against the loss written out over all cells and classes, with the positives' targets."""
    logits, offsets = outputs()
    data = batch([[[10, 10, 16, 18], [20, 4, 30, 12]]], [[True, True]], labels=[[1, 0]])
    _, parts = detection_loss(logits, offsets, data, WEIGHTS, GRID)
    boxes = decode(offsets[0], GRID.centers, GRID.stride)
    pairs = assign(
        jax.nn.sigmoid(logits[0]),
        boxes,
        data["boxes"][0],
        data["labels"][0],
        data["valid"][0],
        GRID,
    )
    dense = np.zeros((N, 2), np.float32)
    for g, label in enumerate([1, 0]):
        for cell, keep, target in zip(pairs.cell[g], pairs.keep[g], pairs.target[g], strict=True):
            if keep:
                dense[int(cell), label] = float(target)
    wanted = focal(logits[0], jnp.asarray(dense)).sum() / max(dense.sum(), 1)
    assert float(parts["class_loss"]) == pytest.approx(float(wanted), rel=1e-5)
    assert int(parts["positives"]) == int(pairs.keep.sum())


def test_perfect_boxes_cost_nothing():
    box = jnp.array([10.0, 10, 16, 18])
    offsets = encode(
        jnp.broadcast_to(box, (N, 4)), jnp.asarray(GRID.centers), jnp.asarray(GRID.stride)
    )
    _, parts = detection_loss(outputs()[0], offsets[None], batch([[box]], [[True]]), WEIGHTS, GRID)
    assert float(parts["box_loss"]) == pytest.approx(0, abs=1e-5)
    assert float(parts["offset_loss"]) == pytest.approx(0, abs=1e-5)


def test_a_box_smaller_than_a_cell_covers_one():
    boxes = jnp.array([[[7.5, 7.5, 8.5, 8.6]]])  # between all centers
    assert np.asarray(covered(boxes, GRID)[0])[: GRID.starts[1]].sum() >= 1
    assert np.asarray(covered(boxes, GRID)[0])[GRID.starts[1] :].sum() >= 1


def test_a_positive_inside_a_dont_care_box_still_learns():
    logits, offsets = outputs()
    both = batch([[[8.0, 8, 24, 24], [12, 12, 18, 20]]], [[False, True]], ignore=[[True, False]])
    slope = jax.grad(lambda z: detection_loss(z, offsets, both, WEIGHTS, GRID)[0])(logits)[0]
    inside = np.asarray(covered(both["boxes"][:, :1], GRID)[0])
    learning = np.asarray((slope != 0).any(-1)) & inside
    pairs = assign(
        jax.nn.sigmoid(logits[0]), decode(offsets[0], GRID.centers, GRID.stride),
        both["boxes"][0], both["labels"][0], both["valid"][0], GRID,
    )  # fmt: skip
    positives = np.asarray(pairs.cell)[np.asarray(pairs.keep)]
    assert set(np.flatnonzero(learning)) == set(positives.tolist())
    assert len(positives) >= 2


def test_no_loss_inside_a_dont_care_box():
    logits, offsets = outputs()
    ignore_classes = batch([[[8.0, 8, 24, 24]]], [[False]], ignore=[[True]])
    slope = jax.grad(lambda z: detection_loss(z, offsets, ignore_classes, WEIGHTS, GRID)[0])(
        logits
    )[0]
    inside = np.asarray(covered(ignore_classes["boxes"], GRID)[0])
    assert inside.sum() == 16 + 4
    assert (slope[inside] == 0).all()
    assert (slope[~inside] != 0).all()


def test_gradients_are_finite_for_empty_and_for_extreme_outputs():
    data = batch(jnp.zeros((2, 3, 4)), jnp.zeros((2, 3), bool))
    for scale in (0.0, 1.0, 100.0):
        logits, offsets = (scale * x for x in outputs(images=2))
        value, slopes = jax.value_and_grad(
            lambda z, o: detection_loss(z, o, data, WEIGHTS, GRID)[0], (0, 1)
        )(logits, offsets)
        assert jnp.isfinite(value)
        assert all(jnp.isfinite(s).all() for s in slopes)
        assert (slopes[1] == 0).all()  # no object, no pull on boxes
