"""The search space of a sweep: a list of points, each a dict of fields "a.b" and their values.

A config file defines it next to its `get_config`, with the combinators of big_vision's sweeps:

    def get_hyper(hyper):
        return hyper.product([
            hyper.sweep("model.backbone", ["mobilenetv3/s-1", "mobilenetv3/s-3"]),
            hyper.sweep("seed", range(4)),
        ])

`hyper` is this module; fields may carry the prefix "config.". Imports no JAX.
"""

import itertools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import signature
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from tinyjax.config import parsing
from tinyjax.errors import UserError
from tinyjax.run import run_folder

Point = dict[str, Any]


class Member(NamedTuple):
    """One network of a sweep: its id, and the fields in which it differs from the config."""

    id: str
    point: Point


# ---- combinators


def sweep(name: str, values: Iterable[Any]) -> list[Point]:
    """One point per value of a field."""
    return [{name: value} for value in values]


def fixed(name: str, value: Any, length: int = 1) -> list[Point]:
    """`length` points with the same value, to zip with fields that vary."""
    return [{name: value} for _ in range(length)]


def product(spaces: Sequence[Sequence[Point]]) -> list[Point]:
    """All combinations of a point from each space; the last space varies fastest."""
    return [_merge(points) for points in itertools.product(*spaces)]


def zipit(spaces: Sequence[Sequence[Point]]) -> list[Point]:
    """Merge the first points of all spaces, the second points, and so on; a space of one point is
    repeated. Raises UserError for spaces of different lengths.
    """
    longest = max(map(len, spaces), default=0)
    if shorter := [len(space) for space in spaces if len(space) not in (1, longest)]:
        raise UserError(
            f"get_hyper: zipit of spaces of {longest} and {shorter[0]} points; give spaces of the "
            "same length"
        )
    repeated = [[*space] * (longest if len(space) == 1 else 1) for space in spaces]
    return [_merge(points) for points in zip(*repeated, strict=True)]


def chainit(spaces: Iterable[Sequence[Point]]) -> list[Point]:
    """Concatenate spaces."""
    return [point for space in spaces for point in space]


def _merge(points: Iterable[Point]) -> Point:
    merged: Point = {}
    for point in points:
        if duplicates := merged.keys() & point.keys():
            raise UserError(f"get_hyper: {min(duplicates)} is set twice in one point")
        merged |= point
    return merged


# ---- members


def sweep_points(get_hyper: Callable[[Any], Sequence[Point]]) -> list[Point]:
    """The points of a config file's `get_hyper`. Raises UserError if it is malformed."""
    try:
        signature(get_hyper).bind(None)
    except TypeError as error:
        raise UserError("get_hyper: write it with one argument, def get_hyper(hyper)") from error
    points = get_hyper(sys.modules[__name__])
    if not isinstance(points, Sequence) or not all(isinstance(p, Mapping) for p in points):
        raise UserError("get_hyper: give a list of dicts, as hyper.sweep and hyper.product do")
    if not points:
        raise UserError("get_hyper: the search space is empty")
    return [{name.removeprefix("config."): v for name, v in p.items()} for p in points]


def make_members(config: ConfigDict, space: Iterable[Point]) -> list[Member]:
    """The members of a search space in its order, without duplicates.

    Values are converted to the types of the config's fields, such as 1 to 1.0. Raises UserError for
    a field that the config does not have, with similar names, and for a value of a wrong type.
    """
    copy = ConfigDict(config.to_dict())
    members: dict[str, Member] = {}
    for point in space:
        converted = {
            name: parsing.set_field(copy, name, _to_python(value)) for name, value in point.items()
        }
        member = Member(run_folder.member_id(converted), converted)
        members.setdefault(member.id, member)
    return [*members.values()]


def filter_members(
    config: ConfigDict, members: Sequence[Member], only: Iterable[str] = (), limit: int = 0
) -> list[Member]:
    """The first `limit` members that match all conditions in `only`; limit 0: all of them.

    only: "field=value" or "field=value,value", or the beginning of a member's id. Raises UserError
    for an unknown field, and if no member matches.
    """
    matches = [*members]
    for condition in only:
        name, equals, values = condition.removeprefix(parsing.PREFIX).partition("=")
        if not equals:
            matches = [member for member in matches if member.id.startswith(condition)]
            continue
        group, field = parsing.find_field(config, name)
        allowed = {*parsing.COMMA.split(values)}
        matches = [m for m in matches if str(m.point.get(name, group[field])) in allowed]
    if not matches:
        raise UserError(
            f"--sweep.only {' '.join(only)}: none of the {len(members)} members matches"
        )
    return matches[: limit or None]


def _to_python(value: Any) -> Any:
    """Convert numpy's numbers to Python's, and lists to the tuples that configs hold."""
    if isinstance(value, list | tuple):
        return tuple(map(_to_python, value))
    return value.item() if hasattr(value, "item") else value
