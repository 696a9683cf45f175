"""Final weights of a member: <name>.safetensors, and their metadata in <name>.json."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from tinyjax.errors import UserError, shorten
from tinyjax.run.files import atomic

FORMAT = 2  # version of the two files; incremented when older versions cannot read them
REQUIRED = ("inputs", "classes", "config", "parameters")  # keys of the metadata


def copy_weights(source: Path, target: Path) -> None:
    """Copy the weights of run folder `source` to run folder `target`."""
    for file in (source / "weights").iterdir():
        with atomic(target / "weights" / file.name) as path:
            path.write_bytes(file.read_bytes())


def write_weights(file: Path, variables: Any, metadata: dict[str, Any]) -> None:
    """Write `variables` to <file>.safetensors and `metadata` to <file>.json.

    The tensors are named "params/<path>" and "stats/<path>".
    """
    from safetensors.numpy import save_file

    flat = {
        f"{collection}/{path}": np.asarray(leaf, order="C")  # safetensors misreads strided views
        for collection, tree in variables._asdict().items()
        for path, leaf in tree.items()
    }
    # Not with_suffix: the name may contain a dot.
    with atomic(file.with_name(f"{file.name}.safetensors")) as path:
        save_file(flat, path)
    with atomic(file.with_name(f"{file.name}.json")) as path:
        metadata = _without_nan({"format": FORMAT, **metadata})
        path.write_text(json.dumps(metadata, indent=2, allow_nan=False), encoding="utf-8")


def is_tinyjax_file(file: Path) -> bool:
    """Return whether the tensors of a .safetensors file are named as by `write_weights`.

    Raises UserError if the file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "numpy") as tensors:
            names = tensors.keys()
            return bool(names) and all(name.startswith(("params/", "stats/")) for name in names)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: broken ({error})") from error


def _hint(file: Path) -> str:
    """What to do about missing weights. file: without suffix."""
    if files := sorted(file.parent.glob("*.safetensors")):
        names = shorten(path.stem for path in files)
        return (
            f"available: {names}. Of a run with several networks, give the file of one, such as "
            f"{files[0]}; members.csv describes them"
        )
    return "has the run finished?" if file.parent.name == "weights" else f"and no folder {file}"


def read_weights(file: Path) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Read what `write_weights` wrote.

    Returns {"params": {path: array}, "stats": {path: array}} and the metadata. Raises UserError if
    a file is missing, broken, of another format version, or not written by tinyjax.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    # Not with_suffix: the name may contain a dot.
    tensor_file, json_file = (file.with_name(file.name + end) for end in (".safetensors", ".json"))
    for path in (tensor_file, json_file):
        if not path.is_file():
            raise UserError(f"{path}: no such weights; {_hint(file)}")
    trees: dict[str, dict[str, Any]] = {"params": {}, "stats": {}}
    try:
        for name, leaf in load(tensor_file.read_bytes()).items():
            collection, key = name.split("/", 1)
            trees[collection][key] = leaf
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{tensor_file}: broken, or not written by tinyjax ({error})") from error
    try:
        metadata = json.loads(json_file.read_bytes())
    except ValueError as error:
        raise UserError(f"{json_file}: not json ({error})") from error
    advice = "give the file that was written with the weights"
    if not isinstance(metadata, dict) or type(metadata.get("format")) is not int:
        raise UserError(f"{json_file}: not written by tinyjax; {advice}")
    if (version := metadata["format"]) != FORMAT:
        newer = version > FORMAT
        age, remedy = ("a newer", "upgrade") if newer else ("an older", "train again")
        raise UserError(
            f"{json_file}: format {version}, of {age} tinyjax; this version reads {FORMAT}: "
            f"{remedy}"
        )
    for name in REQUIRED:
        if name not in metadata:
            raise UserError(f"{json_file}: no {name!r} in it; {advice}")
    return trees, metadata


def _without_nan(tree: Any) -> Any:
    """Return nested dicts with None for NaN and infinity, which JSON does not have."""
    if isinstance(tree, dict):
        return {key: _without_nan(value) for key, value in tree.items()}
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
