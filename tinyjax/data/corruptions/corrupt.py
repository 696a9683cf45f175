"""Corrupted images, to measure the robustness of a network.

Two families: the 15 corruptions of ImageNet-C (`benchmark`), and those of thermal cameras
(`thermal`), each in five severities. They are applied to an image at the size of its file, before
it is resized for a network.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinyjax.data.corruptions import imagenet_c, thermal
from tinyjax.errors import UserError, suggest

BENCHMARK_CORRUPTIONS = tuple(function.__name__ for function in imagenet_c.CORRUPTIONS)
THERMAL_CORRUPTIONS = tuple(function.__name__ for function in thermal.CORRUPTIONS)
SEVERITIES = (1, 2, 3, 4, 5)

_FUNCTIONS = {f.__name__: f for f in (*imagenet_c.CORRUPTIONS, *thermal.CORRUPTIONS)}
_FAMILIES = {"benchmark": BENCHMARK_CORRUPTIONS, "thermal": THERMAL_CORRUPTIONS}


def expand_corruption_names(names: Sequence[str]) -> tuple[str, ...]:
    """Replace "benchmark" and "thermal" by the corruptions of that family; in order, without
    duplicates.

    Raises UserError for an unknown name.
    """
    expanded: dict[str, None] = {}
    for name in names:
        if name not in _FAMILIES and name not in _FUNCTIONS:
            raise _unknown_corruption(name)
        expanded |= dict.fromkeys(_FAMILIES.get(name, (name,)))
    return tuple(expanded)


def suite_corruptions(name: str, suite: Mapping[str, Any]) -> list[tuple[str, int]]:
    """All pairs (corruption, severity) of a config's suite `name`.

    Its "corrupt" is a name or names for `expand_corruption_names`; "severities" is by default all.

    Raises UserError as `expand_corruption_names`, and for a severity that does not exist.
    """
    severities, names = suite.get("severities", SEVERITIES), suite["corrupt"]
    valid = isinstance(severities, Sequence) and severities
    if not valid or any(severity not in SEVERITIES for severity in severities):
        raise UserError(f"data.suites.{name}.severities = {severities}: give some of {SEVERITIES}")
    if not isinstance(names, Sequence):
        raise UserError(f"data.suites.{name}.corrupt = {names!r}: give names of corruptions")
    corruptions = expand_corruption_names((names,) if isinstance(names, str) else names)
    return [(corruption, severity) for corruption in corruptions for severity in severities]


def corrupt(image: np.ndarray, corruption: str, severity: int, name: str) -> np.ndarray:
    """Corrupt one image: uint8 [H, W, C] of 1 or 3 channels to uint8 of the same shape.

    The result for one channel equals a channel of the published result for the same gray image in
    RGB; only in distribution if channels are drawn independently.

    Random numbers are a function of (name, corruption, severity). For `thermal.FIXED_PATTERNS`,
    which belong to the camera, they are a function of (corruption, H, W): the same pattern in all
    images, amplified with severity.

    name: the image's file name.

    Raises UserError for an unknown corruption or severity.
    """
    if corruption not in _FUNCTIONS:
        raise _unknown_corruption(corruption)
    if severity not in SEVERITIES:
        raise UserError(f"corruption {corruption}: severity = {severity!r}; give 1, 2, 3, 4 or 5")
    fixed = corruption in thermal.FIXED_PATTERNS
    rng = _rng(corruption, *(image.shape[:2] if fixed else (severity, name)))
    out = _FUNCTIONS[corruption](image.astype(np.float32), severity, rng)
    # As published, levels are truncated, not rounded; the margin preserves integers.
    return (out.clip(0, 255) + 1e-3).astype(np.uint8)


def _rng(*seed: object) -> np.random.Generator:
    digest = hashlib.sha256("/".join(map(str, seed)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest)))


def _unknown_corruption(name: str) -> UserError:
    known = (*_FAMILIES, *_FUNCTIONS)
    return UserError(f"no corruption {str(name)!r}; {suggest(name, known)}")
