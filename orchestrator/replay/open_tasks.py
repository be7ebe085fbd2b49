"""Tasks without an end, by column, and what queues do with many of them at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.testbed.ingredients import FloatArray, IndexArray
from edgebed.types import BoolArray

_ROOM = 1024
_SMALL = 1 << 16


class OpenTasks:
    """Tasks in the order in which they came, a column an array, all of one length.

    There is room for more than there are: tasks come and go at every tick, and columns are not made anew for that.

    Args:
        codes: names of whole numbers. numbers: of others. marks: of what is true or false.
    """

    def __init__(self, codes: tuple[str, ...], numbers: tuple[str, ...], marks: tuple[str, ...]) -> None:
        self._names = (codes, numbers, marks)
        self._tables: list[NDArray[Any]] = [
            np.zeros((len(names), _ROOM), kind)
            for names, kind in zip(self._names, (np.int64, np.float64, np.bool_), strict=True)
        ]
        self._count = 0
        self._look()

    def _look(self) -> None:
        """Show as many as there are."""
        shown = [table[:, : self._count] for table in self._tables]
        codes, numbers, marks = (dict(zip(*each, strict=True)) for each in zip(self._names, shown, strict=True))
        self._codes: dict[str, IndexArray] = codes
        self._numbers: dict[str, FloatArray] = numbers
        self._marks: dict[str, BoolArray] = marks

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, name: str) -> FloatArray:
        return self._numbers[name]

    def code(self, name: str) -> IndexArray:
        """A column of whole numbers."""
        return self._codes[name]

    def mark(self, name: str) -> BoolArray:
        """A column of what is true or false."""
        return self._marks[name]

    def add(self, rows: IndexArray, known: Mapping[str, NDArray[Any]], otherwise_s: float) -> None:
        """Take some of the given tasks.

        Args:
            rows: which.
            known: by column; codes that it lacks are 0, numbers ``otherwise_s``, marks false.
            otherwise_s: an instant.
        """
        if not len(rows):
            return
        begin, end = self._count, self._count + len(rows)
        if end > self._tables[0].shape[1]:
            self._tables = [np.pad(table, ((0, 0), (0, end))) for table in self._tables]
        self._count = end
        for names, table, otherwise in zip(self._names, self._tables, (0, otherwise_s, False), strict=True):
            for name, column in zip(names, table, strict=True):
                column[begin:end] = known[name][rows] if name in known else otherwise
        self._look()

    def keep(self, kept: BoolArray) -> None:
        """Let go of the others."""
        rows = np.flatnonzero(kept)
        for table in self._tables:
            table[:, : len(rows)] = table.take(rows, axis=1)
        self._count = len(rows)
        self._look()


def sorted_by(key: IndexArray, order_s: FloatArray) -> IndexArray:
    """Positions by key, and of one key by instant; of two equal ones the first in the arrays comes first."""
    order = _sorted(key)
    keys, instants_s = key[order], order_s[order]
    if not ((instants_s[1:] < instants_s[:-1]) & (keys[1:] == keys[:-1])).any():
        return order  # of one key they mostly come in that order
    order = order_s.argsort(kind="stable")
    return order[_sorted(key[order])]


def _sorted(key: IndexArray) -> IndexArray:
    """Positions by key alone; of two equal ones the first comes first."""
    is_small = len(key) and int(key.max()) < _SMALL
    return (key.astype(np.uint16) if is_small else key).argsort(kind="stable")  # small ones by digits: no comparisons


def turns_of(key: IndexArray, order_s: FloatArray) -> tuple[IndexArray, list[slice]]:
    """The first of each key, then the second of each, and so on.

    Args:
        key: ``[n]``, of the queue; n > 0.
        order_s: ``[n]``, who comes first in it; of two equal ones the first in the array.

    Returns:
        Positions, and which of them make up each turn, no two of one key.
    """
    order = sorted_by(key, order_s)
    keys = key[order]
    bounds = np.concatenate(([0], np.flatnonzero(keys[1:] != keys[:-1]) + 1, [len(keys)]))
    rank = np.arange(len(keys)) - np.repeat(bounds[:-1], bounds[1:] - bounds[:-1])
    ends = np.cumsum(np.bincount(rank)).tolist()
    turns = [slice(begin, end) for begin, end in zip([0, *ends], ends, strict=False)]
    return order[_sorted(rank)], turns


def smooth(means: FloatArray, key: IndexArray, order_s: FloatArray, values: FloatArray, weight: float) -> None:
    """Move each key's running mean towards its values, in their order, all at once: each counts by what is left."""
    if not len(key):
        return
    order = sorted_by(key, order_s)
    keys = key[order]
    counts = np.bincount(keys, minlength=len(means))
    last = np.cumsum(counts)[keys] - 1
    shares = (1.0 - weight) ** np.arange(int(counts.max()) + 1)
    left = weight * shares[last - np.arange(len(keys))]
    means *= shares[counts]
    means += np.bincount(keys, left * values[order], len(means))


def sum_by(key: IndexArray, values: NDArray[Any], where: BoolArray, size: int) -> FloatArray:
    """Sums of some of the values by key, ``[size]``."""
    # Where not, a value may be infinite, and infinity times nothing is no number.
    rows = np.flatnonzero(where)
    return np.bincount(key[rows], values[rows], size).astype(np.float64, copy=False)
