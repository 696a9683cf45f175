"""Config files and their arguments: "configs/own.py:source=mine.zip,steps=100"."""

import re
from pathlib import Path
from typing import Any

from tinyjax.config.paths import parse_local_path
from tinyjax.errors import UserError, suggest

PACKAGE = Path(__file__).parents[1]
# A wheel has configs/ in the package, a checkout has it next to the package.
CONFIGS = next(
    (path for path in (PACKAGE / "configs", PACKAGE.parent / "configs") if path.is_dir()), PACKAGE
)
# Not the first colon, which follows a drive's letter in C:\configs\own.py.
SPEC = re.compile(r"(.*?\.py)(?::(.*))?", re.DOTALL)
ARGUMENT = re.compile(
    r"""(?P<name>[^,=]*)
    (=(?: "(?P<double>(?:[^"]|"")*)" | '(?P<single>(?:[^']|'')*)' | (?P<plain>[^,]*) ))?
    (,|\Z)""",
    re.VERBOSE,
)
QUOTES = {"double": '"', "single": "'"}


def split_spec(spec: str) -> tuple[str, str | None]:
    """Return the path of a config file and its arguments, None without a colon."""
    if match := SPEC.fullmatch(spec):
        return match[1], match[2]
    path, colon, arg = spec.partition(":")
    return path, arg if colon else None


def find_config_file(spec: str) -> Path:
    """Return the path of a config file.

    configs/x.py is the file that comes with tinyjax unless the working directory has one.

    Raises UserError for a missing file.
    """
    path = parse_local_path(split_spec(spec)[0])
    packaged = CONFIGS.joinpath(*path.parts[1:]) if path.parts[:1] == ("configs",) else path
    file = path if path.is_file() else packaged
    if file.suffix != ".py" or not file.is_file():
        known = (f"configs/{f.relative_to(CONFIGS).as_posix()}" for f in CONFIGS.rglob("*.py"))
        advice = suggest(path.as_posix(), sorted(known))
        raise UserError(f"--config {spec}: no such Python file: {path}; {advice}")
    return file


def split_arg(arg: str) -> list[tuple[str, str | None]]:
    """Return the names and values of a config file's arguments, None for a name without "=".

    A value in quotes, source="a,b.zip", may contain commas; a quote in it is doubled.

    Raises UserError for a quote that is not closed.
    """
    items: list[tuple[str, str | None]] = []
    for match in ARGUMENT.finditer(arg):
        name, value = match["name"], match["plain"]
        if value and value[0] in QUOTES.values():
            raise UserError(
                f"config argument {name}={value}: a value that begins with a quote ends with the "
                "same quote, before a comma or the end; a quote within it is doubled"
            )
        for group, quote in QUOTES.items():
            if match[group] is not None:
                value = match[group].replace(2 * quote, quote)
        if match[0] not in ("", ","):
            items.append((name, value))
    return items


def format_arg(**values: Any) -> str:
    """Return the arguments of a config file as text, in which values may be any text; the inverse
    of `parse_arg`.
    """
    return ",".join(f"{name}={_quote(str(value))}" for name, value in values.items())


def _quote(value: str) -> str:
    if "," in value or value.startswith((*QUOTES.values(),)):
        return '"' + value.replace('"', '""') + '"'
    return value
