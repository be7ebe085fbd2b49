"""Files that are being written: at each look, what came since the one before."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from edgebed.trace.schema import Record
from edgebed.trace.segments import MAX_RECORD_BYTES

_LENGTH = struct.Struct("<I")


class SegmentTail:
    """A raw segment (see `edgebed.trace.segments`) that somebody may be writing.

    Attributes:
        problem: a sentence about what cannot be read; None as long as all can.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem: str | None = None
        self._at = 0
        self._decode = msgspec.msgpack.Decoder(Record).decode

    def fresh(self) -> Iterator[Record]:
        """Records that have come whole since the last look; one that is being written comes with the next."""
        if self.problem is not None:
            return
        try:
            with self.path.open("rb") as file:
                file.seek(self._at)
                while record := self._next(file):
                    yield record
        except (OSError, msgspec.MsgspecError) as error:
            self.problem = f"{self.path}: cannot be read from byte {self._at} on: {error}"

    def _next(self, file: BinaryIO) -> Record | None:
        prefix = file.read(_LENGTH.size)
        if len(prefix) < _LENGTH.size:
            return None
        length = _LENGTH.unpack(prefix)[0]
        if not 0 < length <= MAX_RECORD_BYTES:
            self.problem = f"{self.path}: is damaged at byte {self._at}: a record of {length} bytes"
            return None
        body = file.read(length)
        if len(body) < length:
            return None
        record = self._decode(body)
        self._at += _LENGTH.size + length
        return record
