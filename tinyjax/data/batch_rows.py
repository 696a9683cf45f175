"""A grain data set of selected batch rows. Importing grain takes a second."""

from collections.abc import Sequence
from typing import Any

import grain


class BatchRows(grain.MapDataset):
    """The rows `rows` of each batch of consecutive elements of `parent`, in this order."""

    def __init__(self, parent: grain.MapDataset, batch: int, rows: Sequence[int]):
        super().__init__(parent)
        self._batch, self._rows = batch, tuple(rows)

    def __len__(self) -> int:
        return len(self._parent) // self._batch * len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        step, row = divmod(index, len(self._rows))
        return self._parent[step * self._batch + self._rows[row]]
