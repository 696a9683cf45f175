"""Fixtures of report tests."""

from pathlib import Path

import pytest

from tests.conftest import lock
from tests.reporting.reports import World, write
from tinyjax import report
from tinyjax.reporting import writer


@pytest.fixture(scope="session")
def sweep(shared_folder) -> Path:
    """A sweep with its report: 4 sizes x 2 starts x 3 seeds, written once. No test may change it.

    Before the report was written, its folder had a figure "old.png".
    """
    folder = shared_folder / "reported-sweep"
    with lock(folder):
        if not (folder / "report.html").exists():
            write(
                folder, World(gain=0.05), sizes=["s-6", "s-4", "s-2", "s-1"], images=60,
                resamples=60, steps=(50, 300), corrupt=False,
            )  # fmt: skip
            stale = folder / "figures" / "report" / "old.png"
            stale.parent.mkdir(parents=True)
            stale.touch()
            assert report.main([str(folder)]) == 0
    return folder


@pytest.fixture
def without_figures(monkeypatch):
    """Reports are written without figures and images, which take most of the time."""
    monkeypatch.setattr(writer, "FIGURES", ())
    monkeypatch.setattr(writer, "make_galleries", lambda tables: ([], ""))
