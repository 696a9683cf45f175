"""Targets of RoIs by hand, and the loss of the second stage against torchvision's."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from tests.detectors.make_roi_references import FILE, WEIGHTS, inputs
from tinyjax.detectors.long_tail import ClassTerms
from tinyjax.detectors.roi_losses import RoiTargets, label_rois, roi_loss, sample_rois

OBJECTS = [[10, 10, 20, 20], [30, 10, 40, 30], [0, 0, 0, 0], [50, 50, 70, 70]]
PROPOSALS = [
    [10, 10, 20, 15],  # IoU 0.5 with the first object
    [10, 10, 20, 14.9],  # a little less
    [31, 10, 41, 30],  # the second object
    [52, 52, 60, 60],  # in the ignored box
    [5, 40, 20, 60],
    [60, 5, 70, 20],
    [7, 7, 7, 9],  # empty
    [0, 0, 10, 10],  # not a proposal
]
VALID = [True] * 7 + [False]


def make_batch(images=1, objects=True):
    def repeat(array, dtype):
        return jnp.repeat(jnp.asarray(array, dtype)[None], images, 0)

    return {
        "boxes": repeat(OBJECTS, jnp.float32),
        "labels": repeat([1, 2, 0, 0], jnp.int32),
        "valid": repeat([objects, objects, False, False], bool),
        "ignore": repeat([False, False, False, True], bool),
    }


def make_proposals(images=1):
    return jnp.repeat(jnp.asarray(PROPOSALS, jnp.float32)[None], images, 0), jnp.array(
        [VALID] * images
    )


def sample_all(key, batch, size=8, axes=()):
    proposals, valid = make_proposals(len(batch["boxes"]))
    return sample_rois(
        key, proposals, valid, batch,
        size=size, positive_fraction=0.25, foreground_iou=0.5, axes=axes,
    )  # fmt: skip


jitted_sample = jax.jit(sample_all, static_argnames=("size", "axes"))


def test_labels_by_hand():
    targets = jax.jit(label_rois)(*make_proposals(), make_batch(), 0.5)
    np.testing.assert_array_equal(targets.labels[0], [2, 0, 3, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(
        targets.valid[0], [True, True, True, False, True, True, False, False]
    )
    np.testing.assert_array_equal(targets.boxes[0, [0, 2]], OBJECTS[:2])


def test_samples_have_exact_counts_and_include_the_objects():
    """4 positives and 3 negatives are candidates."""
    batch = make_batch(images=40)
    drawn = []
    for size, positives, valid in ((4, 1, 4), (8, 2, 5), (40, 4, 7)):
        targets = jitted_sample(jax.random.key(0), batch, size=size)
        assert targets.rois.shape == (40, size, 4)
        is_positive = np.asarray(targets.valid & (targets.labels > 0))
        np.testing.assert_array_equal(is_positive.sum(1), positives)
        np.testing.assert_array_equal(np.asarray(targets.valid).sum(1), valid)
        for image in range(40):
            rois = np.asarray(targets.rois[image])[np.asarray(targets.valid[image])]
            assert len(np.unique(rois, axis=0)) == len(rois)
        drawn.append({tuple(roi) for roi in np.asarray(targets.rois)[is_positive].tolist()})
    expected = {tuple(map(float, box)) for box in (*OBJECTS[:2], PROPOSALS[0], PROPOSALS[2])}
    assert drawn == [expected] * 3


def test_images_without_objects_have_background_only():
    targets = jitted_sample(jax.random.key(0), make_batch(objects=False))
    np.testing.assert_array_equal(targets.labels, 0)
    assert targets.valid.sum() == 5


def test_shards_draw_the_samples_of_the_whole_batch():
    batch, key = make_batch(images=4), jax.random.key(1)
    whole = jitted_sample(key, batch)
    shards = jax.tree.map(lambda array: jnp.stack([array[jnp.array([0, 3])], array[1:3]]), batch)
    run = jax.vmap(partial(sample_all, axes=("data",)), (None, 0), axis_name="data")
    sharded = jax.jit(run)(key, shards)
    for array, expected in zip(sharded, whole, strict=True):
        np.testing.assert_array_equal(array[0], expected[jnp.array([0, 3])])
        np.testing.assert_array_equal(array[1], expected[1:3])
    assert (whole.rois[0] != whole.rois[1]).any()  # each image has its own key


def reference_targets(arrays):
    labels = arrays["labels"].astype(np.int32)
    return RoiTargets(*map(jnp.asarray, (arrays["rois"], labels, arrays["boxes"], labels >= 0)))


def test_loss_and_gradients_equal_torchvision():
    with jax.enable_x64(True):
        arrays, reference = inputs(), np.load(FILE)
        targets = reference_targets(arrays)

        def loss(logits, deltas):
            losses = roi_loss(logits, deltas, targets, WEIGHTS)
            return sum(losses), losses

        run = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
        gradients, losses = run(*(jnp.asarray(arrays[name]) for name in ("logits", "deltas")))
        np.testing.assert_allclose(losses, reference["losses"], rtol=1e-12)
        np.testing.assert_allclose(gradients[0], reference["logits"], atol=1e-14)
        np.testing.assert_allclose(gradients[1], reference["deltas"], atol=1e-14)


def test_class_agnostic_boxes_and_rois_without_loss():
    """Deltas off by 0.05 and 0.5 on one axis each; the third RoI does not count."""
    rois = jnp.array([[[10.0, 10, 20, 20], [30, 10, 40, 30], [0, 0, 0, 0]]])
    targets = RoiTargets(
        rois, jnp.array([[3, 1, 2]]), rois.at[0, 2].set(jnp.nan), jnp.array([[True, True, False]])
    )
    deltas = jnp.zeros((1, 3, 1, 4)).at[0, 0, 0, 0].set(0.05).at[0, 1, 0, 3].set(0.5)
    loss = jax.jit(lambda deltas: roi_loss(jnp.zeros((1, 3, 4)), deltas, targets, WEIGHTS))
    class_loss, box_loss = loss(deltas)
    np.testing.assert_allclose(class_loss, np.log(4), rtol=1e-6)
    np.testing.assert_allclose(box_loss, (0.01125 + 0.444444) / 2, rtol=1e-5)
    gradient = jax.jit(jax.grad(lambda deltas: loss(deltas)[1]))(deltas)
    assert jnp.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[0, 2], 0)


def test_losses_of_shards_add_up():
    arrays = inputs()
    targets = reference_targets(arrays)
    targets = targets._replace(valid=targets.valid.at[0, :4].set(False))
    outputs = [jnp.asarray(arrays[name]) for name in ("logits", "deltas")]
    whole = jax.jit(lambda *outputs: roi_loss(*outputs, targets, WEIGHTS))(*outputs)

    def shard(*arrays):
        *outputs, targets = arrays
        return roi_loss(*outputs, targets, WEIGHTS, ("data",))

    split = jax.tree.map(lambda array: array[:, None], (*outputs, targets))
    sharded = jax.jit(jax.vmap(shard, axis_name="data"))(*split)
    np.testing.assert_allclose([loss.sum() for loss in sharded], whole, rtol=1e-5)


# Background, two RoIs of class 1 and one of class 0, and a RoI without loss
LABELS, LOGITS = [0, 2, 2, 1, 1], [[0.3, -1, 2, 0.5], [0, 1, 1, -2], [1, 0, 3, 0], [2, 1, 0, 1]]
CLASS_WEIGHTS = [0.5, 2.0, 7.0]


def class_loss(classes, sigmoid):
    rois = jnp.broadcast_to(jnp.array([0.0, 0, 9, 9]), (1, 5, 4))
    valid = jnp.array([[True, True, True, True, False]])
    targets = RoiTargets(rois, jnp.array([LABELS]), rois, valid)
    logits = jnp.array([[*LOGITS, [jnp.inf, 0, 0, 0]]])
    deltas = jnp.zeros((1, 5, 1, 4))
    run = jax.jit(lambda *classes: roi_loss(
        logits, deltas, targets, WEIGHTS, (), ClassTerms(*classes), sigmoid
    )[0])  # fmt: skip
    return float(run(*classes))


def test_weights_of_classes_in_softmax_by_hand():
    losses = [
        weight * (np.log(np.exp(row).sum()) - row[label])
        for weight, row, label in zip([1, 2.0, 2.0, 0.5], LOGITS, LABELS, strict=False)
    ]
    actual = class_loss((jnp.array(CLASS_WEIGHTS), True), sigmoid=False)
    np.testing.assert_allclose(actual, sum(losses) / 4, rtol=1e-6)


def test_federated_loss_by_hand():
    """Classes 0 and 1 are included; the logit of the background, the first one, has no loss."""
    expected = 0.0
    for row, label in zip(LOGITS, LABELS, strict=False):
        for k in (0, 1):
            p = 1 / (1 + np.exp(-row[k + 1]))
            is_target = label == k + 1
            expected -= CLASS_WEIGHTS[k] * np.log(p) if is_target else np.log(1 - p)
    included = jnp.array([True, True, False])
    actual = class_loss((jnp.array(CLASS_WEIGHTS), included), sigmoid=True)
    np.testing.assert_allclose(actual, expected / 4, rtol=1e-6)
