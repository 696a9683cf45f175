"""Starting weights: loaded from a run folder or a file, fitted to a network, and summarized.

Arrays are matched by module: the backbone's trunk, its adapters, its squeeze-excite after stages,
its head, hidden and classifier layers, the neck, the detection head. A module that only the network
has is new; a module that only the weights have is skipped. A module that both have must match array
by array, except for paths that `reinit` names. In a network with two paths, arrays of the infrared
path that the weights lack are copies of those of the visible path.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import indent
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from tinyjax.config.paths import parse_path
from tinyjax.data.augmentation import MEAN, STD
from tinyjax.errors import UserError, shorten
from tinyjax.models.path_blocks import INFRARED_PREFIX
from tinyjax.run import run_folder
from tinyjax.run.csv_files import read_rows
from tinyjax.run.text import text_table
from tinyjax.run.weights import is_tinyjax_file, read_weights
from tinyjax.transfer import pretrained
from tinyjax.transfer.torch_detectors import convert_detector

# The layers whose outputs are the classes, and those whose shapes may depend on their number.
CLASS_LAYERS = r"(head|box_head\d+)/class_out/.*|(backbone/)?classifier/.*"
_INFRARED = f"backbone/{INFRARED_PREFIX}"
CLASS_SHAPES = rf"{CLASS_LAYERS}|box_head\d+/box_out/.*"


class StartingWeights(NamedTuple):
    """Weights of a trained network."""

    source: str  # path of their file
    arrays: dict[str, np.ndarray]  # path -> array, parameters and running statistics alike
    eps: float  # BatchNorm epsilon in their training; 0: the family's default
    backbone: str = ""  # its name, if known
    classes: tuple[str, ...] = ()  # names, if known
    trained_on: tuple[dict[str, Any], ...] = ()  # identity records, if known


class FittedWeights(NamedTuple):
    """The arrays of a network, and which of them are starting weights."""

    arrays: dict[str, Array]
    loaded: tuple[str, ...]
    reshaped: tuple[str, ...]  # those of `loaded` that had another number of input channels
    new: tuple[str, ...]
    skipped: tuple[str, ...]  # paths of the starting weights that are not used
    copied: tuple[str, ...] = ()  # those of `loaded` in the infrared path that the weights lack


def load_starting_weights(init: str, backbone: str, seed: int = 0) -> StartingWeights:
    """Load the starting weights that `config.init` names.

    Args:
        init: a run folder, whose last averaged weights are loaded; the folder of a sweep, for its
            member with the same backbone and seed; <run or sweep>/averages/paths-N, the average
            by tinyjax.average of that member; a .safetensors file of tinyjax; or a
            .safetensors, .pth, .pt or .bin file of timm or torchvision: of a classifier, or of a
            detector by torchvision, see `torch_detectors.convert_detector`.
        backbone: the name of the network's backbone, which a file of timm or torchvision must fit.
        seed: the network's seed.

    Raises:
        UserError: there are no such weights, they are broken, or of another architecture.
    """
    path = parse_path(init)
    if run_folder.is_average(path):
        path = _averaged_weights(path, backbone, seed)
    if not path.exists():
        raise UserError(f"init = {init!r}: no such run folder, averages, .safetensors or .pth")
    if is_folder := path.is_dir():
        path = path / "weights" / f"{_starting_member(path, backbone, seed)}.safetensors"
    if is_folder or (path.suffix == ".safetensors" and is_tinyjax_file(path)):
        trees, metadata = read_weights(path.with_suffix(""))
        model = metadata["config"]["model"]
        return StartingWeights(
            source=str(path),
            arrays={**trees["params"], **trees["stats"]},
            eps=model.get("batchnorm_eps", 0.0),
            backbone=model["backbone"],
            classes=tuple(metadata["classes"]),
            trained_on=tuple(metadata.get("trained_on", ())),
        )
    state = pretrained.read_state_dict(path)
    try:
        arrays, eps, source = pretrained.convert_state_dict(state, backbone)
    except UserError as error:
        raise UserError(f"init: {path}, for {backbone}: {error}") from error
    arrays = pretrained.adapt_to_normalization(arrays, source.mean, source.std, MEAN, STD)
    arrays = {f"backbone/{name}": array for name, array in arrays.items()}
    arrays |= convert_detector(state)
    return StartingWeights(str(path), arrays, eps)


def _starting_member(folder: Path, backbone: str, seed: int) -> str:
    """Return the id of the member of a run or sweep to start from.

    Seed k starts from seed k, because gains are compared between equal seeds (docs/robustness.md).
    """
    if not (folder / "plan.json").exists():
        return run_folder.member_id({})
    if not run_folder.is_finished(folder):
        raise UserError(f"init = {str(folder)!r}: this sweep has not finished; run it to its end")
    rows = read_rows(folder / "members.csv")
    matches = [row for row in rows if (row["backbone"], row["seed"]) == (backbone, str(seed))]
    if len(matches) != 1:
        known = shorten(sorted({f"{row['backbone']} seed {row['seed']}" for row in rows}))
        raise UserError(
            f"init = {str(folder)!r}: {len(matches)} members of this sweep are {backbone} of seed "
            f"{seed}, but exactly one is needed; its members are {known}"
        )
    return matches[0]["member"]


def _averaged_weights(path: Path, backbone: str, seed: int) -> Path:
    """The file of the average of a run, or of one member of a sweep. path: without the member."""
    files = sorted(path.parent.glob(f"{path.name}*.safetensors"))
    if len(files) > 1:  # the network of a sweep with a single one has no member in its name
        member = _starting_member(path.parent.parent, backbone, seed)
        return path.with_name(f"{path.name}-{member}.safetensors")
    return path.with_name(f"{path.name}.safetensors")


def fit_to_network(
    weights: StartingWeights,
    current: Mapping[str, Array],
    reinit: Sequence[str] = (),
    classes: Sequence[str] = (),
) -> FittedWeights:
    """Replace a network's arrays by the starting weights of the same paths.

    The stem's kernel is converted between one and three input channels, see
    `pretrained.convert_stem_channels`.

    Args:
        current: path -> array of the newly initialized network, parameters and running statistics.
        reinit: patterns of the full paths that keep their current arrays; those of the weights are
            skipped.
        classes: the network's classes.

    Raises:
        UserError: a pattern is invalid or matches nothing, arrays of a shared module exist on one
            side only or differ in shape, the classes differ, or there is nothing to load.
    """
    reinit_paths = _matched_paths(reinit, current)
    copies = _infrared_copies(weights.arrays, current)
    usable = {
        path: array
        for path, array in {**weights.arrays, **copies}.items()
        if not any(re.fullmatch(pattern, path) for pattern in reinit)
    }
    loaded, reshaped = _match_stem_channels(usable, current)
    shared_modules = set(map(_module, current)) & set(map(_module, loaded))
    mismatches = [
        path
        for path in sorted(current.keys() | loaded.keys())
        if _module(path) in shared_modules
        and path not in reinit_paths
        and _shape(loaded, path) != _shape(current, path)
    ]
    in_both = current.keys() & loaded.keys()
    if any(path not in in_both or not re.fullmatch(CLASS_SHAPES, path) for path in mismatches):
        backbone = f", of {weights.backbone}," if weights.backbone else ""
        shapes = (
            f"{p}: {_shape(loaded, p)} in the file, {_shape(current, p)} in the network"
            for p in mismatches
        )
        raise UserError(
            f"init: {len(mismatches)} arrays of {weights.source}{backbone} do not fit this network "
            f"({shorten(shapes)}); {_mismatch_advice(mismatches)}"
        )
    paths = [path for path in current if path in loaded and path not in reinit_paths]
    if not paths:
        raise UserError(f"init: {weights.source} has no array of this network")
    class_layers = [path for path in paths if re.fullmatch(CLASS_LAYERS, path)]
    classes_differ = weights.classes and tuple(classes) != weights.classes
    if mismatches or (class_layers and classes_differ):
        layers = dict.fromkeys(
            re.sub(r"/(anchors\d+/)?\w+$", "", path) for path in [*class_layers, *mismatches]
        )
        raise UserError(_class_mismatch(weights, classes, layers, class_layers[:1]))
    values = {path: jnp.asarray(loaded[path], jnp.float32) for path in paths}
    return FittedWeights(
        arrays={**current, **values},
        loaded=tuple(paths),
        reshaped=tuple(path for path in reshaped if path in values),
        new=tuple(path for path in current if path not in values),
        skipped=tuple(path for path in weights.arrays if path not in values),
        copied=tuple(path for path in copies if path in values),
    )


def _infrared_copies(
    arrays: Mapping[str, np.ndarray], current: Mapping[str, Array]
) -> dict[str, np.ndarray]:
    """Copies of the visible path for the arrays of the infrared path that `arrays` lacks."""
    sources = {
        path: f"backbone/{path.removeprefix(_INFRARED)}"
        for path in current
        if path.startswith(_INFRARED) and path not in arrays
    }
    return {path: arrays[source] for path, source in sources.items() if source in arrays}


def _matched_paths(patterns: Sequence[str], paths: Iterable[str]) -> set[str]:
    """Return the paths that the patterns of `reinit` match. Raises UserError."""
    paths, matched = list(paths), set()
    for pattern in patterns:
        try:
            matches = [path for path in paths if re.fullmatch(pattern, path)]
        except (TypeError, re.error) as error:
            message = f"reinit: {pattern!r}: give a regular expression ({error})"
            raise UserError(message) from error
        if not matches:
            raise UserError(f"reinit: {pattern!r} matches no whole path of this network")
        matched.update(matches)
    return matched


def _mismatch_advice(paths: Iterable[str]) -> str:
    """What to set if these arrays do not fit."""
    paths = list(paths)
    if all(path.startswith(_INFRARED) for path in paths):
        return (
            "the file has two copies of these blocks: set model.path_blocks to that of the file, "
            "or average the copies, see tinyjax.average --path-blocks"
        )
    modules = dict.fromkeys(map(_module, paths))
    if any(module.startswith("backbone") for module in modules):
        return (
            "set model.backbone to that of the file, or list in reinit the paths to initialize "
            "again"
        )
    return (
        "configure them as in the file, or initialize them again with reinit = "
        f"{tuple(f'{module}/.*' for module in modules)}"
    )


def _class_mismatch(
    weights: StartingWeights,
    classes: Sequence[str],
    layers: Iterable[str],
    class_layer: Sequence[str],
) -> str:
    """Return the error message for weights of other classes, with what to set in the config.

    Args:
        layers: those to initialize again.
        class_layer: the path of an array whose last axis is the classes, if there is one.
    """
    known, advice = "others", ""
    for path in class_layer:
        known = f"{_count_classes(path, weights.arrays[path].shape[-1])} without names"
    if weights.classes:
        known = shorten(weights.classes)
        advice = "list the classes of the file in data.common, or "
    return (
        f"init: the classes of {weights.source} are {known}, those of this network are "
        f"{shorten(classes)}: {advice}initialize the last layer again with reinit = "
        f"{tuple(f'{layer}/.*' for layer in layers)}"
    )


def _count_classes(path: str, outputs: int) -> int:
    """The number of classes of a layer of `CLASS_LAYERS` with this number of outputs: without the
    anchors of a cell, and without the background.
    """
    if match := re.search(r"/anchors(\d+)/", path):
        return outputs // int(match[1])
    return outputs - path.startswith("box_head")


def describe(fitted: FittedWeights, weights: StartingWeights) -> str:
    """Return how many arrays of each module were loaded, as a table for the log."""
    columns = ("loaded", "reshaped", "new", "skipped")
    counts = {name: Counter(map(_module, getattr(fitted, name))) for name in columns}
    modules = dict.fromkeys(module for name in columns for module in counts[name])
    rows = [{"arrays": m, **{name: counts[name][m] for name in columns}} for m in modules]
    text = f"starts from {weights.source}:\n" + indent(text_table(rows), "  ")
    if fitted.copied:
        text += (
            f"\n  {len(fitted.copied)} arrays of the infrared path are copies of the visible path"
        )
    return text


def untrained_warning(new: Iterable[str], multipliers: Mapping[str, float]) -> str:
    """Return a log line about new arrays that are frozen, or "" if there are none.

    multipliers: path -> multiplier of the learning rate.
    """
    frozen = [path for path in new if multipliers[path] == 0]
    if not frozen:
        return ""
    modules = ", ".join(dict.fromkeys(map(_module, frozen)))
    return f"frozen at their random initial values: {len(frozen)} arrays ({modules})"


def _match_stem_channels(
    arrays: Mapping[str, np.ndarray], current: Mapping[str, Array]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Convert the stems' kernels to the channels of `current`; also return the converted paths."""
    converted = {
        stem: pretrained.convert_stem_channels(arrays[stem], current[stem].shape[2])
        for stem in ("backbone/stem/kernel", f"{_INFRARED}stem/kernel")
        if stem in arrays and stem in current and arrays[stem].shape[2] != current[stem].shape[2]
    }
    return {**arrays, **converted}, [*converted]


def _module(path: str) -> str:
    """E.g. "backbone/stem/kernel" -> "backbone", "backbone/head/kernel" -> "backbone/head"."""
    first, second, *_ = path.split("/")
    if first != "backbone":
        return first
    if match := re.search(r"/(adapter|excite)", path):
        return f"backbone/{match[1]}"
    return f"backbone/{second}" if second in ("head", "hidden", "classifier") else first


def _shape(arrays: Mapping[str, Any], path: str) -> tuple[int, ...] | str:
    return tuple(arrays[path].shape) if path in arrays else "none"
