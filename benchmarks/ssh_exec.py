"""What a command over SSH takes: our connection, paramiko's own, and OpenSSH with a shared connection, in turn.

All against one real sshd on loopback, over connections that stand: `true` by `SshRemote`, `true` by a paramiko client
that opens its own socket, and `ssh host true` through a ControlMaster (a process each time; how Ansible connects).
Each runs a few commands in a row, as a deploy does, before it is the next one's turn: only in a row does a command wait
for what the one before it has left unacknowledged.
``SshRemote`` runs a command below a shell of its own, the others do not; what it costs without that is told, too.
Limit: the median of ours at most a quarter of paramiko's own. Exit status 1 above it.
Where others keep the cores busy it is inconclusive: what is measured then is how long processes wait for one.

    python -m benchmarks.ssh_exec [--rounds 12] [--json]

Needs OpenSSH's server and client: apt-get install -y openssh-server.
"""

from __future__ import annotations

import argparse
import base64
import getpass
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko

from benchmarks.machine import VERDICTS, machine
from orchestrator.remote.host_keys import HostKey, KnownHosts, name_of
from orchestrator.remote.ssh import SshRemote
from orchestrator.remote.ssh_config import KeyFile, SshTarget
from orchestrator.remote.ssh_link import open_link

ADDRESS = "127.0.0.1"
LIMIT_SHARE = 0.25
IN_A_ROW = 8


@dataclass(frozen=True, slots=True)
class Server:
    """A running sshd that lets this user in."""

    folder: Path
    port: int
    user: str
    known_hosts: KnownHosts

    @property
    def client_key(self) -> Path:
        """The private key that is let in."""
        return self.folder / "client_key"

    @property
    def target(self) -> SshTarget:
        """How it is reached."""
        return SshTarget(
            name="loopback",
            address=ADDRESS,
            port=self.port,
            user=self.user,
            key_name=name_of(ADDRESS, self.port),
            key_files=(KeyFile(self.client_key, "benchmark"),),
            may_use_agent=False,
        )


def program(name: str) -> str:
    """The path of a program of OpenSSH."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        sys.exit(f"{name} is not installed: apt-get install -y openssh-server")
    return found


def start_server(held: ExitStack) -> Server:
    """Start an sshd with keys, configuration and home folder of its own; ``held`` ends it."""
    folder = Path(held.enter_context(tempfile.TemporaryDirectory()))
    for name in ("host_key", "client_key"):
        subprocess.run([program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    with socket.create_server((ADDRESS, 0)) as free:
        port = int(free.getsockname()[1])
    options = (
        *(f"ListenAddress={ADDRESS}", f"Port={port}", f"HostKey={folder / 'host_key'}", "PidFile=none", "UsePAM=no"),
        *(f"AuthorizedKeysFile={folder / 'client_key.pub'}", "StrictModes=no", f"SetEnv=HOME={folder}"),
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    command = [program("sshd"), "-D", "-e", "-f", os.devnull, *(part for each in options for part in ("-o", each))]
    process = held.enter_context(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    held.callback(process.kill)
    assert process.stderr is not None
    first = process.stderr.readline()
    assert "listening" in first, first
    threading.Thread(target=process.stderr.read, daemon=True).start()  # nobody waits for its log
    known_hosts = KnownHosts(folder / "known_hosts")
    kind, key = (folder / "host_key.pub").read_text().split()[:2]
    known_hosts.pin({name_of(ADDRESS, port): HostKey(kind, base64.b64decode(key))})
    return Server(folder, port, getpass.getuser(), known_hosts)


def of_remote(server: Server, held: ExitStack) -> Callable[[], object]:
    """`true` as edgebed runs it."""
    remote = SshRemote(server.target, server.known_hosts)
    remote.connect()
    held.callback(remote.close)
    return lambda: remote.execute("true").checked()


def of_link(server: Server, held: ExitStack) -> Callable[[], object]:
    """`true` on edgebed's connection, without its shell."""
    link = open_link(server.target, server.known_hosts)
    held.callback(link.close)

    def run() -> None:
        with link.open_session(10.0) as channel:
            channel.exec_command("true")
            assert channel.recv_exit_status() == 0

    return run


def of_paramiko(server: Server, held: ExitStack) -> Callable[[], object]:
    """`true` by paramiko, as its manual says."""
    client = paramiko.SSHClient()
    client.load_host_keys(str(server.known_hosts.path))
    client.connect(
        ADDRESS, server.port, server.user, key_filename=str(server.client_key), allow_agent=False, look_for_keys=False
    )
    held.callback(client.close)

    def run() -> None:
        _, stdout, _ = client.exec_command("true")
        assert stdout.channel.recv_exit_status() == 0

    return run


def of_openssh(server: Server, held: ExitStack) -> Callable[[], object]:
    """`ssh host true` through a connection that another process keeps."""
    path = server.folder / "control"
    options = [
        *("-F", "none", "-i", str(server.client_key), "-p", str(server.port), "-o", "BatchMode=yes"),
        *("-o", f"UserKnownHostsFile={server.known_hosts.path}", "-o", f"ControlPath={path}"),
    ]
    ssh, there = program("ssh"), f"{server.user}@{ADDRESS}"
    subprocess.run([ssh, *options, "-o", "ControlMaster=yes", "-N", "-f", there], check=True, stderr=subprocess.DEVNULL)
    held.callback(subprocess.run, [ssh, *options, "-O", "exit", there], check=True, stderr=subprocess.DEVNULL)
    return lambda: subprocess.run([ssh, *options, there, "true"], check=True, stderr=subprocess.DEVNULL)


WAYS: dict[str, Callable[[Server, ExitStack], Callable[[], object]]] = {
    "edgebed": of_remote,
    "edgebed_without_shell": of_link,
    "paramiko": of_paramiko,
    "openssh_shared": of_openssh,
}


def seconds_of(run: Callable[[], object]) -> float:
    """How long it takes."""
    begin_s = time.perf_counter()
    run()
    return time.perf_counter() - begin_s


def _verdict(share: float) -> bool | None:
    """Whether it is within the limit; None when it is not and others kept every core busy meanwhile."""
    is_disturbed = os.getloadavg()[0] > (os.cpu_count() or 1)
    return None if is_disturbed and share > LIMIT_SHARE else share <= LIMIT_SHARE


def measure(rounds: int) -> dict[str, Any]:
    """Run the benchmark; the answer is what ``--json`` prints. The first round only warms up."""
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    connects_s = []
    with ExitStack() as held:
        server = start_server(held)
        runs = {name: make(server, held) for name, make in WAYS.items()}
        for number in range(1 + rounds):
            for name, run in runs.items():  # in turn: what else the machine does hits all alike
                took_s = [seconds_of(run) for _ in range(IN_A_ROW)]
                if number > 0:
                    found[name] += took_s
        for _ in range(10):
            remote = SshRemote(server.target, server.known_hosts)
            connects_s.append(seconds_of(remote.connect))
            remote.close()
    p50_s = {name: statistics.median(values) for name, values in found.items()}
    share = p50_s["edgebed"] / p50_s["paramiko"]
    return {
        "benchmark": "ssh_exec",
        "rounds": rounds,
        "in_a_row": IN_A_ROW,
        **{f"{name}_p50_s": value for name, value in p50_s.items()},
        **{f"{name}_p90_s": statistics.quantiles(values, n=10)[-1] for name, values in found.items()},
        "connect_p50_s": statistics.median(connects_s),
        "share_of_paramiko": share,
        "limit_share": LIMIT_SHARE,
        "within_limit": _verdict(share),
        **machine(),
    }


def main() -> int:
    """Run the benchmark and print its answer."""
    parser = argparse.ArgumentParser(description="What a command over SSH takes")
    parser.add_argument("--rounds", type=int, default=12, help=f"turns of {IN_A_ROW} commands each")
    parser.add_argument("--json", action="store_true", help="one object on one line")
    options = parser.parse_args()
    found = measure(max(1, options.rounds))
    if options.json:
        print(json.dumps(found))
    else:
        for name in WAYS:
            print(f"{name:22} p50 {found[f'{name}_p50_s'] * 1e3:6.2f} ms, p90 {found[f'{name}_p90_s'] * 1e3:6.2f} ms")
        print(f"connect                p50 {found['connect_p50_s'] * 1e3:6.2f} ms")
        print(
            f"{found['share_of_paramiko']:.2f} of paramiko's own: {VERDICTS[found['within_limit']]}; {found['machine']}"
        )
    return 0 if found["within_limit"] else 1


if __name__ == "__main__":
    sys.exit(main())
