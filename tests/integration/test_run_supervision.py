"""Supervised programs: they outlive who started them, come back after a crash, and can always be ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgebed.errors import WorkFailed
from orchestrator.provision.supervision import ProgramState, Supervision, parse_states
from orchestrator.remote.local import LocalRemote

pytestmark = pytest.mark.integration

# A program that says that it listens, and then waits for TERM. It writes when it was told.
LISTENS = 'trap "echo told >> told; exit 0" TERM; echo tcp://127.0.0.1:1 > prog.endpoint; sleep 600 & wait'
DEAF = 'trap "" TERM; echo tcp://127.0.0.1:1 > prog.endpoint; while :; do sleep 600; done'


@pytest.fixture
def supervision(tmp_path: Path) -> Iterator[Supervision]:
    remote = LocalRemote("here")
    remote.connect()
    supervised = Supervision(remote, str(tmp_path.resolve()))
    supervised.install()
    yield supervised
    supervised.stop(["prog"], 1.0)
    assert supervised.states(["prog"])["prog"].is_dead
    assert not any(str(tmp_path) in command for command in commands())


def commands() -> list[str]:
    """The command line of every process of this machine; zombies have none."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it has ended meanwhile
    return found


def begin(supervision: Supervision, script: str) -> None:
    path = Path(supervision.folder) / "prog.sh"
    path.write_text(script)
    supervision.start("prog", ["sh", str(path)])


def state(supervision: Supervision) -> ProgramState:
    return supervision.states(["prog"])["prog"]


def eventually(supervision: Supervision, holds: Callable[[ProgramState], bool]) -> ProgramState:
    deadline_s = time.monotonic() + 15.0
    while not holds(now := state(supervision)):
        assert time.monotonic() < deadline_s, f"still {now}"
    return now


def test_a_program_runs_until_it_is_stopped(supervision: Supervision) -> None:
    begin(supervision, LISTENS)
    assert supervision.await_endpoint("prog", 10.0) == "tcp://127.0.0.1:1"
    running = state(supervision)
    assert running.is_kept
    assert running.pid is not None
    assert running.starts == 1
    assert os.getsid(running.pid) == running.supervisor_pid != os.getsid(0), "a session of its own"
    supervision.stop(["prog"], 20.0)
    ended = state(supervision)
    assert (ended.is_dead, ended.exit_status) == (True, 0)
    assert (Path(supervision.folder) / "told").read_text() == "told\n", "TERM was forwarded, once"


def test_starting_twice_keeps_the_first(supervision: Supervision) -> None:
    begin(supervision, LISTENS)
    supervision.await_endpoint("prog", 10.0)
    first = state(supervision)
    begin(supervision, LISTENS)
    assert state(supervision) == first


def test_a_crash_is_followed_by_a_new_start(supervision: Supervision) -> None:
    begin(supervision, LISTENS)
    supervision.await_endpoint("prog", 10.0)
    first = state(supervision)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    second = eventually(supervision, lambda now: now.starts == 2 and now.pid is not None)
    assert second.supervisor_pid == first.supervisor_pid
    assert "ended with status 137, start 1" in supervision.log_tail("prog")


@pytest.mark.parametrize("status", [0, 2])
def test_some_ends_are_final(supervision: Supervision, status: int) -> None:
    begin(supervision, f"echo 'the settings: wrong'; exit {status}")
    with pytest.raises(WorkFailed, match=r"here: prog ended before it listened(.|\n)*the settings: wrong"):
        supervision.await_endpoint("prog", 10.0)
    ended = eventually(supervision, lambda now: now.is_dead)
    assert (ended.exit_status, ended.starts) == (status, 1)


def test_a_program_that_does_not_listen_is_not_waited_for_for_ever(supervision: Supervision) -> None:
    begin(supervision, "sleep 600 & wait")
    with pytest.raises(WorkFailed, match="did not listen within 1 s"):
        supervision.await_endpoint("prog", 1.0)


def test_what_ignores_term_is_killed(supervision: Supervision) -> None:
    begin(supervision, DEAF)
    supervision.await_endpoint("prog", 10.0)
    supervision.stop(["prog"], 1.0)
    assert state(supervision).is_dead


def test_what_is_stopped_is_ended(supervision: Supervision) -> None:
    begin(supervision, LISTENS)
    supervision.await_endpoint("prog", 10.0)
    pid = state(supervision).pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    supervision.stop(["prog"], 20.0)
    assert state(supervision).exit_status == 0, "continued, told, and ended by itself"


def test_a_killed_supervisor_leaves_a_program_that_can_be_stopped(supervision: Supervision) -> None:
    begin(supervision, LISTENS)
    supervision.await_endpoint("prog", 10.0)
    first = state(supervision)
    assert first.supervisor_pid is not None
    os.kill(first.supervisor_pid, signal.SIGKILL)
    orphan = eventually(supervision, lambda now: not now.is_kept)
    assert orphan.pid == first.pid
    assert not orphan.is_dead
    supervision.stop(["prog"], 5.0)
    assert state(supervision).is_dead


def test_a_start_replaces_what_a_killed_supervisor_left(supervision: Supervision) -> None:
    begin(supervision, LISTENS)
    supervision.await_endpoint("prog", 10.0)
    first = state(supervision)
    assert first.supervisor_pid is not None
    os.kill(first.supervisor_pid, signal.SIGKILL)
    eventually(supervision, lambda now: not now.is_kept)
    begin(supervision, LISTENS)
    second = eventually(supervision, lambda now: now.pid is not None)
    assert second.is_kept
    assert second.pid != first.pid


def test_a_number_that_came_again_is_left_alone(supervision: Supervision) -> None:
    folder = Path(supervision.folder)
    (folder / "prog.pid").write_text(f"{os.getpid()}\n")
    (folder / "prog.supervisor.pid").write_text(f"{os.getpid()}\n")
    assert state(supervision).is_dead, "this test is no program of the folder"
    supervision.stop(["prog"], 1.0)  # had it been taken for one, this test would have been killed


def test_states_are_parsed() -> None:
    states = parse_states("edge_server 10 12 - 3\ncontroller - - 2 1\n")
    assert states == {
        "edge_server": ProgramState("edge_server", 10, 12, None, 3),
        "controller": ProgramState("controller", None, None, 2, 1),
    }
