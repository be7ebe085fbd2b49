"""Parquet files joined as they are, rows after rows or columns beside columns: nothing is encoded anew.

A file is ``PAR1``, the row groups, a footer that says where in the file each piece of them is, the footer's length,
and ``PAR1``. So the pieces of several files can follow each other under one footer, with their places moved. Footers
are Thrift structs in the compact protocol; field numbers are those of Parquet's ``parquet.thrift``.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from edgebed.errors import BadInput

_MAGIC = b"PAR1"
_TRUE, _FALSE, _I8, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)

Struct = dict[int, tuple[int, Any]]
"""A field's type and value by its number; a list's value is its elements' type and the elements."""

_SCHEMA, _ROWS, _GROUPS, _ORDERS = 2, 3, 4, 7
_CHILDREN = 5
"""Of the element of the schema that all columns are under."""
_GROUP_COLUMNS, _GROUP_ROWS, _GROUP_PLACE, _GROUP_NUMBER = 1, 3, 5, 7
_GROUP_SIZES = (2, 6)
"""In bytes, before and after compression."""
_CHUNK_PLACES, _CHUNK_FACTS = (2, 4, 6), 3
_FACT_PLACES = (9, 10, 11, 14)
"""Of a column's pages, its index, its dictionary, its Bloom filter."""


@dataclass(frozen=True, slots=True)
class Footer:
    """What a file says of itself.

    Attributes:
        facts: its ``FileMetaData``.
        begins_at: where in the file it does, and the row groups end.
    """

    path: Path
    facts: Struct
    begins_at: int

    @property
    def rows(self) -> int:
        """In all row groups."""
        return int(self.facts[_ROWS][1])

    @property
    def groups(self) -> list[Struct]:
        """The row groups."""
        found: list[Struct] = self.facts[_GROUPS][1][1]
        return found


def read_footer(path: Path) -> Footer:
    """The footer of a file.

    Raises:
        BadInput: it is not Parquet.
    """
    with path.open("rb") as file:
        end = file.seek(0, 2)
        file.seek(max(0, end - 8))
        tail = file.read(8)
        if end < 12 or tail[4:] != _MAGIC:
            raise BadInput(f"{path} is not a Parquet file, or not all of it; seal the run again")
        begins_at = end - 8 - int.from_bytes(tail[:4], "little")
        file.seek(begins_at)
        return Footer(path, _Reader(file.read(end - 8 - begins_at)).struct(), begins_at)


def join_row_groups(footers: Sequence[Footer], target: Path) -> None:
    """Write a file with the row groups of others, in their order.

    Raises:
        BadInput: they have not all the same columns.
    """
    joined = dict(footers[0].facts)
    groups: list[Struct] = []
    with target.open("wb") as file:
        file.write(_MAGIC)
        for footer in footers:
            if footer.facts[_SCHEMA] != joined[_SCHEMA]:
                raise BadInput(f"{footer.path} has other columns than {footers[0].path}; seal the run again")
            moved_by = file.tell() - len(_MAGIC)
            groups += [_moved(group, moved_by, len(groups) + number) for number, group in enumerate(footer.groups)]
            _copy_groups(footer, file)
        joined[_ROWS] = (_I64, sum(footer.rows for footer in footers))
        joined[_GROUPS] = (_LIST, (_STRUCT, groups))
        _end(file, joined)


def join_columns(footers: Sequence[Footer], target: Path) -> None:
    """Write a file with the columns of others, in their order; the rows are the same ones.

    Raises:
        BadInput: they have not as many rows in every row group.
    """
    joined = dict(footers[0].facts)
    sizes = [[group[_GROUP_ROWS][1] for group in footer.groups] for footer in footers]
    for footer, size in zip(footers, sizes, strict=True):
        if size != sizes[0]:
            raise BadInput(f"{footer.path} has other row groups than {footers[0].path}; start again")
    parts = []
    with target.open("wb") as file:
        file.write(_MAGIC)
        for footer in footers:
            moved_by = file.tell() - len(_MAGIC)
            parts.append([_moved(group, moved_by, number) for number, group in enumerate(footer.groups)])
            _copy_groups(footer, file)
        joined[_SCHEMA] = (_LIST, (_STRUCT, _schema_of(footers)))
        joined[_GROUPS] = (_LIST, (_STRUCT, [_beside(groups) for groups in zip(*parts, strict=True)]))
        if _ORDERS in joined:
            joined[_ORDERS] = (_LIST, (_STRUCT, [each for footer in footers for each in footer.facts[_ORDERS][1][1]]))
        _end(file, joined)


def _schema_of(footers: Sequence[Footer]) -> list[Struct]:
    """Of files side by side: a root with the columns of all."""
    schemas: list[list[Struct]] = [footer.facts[_SCHEMA][1][1] for footer in footers]
    root = schemas[0][0] | {_CHILDREN: (_I32, sum(schema[0][_CHILDREN][1] for schema in schemas))}
    return [root, *(element for schema in schemas for element in schema[1:])]


def _beside(groups: Sequence[Struct]) -> Struct:
    """Row groups of the same rows as one."""
    kind, _ = groups[0][_GROUP_COLUMNS][1]
    found = dict(groups[0])
    found[_GROUP_COLUMNS] = (_LIST, (kind, [column for group in groups for column in group[_GROUP_COLUMNS][1][1]]))
    for size in _GROUP_SIZES:
        if size in found:
            found[size] = (_I64, sum(group[size][1] for group in groups))
    return found


def _copy_groups(footer: Footer, target: BinaryIO) -> None:
    with footer.path.open("rb") as source:
        source.seek(len(_MAGIC))
        _copy(source, target, footer.begins_at - len(_MAGIC))


def _end(file: BinaryIO, facts: Struct) -> None:
    written = _Writer().struct(facts)
    file.write(written + len(written).to_bytes(4, "little") + _MAGIC)


def _copy(source: BinaryIO, target: BinaryIO, size: int) -> None:
    while size > 0:
        piece = source.read(min(size, shutil.COPY_BUFSIZE))  # type: ignore[attr-defined]
        if not piece:
            raise BadInput(f"{source.name} ended too early; seal the run again")
        target.write(piece)
        size -= len(piece)


def _moved(group: Struct, by: int, number: int) -> Struct:
    """A row group so many bytes further on, and of this number in the file."""
    kind, columns = group[_GROUP_COLUMNS][1]
    moved = dict(group)
    moved[_GROUP_COLUMNS] = (_LIST, (kind, [_moved_chunk(column, by) for column in columns]))
    if _GROUP_NUMBER in moved:
        moved[_GROUP_NUMBER] = (_I16, number)
    return _placed(moved, (_GROUP_PLACE,), by)


def _moved_chunk(chunk: Struct, by: int) -> Struct:
    facts = _placed(chunk[_CHUNK_FACTS][1], _FACT_PLACES, by)
    return _placed(chunk | {_CHUNK_FACTS: (_STRUCT, facts)}, _CHUNK_PLACES, by)


def _placed(given: Struct, places: Sequence[int], by: int) -> Struct:
    # A place of 0 is none: some writers leave these out, and some write that.
    moved = {place: (_I64, given[place][1] + by) for place in places if place in given and given[place][1] > 0}
    return given | moved


class _Reader:
    """Reads Thrift's compact protocol."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _whole(self) -> int:
        found = shift = 0
        while True:
            byte = self._byte()
            found |= (byte & 0x7F) << shift
            if byte < 0x80:
                return found
            shift += 7

    def _signed(self) -> int:
        found = self._whole()
        return (found >> 1) ^ -(found & 1)

    def _bytes(self, size: int) -> bytes:
        self._at += size
        return self._data[self._at - size : self._at]

    def struct(self) -> Struct:
        found: Struct = {}
        number = 0
        while head := self._byte():
            step, kind = head >> 4, head & 0x0F
            number = number + step if step else self._signed()
            found[number] = (kind, kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind))
        return found

    def _value(self, kind: int) -> Any:
        if kind == _STRUCT:
            return self.struct()
        if kind in (_I16, _I32, _I64):
            return self._signed()
        if kind == _BINARY:
            return self._bytes(self._whole())
        if kind in (_LIST, _SET):
            head = self._byte()
            size, element = head >> 4, head & 0x0F
            size = self._whole() if size == 15 else size
            return element, [self._value(element) for _ in range(size)]
        if kind == _DOUBLE:
            return self._bytes(8)
        if kind in (_TRUE, _FALSE, _I8):  # in a list, a byte each
            return self._byte()
        raise BadInput(f"a Parquet footer has a value of the kind {kind}, which edgebed does not read")


class _Writer:
    """Writes Thrift's compact protocol."""

    def struct(self, fields: Struct) -> bytes:
        parts, before = [], 0
        for number, (kind, value) in sorted(fields.items()):
            step = number - before
            kind = (_TRUE if value else _FALSE) if kind in (_TRUE, _FALSE) else kind
            parts.append(bytes([step << 4 | kind]) if 0 < step < 16 else bytes([kind]) + _signed(number))
            if kind not in (_TRUE, _FALSE):
                parts.append(self._value(kind, value))
            before = number
        return b"".join((*parts, b"\0"))

    def _value(self, kind: int, value: Any) -> bytes:
        if kind == _STRUCT:
            return self.struct(value)
        if kind in (_I16, _I32, _I64):
            return _signed(value)
        if kind == _BINARY:
            return _whole(len(value)) + bytes(value)
        if kind in (_LIST, _SET):
            element, values = value
            size = len(values)
            head = bytes([size << 4 | element]) if size < 15 else bytes([0xF0 | element]) + _whole(size)
            return head + b"".join(self._value(element, each) for each in values)
        return bytes(value) if kind == _DOUBLE else struct.pack("B", value)


def _whole(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _signed(value: int) -> bytes:
    return _whole(value << 1 if value >= 0 else (-value << 1) - 1)
