"""CSV files of a run: tables that are written at once, and metrics.csv, which grows."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tinyjax.config.paths import is_remote
from tinyjax.run.files import atomic

METRIC_COLUMNS = ("member", "step", "split", "metric", "value")


class MetricsFile:
    """metrics.csv of a run that starts or resumes at `step`.

    Rows that the run will write again are dropped: training rows after `step`, and evaluations from
    `step` on.
    """

    def __init__(self, file: Path, step: int):
        self._file, self._rows = file, []
        if file.exists():
            complete = [row for row in read_rows(file) if None not in row.values()]
            kept = [row for row in complete if int(row["step"]) < step + (row["split"] == "train")]
            write_rows(file, kept, METRIC_COLUMNS)
            self._rows = kept if is_remote(file) else []

    def add(self, member: str, step: int, split: str, values: dict[str, float]) -> None:
        """Append a row member, step, split, metric, value for each of `values`."""
        rows = [(member, str(step), split, name, repr(float(v))) for name, v in values.items()]
        if is_remote(self._file):
            self._rows += [dict(zip(METRIC_COLUMNS, row, strict=True)) for row in rows]
            return
        new = not self._file.exists()
        with self._file.open("a", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([METRIC_COLUMNS] * new + rows)

    def flush(self) -> None:
        """Write the rows to a bucket. Call it before each checkpoint, so that no row is lost."""
        if is_remote(self._file):
            write_rows(self._file, self._rows, METRIC_COLUMNS)


def write_rows(file: Path, rows: Iterable[dict[str, Any]], columns: Iterable[str]) -> None:
    """Write a CSV file atomically."""
    with atomic(file) as path, path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(columns))
        writer.writeheader()
        writer.writerows(rows)


def read_rows(file: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    return list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))))
