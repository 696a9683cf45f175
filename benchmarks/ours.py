"""Our contestants: each function builds a call that takes one step, or looks at one image."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np

from benchmarks import rivals

SIDE, CLASSES = 160, 1000
SMALL = {"seed": 0, "lr": 0.01, "weight_decay": 1e-4, "ema": 0.999}


def random_images(batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Float32 images [batch, SIDE, SIDE, 3] and int32 labels [batch]; the same for everybody."""
    random = np.random.default_rng(0)
    images = random.normal(size=(batch, SIDE, SIDE, 3)).astype(np.float32)
    return images, random.integers(0, CLASSES, batch).astype(np.int32)


def classification_step(
    net: str, batch: int, plain: bool = False, members: int = 0, lift: str = "vmap"
) -> Callable[[], Any]:
    """One step of training a classifier: forward, backward, gradient norm, clip, SGD with Nesterov
    momentum and decay, EMA, the guard against what is not finite. No augmentation.

    plain: with `flax.linen.Conv`. members: of a population, each on a batch of its own; 0 is one
    network alone. lift: how the step is made one of all members, as in `lifted`.
    """
    from tinyjax.run import runtime

    runtime.tune_allocator()

    import jax
    import jax.numpy as jnp

    images, labels = random_images(batch * max(members, 1))
    data: dict = {"images": jnp.asarray(images), "labels": jnp.asarray(labels)}
    take, state, hyper = classifier_step(net)
    if members:
        data = {k: v.reshape(members, batch, *v.shape[1:]) for k, v in data.items()}
        state, hyper = (
            jax.tree.map(lambda leaf: jnp.stack([leaf] * members), tree) for tree in (state, hyper)
        )
        take = lifted(take, lift)
    return _call(take, state, data, hyper, plain)


def lifted(step: Callable, how: str) -> Callable:
    """`step` of members along the first axis of each argument; how: see `population.lift`."""
    from tinyjax.population.member_batching import batch_members

    return lambda *trees: batch_members(lambda own, _: step(*own), how)(trees, None)


def detection_step(
    batch: int, plain: bool = False, fields: Mapping[str, Any] | None = None
) -> Callable[[], Any]:
    """One step of configs/hit_uav.py, its augmentation, loss and optimizer, on random images.

    fields: of its config, other values, such as what is frozen.
    """
    from tinyjax.run import runtime

    runtime.tune_allocator()
    take, state, data, hyper = _detection(batch, fields or {})
    return _call(take, state, data, hyper, plain)


def detection_flops(batch: int, fields: Mapping[str, Any]) -> float:
    """Of the same step, as XLA counts what it compiled."""
    import jax

    take, *arguments = _detection(batch, fields)
    counted = jax.jit(take).lower(*arguments).compile().cost_analysis()
    return counted["flops"] if counted else float("nan")


def _detection(batch: int, fields: Mapping[str, Any]):
    """The step of a detector, its first state, random images and hyper-parameters."""
    import jax.numpy as jnp

    from tinyjax import config as configs
    from tinyjax import tasks
    from tinyjax.tasks.detect import make_task

    config, random = configs.load("configs/hit_uav.py"), np.random.default_rng(0)
    config = configs.with_fields(config, fields)
    low = random.uniform(0, 200, (batch, 64, 2)).astype(np.float32)
    data = {
        "images": jnp.asarray(random.integers(0, 255, (batch, 256, 320, 1), np.uint8)),
        "boxes": jnp.asarray(np.concatenate([low, low + 20], -1)),
        "labels": jnp.asarray(random.integers(0, 3, (batch, 64)), jnp.int32),
        "valid": jnp.asarray(random.random((batch, 64)) < 0.2),
        "ignore": jnp.zeros((batch, 64), bool),
    }
    task = make_task(config, ("person", "car", "bicycle"), 1)
    take, state = _step(task, config.optimizer.name, config)
    return take, state, data, tasks.hyper_of(config)


def inference(net: str, plain: bool = False) -> Callable[[], Any]:
    """The logits of one image."""
    from tinyjax.run import runtime

    runtime.tune_allocator()

    import jax
    import jax.numpy as jnp

    from tinyjax import models
    from tinyjax.models.classifier import Classifier

    model = Classifier(models.build(net, CLASSES))
    params, stats = models.init(model, 0, (1, SIDE, SIDE, 3))
    x = jnp.asarray(random_images(1)[0])

    def predict(params, stats, x):
        return models.apply(model, params, stats, x, train=False)[0]

    with rivals.plain_flax() if plain else nullcontext():
        program = jax.jit(predict).lower(params, stats, x).compile()
    return lambda: program(params, stats, x).block_until_ready()


def classifier_step(net: str):
    """The step of a classifier, its first state, and its hyper-parameters."""
    import jax
    import jax.numpy as jnp

    hyper = jax.tree.map(jnp.asarray, SMALL)
    return *_step(_classifier(net), "nesterov"), hyper


def _classifier(net: str):
    """A classifier's task on float images."""
    import jax
    import jax.numpy as jnp

    from tinyjax import models, step
    from tinyjax.models.classifier import Classifier
    from tinyjax.tasks.classify import cross_entropy

    model = Classifier(models.build(net, CLASSES))

    def loss(variables, fixed, batch, key, hyper):
        params, stats = variables
        logits, stats = models.apply(model, params, stats, batch["images"], train=True)
        targets = jax.nn.one_hot(batch["labels"], CLASSES)
        return cross_entropy(logits, targets, jnp.float32(0.1)), (stats, {})

    def init(seed):
        return step.Variables(*models.init(model, seed, (1, SIDE, SIDE, 3)))

    return step.Task(init, loss, lambda *_: None, lambda *_: [])


def _step(task, optimizer: str, config: Any = None):
    """config: what says of what is frozen; None: nothing is."""
    from tinyjax import step
    from tinyjax.transfer import freezing

    tx, variables = step.make_optimizer(optimizer, 0.9, 0.999, 10.0), task.init(0)
    paths = [*variables.params, *variables.stats]
    moving = step.trainable(freezing.lr_multipliers(paths, config)) if config else None
    take = step.make_step(task, tx, step.make_schedule(1000, 10, 0.5, 0.1), moving)
    return take, step.init_state(variables, tx, moving)


def _call(take, state, data, hyper: dict, plain: bool) -> Callable[[], Any]:
    import jax

    with rivals.plain_flax() if plain else nullcontext():
        program = jax.jit(take, donate_argnums=0).lower(state, data, hyper).compile()

    def call():
        nonlocal state
        state, metrics = program(state, data, hyper)
        return metrics["loss"].block_until_ready()

    return call
