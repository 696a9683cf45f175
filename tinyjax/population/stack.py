"""Networks as one population: padded to one supernet, values that differ as arrays [M, ...]."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from tinyjax import config as configs
from tinyjax.core import ModelFunctions, Split, Task, Trainable, Variables
from tinyjax.models.scaling import Architecture
from tinyjax.models.supernet import gate_values, merge_architectures
from tinyjax.population.devices import device_layout
from tinyjax.population.member_batching import batch_members
from tinyjax.population.networks import Network, StoredNetwork, input_shapes
from tinyjax.population.pad import check_zero_padding, pad, unpad
from tinyjax.population.prediction import predict_all
from tinyjax.step import trainable

# The fields in which members of a population may differ: numbers that become arrays, and fields
# that padding and drawing absorb. All other fields are part of the program.
NUMBER_GROUPS = ("augment", "loss")
VIEW_FIELDS = ("augment.area", "augment.aspect")  # shared by all members if views are streamed
VARIABLE_FIELDS = (
    *("subset.fraction", "subset.shots"),
    *("seed", "ema", "init", "reinit", "freeze", "model.backbone"),
    *("optimizer.lr", "optimizer.weight_decay", "optimizer.backbone_lr_scale"),
    *("optimizer.layer_decay", "optimizer.auto_rgn", "regularizer.strength"),
)


class Population(NamedTuple):
    """Members in one program. With several members every array has a leading axis [M]."""

    model: ModelFunctions
    trainable: Trainable
    variables: Variables
    hyper: dict[str, Any]
    subset: dict[str, Any]  # each member's training set: `indices`, and `arrays` that depend on it


def may_vary(field: str) -> bool:
    """Whether members of one population may differ in a field."""
    return field in VARIABLE_FIELDS or field.partition(".")[0] in NUMBER_GROUPS


def stack_members(
    networks: Sequence[Network], task: Task, training: Split, axes: Sequence[str] = ()
) -> Population:
    """Networks as one population. axes: mesh axes that batches are spread over.

    Raises UserError where zero padding would not be exact.
    """
    merged = merge_architectures(network.architecture for network in networks)
    config = _shared_config(networks)
    inputs = input_shapes(training)
    model = task.functions(config, training.classes, inputs, merged, axes)
    if len({network.architecture for network in networks}) > 1:
        network = task.build(config, len(training.classes), merged)
        check_zero_padding(network, (1, *config.crop_size, inputs["image"][-1]))
    variables = pad_networks(networks, model, merged)
    paths = [path for tree in variables[0] for path in tree]
    multipliers: list[dict[str, float | None]] = [
        dict.fromkeys(paths, None)
        | network.lr_multipliers
        | dict.fromkeys(_gates(network.architecture, merged), 0.0)
        for network in networks
    ]
    shared, varied = _split_multipliers(multipliers)
    hypers = _hypers(networks, multipliers, varied)
    subsets = _subsets(networks, task, training)
    if len(networks) == 1:
        return Population(model, trainable(shared), variables[0], hypers[0], subsets[0])
    trees = [stack_trees(trees) for trees in (variables, hypers, subsets)]
    return Population(model, trainable(shared), *jax.device_put(trees))


def hyper_arrays(
    config: ConfigDict, multiplier: Mapping[str, float] = MappingProxyType({})
) -> dict[str, Any]:
    """The values of a config that members of a population may vary, as arrays.

    multiplier: path -> multiplier of the learning rate, where members differ.
    """
    numbers = {
        "seed": config.seed,
        "lr": config.optimizer.lr,
        "weight_decay": config.optimizer.weight_decay,
        "ema": config.ema,
        "augment": config.augment.to_dict(),
        "loss": config.loss.to_dict(),
        **({"multiplier": dict(multiplier)} if multiplier else {}),
    }
    return jax.tree.map(jnp.asarray, numbers)


def make_predictor(
    networks: Sequence[StoredNetwork], task: Task
) -> Callable[..., list[dict[str, np.ndarray]]]:
    """`predict(inputs) -> [predictions of each member]` for stored members of one population."""
    first = networks[0]
    merged = merge_architectures(network.architecture for network in networks)
    inputs = {name: tuple(shape) for name, shape in first.metadata["inputs"].items()}
    model = task.functions(first.config, tuple(first.metadata["classes"]), inputs, merged)
    layout = device_layout(len(networks), first.config.batch)
    variables = layout.place(stack_trees(pad_networks(networks, model, merged)))
    batching = "vmap" if len(networks) > 1 else "none"
    predict = jax.jit(layout.shard(batch_members(model.predict, batching), split=True))
    batch = layout.predict_batch
    return partial(predict_all, predict, variables, batch=batch, members=len(networks))


def pad_networks(
    networks: Sequence[Network | StoredNetwork], model: ModelFunctions, merged: Architecture
) -> list[Variables]:
    """The weights of each network, in the shapes of `model`, whose architecture is `merged`."""
    shapes = jax.eval_shape(model.init, 0)
    params, stats = ({p: leaf.shape for p, leaf in tree.items()} for tree in shapes)
    return [
        Variables(
            pad(network.variables.params | _gates(network.architecture, merged), params),
            pad(network.variables.stats, stats),
        )
        for network in networks
    ]


def unpad_member(variables: Variables, network: Network) -> Variables:
    """A member's weights in its own shapes, out of its padded ones."""
    return Variables(
        *(
            unpad(tree, {path: leaf.shape for path, leaf in reference.items()})
            for tree, reference in zip(variables, network.variables, strict=True)
        )
    )


def stack_trees(trees: Sequence[Any]) -> Any:
    """M trees as one tree of arrays [M, ...], on the host: on the device each shape is a program.

    A single tree is returned as it is, without the axis.
    """
    if len(trees) == 1:
        return trees[0]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def unstack(tree: Any, members: int) -> list[Any]:
    """A tree of arrays [M, ...] as M trees, the inverse of `stack_trees`."""
    if members == 1:
        return [tree]
    return [jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(members)]


def _shared_config(networks: Sequence[Network]) -> ConfigDict:
    """The config of the program: an augmentation or loss term that no member uses is 0 in it, and
    then not part of the program.
    """
    first = networks[0].config
    largest = {
        f"{group}.{name}": max(network.config[group][name] for network in networks)
        for group in NUMBER_GROUPS
        for name in first[group]
    }
    return configs.with_fields(first, largest)


def _hypers(
    networks: Sequence[Network],
    multipliers: Sequence[Mapping[str, float | None]],
    varied: Sequence[str],
) -> list[dict[str, Any]]:
    regularized = any(network.config.regularizer.strength for network in networks)
    auto_rgn = any(network.config.optimizer.auto_rgn for network in networks)
    hypers = []
    for network, multiplier in zip(networks, multipliers, strict=True):
        # A path that a member does not have is padding: its multiplier is never read.
        values = {path: 1.0 if (m := multiplier[path]) is None else m for path in varied}
        hyper = hyper_arrays(network.config, values)
        if regularized:
            hyper["regularizer"] = {"strength": np.float32(network.config.regularizer.strength)}
        if auto_rgn:
            hyper["auto_rgn"] = np.float32(network.config.optimizer.auto_rgn)
        hypers.append(hyper)
    return hypers


def _split_multipliers(
    multipliers: Sequence[Mapping[str, float | None]],
) -> tuple[dict[str, float], list[str]]:
    """path -> 0 if every member that has the path freezes it, else 1; and the paths whose
    multipliers are arrays. None: a member that does not have the path.
    """
    values = {path: {m[path] for m in multipliers} - {None} for path in multipliers[0]}
    shared = {path: float(own != {0.0}) for path, own in values.items()}
    varied = [
        path
        for path, own in values.items()
        if shared[path] and own != {1.0} and not (path.endswith(("/mean", "/var")) and 0 not in own)
    ]
    return shared, varied


def _subsets(networks: Sequence[Network], task: Task, training: Split) -> list[dict[str, Any]]:
    if all(network.sample_mask.all() for network in networks):
        return [{} for _ in networks]
    arrays = task.subset_arrays or (lambda split, mask: {})
    return [
        {"indices": _indices(n.sample_mask), "arrays": arrays(training, n.sample_mask)}
        for n in networks
    ]


def _indices(mask: np.ndarray) -> np.ndarray:
    """bool [N] -> int32 [N], the indices where it is True, then -1."""
    indices = np.flatnonzero(mask)
    return np.pad(indices, (0, len(mask) - len(indices)), constant_values=-1).astype(np.int32)


def _gates(architecture: Architecture, merged: Architecture) -> dict[str, np.float32]:
    return {
        f"backbone/{path}": np.float32(n) for path, n in gate_values(architecture, merged).items()
    }
