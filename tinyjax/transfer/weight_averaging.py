"""Averages of weights: between a start and an end (WiSE-FT, arXiv 2109.01903), and of several ends
that share a start (model soups, arXiv 2203.05482).

Averaged are all parameters and the running moments of BatchNorm. The latter are then to be
estimated anew: they are those of no network that there was.
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np

from tinyjax.errors import UserError, shorten
from tinyjax.step import Variables


def mixed(networks: Sequence[Variables], parts: Sequence[float]) -> Variables:
    """The sum of networks, each times its part. One of part 1 is itself to the last bit.

    Raises UserError for networks that have other arrays than the first.
    """
    for other in networks[1:]:
        refuse_unlike(networks[0], other)
    used = [(own, np.float32(part)) for own, part in zip(networks, parts, strict=True) if part]
    whole = [jax.tree.map(lambda leaf, part=part: part * leaf, own) for own, part in used]
    return jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *whole)


def refuse_unlike(one: Variables, other: Variables) -> None:
    """Raise UserError if two networks have other arrays, or of other shapes."""
    shapes = [{p: np.shape(x) for tree in own for p, x in tree.items()} for own in (one, other)]
    if wrong := sorted(shapes[0].items() ^ shapes[1].items()):
        names = shorten(dict.fromkeys(path for path, _ in wrong))
        raise UserError(f"networks that differ in their arrays have no average ({names})")


def greedy(scores: Sequence[float], score_of: Callable[[list[int]], float]) -> list[int]:
    """Which networks are in the greedy soup: the best one and, in the order of their scores, each
    with which the soup scores higher on the same held-out images.

    score_of: of the even average of some, by their numbers.
    """
    first, *others = sorted(range(len(scores)), key=lambda i: -scores[i])
    kept, best = [first], scores[first]
    for i in others:
        if (now := score_of([*kept, i])) > best:
            kept, best = [*kept, i], now
    return kept
