"""Rows that come in one order and are needed in another: sorted into parts, in files, and taken a part at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.testbed.ingredients import IndexArray


class Spill:
    """Rows of numbers by part.

    Args:
        fields: name and numpy type of each column.
        folder: for a file a part, emptied of earlier ones; None: they stay in memory.
    """

    def __init__(self, fields: Mapping[str, str], folder: Path | None) -> None:
        self._type = np.dtype(list(fields.items()))
        self._folder = folder
        self._held: dict[int, list[NDArray[Any]]] = {}
        if folder is not None:
            folder.mkdir(exist_ok=True)
            for file in folder.iterdir():
                file.unlink()

    def add(self, columns: Mapping[str, NDArray[Any]], part: IndexArray) -> None:
        """Take rows.

        Args:
            columns: ``[n]`` each.
            part: ``[n]``, which part each row belongs to.
        """
        order = np.argsort(part, kind="stable")
        rows = np.empty(len(part), self._type)
        for name in self._type.names or ():
            rows[name] = columns[name][order]
        numbers, begins = np.unique(part[order], return_index=True)
        for number, some in zip(numbers.tolist(), np.split(rows, begins[1:]), strict=False):
            if self._folder is None:
                self._held.setdefault(number, []).append(some)
                continue
            with (self._folder / str(number)).open("ab") as file:
                file.write(some.data)

    def part(self, number: int) -> NDArray[Any]:
        """The rows of a part, in the order in which they came; they stay where they are."""
        if self._folder is None:
            return np.concatenate([np.empty(0, self._type), *self._held.get(number, ())])
        file = self._folder / str(number)
        return np.fromfile(file, self._type) if file.exists() else np.empty(0, self._type)
