"""Rows that come in one order and are needed in another: sorted into parts, in files, and taken a part at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.testbed.ingredients import IndexArray

_Block = NDArray[np.int64]
"""``[columns, rows]``, the bits of rows that came together: every column is contiguous, in a file as in memory."""


class Spill:
    """Rows of numbers by part.

    Args:
        fields: name and numpy type of each column: ``i8``, ``f8``, or ``?``.
        folder: for a file a part, emptied of earlier ones; None: they stay in memory.
    """

    def __init__(self, fields: Mapping[str, str], folder: Path | None) -> None:
        self._types = {name: np.dtype(kind) for name, kind in fields.items()}
        self._folder = folder
        self._held: dict[int, list[_Block]] = {}
        self._sizes: dict[int, list[int]] = {}
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
        rows = np.empty((len(self._types), len(part)), np.int64)
        for (name, kind), row in zip(self._types.items(), rows, strict=True):
            values = columns[name].astype(np.int64 if kind == np.bool_ else kind, copy=False)
            np.take(values.view(np.int64), order, out=row, mode="clip")
        numbers, begins = np.unique(part[order], return_index=True)
        for number, block in zip(numbers.tolist(), np.split(rows, begins[1:], axis=1), strict=False):
            self._put(number, np.ascontiguousarray(block))

    def _put(self, number: int, block: _Block) -> None:
        self._sizes.setdefault(number, []).append(block.shape[1])
        if self._folder is None:
            self._held.setdefault(number, []).append(block)
            return
        with (self._folder / str(number)).open("ab") as file:
            file.write(block.data)

    def part(self, number: int) -> dict[str, NDArray[Any]]:
        """The columns of a part, its rows in the order in which they came; they stay where they are."""
        sizes = self._sizes.get(number, [])
        rows = np.empty((len(self._types), sum(sizes)), np.int64)
        end = 0
        for block in self._blocks(number, sizes):
            begin, end = end, end + block.shape[1]
            rows[:, begin:end] = block
        return {
            name: row != 0 if kind == np.bool_ else row.view(kind)
            for (name, kind), row in zip(self._types.items(), rows, strict=True)
        }

    def _blocks(self, number: int, sizes: list[int]) -> Iterator[_Block]:
        if self._folder is None:
            yield from self._held.get(number, ())
        elif sizes:
            with (self._folder / str(number)).open("rb") as file:
                for size in sizes:
                    yield np.fromfile(file, np.int64, len(self._types) * size).reshape(-1, size)
