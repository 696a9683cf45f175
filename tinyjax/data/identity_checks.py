"""What a visible-infrared split lacks, in words, and whether its identities were trained on."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinyjax.data.modality import INFRARED, VISIBLE
from tinyjax.data.records import RecognitionSplit, RetrievalProtocol
from tinyjax.errors import shorten

MIN_IDENTITIES = 20  # scores are reported up to Rank-20


def identity_record(split: RecognitionSplit) -> dict[str, Any]:
    """What a run stores about its training split for `find_leak`, as JSON types."""
    data_set, trial = split.origin
    return {"data_set": data_set, "trial": trial, "identities": [*split.classes]}


def find_leak(trained: Mapping[str, Any], split: RecognitionSplit) -> str:
    """A message if identities of `split` were trained on, else "".

    trained: the `identity_record` of the training split. Identities of different data sets are not
    compared. Trials of one data set divide the same identities differently, so a network is scored
    on the trial that it was trained on.
    """
    data_set, trial = split.origin
    if trained["data_set"] != data_set:
        return ""
    shared = sorted({*trained["identities"]} & {*split.classes})
    overlap = f"{len(shared)} of {len(split.classes)} identities of this split were trained on"
    if trained["trial"] != trial:
        known = f" ({overlap})" if shared else ""
        return (
            f"{data_set}: the network was trained on trial {trained['trial']} and the split is of "
            f"trial {trial}{known}; evaluate on trial {trained['trial']}, or train on trial {trial}"
        )
    if shared:
        renamed = (
            ". If they are other ones with the same names, rename the set's folder"
            if data_set.startswith("pairs ")
            else ""
        )
        return f"{data_set}: {overlap} ({shorten(shared)}); evaluate on other identities{renamed}"
    return ""


def describe(split: RecognitionSplit) -> list[str]:
    """The lines that a run logs about a split: counts, and what makes its scores less telling."""
    modality = split.inputs["modality"]
    counts = [int((modality == value).sum()) for value in (VISIBLE, INFRARED)]
    cameras = ", ".join(map(str, np.unique(split.cameras)))
    lines = [
        f"{len(split.classes)} identities, {counts[0]} visible and {counts[1]} infrared images, "
        f"cameras {cameras}"
    ]
    for value, name in ((VISIBLE, "visible"), (INFRARED, "infrared")):
        present = {*split.labels[modality == value].tolist()}
        if absent := [c for k, c in enumerate(split.classes) if k not in present]:
            lines.append(f"no {name} image of {_count(absent)}")
    if twins := _count_twins(split):
        lines.append(
            f"{twins} images share a capture with an image of the other modality; these are not "
            "compared"
        )
    if split.protocols and len(split.classes) < MIN_IDENTITIES:
        lines.append(
            f"fewer than {MIN_IDENTITIES} identities: high ranks such as Rank-20 say little"
        )
    for name, protocol in split.protocols.items():
        lines += [f"{name}: {line}" for line in _unmatched(split, protocol)]
    return lines


def _unmatched(split: RecognitionSplit, protocol: RetrievalProtocol) -> list[str]:
    query, gallery = (
        {*split.labels[np.concatenate(rows)].tolist()}
        for rows in zip(*protocol.trials, strict=True)
    )
    lines = []
    if missing := [split.classes[k] for k in sorted(query - gallery)]:
        lines.append(f"no gallery image of {_count(missing)}; their queries are left out")
    if missing := [split.classes[k] for k in sorted(gallery - query)]:
        lines.append(f"no query of {_count(missing)}")
    return lines


def _count_twins(split: RecognitionSplit) -> int:
    """The number of images whose capture has images of both modalities."""
    modality, captures = split.inputs["modality"], split.captures
    both = np.intersect1d(captures[modality == VISIBLE], captures[modality == INFRARED])
    return int(np.isin(captures, both).sum())


def _count(names: list[str]) -> str:
    noun = "identity" if len(names) == 1 else "identities"
    return f"{len(names)} {noun} ({shorten(names)})"
