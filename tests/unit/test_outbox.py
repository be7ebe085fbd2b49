"""The outbox keeps what it has taken: over kills, full disks, damaged files and its own restarts."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from edgebed.clock import ManualClock, MonotonicClock
from edgebed.errors import BadInput, RunConflict, WorkFailed
from edgebed.trace.outbox import Outbox, read_outbox
from edgebed.trace.schema import EventRecord, Record, TaskRecord

PATIENCE_S = 20.0


def event(number: int) -> EventRecord:
    return EventRecord(t_s=float(number), host="pi-1", kind="note", detail=str(number))


def task(task_id: str, outcome: str = "done") -> TaskRecord:
    return TaskRecord(
        run_id="r",
        cell_id="c",
        policy="p",
        seed=0,
        device_id="pi-1",
        task_id=task_id,
        epoch=0,
        backend="hosts",
        attempt=1,
        arrived_s=0.0,
        content_id="x",
        deadline_s=1.0,
        outcome=outcome,
    )


def details(records: list[Record]) -> list[int]:
    return [int(msgspec.msgpack.decode(record.row, type=EventRecord).detail) for record in records]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "outbox.sqlite"


def test_rows_come_back_in_order_once_they_are_committed(path: Path) -> None:
    with Outbox(path, MonotonicClock()) as outbox:
        sequences = [outbox.append("event", 3, event(number)) for number in range(10)]
        assert outbox.flush(PATIENCE_S)
        records = outbox.committed(0, 100)
        assert [record.sequence for record in records] == sequences == sorted(sequences)
        assert details(records) == list(range(10))
        assert {(record.serial, record.kind) for record in records} == {(3, "event")}
        assert details(outbox.committed(sequences[3], 2)) == [4, 5]


def test_a_row_is_encoded_when_it_is_appended(path: Path) -> None:
    with Outbox(path, MonotonicClock()) as outbox:
        row = task("t-1", "unknown")
        outbox.append("task", 1, row)
        row.outcome = "done"
        assert outbox.flush(PATIENCE_S)
        (record,) = outbox.committed(0, 9)
    assert msgspec.msgpack.decode(record.row, type=TaskRecord).outcome == "unknown"


def test_acknowledged_rows_are_gone_and_counted(path: Path) -> None:
    with Outbox(path, MonotonicClock()) as outbox:
        sequences = [outbox.append("event", 1, event(number)) for number in range(6)]
        assert outbox.unacknowledged() == 6
        assert outbox.flush(PATIENCE_S)
        outbox.acknowledge(sequences[3])
        outbox.acknowledge(sequences[1])  # a late repetition
        assert outbox.unacknowledged() == 2
        assert details(outbox.committed(0, 100)) == [4, 5]
        assert outbox.flush(PATIENCE_S)
    assert details(list(read_outbox(path))) == [4, 5]


def test_an_acknowledgement_beyond_the_end_does_not_touch_later_rows(path: Path) -> None:
    with Outbox(path, MonotonicClock()) as outbox:
        outbox.append("event", 1, event(0))
        assert outbox.flush(PATIENCE_S)
        outbox.acknowledge(2**52)
        outbox.append("event", 1, event(1))
        assert outbox.flush(PATIENCE_S)
        assert details(outbox.committed(0, 100)) == [1]
        assert outbox.unacknowledged() == 1


def test_numbers_rise_over_restarts_even_when_all_was_acknowledged(path: Path) -> None:
    last = 0
    for life in range(3):
        with Outbox(path, MonotonicClock()) as outbox:
            first = outbox.append("event", 1, event(2 * life))
            assert first > last
            last = outbox.append("event", 1, event(2 * life + 1))
            assert outbox.flush(PATIENCE_S)
            outbox.acknowledge(first)
            assert outbox.unacknowledged() == 1
            if life == 1:
                outbox.acknowledge(last)
                assert outbox.unacknowledged() == 0
    assert details(list(read_outbox(path))) == [5]


def test_rows_of_an_earlier_life_are_counted_and_acknowledged_piecemeal(path: Path) -> None:
    with Outbox(path, MonotonicClock()) as outbox:
        old = [outbox.append("event", 1, event(number)) for number in range(4)]
    with Outbox(path, MonotonicClock()) as outbox:
        new = outbox.append("event", 1, event(4))
        assert outbox.unacknowledged() == 5
        assert outbox.flush(PATIENCE_S)
        outbox.acknowledge(old[1])
        assert outbox.unacknowledged() == 3
        outbox.acknowledge(new)
        assert outbox.unacknowledged() == 0


def test_on_commit_wakes_the_owner_after_the_rows_can_be_read(path: Path) -> None:
    seen: list[int] = []
    woken = threading.Event()
    with Outbox(path, MonotonicClock()) as outbox:

        def wake() -> None:
            seen.extend(details(outbox.committed(0, 10)))
            woken.set()

        outbox.on_commit = wake
        outbox.append("event", 1, event(7))
        assert woken.wait(PATIENCE_S)
    assert seen == [7]


def test_a_callback_that_fails_does_not_stop_the_writing(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> None:
        raise RuntimeError("the loop is gone")

    with Outbox(path, MonotonicClock()) as outbox:
        outbox.on_commit = broken
        for number in range(2):
            outbox.append("event", 1, event(number))
            assert outbox.flush(PATIENCE_S)
        assert details(outbox.committed(0, 10)) == [0, 1]
    assert "on_commit" in caplog.text


def test_state_and_the_time_of_the_last_commit_reach_the_successor(path: Path) -> None:
    clock = ManualClock(5.0)
    with Outbox(path, clock) as outbox:
        assert outbox.predecessor_alive_s is None
        assert outbox.get_state("cell") is None
        outbox.set_state("cell", {"serial": 4, "start_s": 1.5})
        assert outbox.get_state("cell") == {"serial": 4, "start_s": 1.5}
        assert outbox.flush(PATIENCE_S)
        clock.advance(2.0)
        outbox.append("event", 1, event(0))
    with Outbox(path, ManualClock(100.0)) as outbox:
        assert outbox.predecessor_alive_s == 7.0
        assert outbox.get_state("cell") == {"serial": 4, "start_s": 1.5}


def test_terminal_tasks_outlive_acknowledgement_and_restart(path: Path) -> None:
    with Outbox(path, MonotonicClock()) as outbox:
        outbox.append("task", 1, task("old"))
        outbox.append("task", 2, task("a"))
        outbox.append("task", 2, task("b", "unknown"))
        last = outbox.append("task", 2, task("b", "done"))
        outbox.append("task", 2, task("b", "unknown"))  # a done task never becomes unknown again
        outbox.append("task", 1, task("late"))  # of a cell that is over
        assert outbox.flush(PATIENCE_S)
        outbox.acknowledge(last + 10)
        assert outbox.terminal_tasks(2) == {"a": "done", "b": "done"}
    with Outbox(path, MonotonicClock()) as outbox:
        assert outbox.terminal_tasks(2) == {"a": "done", "b": "done"}
        assert outbox.terminal_tasks(1) == {}
        outbox.append("task", 3, task("c", "failed"))
        assert outbox.terminal_tasks(3) == {"c": "failed"}
        assert outbox.terminal_tasks(2) == {}


def test_only_one_program_has_it_open(path: Path) -> None:
    with Outbox(path, MonotonicClock()), pytest.raises(RunConflict, match="another program"):
        Outbox(path, MonotonicClock())
    Outbox(path, MonotonicClock()).close()


def test_an_unreadable_file_is_kept_aside_and_numbers_do_not_repeat(path: Path) -> None:
    with Outbox(path, MonotonicClock()) as outbox:
        before = outbox.append("event", 1, event(0))
    path.write_bytes(b"\xff" * 8192)
    with Outbox(path, MonotonicClock()) as outbox:
        assert outbox.damaged is not None
        assert outbox.damaged.read_bytes() == b"\xff" * 8192
        assert outbox.append("event", 1, event(1)) > before
    with Outbox(path, MonotonicClock()) as outbox:
        assert outbox.damaged is None
        assert details(outbox.committed(0, 10)) == [1]


def test_reading_a_copy_takes_the_log_along_and_changes_nothing(path: Path, tmp_path: Path) -> None:
    copied = tmp_path / "collected" / "pi-1.outbox"
    copied.parent.mkdir()
    # The clock stands still, so that nothing is checkpointed: the rows lie in the log only.
    with Outbox(path, ManualClock()) as outbox:
        committed = threading.Event()
        outbox.on_commit = committed.set
        outbox.append("event", 1, event(0))
        assert committed.wait(PATIENCE_S)
        committed.clear()
        outbox.append("event", 1, event(1))
        assert committed.wait(PATIENCE_S)
        shutil.copyfile(path, copied)
        shutil.copyfile(f"{path}-wal", f"{copied}-wal")
    before = (copied.read_bytes(), Path(f"{copied}-wal").read_bytes())
    assert details(list(read_outbox(copied))) == [0, 1]
    assert details(list(read_outbox(copied))) == [0, 1]
    assert (copied.read_bytes(), Path(f"{copied}-wal").read_bytes()) == before


def test_reading_nothing_or_rubbish_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such outbox"):
        list(read_outbox(tmp_path / "none"))
    rubbish = tmp_path / "rubbish"
    rubbish.write_bytes(b"not sqlite" * 1000)
    with pytest.raises(WorkFailed, match="damaged"):
        list(read_outbox(rubbish))


def test_a_closed_outbox_takes_nothing(path: Path) -> None:
    outbox = Outbox(path, MonotonicClock())
    outbox.close()
    outbox.close()
    with pytest.raises(WorkFailed, match="closed"):
        outbox.append("event", 1, event(0))


WRITER = """
import sys
from pathlib import Path
from edgebed.clock import MonotonicClock
from edgebed.trace.outbox import Outbox
from edgebed.trace.schema import EventRecord
outbox = Outbox(Path(sys.argv[1]), MonotonicClock(), commit_interval_s=0.002)
reported = 0
def report():
    global reported
    for record in outbox.committed(reported, 10_000):
        reported = record.sequence
    print(reported, flush=True)
outbox.on_commit = report
number = 0
while True:
    for _ in range(50):
        outbox.append("event", 1, EventRecord(t_s=0.0, host="h", kind="k", detail=str(number)))
        number += 1
    outbox.flush(10.0)
"""


@pytest.mark.parametrize("lines", [1, 7, 40])
def test_kill_9_loses_nothing_that_was_reported(path: Path, lines: int) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    with writer, writer.stdout:
        reported = [int(writer.stdout.readline()) for _ in range(lines)][-1]
        writer.send_signal(signal.SIGKILL)
        # What it managed to report until it died counts as well.
        reported = max([reported, *(int(line) for line in writer.stdout if line.endswith("\n"))])
        assert writer.wait(PATIENCE_S) == -signal.SIGKILL
    collected = list(read_outbox(path))
    with Outbox(path, MonotonicClock()) as outbox:
        assert outbox.committed(0, 10**6) == collected
        assert outbox.unacknowledged() == len(collected)
    assert reported <= collected[-1].sequence
    assert details(collected) == list(range(len(collected)))
    assert [record.sequence - collected[0].sequence for record in collected] == list(range(len(collected)))


FULL_DISK = """
import resource, signal, sys, threading
from pathlib import Path
from edgebed.clock import MonotonicClock
from edgebed.trace.outbox import Outbox
from edgebed.trace.schema import EventRecord
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
outbox = Outbox(Path(sys.argv[1]), MonotonicClock())
refused = threading.Event()
outbox.on_error = lambda error: refused.set()
row = EventRecord(t_s=0.0, host="h", kind="k", detail="x" * 4000)
outbox.append("event", 1, row)
assert outbox.flush(10.0) and outbox.error is None
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
for _ in range(200):
    outbox.append("event", 1, row)
assert not outbox.flush(10.0), "a flush must not claim what is not on disk"
assert refused.wait(10.0) and outbox.error is not None
assert outbox.unacknowledged() == 201
print("refused:", outbox.error)
if sys.argv[2] == "recovers":
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert outbox.flush(10.0) and outbox.error is None
    assert len(outbox.committed(0, 1000)) == 201
outbox.close()
"""


def run_full_disk(path: Path, ending: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path), ending], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_full_disk_is_reported_and_nothing_is_lost_once_it_has_room(path: Path) -> None:
    ended = run_full_disk(path, "recovers")
    assert ended.returncode == 0, ended.stderr
    assert "refused:" in ended.stdout
    assert len(list(read_outbox(path))) == 201


def test_closing_onto_a_full_disk_says_how_many_rows_are_lost(path: Path) -> None:
    ended = run_full_disk(path, "stays full")
    assert ended.returncode == 1
    assert "200 rows could not be written before closing" in ended.stderr
    assert len(list(read_outbox(path))) == 1


def test_a_place_that_is_not_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkFailed, match="cannot be made"):
        Outbox(tmp_path / "file" / "outbox", MonotonicClock())
