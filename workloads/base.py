"""What is computed: the `Workload` contract.

A task of a workload is a *clip*: some frames, each with the label that it ought to be recognised as. Its payload is
one byte string, so that it crosses the wire in a frame of its own and is cut into chunks without copies.

Payload layout (little endian)::

    u32 frame count | u32 length of each frame | the frames, one after another
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edgebed.errors import BadInput, ProtocolError

MAX_FRAMES = 1024
MAX_FRAME_BYTES = 16 * 1024 * 1024

Payload = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Task:
    """One unit of recognition work.

    Attributes:
        content_id: names the images; the same name always means the same bytes.
        frames: encoded images, in order.
        labels: what each frame shows; empty when the truth is unknown.
    """

    content_id: str
    frames: tuple[bytes, ...]
    labels: tuple[int, ...]

    @property
    def payload_bytes(self) -> int:
        """Bytes on the wire when all frames are sent."""
        return clip_bytes([len(frame) for frame in self.frames])


@dataclass(frozen=True, slots=True)
class Result:
    """What executing a payload gave: one class index a frame, in order."""

    predicted: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Demand:
    """What one frame asks for, on average.

    Attributes:
        cycles_per_frame: CPU cycles to decode and recognise one frame (an estimate, with its source on the card).
        bytes_per_frame: encoded size of one frame.
    """

    cycles_per_frame: float
    bytes_per_frame: float


class Workload(Protocol):
    """What devices and edge servers execute.

    An instance belongs to one thread at a time. ``generate`` and ``execute`` are independent: a server that only
    executes never loads what ``generate`` needs, and the other way round; both load lazily.
    """

    name: str

    @property
    def demand(self) -> Demand:
        """What a frame costs; readable without loading anything."""
        ...

    def generate(self, rng: np.random.Generator, content_id: str, frames: int) -> Task:
        """Make the task that ``content_id`` names: a pure function of the generator's state and ``frames``."""
        ...

    def load(self) -> None:
        """Load and warm up what ``execute`` needs, so that the first measured task is not slower than the rest."""
        ...

    def execute(self, payload: Payload) -> Result:
        """Recognise every frame of a packed clip.

        Raises:
            ProtocolError: the payload is not a clip of images that can be decoded.
        """
        ...


def clip_bytes(frame_lengths: Sequence[int]) -> int:
    """Size of a packed clip whose frames have these lengths, in bytes."""
    return 4 + 4 * len(frame_lengths) + sum(frame_lengths)


def pack_clip(frames: Sequence[bytes]) -> bytes:
    """Pack frames into one payload.

    Raises:
        BadInput: no frames, too many, or one of them too long.
    """
    if not 1 <= len(frames) <= MAX_FRAMES:
        raise BadInput(f"a clip has {len(frames)} frames; 1 to {MAX_FRAMES} are allowed")
    longest = max(len(frame) for frame in frames)
    if longest > MAX_FRAME_BYTES:
        raise BadInput(f"a frame has {longest} bytes; at most {MAX_FRAME_BYTES} are allowed")
    header = struct.pack(f"<I{len(frames)}I", len(frames), *(len(frame) for frame in frames))
    return b"".join((header, *frames))


_COUNT = struct.Struct("<I")


def unpack_clip(payload: Payload) -> list[memoryview]:
    """The frames of a packed clip, as views into it.

    Raises:
        ProtocolError: the counts and lengths do not describe these bytes exactly.
    """
    view = memoryview(payload)
    if len(view) < 4:
        raise ProtocolError("bad_payload", f"a clip of {len(view)} bytes has no frame count")
    (count,) = _COUNT.unpack_from(view)
    if not 1 <= count <= MAX_FRAMES:
        raise ProtocolError("bad_payload", f"a clip claims {count} frames; 1 to {MAX_FRAMES} are allowed")
    start = 4 + 4 * count
    if len(view) < start:
        raise ProtocolError("bad_payload", f"a clip of {count} frames is cut off in its header")
    lengths = struct.unpack_from(f"<{count}I", view, 4)
    if max(lengths) > MAX_FRAME_BYTES or start + sum(lengths) != len(view):
        raise ProtocolError(
            "bad_payload", f"a clip's header describes {start + sum(lengths)} bytes but {len(view)} came"
        )
    frames = []
    for length in lengths:
        frames.append(view[start : start + length])
        start += length
    return frames
