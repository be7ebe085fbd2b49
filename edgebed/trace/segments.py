"""Raw segments: what a host reported during one attempt of a cell, as it came, in a file of the run folder.

Layout: ``u32 (little endian) length | MessagePack of a Record``, over and over. Nothing is ever changed in place. A
program that dies while it writes leaves a torn tail, which costs nothing: what was not written whole was not
acknowledged, and its host reports it again.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import msgspec

from edgebed.errors import BadInput, WorkFailed
from edgebed.trace.schema import Record

SUFFIX = ".records"
MAX_RECORD_BYTES = 64 << 20
"""Longest record that is believed; a longer one is damage."""

_LENGTH = struct.Struct("<I")
_ATTEMPT = re.compile(r"attempt-([1-9][0-9]*)\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")


def attempt_folder(run_folder: Path, cell_id: str, attempt: int) -> Path:
    """Where the segments of an attempt of a cell lie."""
    return run_folder / "cells" / _checked(cell_id) / f"attempt-{attempt}"


def segment_path(run_folder: Path, cell_id: str, attempt: int, host: str) -> Path:
    """The segment of a host in an attempt of a cell.

    Raises:
        BadInput: a name is not one that can be a file's.
    """
    return attempt_folder(run_folder, cell_id, attempt) / f"{_checked(host)}{SUFFIX}"


def outside_path(run_folder: Path, host: str) -> Path:
    """The segment of what a host reported outside any cell (serial 0), and of the orchestrator's own events."""
    return run_folder / "outside" / f"{_checked(host)}{SUFFIX}"


def latest_attempt(run_folder: Path, cell_id: str) -> int:
    """Number of the newest attempt of a cell that has a folder; 0 when there is none."""
    cell_folder = run_folder / "cells" / _checked(cell_id)
    if not cell_folder.is_dir():
        return 0
    numbers = (_ATTEMPT.match(entry.name) for entry in cell_folder.iterdir() if entry.is_dir())
    return max((int(number[1]) for number in numbers if number), default=0)


def _checked(name: str) -> str:
    if not _NAME.match(name):
        raise BadInput(f"{name!r} cannot name a file of a run; letters, digits, '.', '_' and '-' can")
    return name


class SegmentWriter:
    """Appends records to a segment. What `append` has returned from survives the death of this program.

    Opening a segment that ends in a torn record cuts the torn part off.

    Attributes:
        cut_bytes: how many bytes were cut off.

    Raises:
        WorkFailed: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._encode = msgspec.msgpack.Encoder().encode
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)
            self._size = _whole_bytes(path)
            self.cut_bytes = path.stat().st_size - self._size
            if self.cut_bytes:
                self._file.truncate(self._size)
        except OSError as error:
            raise WorkFailed(f"{path}: the segment cannot be opened: {error.strerror}") from error

    def append(self, records: Iterable[Record]) -> None:
        """Write records, all of them or none.

        Raises:
            WorkFailed: the disk is full or does not work.
        """
        packed = [self._encode(record) for record in records]
        data = b"".join(part for one in packed for part in (_LENGTH.pack(len(one)), one))
        try:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            self._file.truncate(self._size)
            raise WorkFailed(f"{self.path}: records could not be written: {error.strerror}") from error
        self._size += len(data)

    def sync(self) -> None:
        """Make what was appended survive a power cut."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _whole_bytes(path: Path) -> int:
    """Bytes up to the end of the last record that is there in full."""
    size = path.stat().st_size
    whole = 0
    with path.open("rb") as file:
        while len(prefix := file.read(_LENGTH.size)) == _LENGTH.size:
            (length,) = _LENGTH.unpack(prefix)
            end = whole + _LENGTH.size + length
            if not 0 < length <= MAX_RECORD_BYTES or end > size:
                break
            whole = end
            file.seek(whole)
    return whole


class WrongLength(ValueError):
    """What should be the length of a record is none."""


def next_record(file: BinaryIO) -> bytes:
    """The bytes of the next record, of which the file's position is behind the one before; empty when none is whole.

    Raises:
        WrongLength: the file is damaged.
    """
    prefix = file.read(_LENGTH.size)
    if len(prefix) < _LENGTH.size:
        return b""
    length = _LENGTH.unpack(prefix)[0]
    if not 0 < length <= MAX_RECORD_BYTES:
        raise WrongLength(f"a record of {length} bytes")
    body = file.read(length)
    return body if len(body) == length else b""


_CUT_OFF = "a record is cut off or its length is wrong"


class SegmentReader:
    """Iterates over the records of a segment, one at a time, as far as it can be read.

    Attributes:
        problem: after the iteration, a sentence about what could not be read; None when all could.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem: str | None = None

    def __iter__(self) -> Iterator[Record]:
        self.problem = None
        decode = msgspec.msgpack.Decoder(Record).decode
        try:
            with self.path.open("rb") as file:
                at = 0
                while body := next_record(file):
                    record = decode(body)
                    at += _LENGTH.size + len(body)
                    yield record
                if at < os.fstat(file.fileno()).st_size:
                    self.problem = self._unreadable(at, _CUT_OFF)
        except WrongLength:
            self.problem = self._unreadable(at, _CUT_OFF)
        except msgspec.MsgspecError as error:
            self.problem = self._unreadable(at, f"not a record: {error}")
        except OSError as error:
            self.problem = f"{self.path}: cannot be read: {error.strerror}"

    def _unreadable(self, at: int, why: str) -> str:
        return f"{self.path}: {self.path.stat().st_size - at} bytes from byte {at} on are unreadable ({why})"


def read_segment(path: Path) -> SegmentReader:
    """The records of a segment; a torn tail ends the iteration and is reported in ``problem``."""
    return SegmentReader(path)
