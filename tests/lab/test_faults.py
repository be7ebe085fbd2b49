"""Faults on virtual hosts: each is done over the real way, seen on the host, and over by itself or on request."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgebed.errors import RemoteError
from orchestrator.faults import planning
from orchestrator.faults.hands import Hands, SshHands, do
from orchestrator.faults.kinds import KINDS
from orchestrator.faults.lab import LabDeviceHands, LabHands, hands_of
from orchestrator.faults.lab_undo import main as undo_main
from orchestrator.faults.schedule import Act, PlannedFault
from orchestrator.inventory import Host, load_inventory
from orchestrator.provision.layout import STATE_ROOT
from orchestrator.remote.base import Remote
from orchestrator.remote.connect import remote_for
from orchestrator.remote.host_keys import KnownHosts
from tests.lab.running_lab import RunningLab, eventually

pytestmark = pytest.mark.lab

DEVICE = "pi-1"


@pytest.fixture
def remote(lab: RunningLab) -> Iterator[Remote]:
    made = remote_for(host_of(lab), KnownHosts.beside(lab.hosts_file))
    made.connect()
    yield made
    made.close()


def host_of(lab: RunningLab, name: str = DEVICE) -> Host:
    return load_inventory(lab.hosts_file).host(name)


@pytest.fixture
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What undoes faults of the lab from this machine lies below it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "edgebed" / "lab-faults"


@pytest.fixture
def hands(lab: RunningLab, remote: Remote, state_home: Path) -> Iterator[Hands]:
    """A device's, with a state folder as a run makes it; all is lifted at the end, whatever the test did."""
    made = remote.execute(
        f"mkdir -p {STATE_ROOT}/faults-test/{DEVICE} && cd {STATE_ROOT}/faults-test/{DEVICE} && pwd -P"
    )
    host = host_of(lab)
    found = hands_of(host)(host, remote, made.checked().text, lambda program: None)
    found.prepare()
    yield found
    eventually(lambda: answers(remote), 60.0)
    found.lift_all("end")
    remote.execute(f"rm -rf {found.folder}").checked()


def answers(remote: Remote) -> bool:
    """Does the host answer within a second?"""
    try:
        return remote.execute("true", timeout_s=1.0).status == 0
    except RemoteError:
        remote.close()
        try:
            remote.connect()
        except RemoteError:
            return False
        return True


def act(kind: str, for_s: float = 0.0, **parameters: float) -> Act:
    fault = PlannedFault(number=0, at_s=0.0, for_s=for_s, kind=kind, host=DEVICE, parameters=parameters)
    return Act("1-0", fault)


def seconds(work: Callable[[], object]) -> float:
    began_s = time.monotonic()
    work()
    return time.monotonic() - began_s


def test_virtual_hosts_can_all_but_step_the_clock(lab: RunningLab) -> None:
    can = {
        name: {kind for kind, about in KINDS.items() if issubclass(hands_of(host_of(lab, name)), about.ability)}
        for name in (DEVICE, "edge")
    }
    assert can == {DEVICE: KINDS.keys() - {"step_clock"}, "edge": KINDS.keys() - {"step_clock", "slow_link"}}
    assert (hands_of(host_of(lab)), hands_of(host_of(lab, "edge"))) == (LabDeviceHands, LabHands)
    inventory = load_inventory(lab.hosts_file)
    (text,) = planning._unable([act("step_clock", 1.0, by_s=5.0).fault], inventory)
    assert "pi-1 is a virtual host, whose clock is this machine's, which cannot do that" in text


def test_a_cut_link_heals_by_itself(hands: Hands, remote: Remote, state_home: Path) -> None:
    do(hands, act("cut_link", for_s=5.0))
    with pytest.raises(RemoteError):
        remote.execute("true", timeout_s=1.0)
    eventually(lambda: answers(remote), 30.0)
    assert hands.lift("1-0", "time") == "timer"
    hands.lift_all("end")
    assert not list(state_home.glob("*"))


def test_a_cut_link_is_restored_on_request_though_the_host_cannot_be_reached(hands: Hands, remote: Remote) -> None:
    do(hands, act("cut_link", for_s=1000.0))
    assert hands.lift("1-0", "end") == "end"
    eventually(lambda: answers(remote), 30.0)


def test_a_link_is_slowed_and_is_what_it_was_again(hands: Hands, remote: Remote, lab: RunningLab) -> None:
    before = lab.live.status()["hosts"][DEVICE]["link"]["shape"]
    do(hands, act("slow_link", for_s=1000.0, delay_s=0.1, rate_bps=2e6))
    assert min(seconds(lambda: remote.execute("true")) for _ in range(3)) > 0.2, "100 ms more each way"
    shape = lab.live.status()["hosts"][DEVICE]["link"]["shape"]
    assert (shape["rate_bps"], shape["jitter_s"]) == (2e6, before["jitter_s"])
    assert shape["delay_s"] == pytest.approx(before["delay_s"] + 0.1)
    assert hands.lift("1-0", "end") == "end"
    assert lab.live.status()["hosts"][DEVICE]["link"]["shape"] == before
    eventually(lambda: seconds(lambda: remote.execute("true")) < 0.2)


def test_a_throttled_board_says_so_in_its_own_words(hands: Hands, remote: Remote) -> None:
    do(hands, act("throttle", for_s=1000.0, fraction=0.5))
    eventually(lambda: int(said(remote, "vcgencmd get_throttled"), 0) & 0x4 != 0)
    eventually(lambda: abs(float(said(remote, "vcgencmd measure_clock arm")) / 0.75e9 - 1) < 0.05)
    assert hands.lift("1-0", "end") == "end"
    eventually(lambda: int(said(remote, "vcgencmd get_throttled"), 0) & 0x4 == 0)


def said(remote: Remote, command: str) -> str:
    """What stands after the ``=`` in an answer of the firmware."""
    return remote.execute(command).checked().text.partition("=")[2]


def free_bytes(remote: Remote) -> int:
    return int(remote.execute("df -Pk \"$HOME\" | awk 'NR == 2 { print $4 }'").checked().text) * 1024


def test_a_disk_is_filled_and_emptied(hands: Hands, remote: Remote) -> None:
    before = free_bytes(remote)
    assert hands.why_not("fill_disk") == ""
    do(hands, act("fill_disk", for_s=1000.0, leave_bytes=float(32 << 20)))
    assert abs(free_bytes(remote) - (32 << 20)) < 1 << 20
    full = remote.execute('head -c 64M /dev/zero >"$HOME/more"; s=$?; rm -f "$HOME/more"; exit $s')
    assert full.status != 0
    assert b"No space left" in full.stderr
    assert hands.lift("1-0", "end") == "end"
    assert abs(free_bytes(remote) - before) < 1 << 20


def test_a_reboot_is_over_when_the_host_is_back(hands: Hands, remote: Remote, lab: RunningLab) -> None:
    boots = lab.live.status()["hosts"][DEVICE]["boots"]
    assert hands.why_not("reboot") == ""
    do(hands, act("reboot"))
    assert hands.lift("1-0", "time") is None, "not over yet"

    def is_over() -> bool:
        try:
            return hands.lift("1-0", "time") == "time"
        except RemoteError:
            remote.close()
            answers(remote)
            return False

    eventually(is_over, 60.0)
    assert lab.live.status()["hosts"][DEVICE]["boots"] == boots + 1


def test_what_a_dead_orchestrator_left_is_found_after_a_reboot(hands: Hands, remote: Remote, lab: RunningLab) -> None:
    """The timer of the filled disk dies with the host; the undo is on the disk and waits for `resume`."""
    before = free_bytes(remote)
    do(hands, act("fill_disk", for_s=1000.0, leave_bytes=float(32 << 20)))
    boots = lab.live.status()["hosts"][DEVICE]["boots"]
    lab.live.reboot(DEVICE)
    eventually(lambda: lab.live.status()["hosts"][DEVICE]["boots"] == boots + 1)
    eventually(lambda: answers(remote), 60.0)
    assert free_bytes(remote) < 64 << 20
    assert hands.lift_all("resume") == {"1-0": "resume"}
    assert abs(free_bytes(remote) - before) < 1 << 20


def test_what_a_fresh_host_lacks_is_said(hands: Hands) -> None:
    """As hosts behind SSH do it: the lab's hosts have sudo, but no nft and, here, no cpufreq."""
    done: Any = hands.remote.execute(hands._command("able", "cut_link"))
    assert done.status == 1
    assert done.text == "there is no nft; install it: sudo apt install nftables"


def test_a_lab_that_is_gone_needs_no_undoing() -> None:
    assert undo_main(["no-such-lab", DEVICE, "restore"]) == 0
    elsewhere = Host(name="x", role="device", connection="ssh", address="127.0.0.9", board="generic-x86")
    assert hands_of(elsewhere) is SshHands
