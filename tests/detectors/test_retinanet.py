"""RetinaNet: outputs, loss, training and decoding."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.detectors.padding import check_padded_training
from tests.tiny_backbones import TINY, TINY_SHALLOW
from tinyjax import models
from tinyjax.config import detector
from tinyjax.config.detectors import SMALL_ANCHORS
from tinyjax.data.augmentation import normalize
from tinyjax.data.synthetic import dataset
from tinyjax.detectors import deltas as coder
from tinyjax.detectors import retinanet
from tinyjax.detectors.anchor_matching import match
from tinyjax.detectors.anchors import make_anchors
from tinyjax.detectors.boxes import iou
from tinyjax.detectors.long_tail import EQUAL_CLASSES, ClassTerms
from tinyjax.errors import UserError

ANCHORS = jnp.asarray(make_anchors(16, 16, (4, 8), [[(5.0, 5.0, 2)], [(8.0, 8.0, 1)]]))
N = len(ANCHORS)
WEIGHTS = {"class": 1.0, "box": 2.0, "focal_alpha": 0.25, "focal_gamma": 2.0}


def make_config(backbone=TINY_SHALLOW, **fields):
    config = detector("retinanet")
    config.model.backbone, config.model.neck_width = backbone, 16
    config.model.update(fields)
    return config


def build(config, classes=3):
    return retinanet.build(models.build(config.model.backbone), config, classes)


def init_shapes(model):
    return jax.eval_shape(lambda: models.init(model, 0, (1, 64, 64, 1)))


# ---- the network


@pytest.mark.parametrize(
    ("head", "anchors", "rows", "outputs"),
    [
        ("separable", None, [18 * 13 * 11, 9 * 7 * 1], {"anchors1", "anchors11"}),
        # The levels share the layers of their outputs.
        ("dense", [[(9.0, 9.0, 1)] * 3] * 2, [18 * 13 * 3, 9 * 7 * 3], {"anchors3"}),
        ("separable", ["torchvision"], [18 * 13 * 9, 9 * 7 * 9], {"anchors9"}),
    ],
)
def test_outputs_have_one_row_per_anchor(head, anchors, rows, outputs):
    config = make_config(head=head, **({"anchors": anchors} if anchors else {}))
    model = build(config, classes=5)
    params, stats = init_shapes(model)
    x = jax.ShapeDtypeStruct((2, 72, 50, 1), jnp.float32)
    (logits, deltas), _ = jax.eval_shape(
        lambda p, s, x: models.apply(model, p, s, x, train=False), params, stats, x
    )
    assert (logits.shape, deltas.shape) == ((2, sum(rows), 5), (2, sum(rows), 4))
    assert logits.dtype == deltas.dtype == jnp.float32
    assert {p.split("/")[2] for p in params if p.startswith("head/class_out/")} == outputs
    size = {"separable": 1, "dense": 3}[head]
    assert all(
        leaf.shape[:2] == (size, size)
        for path, leaf in params.items()
        if path.startswith("head/box_out/") and path.endswith("kernel")
    )


def test_the_default_head_on_a_small_backbone_has_a_tenth_of_the_parameters():
    params, _ = init_shapes(build(detector("retinanet")))
    sizes = {
        module: sum(leaf.size for path, leaf in params.items() if path.startswith(f"{module}/"))
        for module in ("backbone", "neck", "head")
    }
    assert 0.05 < (sizes["neck"] + sizes["head"]) / sum(sizes.values()) < 0.1


def test_rows_are_in_the_order_of_the_anchors():
    """A bright spot changes the outputs of anchors around it most, at both levels."""
    model = build(make_config(TINY))
    params, stats = models.init(model, 0, (1, 64, 96, 1))
    params = {p: 100 * x if p.startswith("head/box_out/") else x for p, x in params.items()}
    anchors = make_anchors(64, 96, (4, 8), detector("retinanet").model.anchors)
    start = 16 * 24 * 11
    dark = jnp.zeros((1, 64, 96, 1))
    deltas = jax.jit(lambda x: models.apply(model, params, stats, x, train=False)[0][1])
    change = np.abs(deltas(dark.at[0, 38:42, 70:74].set(5.0)) - deltas(dark)).sum(-1)[0]
    for level in (slice(0, start), slice(start, None)):
        box = anchors[level][change[level].argmax()]
        assert np.abs((box[:2] + box[2:]) / 2 - [72, 40]).max() <= 16


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model.anchors", (((4.0, 4.0, 1),),), "1 levels for model.strides = (4, 8)"),
        ("model.anchors", (((4.0, 4.0),), ((8.0, 8.0, 1),)), "(4.0, 4.0): give (width, height, n)"),
        ("model.anchors", (((4.0, 0.0, 1),), ((8.0, 8.0, 1),)), "with positive sizes"),
        ("model.anchors", ((4.0, 4.0, 1), (8.0, 8.0, 1)), "4.0: give (width, height, n)"),
        ("model.anchors", (4.0, 8.0), "give a tuple of anchors for each stride"),
        ("model.anchors", ("torchvison",), "did you mean 'torchvision'"),
        ("model.anchors", ("small", ((8.0, 8.0, 1),)), "or one name"),
        ("model.head", "seperable", "did you mean 'separable'"),
        ("model.strides", (4, 16), "consecutive strides"),
        ("model.strides", (4, 8, 16, 32, 64, 128), "at most 5 consecutive strides"),
        ("model.strides", (64, 128), "the first of them at most 32"),
        ("model.neck_extra_levels", "p6", "did you mean 'p5'"),
        ("model.neck_extra_levels", "p5", "the neck pan does not have this option"),
        ("matching.background_iou", 0.6, "background_iou <= foreground_iou"),
    ],
)
def test_invalid_configs_are_rejected(path, value, message):
    config = make_config()
    config.update_from_flattened_dict({path: value})
    with pytest.raises(UserError) as error:
        build(config)
    assert message in str(error.value)


# ---- the loss


def make_batch(boxes, valid, ignore=None, labels=None):
    boxes = jnp.asarray(boxes, jnp.float32)
    shape = boxes.shape[:2]
    return {
        "boxes": boxes,
        "valid": jnp.asarray(valid),
        "ignore": jnp.zeros(shape, bool) if ignore is None else jnp.asarray(ignore),
        "labels": jnp.zeros(shape, jnp.int32) if labels is None else jnp.asarray(labels),
    }


match_batch = jax.jit(
    jax.vmap(partial(match, ANCHORS, foreground_iou=0.5, background_iou=0.4, low_quality=True))
)


@jax.jit
def loss_terms(logits, deltas, batch, classes=EQUAL_CLASSES):
    matches = match_batch(batch["boxes"], batch["valid"], batch["ignore"])
    return retinanet.retinanet_loss(logits, deltas, ANCHORS, matches, batch, WEIGHTS, (), classes)


def random_outputs(images):
    rng = np.random.default_rng(0)
    logits, deltas = rng.normal(-2, 1, (images, N, 2)), rng.normal(0, 0.3, (images, N, 4))
    return jnp.asarray(logits, jnp.float32), jnp.asarray(deltas, jnp.float32)


@pytest.mark.parametrize(
    ("weight", "included"), [((1.0, 1.0), (True, True)), ((0.5, 3.0), (False, True))]
)
def test_loss_equals_the_sum_over_anchors(weight, included):
    """Written out in numpy; the second image has no object."""
    logits, deltas = random_outputs(images=2)
    boxes = [[[1, 1, 6, 7], [8, 7, 15, 16], [0, 0, 0, 0]], [[2, 9, 9, 14]] + [[0] * 4] * 2]
    valid = [[True, True, False], [False] * 3]
    ignore = [[False] * 3, [True, False, False]]
    labels = [[1, 0, 0], [0, 0, 0]]
    batch = make_batch(boxes, valid, ignore, labels)
    matches = match_batch(batch["boxes"], batch["valid"], batch["ignore"])
    is_positive, is_negative, index = map(
        np.asarray, (matches.is_positive, matches.is_negative, matches.object_index)
    )
    expected = coder.encode(batch["boxes"][:, :, None], ANCHORS)  # [B, G, N, 4]
    distance = np.abs(np.asarray(deltas[:, None] - expected)).sum(-1)
    p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    class_loss, box_loss = 0.0, 0.0
    for b, n in zip(*np.nonzero(is_positive | is_negative), strict=True):
        g = index[b, n]
        for c in np.flatnonzero(included):
            if is_positive[b, n] and c == labels[b][g]:
                class_loss -= weight[c] * 0.25 * (1 - p[b, n, c]) ** 2 * np.log(p[b, n, c])
            else:
                class_loss -= 0.75 * p[b, n, c] ** 2 * np.log(1 - p[b, n, c])
        box_loss += distance[b, g, n] * is_positive[b, n]
    positives = is_positive.sum()
    assert positives >= 3
    assert not (is_positive | is_negative).all()
    classes = ClassTerms(jnp.array(weight), jnp.array(included))
    value, terms = loss_terms(logits, deltas, batch, classes)
    assert int(terms["positives"]) == positives
    assert float(terms["class_loss"]) == pytest.approx(class_loss / positives, rel=1e-5)
    assert float(terms["box_loss"]) == pytest.approx(box_loss / positives, rel=1e-5)
    assert float(value) == pytest.approx((class_loss + 2 * box_loss) / positives, rel=1e-5)


def test_gradients_are_finite_without_objects_and_for_extreme_outputs():
    batch = make_batch(jnp.zeros((2, 3, 4)), jnp.zeros((2, 3), bool))
    gradient = jax.jit(jax.grad(lambda *outputs: loss_terms(*outputs, batch)[0], (0, 1)))
    for scale in (1.0, 100.0):
        logit_gradient, delta_gradient = gradient(*(scale * x for x in random_outputs(images=2)))
        assert jnp.isfinite(logit_gradient).all()
        assert (delta_gradient == 0).all()  # boxes have no loss without objects


# ---- training and decoding


def make_trainer(config, split, lr):
    """The variables, and `train_step(variables, opt_state) -> (.., loss, terms, gradient)`."""
    model = build(config, len(split.classes))
    images = normalize(jnp.asarray(split.inputs["image"]))
    labels = {n: jnp.asarray(getattr(split, n)) for n in ("boxes", "labels", "valid", "ignore")}
    batch, tx = {"image": images, **labels}, optax.adam(lr)
    variables = models.init(model, 0, images.shape)

    @jax.jit
    def train_step(variables, opt_state):
        def loss(params):
            apply = partial(models.apply, model, params, variables[1], train=True)
            return retinanet.loss(apply, batch, jax.random.key(0), config.loss.to_dict(), config)

        (value, (stats, terms)), gradient = jax.value_and_grad(loss, has_aux=True)(variables[0])
        updates, opt_state = tx.update(gradient, opt_state)
        params = optax.apply_updates(variables[0], updates)
        return (params, stats), opt_state, value, terms, gradient

    @partial(jax.jit, static_argnames="train")
    def predict(variables, train):
        outputs, _ = models.apply(model, *variables, images, train=train)
        return retinanet.decode(outputs, images.shape[1:3], config)

    return variables, tx.init(variables[0]), train_step, predict


@pytest.mark.slow
def test_training_reaches_all_parameters_and_decode_returns_boxes_in_the_image():
    split = dataset.load(2, (64, 64), seed=3)
    config = make_config(head_depth=1)
    config.nms.pre_nms_top_k, config.nms.max_detections = 50, 20
    variables, opt_state, train_step, predict = make_trainer(config, split, 3e-3)
    losses = []
    for _ in range(5):
        variables, opt_state, value, terms, gradient = train_step(variables, opt_state)
        losses.append(float(value))
    assert [path for path, g in gradient.items() if not (g != 0).any()] == []
    assert losses[-1] < 0.9 * losses[0]
    assert float(terms["positives"]) >= split.valid.sum()
    detections = predict(variables, train=False)
    boxes, scores, labels = (np.asarray(detections[n]) for n in ("boxes", "scores", "labels"))
    assert boxes.shape == (2, 20, 4)
    assert ((boxes >= 0) & (boxes <= 64)).all()
    assert (boxes[..., 2:] >= boxes[..., :2]).all()
    assert (np.diff(scores) <= 0).all()
    assert ((scores >= 0) & (scores <= 1)).all()
    assert ((labels >= 0) & (labels < 3)).all()


def test_decode_applies_the_deltas_to_the_anchors():
    config = make_config()
    anchors = make_anchors(64, 64, (4, 8), config.model.anchors)
    truth, n = jnp.array([10.0, 12, 16, 22]), 16 * 13 * 4 + 5
    deltas = jnp.zeros((1, len(anchors), 4)).at[0, n].set(coder.encode(truth, anchors[n]))
    logits = jnp.full((1, len(anchors), 3), -20.0).at[0, n, 1].set(2.0)
    config.nms.pre_nms_top_k, config.nms.max_detections = 50, 20
    detections = jax.jit(lambda *o: retinanet.decode(o, (64, 64), config))(logits, deltas)
    np.testing.assert_allclose(detections["boxes"][0, 0], truth, rtol=1e-5)
    assert float(detections["scores"][0, 0]) == pytest.approx(1 / (1 + np.exp(-2)))
    assert int(detections["labels"][0, 0]) == 1


@pytest.mark.slow
def test_an_image_is_learned_in_20_steps():
    """The detections with the highest scores are the objects.

    BatchNorm normalizes with the image's statistics: running statistics take more steps.
    """
    split = dataset.load(1, (64, 64), seed=3)
    config = make_config(TINY, neck_width=32)
    variables, opt_state, train_step, predict = make_trainer(config, split, 1e-2)
    for _ in range(20):
        variables, opt_state, value, _, _ = train_step(variables, opt_state)
    detections = jax.tree.map(lambda x: x[0], predict(variables, train=True))
    objects = split.boxes[0][split.valid[0]]
    top = len(objects)
    overlap = iou(jnp.asarray(objects)[:, None], detections["boxes"][None, :top])
    same = split.labels[0][split.valid[0]][:, None] == detections["labels"][None, :top]
    assert float(value) < 0.5
    assert ((overlap > 0.5) & same).any(1).all()


# ---- zero padding


ONE_LEVEL = {"strides": (4,), "anchors": SMALL_ANCHORS[:1], "head_depth": 1}


@pytest.mark.parametrize(
    ("fields", "backbones"),
    [
        pytest.param(ONE_LEVEL, "", marks=pytest.mark.slow),
        pytest.param({}, "", marks=pytest.mark.slow),
        pytest.param({"head": "dense"}, "", marks=pytest.mark.slow),
        pytest.param({}, "mobilenetv3/s-1", marks=pytest.mark.slow),
    ],
)
def test_padded_training_equals_unpadded_training(fields, backbones):
    check_padded_training(retinanet, make_config(**fields), backbones)
