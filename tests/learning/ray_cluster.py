"""Servers for tests: network namespaces with a switch between them and nothing beyond, each with a Ray node."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.learning.training import wait_for

PORT = 6379
RAY = Path(sys.executable).parent / "ray"
OBJECT_STORE_BYTES = 100 << 20


@dataclass
class RayCluster:
    """Namespaces ``edgebed-ray<id>-<n>``, the first of which has the switch and the head.

    Attributes:
        address: of the head, as ``--ray-address`` takes it.
        addresses: of all servers.
        environment: what a program needs to be let in.
    """

    servers: int
    name: str = field(default_factory=lambda: f"edgebed-ray{os.getpid()}")
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="edgebed-ray-", dir="/tmp")))
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        # A training on this machine alone, earlier in this process, has told Ray to know no other.
        kept = {key: value for key, value in os.environ.items() if key != "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"}
        self.environment = kept | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(16),
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    @property
    def addresses(self) -> list[str]:
        return [f"10.214.7.{number}" for number in range(1, self.servers + 1)]

    @property
    def address(self) -> str:
        return f"{self.addresses[0]}:{PORT}"

    def inside(self, server: int, *words: str | Path) -> list[str]:
        """A command line that runs on a server."""
        return ["ip", "netns", "exec", self.network(server), *map(str, words)]

    def network(self, server: int) -> str:
        return f"{self.name}-{server + 1}"

    def make_network(self) -> None:
        head = self.network(0)
        for server in range(self.servers):
            call("ip", "netns", "add", self.network(server))
            call("ip", "-netns", self.network(server), "link", "set", "lo", "up")
        call("ip", "-netns", head, "link", "add", "eth0", "type", "bridge", "forward_delay", "0")
        for server in range(1, self.servers):
            peer = ("peer", "name", "eth0", "netns", self.network(server))
            call("ip", "-netns", head, "link", "add", f"to{server}", "type", "veth", *peer)
            call("ip", "-netns", head, "link", "set", f"to{server}", "master", "eth0", "up")
        for server, address in enumerate(self.addresses):
            call("ip", "-netns", self.network(server), "address", "add", f"{address}/24", "dev", "eth0")
            call("ip", "-netns", self.network(server), "link", "set", "eth0", "up")

    def start_node(self, server: int) -> None:
        """Start Ray on a server, as ``docs/learning.md`` says, and wait until the head knows it."""
        where = ("--head", f"--port={PORT}", "--include-dashboard=false", f"--temp-dir={self.folder}")
        words = where if server == 0 else (f"--address={self.address}",)
        own = (
            f"--node-ip-address={self.addresses[server]}",
            "--num-cpus=1",
            f"--object-store-memory={OBJECT_STORE_BYTES}",
        )
        log = (self.folder / f"node-{server}.log").open("wb")
        with log:
            node = subprocess.Popen(
                self.inside(server, RAY, "start", *words, *own, "--disable-usage-stats", "--block"),
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.nodes.append(node)
        wait_for(lambda: self.is_up(server))

    def is_up(self, server: int) -> bool:
        text = (self.folder / f"node-{server}.log").read_text(errors="replace")
        assert self.nodes[server].poll() is None, text
        return "Ray runtime started" in text

    def kill_node(self, server: int) -> None:
        """Everything of Ray on a server is gone at once."""
        for pid in self.processes(server):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.nodes[server].wait(60)

    def processes(self, server: int) -> list[int]:
        """Process ids of all that runs in a server's namespace."""
        found = call("ip", "netns", "pids", self.network(server)).split()
        return [int(pid) for pid in found]

    def close(self) -> None:
        for server in range(self.servers):
            if Path("/run/netns", self.network(server)).exists():
                for pid in self.processes(server):
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
        for node in self.nodes:
            node.wait(60)
        for server in reversed(range(self.servers)):
            if Path("/run/netns", self.network(server)).exists():
                call("ip", "netns", "delete", self.network(server))
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def ray_cluster(servers: int) -> Iterator[RayCluster]:
    """Servers with Ray on all of them; nothing is left of them afterwards."""
    cluster = RayCluster(servers)
    try:
        cluster.make_network()
        for server in range(servers):
            cluster.start_node(server)
        yield cluster
    finally:
        cluster.close()


def call(*words: str) -> str:
    """Run a program to its end; what it printed."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout
