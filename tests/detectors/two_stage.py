"""Small two-stage detectors, and a batch with objects, an ignored box and padding."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests.detectors.padding import Subsampled
from tests.tiny_backbones import TINY_SHALLOW
from tinyjax import models
from tinyjax.config import detector
from tinyjax.config.detectors import SMALL_ANCHORS
from tinyjax.data.augmentation import normalize
from tinyjax.data.synthetic import dataset
from tinyjax.detectors.boxes import iou

SIDE = 32
# One level, and few candidates: compiles in half the time.
SMALL = {
    "model.strides": (4,),
    "model.anchors": SMALL_ANCHORS[:1],
    "model.neck_width": 4,
    "rpn.sample_size": 32,
    "proposals.max_proposals": 8,
    "proposals.pre_nms_top_k": 16,
    "roi.width": 8,
    "roi.size": 3,
    "roi.sample_size": 16,
    "nms.max_detections": 10,
}


def make_config(name, **fields):
    """fields: with "__" for the dot."""
    config = detector(name)
    fields = {path.replace("__", "."): value for path, value in fields.items()}
    config.update_from_flattened_dict({**SMALL, **fields})
    return config


def make_batch(images=4):
    """Two objects and an ignored box per image; the last image has no object."""
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 20, (images, 4, 2))
    boxes = np.concatenate([low, low + rng.uniform(5, 10, (images, 4, 2))], -1)
    boxes[:, 3] = 0
    valid = np.array([[True, True, False, False]] * images)
    valid[-1] = False
    return {
        "image": jnp.asarray(rng.normal(size=(images, SIDE, SIDE, 3)), jnp.float32),
        "boxes": jnp.asarray(boxes, jnp.float32),
        "labels": jnp.asarray(rng.integers(0, 3, (images, 4))),
        "valid": jnp.asarray(valid),
        "ignore": jnp.asarray([[False, False, True, False]] * images),
    }


def make_model(module, config, backbone=None):
    """A detector of 3 classes and its variables; without a backbone, on one with no parameters."""
    model = module.build(backbone or Subsampled(), config, 3)
    return model, models.init(model, 0, (1, SIDE, SIDE, 3))


def make_loss(module, config, model, axes=()):
    """`(variables, batch, key) -> loss, (stats, terms)`."""

    def loss(params, stats, batch, key):
        apply = partial(models.apply, model, params, stats, train=True, axes=axes)
        return module.loss(apply, batch, key, config.loss.to_dict(), config, axes)

    return loss


def check_shards(module, config):
    """Loss, terms, gradients and running statistics of two shards are those of the whole batch."""
    model, variables = make_model(module, config)
    # Larger logits: rounding errors then do not change the order of the proposals.
    params = {p: 30 * x if p.startswith("rpn/object_out") else x for p, x in variables[0].items()}
    batch, key = make_batch(), jax.random.key(1)
    rows = jnp.array([[0, 3], [1, 2]])  # of `sampling.shard_rows`

    def run(axes):
        return jax.value_and_grad(make_loss(module, config, model, axes), has_aux=True)

    with jax.enable_x64(True):
        as_float64 = partial(
            jax.tree.map, lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x
        )
        params, stats, batch = as_float64((params, variables[1], batch))
        (value, (new_stats, terms)), gradient = jax.jit(run(()))(params, stats, batch, key)
        sharded = jax.vmap(run(("data",)), (None, None, 0, None), axis_name="data")
        (values, (all_stats, all_terms)), gradients = jax.jit(sharded)(
            params, stats, jax.tree.map(lambda x: x[rows], batch), key
        )
        close = partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-10)
        close(values.sum(), value)
        jax.tree.map(lambda x, y: close(x.sum(0), y), all_terms, terms)
        jax.tree.map(lambda x, y: close(x[0], y), all_stats, new_stats)
        jax.tree.map(lambda x, y: close(x.sum(0), y), gradients, gradient)


def check_training(module, config, steps):
    """A single image is learned: all terms become small, and the best detections are the objects.

    The box loss rises at first: only the objects themselves are positive RoIs then, and later
    RoIs are farther off.
    """
    split = dataset.load(1, (64, 64), seed=3)
    image = normalize(jnp.asarray(split.inputs["image"]))
    names = ("boxes", "labels", "valid", "ignore")
    batch = {"image": image, **{name: jnp.asarray(getattr(split, name)) for name in names}}
    model = module.build(models.build(TINY_SHALLOW), config, len(split.classes))
    params, stats = models.init(model, 0, image.shape)
    loss = make_loss(module, config, model)
    tx = optax.adam(optax.cosine_decay_schedule(3e-3, steps))
    opt_state = tx.init(params)

    @jax.jit
    def train_step(params, stats, opt_state, key):
        run = jax.value_and_grad(loss, has_aux=True)
        (_, (stats, terms)), gradient = run(params, stats, batch, key)
        updates, opt_state = tx.update(gradient, opt_state)
        return optax.apply_updates(params, updates), stats, opt_state, terms, gradient

    history, without_gradient = [], {*params}
    for i in range(steps):
        params, stats, opt_state, terms, gradient = train_step(
            params, stats, opt_state, jax.random.key(i)
        )
        history.append({name: float(term) for name, term in terms.items()})
        without_gradient -= {path for path, g in gradient.items() if (g != 0).any()}
    assert without_gradient == set()
    for name in ("class_loss", "box_loss", "rpn_class_loss", "rpn_box_loss"):
        early, late = (np.mean([h[name] for h in history[s]]) for s in (np.s_[:30], np.s_[-20:]))
        assert late < 0.6 * early, name

    @jax.jit
    def predict(params, stats):
        """With the image's statistics, because running statistics take more steps."""
        outputs, _ = models.apply(model, params, stats, image, train=True)
        return module.decode(outputs, image.shape[1:3], config)

    boxes, labels, scores = (predict(params, stats)[n][0] for n in ("boxes", "labels", "scores"))
    assert ((boxes >= 0) & (boxes <= 64)).all()
    assert (jnp.diff(scores) <= 0).all()
    assert ((scores >= 0) & (scores <= 1)).all()
    objects, classes = split.boxes[0][split.valid[0]], split.labels[0][split.valid[0]]
    top = len(objects)
    overlap = iou(jnp.asarray(objects)[:, None], boxes[None, :top])
    assert ((overlap > 0.5) & (classes[:, None] == labels[None, :top])).any(1).all()
