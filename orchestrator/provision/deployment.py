"""The programs of a run on their hosts, all through `Remote`: brought up, found again, watched, taken down."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edgebed.configuration import PeerAddress, config_bytes
from edgebed.errors import BadInput, EdgebedError, RemoteError, WorkFailed
from edgebed.replacing import replace_file
from orchestrator.inventory import Host
from orchestrator.plan_file import Plan
from orchestrator.provision.addresses import LOOPBACK, endpoint, listening_addresses, split_endpoint
from orchestrator.provision.content import content_of, place
from orchestrator.provision.credentials import Credentials, Public, load_own, make_credentials, save_own
from orchestrator.provision.ground import Ground, reach
from orchestrator.provision.layout import DEVICE_AGENT, HostFolder, Member, members_of, programs_on
from orchestrator.provision.lease import own_holder
from orchestrator.provision.settings import Pace, Setup
from orchestrator.provision.supervision import ProgramState
from orchestrator.remote.base import Remote
from orchestrator.remote.local import LocalRemote
from orchestrator.remote.tunnel import Tunnel, tunnelling

START_TIMEOUT_S = 30.0

PORT_TRIES = 3
PORT_TAKEN = "cannot listen on"
"""What a program says that finds its port taken."""

RECORD_FILE = "deployment.json"
MAX_THREADS = 32

T = TypeVar("T")


class _Deployed(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What has to be known to find the programs of a run again; nothing secret.

    Attributes:
        folders: state folder by host. endpoints: where the controller and the edge servers listen, by name.
    """

    plan_hash: str
    public: Public
    folders: dict[str, str]
    endpoints: dict[str, str]


def local_remote(host: Host) -> Remote:
    """How a host of this machine is reached.

    Raises:
        BadInput: it is behind SSH, to which only the hosts file knows the way.
    """
    if host.connection == "local":
        return LocalRemote(host.name)
    raise BadInput(f"{host.name}: is behind SSH; the way there is in the hosts file")


class Deployment:
    """The hosts of a run and its programs on them.

    Args:
        plan: belongs to a run folder already.
        state: name of the run's state folders, see `orchestrator.provision.layout.state_name`.
        own_folder: where this machine keeps its own keys and what it has to remember.
        connect: makes the `Remote` of a host.

    Attributes:
        members: every program, the controller first.
        cancelled: when set, `bring_up` starts nothing more.
    """

    def __init__(
        self,
        plan: Plan,
        state: str,
        own_folder: Path,
        *,
        connect: Callable[[Host], Remote] = local_remote,
        pace: Pace | None = None,
    ) -> None:
        self.plan = plan
        self.members = members_of(plan)
        self.cancelled = threading.Event()
        self._state = state
        self._own_folder = own_folder
        self._pace = pace or Pace()
        self._remotes = {host.name: connect(host) for host in plan.hosts}
        self._hosts = {host.name: host for host in plan.hosts}
        self._holder = own_holder(plan.run_id)
        self._ground: dict[str, Ground] = {}
        self._endpoints: dict[str, str] = {}
        self._credentials: Credentials | None = None
        self._tunnel: Tunnel | None = None
        self._content: dict[str, bytes] = {}
        self._pool = ThreadPoolExecutor(min(MAX_THREADS, len(self.members) + 4), "hosts")

    # -- what is known once it is up ----------------------------------------------------------------------------------

    def remote(self, host: str) -> Remote:
        """How a host is reached."""
        return self._remotes[host]

    def folder(self, host: str) -> HostFolder | None:
        """A host's state folder; None before the host was reached."""
        ground = self._ground.get(host)
        return None if ground is None else ground.folder

    @property
    def facts(self) -> dict[str, dict[str, str]]:
        """What each host that was reached said of itself, by name."""
        return {name: ground.facts for name, ground in self._ground.items()}

    @property
    def credentials(self) -> Credentials:
        """The keys of the run."""
        assert self._credentials is not None, "bring_up or adopt comes first"
        return self._credentials

    @property
    def controller(self) -> PeerAddress:
        """Where this machine finds the controller; at the end of a tunnel, if SSH reaches its host by another one."""
        member = self.members[0]
        return PeerAddress(member.name, self._way_to(member), self.credentials.public.keys[member.name])

    def _way_to(self, member: Member) -> str:
        there = self._endpoints[member.name]
        remote = tunnelling(self._remotes[member.host.name])
        if remote is None:
            return there
        if self._tunnel is None:
            self._tunnel = Tunnel(remote, *split_endpoint(there))
        return endpoint(LOOPBACK, self._tunnel.port_here)

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
        make_private(self._own_folder)
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
        ground = self._locate(host)
        ground.supervision.install()
        place(ground.remote, ground.folder, self._content, are_kept=host.connection != "local")
        for member in self._members_on(host):
            key = msgspec.json.encode(self.credentials.secrets[member.name])
            ground.remote.upload(key, ground.folder.key(member.program))

    def _members_on(self, host: Host) -> list[Member]:
        return [member for member in self.members if member.host.name == host.name]

    def _choose_endpoints(self) -> None:
        """Where each program that listens is to do so; hosts name ports that are free now."""
        listening = [host for host in self.plan.hosts if any(map(_listens, self._members_on(host)))]
        ssh_addresses = {name: ground.ssh_addresses for name, ground in self._ground.items()}
        addresses = listening_addresses(self.plan.hosts, listening, ssh_addresses)
        chosen = [self._pool.submit(self._endpoints_on, host, addresses[host.name]) for host in listening]
        for endpoints in _all_of(chosen):
            self._endpoints |= endpoints

    def _endpoints_on(self, host: Host, address: str) -> dict[str, str]:
        names = [member.name for member in self._members_on(host) if _listens(member)]
        ports = dict(zip(names, self._ground[host.name].free_ports(address, len(names)), strict=True))
        if host.port:
            ports[host.name] = str(host.port)
        return {name: endpoint(address, port) for name, port in ports.items()}

    def _start_host(self, host: Host) -> None:
        """Start the programs of a host, and wait until those that listen do."""
        setup = Setup(self.plan, self.members, self.credentials.public, self._endpoints, self._pace)
        ground = self._ground[host.name]
        members = self._members_on(host)
        for member in members:
            if self.cancelled.is_set():
                raise WorkFailed("starting the programs was cancelled")
            config = config_bytes(setup.config(member, ground.folder))
            ground.remote.upload(config, ground.folder.config(member.program))
            ground.supervision.start(member.program, self._command(ground, member.program))
        for member in members:
            if member.name in self._endpoints:
                ground.supervision.await_endpoint(member.program, START_TIMEOUT_S)

    def _command(self, ground: Ground, program: str) -> list[str]:
        return ground.folder.command(ground.installation.python, program)

    def _locate(self, host: Host) -> Ground:
        """Reach a host, hold it, and make the run's state folder there unless it has it."""
        ground = self._ground[host.name] = reach(host, self._remotes[host.name], self._state, self._holder)
        return ground

    # -- held ---------------------------------------------------------------------------------------------------------

    @property
    def holds_leases(self) -> bool:
        """Are there hosts that other orchestrators could take?"""
        return any(ground.holder is not None for ground in self._ground.values())

    def renew_leases(self) -> list[str]:
        """Say on every host that it is still needed; to be called every `RENEW_EVERY_S`.

        Returns:
            A sentence for each host that someone else has taken. One that does not answer keeps its lease for a while.
        """
        broken: list[str] = []
        for work in [self._pool.submit(ground.renew_lease) for ground in list(self._ground.values())]:
            with suppress(RemoteError):
                try:
                    work.result()
                except WorkFailed as error:
                    broken.append(str(error))
        return broken

    def drop_leases(self) -> list[str]:
        """Give the hosts to whoever comes next.

        Returns:
            A sentence for each host where that failed.
        """
        return _problems_of([self._pool.submit(ground.drop_lease) for ground in self._ground.values()])

    def _remember(self) -> None:
        record = _Deployed(
            plan_hash=self.plan.plan_hash,
            public=self.credentials.public,
            folders={name: ground.folder.path for name, ground in self._ground.items()},
            endpoints=self._endpoints,
        )
        replace_file(self._own_folder / RECORD_FILE, msgspec.json.encode(record))

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
            folders = {name: ground.folder.path for name, ground in self._ground.items()}
            if record.plan_hash != self.plan.plan_hash or record.folders != folders:
                return False
            self._credentials = load_own(record.public, self._own_folder)
            self._endpoints = record.endpoints
            return all(self._on_every_host(self._adopt_host))
        return False

    def _adopt_host(self, host: Host) -> bool:
        ground = self._ground[host.name]
        programs = programs_on(host.name, self.members)
        files = [ground.folder.config(program) for program in programs]
        there = " && ".join(f"test -f {shlex.quote(path)}" for path in files)
        if ground.remote.execute(there, idempotent=True).status != 0:
            return False
        for program, state in ground.supervision.states(programs).items():
            if not state.is_kept:
                ground.supervision.start(program, self._command(ground, program))
        return True

    # -- watched ------------------------------------------------------------------------------------------------------

    def states(self) -> dict[str, ProgramState | None]:
        """How every program stands, by member; None where its host could not be asked."""
        found: dict[str, ProgramState | None] = {member.name: None for member in self.members}
        answers = {name: self._pool.submit(self._states_of, name) for name in list(self._ground)}
        for member in self.members:
            answer = answers.get(member.host.name)
            with suppress(RemoteError):
                found[member.name] = answer.result()[member.program] if answer else None
        return found

    def _states_of(self, host: str) -> dict[str, ProgramState]:
        return self._ground[host].supervision.states(programs_on(host, self.members))

    def pid_of(self, host: str, program: str) -> int | None:
        """The process of a program; None when it does not run.

        Raises:
            RemoteError: the host was lost.
        """
        return self._ground[host].supervision.states([program])[program].pid

    def log_tail(self, member: Member) -> str:
        """The last lines that a program has logged.

        Raises:
            RemoteError: its host was lost.
        """
        return self._ground[member.host.name].supervision.log_tail(member.program)

    def in_background(self, work: Callable[[], T]) -> Future[T]:
        """Let a thread do what may take long on a host."""
        return self._pool.submit(work)

    # -- down ---------------------------------------------------------------------------------------------------------

    def stop(self, grace_s: float) -> list[str]:
        """End every program, also those that do not answer.

        Returns:
            A sentence for each host where that failed.
        """
        return _problems_of([self._pool.submit(self._stop_host, name, grace_s) for name in list(self._ground)])

    def _stop_host(self, host: str, grace_s: float) -> None:
        ground = self._ground[host]
        if ground.has_supervision():
            ground.supervision.stop(programs_on(host, self.members), grace_s)

    def remove(self) -> list[str]:
        """Delete the state folders, keys and all. Everything has to be stopped and collected.

        Returns:
            A sentence for each host where that failed.
        """
        problems = _problems_of([self._pool.submit(ground.remove) for ground in self._ground.values()])
        if not problems:
            with suppress(OSError):
                for path in self._own_folder.iterdir():
                    path.unlink()
                self._own_folder.rmdir()
                self._own_folder.parent.rmdir()
        return problems

    def close(self) -> None:
        """Let the hosts go; programs stay as they are."""
        if self._tunnel is not None:
            self._tunnel.close()
        self._pool.shutdown(cancel_futures=True)
        for remote in self._remotes.values():
            remote.close()


def _listens(member: Member) -> bool:
    return member.program != DEVICE_AGENT


def make_private(folder: Path) -> None:
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
