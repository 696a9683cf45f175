"""Train one member for 20 steps of SGD in float64, on one device and spread over four.

Prints the relative differences of losses and weights as JSON. test_devices.py runs this script on
simulated devices.
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
from tinyjax.data.records import ClassificationSplit  # noqa: E402
from tinyjax.data.sampling import gather, shard_rows  # noqa: E402
from tinyjax.population import devices  # noqa: E402
from tinyjax.population.networks import input_shapes  # noqa: E402
from tinyjax.population.stack import hyper_arrays  # noqa: E402
from tinyjax.tasks import get_task  # noqa: E402

tasks.DTYPES = ("float64",)
STEPS, BATCH = 20, 8
FIELDS = {
    "model.dtype": "float64",
    "batch": BATCH,
    "optimizer.name": "sgd",
    "optimizer.lr": 0.002,
}


def train(config, task, training, layout):
    """The loss and metrics of each step, [STEPS, metrics], and the final weights as a vector."""
    inputs = input_shapes(training)
    model = task.model_functions(config, training.classes, inputs, axes=layout.axes)
    tx = steps.make_optimizer("sgd", 0.9, 0.999, 1.0)
    step = steps.make_step(model, tx, lambda _: 1.0, axes=layout.axes)

    def member_step(member, data):
        state, hyper = member
        index = task.sample(hyper["seed"], state.step, config, data)
        return step(state, gather(data, shard_rows(index, layout.axes)), hyper)

    def to_float64(leaf):
        return jnp.asarray(leaf, jnp.float64)

    state = steps.init_state(jax.tree.map(to_float64, model.init(0)), tx)
    state = layout.place(state)
    hyper = layout.replicate(hyper_arrays(config))
    data = layout.replicate(task.device_arrays(training))
    train_step, losses = jax.jit(layout.shard(member_step)), []
    for _ in range(STEPS):
        state, metrics = train_step((state, hyper), data)
        losses.append([float(value) for _, value in sorted(metrics.items())])
    weights = state.variables(state.weights)
    return np.array(losses), np.concatenate([*map(np.ravel, jax.tree.leaves(weights))])


def relative_differences(config, training):
    """The maximum relative differences between training on one device and on four."""
    task = get_task(config.task)
    one_device = jax.make_mesh((1, 1), ("member", "data"), devices=jax.devices()[:1])
    four_devices = jax.make_mesh((1, 4), ("member", "data"), devices=jax.devices()[:4])
    (losses, weights), (sharded_losses, sharded_weights) = (
        train(config, task, training, devices.DeviceLayout(mesh, 1))
        for mesh in (one_device, four_devices)
    )
    assert (weights != sharded_weights).any()  # equal bits would mean that nothing was sharded
    return {
        "losses": float(np.abs(sharded_losses / losses - 1).max()),
        "weights": float((np.abs(sharded_weights - weights) / np.abs(weights).max()).max()),
    }


def detection():
    """Config and training split: synthetic scenes."""
    config = configs.with_fields(detector.get_config(), FIELDS)
    return config, get_task("detect").load(config.data, config.data.train)


def classification():
    """Config and training split: random images of two classes of unequal size."""
    mixed = {"augment.mixup": 0.2, "augment.cutmix": 1.0, "loss.class_balance": 0.5}
    config = configs.with_fields(classifier.get_config(), FIELDS | mixed)
    images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 1), np.uint8)
    labels = np.array([0] * 4 + [1] * 8, np.int32)
    names = tuple(f"{i}.png" for i in range(12))
    return config, ClassificationSplit({"image": images}, labels, names, ("a", "b"))


if __name__ == "__main__":
    differences = {
        "detect": relative_differences(*detection()),
        "classify": relative_differences(*classification()),
    }
    print(json.dumps(differences))
