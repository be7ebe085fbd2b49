"""What verbs that work on the hosts of a file have in common: which hosts, how they are reached, how it went."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgebed.errors import EXIT_DONE, EXIT_FAILED
from orchestrator.cli.output import Output
from orchestrator.inventory import Host, load_inventory
from orchestrator.provision.each_host import HostReport
from orchestrator.remote.base import Remote
from orchestrator.remote.connect import remote_for
from orchestrator.remote.host_keys import KnownHosts, clone_warning


class HostsSession:
    """The hosts of a file, for one verb.

    Args:
        hosts_file: an Ansible inventory.
        output: where text goes.
        only: names of hosts; all when empty.
        accept_new: pin the keys of hosts never seen before.

    Raises:
        BadInput: the file has problems, or a name is in it not.
    """

    def __init__(self, hosts_file: Path, output: Output, *, only: Sequence[str] = (), accept_new: bool = False) -> None:
        self.inventory = load_inventory(hosts_file)
        self._known_hosts = KnownHosts.beside(hosts_file, accept_new=accept_new)
        self._output = output
        self._lock = threading.Lock()
        wanted = {self.inventory.host(name).name for name in only}
        self.hosts: list[Host] = [host for host in self.inventory.hosts if not wanted or host.name in wanted]
        for note in self.inventory.notes:
            output.note(f"note: {note}")

    def connect(self, host: Host) -> Remote:
        """How a host is reached."""
        return remote_for(host, self._known_hosts)

    def tell(self, name: str, text: str) -> None:
        """Print how the work goes on; called from the hosts' threads."""
        with self._lock:
            self._output.note(f"{name}: {text}")

    def line(self, name: str, report: HostReport, *, changed: str = "deployed", unchanged: str = "unchanged") -> str:
        """A host's line of the result."""
        words = {"local": "this machine, nothing to do", "planned": "would get", "changed": changed}
        words |= {"unchanged": unchanged, "failed": "FAILED"}
        time = "" if report.state == "local" else f" ({report.seconds:.1f} s)"
        error = f"\n  {report.error}" if report.error else ""
        return f"{name}: {words[report.state]}{time}{error}"

    def finish(self, reports: Mapping[str, HostReport]) -> int:
        """Give the JSON answer; returns the exit status."""
        self._output.answer({"hosts": {name: report.to_plain() for name, report in reports.items()}})
        return EXIT_FAILED if any(report.state == "failed" for report in reports.values()) else EXIT_DONE

    def warn_of_clones(self) -> None:
        """Say which keys were accepted just now, and which hosts show the same one."""
        for name, key in self._known_hosts.accepted.items():
            self._output.note(f"{name}: its host key was never seen before and is pinned now: {key}")
        for group in self._known_hosts.cloned:
            self._output.note(f"warning: {clone_warning(group)}")
