"""Of a grain data set some of its elements. A file of its own: grain takes a second to import."""

from collections.abc import Sequence
from typing import Any

import grain


class Rows(grain.MapDataset):
    """Of consecutive batches of another set these rows, in this order."""

    def __init__(self, parent: grain.MapDataset, batch: int, rows: Sequence[int]):
        super().__init__(parent)
        self._batch, self._rows = batch, tuple(rows)

    def __len__(self) -> int:
        return len(self._parent) // self._batch * len(self._rows)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return self.slice(at)
        step, row = divmod(at, len(self._rows))
        return self._parent[step * self._batch + self._rows[row]]
