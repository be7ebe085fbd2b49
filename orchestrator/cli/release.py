"""Take hosts from an orchestrator that is gone."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.arguments import AsJson, HostsFile, OnlyHosts
from orchestrator.cli.output import Output

EXAMPLES = (
    "edgebed release inventory/hosts/pi-cluster.yaml",
    "edgebed release inventory/hosts/pi-cluster.yaml --host pi-3 --force",
)


def command(
    hosts: HostsFile,
    only: OnlyHosts = None,
    is_forced: Annotated[bool, typer.Option("--force", help="Also from one that seems to be alive.")] = False,
    as_json: AsJson = False,
) -> int:
    """Show who holds hosts, and break the leases of those who are gone: an ended process, or two minutes of silence.

    Programs on the hosts stay as they are; `edgebed resume` finds them again.
    """
    from orchestrator.cli.hosts import HostsSession
    from orchestrator.provision.clean import Cleaner

    output = Output(as_json)
    session = HostsSession(hosts, output, only=only or ())
    reports = Cleaner(session.connect, is_forced=is_forced, tell=session.tell).release(session.hosts)
    for name, report in reports.items():
        output.text(session.line(name, report, changed="released", unchanged="was free"))
    return session.finish(reports)
