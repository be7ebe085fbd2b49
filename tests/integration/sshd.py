"""A real SSH server on this machine for tests: its own port, keys and configuration in a temporary folder.

The fixture ``ssh_servers`` of ``tests/conftest.py`` makes them: ``server = ssh_servers(MaxSessions=1)``.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from orchestrator.inventory import Host
from orchestrator.remote.host_keys import HostKey, KnownHosts, name_of
from orchestrator.remote.ssh_config import KeyFile, SshTarget

ADDRESS = "127.0.0.1"
PATIENCE_S = 30.0

T = TypeVar("T")


def program(name: str) -> str:
    """The path of a program of OpenSSH; a test that needs one fails without it."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.fail(f"{name} is not installed; it is needed by this test: apt-get install -y openssh-server")
    return found


def make_key(path: Path, *options: str) -> Path:
    """Make a key pair; the private half lies at ``path``, the public one beside it."""
    for each in (path, path.with_name(f"{path.name}.pub")):
        each.unlink(missing_ok=True)
    command = [program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path), *options]
    subprocess.run(command, check=True)
    return path


def wait_until(look: Callable[[], T], what: str) -> T:
    """Look until something is there; returns it."""
    end_s = time.monotonic() + PATIENCE_S
    while not (found := look()):
        assert time.monotonic() < end_s, f"{what} never came"
        time.sleep(0.005)
    return found


def free_port() -> int:
    """A port where nobody listens now."""
    with socket.create_server((ADDRESS, 0)) as server:
        return int(server.getsockname()[1])


class SshServers:
    """Makes servers, and ends them all.

    Args:
        folder: has a folder for each.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: list[SshServer] = []

    def __call__(self, **options: Any) -> SshServer:
        """Start one more; the options are those of `SshServer`."""
        server = SshServer(self._folder / f"server-{len(self._made)}", **options)
        self._made.append(server)
        return server.start()

    def stop(self) -> None:
        """End them."""
        for server in self._made:
            server.stop()


class SshServer:
    """A server that lets this user in with one key.

    Args:
        folder: its own.
        host_key: private key that it shows; a new one by default.
        settings: lines of ``sshd_config`` by keyword; they win over what is set here.

    Attributes:
        client_key: the private key that is let in.
        home: the home folder of who is let in.
    """

    def __init__(self, folder: Path, *, host_key: Path | None = None, **settings: object) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        self.port = free_port()
        self.user = getpass.getuser()
        self.host_key = host_key or make_key(folder / "host_key")
        self.client_key = make_key(folder / "client_key")
        self.log_file = folder / "sshd.log"
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        shutil.copy(f"{self.client_key}.pub", folder / "authorized_keys")

    # -- its life ------------------------------------------------------------------------------------------------------

    def start(self) -> SshServer:
        """Start it and wait until it listens."""
        if os.geteuid() == 0:  # where sshd, run by root, wants an empty folder
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        config = self.folder / "sshd_config"
        config.write_text("".join(f"{name} {value}\n" for name, value in self._config().items()))
        with self.log_file.open("wb") as log:
            command = [program("sshd"), "-D", "-e", "-f", str(config)]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._process = process
        wait_until(lambda: "Server listening" in self.log or process.poll() is not None, "the SSH server")
        assert process.poll() is None, self.log
        return self

    def _config(self) -> dict[str, object]:
        config: dict[str, object] = {
            "ListenAddress": ADDRESS,
            "Port": self.port,
            "HostKey": self.host_key,
            "AuthorizedKeysFile": self.folder / "authorized_keys",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
            "UseDNS": "no",
            "MaxStartups": "100",
            "LogLevel": "VERBOSE",
            "SetEnv": f"HOME={self.home}",  # nobody's login scripts, and nobody's files in danger
        }
        return config | self._settings

    def configure(self, **settings: object) -> None:
        """Change lines of its configuration, from its next start on."""
        self._settings |= settings

    def processes(self) -> list[psutil.Process]:
        """The server and the server's processes of each connection; not what was run through them."""
        assert self._process is not None
        server = psutil.Process(self._process.pid)
        found = [server]
        for each in server.children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # a connection may be ending
                found += [each] if each.name().startswith("sshd") else []
        return found

    def pause(self) -> None:
        """Fall silent: connections stay, nothing is answered."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """Answer again."""
        self._send(signal.SIGCONT)

    def stop(self) -> None:
        """End it with all its connections, as a host that dies; what was run through them is not ended."""
        if self._process is None:
            return
        self._send(signal.SIGKILL)
        self._process.wait()
        self._process = None

    def _send(self, number: signal.Signals) -> None:
        for each in self.processes():
            with suppress(psutil.NoSuchProcess):
                each.send_signal(number)

    def restart(self, *, with_new_host_key: bool = False) -> None:
        """Stop and start, at the same port; with a new host key it looks as a host that was flashed anew."""
        self.stop()
        if with_new_host_key:
            make_key(self.host_key)
        self.start()

    # -- what is known of it -------------------------------------------------------------------------------------------

    @property
    def log(self) -> str:
        """What it has written."""
        return self.log_file.read_text(errors="replace")

    @property
    def name(self) -> str:
        """What it is called in a ``known_hosts`` file."""
        return name_of(ADDRESS, self.port)

    @property
    def key(self) -> HostKey:
        """The public half of its host key."""
        line = self.folder / "known_hosts_line"
        line.write_text(f"{self.name} {self.host_key.with_name(f'{self.host_key.name}.pub').read_text()}")
        return KnownHosts(line).known(self.name).keys[0]

    def known_hosts(self, folder: Path | None = None) -> KnownHosts:
        """A project's file that has its key."""
        known = KnownHosts((folder or self.folder) / "known_hosts", hosts_file="pis.yaml")
        known.pin({self.name: self.key})
        return known

    def target(self, name: str = "pi-1", **changes: object) -> SshTarget:
        """How it is reached."""
        values: dict[str, object] = {
            "name": name,
            "address": ADDRESS,
            "port": self.port,
            "user": self.user,
            "key_name": self.name,
            "key_files": (KeyFile(self.client_key, "ansible_ssh_private_key_file"),),
            "may_use_agent": False,
        }
        return SshTarget(**(values | changes))  # type: ignore[arg-type]

    def variables(self) -> dict[str, Any]:
        """It as a host of a hosts file."""
        return {
            "ansible_host": ADDRESS,
            "ansible_port": self.port,
            "ansible_user": self.user,
            "ansible_ssh_private_key_file": str(self.client_key),
            "edgebed_board": "generic-x86",
        }

    def host(self, name: str = "pi-1") -> Host:
        """It as a host of an inventory."""
        return Host(
            name=name,
            role="device",
            connection="ssh",
            address=ADDRESS,
            ssh_port=self.port,
            user=self.user,
            ssh_key_file=str(self.client_key),
            board="generic-x86",
        )
