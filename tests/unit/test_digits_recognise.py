"""Recognition through the whole path: JPEG, decoding, ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
import math
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgebed.errors import ProtocolError
from workloads.base import pack_clip
from workloads.digits import DigitsWorkload
from workloads.digits.manifest import read_manifest
from workloads.digits.recognise import LARGEST_FRAME_BYTES

WORKLOAD = DigitsWorkload()
CLIP = WORKLOAD.generate(np.random.default_rng(0), "clip", 2)
FRAME = CLIP.frames[0]
SIZE_AT = FRAME.index(b"\xff\xc0") + 5


def test_held_out_accuracy_is_that_of_the_card() -> None:
    frames = 1200
    task = WORKLOAD.generate(np.random.default_rng(20260101), "accuracy", frames)
    predicted = [WORKLOAD.execute_frame(frame) for frame in task.frames]
    accuracy = np.mean([found == label for found, label in zip(predicted, task.labels, strict=True)])
    assert accuracy >= 0.985
    stated = read_manifest().accuracy.fraction
    # Frames are independent draws of scan and rendering, so the count of right ones is binomial; 3.3 sigma.
    bound = 3.3 * math.sqrt(stated * (1 - stated) / frames) + 1 / frames
    assert abs(accuracy - stated) <= bound


def test_the_card_states_enough_accuracy() -> None:
    stated = read_manifest().accuracy
    assert stated.low >= 0.985
    assert stated.low < stated.fraction < stated.high


def test_no_digit_is_neglected() -> None:
    assert min(read_manifest().accuracy.by_digit) > 0.9


def test_a_clip_is_recognised_frame_by_frame() -> None:
    assert WORKLOAD.execute(pack_clip(CLIP.frames)).predicted == tuple(map(WORKLOAD.execute_frame, CLIP.frames))


def _encoded(mode: str, size: tuple[int, int], form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, form, **options)
    return buffer.getvalue()


def _claiming(width: int, height: int) -> bytes:
    return FRAME[:SIZE_AT] + struct.pack(">HH", height, width) + FRAME[SIZE_AT + 4 :]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "not a JPEG"),
        (b"\xff\xd8", "not a JPEG"),
        (FRAME[:100], "not a JPEG"),
        (FRAME[: len(FRAME) // 2], "truncated"),
        (bytes(range(256)) * 100, "not a JPEG"),
        (_encoded("L", (640, 480), "PNG"), "not a JPEG"),
        (_encoded("L", (640, 480), "GIF"), "not a JPEG"),
        (_encoded("L", (480, 640), "JPEG"), "480, 640"),
        (_encoded("L", (160, 120), "JPEG"), "160, 120"),
        (_encoded("RGB", (640, 480), "JPEG"), "colour mode RGB"),
        (_encoded("CMYK", (640, 480), "JPEG"), "colour mode CMYK"),
        (_encoded("L", (640, 480), "JPEG", progressive=True), "progressive"),
        (_claiming(65500, 65500), "65500, 65500"),
        (_claiming(640, 0), "not a JPEG"),
        (FRAME + bytes(LARGEST_FRAME_BYTES), "at most"),
    ],
)
def test_a_frame_that_is_not_ours_is_refused(frame: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason) as caught:
        WORKLOAD.execute_frame(frame)
    assert caught.value.code == "bad_payload"


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_random_bytes_are_refused(frame: bytes) -> None:
    for start in (b"", FRAME[:2], FRAME[:20]):
        with pytest.raises(ProtocolError):
            WORKLOAD.execute_frame(start + frame)


@given(st.lists(st.tuples(st.integers(0, len(FRAME) - 1), st.integers(0, 255)), min_size=1, max_size=20), st.data())
@settings(max_examples=150, deadline=None)
def test_a_mutated_frame_is_recognised_or_refused(mutations: list[tuple[int, int]], data: st.DataObject) -> None:
    frame = bytearray(FRAME)
    for position, value in mutations:
        frame[position % data.draw(st.sampled_from([700, len(FRAME)]))] = value
    # Anything but ProtocolError fails the test.
    with contextlib.suppress(ProtocolError):
        assert WORKLOAD.execute_frame(frame) in range(10)


def test_one_bad_frame_refuses_the_clip() -> None:
    with pytest.raises(ProtocolError, match="not a JPEG"):
        WORKLOAD.execute(pack_clip([FRAME, b"\x00"]))


MEMORY = """
import sys
import psutil
from workloads import load_workload
from workloads.base import pack_clip
import numpy as np
if sys.argv[1] == "execute":
    payload = sys.stdin.buffer.read()
else:
    task = load_workload("digits").generate(np.random.default_rng(0), "c", 3)
    payload = pack_clip(task.frames)
workload = load_workload("digits")
from workloads._onnxruntime import onnxruntime
threads_before = psutil.Process().num_threads()
workload.load()
for _ in range(5):
    workload.execute(payload)
loaded = [name for name in ("torch", "sklearn", "scipy", "onnx") if name in sys.modules]
print(psutil.Process().memory_info().rss // 1_000_000, psutil.Process().num_threads() - threads_before, loaded)
"""


@pytest.mark.parametrize(("mode", "limit_mb"), [("execute", 90), ("generate", 100)])
def test_memory_and_threads_of_a_process_that_recognises(mode: str, limit_mb: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, mode], input=pack_clip(CLIP.frames), capture_output=True, check=True
    )
    resident_mb, more_threads, loaded = done.stdout.decode().split(maxsplit=2)
    assert int(resident_mb) <= limit_mb
    assert int(more_threads) == 0
    assert loaded.strip() == "[]"
    assert done.stderr == b""
