"""Timing of candidates, each in its own process, as users run it.

The candidates take turns, so that noise of the machine affects all of them alike.
"""

import os
import statistics
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tinyjax.run import timing
from tinyjax.run.timing import WARMUP_ROUNDS, find_version

__all__ = ["WARMUP_ROUNDS", "find_version"]
Candidate = tuple[Callable[..., Callable[[], Any]], tuple]  # builds the timed call; its arguments


class Comparison(NamedTuple):
    """Times of all candidates, by name."""

    seconds: dict[Any, list[float]]  # of each round
    build_seconds: dict[Any, float]
    unavailable: list[str]  # one line per candidate that could not be built


def compare(candidates: Mapping[Any, Candidate], rounds: int) -> Comparison:
    """Time the candidates in turn, see `timing.compare`."""
    processes = {name: (_build_one, (build, *args)) for name, (build, args) in candidates.items()}
    result = timing.compare(processes, rounds)
    return Comparison(
        {name: times[0] for name, times in result.seconds.items()},
        result.build_seconds,
        [f"{name}: {reason}" for name, reason in result.unavailable.items()],
    )


def _build_one(build: Callable[..., Callable[[], Any]], *args: Any) -> dict[int, Any]:
    return {0: build(*args)}


def print_comparison(title: str, candidates: dict[str, Candidate], rounds: int) -> None:
    """Print the times of all candidates, and the ratio of the first one's time to each other's."""
    seconds, build_seconds, unavailable = compare(candidates, rounds)
    first, *_ = candidates
    for name, times in seconds.items():
        line = f"{title:<20}{name:<22}{milliseconds(times):>16}"
        line += f"{'' if name == first else f'{median_ratio(seconds[first], times):.2f}':>8}"
        print(f"{line}{build_seconds[name]:>10.1f}", flush=True)
    for line in unavailable:
        print(f"{title:<20}{line}", flush=True)


HEADER = f"{'':<20}{'':<22}{'ms':>16}{'ratio':>8}{'build s':>10}"


def milliseconds(seconds: list[float]) -> str:
    """Format the median and half the interquartile range, in milliseconds."""
    low, median, high = statistics.quantiles(seconds, n=4)
    return f"{1e3 * median:.1f} ± {1e3 * (high - low) / 2:.1f}"


def median_ratio(numerators: list[float], denominators: list[float]) -> float:
    """Return the median over rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def describe_machine(*packages: str) -> str:
    """Return processor, cores, and the versions of jax, flax and `packages`."""
    versions = (
        f"{package} {find_version(package) or 'not installed'}"
        for package in ("jax", "flax", *packages)
    )
    return f"{os.cpu_count()} cores of {timing.processor_name()}; {', '.join(versions)}"
