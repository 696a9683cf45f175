"""Evaluation of one member on one suite: scores of all images and of slices, with resamples."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from tinyjax.errors import UserError, shorten

ALL_IMAGES = ""  # name of the slice that is the full suite
NUM_RESAMPLES = 200


class Slice(NamedTuple):
    """A subset of a suite."""

    images: np.ndarray  # int [n], indices
    classes: tuple[str, ...] = ()  # classes to score; (): all


def class_slice(images: int, classes: tuple[str, ...]) -> Slice:
    """All images, scored by some classes only."""
    return Slice(np.arange(images), classes)


class Examined(NamedTuple):
    """One member on one suite."""

    scores: dict[str, dict[str, float]]  # slice -> scores
    replicates: dict[str, np.ndarray]  # slice -> float32 [B], its main score on resampled images
    detections: dict[str, np.ndarray]  # drawn in galleries; {} for a classifier


def resample_counts(images: int, resamples: int = NUM_RESAMPLES) -> np.ndarray:
    """int32 [B, N]: how often each of N images is drawn, with replacement, into each of B sets.

    The result depends on the two arguments alone: all members are scored on the same sets, so that
    differences between members are paired by image.
    """
    rng = np.random.default_rng(0)
    return rng.multinomial(images, np.full(images, 1 / images), resamples).astype(np.int32)


def slices_by_field(
    infos: Sequence[Mapping[str, Any]], fields: Mapping[str, Sequence[float]]
) -> dict[str, Slice]:
    """Slices of a suite by fields of its images: "time_of_day=day", "altitude_m=60-90".

    Images without a field are in none of its slices.

    Args:
        infos: the fields of each image.
        fields: name -> ascending edges of half-open bins of a number, or () for one slice per
            value.

    Raises UserError for edges that do not ascend, and for bins of values that are not numbers.
    """
    indices: dict[str, list[int]] = {}
    for field, edges in fields.items():
        values = {i: info[field] for i, info in enumerate(infos) if info.get(field) is not None}
        if invalid := [v for v in values.values() if not isinstance(v, str | int | float)]:
            raise UserError(f"data.slices.{field}: {invalid[0]!r} is neither a number nor a string")
        if not isinstance(edges, Sequence) or not all(isinstance(e, int | float) for e in edges):
            raise UserError(f"data.slices.{field} = {edges!r}: give ascending edges, or ()")
        if not edges:
            for value in sorted(set(values.values()), key=lambda v: (str(type(v)), v)):
                indices[f"{field}={value}"] = [i for i, v in values.items() if v == value]
            continue
        if [*edges] != sorted({*edges}) or len(edges) < 2:
            raise UserError(f"data.slices.{field} = {tuple(edges)}: give ascending edges, or ()")
        if invalid := [v for v in values.values() if not isinstance(v, int | float)]:
            raise UserError(
                f"data.slices.{field}: {shorten(map(str, invalid))} cannot be binned, only numbers "
                "can; give ()"
            )
        for low, high in pairwise(edges):
            indices[f"{field}={low:g}-{high:g}"] = [i for i, v in values.items() if low <= v < high]
    return {name: Slice(np.array(images)) for name, images in indices.items() if images}
