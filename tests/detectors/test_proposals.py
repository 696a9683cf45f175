"""Selection of proposals by hand, and against greedy suppression of one box after the other."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tinyjax.detectors.nms import select_proposals

OPTIONS = {"image_size": (50, 60), "iou_threshold": 0.5, "max_proposals": 4, "pre_nms_top_k": 8}
FOUR = [[0, 0, 10, 10], [1, 0, 11, 10], [0, 5, 10, 15], [20, 20, 30, 30]]  # IoU 0.818, 0.333


def select(logits, boxes, level_sizes=None, **options):
    """The proposals of one image."""
    boxes = jnp.asarray(boxes, jnp.float32)
    options = {**OPTIONS, "level_sizes": level_sizes or (len(boxes),), **options}
    run = jax.jit(partial(select_proposals, **options))
    proposals = run(jnp.asarray(logits, jnp.float32)[None], boxes[None])
    return jax.tree.map(lambda array: np.asarray(array[0]), proposals)


@pytest.mark.parametrize(
    ("level_sizes", "kept"), [((4,), [0, 2, 3]), ((1, 3), [0, 1, 2, 3]), ((3, 1), [0, 2, 3])]
)
def test_nms_by_hand_within_each_level(level_sizes, kept):
    proposals = select([0.9, 0.8, 0.7, 0.6], FOUR, level_sizes)
    boxes = np.zeros((4, 4))
    boxes[: len(kept)] = np.array(FOUR)[kept]
    np.testing.assert_array_equal(proposals.boxes, boxes)
    np.testing.assert_array_equal(proposals.valid, np.arange(4) < len(kept))
    logits = np.array([0.9, 0.8, 0.7, 0.6], np.float32)[kept]
    np.testing.assert_array_equal(proposals.logits[: len(kept)], logits)
    assert (proposals.logits[len(kept) :] == -np.inf).all()


def test_boxes_are_clipped_before_nms_and_dropped_outside_the_image():
    """Clipped, the first and the third box are equal; the second is empty."""
    boxes = [[40, 20, 90, 40], [70, 20, 80, 40], [40, 20, 60, 40], [-9, -9, 20, 20]]
    proposals = select([4, 3, 2, 1], boxes)
    np.testing.assert_array_equal(proposals.boxes[:2], [[40, 20, 60, 40], [0, 0, 20, 20]])
    np.testing.assert_array_equal(proposals.valid, [True, True, False, False])


def test_only_the_highest_logits_are_candidates():
    order = [2, 0, 3, 1]
    logits, boxes = np.array([0.9, 0.8, 0.7, 0.6])[order], np.array(FOUR)[order]
    proposals = select(logits, boxes, pre_nms_top_k=2)
    np.testing.assert_array_equal(proposals.boxes, [FOUR[0], [0, 0, 0, 0]])
    proposals = select(logits, boxes, max_proposals=2)
    np.testing.assert_array_equal(proposals.boxes, [FOUR[0], FOUR[2]])


def test_each_level_has_its_own_candidates():
    """The highest one of two levels; a level with fewer candidates is filled with empty slots."""
    proposals = select([0.7, 0.9, 0.6], np.array(FOUR)[[2, 0, 3]], (2, 1), pre_nms_top_k=1)
    np.testing.assert_array_equal(proposals.boxes, [FOUR[0], FOUR[3]])
    proposals = select([0.7, 0.9, 0.6], np.array(FOUR)[[2, 0, 3]], (2, 1), pre_nms_top_k=2)
    np.testing.assert_array_equal(proposals.boxes, [FOUR[0], FOUR[2], FOUR[3], [0] * 4])
    np.testing.assert_array_equal(proposals.valid, [True, True, True, False])


def test_low_scores_are_dropped():
    """The lowest of sigmoids 0.52, 0.5 and 0.48; the threshold itself stays, as in torchvision."""
    proposals = select([0, 0.08, -0.08], np.array(FOUR)[[0, 2, 3]], score_threshold=0.5)
    np.testing.assert_array_equal(proposals.boxes[:2], [FOUR[2], FOUR[0]])
    np.testing.assert_array_equal(proposals.valid, [True, True, False])


def test_images_and_members_are_independent():
    boxes = jnp.asarray(FOUR, jnp.float32)
    boxes = jnp.stack([boxes, boxes[::-1], boxes + 3, 2 * boxes]).reshape(2, 2, 4, 4)
    logits = jnp.cos(jnp.arange(16.0)).reshape(2, 2, 4)
    run = jax.jit(
        jax.vmap(lambda logits, boxes: select_proposals(logits, boxes, (3, 1), **OPTIONS))
    )
    actual = run(logits, boxes)
    for member in range(2):
        for image in range(2):
            expected = select(logits[member, image], boxes[member, image], (3, 1))
            for array, single in zip(actual, expected, strict=True):
                np.testing.assert_array_equal(array[member, image], single)
