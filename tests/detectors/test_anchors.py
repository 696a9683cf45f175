"""Anchors, the box coder and elementwise losses, by hand and against torchvision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.detectors import make_anchor_references as references
from tinyjax.config import detector
from tinyjax.detectors import deltas
from tinyjax.detectors.anchor_losses import sigmoid_focal_loss, smooth_l1_loss
from tinyjax.detectors.anchors import (
    all_boxes,
    make_anchors,
    make_levels,
    make_shapes,
    make_torchvision_anchors,
)


@pytest.fixture(scope="module")
def reference():
    with np.load(references.FILE) as file:
        return dict(file)


# ---- anchors


def test_anchors_by_hand():
    """A level with 2 x 2 centers per cell and a second shape, and a level of one cell."""
    cell = [(2.0, 1.0, 2), (6.0, 4.0, 1)]
    anchors = make_anchors(5, 8, (4, 8), (cell, [(10.0, 20.0, 1)]))
    assert anchors.dtype == np.float32
    assert len(anchors) == 2 * 2 * 5 + 1
    first_cell = [
        [0, 0.5, 2, 1.5], [2, 0.5, 4, 1.5], [0, 2.5, 2, 3.5], [2, 2.5, 4, 3.5], [-1, 0, 5, 4],
    ]  # fmt: skip
    np.testing.assert_array_equal(anchors[:5], first_cell)
    np.testing.assert_array_equal(anchors[5:10], anchors[:5] + np.array([4, 0, 4, 0]))
    np.testing.assert_array_equal(anchors[10:15], anchors[:5] + np.array([0, 4, 0, 4]))
    np.testing.assert_array_equal(anchors[-1], [-1, -6, 9, 14])


def test_shapes_by_hand():
    np.testing.assert_allclose(
        make_shapes((2, 4), (0.25, 1)), [[4, 1], [8, 2], [2, 2], [4, 4]], rtol=1e-6
    )


def test_rounded_shapes_by_hand():
    """Half extents of torchvision's anchors of sizes 32, 40 and 50."""
    anchors = make_torchvision_anchors((8, 8), ((1, 1),), ((32, 40, 50),), (0.5, 1.0, 2.0))
    half = [[23, 11], [28, 14], [35, 18], [16, 16], [20, 20], [25, 25], [11, 23], [14, 28]]
    half = np.array([*half, [18, 35]])
    np.testing.assert_array_equal(anchors, np.concatenate([-half, half], 1))


def test_anchors_equal_torchvisions(reference):
    anchors = make_torchvision_anchors(
        references.IMAGE_SIZE, references.LEVEL_SHAPES, references.SIZES, references.ASPECT_RATIOS
    )
    np.testing.assert_array_equal(anchors, reference["anchors"])


def test_preset_torchvision_equals_torchvisions():
    strides = (8, 16, 32, 64, 128)
    assert [level.grid for level in make_levels((100, 76), strides, ("torchvision",))] == [
        *references.LEVEL_SHAPES
    ]
    expected = make_torchvision_anchors(
        (100, 76), references.LEVEL_SHAPES, references.SIZES, references.ASPECT_RATIOS
    )
    anchors = all_boxes(make_levels((100, 76), strides, ("torchvision",)))
    np.testing.assert_array_equal(anchors, expected)


@pytest.mark.parametrize(
    ("preset", "sizes"),
    [("torchvision_rpn", [(32,), (64,)]), ("torchvision_mobilenet", [(32, 64, 128, 256, 512)] * 2)],
)
def test_presets_of_faster_rcnn_have_torchvisions_anchors(preset, sizes):
    shapes = [(5, 8), (3, 4)]
    expected = make_torchvision_anchors((18, 30), shapes, sizes, (0.5, 1.0, 2.0))
    anchors = all_boxes(make_levels((18, 30), (4, 8), (preset,)))
    np.testing.assert_array_equal(anchors, expected)
    half = np.array([[23, 11], [16, 16], [11, 23]])  # of size 32
    first = anchors[: 3 * len(sizes[0]) : len(sizes[0])]
    np.testing.assert_array_equal(first, np.concatenate([-half, half], 1))


def test_preset_detectron2_by_hand():
    """The aspect ratio varies fastest, centers are at index * stride, sides are not rounded."""
    (level,) = make_levels((16, 10), (8,), ("detectron2",))
    assert (level.grid, level.strides) == ((2, 2), (8, 8))
    root = 32 / 2**0.5
    sides = [(2 * root, root), (32, 32), (root, 2 * root)]
    sides += [(w * 2 ** (k / 3), h * 2 ** (k / 3)) for k in (1, 2) for w, h in sides]
    half = np.array(sides) / 2
    np.testing.assert_allclose(level.cell, np.concatenate([-half, half], 1), rtol=1e-6)


def test_preset_small_is_the_default():
    config = detector("retinanet").model
    explicit = make_anchors(32, 40, config.strides, config.anchors)
    np.testing.assert_array_equal(all_boxes(make_levels((32, 40), (4, 8), ("small",))), explicit)


# ---- box coder

PROPOSAL, TRUTH = jnp.array([10.0, 20, 30, 60]), jnp.array([12.0, 18, 40, 70])


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ((1, 1, 1, 1), (0.3, 0.1, 0.336472, 0.262364)),
        ((10, 10, 5, 5), (3, 1, 1.682361, 1.311821)),
        ((30, 30, 15, 15), (9, 3, 5.047084, 3.935464)),
    ],
)
def test_deltas_by_hand(weights, expected):
    encoded = deltas.encode(TRUTH, PROPOSAL, weights)
    np.testing.assert_allclose(encoded, expected, rtol=1e-5)
    np.testing.assert_allclose(deltas.decode(encoded, PROPOSAL, weights), TRUTH, rtol=1e-5)


def test_decoded_sizes_are_limited_from_above_only():
    growth = deltas.decode(jnp.array([[0.0, 0, 10, 0], [0, 0, -10, 0]]), PROPOSAL)
    np.testing.assert_allclose(growth[0], [-605, 20, 645, 60], rtol=1e-5)
    half = 10 * np.exp(-10)
    np.testing.assert_allclose(growth[1], [20 - half, 20, 20 + half, 60], rtol=1e-6)


def test_boxes_are_clipped_to_the_image():
    boxes = jnp.array([[-3.0, 2, 50, 60], [45, 45, 48, 49]])
    np.testing.assert_array_equal(deltas.clip(boxes, (30, 40)), [[0, 2, 40, 30], [40, 30, 40, 30]])


def test_box_coder_equals_torchvisions(reference):
    count = len(reference["deltas"])
    with jax.enable_x64(True):
        boxes, proposals = (jnp.asarray(references.random_boxes(i, count, 60)) for i in (0, 1))
        encoded = deltas.encode(boxes, proposals, references.WEIGHTS)
        outputs = jnp.asarray(references.random_outputs(2, (count, 4)))
        decoded = deltas.decode(outputs, proposals, references.WEIGHTS)
        np.testing.assert_allclose(encoded, reference["deltas"], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(decoded, reference["decoded"], rtol=1e-12, atol=1e-12)


def test_deltas_of_padding_boxes_are_finite():
    assert jnp.isfinite(deltas.encode(jnp.zeros(4), PROPOSAL)).all()


# ---- losses


def test_focal_loss_by_hand():
    logits, targets = jnp.array([[-4.59512, 2], [0, -1]]), jnp.array([[True, False], [False, True]])
    expected = [[1.12838186, 1.23755863], [0.12996510, 0.17546708]]
    np.testing.assert_allclose(sigmoid_focal_loss(logits, targets, 0.25, 2.0), expected, rtol=2e-6)


def test_smooth_l1_by_hand():
    loss = smooth_l1_loss(jnp.array([0.05, -0.5]), 1 / 9)
    np.testing.assert_allclose(loss, [0.01125, 0.444444], rtol=1e-5)


def test_losses_equal_torchvisions(reference):
    with jax.enable_x64(True):
        outputs = jnp.asarray(references.random_outputs(2, reference["focal"].shape))
        targets = jnp.asarray(references.random_outputs(3, outputs.shape) > 1)
        focal = sigmoid_focal_loss(outputs, targets, 0.3, 1.5)
        np.testing.assert_allclose(focal, reference["focal"], rtol=1e-10)
        for beta in (0.0, 1.0):
            loss = smooth_l1_loss(outputs, beta)
            np.testing.assert_allclose(loss, reference[f"smooth_l1_{beta}"], rtol=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_gradients_of_the_losses_are_finite(gamma):
    x = jnp.array([-200.0, -1e-30, 0, 1, 200])
    for is_positive in (False, True):
        targets = jnp.full(x.shape, is_positive)
        focal = lambda x, targets=targets: sigmoid_focal_loss(x, targets, 0.25, gamma).sum()  # noqa: E731
        assert jnp.isfinite(jax.grad(focal)(x)).all()
    for beta in (0.0, 1.0):
        assert jnp.isfinite(jax.grad(lambda x, beta=beta: smooth_l1_loss(x, beta).sum())(x)).all()
