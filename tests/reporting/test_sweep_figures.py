"""Figures that a sweep writes when it ends."""

import pytest

from tinyjax.reporting.sweep_figures import draw

MEMBERS = [{"member": "a", "backbone": "mobilenetv3/s-6", "parameters": "25000"}]
RESULTS = [{"member": "a", "suite": "val", "diverged_at": "0", "AP": "0"}]


@pytest.mark.parametrize("losses", [[], ["nan"], ["2.0", "1.0"]])
def test_sweep_without_finite_losses_has_its_figures(losses, tmp_path):
    """It ended before its first log step, or all members diverged."""
    metrics = [
        {"member": "a", "split": "train", "metric": "loss", "step": str(step), "value": value}
        for step, value in enumerate(losses)
    ]
    tables = {"members": MEMBERS, "metrics": metrics, "results": RESULTS}
    draw(tmp_path, tables, {"AP": "AP"})
    assert {file.name for file in tmp_path.iterdir()} == {"score_by_size.png", "learning.png"}
