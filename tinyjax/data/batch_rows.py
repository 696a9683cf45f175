"""A grain data set of selected batch rows, in its own module: importing grain takes a second."""

from collections.abc import Sequence
from typing import Any

import grain


class BatchRows(grain.MapDataset):
    """The given rows of each batch of consecutive elements of `parent`, in the given order."""

    def __init__(self, parent: grain.MapDataset, batch_size: int, rows: Sequence[int]):
        super().__init__(parent)
        self._batch_size, self._rows = batch_size, tuple(rows)

    def __len__(self) -> int:
        return len(self._parent) // self._batch_size * len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        step, row = divmod(index, len(self._rows))
        return self._parent[step * self._batch_size + self._rows[row]]
