"""Command line options of sweeps."""

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from tinyjax import config as configs
from tinyjax.errors import UserError
from tinyjax.population import search_space
from tinyjax.population.search_space import Member
from tinyjax.run import run_folder

SINGLE_RUN = Member(run_folder.member_id({}), {})  # the member of a run that is not a sweep
FLAGS: dict[str, dict[str, Any]] = {
    "--sweep.only": {
        "action": "append",
        "dest": "only",
        "metavar": "FIELD=VALUE[,..]",
        "help": "train only the matching members of a sweep; may be repeated",
    },
    "--sweep.limit": {
        "type": int,
        "default": 0,
        "dest": "limit",
        "metavar": "N",
        "help": "train only the first N members of a sweep",
    },
    "--shard": {
        "metavar": "I/N",
        "help": "train only populations I, I + N, .. of a sweep (I from 0 to N - 1); other "
        "processes or machines train the others in the same folder",
    },
    "--member-batching": {
        "metavar": "METHOD",
        "help": "how a device computes the members of a population: vmap (all at once), map (one "
        "after the other), chunks:N (N at once) or wide:N (as chunks:N, with the channels of all "
        "members on one axis, for TPUs); default: the fastest that fits in memory",
    },
    "--dry-run": {
        "action": "store_true",
        "help": "only print the populations of a sweep and their estimated cost",
    },
}


def select_members(
    spec: str, config: ConfigDict, only: Sequence[str] = (), limit: int = 0
) -> list[Member]:
    """Return the members of a config file's `get_hyper`, or the only member of a single run.

    only, limit: see `search_space.filter_members`. Raises UserError if given without a sweep.
    """
    get_hyper = configs.definitions(spec).get("get_hyper")
    if get_hyper is None:
        if only or limit:
            raise UserError(f"--sweep: {spec} is not a sweep: it has no get_hyper")
        return [SINGLE_RUN]
    return search_space.filter_members(
        config, search_space.make_members(config, search_space.sweep_points(get_hyper)), only, limit
    )


def parse_member_batching(text: str | None) -> str | None:
    """Check the value of `--member-batching` and return it. Raises UserError."""
    name, colon, size = (text or "vmap").partition(":")
    chunks = name in ("chunks", "wide") and size.isdecimal() and int(size) > 0
    if not (chunks or (name in ("vmap", "map") and not colon)):
        raise UserError(
            f"--member-batching {text}: give vmap, map, chunks:N or wide:N, such as chunks:8"
        )
    return text


def parse_shard(text: str | None) -> tuple[int, int]:
    """Parse "i/n" as (i, n); None is (0, 1). Raises UserError."""
    try:
        i, n = map(int, (text or "0/1").split("/"))
    except ValueError:
        i, n = -1, 0
    if not 0 <= i < n:
        raise UserError(f"--shard {text}: give i/n, with i from 0 to n - 1, such as 0/4")
    return i, n
