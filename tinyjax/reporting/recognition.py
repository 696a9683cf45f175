"""Report of a single run of visible-infrared recognition: tables and figures, by suite."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from tinyjax.data.records import RecognitionSplit
from tinyjax.metrics import modality_gap, retrieval
from tinyjax.metrics.modality_gap import ModalityGap
from tinyjax.metrics.retrieval import NEVER, ProtocolResult
from tinyjax.reporting.plotting import (
    COLORS,
    DASHES,
    LEGEND_RIGHT,
    STYLE,
    label_text,
    make_panels,
    save,
)
from tinyjax.run.csv_files import write_rows

COUNTS = ("queries", "unmatched queries", "gallery")
SCORES = (*(f"R{k}" for k in retrieval.RANKS), "mAP", "mINP")
IDENTITY_COLUMNS = ("suite", "protocol", "identity", "queries", "mean_rank", "mAP")
MAX_RANK = max(retrieval.RANKS)
# Pairs of `ModalityGap.distances` -> title and scores of a panel.
PAIRS = {
    "visible": ("within visible", ("mAP visible",)),
    "infrared": ("within infrared", ("mAP infrared",)),
    "across": ("across modalities", ("mAP visible to infrared", "mAP infrared to visible")),
}


def write_report(
    folder: Path, suites: Mapping[str, RecognitionSplit], embeddings: Mapping[str, np.ndarray]
) -> None:
    """Write tables and figures of a recognition network.

    Files:
        retrieval.csv: a row for each suite, protocol and trial, and one with the means over the
            trials.
        identities.csv: a row for each suite, protocol and identity, the lowest mAP first, see
            `identity_rows`.
        figures/cmc.png: R-k for k = 1..20.
        figures/modality_gap.png: distances of positive and negative pairs, see
            `metrics.modality_gap`.

    embeddings: suite -> float [N, D].

    Raises UserError as `retrieval.score` does.
    """
    results = {name: retrieval.score(embeddings[name], split) for name, split in suites.items()}
    gaps = {name: modality_gap.measure(embeddings[name], split) for name, split in suites.items()}
    rows = [
        {"suite": suite, "protocol": protocol, **row}
        for suite, protocols in results.items()
        for protocol, result in protocols.items()
        for row in _trial_rows(result)
    ]
    columns = ("suite", "protocol", "trial", *SCORES, *COUNTS)
    write_rows(folder / "retrieval.csv", rows, columns)
    rows = [
        {"suite": suite, "protocol": protocol, **row}
        for suite, protocols in results.items()
        for protocol, result in protocols.items()
        for row in identity_rows(result, suites[suite].classes)
    ]
    write_rows(folder / "identities.csv", rows, IDENTITY_COLUMNS)
    with rc_context(STYLE):
        save(_draw_cmc(results), folder / "figures" / "cmc.png")
        save(_draw_modality_gap(gaps), folder / "figures" / "modality_gap.png")


def identity_rows(result: ProtocolResult, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return identity, queries, mean_rank and mAP of each identity that has a query with a match.

    They are over all queries with a match in all trials. The mean rank of the first match is
    infinite if the embedding of a query is not finite. Rows are in ascending order of mAP, those of
    equal mAP in descending order of the mean rank.
    """
    columns = [
        (q.labels[matched], q.rank[matched].astype(np.float64), q.average_precision[matched])
        for q in result.queries
        for matched in (q.matches > 0,)
    ]
    labels, ranks, precision = map(np.concatenate, zip(*columns, strict=True))
    ranks[ranks == NEVER] = np.inf
    rows = [
        {
            "identity": classes[label],
            "queries": int((mask := labels == label).sum()),
            "mean_rank": float(ranks[mask].mean()),
            "mAP": float(precision[mask].mean()),
        }
        for label in np.unique(labels)
    ]
    return sorted(rows, key=lambda row: (row["mAP"], -row["mean_rank"]))


def _trial_rows(result: ProtocolResult) -> Iterable[dict[str, Any]]:
    trials = {str(number): scores for number, scores in enumerate(result.trials, 1)}
    for trial, scores in {**trials, "mean": result.scores}.items():
        counts = {name: f"{scores[name]:.10g}" for name in COUNTS}
        yield {"trial": trial, **{name: scores[name] for name in SCORES}, **counts}


def _draw_cmc(results: Mapping[str, Mapping[str, ProtocolResult]]) -> Figure:
    """A panel per suite, with a line per protocol."""
    figure, panels = make_panels(len(results), 5.6, 2.8, max_columns=1)
    ranks = np.arange(1, MAX_RANK + 1)
    for axes, (suite, protocols) in zip(panels, results.items(), strict=True):
        for k, (name, result) in enumerate(protocols.items()):
            scores = result.scores
            label = f"{label_text(name)}  R1 {scores['R1']:.3f}, mAP {scores['mAP']:.3f}"
            axes.plot(
                ranks,
                retrieval.cmc(result, MAX_RANK),
                color=COLORS[k % len(COLORS)],
                linestyle=DASHES[k // len(COLORS) % len(DASHES)],
                marker=".",
                label=label,
            )
        axes.set(
            xlim=(0.5, MAX_RANK + 0.5),
            ylim=(0, 1.02),
            xlabel="rank k",
            ylabel="R-k, fraction of queries",
            title=label_text(suite),
        )
        axes.set_xticks(retrieval.RANKS)
        axes.legend(**LEGEND_RIGHT, handles=axes.lines)
    return figure


def _draw_modality_gap(gaps: Mapping[str, ModalityGap]) -> Figure:
    """A row per suite: distances within the modalities and across."""
    figure = Figure(figsize=(9, 3.3 * len(gaps)), layout="constrained")
    rows = figure.subplots(len(gaps), len(PAIRS), sharex="row", sharey="row", squeeze=False)
    for row, (suite, gap) in zip(rows, gaps.items(), strict=True):
        counted = np.flatnonzero(sum(gap.distances.values()))
        for axes, (pairs, (title, columns)) in zip(row, PAIRS.items(), strict=True):
            for k, sign in enumerate(("positive", "negative")):
                counts = gap.distances[f"{pairs} {sign}"]
                fraction = counts / max(counts.sum(), 1)
                label = f"{sign}, {counts.sum():,} pairs" if counts.any() else f"no {sign} pairs"
                axes.stairs(fraction, gap.edges, color=COLORS[k], alpha=0.3, fill=True)
                axes.stairs(fraction, gap.edges, color=COLORS[k], label=label)
            for column in columns:
                axes.plot([], [], " ", label=f"{column} {gap.scores[column]:.3f}")
            if pairs == "across":
                accuracy = gap.scores["probe accuracy"]
                axes.plot([], [], " ", label=f"probe accuracy {accuracy:.3f} (chance: 0.5)")
            axes.set(title=f"{label_text(suite)}: {title}", xlabel="cosine distance")
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), handlelength=1.2)
        if len(counted):
            row[0].set_xlim(gap.edges[counted[0]], gap.edges[counted[-1] + 1])
        row[0].set(ylabel="fraction of pairs", ylim=(0, None))
    return figure
