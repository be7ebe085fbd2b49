"""One orchestrator at a time holds a host."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edgebed.errors import RemoteError, WorkFailed
from orchestrator.provision.lease import (
    DEAD_AFTER_S,
    Holder,
    Lease,
    break_,
    drop,
    machine_identity,
    own_holder,
    parse_lease,
    read,
    renew,
    take,
)
from orchestrator.remote.local import LocalRemote


@pytest.fixture
def remote() -> LocalRemote:
    remote = LocalRemote("pi-1")
    remote.connect()
    return remote


def other(run_id: str = "other-run") -> Holder:
    return Holder(holder="ana@elsewhere", machine="elsewhere", pid=1, started_s=1.0, run_id=run_id, taken="2026-01-01")


def age(root: Path, seconds: float) -> None:
    path = root / "lease.json"
    then_s = path.stat().st_mtime - seconds
    os.utime(path, (then_s, then_s))


def test_taken_renewed_and_dropped(remote: LocalRemote, tmp_path: Path) -> None:
    mine = own_holder("demo")
    take(remote, str(tmp_path), mine)
    found = read(remote, str(tmp_path))
    assert found is not None
    assert (found.holder, found.is_dead) == (mine, False)
    assert (tmp_path / "lease.json").stat().st_mode & 0o777 == 0o600
    age(tmp_path, 100.0)
    renew(remote, str(tmp_path), mine)
    renewed = read(remote, str(tmp_path))
    assert renewed is not None
    assert renewed.age_s < 50
    drop(remote, str(tmp_path), mine)
    assert read(remote, str(tmp_path)) is None
    assert list(tmp_path.iterdir()) == []


def test_a_second_orchestrator_is_told_who_holds_it(remote: LocalRemote, tmp_path: Path) -> None:
    take(remote, str(tmp_path), other("their-run"))
    with pytest.raises(WorkFailed, match="pi-1: is held by ana@elsewhere") as caught:
        take(remote, str(tmp_path), own_holder("mine"))
    assert "their-run" in str(caught.value)
    assert "edgebed release" in str(caught.value)
    found = read(remote, str(tmp_path))
    assert found is not None
    assert found.holder == other("their-run")


def test_taking_twice_is_taking_once(remote: LocalRemote, tmp_path: Path) -> None:
    mine = own_holder("demo")
    take(remote, str(tmp_path), mine)
    take(remote, str(tmp_path), mine)


def test_a_process_of_this_machine_that_has_ended_holds_nothing(remote: LocalRemote, tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    gone = Holder(
        holder="me@here", machine=machine_identity(), pid=ended.pid, started_s=1.0, run_id="demo", taken="2026-01-01"
    )
    take(remote, str(tmp_path), gone)
    mine = own_holder("demo")
    take(remote, str(tmp_path), mine)
    found = read(remote, str(tmp_path))
    assert found is not None
    assert found.holder == mine


def test_a_number_that_came_again_is_another_process() -> None:
    mine = own_holder("demo")
    again = Holder(
        holder=mine.holder, machine=mine.machine, pid=mine.pid, started_s=mine.started_s - 60, run_id="", taken=""
    )
    assert not Lease(mine, 0.0, "").is_dead
    assert Lease(again, 0.0, "").is_dead


@pytest.mark.parametrize(("age_s", "is_dead"), [(0.0, False), (DEAD_AFTER_S - 1, False), (DEAD_AFTER_S + 1, True)])
def test_a_silent_holder_of_another_machine_is_dead_after_a_while(age_s: float, is_dead: bool) -> None:
    assert Lease(other(), age_s, "").is_dead is is_dead
    assert parse_lease("not json", age_s).is_dead is is_dead


def test_a_broken_lease_is_noticed_by_who_had_it(remote: LocalRemote, tmp_path: Path) -> None:
    mine = own_holder("demo")
    take(remote, str(tmp_path), mine)
    found = read(remote, str(tmp_path))
    assert found is not None
    break_(remote, str(tmp_path), found)
    with pytest.raises(WorkFailed, match="was broken by someone else"):
        renew(remote, str(tmp_path), mine)


def test_nobody_takes_away_what_is_anothers_by_now(remote: LocalRemote, tmp_path: Path) -> None:
    take(remote, str(tmp_path), other("new"))
    drop(remote, str(tmp_path), own_holder("demo"))
    break_(remote, str(tmp_path), Lease(other("old"), 0.0, "what was there before"))
    found = read(remote, str(tmp_path))
    assert found is not None
    assert found.holder == other("new")


def test_of_many_at_once_one_gets_it(remote: LocalRemote, tmp_path: Path) -> None:
    taken: list[str] = []
    start = threading.Barrier(8)

    def try_it(run_id: str) -> None:
        start.wait()
        try:
            take(remote, str(tmp_path), other(run_id))
        except WorkFailed:
            return
        taken.append(run_id)

    threads = [threading.Thread(target=try_it, args=(f"run-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1
    found = read(remote, str(tmp_path))
    assert found is not None
    assert found.holder == other(taken[0])


def test_a_host_that_is_not_deployed_cannot_be_held(remote: LocalRemote, tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match="could not be taken"):
        take(remote, str(tmp_path / "nothing"), own_holder("demo"))
