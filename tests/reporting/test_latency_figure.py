"""Score against latency and memory, with the Pareto front."""

import math

import pytest

from tinyjax.reporting.latency_figure import draw, pareto_front


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([(1, 0.5)], [0]),
        ([(3, 0.9), (1, 0.5), (2, 0.4), (2, 0.7)], [1, 3, 0]),
        ([(1, 0.5), (1, 0.6), (2, 0.6)], [1]),  # equal cost: the better one; equal score: cheaper
        ([(1, math.nan), (2, 0.1), (3, math.nan)], [1]),
    ],
)
def test_pareto_front_by_hand(points, front):
    assert pareto_front(points) == front


def test_figure_is_written(tmp_path):
    rows = [
        {"backbone": "b/1", "median_ms": 1.5, "arena_bytes": 80_000, "AP50": 0.4},
        {"backbone": "b/2", "median_ms": 0.5, "arena_bytes": 50_000, "AP50": 0.3},
    ]
    draw(tmp_path / "latency.png", rows, "AP50", "AP50", "a CPU, ONNX Runtime 1.24")
    assert (tmp_path / "latency.png").read_bytes().startswith(b"\x89PNG")
