"""What ``faults.sh`` does as root: on a network, processor files, a disk of its own, never on this machine's.

The host is a network namespace or a mount namespace; the commands are the real ones. Only the clock, which no
namespace has, is set by a stand-in for ``date`` that writes down what it was told.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.lab

SCRIPT = Path("orchestrator/faults/faults.sh")
NETWORK = "edgebed-faults-test"
OURS, THEIRS = "10.214.99.1", "10.214.99.2"
SSH_PORT = 2299


@dataclass(frozen=True)
class Host:
    """Something like a host: faults are done where ``enter`` leads."""

    folder: Path
    enter: tuple[str, ...]

    def script(self, *words: str, path: str = "") -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"SSH_CONNECTION": f"{OURS} 40000 {THEIRS} {SSH_PORT}", "HOME": str(self.folder)}
        environment["PATH"] = path + environment["PATH"]
        command = [*self.enter, "sh", f"{self.folder}/faults.sh", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)

    def run(self, command: str) -> str:
        done = subprocess.run(
            [*self.enter, "sh", "-c", command], capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout.strip()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "faults.sh").write_bytes(SCRIPT.read_bytes())
    return tmp_path.resolve()


def until(holds: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + 30.0
    while not holds():
        assert time.monotonic() < deadline_s, f"{what} never came"
        time.sleep(0.02)


# --- the link ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def networked(folder: Path) -> Iterator[Host]:
    """A network namespace with a cable to this machine."""
    near, far = "edgebed-ft0", "edgebed-ft1"
    subprocess.run(["ip", "netns", "add", NETWORK], check=True)
    try:
        host = Host(folder, ("ip", "netns", "exec", NETWORK))
        for command in (
            f"ip link add {near} type veth peer name {far} netns {NETWORK}",
            f"ip addr add {OURS}/30 dev {near}",
            f"ip link set {near} up",
        ):
            subprocess.run(command.split(), check=True)
        host.run(f"ip addr add {THEIRS}/30 dev {far}; ip link set {far} up; ip link set lo up")
        yield host
    finally:
        subprocess.run(["ip", "link", "del", near], check=False)  # a namespace goes when its last process does
        subprocess.run(["ip", "netns", "del", NETWORK], check=True)


def is_answered() -> bool:
    """Does a ping get there and back?"""
    command = ["ping", "-c", "1", "-W", "1", THEIRS]
    return subprocess.run(command, capture_output=True, check=False, timeout=20).returncode == 0


def connects(port: int) -> bool:
    """Does TCP get as far as an answer? Nobody listens: to be refused is an answer."""
    code = f"import socket; s = socket.socket(); s.settimeout(1); print(s.connect_ex(('{THEIRS}', {port})))"
    done = subprocess.run(["python3", "-c", code], capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.strip() == "111"


def test_a_cut_link_lets_only_the_orchestrators_ssh_through_and_lifts_itself(networked: Host) -> None:
    until(is_answered, "the cable")
    assert networked.script("able", "cut_link").returncode == 0
    done = networked.script("begin", "1-0", "3", "cut_link")
    assert done.returncode == 0, done.stderr
    assert not is_answered()
    assert not connects(5555)
    assert connects(SSH_PORT), "by this way it could be lifted, and looked at"
    until(is_answered, "the host's own timer")
    assert networked.run("nft list ruleset") == ""
    assert networked.script("lift", "1-0", "time").stdout.strip() == "timer"


def test_a_cut_link_is_lifted_on_request(networked: Host) -> None:
    until(is_answered, "the cable")
    networked.run("nft add table inet mine")
    assert networked.script("begin", "1-0", "1000", "cut_link").returncode == 0
    assert networked.script("lift_all", "end").stdout.strip() == "1-0 end"
    assert is_answered()
    assert networked.run("nft list ruleset").split() == ["table", "inet", "mine", "{", "}"], "others' rules stay"


def test_a_link_that_somebody_shapes_is_left_alone(networked: Host) -> None:
    networked.run("tc qdisc add dev edgebed-ft1 root handle 1: tbf rate 1mbit burst 10k latency 50ms")
    done = networked.script("begin", "1-0", "1000", "slow_link", "delay", "10ms")
    assert done.returncode == 1
    assert "edgebed-ft1 is shaped already" in done.stderr
    assert "tbf 1:" in networked.run("tc qdisc show dev edgebed-ft1")


def test_a_link_is_slowed_where_the_kernel_can_and_said_where_it_cannot(networked: Host) -> None:
    """The kernel of the machine that runs this decides which of the two it is."""
    until(is_answered, "the cable")
    able = networked.script("able", "slow_link")
    done = networked.script("begin", "1-0", "1000", "slow_link", "delay", "100ms", "loss", "0.0000%")
    shown = networked.run("tc qdisc show dev edgebed-ft1 root")
    if able.returncode:
        assert "no sch_netem" in able.stdout
    if done.returncode:
        assert "ed9e:" not in shown, "what was half done is undone"
    else:
        assert "delay 100ms" in shown
    assert networked.script("lift", "1-0", "end").returncode == 0
    assert "ed9e:" not in networked.run("tc qdisc show dev edgebed-ft1 root")


# --- the processor ----------------------------------------------------------------------------------------------------


def test_the_highest_frequency_is_lowered_and_put_back(folder: Path) -> None:
    """The kernel's files are a folder of ours, mounted over them in a mount namespace."""
    cpus = folder / "cpu"
    for number, was in enumerate((1_800_000, 1_500_000)):
        policy = cpus / "cpufreq" / f"policy{number}"
        policy.mkdir(parents=True)
        (policy / "cpuinfo_max_freq").write_text("1800000\n")
        (policy / "scaling_max_freq").write_text(f"{was}\n")
    mount = f'mount --bind {cpus} /sys/devices/system/cpu && exec "$@"'
    host = Host(folder, ("unshare", "--mount", "sh", "-c", mount, "sh"))

    def highest() -> list[int]:
        return [int(path.read_text()) for path in sorted(cpus.glob("cpufreq/policy*/scaling_max_freq"))]

    assert host.script("able", "throttle").returncode == 0
    assert host.script("begin", "1-0", "1000", "throttle", "0.5").returncode == 0
    assert highest() == [900_000, 900_000]
    assert host.script("lift", "1-0", "end").stdout.strip() == "end"
    assert highest() == [1_800_000, 1_500_000], "as it was, not as it could be"


# --- the disk ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(folder: Path) -> Iterator[Path]:
    """A disk of 64 MiB of its own."""
    image, mounted = folder / "disk.img", folder / "disk"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(mounted)], check=True)
    (mounted / "faults.sh").write_bytes(SCRIPT.read_bytes())
    yield mounted
    subprocess.run(["umount", str(mounted)], check=True)


def test_a_disk_is_filled_up_to_what_is_to_stay_free(disk: Path) -> None:
    host = Host(disk, ())

    def free_bytes() -> int:
        about = os.statvfs(disk)
        return about.f_bavail * about.f_frsize

    before = free_bytes()
    assert host.script("able", "fill_disk").returncode == 0
    assert host.script("begin", "1-0", "2", "fill_disk", str(8 << 20)).returncode == 0
    assert abs(free_bytes() - (8 << 20)) < 256 << 10
    with pytest.raises(OSError, match="No space left"):
        (disk / "more").write_bytes(bytes(16 << 20))
    (disk / "more").unlink()
    again = host.script("begin", "1-1", "2", "fill_disk", str(1 << 30))
    assert again.returncode == 1
    assert "KiB are free already" in again.stderr
    until(lambda: abs(free_bytes() - before) < 256 << 10, "the host's own timer")
    until(lambda: not (disk / ".edgebed" / "faults").exists(), "an empty folder's end")
    until(lambda: host.script("lift", "1-0", "end").stdout.strip() == "timer", "the timer's word")


# --- the clock --------------------------------------------------------------------------------------------------------

DATE = """#!/bin/sh
case "$*" in
*-s*) echo "$*" >>"$HOME/set" ;;
*) exec /bin/date "$@" ;;
esac
"""


def test_a_clock_is_stepped_and_put_back_by_the_monotonic_one(folder: Path) -> None:
    """Set by a stand-in, so that nothing that reads the clock of this machine is disturbed."""
    (folder / "bin").mkdir()
    (folder / "bin" / "date").write_text(DATE)
    (folder / "bin" / "date").chmod(0o755)
    host = Host(folder, ("setpriv", "--inh-caps=-sys_time", "--bounding-set=-sys_time"))  # should it ever be called
    path = f"{folder}/bin:"
    before_s = time.time()
    assert host.script("begin", "1-0", "1000", "step_clock", "-3600", path=path).returncode == 0
    begun_s = time.time()
    until(lambda: time.time() > begun_s + 1.0, "a second")
    asked_s = time.time()
    assert host.script("lift", "1-0", "end", path=path).stdout.strip() == "end"
    words = [line.split() for line in (folder / "set").read_text().splitlines()]
    assert [each[:2] for each in words] == [["-u", "-s"]] * 2
    stepped_s, back_s = (float(each[2].removeprefix("@")) for each in words)
    assert before_s - 0.5 < stepped_s + 3600 < begun_s + 0.5
    assert asked_s - 0.5 < back_s < time.time() + 0.5
