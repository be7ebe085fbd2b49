"""The clips of a cell: rendered before it starts, kept in one file, read when they are needed.

Only the index is in memory, so that a long cell costs a small board no memory. What was rendered for one cell is found
again by the next one with the same seed, which is every policy's.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgebed.errors import WorkFailed
from workloads.arrivals import PlannedTask, content_rng
from workloads.base import Workload, clip_bytes

SPOOL_NAME = "content.spool"
SPOOL_LIMIT_BYTES = 1 << 30
"""A spool that has grown beyond this is begun anew before the next cell."""


@dataclass(frozen=True, slots=True)
class Clip:
    """Where a clip's frames are in the spool, one after another.

    Attributes:
        offset: of its first frame, in bytes.
        lengths: of its frames, in bytes.
        labels: what each frame shows; empty when the truth is unknown. They never leave the device.
    """

    content_id: str
    offset: int
    lengths: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def frames(self) -> int:
        """How many frames it has."""
        return len(self.lengths)

    @property
    def payload_bytes(self) -> int:
        """Bytes on the wire when all frames are sent."""
        return clip_bytes(self.lengths)

    def part_bytes(self, first: int, frames: int) -> int:
        """Bytes on the wire when these frames are sent."""
        return clip_bytes(self.lengths[first : first + frames])


class Content:
    """The clips of one device. One thread renders; any may read what is rendered.

    Args:
        folder: where the spool lies; and, one deeper, the files that the workload needs.

    Raises:
        WorkFailed: the spool cannot be made.
    """

    def __init__(self, folder: Path, limit_bytes: int = SPOOL_LIMIT_BYTES) -> None:
        self.folder = folder
        self._path = folder / SPOOL_NAME
        self._limit_bytes = limit_bytes
        self._clips: dict[tuple[str, str, int], Clip] = {}
        self._descriptor = -1
        self._begin()

    def _begin(self) -> None:
        self._clips.clear()
        self._end = 0
        # A new file each time: a predecessor that is only stopped may still read from the old one.
        self._path.unlink(missing_ok=True)
        old = self._descriptor
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise WorkFailed(f"{self._path}: the clips' file cannot be made: {error.strerror}") from error
        if old >= 0:
            os.close(old)

    def prepare(
        self,
        workload: Workload,
        source: str,
        seed: int,
        device: str,
        planned: Sequence[PlannedTask],
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> tuple[dict[int, Clip], int]:
        """Render what is missing.

        Args:
            workload: renders.
            seed: the cell's.
            device: whose tasks they are.
            planned: its tasks.
            source: names workload and options; the same source, content id and size always mean the same bytes.
            is_cancelled: asked before each clip; True ends it early.

        Returns:
            The clip of each task by its index, and how many had to be rendered. Incomplete when cancelled.

        Raises:
            WorkFailed: the disk is full.
        """
        if self._end > self._limit_bytes:
            self._begin()
        clips: dict[int, Clip] = {}
        rendered = 0
        for task in planned:
            if is_cancelled():
                break
            key = (source, task.content_id, task.frames)
            if key not in self._clips:
                made = workload.generate(content_rng(seed, device, task.index), task.content_id, task.frames)
                self._clips[key] = self._write(task.content_id, made.frames, made.labels)
                rendered += 1
            clips[task.index] = self._clips[key]
        return clips, rendered

    def _write(self, content_id: str, frames: Sequence[bytes], labels: tuple[int, ...]) -> Clip:
        data = b"".join(frames)
        offset = self._end
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._descriptor, memoryview(data)[written:], offset + written)
        except OSError as error:
            raise WorkFailed(f"{self._path}: a clip cannot be written: {error.strerror}") from error
        self._end += len(data)
        return Clip(content_id, offset, tuple(len(frame) for frame in frames), labels)

    def read(self, clip: Clip, first: int, frames: int) -> bytes:
        """The payload of some frames of a clip, packed as `workloads.base.pack_clip` would.

        Raises:
            WorkFailed: the file has been cut off.
        """
        lengths = clip.lengths[first : first + frames]
        size = sum(lengths)
        data = os.pread(self._descriptor, size, clip.offset + sum(clip.lengths[:first]))
        if len(data) != size:
            raise WorkFailed(f"{self._path}: clip {clip.content_id} is cut off; was the file changed by others?")
        return struct.pack(f"<I{frames}I", frames, *lengths) + data

    def close(self) -> None:
        """Close and delete the file."""
        os.close(self._descriptor)
        self._path.unlink(missing_ok=True)
