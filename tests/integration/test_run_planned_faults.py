"""Faults that are part of the experiment, on local hosts: done, told, lifted, and survived."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.processes import await_end

pytestmark = pytest.mark.integration


def faults_of(testbed: Any) -> dict[str, list[dict[str, Any]]]:
    """What the events say of each fault, in the order of time."""
    rows = testbed.sql("SELECT t_s, host, kind, detail FROM events WHERE kind LIKE 'fault%' ORDER BY t_s")
    found: dict[str, list[dict[str, Any]]] = {}
    for t_s, host, kind, detail in rows:
        told = json.loads(detail)
        found.setdefault(told["fault"], []).append(told | {"t_s": t_s, "on": host, "event": kind})
    return found


ALIVE = {"S", "R", "D"}


def state_of(pid: int) -> str:
    """The letter of a process's state in /proc; T is stopped. Nothing when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def await_stop(pid: int) -> None:
    """Wait until a process that was told to stop has: it does so when the kernel next runs it."""
    give_up_s = time.monotonic() + 10.0
    while state_of(pid) != "T":
        assert time.monotonic() < give_up_s, f"{pid} is in state {state_of(pid)!r} and never stopped"
        time.sleep(0.005)


def test_a_run_with_faults_on_agents_server_and_controller_comes_to_its_end(testbed: Any) -> None:
    testbed.run(
        policies=["all_edge", "all_local"],
        epochs=30,
        faults=[
            {"kind": "kill", "host": "pi-1", "at_s": 0.6},
            {"kind": "stop", "host": "pi-2", "at_s": 1.2, "for_s": 2.0},
            {"kind": "stop", "host": "edge", "at_s": 2.4, "for_s": 0.5},
            {"kind": "kill", "host": "edge", "at_s": 3.5},
            {"kind": "kill", "host": "edge", "program": "controller", "at_s": 4.5},
        ],
    )
    answer = testbed.finish()
    assert (answer["state"], answer["cells"]) == ("complete", 2)
    counts = testbed.check_rows()
    assert counts["done", ""] > sum(counts.values()) / 4
    starts = {each["serial"]: each["run_clock_s"] for each in testbed.attempts()}
    told = faults_of(testbed)
    assert sorted(told) == sorted(f"{serial}-{number}" for serial in starts for number in range(5))
    for name, events in told.items():
        begin = events[0]
        assert begin["event"] == "fault_begin"
        assert begin["on"] == begin["host"]
        assert begin["t_s"] - starts[int(name.partition("-")[0])] >= begin["at_s"], name
        if begin["kind"] == "kill":
            assert len(events) == 1
            continue
        (end,) = events[1:]
        assert (end["event"], end["by"]) in {("fault_end", "timer"), ("fault_end", "time")}
        assert end["t_s"] - begin["t_s"] > 0.9 * begin["for_s"], name
    restarted = testbed.sql("SELECT host, count(*) FROM events WHERE kind = 'restarted' GROUP BY host ORDER BY host")
    assert dict(restarted)["pi-1"] == 2
    assert answer["verdict"] == "suspect"
    assert answer["reasons"][0].startswith("Faults were part of the experiment: kill 6 times, stop 4 times;")
    # What stood still shows it: nothing of pi-2 was answered while it did. When the host's own timer went off is known
    # but for the time that the command took, so this looks at the first half.
    for name in ("1-1", "2-1"):
        begin, _ = told[name]
        answered = "arrived_s + latency_s"
        where = f"device_id = 'pi-2' AND {answered} BETWEEN {begin['t_s'] + 0.05} AND {begin['t_s'] + 1.0}"
        assert testbed.sql(f"SELECT count(*) FROM tasks WHERE {where}") == [(0,)], name


def stopped_now(testbed: Any) -> int:
    """Wait until pi-2's agent stands still; its process."""
    testbed.wait_until_running()
    pid = int(testbed.pid("pi-2", "device_agent"))
    undo = testbed.host_folder("pi-2") / "faults" / "1-0.undo"
    testbed.wait_for(lambda: undo.exists() and state_of(pid) == "T", "the stop")
    return pid


LONG_STOP = {"kind": "stop", "host": "pi-2", "at_s": 0.5, "for_s": 1000}


def test_a_fault_ends_with_the_cell(testbed: Any) -> None:
    testbed.run(epochs=4, policies=["all_local", "all_edge"], faults=[LONG_STOP], timeouts={"task_s": 1.0})
    answer = testbed.finish()
    assert (answer["state"], answer["cells"]) == ("complete", 2)
    testbed.check_rows()
    told = faults_of(testbed)
    assert [[each["event"] for each in events] for events in told.values()] == [["fault_begin", "fault_end"]] * 2
    assert {events[1]["by"] for events in told.values()} == {"end"}


def test_ctrl_c_lifts_what_lasts(testbed: Any) -> None:
    testbed.run(epochs=1000, faults=[LONG_STOP])
    stopped_now(testbed)
    testbed.signal(signal.SIGINT)
    assert testbed.finish(status=130)["state"] == "incomplete"
    testbed.check_rows()
    (events,) = faults_of(testbed).values()
    assert [each["event"] for each in events] == ["fault_begin", "fault_end"]
    assert events[1]["by"] == "end"


def test_the_host_itself_lifts_a_fault_of_an_orchestrator_that_was_killed(testbed: Any) -> None:
    testbed.run(epochs=20, faults=[LONG_STOP | {"for_s": 6.0}])
    pid = stopped_now(testbed)
    testbed.signal(signal.SIGKILL)
    testbed.process.communicate()
    testbed.wait_for(lambda: state_of(pid) in ALIVE, "the host's own timer")
    testbed.resume()
    answer = testbed.finish()
    assert answer["state"] == "complete"
    testbed.check_rows()
    (events,) = faults_of(testbed).values()
    assert [(each["event"], each.get("by")) for each in events] == [("fault_begin", None), ("fault_end", "timer")]


def test_resume_lifts_a_fault_that_is_not_over(testbed: Any) -> None:
    testbed.run(epochs=40, faults=[LONG_STOP, {"kind": "kill", "host": "pi-1", "at_s": 5.0}])
    pid = stopped_now(testbed)
    testbed.signal(signal.SIGKILL)
    testbed.process.communicate()
    # Until the kill is overdue: nobody is there to do it.
    (attempt,) = testbed.attempts()
    testbed.wait_for(lambda: _cell_time_s(attempt) > 5.5, "the time of the second fault")
    testbed.resume()
    testbed.wait_for(lambda: state_of(pid) in ALIVE, "the lifting")
    answer = testbed.finish()
    assert answer["state"] == "complete"
    testbed.check_rows()
    told = faults_of(testbed)
    assert [(each["event"], each.get("by")) for each in told["1-0"]] == [("fault_begin", None), ("fault_end", "resume")]
    assert [(each["event"], each["problem"]) for each in told["1-1"]] == [
        ("fault_failed", "the orchestrator was not there when it was due")
    ]
    assert any("Planned faults that could not be done: 1" in reason for reason in answer["reasons"])


def _cell_time_s(attempt: dict[str, Any]) -> float:
    """How long the cell runs, by the wall clock."""
    return time.time() - attempt["started_utc_s"]


def test_a_fault_of_a_program_that_does_not_run_is_told_and_the_run_goes_on(testbed: Any) -> None:
    testbed.run(epochs=16, faults=[{"kind": "kill", "host": "pi-2", "at_s": 4.0}])
    testbed.wait_until_running()
    agent = testbed.pid("pi-2", "device_agent")
    os.kill(int((testbed.host_folder("pi-2") / "device_agent.supervisor.pid").read_text()), signal.SIGKILL)
    os.kill(agent, signal.SIGKILL)
    answer = testbed.finish()
    assert answer["state"] == "complete"
    testbed.check_rows()
    (events,) = faults_of(testbed).values()
    assert [each["event"] for each in events] == ["fault_failed"]
    assert "pi-2: device_agent does not run" in events[0]["problem"]


# --- the script by itself ---------------------------------------------------------------------------------------------

SCRIPT = Path("orchestrator/faults/faults.sh")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "faults.sh").write_bytes(SCRIPT.read_bytes())
    return tmp_path.resolve()


@pytest.fixture
def program(folder: Path) -> Iterator[int]:
    """A process of the run: its command line names the state folder."""
    command = [sys.executable, "-c", "import time; time.sleep(100)", f"{folder}/x.json"]
    with subprocess.Popen(command) as process:
        yield process.pid
        process.kill()


def script(folder: Path, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        ["sh", f"{folder}/faults.sh", *words], capture_output=True, text=True, timeout=30, check=False
    )
    return done.returncode, done.stdout.strip()


def test_lifting_is_told_once_and_does_no_harm_again(folder: Path, program: int) -> None:
    assert script(folder, "begin", "1-0", "1000", "stop", str(program))[0] == 0
    await_stop(program)
    assert script(folder, "lift", "1-0", "end") == (0, "end")
    assert script(folder, "lift", "1-0", "resume") == (0, "end")
    assert script(folder, "lift_all", "resume") == (0, "1-0 end")
    assert state_of(program) in ALIVE
    assert script(folder, "lift", "1-9", "end") == (0, "nobody")
    for timer in timers_of(folder):
        await_end(timer)


def timers_of(folder: Path) -> list[int]:
    """Processes whose command names the folder's script."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            if f"{folder}/faults.sh".encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def test_what_is_not_lifted_is_found_by_a_sweep(folder: Path, program: int) -> None:
    assert script(folder, "begin", "1-0", "1000", "stop", str(program))[0] == 0
    assert script(folder, "lift_all", "resume") == (0, "1-0 resume")
    assert state_of(program) in ALIVE


def test_processes_of_others_are_left_alone(folder: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"]) as process:
        assert script(folder, "begin", "1-0", "1000", "stop", str(process.pid))[0] == 3
        assert script(folder, "begin", "1-1", "0", "kill", str(process.pid))[0] == 3
        assert state_of(process.pid) in ALIVE
        process.kill()


def test_a_fault_whose_undo_cannot_be_written_is_not_done(folder: Path, program: int) -> None:
    (folder / "faults").write_text("in the way")
    assert script(folder, "begin", "1-0", "1000", "stop", str(program))[0] == 1
    assert state_of(program) in ALIVE
