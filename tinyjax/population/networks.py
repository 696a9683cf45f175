"""Single members of a population: built for training, or read from a finished run."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from tinyjax import config as configs
from tinyjax import models
from tinyjax.core import Split, Task, Variables
from tinyjax.data.fingerprint import class_difference
from tinyjax.data.repeats import draw_repeats
from tinyjax.data.subset import draw_subset
from tinyjax.errors import UserError
from tinyjax.models import flops
from tinyjax.models.scaling import Architecture
from tinyjax.population.search_space import Member
from tinyjax.run import weights
from tinyjax.transfer import freezing, starting_weights


class Network(NamedTuple):
    """A member, ready to be trained."""

    member: Member
    config: ConfigDict
    architecture: Architecture
    variables: Variables  # before the first step
    lr_multipliers: dict[str, float]  # path -> multiplier of the learning rate
    sample_mask: np.ndarray  # bool [N], the training samples that it uses
    epoch_samples: np.ndarray  # int32 [L], the same samples, each as often as an epoch has it
    metadata: dict[str, Any]  # for members.csv and the weights' JSON file
    trained_on: tuple[dict[str, Any], ...]  # identity records, also of its starting weights
    messages: list[str]  # log messages on starting weights and freezing


class StoredNetwork(NamedTuple):
    """A member of a finished run, as its files describe it."""

    member: Member
    config: ConfigDict
    architecture: Architecture
    variables: Variables
    metadata: dict[str, Any]


def input_shapes(split: Split) -> dict[str, tuple[int, ...]]:
    """Input name -> shape of a sample."""
    return {name: tuple(array.shape[1:]) for name, array in split.inputs.items()}


def batch_shapes(
    inputs: Mapping[str, tuple[int, ...]], window: Sequence[int]
) -> list[tuple[int, ...]]:
    """The shape of each input in a batch of one: an image has the size (height, width) `window`."""
    return [(1, *(s if len(s) < 3 else (*window, s[-1]))) for s in inputs.values()]


def member_config(config: ConfigDict, member: Member) -> ConfigDict:
    """A member's config, with the BatchNorm epsilon of its starting weights if it sets none."""
    merged = configs.with_fields(config, member.point)
    if merged.init and not merged.model.batchnorm_eps:
        start = starting_weights.load_starting_weights(
            merged.init, merged.model.backbone, merged.seed
        )
        merged = configs.with_fields(merged, {"model.batchnorm_eps": start.eps})
    return merged


def build_network(config: ConfigDict, member: Member, task: Task, training: Split) -> Network:
    """Build a member, ready to be trained, from its starting weights if it has any.

    Raises UserError as `load_starting_weights`, `fit_to_network` and
    `freezing.lr_multipliers` do, for a subset smaller than a batch, and for a regularizer without
    starting weights.
    """
    config = member_config(config, member)
    inputs = input_shapes(training)
    variables = task.model_functions(config, training.classes, inputs).init(config.seed)
    arrays, messages = {**variables.params, **variables.stats}, []
    fitted = None
    trained_on: tuple[dict[str, Any], ...] = ()
    if config.init:
        start = starting_weights.load_starting_weights(
            config.init, config.model.backbone, config.seed
        )
        reinit, trained_on = tuple(config.reinit), start.trained_on
        if task.renews_class_layers and start.classes != tuple(training.classes):
            reinit += (starting_weights.CLASS_LAYERS,)
        fitted = starting_weights.fit_to_network(start, arrays, reinit, training.classes)
        messages.append(starting_weights.describe(fitted, start))
        variables = Variables(*({p: fitted.arrays[p] for p in tree} for tree in variables))
    elif config.regularizer.strength:
        raise UserError(
            f"regularizer.strength = {config.regularizer.strength}: there are no starting weights "
            "to regularize towards; give init, or a strength of 0"
        )
    if task.identity_record:
        trained_on += (task.identity_record(training),)
    multipliers = freezing.lr_multipliers(arrays, config)
    sizes = {path: leaf.size for path, leaf in variables.params.items()}
    if set(multipliers.values()) != {1.0}:
        messages.append(freezing.describe(multipliers, sizes))
    if warning := starting_weights.untrained_warning(fitted.new if fitted else arrays, multipliers):
        messages.append(warning)
    trunk = ("backbone/stem/", "backbone/stage", "backbone/infrared/")
    backbone = [path for path in sizes if path.startswith(trunk)]
    model = task.build(config, len(training.classes))
    metadata = {
        "member": member.id,
        "seed": config.seed,
        "backbone": config.model.backbone,
        "parameters": sum(sizes.values()),
        "backbone_parameters": sum(sizes[path] for path in backbone),
        "trained_parameters": sum(size for path, size in sizes.items() if multipliers[path]),
        "multiply_adds": _multiply_adds(model, *((1, *shape) for shape in inputs.values())),
    }
    architecture = models.configured_architecture(config.model)
    mask = sample_mask(config, task, training)
    samples = epoch_samples(config, task, training, mask)
    if config.data.repeat_threshold:
        messages.append(f"an epoch has {len(samples)} samples of {mask.sum()} training images")
    return Network(
        member, config, architecture, variables, multipliers, mask, samples, metadata, trained_on,
        messages,
    )  # fmt: skip


def sample_mask(config: ConfigDict, task: Task, training: Split) -> np.ndarray:
    """The training samples that a member uses: bool [N].

    Raises UserError if they are fewer than a batch.
    """
    fraction, shots = config.subset.fraction, config.subset.shots
    mask = np.ones(len(training.names), bool)
    if fraction < 1 or shots:
        mask = draw_subset(task.sample_labels(training), config.seed, fraction, shots)
    if config.batch > (count := int(mask.sum())):
        raise UserError(
            f"batch = {config.batch}: the subset of seed {config.seed} (fraction {fraction}, shots "
            f"{shots}) has {count} images; give a batch of at most {count}"
        )
    return mask


def epoch_samples(config: ConfigDict, task: Task, training: Split, mask: np.ndarray) -> np.ndarray:
    """The samples of an epoch: those of `mask` in ascending order, with repeats: int32 [L]."""
    samples = np.flatnonzero(mask).astype(np.int32)
    if threshold := config.data.repeat_threshold:
        labels = task.sample_labels(training)
        samples = samples[draw_repeats([labels[i] for i in samples], config.seed, threshold)]
    return samples


def load_trained(
    folder: Path,
    ids: Sequence[str],
    which: str,
    changes: Mapping[str, Any],
    task: Task,
    training: Split,
) -> list[Network]:
    """Load members of a finished run as `Network`s, with their trained weights.

    which: "last" or "best" of the averaged weights. changes: field -> value, set in their configs.
    Raises UserError if the classes of the training set are no longer those of the weights.
    """
    networks = []
    for stored in load_stored(folder, ids, which):
        if (classes := tuple(stored.metadata["classes"])) != tuple(training.classes):
            raise UserError(
                f"{folder}: the training classes {class_difference(classes, training.classes)}; "
                "restore the data that these weights were trained on"
            )
        fields = {"init": "", "reinit": (), "regularizer.strength": 0.0, **changes}
        config = configs.with_fields(stored.config, fields)
        network = build_network(config, stored.member, task, training)
        trained_on = tuple(stored.metadata.get("trained_on", ()))
        networks.append(network._replace(variables=stored.variables, trained_on=trained_on))
    return networks


def load_stored(
    folder: Path, ids: Sequence[str], which: str, overrides: Sequence[str] = ()
) -> list[StoredNetwork]:
    """Load members of a finished run from its files alone.

    which: "last" or "best" of the averaged weights. overrides: config overrides as on the command
    line. Raises UserError as `read_weights` and `config.override` do.
    """
    networks = []
    for id in ids:
        name = id if which == "last" else f"{id}-{which}"
        trees, metadata = weights.read_weights(folder / "weights" / name)
        config = configs.override(configs.from_run(metadata["config"]), overrides)
        architecture = models.configured_architecture(config.model)
        variables = Variables(**trees)
        networks.append(StoredNetwork(Member(id, {}), config, architecture, variables, metadata))
    return networks


def weights_metadata(network: Network, task: Task, training: Split, **extra: Any) -> dict[str, Any]:
    """The JSON of a member's weights: everything that another machine needs to use them."""
    return {
        **network.metadata,
        "inputs": input_shapes(training),
        "config": network.config.to_dict(),
        "classes": training.classes,
        "training": task.class_counts(training, network.sample_mask),
        "trained_on": network.trained_on,
        **extra,
    }


def members_row(network: Network) -> dict[str, Any]:
    """A member's row of members.csv: its metadata and the fields that its sweep varies."""
    point = network.member.point
    varied = {field: value for field, value in point.items() if field != "model.backbone"}
    return {**network.metadata, **varied}


def describe(networks: Sequence[Network], config: ConfigDict, size: tuple[int, int]) -> str:
    """A summary of what is trained, for the log. size: (width, height) of an image."""
    steps, (height, width) = config.schedule.steps, config.crop_size
    schedule = f"{steps} steps of {config.batch} windows of {width} x {height}"
    if len(networks) > 1:
        smallest, *_, largest = sorted(n.metadata["parameters"] for n in networks)
        line = (
            f"model: {len(networks)} networks of {smallest:,} to {largest:,} parameters; {schedule}"
        )
        note = "\nall members see the same batches, in the order of the config's seed"
        return line + (note if config.data.stream else "")
    (network,) = networks
    metadata = network.metadata
    trained, parameters = metadata["trained_parameters"], metadata["parameters"]
    line = (
        f"model: {metadata['backbone']}, {parameters:,} parameters, "
        f"{metadata['backbone_parameters']:,} of them in the backbone; "
        f"{metadata['multiply_adds'] / 1e6:.1f} M multiply-adds per image of {size[0]} x {size[1]}"
        f"\ntrains {f'{trained:,} of the' if trained < parameters else 'all'} parameters"
        f"{'' if network.config.init else ' from scratch'}, seed {metadata['seed']}, {schedule}"
    )
    return "\n".join([line, *network.messages])


_multiply_adds: Callable[..., int] = cache(flops.count_multiply_adds)  # members share few networks
