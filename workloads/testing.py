"""The checker of the `Workload` contract, and an instant workload for tests and benchmarks.

One file of tests runs `check_workload` on every registered workload, this one's fake included.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgebed.errors import BadInput, ProtocolError
from workloads.base import (
    MAX_FRAME_BYTES,
    MAX_FRAMES,
    Demand,
    Payload,
    Result,
    Task,
    Workload,
    clip_bytes,
    pack_clip,
    unpack_clip,
)

__all__ = ["WORKLOAD", "InstantWorkload", "check_workload", "hostile_payloads"]


class InstantWorkload:
    """A fake that recognises in no time: a frame's first byte is its answer, the rest is padding.

    For tests, and for benchmarks of everything but the recognition.

    Args:
        frame_bytes: size of a frame.
        cycles_per_frame: what `demand` claims; nothing is really computed.

    Raises:
        BadInput: an option is out of range.
    """

    name = "instant"

    def __init__(self, frame_bytes: int = 1024, cycles_per_frame: float = 1000.0) -> None:
        if not 1 <= frame_bytes <= MAX_FRAME_BYTES:
            raise BadInput(f"workload instant: frame_bytes is {frame_bytes}; 1 to {MAX_FRAME_BYTES} are allowed")
        if not 0 < cycles_per_frame < float("inf"):
            raise BadInput(f"workload instant: cycles_per_frame is {cycles_per_frame}; it must be positive")
        self._frame_bytes = frame_bytes
        self._demand = Demand(cycles_per_frame=cycles_per_frame, bytes_per_frame=float(frame_bytes))

    @property
    def demand(self) -> Demand:
        """What the options say."""
        return self._demand

    def generate(self, rng: np.random.Generator, content_id: str, frames: int) -> Task:
        """Random frames; the label of each is its first byte.

        Raises:
            BadInput: ``frames`` is not positive.
        """
        if frames < 1:
            raise BadInput(f"instant: a clip of {frames} frames; at least 1 is needed")
        pictures = tuple(rng.bytes(self._frame_bytes) for _ in range(frames))
        return Task(content_id, pictures, tuple(picture[0] for picture in pictures))

    def load(self) -> None:
        """There is nothing to load."""

    def execute(self, payload: Payload) -> Result:
        """The first byte of each frame.

        Raises:
            ProtocolError: the payload is not a clip, or one of its frames is empty.
        """
        try:
            return Result(tuple([frame[0] for frame in unpack_clip(payload)]))
        except IndexError:
            raise ProtocolError("bad_payload", "a frame of the instant workload is empty") from None


WORKLOAD = InstantWorkload


def check_workload(workload: Workload, frames: int = 3) -> None:
    """Assert that a workload keeps the contract; runs a few clips of ``frames`` frames.

    Raises:
        AssertionError: it does not; the text says which sentence of the contract is broken.
    """
    assert workload.name, "a workload has a name"
    _check_demand(workload)
    task = workload.generate(np.random.default_rng(0), "check/0", frames)
    _check_generation(workload, task, frames)
    workload.load()
    _check_execution(workload, task)
    _check_hostile(workload, task)


def hostile_payloads(payload: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of payloads that are not clips, made from one that is."""
    yield "nothing", b""
    yield "half a frame count", payload[:3]
    yield "a frame count alone", payload[:4]
    yield "the last byte missing", payload[:-1]
    yield "a byte too many", payload + b"\x00"
    yield "no frames", bytes(4)
    yield "too many frames", (MAX_FRAMES + 1).to_bytes(4, "little") + payload[4:]
    yield "the largest frame count", b"\xff" * 4 + payload[4:]
    yield "the largest frame length", payload[:4] + b"\xff" * 4 + payload[8:]
    yield "an empty frame", pack_clip([b""])


def _check_demand(workload: Workload) -> None:
    demand = workload.demand
    for quantity in (demand.cycles_per_frame, demand.bytes_per_frame):
        assert 0 < quantity < float("inf"), f"demand is positive and finite, not {demand}"


def _check_generation(workload: Workload, task: Task, frames: int) -> None:
    assert task.content_id == "check/0", "a task carries the content_id that was asked for"
    assert len(task.frames) == frames, f"{frames} frames were asked for, {len(task.frames)} came"
    assert len(task.labels) in (0, frames), "each frame has a label, or the truth is unknown and none has"
    assert task.payload_bytes == len(pack_clip(task.frames)) == clip_bytes([len(frame) for frame in task.frames]), (
        "payload_bytes is the size of the packed clip"
    )
    again = workload.generate(np.random.default_rng(0), "check/0", frames)
    assert again == task, "the same generator state gives the same bytes"
    other = workload.generate(np.random.default_rng(1), "check/1", frames)
    assert other.frames != task.frames, "another generator state gives another clip"


def _check_execution(workload: Workload, task: Task) -> None:
    payload = pack_clip(task.frames)
    result = workload.execute(payload)
    assert len(result.predicted) == len(task.frames), "there is one prediction for each frame"
    assert all(type(predicted) is int for predicted in result.predicted), "predictions are plain integers"
    for kind in (bytearray, memoryview):
        assert workload.execute(kind(payload)) == result, f"a {kind.__name__} is executed as bytes are"
    alone = tuple(workload.execute(pack_clip([frame])).predicted[0] for frame in task.frames)
    assert alone == result.predicted, "a frame's result does not depend on the frames around it"


def _check_hostile(workload: Workload, task: Task) -> None:
    payload = pack_clip(task.frames)
    for name, hostile in hostile_payloads(payload):
        try:
            workload.execute(hostile)
        except ProtocolError:
            continue
        raise AssertionError(f"a payload with {name} must raise ProtocolError")
    assert len(workload.execute(payload).predicted) == len(task.frames), "it works on after hostile payloads"
