"""What a command over SSH takes: our connection, paramiko's own, and OpenSSH with a shared connection, in turn.

All against one real sshd on loopback, over connections that stand: `true` by `SshRemote`, `true` by a paramiko client
that opens its own socket, and `ssh host true` through a ControlMaster (a process each time; how Ansible connects).
``SshRemote`` runs a command below a shell of its own, the others do not; what it costs without that is told, too.
Limit: the median of ours at most a quarter of paramiko's own. Exit status 1 above it.

    python -m benchmarks.ssh_exec [--repeat 60] [--json]

Needs OpenSSH's server and client: apt-get install -y openssh-server.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import paramiko

from benchmarks.machine import VERDICTS, machine
from orchestrator.remote.ssh import SshRemote
from orchestrator.remote.ssh_link import open_link
from tests.integration.sshd import ADDRESS, SshServer, program

LIMIT_SHARE = 0.25
WARM_UP = 3


def of_remote(server: SshServer, held: ExitStack) -> Callable[[], object]:
    """`true` as edgebed runs it."""
    remote = SshRemote(server.target(), server.known_hosts())
    remote.connect()
    held.callback(remote.close)
    return lambda: remote.execute("true").checked()


def of_link(server: SshServer, held: ExitStack) -> Callable[[], object]:
    """`true` on edgebed's connection, without its shell."""
    link = open_link(server.target(), server.known_hosts())
    held.callback(link.close)

    def run() -> None:
        with link.open_session(10.0) as channel:
            channel.exec_command("true")
            assert channel.recv_exit_status() == 0

    return run


def of_paramiko(server: SshServer, held: ExitStack) -> Callable[[], object]:
    """`true` by paramiko, as its manual says."""
    client = paramiko.SSHClient()
    client.load_host_keys(str(server.known_hosts().path))
    client.connect(
        ADDRESS, server.port, server.user, key_filename=str(server.client_key), allow_agent=False, look_for_keys=False
    )
    held.callback(client.close)

    def run() -> None:
        _, stdout, _ = client.exec_command("true")
        assert stdout.channel.recv_exit_status() == 0

    return run


def of_openssh(server: SshServer, held: ExitStack) -> Callable[[], object]:
    """`ssh host true` through a connection that another process keeps."""
    path = server.folder / "control"
    options = [
        *("-F", "none", "-i", str(server.client_key), "-p", str(server.port), "-o", "BatchMode=yes"),
        *("-o", f"UserKnownHostsFile={server.known_hosts().path}", "-o", f"ControlPath={path}"),
    ]
    ssh, there = program("ssh"), f"{server.user}@{ADDRESS}"
    subprocess.run([ssh, *options, "-o", "ControlMaster=yes", "-N", "-f", there], check=True, stderr=subprocess.DEVNULL)
    held.callback(subprocess.run, [ssh, *options, "-O", "exit", there], check=True, stderr=subprocess.DEVNULL)
    return lambda: subprocess.run([ssh, *options, there, "true"], check=True, stderr=subprocess.DEVNULL)


WAYS: dict[str, Callable[[SshServer, ExitStack], Callable[[], object]]] = {
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


def measure(repeat: int) -> dict[str, Any]:
    """Run the benchmark; the answer is what ``--json`` prints."""
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    connects_s = []
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory()))
        server = SshServer(folder / "server").start()
        held.callback(server.stop)
        runs = {name: make(server, held) for name, make in WAYS.items()}
        for number in range(WARM_UP + repeat):
            for name, run in runs.items():  # in turn: what else the machine does hits all alike
                took_s = seconds_of(run)
                if number >= WARM_UP:
                    found[name].append(took_s)
        for _ in range(10):
            remote = SshRemote(server.target(), server.known_hosts())
            connects_s.append(seconds_of(remote.connect))
            remote.close()
    p50_s = {name: statistics.median(values) for name, values in found.items()}
    share = p50_s["edgebed"] / p50_s["paramiko"]
    return {
        "benchmark": "ssh_exec",
        "repeat": repeat,
        **{f"{name}_p50_s": value for name, value in p50_s.items()},
        **{f"{name}_p90_s": statistics.quantiles(values, n=10)[-1] for name, values in found.items()},
        "connect_p50_s": statistics.median(connects_s),
        "share_of_paramiko": share,
        "limit_share": LIMIT_SHARE,
        "within_limit": share <= LIMIT_SHARE,
        **machine(),
    }


def main() -> int:
    """Run the benchmark and print its answer."""
    parser = argparse.ArgumentParser(description="What a command over SSH takes")
    parser.add_argument("--repeat", type=int, default=60, help="commands each")
    parser.add_argument("--json", action="store_true", help="one object on one line")
    options = parser.parse_args()
    found = measure(max(2, options.repeat))
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
