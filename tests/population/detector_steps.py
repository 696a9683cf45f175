"""Train two members of a ladder for 20 steps of SGD in float64: each alone, and as a population.

    python -m tests.population.detector_steps DETECTOR NECK FAMILY [METHOD]

In the population the smaller network is zero-padded to the larger one, whose backbone is frozen by
arrays of multipliers. mobilenetv3: the members are vmapped, and their batches spread over two
devices. efficientnet: each member has two devices of its own.

METHOD `wide+tpu` trains the population with the forms that operations have on a TPU.

Prints the relative differences of losses and weights, and the largest entry of the padding, as
JSON. test_detectors.py runs this script on simulated devices.
"""

import json
import sys
from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np

from tests.configs import detectors
from tests.platforms import forms_of
from tests.population.device_steps import FIELDS, STEPS  # enables float64
from tinyjax import config as configs
from tinyjax.models.supernet import GATES
from tinyjax.population.devices import DeviceLayout
from tinyjax.population.networks import build_network
from tinyjax.population.pad import pad
from tinyjax.population.program import make_training, over_members
from tinyjax.population.search_space import make_members
from tinyjax.population.stack import stack_members, unpad_member, unstack
from tinyjax.tasks import get_task

# family -> two networks that differ in the channels of the neck, and the mesh (member, data)
LADDERS = {
    "mobilenetv3": (("mobilenetv3/s-5", "mobilenetv3/s-2"), (1, 2)),
    "efficientnet": (("efficientnet/b-6", "efficientnet/b-3"), (2, 2)),
}


# The learning rate is constant, because a schedule is computed in float32.
SCHEDULE = {"schedule.steps": STEPS, "schedule.warmup": 0, "schedule.final_lr_scale": 1.0}


def make_config(detector, neck):
    config = detectors.get_config(f"{detector},{neck}")
    fields = {**FIELDS, **SCHEDULE, "model.neck_width": 0, "crop_size": (32, 32)}
    return configs.with_fields(config, fields)


def train(config, members, mesh_shape, training, method, chunk_size=0):
    """The losses [members, STEPS], and each member's padded and unpadded weights as two dicts."""
    task, (rows, columns) = get_task(config.task), mesh_shape
    devices = jax.devices()[: rows * columns]
    layout = DeviceLayout(
        jax.make_mesh(mesh_shape, ("member", "data"), devices=devices), len(members)
    )
    networks = [build_network(config, member, task, training) for member in members]
    population = stack_members(networks, task, training, layout.axes)
    method = method if len(members) > 1 else "none"
    batched = over_members(layout, method, chunk_size or len(members))
    init, train_step = make_training(config, task, population, layout, batched, method)
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), population.variables)
    # Without weak types: the learning rate of a single member would be rounded to float32.
    hyper = jax.tree.map(np.asarray, population.hyper)
    variables, hyper, subset = layout.place((variables, hyper, population.subset))
    state, data = jax.jit(init)(variables), layout.replicate(task.device_arrays(training))
    train_step, losses = jax.jit(train_step, donate_argnums=0), []
    for _ in range(STEPS):
        state, metrics = train_step(state, data, hyper, subset)
        losses.append(np.atleast_1d(layout.to_host(metrics["loss"])))
    state = layout.to_host(state)
    padded = unstack(state.variables(state.weights), len(members))
    unpadded = [unpad_member(v, n) for v, n in zip(padded, networks, strict=True)]
    to_dicts = [[{**v.params, **v.stats} for v in variables] for variables in (padded, unpadded)]
    return np.stack(losses, 1), [*zip(*to_dicts, strict=True)]


def max_padding(padded, unpadded):
    """The largest absolute value of the entries that a member does not have."""
    padded = {path: leaf for path, leaf in padded.items() if path.split("/")[-1] not in GATES}
    padded_again = pad(unpadded, {path: leaf.shape for path, leaf in padded.items()})
    return max(np.abs(leaf - padded_again[path]).max() for path, leaf in padded.items())


def ladder_points(backbones):
    """The members of a population of two backbones, the second of which is frozen."""
    return [
        {"model.backbone": backbone, "seed": seed, "optimizer.backbone_lr_scale": scale}
        for seed, (backbone, scale) in enumerate(zip(backbones, (1.0, 0.0), strict=True))
    ]


def compare(config, training, points, mesh_shape, method="vmap", chunk_size=0):
    """Train a population of members, and each alone: the differences of each member."""
    members = make_members(config, points)
    method, _, platform = method.partition("+")
    with forms_of(platform) if platform else nullcontext():
        losses, weights = train(config, members, mesh_shape, training, method, chunk_size)
    results = []
    for member, member_losses, (padded, unpadded) in zip(members, losses, weights, strict=True):
        alone = configs.with_fields(config, member.point)
        (expected_losses,), ((_, expected),) = train(alone, [member], (1, 1), training, "none")
        assert padded["backbone/stem/kernel"].dtype == expected_losses.dtype == np.float64
        # Relative to an array's largest entry, or to what SGD could have changed.
        scales = {p: max(np.abs(leaf).max(), STEPS * 0.002) for p, leaf in expected.items()}
        results.append({
            "losses": float(np.abs(member_losses / expected_losses - 1).max()),
            "weights": max(
                float(np.abs(unpadded[p] - leaf).max() / scales[p]) for p, leaf in expected.items()
            ),
            "padding": float(max_padding(padded, unpadded)),
            "padded": sum(np.shape(padded[p]) != leaf.shape for p, leaf in unpadded.items()),
            "change": float(expected_losses[-1] / expected_losses[0] - 1),
        })  # fmt: skip
    return results


def compare_ladder(config, family, method="vmap"):
    training = get_task(config.task).load(config.data, config.data.train)
    backbones, mesh_shape = LADDERS[family]
    return compare(config, training, ladder_points(backbones), mesh_shape, method)


def main(detector, neck, family, method="vmap"):
    print(json.dumps(compare_ladder(make_config(detector, neck), family, method)))


if __name__ == "__main__":
    main(*sys.argv[1:])
