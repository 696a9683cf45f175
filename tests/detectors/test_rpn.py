"""The region proposal network: outputs, loss and proposals by hand."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tinyjax.detectors import deltas as coder
from tinyjax.detectors.anchor_matching import match
from tinyjax.detectors.anchors import all_boxes, level_sizes, make_levels
from tinyjax.detectors.rpn import RPN, ProposalConfig, make_proposals, rpn_loss

STRIDES, CELL_ANCHORS = (4, 8), (((5.0, 5.0, 2),), ((8.0, 8.0, 1), (4.0, 12.0, 1)))
LEVELS = make_levels((16, 16), STRIDES, CELL_ANCHORS)
ANCHORS = jnp.asarray(all_boxes(LEVELS))
N = len(ANCHORS)
THRESHOLDS = {"foreground_iou": 0.5, "background_iou": 0.3}


def make_batch():
    """The second image has no object, and an ignored box."""
    boxes = [[[1, 1, 6, 7], [8, 7, 15, 16], [0, 0, 0, 0]], [[2, 4, 12, 14]] + [[0] * 4] * 2]
    return {
        "boxes": jnp.asarray(boxes, jnp.float32),
        "valid": jnp.array([[True, True, False], [False] * 3]),
        "ignore": jnp.array([[False] * 3, [True, False, False]]),
    }


def random_outputs():
    rng = np.random.default_rng(0)
    logits, deltas = rng.normal(0, 2, (2, N)), rng.normal(0, 0.3, (2, N, 4))
    return jnp.asarray(logits, jnp.float32), jnp.asarray(deltas, jnp.float32)


@partial(jax.jit, static_argnames=("sample_size", "positive_fraction", "axes"))
def losses_of(key, logits, deltas, batch, sample_size, positive_fraction=0.5, axes=()):
    options = {"sample_size": sample_size, "positive_fraction": positive_fraction, "axes": axes}
    return jnp.stack(rpn_loss(key, logits, deltas, ANCHORS, batch, **THRESHOLDS, **options))


def matches_of(batch):
    matches = jax.jit(jax.vmap(partial(match, ANCHORS, **THRESHOLDS, low_quality=True)))
    return jax.tree.map(np.asarray, matches(batch["boxes"], batch["valid"], batch["ignore"]))


@pytest.mark.parametrize("head", ["separable", "dense"])
def test_outputs_are_in_the_order_of_the_anchors(head):
    """The parameters are 0, except for the biases of the outputs."""
    model = RPN((4, 2), head)
    levels = {8: jnp.ones((1, 2, 2, 3)), 4: jnp.ones((1, 4, 4, 3))}
    variables = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), levels)
    variables = jax.tree.map(lambda x: jnp.zeros(x.shape), nn.unbox(variables))
    bias = {4: jnp.arange(4.0), 2: jnp.arange(2.0) + 10}
    for anchors, values in bias.items():
        for name, array in (("object_out", values), ("box_out", jnp.arange(4.0 * anchors))):
            variables["params"][name][f"anchors{anchors}"]["bias"] = array
    logits, deltas = jax.jit(partial(model.apply, train=False))(variables, levels)
    expected = np.concatenate([np.tile(bias[4], 16), np.tile(bias[2], 4)])
    np.testing.assert_array_equal(logits[0], expected)
    np.testing.assert_array_equal(deltas[0, :4], np.arange(16).reshape(4, 4))
    np.testing.assert_array_equal(deltas[0, -2:], np.arange(8).reshape(2, 4))
    assert logits.shape == (1, N)
    assert logits.dtype == deltas.dtype == jnp.float32


def test_loss_of_all_anchors_written_out():
    """With more slots than anchors, the sample is all positives and negatives."""
    (logits, deltas), batch = random_outputs(), make_batch()
    matches = matches_of(batch)
    truth = jnp.take_along_axis(batch["boxes"], matches.object_index[..., None], 1)
    difference = np.abs(np.asarray(deltas - coder.encode(truth, ANCHORS)))
    p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    class_loss = box_loss = 0.0
    for b, n in np.ndindex(p.shape):
        if matches.is_positive[b, n]:
            class_loss -= np.log(p[b, n])
            for d in difference[b, n]:
                box_loss += 4.5 * d * d if d < 1 / 9 else d - 1 / 18
        elif matches.is_negative[b, n]:
            class_loss -= np.log(1 - p[b, n])
    count = (matches.is_positive | matches.is_negative).sum()
    assert 3 <= matches.is_positive.sum() < count < 2 * N
    actual = losses_of(jax.random.key(0), logits, deltas, batch, 2 * N)
    np.testing.assert_allclose(actual, [class_loss / count, box_loss / count], rtol=1e-5)


def test_sampled_anchors_are_half_positive():
    """All predictions are wrong: a positive has the loss 100, a negative 200."""
    batch = make_batch()
    matches = matches_of(batch)
    logits = jnp.where(matches.is_positive, -100.0, 200.0)
    actual = losses_of(jax.random.key(0), logits, jnp.zeros((2, N, 4)), batch, 4)
    # Two positives and two negatives in the first image, four negatives in the second.
    np.testing.assert_allclose(actual[0], (2 * 100 + 6 * 200) / 8, rtol=1e-6)
    other = losses_of(jax.random.key(1), *random_outputs(), batch, 4)
    assert (other != losses_of(jax.random.key(2), *random_outputs(), batch, 4)).all()


def test_without_objects_boxes_have_no_loss_and_gradients_are_finite():
    batch = make_batch()
    batch["valid"] = jnp.zeros((2, 3), bool)
    gradient = jax.jit(
        jax.grad(lambda *outputs: losses_of(jax.random.key(0), *outputs, batch, 8).sum(), (0, 1))
    )
    for scale in (1, 100):
        of_logits, of_deltas = gradient(*(scale * x for x in random_outputs()))
        assert jnp.isfinite(of_logits).all()
        assert (of_logits != 0).sum() <= 2 * 8
        np.testing.assert_array_equal(of_deltas, 0)


def test_losses_of_shards_add_up():
    (logits, deltas), batch = random_outputs(), make_batch()
    both = jax.tree.map(lambda x: jnp.concatenate([x, x[::-1]]), (logits, deltas, batch))
    whole = losses_of(jax.random.key(3), *both, 4)
    rows = jnp.array([[0, 3], [1, 2]])  # of `sampling.shard_rows`
    shards = jax.tree.map(lambda x: x[rows], both)
    run = jax.vmap(
        lambda *shard: losses_of(jax.random.key(3), *shard, 4, axes=("data",)), axis_name="data"
    )
    np.testing.assert_allclose(run(*shards).sum(0), whole, rtol=1e-5)


def test_proposals_are_decoded_clipped_and_suppressed_within_each_level():
    """An anchor of the first level, its neighbor, and one of the second level on the same box."""
    first, second, third = 21, 22, 64 + 2
    assert level_sizes(LEVELS) == (64, 8)
    box = jnp.array([-3.0, 2, 9, 8])
    index = jnp.array([first, second, third])
    deltas = jnp.zeros((1, N, 4)).at[0, index].set(coder.encode(box, ANCHORS[index]))
    logits = jnp.full((1, N), -9.0).at[0, index].set(jnp.array([3.0, 2, 1]))
    config = ProposalConfig(
        iou_threshold=0.7, max_proposals=3, pre_nms_top_k=3, score_threshold=0.5
    )

    def run(logits, deltas):
        return make_proposals(logits, deltas, (16, 16), LEVELS, config)

    proposals, gradient = jax.jit(
        lambda *outputs: (
            run(*outputs),
            jax.grad(lambda deltas: run(outputs[0], deltas).boxes.sum())(outputs[1]),
        )
    )(logits, deltas)
    np.testing.assert_allclose(proposals.boxes[0, :2], [[0, 2, 9, 8]] * 2, atol=1e-5)
    np.testing.assert_array_equal(proposals.logits[0, :2], [3, 1])
    np.testing.assert_array_equal(proposals.valid[0], [True, True, False])
    np.testing.assert_array_equal(gradient, 0)
