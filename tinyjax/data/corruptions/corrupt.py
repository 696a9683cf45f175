"""Images as a worse day or a worse camera would show them, to test a detector on.

Two families: the 15 kinds of the corruption benchmark (`benchmark`), and what thermal cameras do
(`thermal`), each in five severities. They are applied to an image at its own size, before it is
resized for a network.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinyjax.data.corruptions import benchmark, thermal
from tinyjax.errors import UserError, suggest

BENCHMARK = tuple(kind.__name__ for kind in benchmark.KINDS)
THERMAL = tuple(kind.__name__ for kind in thermal.KINDS)
SEVERITIES = (1, 2, 3, 4, 5)

_FUNCTIONS = {kind.__name__: kind for kind in (*benchmark.KINDS, *thermal.KINDS)}
_FAMILIES = {"benchmark": BENCHMARK, "thermal": THERMAL}


def kinds(names: Sequence[str]) -> tuple[str, ...]:
    """The kinds that names stand for, in their order and each once; "benchmark" and "thermal" stand
    for all of theirs.

    Raises UserError for an unknown name.
    """
    found: dict[str, None] = {}
    for name in names:
        if name not in _FAMILIES and name not in _FUNCTIONS:
            raise _unknown(name)
        found |= dict.fromkeys(_FAMILIES.get(name, (name,)))
    return tuple(found)


def of_suite(name: str, suite: Mapping[str, Any]) -> list[tuple[str, int]]:
    """(kind, severity) of all that suite `name` of a config is corrupted by: its "corrupt", names
    as `kinds` takes them, and its "severities", by default all.

    Raises UserError as `kinds`, and for a severity that there is not.
    """
    severities, given = suite.get("severities", SEVERITIES), suite["corrupt"]
    listed = isinstance(severities, Sequence) and severities
    if not listed or any(severity not in SEVERITIES for severity in severities):
        raise UserError(f"data.suites.{name}.severities = {severities}: give some of {SEVERITIES}")
    if not isinstance(given, Sequence):
        raise UserError(f"data.suites.{name}.corrupt = {given!r}: give names of corruptions")
    found = kinds((given,) if isinstance(given, str) else given)
    return [(kind, severity) for kind in found for severity in severities]


def corrupt(image: np.ndarray, kind: str, severity: int, name: str) -> np.ndarray:
    """One image, corrupted: uint8 [H, W, C] of 1 or 3 channels to uint8 of the same shape.

    Of one channel is what one channel of the published RGB result for that gray image is: the same
    where nothing is random, the same in distribution where channels are drawn apart.

    name: the image's file name. What is random is a function of (name, kind, severity) alone;
    for `thermal.FIXED`, which belong to the camera, of (kind, H, W): the same on every image, and
    stronger with severity.

    Raises UserError for an unknown kind or severity.
    """
    if kind not in _FUNCTIONS:
        raise _unknown(kind)
    if severity not in SEVERITIES:
        raise UserError(f"corruption {kind}: severity = {severity!r}; give 1, 2, 3, 4 or 5")
    drawn_for = image.shape[:2] if kind in thermal.FIXED else (severity, name)
    out = _FUNCTIONS[kind](image.astype(np.float32), severity, _rng(kind, *drawn_for))
    # As published, levels are cut off, not rounded; the margin keeps whole numbers what they are.
    return (out.clip(0, 255) + 1e-3).astype(np.uint8)


def _rng(*what: object) -> np.random.Generator:
    digest = hashlib.sha256("/".join(map(str, what)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest)))


def _unknown(name: str) -> UserError:
    known = (*_FAMILIES, *_FUNCTIONS)
    return UserError(f"no corruption {str(name)!r}; {suggest(name, known)}")
