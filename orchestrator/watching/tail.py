"""Files that are being written: at each look, what came since the one before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from edgebed.trace.schema import Record
from edgebed.trace.segments import WrongLength, next_record


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
                while body := next_record(file):
                    record = self._decode(body)
                    self._at = file.tell()
                    yield record
        except WrongLength as error:
            self.problem = f"{self.path}: is damaged at byte {self._at}: {error}"
        except (OSError, msgspec.MsgspecError) as error:
            self.problem = f"{self.path}: cannot be read from byte {self._at} on: {error}"
