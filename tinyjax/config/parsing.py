"""Config files, their arguments, overrides of fields, and the command line that all commands share.

    python -m tinyjax.train --config configs/x.py:width=0.5 --config.optimizer.lr=0.1 --workdir x

Imports no JAX, so that `--help` and errors in options appear at once. The overrides are parsed
here because the flags of ml_collections suggest only fields of the same group for a mistyped field,
cannot set a field whose default is None, and do not check the elements of a tuple.
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
from functools import partial
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from tinyjax.config.defaults import fill_defaults
from tinyjax.config.paths import parse_local_path, parse_path
from tinyjax.config.spec import find_config_file, split_arg, split_spec
from tinyjax.errors import UserError, run_all, suggest

PREFIX = "--config."
COMMA = re.compile(r",(?![^([{]*[)\]}])")  # outside of brackets: values may be regular expressions


def load(spec: str, overrides: Iterable[str] = ()) -> ConfigDict:
    """Return the locked config of "configs/x.py" or "configs/x.py:width=0.5,fast".

    The file defines `get_config(arg=None)`; `arg` is the text after the colon. configs/x.py is the
    file that comes with tinyjax unless the working directory has one.
    overrides: "--config.a.b=value" each, applied in order.

    Raises UserError for a missing file, a file without `get_config`, an unknown field, a value of
    another type than the default's, and as `override` does.
    """
    path, arg = split_spec(spec)
    file, get_config = str(find_config_file(spec)), definitions(spec)["get_config"]
    try:
        config = get_config(arg)
    except (TypeError, AttributeError) as error:  # ml_collections: wrong type, unknown field
        # Not traceback.extract_tb, which returns nothing if sys.tracebacklimit is 0.
        frames = traceback.walk_tb(error.__traceback__)
        numbers = (line for frame, line in frames if frame.f_code.co_filename == file)
        lines = "".join(f", line {number}" for number in numbers)
        message = str(error.args[0]).replace("\\n", "\n").strip("'")
        message = re.sub(r'Other fields present: ".*?"(\n|$)', "", message, flags=re.DOTALL)
        raise UserError(f"{path}{lines}: {' '.join(message.split())}") from error
    # `lock` has no effect on the unlocked groups of a config that is locked already.
    return override(config.unlock().lock(), overrides)


def definitions(spec: str, required: str = "get_config") -> dict[str, Any]:
    """Return everything that a config file defines, by name.

    Raises UserError for a missing file, or one that does not define `required`.
    """
    file = find_config_file(spec)
    defined = runpy.run_path(str(file))
    if required not in defined:
        raise UserError(f"--config {spec}: {file} defines no {required}(arg)")
    return defined


def override(config: ConfigDict, overrides: Iterable[str]) -> ConfigDict:
    """Set fields of `config` in place from "--config.a.b=value" and return it.

    A value is parsed as the type of the field's default: int, float (also from an int), bool (true
    or false; "--config.a.b" alone means true), str, tuple or list ("(8, 16)" or "8,16"). Elements
    of a tuple have the types of the default's elements, any types if the default is empty; names
    need no quotes. A field whose default is None takes any Python literal or text.

    Raises UserError for an unknown field, with the most similar ones, and for a value of another
    type.
    """
    run_all(*(partial(_set_text, config, text) for text in overrides))
    return config


def _set_text(config: ConfigDict, text: str) -> None:
    key, equals, value = text.removeprefix(PREFIX).partition("=")
    group, name = find_field(config, key)
    group[name] = _parse(f"{PREFIX}{key}", value if equals else None, group, name)


def with_fields(config: ConfigDict, fields: Mapping[str, Any]) -> ConfigDict:
    """Return a locked copy of `config` with fields "a.b" set to values of the defaults' types.

    Raises UserError for an unknown field, with the most similar ones, and for a value of another
    type.
    """
    config = ConfigDict(config.to_dict())
    run_all(*(partial(set_field, config, key, value) for key, value in fields.items()))
    return config.lock()


def set_field(config: ConfigDict, key: str, value: Any) -> Any:
    """Set field "a.b" of `config` in place and return the stored value, 1.0 for 1 in a float field.

    Raises UserError for an unknown field, with the most similar ones, and for a value of another
    type.
    """
    group, name = find_field(config, key)
    try:
        group[name] = value
    except TypeError as error:
        expected = group.get_type(name).__name__
        raise UserError(f"{PREFIX}{key} = {value!r}: expected type {expected}") from error
    return group[name]


def parse_arg(arg: str | None, **defaults: Any) -> ConfigDict:
    """Parse the arguments of a config file, "width=0.5,steps=100,fast", and return them, locked.

    For use inside `get_config(arg)`. Values are parsed as in `override`; a name alone sets a bool
    to true. A value with a comma is in quotes, see `spec.split_arg`. After big_vision's
    configs/common.py.

    Raises UserError as `override` and `split_arg` do.
    """
    config = ConfigDict(defaults)

    def set_argument(name: str, value: str | None) -> None:
        if name not in config:
            quoting = "" if value else '; if it follows a comma in a value, quote that value: "a,b"'
            raise UserError(f"config argument {name!r}: {suggest(name, defaults)}{quoting}")
        config[name] = _parse(f"config argument {name}", value, config, name)

    run_all(*(partial(set_argument, name, value) for name, value in split_arg(arg or "")))
    return config.lock()


def to_json(config: ConfigDict) -> str:
    """Return the config as JSON with sorted keys."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True)


def from_json(text: str) -> ConfigDict:
    """Return the locked config that `to_json` wrote; JSON's lists become tuples."""
    return ConfigDict(_lists_to_tuples(json.loads(text))).lock()


def from_run(config: Mapping[str, Any]) -> ConfigDict:
    """Return the locked config of a run folder or a weights file, see `defaults.fill_defaults`."""
    return from_json(json.dumps(fill_defaults(config)))


def parse_options(
    command: str,
    description: str | None,
    argv: Sequence[str] | None = None,
    flags: Mapping[str, Any] | None = None,
    required: Sequence[str] = ("config", "workdir"),
    optional: Sequence[str] = (),
) -> argparse.Namespace:
    """Parse the command line of a command.

    All commands share `--config FILE[:ARGS]`, `--workdir DIR` (a Path), and overrides
    "--config.a.b=value", "--config.a.b value" or "--config.a.b", which are returned as the list
    `overrides`, ready for `load`.

    Args:
        command: name of the module in `tinyjax`.
        description: the module's docstring, for --help.
        argv: the arguments; by default those of the process.
        flags: further flags, name -> arguments of argparse's `add_argument`.
        required: which of the flags "config", "workdir" and "model" the command needs.
        optional: which of them it also has, see `given_source`.

    An unknown or missing option ends the program with exit code 2, as in argparse.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m tinyjax.{command}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    shared: Mapping[str, Mapping[str, Any]] = {
        "config": {"metavar": "FILE[:ARGS]", "help": "Python file with get_config(arg=None)"},
        "workdir": {"metavar": "DIR", "type": parse_path, "help": "the run folder"},
        "model": {
            "metavar": "FILE",
            "type": parse_local_path,
            "help": "instead of --workdir: a file of tinyjax.export",
        },
    }
    for name in (*required, *optional):
        parser.add_argument(f"--{name}", required=name in required, **shared[name])
    # For --help only: argparse cannot accept arbitrary options, so overrides are removed below.
    parser.add_argument(f"{PREFIX}A.B", metavar="VALUE", dest=argparse.SUPPRESS, help="set a field")
    for name, arguments in (flags or {}).items():
        parser.add_argument(name, **arguments)

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


def given_source(options: argparse.Namespace) -> Path:
    """The path of --workdir or --model. Raises UserError unless exactly one of them is given."""
    if options.workdir and options.model:
        raise UserError(
            f"--model {options.model}, --workdir {options.workdir}: give one of them, a file of "
            "tinyjax.export or a run"
        )
    if not (source := options.workdir or options.model):
        raise UserError("--workdir: give a run folder; or --model, a file of tinyjax.export")
    return source


def find_field(config: ConfigDict, key: str) -> tuple[ConfigDict, str]:
    """Return the group that contains field "a.b.c" and the field's name in it.

    Raises UserError for an unknown field, with the most similar ones, and for a group.
    """
    *groups, name = key.split(".")
    group: Any = config
    for group_name in groups:
        group = group.get(group_name) if isinstance(group, ConfigDict) else None
    if not isinstance(group, ConfigDict) or name not in group:
        raise UserError(f"{PREFIX}{key}: no such field; {_suggest_field(key, config)}")
    if isinstance(group[name], ConfigDict):
        fields = ", ".join(f"{key}.{path}" for path in _field_paths(group[name]))
        raise UserError(f"{PREFIX}{key}: a group, not a field; its fields: {fields or 'none'}")
    return group, name


def leaves_with_path(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (path "a.b.c", value) of nested dicts."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves_with_path(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree


def _field_paths(config: ConfigDict) -> list[str]:
    paths = []
    for key, value in config.items():
        fields = _field_paths(value) if isinstance(value, ConfigDict) else []
        paths += [f"{key}.{path}" for path in fields] or [key]
    return paths


def _suggest_field(key: str, config: ConfigDict) -> str:
    """Suggest fields of the same name in other groups, else fields with a similar path."""
    paths = _field_paths(config)
    name = key.rpartition(".")[2]
    same_name = [path for path in paths if path.rpartition(".")[2] == name]
    similar = same_name or get_close_matches(key, paths, n=3)
    if not similar:
        return f"known: {', '.join(config)}"
    return f"did you mean {' or '.join(PREFIX + path for path in similar)}?"


def _parse(field: str, text: str | None, group: ConfigDict, name: str) -> Any:
    """Parse `text` as the type of `group[name]`; `field` names it in messages."""
    default, type_ = group[name], group.get_type(name)
    if text is None:
        if type_ is not bool:
            raise UserError(f"{field}: needs a value: {field}=...")
        return True
    try:
        if type_ is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if type_ in (int, float, str):
            return type_(text)
        if type_ in (tuple, list):
            return type_(_parse_elements(text, default or ()))
    except (ValueError, KeyError, SyntaxError, TypeError):
        raise UserError(f"{field} = {text!r}: expected {_describe_type(type_, default)}") from None
    if type_ is not type(None):
        raise UserError(f"{field}: a {type_.__name__} cannot be set from the command line")
    return _literal(text)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _parse_elements(text: str, default: Sequence[Any]) -> list[Any]:
    types = {type(v) for v in default}
    if types and types <= {str, tuple}:
        types = {str, tuple}  # names and rules (pattern, multiplier) may be mixed
    if types <= {str, tuple} and not text.startswith(("(", "[")):
        return COMMA.split(text) if text else []  # names need no quotes: person,dog
    if str in types and not text.startswith(("(", "[")):  # names and numbers: range,0,4095
        values: Any = tuple(map(_literal, text.split(",")))
    else:
        values = ast.literal_eval(text)
    if not isinstance(values, tuple | list):
        raise TypeError
    if float in types and int not in types:
        values = [float(v) if type(v) is int else v for v in values]
    if types and not {type(v) for v in values} <= types:
        raise TypeError
    return list(values)


def _describe_type(type_: type, default: Any) -> str:
    names = {bool: "true or false", int: "an int", float: "a float"}
    if type_ in names:
        return names[type_]
    return f"a {type_.__name__} like {type_(default or ('text', 'in quotes'))!r}"


def _lists_to_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _lists_to_tuples(v) for k, v in value.items()}
    return tuple(_lists_to_tuples(v) for v in value) if isinstance(value, list) else value
