"""Final weights of a member: <name>.safetensors, and <name>.json that describes them."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from tinyjax.errors import UserError
from tinyjax.run.files import atomic

FORMAT = 1  # of the two files; a later format may hold what this version cannot read
REQUIRED = ("frame", "classes", "config", "parameters")  # what a description must say


def copy_weights(of: Path, to: Path) -> None:
    """The weights of run folder `of` in run folder `to` as well."""
    for file in (of / "weights").iterdir():
        with atomic(to / "weights" / file.name) as path:
            path.write_bytes(file.read_bytes())


def write_weights(file: Path, variables: Any, about: dict[str, Any]) -> None:
    """`variables` as <file>.safetensors, names "params/<path>" and "stats/<path>", and `about` as
    <file>.json.
    """
    from safetensors.numpy import save_file

    flat = {
        f"{kind}/{path}": np.asarray(leaf, order="C")  # safetensors misreads a cut-out view
        for kind, tree in variables._asdict().items()
        for path, leaf in tree.items()
    }
    # Not with_suffix: a name may have a dot in it.
    with atomic(file.with_name(f"{file.name}.safetensors")) as path:
        save_file(flat, path)
    with atomic(file.with_name(f"{file.name}.json")) as path:
        about = _without_nan({"format": FORMAT, **about})
        path.write_text(json.dumps(about, indent=2, allow_nan=False))


def is_tinyjax_file(file: Path) -> bool:
    """Whether a .safetensors names its tensors as `write_weights` does. Raises UserError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "numpy") as tensors:
            return all(name.startswith(("params/", "stats/")) for name in tensors.keys())  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: broken ({error})") from error


def read_weights(file: Path) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """What `write_weights` wrote: {"params": {path: array}, "stats": {path: array}} and `about`.

    Raises UserError if the files are not there, broken, of another version, or not ours.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    # Not with_suffix: a file that was renamed may have a dot in its name.
    tensors, about = (file.with_name(file.name + end) for end in (".safetensors", ".json"))
    for path in (tensors, about):
        if not path.is_file():
            others = ", ".join(sorted(p.stem for p in file.parent.glob("*.safetensors")))
            there = f"there are: {others}" if others else "has the run finished?"
            raise UserError(f"{path}: no such weights; {there}")
    trees: dict[str, dict[str, Any]] = {"params": {}, "stats": {}}
    try:
        for name, leaf in load(tensors.read_bytes()).items():
            kind, key = name.split("/", 1)
            trees[kind][key] = leaf
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{tensors}: broken, or not written by tinyjax ({error})") from error
    try:
        described = json.loads(about.read_text())
    except ValueError as error:
        raise UserError(f"{about}: not json ({error})") from error
    foreign = "give the one written with the weights"
    if not isinstance(described, dict) or type(described.get("format")) is not int:
        raise UserError(f"{about}: not written by tinyjax; {foreign}")
    if (theirs := described["format"]) != FORMAT:
        age, advice = ("a newer", "upgrade") if theirs > FORMAT else ("an older", "train anew")
        raise UserError(
            f"{about}: format {theirs}, of {age} tinyjax; this one reads {FORMAT}: {advice}"
        )
    for name in REQUIRED:
        if name not in described:
            raise UserError(f"{about}: no {name!r} in it; {foreign}")
    return trees, described


def _without_nan(tree: Any) -> Any:
    """JSON knows no NaN and no infinity: they become null."""
    if isinstance(tree, dict):
        return {key: _without_nan(value) for key, value in tree.items()}
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
