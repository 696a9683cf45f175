"""The members of a population as arrays: each network by itself, and all of them in one."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from tinyjax import config as configs
from tinyjax import models, tasks
from tinyjax.data.subset import subset
from tinyjax.errors import UserError
from tinyjax.models import flops
from tinyjax.models.scaling import Architecture
from tinyjax.models.supernet import gates, supernet
from tinyjax.population.devices import device_layout
from tinyjax.population.member_batching import batch_members
from tinyjax.population.pad import check_zero_padding, pad, unpad
from tinyjax.population.search_space import Member
from tinyjax.run.weights import read_weights
from tinyjax.step import Task, Trainable, Variables, trainable
from tinyjax.transfer import freezing, starting_weights

# The fields that may differ between the members of a population: numbers that become arrays, and
# what is padded or drawn. All others are what a program is made of.
NUMBERS = ("augment", "loss")  # groups of these
CUT = ("augment.area", "augment.aspect")  # of views, which all members share if they are streamed
VARIED = (
    *("subset.fraction", "subset.shots"),
    *("seed", "ema", "init", "reinit", "freeze", "model.backbone"),
    *(
        "optimizer.lr",
        "optimizer.weight_decay",
        "optimizer.backbone_lr_scale",
        "optimizer.layer_decay",
    ),
    *("optimizer.auto_rgn", "regularizer.strength"),
)


class Network(NamedTuple):
    """A member by itself."""

    member: Member
    config: ConfigDict
    arch: Architecture
    variables: Variables  # its first weights
    rates: dict[str, float]  # path -> multiplier of the learning rate
    used: np.ndarray  # bool [N], its part of the training set
    about: dict[str, Any]  # what there is to say of it, numbers mostly
    said: list[str]  # what there is to say of its start


class StoredNetwork(NamedTuple):
    """A member of a finished run, as its files have it."""

    member: Member
    config: ConfigDict
    arch: Architecture
    variables: Variables
    about: dict[str, Any]  # what its json says


class Population(NamedTuple):
    """Networks in one program; of several, every array has a leading axis [M]."""

    task: Task
    moving: Trainable
    variables: Variables
    hyper: dict[str, Any]
    data: dict[str, Any]  # what members have of the training set: `used`, and what depends on it


def varies(field: str) -> bool:
    """Whether members of one population may differ in a field."""
    return field in VARIED or field.partition(".")[0] in NUMBERS


def member_config(config: ConfigDict, member: Member) -> ConfigDict:
    """A member's own config, with the epsilon of its starting weights if it has none."""
    own = configs.with_fields(config, member.point)
    if own.init and not own.model.batchnorm_eps:
        own = configs.with_fields(
            own,
            {
                "model.batchnorm_eps": starting_weights.read(
                    own.init, own.model.backbone, own.seed
                ).eps
            },
        )
    return own


def build_network(config: ConfigDict, member: Member, kind: ModuleType, training: Any) -> Network:
    """A member's first weights, starting weights fitted into them, and what of them trains.

    training: the training split. Raises UserError as `start.read`, `start.fit` and `freeze.rates`,
    and for a pull to nowhere.
    """
    own = member_config(config, member)
    _, height, width, channels = training.images.shape
    task = kind.make_task(own, training.classes, channels)
    variables = task.init(own.seed)
    leaves, said = {**variables.params, **variables.stats}, []
    fitted = None
    if own.init:
        weights = starting_weights.read(own.init, own.model.backbone, own.seed)
        fitted = starting_weights.fit(weights, leaves, own.reinit, training.classes)
        said.append(starting_weights.table(fitted, weights))
        variables = Variables(*({p: fitted.leaves[p] for p in tree} for tree in variables))
    rates = freezing.lr_multipliers(leaves, own)
    sizes = {path: leaf.size for path, leaf in variables.params.items()}
    if set(rates.values()) != {1.0}:
        said.append(freezing.describe(rates, sizes))
    if warning := starting_weights.never_trained(fitted.new if fitted else leaves, rates):
        said.append(warning)
    model = kind.make_model(own, len(training.classes))
    about = {
        "member": member.id,
        "seed": own.seed,
        "backbone": own.model.backbone,
        "parameters": sum(sizes.values()),
        "backbone_parameters": sum(
            n for p, n in sizes.items() if p.startswith(("backbone/stem/", "backbone/stage"))
        ),
        "trained_parameters": sum(size for path, size in sizes.items() if rates[path]),
        "multiply_adds": _multiply_adds(model, (1, height, width, channels)),
    }
    part, used = own.subset, np.ones(len(training.images), bool)
    if part.fraction < 1 or part.shots:
        used = subset(kind.labels(training), own.seed, part.fraction, part.shots)
    if own.batch > (there := int(used.sum())):
        raise UserError(
            f"batch = {own.batch}: of seed {own.seed}'s subset (fraction {part.fraction}, shots "
            f"{part.shots}) there are {there} images; give a batch of at most {there}"
        )
    if own.regularizer.strength and not own.init:
        raise UserError(
            f"regularizer.strength = {own.regularizer.strength}: there are no starting weights to "
            "regularize towards; give init, or a strength of 0"
        )
    arch = models.architecture(own.model.backbone)
    return Network(member, own, arch, variables, rates, used, about, said)


def load_trained(
    folder: Path,
    ids: Sequence[str],
    which: str,
    changes: Mapping[str, Any],
    kind: ModuleType,
    training: Any,
) -> list[Network]:
    """Members of a finished run with the weights that they ended with.

    which: "last" or "best" of the averaged ones. changes: of their configs, field -> value.
    """
    found = []
    for one in load_stored(folder, ids, which):
        own = {"init": "", "reinit": (), "regularizer.strength": 0.0, **changes}
        alone = build_network(configs.with_fields(one.config, own), one.member, kind, training)
        found.append(alone._replace(variables=one.variables))
    return found


def load_stored(
    folder: Path, ids: Sequence[str], which: str, overrides: Sequence[str] = ()
) -> list[StoredNetwork]:
    """Members of a finished run as its files have them, with nothing else at hand.

    which: "last" or "best" of the averaged weights. overrides: of their configs, as on the command
    line. Raises UserError as `read_weights` and `override` do.
    """
    found = []
    for id in ids:
        name = id if which == "last" else f"{id}-{which}"
        trees, about = read_weights(folder / "weights" / name)
        config = configs.override(configs.from_run(about["config"]), overrides)
        arch = models.architecture(config.model.backbone)
        found.append(StoredNetwork(Member(id, {}), config, arch, Variables(**trees), about))
    return found


def make_predictor(
    networks: Sequence[StoredNetwork], kind: ModuleType
) -> tuple[Task, Callable[[np.ndarray], list[dict[str, np.ndarray]]]]:
    """The task of members of one population, and `predict(images) -> [predictions of each]`."""
    first = networks[0]
    wide = supernet(each.arch for each in networks)
    _, _, channels = first.about["frame"]
    task = kind.make_task(first.config, tuple(first.about["classes"]), channels, wide)
    devices = device_layout(len(networks), first.config.batch)
    variables = devices.spread(stack_trees(pad_networks(networks, task, wide)))
    how = "vmap" if len(networks) > 1 else "none"
    predict = jax.jit(devices.shard(batch_members(task.predict, how), split=True))
    return task, partial(
        tasks.predict_all, predict, variables, batch=devices.rows, members=len(networks)
    )


def pad_networks(
    networks: Sequence[Network | StoredNetwork], task: Task, wide: Architecture
) -> list[Variables]:
    """Each one's weights in the shapes of the union `wide`, which `task` is made for."""
    shapes = jax.eval_shape(task.init, 0)
    params, stats = ({p: leaf.shape for p, leaf in tree.items()} for tree in shapes)
    return [
        Variables(
            pad(each.variables.params | _gates(each.arch, wide), params),
            pad(each.variables.stats, stats),
        )
        for each in networks
    ]


def stack_members(
    networks: Sequence[Network], kind: ModuleType, training: Any, axes: Sequence[str] = ()
) -> Population:
    """Networks as one: padded into their union, numbers that differ as arrays. axes: of a mesh that
    batches are spread over.

    Raises UserError where padding would not be exact.
    """
    first, channels = networks[0].config, training.images.shape[3]
    wide = supernet(each.arch for each in networks)
    largest = {  # what no member uses is not in the program at all
        f"{group}.{name}": max(each.config[group][name] for each in networks)
        for group in NUMBERS
        for name in first[group]
    }
    config = configs.with_fields(first, largest)
    task = kind.make_task(config, training.classes, channels, wide, axes)
    if len({each.arch for each in networks}) > 1:
        model = kind.make_model(config, len(training.classes), wide)
        check_zero_padding(model, (1, *config.crop_size, channels))
    variables = pad_networks(networks, task, wide)
    paths = [path for tree in variables[0] for path in tree]
    rates = [
        dict.fromkeys(paths, None) | each.rates | dict.fromkeys(_gates(each.arch, wide), 0.0)
        for each in networks
    ]
    always, varied = _rates(rates)
    hypers = [
        tasks.hyper_of(each.config, {p: own[p] for p in varied})
        for each, own in zip(networks, _filled(rates, varied), strict=True)
    ]
    for hyper, own in zip(hypers, (each.config for each in networks), strict=True):
        if any(each.config.regularizer.strength for each in networks):
            hyper["regularizer"] = {"strength": np.float32(own.regularizer.strength)}
        if any(each.config.optimizer.auto_rgn for each in networks):
            hyper["auto_rgn"] = np.float32(own.optimizer.auto_rgn)
    parts: list[dict[str, Any]] = [{} for _ in networks]
    if not all(each.used.all() for each in networks):
        parts = [
            {"used": _listed(each.used), "own": kind.of_subset(training, each.used)}
            for each in networks
        ]
    if len(networks) == 1:
        return Population(task, trainable(always), variables[0], hypers[0], parts[0])
    trees = [stack_trees(own) for own in (variables, hypers, parts)]
    return Population(task, trainable(always), *jax.device_put(trees))


def stack_trees(trees: Sequence[Any]) -> Any:
    """The inverse of `each_of`. On the host: stacked on the device, each shape is a program of its
    own to compile.
    """
    if len(trees) == 1:
        return trees[0]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def unstack(tree: Any, members: int) -> list[Any]:
    """A tree of arrays [M, ...] as M trees; of one member, which has no such axis, as it is."""
    if members == 1:
        return [tree]
    return [jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(members)]


def unpad_member(variables: Variables, network: Network) -> Variables:
    """A member's own network out of its padded one."""
    return Variables(
        *(
            unpad(tree, {path: leaf.shape for path, leaf in own.items()})
            for tree, own in zip(variables, network.variables, strict=True)
        )
    )


def members_row(network: Network) -> dict[str, Any]:
    """A member's row of members.csv: what it is, and the other fields that its sweep gave it."""
    point = network.member.point
    given = {field: value for field, value in point.items() if field != "model.backbone"}
    return {**network.about, **given}


def describe(networks: Sequence[Network], config: ConfigDict, size: tuple[int, int]) -> str:
    """What is trained, for the log: one network in full, of several the range. size: of a frame,
    width and height.
    """
    steps, (height, width) = config.schedule.steps, config.crop_size
    how = f"{steps} steps of {config.batch} windows of {width} x {height}"
    abouts = [each.about for each in networks]
    if len(networks) > 1:
        low, *_, high = sorted(about["parameters"] for about in abouts)
        shared = "\nall members see the same batches, those of the config's seed"
        return f"model: {len(networks)} networks of {low:,} to {high:,} parameters; {how}" + (
            shared if config.data.stream else ""
        )
    (about,), (network,) = abouts, networks
    trained, whole = about["trained_parameters"], about["parameters"]
    line = (
        f"model: {about['backbone']}, {whole:,} parameters, "
        f"{about['backbone_parameters']:,} of them in the backbone; "
        f"{about['multiply_adds'] / 1e6:.1f} M multiply-adds a frame of {size[0]} x {size[1]}\n"
        f"trains: {f'{trained:,} of the' if trained < whole else 'all'} parameters"
        f"{'' if network.config.init else ' from scratch'}, seed {about['seed']}, {how}"
    )
    return "\n".join([line, *network.said])


def _gates(arch: Architecture, wide: Architecture) -> dict[str, np.float32]:
    return {f"backbone/{path}": np.float32(n) for path, n in gates(arch, wide).items()}


_multiply_adds = cache(flops.multiply_adds)  # members mostly have one of a few networks


def _rates(rates: Sequence[Mapping[str, float | None]]) -> tuple[dict[str, float], list[str]]:
    """What freezes in all members that have it (path -> 0, all else 1), and the paths whose
    multipliers members must be told.
    """
    values = {path: {own[path] for own in rates} - {None} for path in rates[0]}
    always = {path: float(own != {0.0}) for path, own in values.items()}
    varied = [
        path
        for path, own in values.items()
        if always[path] and own != {1.0} and not (path.endswith(("/mean", "/var")) and 0 not in own)
    ]
    return always, varied


def _listed(used):
    """bool [N] -> int32 [N], the indices where it is True, and then -1."""
    indices = np.flatnonzero(used)
    return np.pad(indices, (0, len(used) - len(indices)), constant_values=-1).astype(np.int32)


def _filled(rates, varied):
    return [{p: 1.0 if own[p] is None else own[p] for p in varied} for own in rates]
