"""Averages of weights: between the start and the end of a training run (WiSE-FT, arXiv 2109.01903),
over several networks with the same start (model soups, arXiv 2203.05482), and over the two paths of
one network (TOPLight, CVPR 2023).

All parameters and BatchNorm's running statistics are averaged. The running statistics must then be
estimated again, because averaged statistics do not fit the averaged parameters.
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np

from tinyjax.core import Variables
from tinyjax.errors import UserError, shorten
from tinyjax.models.path_blocks import INFRARED_PREFIX, block_of
from tinyjax.models.scaling import Architecture


def weighted_sum(networks: Sequence[Variables], fractions: Sequence[float]) -> Variables:
    """Return the sum of `networks`, each multiplied by its fraction.

    A network with fraction 1, the others having 0, is returned bit-identical.

    Raises UserError for networks whose arrays differ from those of the first.
    """
    for network in networks[1:]:
        check_same_arrays(networks[0], network)
    scales = np.asarray(fractions, np.float32)
    terms = [
        jax.tree.map(lambda leaf, scale=scale: scale * leaf, network)
        for network, scale in zip(networks, scales, strict=True)
        if scale
    ]
    return jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *terms)


def average_paths(network: Variables, arch: Architecture, path_blocks: int = 1) -> Variables:
    """Average the two copies of TOPLight's blocks after block `path_blocks`: a uniform soup.

    TOPLight averages blocks 2 to 4 and keeps two stems. That running statistics are averaged, too,
    is our choice, after the code of model soups.

    Args:
        network: with two paths; its backbone's arrays lie under "backbone/".
        arch: of the backbone.

    Returns:
        The network of `arch._replace(path_blocks=path_blocks)`.

    Raises UserError if fewer than `path_blocks` + 1 blocks exist twice.
    """
    if not 0 <= path_blocks < arch.path_blocks:
        raise UserError(
            f"path_blocks = {path_blocks}: this network has two copies of blocks 1 to "
            f"{arch.path_blocks}; give a smaller number"
        )

    copies = {  # path of the visible copy -> path of the infrared copy
        path.replace(INFRARED_PREFIX, "", 1): path
        for tree in network
        for path in tree
        if path.startswith(f"backbone/{INFRARED_PREFIX}")
        and block_of(path.removeprefix("backbone/"), arch) > path_blocks
    }
    visible = Variables(*({p: tree[p] for p in copies if p in tree} for tree in network))
    infrared = Variables(
        *({p: tree[q] for p, q in copies.items() if q in tree} for tree in network)
    )
    average = weighted_sum([visible, infrared], [0.5, 0.5])
    removed = {*copies.values()}
    return Variables(
        *(
            {path: leaf for path, leaf in tree.items() if path not in removed} | averages
            for tree, averages in zip(network, average, strict=True)
        )
    )


def check_same_arrays(a: Variables, b: Variables) -> None:
    """Raise UserError if two networks differ in the paths or shapes of their arrays."""
    shapes = [{p: np.shape(x) for tree in network for p, x in tree.items()} for network in (a, b)]
    if mismatches := sorted(shapes[0].items() ^ shapes[1].items()):
        paths = shorten(dict.fromkeys(path for path, _ in mismatches))
        raise UserError(f"networks with different arrays cannot be averaged ({paths})")


def greedy_soup(scores: Sequence[float], score_average: Callable[[list[int]], float]) -> list[int]:
    """Return the indices of the networks in the greedy soup.

    It starts with the best network; the others are tried in the order of their scores, and each is
    kept if the average scores higher with it on the same held-out images.

    score_average: indices of networks -> score of their uniform average.
    """
    first, *others = sorted(range(len(scores)), key=lambda i: -scores[i])
    kept, best = [first], scores[first]
    for i in others:
        if (score := score_average([*kept, i])) > best:
            kept, best = [*kept, i], score
    return kept
