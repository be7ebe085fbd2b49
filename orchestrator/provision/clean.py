"""`edgebed clean`: a host as it was before edgebed came; and `edgebed release`: leases of those who are gone."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgebed.errors import BadInput, Problem, WorkFailed
from orchestrator.inventory import Host
from orchestrator.provision import lease
from orchestrator.provision.each_host import HostReport, Tell, on_each_host
from orchestrator.provision.facts import HostFacts, read_facts
from orchestrator.provision.layout import CONTROLLER, DEVICE_AGENT, EDGE_SERVER
from orchestrator.provision.ledger import FOREIGN, undo_script
from orchestrator.remote.base import Completed, Remote

STOP_S = 5
UNDO_TIMEOUT_S = 300.0

PROGRAMS = (CONTROLLER, EDGE_SERVER, DEVICE_AGENT)


@dataclass(frozen=True, slots=True)
class RunState:
    """A run's state folder on a host, which the run would have removed itself, had it ended in order.

    Attributes:
        has_rows: there is an outbox: rows that may not have been collected.
    """

    path: str
    has_rows: bool

    @property
    def run(self) -> str:
        """The name of the run's state folders."""
        return self.path.rsplit("/", 2)[-2]


@dataclass(frozen=True, slots=True)
class Cleaner:
    """Undoes on hosts what deploying has done there.

    Args:
        connect: makes the `Remote` of a host.
        is_forced: also delete rows that nobody has collected, and take hosts from those who hold them.
        tell: hears of progress.
    """

    connect: Callable[[Host], Remote]
    is_forced: bool = False
    tell: Tell = lambda host, text: None

    def clean(self, hosts: Sequence[Host]) -> dict[str, HostReport]:
        """Bring hosts back to what they were; what fails on one is in its report."""
        return on_each_host(hosts, self.connect, self._clean_one)

    def release(self, hosts: Sequence[Host]) -> dict[str, HostReport]:
        """Break the leases of dead holders; a living one's only when forced."""
        return on_each_host(hosts, self.connect, self._release_one)

    def _clean_one(self, host: Host, remote: Remote) -> HostReport:
        facts = read_facts(remote, host)
        states = find_run_states(remote, host, facts)
        self._check(host, facts, states)
        if facts.root in ("none", "foreign") and not states:
            if facts.root == "foreign":
                self.tell(host.name, f"{facts.root_path} is not edgebed's and stays")
            return HostReport()
        for state in states:
            self.tell(host.name, f"removes the state of run {state.run}, {state.path}")
        script = clean_script(facts, states)
        done = remote.execute(script, timeout_s=UNDO_TIMEOUT_S, idempotent=True)
        if done.status != 0:
            raise WorkFailed(failure_text(host.name, facts, done))
        return HostReport("changed", [f"undo: {entry.what}" for entry in reversed(facts.ledger)])

    def _check(self, host: Host, facts: HostFacts, states: list[RunState]) -> None:
        if self.is_forced:
            return
        if facts.lease is not None and not facts.lease.is_dead:
            raise WorkFailed(f"{lease.held_text(host.name, facts.lease)}; --force cleans all the same")
        rows = [state.run for state in states if state.has_rows]
        if rows:
            message = (
                f"has rows of {', '.join(rows)} that may not have been collected; `edgebed resume RUN` collects them, "
                "--force deletes them"
            )
            raise BadInput(Problem(message, key=host.name))

    def _release_one(self, host: Host, remote: Remote) -> HostReport:
        facts = read_facts(remote, host)
        found = facts.lease
        if found is None:
            self.tell(host.name, "is held by nobody")
            return HostReport()
        if not found.is_dead and not self.is_forced:
            raise WorkFailed(
                f"{host.name}: is held by {found}, who is alive; end that run there, or, when you are sure, --force"
            )
        lease.break_(remote, facts.root_path, found)
        self.tell(host.name, f"was held by {found}; is free now")
        return HostReport("changed", [f"rm {facts.root_path}/lease.json"])


def find_run_states(remote: Remote, host: Host, facts: HostFacts) -> list[RunState]:
    """The state folders of runs that a host has under its name.

    Raises:
        RemoteError: the host was lost.
    """
    script = f"""
for folder in {shlex.quote(facts.state_root)}/*/{shlex.quote(host.name)}; do
    [ -d "$folder" ] || continue
    rows=no
    for file in "$folder"/*.outbox.sqlite; do if [ -e "$file" ]; then rows=yes; fi; done
    echo "$rows $folder"
done
"""
    done = remote.execute(script, idempotent=True).checked("the state folders of runs could not be listed")
    found = (line.partition(" ") for line in done.stdout.decode(errors="replace").splitlines())
    return [RunState(path, rows == "yes") for rows, _, path in found]


def clean_script(facts: HostFacts, states: Sequence[RunState]) -> str:
    """A shell script that ends programs, removes the state folders of runs, and undoes the ledger."""
    parts = [_remove_state(facts, state.path) for state in states]
    if facts.root in ("ours", "empty"):
        parts.append(undo_script(facts.root_path, facts.ledger))
    return "\n".join(parts)


def _remove_state(facts: HostFacts, path: str) -> str:
    folder, run = shlex.quote(path), shlex.quote(path.rpartition("/")[0])
    programs = " ".join(PROGRAMS)
    stop = [f"if [ -e {folder}/supervise.sh ]; then sh {folder}/supervise.sh stop {STOP_S} {programs}; fi"]
    if facts.record is not None and facts.record.keeper != "shell":
        scope = facts.record.keeper.removeprefix("systemd_")
        service = shlex.quote(f"{facts.root_path}/service.sh")
        stop.append(f"sh {service} {scope} {folder} stop {STOP_S} {programs}")
    return "\n".join([*stop, f"rm -rf {folder} && {{ rmdir {run} 2>/dev/null || :; }}"])


def failure_text(host: str, facts: HostFacts, done: Completed) -> str:
    """What is to be said of an undo that did not come to its end."""
    said = (done.stdout + done.stderr).decode(errors="replace").strip()[-4000:]
    if done.status == FOREIGN:
        return (
            f"{host}: all is undone but {facts.root_path}, which has files that edgebed did not make:\n{said}\n"
            "move them away and run `edgebed clean HOSTS` again"
        )
    return f"{host}: could not be undone; `edgebed clean HOSTS` goes on where this stopped:\n{said}"
