"""Text for the log and the terminal: tables and ranges of values."""

from collections.abc import Mapping, Sequence
from typing import Any

GAP = "  "  # between columns


def text_table(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str] | None = None,
    float_format: str = ".3f",
) -> str:
    """Rows as text, one per line, under a line of column titles.

    Numbers, and text that begins with a digit, are aligned right; a column with any other text is
    aligned left. A value that is missing or None is left blank.

    Args:
        rows: column -> value.
        columns: the columns, from left to right; by default those of the first row.
        float_format: format specification of floats.
    """
    if columns is None:
        columns = list(rows[0]) if rows else []
    cells = [[_cell(row.get(name), float_format) for name in columns] for row in rows]
    padded = []
    for title, *texts in zip(columns, *cells, strict=True):
        width = max(map(len, (title, *texts)))
        numeric = all(text.lstrip("-")[:1].isdigit() or text in ("", "nan") for text in texts)
        padded.append([f"{text:{'>' if numeric else '<'}{width}}" for text in (title, *texts)])
    return "\n".join(GAP.join(line).rstrip() for line in zip(*padded, strict=True))


def value_range(values: Sequence[float], float_format: str = ".3f") -> str:
    """The smallest and largest value as "0.123 to 0.456", or "0.123" if both have the same text."""
    low, high = (f"{value:{float_format}}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _cell(value: Any, float_format: str) -> str:
    if value is None:
        return ""
    is_float = hasattr(value, "__float__") and not hasattr(value, "__index__")
    return f"{float(value):{float_format}}" if is_float else str(value)
