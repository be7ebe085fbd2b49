"""The ways to the hosts of a run. Only the hosts file knows them whole: a plan holds no path of a key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from edgebed.errors import BadInput, EdgebedError, Problem, WorkFailed
from orchestrator.inventory import Host, Inventory, load_inventory
from orchestrator.plan_file import Plan
from orchestrator.provision import lease
from orchestrator.provision.installation import read_installation
from orchestrator.remote.base import Remote
from orchestrator.remote.connect import remote_for
from orchestrator.remote.host_keys import KnownHosts

MAX_THREADS = 64


class Ways:
    """The way to each host of an inventory; a connection that was made stays until it is closed.

    Args:
        inventory: with the keys and the users.
    """

    def __init__(self, inventory: Inventory) -> None:
        self._hosts = {host.name: host for host in inventory.hosts}
        self._known_hosts = KnownHosts.beside(inventory.file)
        self._remotes: dict[str, Remote] = {}

    def __call__(self, host: Host) -> Remote:
        """The way to a host; not connected yet, unless it was asked for before."""
        if host.name not in self._remotes:
            self._remotes[host.name] = remote_for(self._hosts[host.name], self._known_hosts)
        return self._remotes[host.name]

    def check(self, hosts: Sequence[Host]) -> None:
        """Connect to hosts, and see that each is deployed and free; nothing is changed on them.

        Raises:
            BadInput: the only thing wrong is that hosts are not deployed.
            WorkFailed: hosts cannot be reached, or are held by someone else; with the problems of all hosts.
        """
        distant = [host for host in hosts if host.connection != "local"]
        if not distant:
            return
        with ThreadPoolExecutor(min(MAX_THREADS, len(distant)), "hosts") as pool:
            problems = [problem for problem in pool.map(self._problem_of, distant) if problem is not None]
        if not problems:
            return
        for remote in self._remotes.values():
            with suppress(EdgebedError, OSError):
                remote.close()
        if all(isinstance(problem, BadInput) for problem in problems):
            raise BadInput([each for problem in problems if isinstance(problem, BadInput) for each in problem.problems])
        raise WorkFailed("\n".join(str(problem) for problem in problems))

    def _problem_of(self, host: Host) -> EdgebedError | None:
        try:
            remote = self(host)
            remote.connect()
            installation = read_installation(remote, host)
            held = lease.read(remote, installation.root)
        except EdgebedError as error:
            return error
        if held is not None and not held.is_dead:
            return WorkFailed(lease.held_text(host.name, held))
        return None


def ways_of_run(plan: Plan, hosts_file: Path | None = None) -> Callable[[Host], Remote]:
    """The ways to the hosts of a run that was planned earlier.

    Args:
        plan: of the run.
        hosts_file: the hosts file by now; by default the one that the plan was made with.

    Raises:
        BadInput: the file is not there, has problems, or lacks hosts of the run.
    """
    file = hosts_file or Path(plan.hosts_file)
    if hosts_file is None and not file.is_file() and all(host.connection == "local" for host in plan.hosts):
        from orchestrator.provision.deployment import local_remote

        return local_remote
    if not file.is_file():
        text = "the hosts file of this run is not here, and it alone knows the way to its hosts; name it with --hosts"
        raise BadInput(Problem(text, file=str(file)))
    inventory = load_inventory(file)
    known = {host.name for host in inventory.hosts}
    if missing := [host.name for host in plan.hosts if host.name not in known]:
        raise BadInput(Problem(f"lacks hosts of this run: {', '.join(missing)}", file=str(file)))
    return Ways(inventory)
