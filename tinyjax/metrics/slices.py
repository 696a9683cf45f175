"""Slices and resamples of a suite, and the results of one member on a suite."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from tinyjax.errors import UserError, shorten

ALL_IMAGES = ""  # name of the slice with all images and classes
CLASS_SLICE_PREFIX = "classes="  # of the name of a slice with all images and some classes
NUM_RESAMPLES = 200


class Slice(NamedTuple):
    """A subset of a suite."""

    images: np.ndarray  # int [n], indices of images
    classes: tuple[str, ...] = ()  # classes to score; (): all


def class_slice(num_images: int, classes: tuple[str, ...]) -> Slice:
    """Return the slice with all images and only these classes."""
    return Slice(np.arange(num_images), classes)


def class_slice_name(classes: Sequence[str]) -> str:
    """Return the name of the slice with all images and only these classes."""
    return f"{CLASS_SLICE_PREFIX}{'+'.join(classes)}"


class SuiteResult(NamedTuple):
    """Results of one member on one suite."""

    scores: dict[str, dict[str, float]]  # slice -> scores
    # Slice -> float32 [B], main score on resampled images. A detector's also has each single class.
    replicates: dict[str, np.ndarray]
    examples: dict[str, np.ndarray]  # for `Task.draw_gallery`, such as detections; may be {}


def resample_counts(num_images: int, num_resamples: int = NUM_RESAMPLES) -> np.ndarray:
    """Return int32 [B, N]: how often each of B resamples contains each of N images.

    Images are drawn with replacement. The result depends only on the arguments: all members are
    scored on the same resamples, so differences between members are paired by image.
    """
    rng = np.random.default_rng(0)
    probabilities = np.full(num_images, 1 / num_images)
    return rng.multinomial(num_images, probabilities, num_resamples).astype(np.int32)


def slices_by_field(
    infos: Sequence[Mapping[str, Any]], fields: Mapping[str, Sequence[float]]
) -> dict[str, Slice]:
    """Slice a suite by fields of its images, e.g. "time_of_day=day", "altitude_m=60-90".

    Images without a field are in none of its slices.

    Args:
        infos: fields of each image, name -> value.
        fields: name -> ascending edges of half-open bins for numbers, or () for one slice per
            value.

    Raises UserError if edges are not ascending, or if values to be binned are not numbers.
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
                f"data.slices.{field}: only numbers can be binned, not "
                f"{shorten(map(str, invalid))}; give ()"
            )
        for low, high in pairwise(edges):
            indices[f"{field}={low:g}-{high:g}"] = [i for i, v in values.items() if low <= v < high]
    return {name: Slice(np.array(images)) for name, images in indices.items() if images}
