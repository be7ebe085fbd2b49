"""The programs of a run on their hosts, all through `Remote`: brought up, found again, watched, taken down."""

from __future__ import annotations

import posixpath
import shlex
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edgebed.configuration import PeerAddress, config_bytes
from edgebed.errors import BadInput, EdgebedError, RemoteError, WorkFailed
from orchestrator.inventory import Host
from orchestrator.plan_file import Plan
from orchestrator.provision.content import content_of, place
from orchestrator.provision.credentials import Credentials, Public, load_own, make_credentials, save_own
from orchestrator.provision.layout import DEVICE_AGENT, STATE_ROOT, HostFolder, Member, members_of, programs_on
from orchestrator.provision.settings import LOOPBACK, Pace, Setup
from orchestrator.provision.supervision import ProgramState, Supervision
from orchestrator.remote.base import Remote
from orchestrator.remote.local import LocalRemote

START_TIMEOUT_S = 30.0

PORT_TRIES = 3
PORT_TAKEN = "cannot listen on"
"""What a program says that finds its port taken."""

RECORD_FILE = "deployment.json"
MAX_THREADS = 32

T = TypeVar("T")

# What a host says of itself, a line each; nothing here may fail.
_FACTS = """
echo "kernel $(uname -sr)"
echo "machine $(uname -m)"
echo "processors $(getconf _NPROCESSORS_ONLN 2>/dev/null)"
echo "model $(tr -d '\\0' 2>/dev/null </proc/device-tree/model || sed -n 's/^model name[^:]*: //p;T;q' /proc/cpuinfo)"
echo "memory_kib $(sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo 2>/dev/null)"
"""

# Run by the host's Python: ports that nobody uses now.
_FREE_PORTS = """
import socket, sys
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(each.getsockname()[1] for each in sockets))
"""


class _Deployed(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What has to be known to find the programs of a run again; nothing secret.

    Attributes:
        folders: state folder by host. endpoints: where the controller and the edge servers listen, by name.
    """

    plan_hash: str
    public: Public
    folders: dict[str, str]
    endpoints: dict[str, str]


def remote_for(host: Host) -> Remote:
    """How a host is reached.

    Raises:
        BadInput: over SSH, which this version does not do.
    """
    if host.connection == "local":
        return LocalRemote(host.name)
    raise BadInput(
        f"{host.name}: ansible_connection: {host.connection} comes later; allowed now: local (programs on this machine)"
    )


class Deployment:
    """The hosts of a run and its programs on them.

    Args:
        plan: belongs to a run folder already.
        state: name of the run's state folders, see `orchestrator.provision.layout.state_name`.
        own_folder: where this machine keeps its own keys and what it has to remember.
        connect: makes the `Remote` of a host.

    Attributes:
        members: every program, the controller first.
        facts: what each host said of itself, by name.
        cancelled: when set, `bring_up` starts nothing more.
    """

    def __init__(
        self,
        plan: Plan,
        state: str,
        own_folder: Path,
        *,
        connect: Callable[[Host], Remote] = remote_for,
        pace: Pace | None = None,
    ) -> None:
        self.plan = plan
        self.members = members_of(plan)
        self.facts: dict[str, dict[str, str]] = {}
        self.cancelled = threading.Event()
        self._state = state
        self._own_folder = own_folder
        self._pace = pace or Pace()
        self._remotes = {host.name: connect(host) for host in plan.hosts}
        self._hosts = {host.name: host for host in plan.hosts}
        self._folders: dict[str, HostFolder] = {}
        self._endpoints: dict[str, str] = {}
        self._credentials: Credentials | None = None
        self._content: dict[str, bytes] = {}
        self._pool = ThreadPoolExecutor(min(MAX_THREADS, len(self.members) + 1), "hosts")

    # -- what is known once it is up ----------------------------------------------------------------------------------

    def remote(self, host: str) -> Remote:
        """How a host is reached."""
        return self._remotes[host]

    def folder(self, host: str) -> HostFolder | None:
        """A host's state folder; None before the host was reached."""
        return self._folders.get(host)

    @property
    def credentials(self) -> Credentials:
        """The keys of the run."""
        assert self._credentials is not None, "bring_up or adopt comes first"
        return self._credentials

    @property
    def controller(self) -> PeerAddress:
        """Where the controller listens."""
        name = self.members[0].name
        return PeerAddress(name, self._endpoints[name], self.credentials.public.keys[name])

    def member(self, name: str) -> Member:
        """The program that is called ``name``."""
        return next(member for member in self.members if member.name == name)

    # -- up -----------------------------------------------------------------------------------------------------------

    def bring_up(self) -> None:
        """Make folders, keys and settings, and start every program, all at the same time.

        So that devices need not wait until the others listen, ports are chosen beforehand.

        Raises:
            WorkFailed: with what failed on every host. What was started is left for `stop`.
        """
        self._content = content_of(self.plan)
        _make_private(self._own_folder)
        self._credentials = make_credentials(self.plan, self.members)
        save_own(self._credentials, self._own_folder)
        self._on_every_host(self._prepare_host)
        for tries_left in reversed(range(PORT_TRIES)):
            self._choose_endpoints()
            self._remember()
            try:
                self._on_every_host(self._start_host)
            except WorkFailed as error:
                # Between choosing a port and listening on it, someone else may have taken it.
                if not tries_left or PORT_TAKEN not in str(error):
                    raise
                self.stop(1.0)
            else:
                return

    def _on_every_host(self, work: Callable[[Host], T]) -> list[T]:
        return _all_of([self._pool.submit(work, host) for host in self._hosts.values()])

    def _prepare_host(self, host: Host) -> None:
        self._locate(host)
        self._supervision(host.name).install()
        place(self._remotes[host.name], self._folders[host.name], self._content, are_kept=host.connection != "local")
        for member in self._members_on(host):
            key = msgspec.json.encode(self.credentials.secrets[member.name])
            self._remotes[host.name].upload(key, self._folders[host.name].key(member.program))

    def _members_on(self, host: Host) -> list[Member]:
        return [member for member in self.members if member.host.name == host.name]

    def _choose_endpoints(self) -> None:
        for endpoints in self._on_every_host(self._endpoints_on):
            self._endpoints |= endpoints

    def _endpoints_on(self, host: Host) -> dict[str, str]:
        """Where each program of a host that listens is to do so; the host names ports that are free now."""
        listening = [member for member in self._members_on(host) if member.program != DEVICE_AGENT]
        if not listening:
            return {}
        command = shlex.join([host.python or sys.executable, "-I", "-S", "-c", _FREE_PORTS, str(len(listening))])
        done = self._remotes[host.name].execute(command, idempotent=True).checked("no free ports could be found")
        ports = dict(zip((member.name for member in listening), done.text.split(), strict=True))
        if host.port:
            ports[host.name] = str(host.port)
        return {name: f"{LOOPBACK}:{port}" for name, port in ports.items()}

    def _start_host(self, host: Host) -> None:
        """Start the programs of a host, and wait until those that listen do."""
        setup = Setup(self.plan, self.members, self.credentials.public, self._endpoints, self._pace)
        folder, supervision = self._folders[host.name], self._supervision(host.name)
        members = self._members_on(host)
        for member in members:
            if self.cancelled.is_set():
                raise WorkFailed("starting the programs was cancelled")
            self._remotes[host.name].upload(config_bytes(setup.config(member, folder)), folder.config(member.program))
            supervision.start(member.program, folder.command(host.python or sys.executable, member.program))
        for member in members:
            if member.name in self._endpoints:
                supervision.await_endpoint(member.program, START_TIMEOUT_S)

    def _locate(self, host: Host) -> None:
        """Reach a host, and make the run's state folder there unless it has it."""
        remote = self._remotes[host.name]
        remote.connect()
        path = f"{STATE_ROOT}/{shlex.quote(self._state)}/{shlex.quote(host.name)}"
        command = f"umask 077; mkdir -p {path}/keys && cd {path} && pwd -P || exit 1\n{_FACTS}"
        done = remote.execute(command, idempotent=True).checked("the state folder could not be made")
        folder, *facts = done.text.splitlines()
        self._folders[host.name] = HostFolder(folder)
        pairs = (line.partition(" ") for line in facts)
        self.facts[host.name] = {name: value.strip() for name, _, value in pairs if value.strip()}

    def _supervision(self, host: str) -> Supervision:
        return Supervision(self._remotes[host], self._folders[host].path)

    def _remember(self) -> None:
        record = _Deployed(
            plan_hash=self.plan.plan_hash,
            public=self.credentials.public,
            folders={name: folder.path for name, folder in self._folders.items()},
            endpoints=self._endpoints,
        )
        path = self._own_folder / RECORD_FILE
        temporary = path.with_name(f".{RECORD_FILE}.new")
        temporary.write_bytes(msgspec.json.encode(record))
        temporary.replace(path)

    # -- found again --------------------------------------------------------------------------------------------------

    def adopt(self) -> bool:
        """Find the programs of an earlier session, and start those again that have ended.

        Returns:
            False when there is nothing complete to be adopted: `stop`, collect, and `bring_up` then.

        Raises:
            WorkFailed: a host could not be reached.
        """
        self._on_every_host(self._locate)
        with suppress(OSError, msgspec.MsgspecError, BadInput):
            record = msgspec.json.decode((self._own_folder / RECORD_FILE).read_bytes(), type=_Deployed)
            folders = {name: folder.path for name, folder in self._folders.items()}
            if record.plan_hash != self.plan.plan_hash or record.folders != folders:
                return False
            self._credentials = load_own(record.public, self._own_folder)
            self._endpoints = record.endpoints
            return all(self._on_every_host(self._adopt_host))
        return False

    def _adopt_host(self, host: Host) -> bool:
        remote, folder = self._remotes[host.name], self._folders[host.name]
        programs = programs_on(host.name, self.members)
        files = [folder.config(program) for program in programs]
        there = " && ".join(f"test -f {shlex.quote(path)}" for path in files)
        if remote.execute(there, idempotent=True).status != 0:
            return False
        for program, state in self._supervision(host.name).states(programs).items():
            if not state.is_kept:
                self._supervision(host.name).start(program, folder.command(host.python or sys.executable, program))
        return True

    # -- watched ------------------------------------------------------------------------------------------------------

    def states(self) -> dict[str, ProgramState | None]:
        """How every program stands, by member; None where its host could not be asked."""
        found: dict[str, ProgramState | None] = {member.name: None for member in self.members}
        answers = {name: self._pool.submit(self._states_of, name) for name in self._folders}
        for member in self.members:
            answer = answers.get(member.host.name)
            with suppress(RemoteError):
                found[member.name] = answer.result()[member.program] if answer else None
        return found

    def _states_of(self, host: str) -> dict[str, ProgramState]:
        return self._supervision(host).states(programs_on(host, self.members))

    def pid_of(self, host: str, program: str) -> int | None:
        """The process of a program; None when it does not run.

        Raises:
            RemoteError: the host was lost.
        """
        return self._supervision(host).states([program])[program].pid

    def log_tail(self, member: Member) -> str:
        """The last lines that a program has logged.

        Raises:
            RemoteError: its host was lost.
        """
        return self._supervision(member.host.name).log_tail(member.program)

    def in_background(self, work: Callable[[], T]) -> Future[T]:
        """Let a thread do what may take long on a host."""
        return self._pool.submit(work)

    # -- down ---------------------------------------------------------------------------------------------------------

    def stop(self, grace_s: float) -> list[str]:
        """End every program, also those that do not answer.

        Returns:
            A sentence for each host where that failed.
        """
        work = [self._pool.submit(self._stop_host, name, grace_s) for name in self._folders]
        return _problems_of(work)

    def _stop_host(self, host: str, grace_s: float) -> None:
        # A host whose preparation was cut short has no script yet, and so no program.
        script = shlex.quote(f"{self._folders[host].path}/supervise.sh")
        if self._remotes[host].execute(f"test -f {script}", idempotent=True).status == 0:
            self._supervision(host).stop(programs_on(host, self.members), grace_s)

    def remove(self) -> list[str]:
        """Delete the state folders, keys and all. Everything has to be stopped and collected.

        Returns:
            A sentence for each host where that failed.
        """
        problems = _problems_of([self._pool.submit(self._remove_host, name) for name in self._folders])
        if not problems:
            with suppress(OSError):
                for path in self._own_folder.iterdir():
                    path.unlink()
                self._own_folder.rmdir()
                self._own_folder.parent.rmdir()
        return problems

    def _remove_host(self, host: str) -> None:
        path = self._folders[host].path
        # The last host of this machine also removes the folder around them.
        command = f"rm -rf {shlex.quote(path)} && {{ rmdir {shlex.quote(posixpath.dirname(path))} 2>/dev/null || :; }}"
        self._remotes[host].execute(command, idempotent=True).checked("the state folder could not be removed")

    def close(self) -> None:
        """Let the hosts go; programs stay as they are."""
        self._pool.shutdown(cancel_futures=True)
        for remote in self._remotes.values():
            remote.close()


def _make_private(folder: Path) -> None:
    """Make a folder, and those around it that are missing, for their owner alone."""
    for missing in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)


def _all_of(work: Sequence[Future[T]]) -> list[T]:
    """The results of all, once all have ended.

    Raises:
        WorkFailed: with what failed, each failure once.
    """
    problems = _problems_of(work)
    if problems:
        raise WorkFailed("\n".join(problems))
    return [each.result() for each in work]


def _problems_of(work: Sequence[Future[Any]]) -> list[str]:
    """A sentence for each failure among futures, once all have ended; one that others waited for counts once."""
    failures = [error for each in work if (error := each.exception()) is not None]
    for error in failures:
        if not isinstance(error, EdgebedError):
            raise error
    return list(dict.fromkeys(str(error) for error in failures))
