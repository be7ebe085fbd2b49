"""Takes a lab away, whole or half-made, with everything that it made but the cached root."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from edgebed.errors import BadInput, EdgebedError, WorkFailed
from orchestrator.lab import network
from orchestrator.lab.cgroups import HostCgroup, hierarchies
from orchestrator.lab.disks import remove_disks
from orchestrator.lab.hosts_file import remove_hosts_file
from orchestrator.lab.live import LiveLab
from orchestrator.lab.programs import call
from orchestrator.lab.spec import STATE_ROOT, Lab, check_name, lab_names, load_lab

KEEPER_END_S = 20.0
_PID_FILE = "keeper.pid"
_POLL_S = 0.02


def take_down(name: str) -> None:
    """Remove a lab. May be repeated until it succeeds: each part removes what is there.

    Raises:
        BadInput: there is no such lab.
        WorkFailed: something would not go; all the rest is gone, and what is left is named.
    """
    if check_name(name) not in lab_names():
        raise BadInput(f"there is no lab called {name!r} here; labs: {', '.join(lab_names()) or 'none'}")
    try:
        lab = load_lab(name)
    except EdgebedError:
        # It broke off before anything but its folder was there.
        _remove_state(STATE_ROOT / name)
        return
    _end_keeper(lab)
    problems = _each(
        lambda: _remove_groups(lab),
        lambda: network.remove_network(lab),
        lambda: remove_disks(lab),
        lambda: remove_hosts_file(lab),
    )
    if problems:
        raise WorkFailed(
            f"the lab {name} is not all gone; `edgebed lab down --name {name}` again:\n" + "\n".join(problems)
        )
    _remove_state(lab.state)


def _each(*parts: Callable[[], None]) -> list[str]:
    problems = []
    for part in parts:
        try:
            part()
        except (EdgebedError, OSError) as error:
            problems.append(str(error))
    return problems


def note_keeper(lab: Lab, pid: int) -> None:
    """Remember which process the keeper is; its start time tells it from one that got its number later."""
    (lab.state / _PID_FILE).write_text(f"{pid} {_started(pid)}\n")


def keeper_pid(lab: Lab) -> int | None:
    """The keeper's process, if it runs."""
    try:
        pid, started = (lab.state / _PID_FILE).read_text().split()
    except (OSError, ValueError):
        return None
    return int(pid) if _started(int(pid)) == started else None


def _started(pid: int) -> str:
    """When a process started, in ticks since the machine did; empty when there is none (a zombie has ended)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _end_keeper(lab: Lab) -> None:
    pid = keeper_pid(lab)
    if pid is None:
        return
    with suppress(EdgebedError):  # it may hang; then it is killed
        LiveLab(lab).stop()
    deadline_s = time.monotonic() + KEEPER_END_S
    while keeper_pid(lab) == pid:
        if time.monotonic() > deadline_s:
            os.kill(pid, signal.SIGKILL)
            deadline_s += KEEPER_END_S
        with suppress(ChildProcessError):  # our own child, when `up` takes back what it began
            os.waitpid(pid, os.WNOHANG)
        time.sleep(_POLL_S)


def _remove_groups(lab: Lab) -> None:
    found = hierarchies()
    for host in lab.hosts:
        HostCgroup(lab.network_of(host), found).remove()


def _remove_state(state: Path) -> None:
    while os.path.ismount(state):
        call(["umount", "--lazy", state])
    shutil.rmtree(state)
    with suppress(OSError):  # the last one: no other lab's folder and no lock in it
        STATE_ROOT.rmdir()
