"""The space of a sweep: a list of points, each a dict of fields "a.b" and their values.

A config file describes it beside its `get_config`, in the terms of big_vision's sweeps:

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

from tinyjax import config as configs
from tinyjax.errors import UserError
from tinyjax.run import run_folder

Point = dict[str, Any]


class Member(NamedTuple):
    """One network of a sweep: its name, and what sets it apart from the config."""

    id: str
    point: Point


# ---- combinators


def sweep(name: str, values: Iterable[Any]) -> list[Point]:
    """A point for each value of a field."""
    return [{name: value} for value in values]


def fixed(name: str, value: Any, length: int = 1) -> list[Point]:
    """The same value so many times: to be zipped with what varies."""
    return [{name: value} for _ in range(length)]


def product(spaces: Sequence[Sequence[Point]]) -> list[Point]:
    """Every combination of a point from each space; the last one varies fastest."""
    return [_joined(points) for points in itertools.product(*spaces)]


def zipit(spaces: Sequence[Sequence[Point]]) -> list[Point]:
    """The first points of all spaces together, the second ones, and so on; a space of one point
    goes with all. Raises UserError for spaces of other lengths.
    """
    longest = max(map(len, spaces), default=0)
    if wrong := [len(space) for space in spaces if len(space) not in (1, longest)]:
        raise UserError(f"get_hyper: zipit of spaces of {longest} and {wrong[0]} points")
    full = [[*space] * (longest if len(space) == 1 else 1) for space in spaces]
    return [_joined(points) for points in zip(*full, strict=True)]


def chainit(spaces: Iterable[Sequence[Point]]) -> list[Point]:
    """One space after the other."""
    return [point for space in spaces for point in space]


def _joined(points: Iterable[Point]) -> Point:
    joined: Point = {}
    for point in points:
        if twice := joined.keys() & point.keys():
            raise UserError(f"get_hyper: {min(twice)} is set twice in one point")
        joined |= point
    return joined


# ---- members


def sweep_points(get_hyper: Callable[[Any], Sequence[Point]]) -> list[Point]:
    """What a config file's `get_hyper` says, checked for its form. Raises UserError."""
    try:
        signature(get_hyper).bind(None)
    except TypeError as error:
        raise UserError("get_hyper: write it with one argument, def get_hyper(hyper)") from error
    found = get_hyper(sys.modules[__name__])
    if not isinstance(found, Sequence) or not all(isinstance(p, Mapping) for p in found):
        raise UserError("get_hyper: give a list of dicts, as hyper.sweep and hyper.product do")
    if not found:
        raise UserError("get_hyper: the space is empty")
    return [{name.removeprefix("config."): v for name, v in p.items()} for p in found]


def make_members(config: ConfigDict, space: Iterable[Point]) -> list[Member]:
    """The members of a space, each once, in its order.

    Values become those that the config would hold, 1 of a float field 1.0. Raises UserError naming
    a field the config does not have, with its nearest neighbors, or the type wanted.
    """
    copy = ConfigDict(config.to_dict())
    found: dict[str, Member] = {}
    for point in space:
        own = {name: configs.set_field(copy, name, _plain(value)) for name, value in point.items()}
        member = Member(run_folder.member_id(own), own)
        found.setdefault(member.id, member)
    return [*found.values()]


def filter_members(
    config: ConfigDict, everyone: Sequence[Member], only: Iterable[str] = (), limit: int = 0
) -> list[Member]:
    """The members that all of `only` allow, and of these the first `limit`; 0: all.

    only: "field=value" or "field=value,value", or the beginning of a member's id. Raises UserError
    for a field that is not there, and if nobody is left.
    """
    left = [*everyone]
    for condition in only:
        name, equals, values = condition.removeprefix(configs.PREFIX).partition("=")
        if not equals:
            left = [member for member in left if member.id.startswith(condition)]
            continue
        group, field = configs.find_field(config, name)
        wanted = {*configs.COMMA.split(values)}
        left = [one for one in left if str(one.point.get(name, group[field])) in wanted]
    if not left:
        raise UserError(f"--sweep.only {' '.join(only)}: no member of {len(everyone)} is so")
    return left[: limit or None]


def _plain(value: Any) -> Any:
    """numpy's numbers as Python's, lists as the tuples that configs hold."""
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    return value.item() if hasattr(value, "item") else value
