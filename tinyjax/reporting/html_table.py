"""Tables of the report as HTML."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple


class Column(NamedTuple):
    """A column of a table."""

    title: str
    type: str  # "number", "text", or "choice": text with few values, which can be selected
    help: str
    cells: Sequence[Any]
    format: str = ".3f"  # of numbers


def rows_html(columns: Sequence[Column]) -> str:
    """The rows of a table's body."""
    cells = zip(*map(_cells_html, columns), strict=True)
    return "".join(f"<tr>{''.join(row)}</tr>\n" for row in cells)


def has_value(cell: Any) -> bool:
    return math.isfinite(cell) if isinstance(cell, int | float) else bool(cell)


def _cells_html(column: Column) -> list[str]:
    if column.type != "number":
        return [f"<td>{escape(str(cell))}</td>" for cell in column.cells]
    return [
        f'<td class="number" data-v="{cell!r}">{number_text(cell, column.format)}</td>'
        if has_value(cell)
        else '<td class="number"></td>'
        for cell in column.cells
    ]


def number_text(number: float, number_format: str) -> str:
    """A number as text, without "-0.000"."""
    text = f"{number:{number_format}}"
    return text.removeprefix("-") if set(text) <= {*"-0."} else text
