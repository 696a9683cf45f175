"""Starting weights: read from wherever they are, fitted to a network, and accounted for.

A network has parts: the backbone's trunk, its adapters, squeeze-excite behind stages, head, hidden
and classifier layers, neck, head. A part that only one side has is new, or skipped. One that both
have must fit leaf by leaf, unless a path is named in `reinit`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from tinyjax.config.paths import path_of
from tinyjax.data.augmentation import MEAN, STD
from tinyjax.errors import UserError, shorten
from tinyjax.models import architecture
from tinyjax.run import run_folder
from tinyjax.run.csv_files import read_rows
from tinyjax.run.weights import is_tinyjax_file, read_weights
from tinyjax.transfer import pretrained

LAST = r"head/class_out/.*|backbone/classifier/.*"  # the layers whose outputs are the classes


class Weights(NamedTuple):
    """Weights that some network had."""

    where: str
    leaves: dict[str, np.ndarray]  # path -> array: parameters and BatchNorm's moments alike
    eps: float  # of the BatchNorm they were trained with; 0: that of the family
    backbone: str = ""  # its name, if known
    classes: tuple[str, ...] = ()  # likewise


class Fitted(NamedTuple):
    """A network's leaves, and which of them are starting weights."""

    leaves: dict[str, Array]
    loaded: tuple[str, ...]
    reshaped: tuple[str, ...]  # these of the loaded had another number of input channels
    new: tuple[str, ...]
    skipped: tuple[str, ...]  # there, but not in this network


def read(init: str, backbone: str, seed: int = 0) -> Weights:
    """Starting weights: of a run folder (its last averaged ones), of a sweep's its member with that
    backbone and seed, one of our .safetensors, or a .safetensors, .pth, .pt or .bin of timm or
    torchvision for the backbone of that name.

    Raises UserError if there are none, they are broken, or of another architecture.
    """
    path = path_of(init).expanduser()
    if not path.exists():
        raise UserError(f"init = {init!r}: no such run folder, .safetensors or .pth")
    if run := path.is_dir():
        path = path / "weights" / f"{_member(path, backbone, seed)}.safetensors"
    if run or (path.suffix == ".safetensors" and is_tinyjax_file(path)):
        trees, about = read_weights(path.with_suffix(""))
        model = about["config"]["model"]
        leaves = {**trees["params"], **trees["stats"]}
        return Weights(
            str(path), leaves, model.get("eps", 0.0), model["backbone"], tuple(about["classes"])
        )
    family = backbone.partition("/")[0]
    state = pretrained.read(path)
    try:
        leaves, eps = pretrained.translate(state, architecture(backbone), family)
    except UserError as error:
        raise UserError(f"init: {path}, for {backbone}: {error}") from error
    leaves = pretrained.for_our_pixels(
        leaves, pretrained.IMAGENET_MEAN, pretrained.IMAGENET_STD, MEAN, STD
    )
    return Weights(str(path), {f"backbone/{name}": leaf for name, leaf in leaves.items()}, eps)


def _member(folder: Path, backbone: str, seed: int) -> str:
    """The member of a run or a sweep to start from. Pairs by seed are what a gain is judged by:
    seed k starts from seed k (docs/robustness.md).
    """
    if not (folder / "plan.json").exists():
        return run_folder.member_id({})
    if not run_folder.is_finished(folder):
        raise UserError(f"init = {str(folder)!r}: this sweep has not finished; run it to its end")
    rows = read_rows(folder / "members.csv")
    found = [r for r in rows if (r["backbone"], r["seed"]) == (backbone, str(seed))]
    if len(found) != 1:
        there = shorten(sorted({f"{row['backbone']} seed {row['seed']}" for row in rows}))
        raise UserError(
            f"init = {str(folder)!r}: {len(found)} members of this sweep are {backbone} of seed "
            f"{seed}, one is wanted; there are {there}"
        )
    return found[0]["member"]


def fit(
    weights: Weights,
    ours: Mapping[str, Array],
    new: Sequence[str] = (),
    classes: Sequence[str] = (),
) -> Fitted:
    """A network's leaves, with `weights` in the place of what both have.

    ours: path -> array, parameters and BatchNorm's moments, of a fresh network. new: patterns of
    paths that stay as they are in it. classes: the network's own. A stem of
    three channels is folded to one, or spread from one to three, see `public.fold_stem`.

    Raises UserError for a pattern that matches nothing, leaves of a common part that only one side
    has or whose shapes differ, lists of classes that differ, and if nothing fits at all.
    """
    for pattern in new:
        try:
            re.compile(pattern)
        except (TypeError, re.error) as error:
            message = f"reinit: {pattern!r}: give a regular expression ({error})"
            raise UserError(message) from error
        if not any(re.fullmatch(pattern, path) for path in ours):
            raise UserError(f"reinit: {pattern!r} matches no path of this network, as a whole")
    named = {path for path in ours if any(re.fullmatch(pattern, path) for pattern in new)}
    theirs, reshaped = _folded(weights.leaves, ours)
    common = {_part(path) for path in ours} & {_part(path) for path in theirs}
    wrong = [
        path
        for path in sorted(ours.keys() | theirs.keys())
        if _part(path) in common
        and path not in named
        and _shape(theirs, path) != _shape(ours, path)
    ]
    both = ours.keys() & theirs.keys()
    if any(path not in both or not re.fullmatch(LAST, path) for path in wrong):
        of = f", of {weights.backbone}," if weights.backbone else ""
        shapes = (f"{p}: {_shape(theirs, p)} there, {_shape(ours, p)} here" for p in wrong)
        raise UserError(
            f"init: {len(wrong)} weights in {weights.where}{of} do not fit this network "
            f"({shorten(shapes)}); give model.backbone as theirs, or name in reinit what shall "
            "start anew"
        )
    loaded = [path for path in ours if path in theirs and path not in named]
    if not loaded:
        raise UserError(f"init: {weights.where} has nothing that this network has")
    last = [path for path in loaded if re.fullmatch(LAST, path)]
    if wrong or (last and weights.classes and tuple(classes) != weights.classes):
        there, advice = f"{theirs[last[0]].shape[-1]} without names", ""
        if weights.classes:
            there = shorten(weights.classes)
            advice = "list them as there in the config's data.common, or "
        raise UserError(
            f"init: the classes of {weights.where} are {there}; here they are {shorten(classes)}: "
            f"{advice}let the last layer start anew by "
            f"reinit = ({last[0].rpartition('/')[0] + '/.*'!r},)"
        )
    values = {path: jnp.asarray(theirs[path], jnp.float32) for path in loaded}
    return Fitted(
        {**ours, **values},
        tuple(loaded),
        tuple(path for path in reshaped if path in values),
        tuple(path for path in ours if path not in values),
        tuple(path for path in theirs if path not in values),
    )


def table(fitted: Fitted, weights: Weights) -> str:
    """What became of the weights, a line for each part of either network: numbers of arrays."""
    columns = ("loaded", "reshaped", "new", "skipped")
    counts = {name: Counter(map(_part, getattr(fitted, name))) for name in columns}
    parts = dict.fromkeys(part for name in columns for part in counts[name])
    lines = [f"  {'arrays':<22}" + "".join(f"{name:>10}" for name in columns)]
    lines += [
        f"  {part:<22}" + "".join(f"{counts[name][part] or '-':>10}" for name in columns)
        for part in parts
    ]
    return "\n".join([f"starts from {weights.where}:", *lines])


def never_trained(new: Iterable[str], rates: Mapping[str, float]) -> str:
    """A line on arrays that no weights were loaded into and that do not train; "" without any.

    rates: path -> multiplier of the learning rate.
    """
    still = [path for path in new if rates[path] == 0]
    parts = ", ".join(dict.fromkeys(map(_part, still)))
    if not still:
        return ""
    return f"frozen although new: {len(still)} arrays ({parts}) stay as they were drawn"


def _folded(
    leaves: Mapping[str, np.ndarray], like: Mapping[str, Array]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """`leaves` with the stem's kernel for as many input channels as that of `like`."""
    stem = "backbone/stem/kernel"
    if stem not in leaves or stem not in like:
        return dict(leaves), []
    channels = like[stem].shape[2]
    if leaves[stem].shape[2] == channels:
        return dict(leaves), []
    return {**leaves, stem: pretrained.fold_stem(leaves[stem], channels)}, [stem]


def _part(path: str) -> str:
    first, second, *_ = path.split("/")
    if first != "backbone":
        return first
    if added := re.search(r"/(adapter|excite)", path):
        return f"backbone/{added[1]}"
    return f"backbone/{second}" if second in ("head", "hidden", "classifier") else first


def _shape(leaves: Mapping[str, Any], path: str) -> tuple[int, ...] | str:
    return tuple(leaves[path].shape) if path in leaves else "none"
