"""Scores by published evaluation code of visible-infrared re-identification, in
references/retrieval.npz.

    python -m tests.metrics.make_retrieval_references EVAL_METRICS EVAL_METRICS_LLCM

EVAL_METRICS: `eval_metrics.py` of mangye16/Cross-Modal-Re-ID-baseline @ a903f427.
EVAL_METRICS_LLCM: `AGW/eval_metrics.py` of ZYK100/LLCM @ d62fc3a9.
Each gallery has 27 identities or more, since the code fails with fewer than 20.
"""

import argparse
import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FILE = Path(__file__).parent / "references" / "retrieval.npz"
SEEDS = (0, 1, 2)


class Case(NamedTuple):
    """A split as arrays, and which of its samples are queries and gallery."""

    embedding: np.ndarray  # float32 [N, 8]
    labels: np.ndarray  # int32 [N]
    cameras: np.ndarray  # int32 [N]
    query: np.ndarray  # int [Q]
    gallery: np.ndarray  # int [G]


def draw(protocol: str, seed: int) -> Case:
    """Draw embeddings of 30 identities; the queries of two of them have no match."""
    random = np.random.RandomState(1000 * seed + len(protocol))
    num_query, num_gallery, identities = 64, 100, 30
    query_cameras, gallery_cameras = {
        "sysu": ([3, 6], [1, 2, 4, 5]),
        "regdb": ([1], [2]),
        "llcm": ([1, 2, 3], [1, 2, 3]),
    }[protocol]
    in_gallery = random.randint(2, identities, num_gallery)
    labels = np.append(random.randint(0, identities, num_query), in_gallery)
    cameras = np.append(
        random.choice(query_cameras, num_query), random.choice(gallery_cameras, num_gallery)
    )
    # Each identity of the gallery has an image that no rule removes.
    labels[num_query : num_query + 2 * identities] = np.tile(np.arange(identities), 2).clip(2)
    cameras[num_query : num_query + identities] = gallery_cameras[0]
    cameras[num_query + identities : num_query + 2 * identities] = gallery_cameras[-1]
    embedding = random.standard_normal((identities, 8))[labels]
    embedding = embedding + random.standard_normal((len(labels), 8))
    return Case(
        embedding.astype(np.float32),
        labels.astype(np.int32),
        cameras.astype(np.int32),
        np.arange(num_query),
        np.arange(num_query, len(labels)),
    )


def load_module(path: str) -> Any:
    spec = importlib.util.spec_from_file_location("eval_metrics", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("eval_metrics")
    parser.add_argument("eval_metrics_llcm")
    arguments = parser.parse_args()
    baseline, llcm = load_module(arguments.eval_metrics), load_module(arguments.eval_metrics_llcm)
    functions = {
        "sysu": baseline.eval_sysu,
        "regdb": lambda distance, q, g, *_: baseline.eval_regdb(distance, q, g),
        "llcm": llcm.eval_llcm,
    }
    values = {}
    for protocol, function in functions.items():
        for seed in SEEDS:
            embedding, labels, cameras, query, gallery = draw(protocol, seed)
            unit = embedding.astype(np.float64)
            unit /= np.linalg.norm(unit, axis=1, keepdims=True)
            distance = -unit[query] @ unit[gallery].T
            assert min(np.diff(np.sort(row)).min() for row in distance) > 1e-8  # no ties
            cmc, mean_precision, mean_penalty = function(
                distance, labels[query], labels[gallery], cameras[query], cameras[gallery]
            )
            values[f"{protocol} {seed}"] = np.array([*cmc, mean_precision, mean_penalty])
    FILE.parent.mkdir(exist_ok=True)
    np.savez_compressed(FILE, **values)


if __name__ == "__main__":
    main()
