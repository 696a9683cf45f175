"""Trains one member for 20 steps of SGD in float64, on one device and spread over four. Prints the
relative difference of losses and of weights as JSON. test_shard.py runs it on simulated devices.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)

from tests.configs import classifier, detector  # noqa: E402
from tinyjax import config as configs  # noqa: E402
from tinyjax import step as steps  # noqa: E402
from tinyjax import tasks  # noqa: E402
from tinyjax.data.records import Labeled  # noqa: E402
from tinyjax.data.sampling import batch_indices, gather, own_rows  # noqa: E402
from tinyjax.population import devices  # noqa: E402

tasks.DTYPES = ("float64",)
STEPS, BATCH = 20, 8
FIELDS = {
    "model.dtype": "float64",
    "batch": BATCH,
    "optimizer.name": "sgd",
    "optimizer.lr": 0.002,
}


def trained(config, kind, training, devices):
    """Losses of each step, and the last weights."""
    channels = training.images.shape[3]
    task = kind.make_task(config, training.classes, channels, axes=devices.axes)
    tx = steps.make_optimizer("sgd", 0.9, 0.999, 1.0)
    step = steps.make_step(task, tx, lambda _: 1.0, axes=devices.axes)
    n = len(training.images)

    def take(own, data):
        state, hyper = own
        index = batch_indices(hyper["seed"], state.step, BATCH, n)
        return step(state, gather(data, own_rows(index, devices.axes)), hyper)

    wide = lambda leaf: jnp.asarray(leaf, jnp.float64)  # noqa: E731
    state = steps.init_state(jax.tree.map(wide, task.init(0)), tx)
    state = devices.spread(state)
    hyper = devices.everywhere(tasks.hyper_of(config))
    data = devices.everywhere(kind.on_device(training))
    run, losses = jax.jit(devices.shard(take)), []
    for _ in range(STEPS):
        state, metrics = run((state, hyper), data)
        losses.append([float(value) for _, value in sorted(metrics.items())])
    weights = state.variables(state.weights)
    return np.array(losses), np.concatenate([*map(np.ravel, jax.tree.leaves(weights))])


def difference(config, training):
    kind = tasks.module(config.task)
    whole = jax.make_mesh((1, 4), ("member", "data"), devices=jax.devices()[:4])
    alone = jax.make_mesh((1, 1), ("member", "data"), devices=jax.devices()[:1])
    (a, one), (b, four) = (
        trained(config, kind, training, devices.DeviceLayout(mesh, 1)) for mesh in (alone, whole)
    )
    assert (one != four).any()  # else nothing was spread
    return {
        "losses": float(np.abs(b / a - 1).max()),
        "weights": float((np.abs(four - one) / np.abs(one).max()).max()),
    }


def scenes():
    config = configs.with_fields(detector.get_config(), FIELDS)
    return config, tasks.module("detect").load(config.data, config.data.train)


def labeled():
    mixed = {"augment.mixup": 0.2, "augment.cutmix": 1.0, "loss.class_balance": 0.5}
    config = configs.with_fields(classifier.get_config(), FIELDS | mixed)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (12, 32, 32, 1), np.uint8)
    labels = np.array([0] * 4 + [1] * 8, np.int32)
    names = tuple(f"{i}.png" for i in range(12))
    return config, Labeled(images, labels, names, ("a", "b"))


if __name__ == "__main__":
    found = {"detect": difference(*scenes()), "classify": difference(*labeled())}
    print(json.dumps(found))
