"""The section of a report on exported files: the records that `tinyjax.export` wrote to the folders
of the reported runs, or to `exports/` in them.
"""

import json
from collections.abc import Mapping, Sequence
from html import escape
from math import nan
from pathlib import Path
from typing import Any, NamedTuple

from tinyjax.reporting.html_table import Column, has_value, rows_html
from tinyjax.reporting.tables import Tables

RECORD_KEYS = {"file", "format", "bytes", "sha256", "parity"}  # no other JSON file has all of them


class Export(NamedTuple):
    """An exported file."""

    run: str  # subfolder of a study, else ""
    record: Mapping[str, Any]  # as `tinyjax.export` wrote it


def read(tables: Tables) -> list[Export]:
    """The exported files of all runs, in order of the names of their records."""
    return [
        Export(run, record)
        for run in tables.configs
        for folder in (tables.folder / run, tables.folder / run / "exports")
        for file in sorted(folder.glob("*.json"))
        if (record := _read_record(file))
    ]


def to_html(exports: Sequence[Export]) -> str:
    """The section as HTML. Text from records is escaped."""
    columns = export_columns(exports)
    titles = "".join(
        f'<th scope="col" class="{c.type}" title="{escape(c.help)}">{escape(c.title)}</th>'
        for c in columns
    )
    return (
        f'<div class="scroll"><table class="exports">\n<thead><tr>{titles}</tr></thead>\n'
        f"<tbody>\n{rows_html(columns)}</tbody>\n</table></div>\n"
        '<p class="note">Difference: greatest difference between an output of the file and of the '
        "network, divided by the output's greatest value. U55: estimates of Arm's compiler Vela "
        "for an Ethos-U55-128. Micro: all memory that TensorFlow Lite Micro allocates.</p>"
    )


def export_columns(exports: Sequence[Export]) -> list[Column]:
    """Columns of the table, without empty ones."""
    records = [export.record for export in exports]

    def numbers(title: str, help: str, *path: str, scale: float = 1, format: str = ",.0f"):
        cells = [_number(record, *path) * scale for record in records]
        return Column(title, "number", help, cells, format)

    ethos = ("device", "ethos_u55_128")
    columns = [
        Column("file", "text", "", [str(r["file"]) for r in records]),
        Column("run", "choice", "subfolder of the study", [export.run for export in exports]),
        Column("format", "choice", "", [_format(r) for r in records]),
        numbers("KB", "size of the file", "bytes", scale=1e-3, format=",.1f"),
        Column("difference", "number", "see below", [_difference(r) for r in records], ".1e"),
        Column("metric", "text", "score and its suite", [_scored(r) for r in records]),
        numbers("run score", "score of the run", "score", "run", format=".4f"),
        numbers("file score", "score of the file", "score", "file", format=".4f"),
        numbers("arena KB", "memory of activations", "device", "arena_bytes", scale=1e-3),
        numbers("Micro KB", "see below", "device", "tflite_micro", "arena_bytes", scale=1e-3),
        numbers("weights KB", "", "device", "weight_bytes", scale=1e-3),
        numbers("multiply-adds", "per image", "device", "multiply_adds"),
        numbers("U55 cycles", "per image", *ethos, "cycles"),
        numbers("U55 ms", "per image", *ethos, "milliseconds", format=".2f"),
        numbers("U55 SRAM KB", "", *ethos, "sram_bytes", scale=1e-3),
        numbers("U55 flash KB", "", *ethos, "flash_bytes", scale=1e-3),
    ]
    return [column for column in columns if any(has_value(cell) for cell in column.cells)]


def _read_record(file: Path) -> dict[str, Any] | None:
    """The record in a JSON file; None if it has something else."""
    try:
        record = json.loads(file.read_bytes())
    except ValueError:
        return None
    return record if isinstance(record, dict) and record.keys() >= RECORD_KEYS else None


def _number(record: Mapping[str, Any], *path: str) -> float:
    """A number in nested dicts; NaN if it is missing."""
    value: Any = record
    for key in path:
        value = (value or {}).get(key)
    return nan if value is None else float(value)


def _format(record: Mapping[str, Any]) -> str:
    return " ".join([record["format"], record.get("metadata", {}).get("quantization", "")]).strip()


def _scored(record: Mapping[str, Any]) -> str:
    score = record.get("score")
    return f"{score['metric']}, {score['suite']}" if score else ""


def _difference(record: Mapping[str, Any]) -> float:
    return max((row["relative"] for row in record["parity"]["outputs"].values()), default=nan)
