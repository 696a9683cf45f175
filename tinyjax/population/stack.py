"""Stack networks into a population: weights padded to a supernet, differing values as arrays."""

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
from tinyjax.population.networks import Network, StoredNetwork, batch_shapes, input_shapes
from tinyjax.population.pad import check_zero_padding, pad, unpad
from tinyjax.population.prediction import predict_all
from tinyjax.step import select_trainable

# The fields in which members of a population may differ: numbers that become arrays, and fields
# that change only weights, padding or subsets. All other fields are part of the program.
NUMBER_GROUPS = ("augment", "loss")
PROGRAM_FIELDS = ("loss.federated_classes",)  # exceptions in these groups
VIEW_FIELDS = ("augment.area", "augment.aspect")  # must be equal if views are streamed
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
    is_number = field.partition(".")[0] in NUMBER_GROUPS and field not in PROGRAM_FIELDS
    return field in VARIABLE_FIELDS or is_number


def stack_members(
    networks: Sequence[Network], task: Task, training: Split, axes: Sequence[str] = ()
) -> Population:
    """Stack networks into a population. axes: mesh axes that batches are spread over.

    Raises UserError where zero padding would not be exact.
    """
    merged = merge_architectures(network.architecture for network in networks)
    config = _shared_config(networks)
    inputs = input_shapes(training)
    model = task.model_functions(config, training.classes, inputs, merged, axes)
    if len({network.architecture for network in networks}) > 1:
        network = task.build(config, len(training.classes), merged)
        check_zero_padding(network, *batch_shapes(inputs, config.crop_size))
    variables = pad_networks(networks, model, merged)
    paths = [path for tree in variables[0] for path in tree]
    multipliers: list[dict[str, float | None]] = [
        dict.fromkeys(paths, None)
        | network.lr_multipliers
        | dict.fromkeys(_gate_params(network.architecture, merged), 0.0)
        for network in networks
    ]
    shared, varied = _split_multipliers(multipliers)
    hypers = _hypers(networks, multipliers, varied, task, training)
    subsets = _subsets(networks, task, training)
    if len(networks) == 1:
        return Population(model, select_trainable(shared), variables[0], hypers[0], subsets[0])
    trees = [stack_trees(trees) for trees in (variables, hypers, subsets)]
    return Population(model, select_trainable(shared), *jax.device_put(trees))


def hyper_arrays(
    config: ConfigDict, multiplier: Mapping[str, float] = MappingProxyType({})
) -> dict[str, Any]:
    """The values of a config in which members of a population may differ, as arrays.

    multiplier: path -> multiplier of the learning rate, for paths in which members differ.
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
    """Return `predict(inputs) -> [predictions of each member]` for members of one population."""
    first = networks[0]
    merged = merge_architectures(network.architecture for network in networks)
    inputs = {name: tuple(shape) for name, shape in first.metadata["inputs"].items()}
    model = task.model_functions(first.config, tuple(first.metadata["classes"]), inputs, merged)
    layout = device_layout(len(networks), first.config.batch)
    variables = layout.place(stack_trees(pad_networks(networks, model, merged)))
    batching = "vmap" if len(networks) > 1 else "none"
    predict = jax.jit(layout.shard(batch_members(model.predict, batching), split_rows=True))
    batch = layout.predict_batch
    return partial(predict_all, predict, variables, batch=batch, num_members=len(networks))


def pad_networks(
    networks: Sequence[Network | StoredNetwork], model: ModelFunctions, merged: Architecture
) -> list[Variables]:
    """Pad the weights of each network to the shapes of `model`, the network of `merged`."""
    shapes = jax.eval_shape(model.init, 0)
    params, stats = ({p: leaf.shape for p, leaf in tree.items()} for tree in shapes)
    return [
        Variables(
            pad(network.variables.params | _gate_params(network.architecture, merged), params),
            pad(network.variables.stats, stats),
        )
        for network in networks
    ]


def unpad_member(variables: Variables, network: Network) -> Variables:
    """Slice a member's padded weights to the shapes of its network."""
    return Variables(
        *(
            unpad(tree, {path: leaf.shape for path, leaf in reference.items()})
            for tree, reference in zip(variables, network.variables, strict=True)
        )
    )


def stack_trees(trees: Sequence[Any]) -> Any:
    """Stack M trees into one tree of arrays [M, ...], without the axis if M is 1.

    This happens on the host; on a device, each shape would compile a program.
    """
    if len(trees) == 1:
        return trees[0]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def unstack(tree: Any, num_members: int) -> list[Any]:
    """Split a tree of arrays [M, ...] into M trees, the inverse of `stack_trees`."""
    if num_members == 1:
        return [tree]
    return [jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(num_members)]


def _shared_config(networks: Sequence[Network]) -> ConfigDict:
    """The config of the program, with the members' largest value of each augmentation or loss
    field. A term that no member uses is 0, and therefore not part of the program.
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
    task: Task,
    training: Split,
) -> list[dict[str, Any]]:
    regularized = any(network.config.regularizer.strength for network in networks)
    auto_rgn = any(network.config.optimizer.auto_rgn for network in networks)
    hypers = []
    for network, multiplier in zip(networks, multipliers, strict=True):
        # A path that a member does not have is padding: its multiplier is never read.
        values = {path: 1.0 if (m := multiplier[path]) is None else m for path in varied}
        hyper = hyper_arrays(network.config, values)
        if task.loss_arrays:
            hyper["loss"] |= task.loss_arrays(training, network.sample_mask, network.config)
        if regularized:
            hyper["regularizer"] = {"strength": np.float32(network.config.regularizer.strength)}
        if auto_rgn:
            hyper["auto_rgn"] = np.float32(network.config.optimizer.auto_rgn)
        hypers.append(hyper)
    return hypers


def _split_multipliers(
    multipliers: Sequence[Mapping[str, float | None]],
) -> tuple[dict[str, float], list[str]]:
    """Return path -> 0 if all members with this path freeze it, else 1; and the paths whose
    multipliers differ and become arrays. A multiplier of None: the member lacks the path.
    """
    values = {path: {m[path] for m in multipliers} - {None} for path in multipliers[0]}
    shared = {path: float(distinct != {0.0}) for path, distinct in values.items()}

    def is_array(path, distinct):
        unscaled = path.endswith(("/mean", "/var")) and 0 not in distinct
        return shared[path] and distinct != {1.0} and not unscaled

    varied = [path for path, distinct in values.items() if is_array(path, distinct)]
    return shared, varied


def _subsets(networks: Sequence[Network], task: Task, training: Split) -> list[dict[str, Any]]:
    all_samples = np.arange(len(training.names))
    if networks[0].config.data.stream or all(
        np.array_equal(network.epoch_samples, all_samples) for network in networks
    ):
        return [{} for _ in networks]
    size = max(len(samples) for samples in (all_samples, *(n.epoch_samples for n in networks)))
    subset_arrays = task.subset_arrays or (lambda split, mask: {})
    return [
        {
            "indices": np.pad(
                n.epoch_samples, (0, size - len(n.epoch_samples)), constant_values=-1
            ),
            "arrays": subset_arrays(training, n.sample_mask),
        }
        for n in networks
    ]


def _gate_params(architecture: Architecture, merged: Architecture) -> dict[str, np.float32]:
    return {
        f"backbone/{path}": np.float32(n) for path, n in gate_values(architecture, merged).items()
    }
