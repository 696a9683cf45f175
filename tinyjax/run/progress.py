"""Progress and remaining time: a bar in a terminal, elsewhere a line per minute."""

import sys
import time
from typing import Any

from tqdm import tqdm

LINE_INTERVAL = 60  # seconds between lines, and before the first one
LINE = "{desc} {n_fmt} of {total_fmt} {unit}s, {elapsed} elapsed, {remaining} left{postfix}"


def progress_bar(*args: Any, **kwargs: Any) -> tqdm:
    """Return a tqdm bar, which writes to standard error."""
    return tqdm(*args, **kwargs) if sys.stderr.isatty() else _LineBar(*args, **kwargs)


def add_finished(bar: tqdm, count: int) -> None:
    """Show `count` more units as finished that took no time, such as those of a restored run.

    As progress, they would shorten the remaining time.
    """
    if not bar.disable:
        bar.initial, bar.n, bar.last_print_n = (
            value + count for value in (bar.initial, bar.n, bar.last_print_n)
        )


def restart_clock(bar: tqdm) -> None:
    """Leave the time since the last units, such as that of compiling, out of the speed."""
    if not bar.disable:
        bar.last_print_t = time.time()


def current_rate(bar: tqdm) -> float:
    """Units per second: recently, or since the start before the bar was first drawn."""
    if bar.disable:
        return 0.0
    state = bar.format_dict
    return state["rate"] or (bar.n - bar.initial) / max(state["elapsed"], 1e-6)


class _LineBar(tqdm):
    """Progress as lines, for output to a file, in which a redrawn bar would be one endless line."""

    def __init__(self, *args: Any, **kwargs: Any):
        intervals = dict.fromkeys(("delay", "mininterval", "maxinterval"), LINE_INTERVAL)
        super().__init__(*args, **kwargs, **intervals, file=_Lines(), bar_format=LINE)

    def set_description_str(self, desc: str | None = None, refresh: bool | None = True) -> None:
        super().set_description_str(desc, refresh=False)

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        super().set_postfix_str(s, refresh=False)


class _Lines:
    """A file for tqdm that prints each update of the bar as a line."""

    def write(self, text: str) -> None:
        if line := text.strip():
            print(line, file=sys.stderr, flush=True)

    def flush(self) -> None:
        pass
