"""What the command line says of a sweep."""

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from tinyjax import config as configs
from tinyjax.errors import UserError
from tinyjax.population import search_space
from tinyjax.population.search_space import Member
from tinyjax.run import run_folder

SINGLE_RUN = Member(run_folder.member_id({}), {})  # the only member of a run that is no sweep
FLAGS: dict[str, dict[str, Any]] = {
    "--sweep.only": {
        "action": "append",
        "dest": "only",
        "metavar": "FIELD=VALUE[,..]",
        "help": "of a sweep only the members that are so; may be given several times",
    },
    "--sweep.limit": {
        "type": int,
        "default": 0,
        "dest": "limit",
        "metavar": "N",
        "help": "of a sweep only the first members",
    },
    "--shard": {
        "metavar": "I/N",
        "help": "of a sweep only programs I, I + N, .. (I from 0 to N - 1): other processes, "
        "perhaps on other machines, do the rest in the same folder",
    },
    "--member-batching": {
        "metavar": "HOW",
        "help": "members of a program: vmap (all at once), map (one after the other) or chunks:N "
        "(so many at once); else what is fastest here and fits into memory",
    },
    "--dry-run": {
        "action": "store_true",
        "help": "only say which programs a sweep would be, and what they would take",
    },
}


def select_members(
    spec: str, config: ConfigDict, only: Sequence[str] = (), limit: int = 0
) -> list[Member]:
    """The members of the sweep that a config file describes by `get_hyper`, or the only one of a
    plain run. only, limit: see `space.chosen`.
    """
    get_hyper = configs.definitions(spec).get("get_hyper")
    if get_hyper is None:
        if only or limit:
            raise UserError(f"--sweep: {spec} describes no sweep: it has no get_hyper")
        return [SINGLE_RUN]
    return search_space.filter_members(
        config, search_space.make_members(config, search_space.sweep_points(get_hyper)), only, limit
    )


def parse_member_batching(text: str | None) -> str | None:
    """A `--member-batching` that there is. Raises UserError."""
    name, colon, size = (text or "vmap").partition(":")
    chunks = name == "chunks" and size.isdecimal() and int(size) > 0
    if not (chunks or (name in ("vmap", "map") and not colon)):
        raise UserError(f"--member-batching {text}: give vmap, map, or chunks:N such as chunks:8")
    return text


def parse_shard(text: str | None) -> tuple[int, int]:
    """(i, n) of "i/n"; (0, 1) of nothing. Raises UserError."""
    try:
        i, n = map(int, (text or "0/1").split("/"))
    except ValueError:
        i, n = -1, 0
    if not 0 <= i < n:
        raise UserError(f"--shard {text}: give i/n, with i from 0 to n - 1, such as 0/4")
    return i, n
