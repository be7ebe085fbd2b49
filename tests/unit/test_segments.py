"""Raw segments: what was written whole is read back, and damage is reported."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebed.errors import BadInput, WorkFailed
from edgebed.trace.schema import Record
from edgebed.trace.segments import SegmentWriter, latest_attempt, outside_path, read_segment, segment_path

records_strategy = st.lists(
    st.builds(
        Record,
        sequence=st.integers(0, 2**53),
        serial=st.integers(0, 10**6),
        kind=st.sampled_from(["task", "event"]),
        row=st.binary(max_size=300),
    ),
    max_size=8,
)


def some(count: int, first: int = 1) -> list[Record]:
    return [Record(sequence, 1, "event", bytes([sequence % 256]) * 20) for sequence in range(first, first + count)]


@given(batches=st.lists(records_strategy, max_size=4))
def test_what_was_appended_is_read(tmp_path_factory: pytest.TempPathFactory, batches: list[list[Record]]) -> None:
    path = tmp_path_factory.mktemp("run") / "a.records"
    for batch in batches:
        with SegmentWriter(path) as writer:
            writer.append(batch)
            writer.sync()
            assert writer.cut_bytes == 0
    if batches:
        segment = read_segment(path)
        assert list(segment) == [record for batch in batches for record in batch]
        assert segment.problem is None


def test_every_truncation_gives_the_whole_records_before_it(tmp_path: Path) -> None:
    path = tmp_path / "a.records"
    ends = []
    with SegmentWriter(path) as writer:
        for record in some(3):
            writer.append([record])
            ends.append(path.stat().st_size)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        segment = read_segment(path)
        kept = sum(end <= length for end in ends)
        assert list(segment) == some(3)[:kept]
        torn = length - ([0, *ends][kept])
        assert (segment.problem is None) == (torn == 0)
        if torn:
            assert f"{torn} bytes" in str(segment.problem)


def test_a_writer_cuts_a_torn_tail_and_goes_on_after_it(tmp_path: Path) -> None:
    path = tmp_path / "a.records"
    with SegmentWriter(path) as writer:
        writer.append(some(2))
    with path.open("ab") as file:
        file.write(b"\x40\x00\x00\x00torn")
    with SegmentWriter(path) as writer:
        assert writer.cut_bytes == 8
        writer.append(some(1, first=3))
    segment = read_segment(path)
    assert list(segment) == some(3)
    assert segment.problem is None


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (b"\x00\x00\x00\x00" * 4, "length is wrong"),
        (b"\xff\xff\xff\xff" + b"x" * 50, "length is wrong"),
        (b"\x03\x00\x00\x00abc", "not a record"),
    ],
)
def test_damage_is_reported_and_what_came_before_is_read(tmp_path: Path, damage: bytes, why: str) -> None:
    path = tmp_path / "a.records"
    with SegmentWriter(path) as writer:
        writer.append(some(2))
    with path.open("ab") as file:
        file.write(damage)
    segment = read_segment(path)
    assert list(segment) == some(2)
    assert why in str(segment.problem)
    assert f"{len(damage)} bytes" in str(segment.problem)


def test_a_missing_segment_is_reported(tmp_path: Path) -> None:
    segment = read_segment(tmp_path / "none.records")
    assert list(segment) == []
    assert "cannot be read" in str(segment.problem)


def test_a_write_that_does_not_fit_leaves_no_half_record(tmp_path: Path) -> None:
    path = tmp_path / "a.records"
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with SegmentWriter(path) as writer:
            writer.append(some(2))
            resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
            with pytest.raises(WorkFailed, match="could not be written"):
                writer.append(some(20, first=3))
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            writer.append(some(1, first=3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    segment = read_segment(path)
    assert list(segment) == some(3)
    assert segment.problem is None


def test_places_in_the_run_folder(tmp_path: Path) -> None:
    assert segment_path(tmp_path, "cell", 2, "pi-1") == tmp_path / "cells/cell/attempt-2/pi-1.records"
    assert outside_path(tmp_path, "pi-1") == tmp_path / "outside/pi-1.records"
    assert latest_attempt(tmp_path, "cell") == 0
    for name in ("attempt-2", "attempt-10", "attempt-x", "attempt-11.old"):
        (tmp_path / "cells/cell" / name).mkdir(parents=True)
    assert latest_attempt(tmp_path, "cell") == 10


@pytest.mark.parametrize("name", ["", "..", "a/b", "-x", "a\n"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput):
        segment_path(tmp_path, name, 1, "pi-1")
    with pytest.raises(BadInput):
        outside_path(tmp_path, name)
