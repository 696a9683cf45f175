"""Non-maximum suppression, and decoding of the outputs of a network."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from tinyjax.detectors.boxes import encode
from tinyjax.detectors.grid import make_grid
from tinyjax.detectors.nms import class_wise_nms, nms_mask
from tinyjax.detectors.point import decode

GRID = make_grid(64, 64, (4, 8))
N = len(GRID.cell_strides)


jitted_nms_mask = jax.jit(nms_mask)


def greedy_nms(boxes, labels, iou_threshold):
    """Reference: class-wise greedy non-maximum suppression, one box after the other."""
    kept = []
    for i, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        size = np.minimum(box[2:], boxes[kept, 2:]) - np.maximum(box[:2], boxes[kept, :2])
        inter = np.clip(size, 0, None).prod(-1)
        union = (box[2:] - box[:2]).prod() + (boxes[kept, 2:] - boxes[kept, :2]).prod(-1) - inter
        if not ((inter / union > iou_threshold) & (labels[kept] == label)).any():
            kept.append(i)
    return np.isin(np.arange(len(boxes)), kept)


def test_suppression_is_greedy_and_class_wise():
    rng = np.random.default_rng(0)
    center, size = rng.uniform(0, 30, (60, 2)), rng.uniform(4, 20, (60, 2))
    boxes = np.concatenate([center - size / 2, center + size / 2], 1).astype(np.float32)
    labels = rng.integers(0, 2, 60)
    expected = greedy_nms(boxes, labels, 0.4)
    actual = jitted_nms_mask(jnp.asarray(boxes), jnp.asarray(labels), 0.4)
    np.testing.assert_array_equal(actual, expected)
    assert 0 < expected.sum() < 60


def test_a_suppressed_box_suppresses_nothing():
    boxes = jnp.array([[0.0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]])
    kept = jitted_nms_mask(boxes, jnp.zeros(3, int), 0.4)
    np.testing.assert_array_equal(kept, [True, False, True])


def test_detections_up_to_the_score_threshold_are_dropped():
    boxes = 20 * jnp.arange(4.0)[None, :, None] + jnp.array([0.0, 0, 10, 10])
    scores = jnp.array([0.3, 0.7, 0.5, 0.2])[None, :, None]
    options = {"iou_threshold": 0.5, "max_detections": 4, "pre_nms_top_k": 4}
    for threshold, expected in ((0.0, [0.7, 0.5, 0.3, 0.2]), (0.3, [0.7, 0.5, 0, 0])):
        detections = class_wise_nms(scores, boxes, **options, score_threshold=threshold)
        np.testing.assert_allclose(detections["scores"][0], expected)


def test_decode_returns_sorted_detections_in_fixed_shapes():
    box = jnp.array([10.0, 12, 16, 22])
    cells = [3 * 16 + 3, 256 + 9]
    logits = jnp.full((1, N, 3), -20.0).at[0, cells[0], 1].set(2.0).at[0, cells[1], 1].set(1.0)
    offsets = encode(
        jnp.broadcast_to(box, (N, 4)),
        jnp.asarray(GRID.cell_centers),
        jnp.asarray(GRID.cell_strides),
    )
    nms = {"iou_threshold": 0.6, "max_detections": 10, "pre_nms_top_k": 20}
    config = ConfigDict({"model": {"strides": GRID.strides}, "nms": nms})
    out = jax.jit(lambda *outputs: decode(outputs, (64, 64), config))(logits, offsets[None])
    shapes = {name: array.shape for name, array in out.items()}
    assert shapes == {"boxes": (1, 10, 4), "scores": (1, 10), "labels": (1, 10)}
    np.testing.assert_allclose(out["boxes"][0, 0], box, atol=1e-4)
    assert int(out["labels"][0, 0]) == 1
    assert float(out["scores"][0, 0]) > 0.8
    assert (np.asarray(out["scores"][0, 1:]) < 1e-6).all()  # the second, equal box is suppressed
    assert (np.diff(np.asarray(out["scores"][0])) <= 0).all()


def test_boxes_of_each_class():
    """The second candidate's box of class 1 is suppressed by the first one's; of class 0, not."""
    boxes = jnp.array([[[0.0, 0, 10, 10], [20, 20, 30, 30]], [[40, 0, 50, 10], [21, 20, 31, 30]]])
    scores = jnp.array([[0.9, 0.8], [0.6, 0.7]])
    nms = jax.jit(lambda scores, boxes: class_wise_nms(scores, boxes, 0.5, 4, 10))
    out = nms(scores[None], boxes[None])
    np.testing.assert_array_equal(out["labels"][0, :3], [0, 1, 0])
    np.testing.assert_allclose(out["scores"][0], [0.9, 0.8, 0.6, 0])
    np.testing.assert_array_equal(
        out["boxes"][0, :3], boxes[jnp.array([0, 0, 1]), out["labels"][0, :3]]
    )
    agnostic = nms(scores[None], boxes[None, :, :1])
    expected = nms(scores[None], boxes[None, :, 0])
    jax.tree.map(np.testing.assert_array_equal, agnostic, expected)
