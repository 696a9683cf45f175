"""How far it is and how long it still takes: a bar in a terminal, elsewhere a line a minute."""

import sys
from typing import Any

from tqdm import tqdm

EVERY = 60  # seconds between lines; what is done before says nothing
LINE = "{desc} {n_fmt} of {total_fmt} {unit}s, {elapsed} gone, {remaining} left{postfix}"


def progress_bar(*args: Any, **more: Any) -> tqdm:
    """tqdm's, on standard error."""
    return tqdm(*args, **more) if sys.stderr.isatty() else _Log(*args, **more)


class _Log(tqdm):
    """In a log a bar that is drawn over itself would be one line without an end."""

    def __init__(self, *args: Any, **more: Any):
        pace = {"delay": EVERY, "mininterval": EVERY, "maxinterval": EVERY}
        super().__init__(*args, **more, **pace, file=_Lines(), bar_format=LINE)

    def set_description_str(self, desc: str | None = None, refresh: bool | None = True) -> None:
        super().set_description_str(desc, refresh=False)

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        super().set_postfix_str(s, refresh=False)


class _Lines:
    """A file for tqdm that makes a line of what it would draw."""

    def write(self, text: str) -> None:
        if line := text.strip():
            print(line, file=sys.stderr, flush=True)

    def flush(self) -> None:
        pass
