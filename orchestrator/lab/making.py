"""Makes a lab: its state folder, network, disks, keeper; and takes everything back when it cannot."""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from edgebed.errors import BadInput, EdgebedError, WorkFailed
from edgebed.metering.board import Board
from orchestrator.lab import network
from orchestrator.lab.control import ask
from orchestrator.lab.disks import make_disk
from orchestrator.lab.hosts_file import DEFAULT_HOSTS_FILE, check_hosts_file, write_hosts_file
from orchestrator.lab.image import build_root, machine_architecture
from orchestrator.lab.keys import KeyPair, new_key
from orchestrator.lab.netem import has_netem
from orchestrator.lab.programs import call, require_lab
from orchestrator.lab.shaping import LinkShape
from orchestrator.lab.spec import DEFAULT_NAME, MOST_DEVICES, STATE_ROOT, Lab, LabHost, check_name, lab_names, labs
from orchestrator.lab.teardown import note_keeper, take_down

BOOT_TIMEOUT_S = 90.0
"""On a busy machine with many hosts; one host alone takes a second."""
ARM64_BOOT_TIMEOUT_S = 600.0

FIRST_DEVICE = 11
LEAST_DISK_BYTES = 256 << 20
MOST_DISK_BYTES = 1000 << 30
_POLL_S = 0.05
_TMPFS_SIZE = "64m"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabWish:
    """What a lab is asked to be.

    Attributes:
        device_boards: one a device.
        server_board: of the edge server.
        link: of every device.
        cpu_cores: quota of each device; None = all of the machine's.
        device_slowdown, server_slowdown: written to the hosts file.
        disk_bytes: size of each host's disk.
        arm64: the last device is one, emulated.
    """

    name: str = DEFAULT_NAME
    hosts_file: Path = DEFAULT_HOSTS_FILE
    device_boards: tuple[Board, ...]
    server_board: Board
    link: LinkShape = field(default_factory=LinkShape)
    cpu_cores: float | None = None
    device_slowdown: float = 1.0
    server_slowdown: float = 1.0
    disk_bytes: int = 4 << 30
    meter: str = "cpu_model"
    arm64: bool = False
    mirror: str | None = None


def set_up(wish: LabWish, say: Callable[[str], None]) -> Lab:
    """Make a lab, and wait until every host of it answers by SSH.

    Args:
        wish: what it is to be.
        say: told what is being done.

    Raises:
        BadInput: it cannot be here, or not so.
        WorkFailed: it could not be made. Then, as after Ctrl-C, nothing of it is left.
    """
    require_lab()
    _check(wish)
    roots = {"": str(build_root(say, mirror=wish.mirror))}
    if wish.arm64:
        from orchestrator.lab.arm64 import require_arm64

        require_arm64()
        roots["arm64"] = str(build_root(say, "arm64", wish.mirror))
    with _alone():
        lab = _described(wish, roots)
        _make_state(lab)
    try:
        keys = _make(lab, wish, say)
        _wait_for_ssh(lab, say)
        write_hosts_file(lab, keys)
    except BaseException:
        say(f"taking the lab {lab.name} back")
        take_down(lab.name)
        raise
    return lab


def _check(wish: LabWish) -> None:
    check_name(wish.name)
    if wish.name in lab_names():
        raise BadInput(
            f"there is a lab called {wish.name} already; take it down (edgebed lab down --name {wish.name}), "
            "or give this one another name with --name, and another hosts file with --hosts"
        )
    if not 1 <= len(wish.device_boards) <= MOST_DEVICES:
        raise BadInput(f"--devices is {len(wish.device_boards)}; allowed is 1 to {MOST_DEVICES}")
    if not LEAST_DISK_BYTES <= wish.disk_bytes <= MOST_DISK_BYTES:
        raise BadInput(f"--disk is {wish.disk_bytes} bytes; allowed is 256M to 1000G")
    check_hosts_file(wish.hosts_file, wish.name)


@contextmanager
def _alone() -> Iterator[None]:
    """Nobody else chooses a name or addresses meanwhile."""
    STATE_ROOT.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(STATE_ROOT, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _described(wish: LabWish, roots: dict[str, str]) -> Lab:
    if wish.name in lab_names():  # someone was faster
        raise BadInput(f"a lab called {wish.name} has just been made; choose another name with --name")
    subnet = network.free_subnet([lab.subnet for lab in labs()])
    return Lab(
        name=wish.name,
        subnet=subnet,
        hosts=tuple(_hosts(wish, roots, subnet)),
        owner=int(os.environ.get("SUDO_UID", "0")),
        hosts_file=str(wish.hosts_file.resolve()),
        meter=wish.meter,
        # Also where nothing is shaped: faults may want to slow a link later.
        shaper="netem" if has_netem() else "wire",
    )


def _hosts(wish: LabWish, roots: dict[str, str], subnet: int) -> Iterator[LabHost]:
    yield LabHost(
        name="edge",
        role="edge_server",
        index=0,
        address=f"10.213.{subnet}.2",
        board=asdict(wish.server_board),
        slowdown=wish.server_slowdown,
        root=roots[""],
        architecture=machine_architecture(),
        machine_id=secrets.token_hex(16),
    )
    last = len(wish.device_boards)
    for number, board in enumerate(wish.device_boards, start=1):
        is_arm = wish.arm64 and number == last
        yield LabHost(
            name=f"pi-{number}",
            role="device",
            index=number,
            address=f"10.213.{subnet}.{FIRST_DEVICE + number - 1}",
            board=asdict(board),
            link=wish.link,
            cpu_cores=wish.cpu_cores,
            slowdown=wish.device_slowdown,
            root=roots["arm64" if is_arm else ""],
            architecture="arm64" if is_arm else machine_architecture(),
            machine_id=secrets.token_hex(16),
        )


def _make_state(lab: Lab) -> None:
    lab.state.mkdir(mode=0o755, parents=True)
    try:
        call(["mount", "-t", "tmpfs", "-o", f"size={_TMPFS_SIZE},mode=0755", f"edgebed-{lab.name}", lab.state])
        lab.save()
    except BaseException:
        take_down(lab.name)
        raise


def _make(lab: Lab, wish: LabWish, say: Callable[[str], None]) -> dict[str, KeyPair]:
    """Everything but the wait; returns the host keys by host."""
    user_key = new_key()
    lab.key_file.touch(mode=0o600)
    lab.key_file.write_bytes(user_key.private)
    if lab.owner:
        os.chown(lab.key_file, lab.owner, -1)
    keys = {host.name: new_key() for host in lab.hosts}
    say(f"making the network {lab.prefix}0/24 and {len(lab.hosts)} disks")
    network.make_network(lab)
    for host in lab.hosts:
        make_disk(lab, host, wish.disk_bytes, keys[host.name], user_key)
    _start_keeper(lab)
    return keys


def _start_keeper(lab: Lab) -> None:
    log = os.open(lab.state / "keeper.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.lab.keeper", lab.name],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )
    finally:
        os.close(log)
    note_keeper(lab, keeper.pid)
    deadline_s = time.monotonic() + BOOT_TIMEOUT_S
    while True:
        with suppress(EdgebedError):
            ask(lab.control, "status", timeout_s=BOOT_TIMEOUT_S)
            break
        if keeper.poll() is not None or time.monotonic() > deadline_s:
            text = (lab.state / "keeper.log").read_text()[-3000:]
            raise WorkFailed(f"the lab's keeper did not start:\n{text}")
        time.sleep(_POLL_S)
    # It outlives this process on purpose; nobody is to be warned that it is still running.
    keeper.returncode = 0


def _wait_for_ssh(lab: Lab, say: Callable[[str], None]) -> None:
    say(f"waiting for {len(lab.hosts)} hosts to boot")
    waiting = {host.name: host.address for host in lab.hosts}
    is_foreign = any(host.architecture != machine_architecture() for host in lab.hosts)
    deadline_s = time.monotonic() + (ARM64_BOOT_TIMEOUT_S if is_foreign else BOOT_TIMEOUT_S)
    while waiting:
        waiting = {name: address for name, address in waiting.items() if not answers_ssh(address)}
        failed = [each for each in ask(lab.control, "status")["hosts"].items() if each[1]["state"] == "failed"]
        if waiting and (failed or time.monotonic() > deadline_s):
            name = failed[0][0] if failed else next(iter(waiting))
            said = (lab.folder_of(lab.host(name)) / "console.log").read_text()[-3000:]
            raise WorkFailed(f"{name} does not answer by SSH; on its console:\n{said}")
        if waiting:
            time.sleep(_POLL_S)


def answers_ssh(address: str, timeout_s: float = 1.0) -> bool:
    """Whether an SSH server greets there."""
    try:
        with socket.create_connection((address, 22), timeout_s) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
