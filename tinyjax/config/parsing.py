"""Configurations: a Python file, arguments for it, overrides, and the command line they come by.

    python -m tinyjax.train --config configs/x.py:width=0.5 --config.optimizer.lr=0.1 --workdir x

Imports no JAX: `--help` and a mistyped option answer at once. We parse the overrides ourselves:
ml_collections' own flags look for a mistyped field in its own group only, cannot set one whose
default is None, and do not check the elements of a tuple.
"""

import argparse
import ast
import json
import re
import runpy
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from tinyjax.config.defaults import complete
from tinyjax.config.paths import path_of
from tinyjax.errors import UserError, suggest

PREFIX = "--config."
COMMA = re.compile(r",(?![^([{]*[)\]}])")  # not those in brackets, as of a regular expression


def load(spec: str, overrides: Iterable[str] = ()) -> ConfigDict:
    """The locked config of "configs/x.py" or "configs/x.py:width=0.5,fast", overridden.

    The file defines `get_config(arg=None)`; what follows the colon is its argument.
    overrides: "--config.a.b=value" each, applied in order.

    Raises UserError: no such file, no `get_config` in it, a field that is not there, a value of
    another type than its default's, and all that `override` raises.
    """
    path, colon, arg = spec.partition(":")
    get_config = definitions(spec)["get_config"]
    try:
        config = get_config(arg if colon else None)
    except (TypeError, AttributeError) as error:  # ml_collections': of another type, no such field
        frames = traceback.extract_tb(error.__traceback__)
        lines = "".join(f", line {f.lineno}" for f in frames if f.filename == str(Path(path)))
        said = str(error.args[0]).replace("\\n", "\n").strip("'")
        said = re.sub(r'Other fields present: ".*?"(\n|$)', "", said, flags=re.DOTALL)
        raise UserError(f"{path}{lines}: {' '.join(said.split())}") from error
    # Of a config that is locked already, `lock` would leave open groups open.
    return override(config.unlock().lock(), overrides)


def definitions(spec: str, wanted: str = "get_config") -> dict[str, Any]:
    """All that a config file defines, `wanted` and whatever else, by name. Raises UserError."""
    path = Path(spec.partition(":")[0])
    if path.suffix != ".py" or not path.is_file():
        raise UserError(f"--config {spec}: no such Python file: {path}")
    defined = runpy.run_path(str(path))
    if wanted not in defined:
        raise UserError(f"--config {spec}: {path} defines no {wanted}(arg)")
    return defined


def override(config: ConfigDict, overrides: Iterable[str]) -> ConfigDict:
    """Set fields of `config` in place from "--config.a.b=value" and return it.

    A value is read as the type of the field's default: int, float (an int will do), bool (true or
    false, also a bare "--config.a.b" for true), str, tuple or list ("(8, 16)" or "8,16", elements
    of the types the default has, any if it is empty; names need no quotes). A field whose default
    is None takes any Python literal or text.

    Raises UserError naming the field and its nearest neighbors, or the value and the type wanted.
    """
    for text in overrides:
        key, equals, value = text.removeprefix(PREFIX).partition("=")
        group, name = find_field(config, key)
        group[name] = _parse(f"{PREFIX}{key}", value if equals else None, group, name)
    return config


def with_fields(config: ConfigDict, fields: Mapping[str, Any]) -> ConfigDict:
    """A locked copy of `config` with fields "a.b" set to values of their defaults' types.

    Raises UserError naming the field and its nearest neighbors, or the type wanted.
    """
    config = ConfigDict(config.to_dict())
    for key, value in fields.items():
        set_field(config, key, value)
    return config.lock()


def set_field(config: ConfigDict, key: str, value: Any) -> Any:
    """Set field "a.b" of `config` in place; returns what it holds then, 1.0 for the 1 of a float.

    Raises UserError naming the field and its nearest neighbors, or the type wanted.
    """
    group, name = find_field(config, key)
    try:
        group[name] = value
    except TypeError as error:
        kind = group.get_type(name).__name__
        raise UserError(f"{PREFIX}{key} = {value!r}: wants a value of type {kind}") from error
    return group[name]


def parse_arg(arg: str | None, **defaults: Any) -> ConfigDict:
    """Arguments of a config file, "width=0.5,steps=100,fast", over their defaults.

    For use inside `get_config(arg)`; values are read as in `override`, a bare name is a true bool.
    After big_vision's configs/common.py.

    Raises UserError as `override` does.
    """
    config = ConfigDict(defaults)
    for item in filter(None, (arg or "").split(",")):
        name, equals, value = item.partition("=")
        if name not in config:
            raise UserError(f"config argument {name!r}: {suggest(name, defaults)}")
        config[name] = _parse(f"config argument {name}", value if equals else None, config, name)
    return config.lock()


def to_json(config: ConfigDict) -> str:
    return json.dumps(config.to_dict(), indent=2, sort_keys=True)


def from_json(text: str) -> ConfigDict:
    """The inverse of `to_json`, locked; JSON's lists come back as tuples."""
    return ConfigDict(_tuples(json.loads(text))).lock()


def from_run(config: Mapping[str, Any]) -> ConfigDict:
    """The config that a run's files hold, see `defaults.completed`."""
    return from_json(json.dumps(complete(config)))


def parse_options(
    command: str,
    about: str | None,
    argv: Sequence[str] | None = None,
    flags: Mapping[str, Any] | None = None,
    needs: Sequence[str] = ("config", "workdir"),
) -> argparse.Namespace:
    """The command line that all commands share.

    `--config FILE[:ARGS]`, `--workdir DIR` (a Path), and overrides "--config.a.b=value",
    "--config.a.b value" or "--config.a.b": a list under `overrides`, ready for `load`.

    Args:
        command: the module's name within tinyjax; about: its docstring, for --help.
        argv: the arguments, by default the process's own.
        flags: the command's own, name -> arguments of argparse's `add_argument`.
        needs: which of "config" and "workdir" it takes; they must be given.

    An unknown or missing option ends the program with exit code 2, as argparse does.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m tinyjax.{command}",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    shared: Mapping[str, Mapping[str, Any]] = {
        "config": {"metavar": "FILE[:ARGS]", "help": "Python file with get_config(arg=None)"},
        "workdir": {"metavar": "DIR", "type": path_of, "help": "the run folder"},
    }
    for name in needs:
        parser.add_argument(f"--{name}", required=True, **shared[name])
    # For --help only: argparse knows no open set of options, so these never reach it.
    parser.add_argument(f"{PREFIX}A.B", metavar="VALUE", dest=argparse.SUPPRESS, help="set a field")
    for name, how in (flags or {}).items():
        parser.add_argument(name, **how)

    rest: list[str] = []
    overrides: list[str] = []
    pending = list(sys.argv[1:] if argv is None else argv)
    while pending:
        item = pending.pop(0)
        if not item.startswith(PREFIX):
            rest.append(item)
        elif "=" in item or not pending or pending[0].startswith("--"):
            overrides.append(item)
        else:
            overrides.append(f"{item}={pending.pop(0)}")
    return parser.parse_args(rest, argparse.Namespace(overrides=overrides))


def find_field(config: ConfigDict, key: str) -> tuple[ConfigDict, str]:
    """The group that field "a.b.c" is in, and its name there."""
    *groups, name = key.split(".")
    group: Any = config
    for part in groups:
        group = group.get(part) if isinstance(group, ConfigDict) else None
    if not isinstance(group, ConfigDict) or name not in group:
        raise UserError(f"{PREFIX}{key}: no such field; {_nearest(key, config)}")
    if isinstance(group[name], ConfigDict):
        inner = ", ".join(f"{key}.{path}" for path in _paths(group[name]))
        raise UserError(f"{PREFIX}{key}: a group, not a field; its fields: {inner or 'none'}")
    return group, name


def _paths(config: ConfigDict) -> list[str]:
    """Every field, "a.b.c"."""
    paths = []
    for key, value in config.items():
        inner = _paths(value) if isinstance(value, ConfigDict) else []
        paths += [f"{key}.{path}" for path in inner] or [key]
    return paths


def _nearest(key: str, config: ConfigDict) -> str:
    """Most mistakes are a field of another group or a slip of the pen: look for both."""
    paths = _paths(config)
    leaf = key.rpartition(".")[2]
    moved = [path for path in paths if path.rpartition(".")[2] == leaf]
    near = moved or get_close_matches(key, paths, n=3)
    if not near:
        return f"known: {', '.join(config)}"
    return f"did you mean {' or '.join(PREFIX + path for path in near)}?"


def _parse(where: str, text: str | None, group: ConfigDict, name: str) -> Any:
    default, kind = group[name], group.get_type(name)
    if text is None:
        if kind is not bool:
            raise UserError(f"{where}: needs a value: {where}=...")
        return True
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if kind in (int, float, str):
            return kind(text)
        if kind in (tuple, list):
            return kind(_elements(text, default or ()))
    except (ValueError, KeyError, SyntaxError, TypeError):
        raise UserError(f"{where} = {text!r}: wants {_wanted(kind, default)}") from None
    if kind is not type(None):
        raise UserError(f"{where}: a {kind.__name__} cannot be set from the command line")
    return _literal(text)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _elements(text: str, default: Sequence[Any]) -> list[Any]:
    kinds = {type(v) for v in default}
    if kinds and kinds <= {str, tuple}:
        kinds = {str, tuple}  # where the default has names there may be rules, and the reverse
    if kinds <= {str, tuple} and not text.startswith(("(", "[")):
        return COMMA.split(text) if text else []  # names need no quotes: person,dog
    if str in kinds and not text.startswith(("(", "[")):  # names and numbers: range,0,4095
        values: Any = tuple(map(_literal, text.split(",")))
    else:
        values = ast.literal_eval(text)
    if not isinstance(values, tuple | list):
        raise TypeError
    if float in kinds and int not in kinds:
        values = [float(v) if type(v) is int else v for v in values]
    if kinds and not {type(v) for v in values} <= kinds:
        raise TypeError
    return list(values)


def _wanted(kind: type, default: Any) -> str:
    words = {bool: "true or false", int: "an int", float: "a float"}
    return words.get(kind) or f"a {kind.__name__} like {kind(default or ('text', 'in quotes'))!r}"


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(path "a.b.c", value) of nested dicts."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree
