"""Assignment of objects to grid cells."""

import jax
import jax.numpy as jnp
import numpy as np

from tinyjax.detectors import matching
from tinyjax.detectors.grid import make_grid
from tinyjax.detectors.matching import MAX_POSITIVES, assign, candidate_cells

GRID = make_grid(64, 64, (4, 8))
N = len(GRID.cell_strides)


def boxes_on_cells():
    """Predicted boxes centered on their cells, 2 strides wide."""
    half = GRID.cell_strides[:, None]
    return jnp.asarray(np.concatenate([GRID.cell_centers - half, GRID.cell_centers + half], 1))


jitted_assign = jax.jit(lambda *arrays: assign(*arrays, GRID))


def assign_objects(truth, labels=None, valid=None, scores=None, boxes=None):
    truth = jnp.asarray(truth, jnp.float32)
    labels = jnp.zeros(len(truth), jnp.int32) if labels is None else jnp.asarray(labels)
    valid = jnp.ones(len(truth), bool) if valid is None else jnp.asarray(valid)
    scores = jnp.full((N, 3), 0.1) if scores is None else scores
    boxes = boxes_on_cells() if boxes is None else boxes
    return jitted_assign(scores, boxes, truth, labels, valid)


def test_objects_of_any_size_and_position_have_positives():
    rng = np.random.default_rng(0)
    for _ in range(20):
        center, size = rng.uniform(1, 63, (1, 2)), rng.uniform(2, 40, (1, 2))
        pairs = assign_objects(np.concatenate([center - size / 2, center + size / 2], 1))
        assert pairs.is_positive.sum() >= 2
        assert (pairs.target[pairs.is_positive] > 0).all()


def test_a_perfect_prediction_has_the_target_one():
    truth = [[10, 10, 16, 20]]
    cell = 3 * 16 + 3  # stride 4, center (14, 14)
    boxes = boxes_on_cells().at[cell].set(jnp.array(truth[0], jnp.float32))
    pairs = assign_objects(truth, boxes=boxes)
    best = int(jnp.argmax(pairs.target[0]))
    assert int(pairs.cell[0, best]) == cell
    assert float(pairs.target[0, best]) == 1


def test_positives_lie_within_the_window_of_the_center():
    pairs = assign_objects([[20, 20, 52, 52]])
    centers, stride = GRID.cell_centers[pairs.cell], GRID.cell_strides[pairs.cell]
    distance = np.abs(centers - 36).max(-1)
    assert (distance <= 2.5 * stride + 1e-6)[pairs.is_positive].all()


def test_a_tie_for_a_cell_goes_to_the_first_object():
    equal = [[20, 20, 26, 30]] * 3
    pairs = assign_objects(equal)
    assert pairs.is_positive[0].any()
    assert not pairs.is_positive[1:].any()
    np.testing.assert_array_equal(pairs.is_positive[0], assign_objects(equal[:1]).is_positive[0])


def test_neighboring_objects_share_no_cell():
    rng = np.random.default_rng(1)
    center = rng.uniform(10, 54, (30, 2))
    boxes, scores = np.concatenate([center - 4, center + 4], 1), rng.random((N, 3))
    pairs = assign_objects(boxes, scores=jnp.asarray(scores))
    cells = np.asarray(pairs.cell)[np.asarray(pairs.is_positive)]
    assert len(cells) == len(set(cells.tolist())) > 30


def test_pairs_keep_the_same_cells_by_scatter_and_by_comparison():
    rng = np.random.default_rng(2)
    for _ in range(20):
        cell = rng.integers(0, 25, (12, MAX_POSITIVES)).astype(np.int32)
        # Few values, so that many are equal; an object may have a cell twice.
        metric = rng.choice([-1.0, 0.0, 0.25, 0.5], cell.shape).astype(np.float32)
        kept = np.asarray(matching._keep_by_comparison(cell, metric))
        np.testing.assert_array_equal(kept, matching._keep_by_scatter(cell, metric, num_cells=25))
        assert kept.any()
        assert not kept[metric < 0].any()


def test_padding_has_no_positives_and_changes_no_others():
    unpadded = assign_objects([[20, 20, 26, 30]])
    boxes = [[20, 20, 26, 30], [0, 0, 0, 0], [40, 40, 50, 50]]
    padded = assign_objects(boxes, valid=[True, False, False])
    assert not padded.is_positive[1:].any()
    np.testing.assert_array_equal(padded.is_positive[0], unpadded.is_positive[0])
    np.testing.assert_array_equal(padded.target[0], unpadded.target[0])


def test_the_class_score_decides_between_equal_boxes():
    truth = [[22, 22, 26, 26]]
    boxes = jnp.broadcast_to(jnp.array(truth[0], jnp.float32), (N, 4))
    cell, eligible = candidate_cells(jnp.asarray(truth, jnp.float32), GRID)
    chosen = int(cell[0][eligible[0]][-1])
    scores = jnp.full((N, 3), 0.1).at[chosen, 2].set(0.9)
    pairs = assign_objects(truth, labels=[2], scores=scores, boxes=boxes)
    assert int(pairs.cell[0, 0]) == chosen
    assert float(pairs.target[0, 0]) == 1


def test_assign_can_be_vmapped():
    truth = jnp.tile(jnp.array([[20.0, 20, 26, 30], [0, 0, 0, 0]]), (3, 1, 1))
    scores, boxes, labels = jnp.full((N, 3), 0.1), boxes_on_cells(), jnp.zeros(2, jnp.int32)
    pairs = jax.jit(jax.vmap(lambda t: assign(scores, boxes, t, labels, t[:, 2] > 0, GRID)))(truth)
    assert pairs.cell.shape == (3, 2, MAX_POSITIVES)
    assert (pairs.is_positive[:, 0].sum(1) >= 2).all()
