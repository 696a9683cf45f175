"""CSV files of a run: tables that are written whole, and metrics.csv, which grows."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tinyjax.config.paths import remote
from tinyjax.run.files import atomic

METRICS = ("member", "step", "split", "metric", "value")


class Metrics:
    """metrics.csv of a run that goes on at `step`: what it will write again is dropped, later
    training rows and evaluations from `step` on.
    """

    def __init__(self, file: Path, step: int):
        self._file, self._rows = file, []
        if file.exists():
            whole = [row for row in read_rows(file) if None not in row.values()]
            kept = [row for row in whole if int(row["step"]) < step + (row["split"] == "train")]
            write_rows(file, kept, METRICS)
            self._rows = kept if remote(file) else []

    def add(self, member: str, step: int, split: str, values: dict[str, float]) -> None:
        """Rows member, step, split, metric, value, at the end."""
        rows = [(member, str(step), split, name, repr(float(v))) for name, v in values.items()]
        if remote(self._file):
            self._rows += [dict(zip(METRICS, row, strict=True)) for row in rows]
            return
        new = not self._file.exists()
        with self._file.open("a", newline="") as stream:
            csv.writer(stream).writerows([METRICS] * new + rows)

    def written(self) -> None:
        """To be called before a checkpoint: what is lost by a kill is then written again."""
        if remote(self._file):
            write_rows(self._file, self._rows, METRICS)


def write_rows(file: Path, rows: Iterable[dict[str, Any]], columns: Iterable[str]) -> None:
    """Write a CSV file whole."""
    with atomic(file) as path, path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(columns))
        writer.writeheader()
        writer.writerows(rows)


def read_rows(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    return list(csv.DictReader(io.StringIO(file.read_text())))
