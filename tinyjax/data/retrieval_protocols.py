"""Queries and galleries of visible-infrared sets, as indices of a split's images.

A protocol without a query or a gallery image is left out.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from tinyjax.data.layouts.identity_images import IdentityImage
from tinyjax.data.modality import INFRARED, VISIBLE
from tinyjax.data.records import RetrievalProtocol, Trial

NUM_TRIALS = 10
MULTI_SHOT = 10  # images of an identity and camera in a multi-shot gallery
SYSU_GALLERIES = {"all": (1, 2, 4, 5), "indoor": (1, 2)}
# Camera 2 and 3 of SYSU-MM01 are in one room.
SYSU_SKIPPED = frozenset({(3, 2)})
DIRECTIONS = {
    "visible_to_infrared": (VISIBLE, INFRARED),
    "infrared_to_visible": (INFRARED, VISIBLE),
}

Protocols = dict[str, RetrievalProtocol]


def both_directions(modality: np.ndarray) -> Protocols:
    """All images of one modality are queries, all of the other are the gallery, as in RegDB.

    modality: [N].
    """
    protocols = {}
    for name, (query, gallery) in DIRECTIONS.items():
        trial = Trial(np.flatnonzero(modality == query), np.flatnonzero(modality == gallery))
        protocols[name] = RetrievalProtocol((trial,))
    return _without_empty(protocols)


def regdb(images: Sequence[IdentityImage]) -> Protocols:
    """`both_directions`; ranks count images."""
    return both_directions(np.array([image.modality for image in images]))


def sysu(images: Sequence[IdentityImage]) -> Protocols:
    """All infrared images search the visible ones of all cameras or of the indoor cameras.

    The gallery has 1 (single-shot) or up to 10 images (multi-shot) of each identity and camera.
    Single-shot galleries are those of the AGW code, github.com/mangye16/Cross-Modal-Re-ID-baseline,
    not the fixed permutations of the set's MATLAB code. The AGW code has no multi-shot galleries;
    ours are drawn without replacement by the same generator.

    images: in order of name.
    """
    protocols = {}
    for search, cameras in SYSU_GALLERIES.items():
        for shots, size in (("single", 1), ("multi", MULTI_SHOT)):
            trials = _drawn_trials(images, INFRARED, VISIBLE, cameras, size)
            protocols[f"{search}_{shots}"] = RetrievalProtocol(trials, SYSU_SKIPPED, True)
    return _without_empty(protocols)


def llcm(images: Sequence[IdentityImage]) -> Protocols:
    """All images of one modality search one image of each identity and camera of the other, drawn
    as in github.com/ZYK100/LLCM; ranks count identities.

    Both directions are those of the paper (DEEN, CVPR 2023). The test script of that repository
    exchanges query and gallery from visible to infrared, so its numbers differ.
    """
    protocols = {}
    for name, (query, gallery) in DIRECTIONS.items():
        cameras = sorted({image.camera for image in images})
        trials = _drawn_trials(images, query, gallery, cameras, 1)
        protocols[name] = RetrievalProtocol(trials, identity_ranks=True)
    return _without_empty(protocols)


def all_visible(images: Sequence[IdentityImage]) -> Protocols:
    """Infrared faces search all visible ones, as on Oulu-CASIA."""
    protocols = regdb(images)
    return {name: protocols[name] for name in protocols if name == "infrared_to_visible"}


def one_visible(images: Sequence[IdentityImage]) -> Protocols:
    """Infrared faces search one visible image of each identity, as on BUAA-VisNir.

    Which one is not known; it is the first in order of name.
    """
    query = [i for i, image in enumerate(images) if image.modality == INFRARED]
    first: dict[str, int] = {}
    for i, image in enumerate(images):
        if image.modality == VISIBLE:
            first.setdefault(image.identity, i)
    trial = Trial(np.array(query, int), np.array([*first.values()], int))
    return _without_empty({"infrared_to_visible": RetrievalProtocol((trial,))})


def _drawn_trials(
    images: Sequence[IdentityImage],
    query: int,
    gallery: int,
    cameras: Iterable[int],
    shots: int,
) -> tuple[Trial, ...]:
    """`NUM_TRIALS` random galleries with at most `shots` images of each identity and camera.

    Trial t draws from `random.Random(t)` in order of identity, then of `cameras`.
    """
    groups: dict[tuple[str, int], list[int]] = defaultdict(list)
    for i, image in enumerate(images):
        if image.modality == gallery:
            groups[image.identity, image.camera].append(i)
    queries = np.array([i for i, image in enumerate(images) if image.modality == query], int)
    identities = sorted({identity for identity, _ in groups})
    keys = [(identity, camera) for identity in identities for camera in cameras]
    trials = []
    for seed in range(NUM_TRIALS):
        rng, chosen = random.Random(seed), list[int]()
        for key in keys:
            if group := groups.get(key):
                one = shots == 1
                chosen += [rng.choice(group)] if one else rng.sample(group, min(shots, len(group)))
        trials.append(Trial(queries, np.array(chosen, int)))
    return tuple(trials)


def _without_empty(protocols: Protocols) -> Protocols:
    return {
        name: protocol
        for name, protocol in protocols.items()
        if all(len(trial.query) and len(trial.gallery) for trial in protocol.trials)
    }
