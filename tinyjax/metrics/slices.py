"""What is found out about a member on one suite: scores of all of it and of slices of it, and how
far they would move with other images.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from tinyjax.errors import UserError, shorten

WHOLE = ""  # the slice that is all of a suite
REPLICATES = 200


class Slice(NamedTuple):
    """A part of a suite."""

    images: np.ndarray  # int [n], which
    classes: tuple[str, ...] = ()  # that are scored; (): all


def of_classes(images: int, classes: tuple[str, ...]) -> Slice:
    """All images, and these classes."""
    return Slice(np.arange(images), classes)


class Examined(NamedTuple):
    """One member on one suite."""

    scores: dict[str, dict[str, float]]  # slice -> scores
    replicates: dict[str, np.ndarray]  # slice -> float32 [B], its main score on resampled images
    seen: dict[str, np.ndarray]  # what galleries are made of; {}: of a classifier


def resamples(images: int, count: int = REPLICATES) -> np.ndarray:
    """int32 [B, N]: how often each image is drawn, with replacement, into B sets of N images.

    A function of the two numbers: all members are judged on the same sets, so that differences
    between them are paired by image.
    """
    rng = np.random.default_rng(0)
    return rng.multinomial(images, np.full(images, 1 / images), count).astype(np.int32)


def slices_of(
    infos: Sequence[Mapping[str, Any]], fields: Mapping[str, Sequence[float]]
) -> dict[str, Slice]:
    """Slices of a suite by fields of its images: "time_of_day=day", "altitude_m=60-90".

    infos: of each image what its source says of it. fields: name -> edges of half-open bins of a
    number, or () for a slice of each value. Images that do not say are in no slice of that field.

    Raises UserError for edges that do not rise, and for bins of what is no number.
    """
    found: dict[str, list[int]] = {}
    for field, edges in fields.items():
        values = {i: info[field] for i, info in enumerate(infos) if info.get(field) is not None}
        if wrong := [v for v in values.values() if not isinstance(v, str | int | float)]:
            raise UserError(f"data.slices.{field}: {wrong[0]!r} is neither a number nor a text")
        if not isinstance(edges, Sequence) or not all(isinstance(e, int | float) for e in edges):
            raise UserError(f"data.slices.{field} = {edges!r}: give edges that rise, or ()")
        if not edges:
            for value in sorted(set(values.values()), key=lambda v: (str(type(v)), v)):
                found[f"{field}={value}"] = [i for i, own in values.items() if own == value]
            continue
        if [*edges] != sorted({*edges}) or len(edges) < 2:
            raise UserError(f"data.slices.{field} = {tuple(edges)}: give edges that rise, or ()")
        if wrong := [v for v in values.values() if not isinstance(v, int | float)]:
            raise UserError(
                f"data.slices.{field}: {shorten(map(str, wrong))} are no numbers to bin; give ()"
            )
        for low, high in pairwise(edges):
            found[f"{field}={low:g}-{high:g}"] = [i for i, v in values.items() if low <= v < high]
    return {name: Slice(np.array(images)) for name, images in found.items() if images}
