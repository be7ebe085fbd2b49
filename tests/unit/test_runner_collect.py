"""Rows into segments: each once, none skipped, nothing acknowledged that is not written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from edgebed.clock import ManualClock
from edgebed.protocol.messages import Acknowledge, Records
from edgebed.trace.outbox import Outbox
from edgebed.trace.schema import EventRecord, Record
from edgebed.trace.segments import outside_path, read_segment, segment_path
from orchestrator.attempts import Attempts
from orchestrator.collect import FIRST_SEQUENCE, Collector
from orchestrator.retrieve import SignOfLife, last_sign_of_life

ROW = msgspec.msgpack.encode(EventRecord(t_s=1.0, host="pi-1", kind="x"))


@pytest.fixture
def attempts(tmp_path: Path) -> Attempts:
    found = Attempts(tmp_path, ["a-s1"])
    found.begin("a-s1")
    return found


@pytest.fixture
def collector(tmp_path: Path, attempts: Attempts) -> Iterator[Collector]:
    collector = Collector(tmp_path, attempts)
    yield collector
    collector.close()


def send(collector: Collector, *sequences: int, serial: int = 1) -> list[Acknowledge]:
    """Let a batch come; what is acknowledged."""
    records = [Record(FIRST_SEQUENCE + sequence, serial, "event", ROW) for sequence in sequences]
    message = Records("pi-1", records[-1].sequence, len(records))
    collector.receive(message, msgspec.msgpack.encode(records))
    return collector.acknowledgements(0.0, at_once=True)


def written(path: Path) -> list[int]:
    return [record.sequence - FIRST_SEQUENCE for record in read_segment(path)]


def up_to(sequence: int) -> list[Acknowledge]:
    return [Acknowledge("pi-1", FIRST_SEQUENCE + sequence)]


def test_the_first_number_is_that_of_a_real_outbox(tmp_path: Path) -> None:
    with Outbox(tmp_path / "x.sqlite", ManualClock()) as outbox:
        assert outbox.append("event", 0, EventRecord(t_s=0.0, host="h", kind="k")) == FIRST_SEQUENCE


def test_rows_come_to_the_segment_of_their_attempt(tmp_path: Path, collector: Collector) -> None:
    assert send(collector, 0, 1) == up_to(1)
    send(collector, 2, serial=0)
    send(collector, 3, serial=99)
    assert written(segment_path(tmp_path, "a-s1", 1, "pi-1")) == [0, 1]
    assert written(outside_path(tmp_path, "pi-1")) == [2, 3], "outside any cell, or of a cell that nobody knows"


def test_a_row_that_comes_twice_is_written_once_and_acknowledged_again(tmp_path: Path, collector: Collector) -> None:
    send(collector, 0, 1, 2)
    assert send(collector, 1, 2, 3) == up_to(3)
    assert send(collector, 0, 1) == up_to(3)
    assert written(segment_path(tmp_path, "a-s1", 1, "pi-1")) == [0, 1, 2, 3]


def test_what_follows_a_lost_batch_waits_for_it(tmp_path: Path, collector: Collector) -> None:
    send(collector, 0, 1)
    assert send(collector, 4, 5) == [], "2 and 3 were lost on the way; they come again, because nobody acknowledged"
    assert send(collector, 2, 3) == up_to(3)
    assert send(collector, 4, 5) == up_to(5)
    assert written(segment_path(tmp_path, "a-s1", 1, "pi-1")) == [0, 1, 2, 3, 4, 5]


def test_numbers_that_jump_after_a_restart_are_taken_when_they_come_again(tmp_path: Path, collector: Collector) -> None:
    jump = 1_000_000_000
    send(collector, 0, 1)
    assert send(collector, jump, jump + 1) == [], "is it a restart, or was a batch lost?"
    assert send(collector, jump, jump + 1, jump + 2) == up_to(jump + 2), "all that was not acknowledged begins here"
    assert written(segment_path(tmp_path, "a-s1", 1, "pi-1")) == [0, 1, jump, jump + 1, jump + 2]


def test_a_lower_beginning_counts_against_a_jump(collector: Collector) -> None:
    send(collector, 0)
    assert send(collector, 20) == []
    assert send(collector, 10) == [], "so there was something before 20"
    assert send(collector, 20) == []
    assert send(collector, 10) == up_to(10)


def test_numbers_of_new_outboxes_begin_again(tmp_path: Path, collector: Collector) -> None:
    send(collector, 0, 1)
    collector.forget()
    assert send(collector, 0) == up_to(0)
    assert written(segment_path(tmp_path, "a-s1", 1, "pi-1")) == [0, 1, 0]


def test_a_later_session_knows_what_is_there(tmp_path: Path, collector: Collector, attempts: Attempts) -> None:
    send(collector, 0, 1)
    send(collector, 2, serial=0)
    collector.close()
    later = Collector(tmp_path, attempts)
    later.remember()
    assert send(later, 2, 3) == up_to(3)
    later.close()
    assert written(segment_path(tmp_path, "a-s1", 1, "pi-1")) == [0, 1, 3]


@pytest.mark.parametrize(
    ("message", "payload"),
    [
        (Records("pi-1", FIRST_SEQUENCE, 1), b"\xc1"),
        (Records("pi-1", FIRST_SEQUENCE, 2), msgspec.msgpack.encode([Record(FIRST_SEQUENCE, 1, "event", ROW)])),
        (Records("pi-1", FIRST_SEQUENCE + 1, 1), msgspec.msgpack.encode([Record(FIRST_SEQUENCE, 1, "event", ROW)])),
        (Records("pi-1", 0, 0), msgspec.msgpack.encode([])),
    ],
    ids=["not rows", "too few", "another last number", "none"],
)
def test_a_batch_that_makes_no_sense_is_noted_and_not_acknowledged(
    collector: Collector, message: Records, payload: bytes
) -> None:
    collector.receive(message, payload)
    assert collector.acknowledgements(0.0, at_once=True) == []
    assert len(collector.problems) == 1
    assert collector.problems[0].startswith("pi-1: ")


def test_acknowledgements_wait_for_company(collector: Collector) -> None:
    assert collector.acknowledgements(5.0) == []
    send(collector, 0)
    records = [Record(FIRST_SEQUENCE + 1, 1, "event", ROW)]
    collector.acknowledgements(5.0, at_once=True)
    collector.receive(Records("pi-1", records[0].sequence, 1), msgspec.msgpack.encode(records))
    assert collector.acknowledgements(0.05) == []
    assert collector.acknowledgements(0.2) == up_to(1)


def test_an_outbox_gives_what_did_not_come_over_the_link(tmp_path: Path, collector: Collector) -> None:
    path = tmp_path / "copy.sqlite"
    clock = ManualClock()
    with Outbox(path, clock) as outbox:
        for number in range(3):
            outbox.append("event", 1, EventRecord(t_s=float(number), host="pi-1", kind="x"))
        outbox.set_state("alive", {"serial": 1, "cell_time_s": 4.25})
    send(collector, 0)
    recovered = collector.take_outbox("pi-1", path)
    assert (recovered.rows, recovered.alive) == (2, SignOfLife(serial=1, cell_time_s=4.25))
    assert written(segment_path(tmp_path, "a-s1", 1, "pi-1")) == [0, 1, 2]


def test_no_sign_of_life_is_none(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "empty.sqlite").close()
    (tmp_path / "damaged.sqlite").write_bytes(b"no database" * 100)
    with Outbox(tmp_path / "fresh.sqlite", ManualClock()):
        pass
    for name in ("empty", "damaged", "fresh"):
        assert last_sign_of_life(tmp_path / f"{name}.sqlite") is None
