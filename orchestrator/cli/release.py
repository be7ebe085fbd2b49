"""Take hosts from an orchestrator that is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgebed.errors import EXIT_FAILED
from orchestrator.cli.output import Output

EXAMPLES = (
    "edgebed release inventory/hosts/pi-cluster.yaml",
    "edgebed release inventory/hosts/pi-cluster.yaml --host pi-3 --force",
)


def command(
    hosts: Annotated[Path, typer.Argument(help="The hosts' YAML file, an Ansible inventory.")],
    only: Annotated[
        list[str] | None, typer.Option("--host", metavar="NAME", help="Only this host; may be given several times.")
    ] = None,
    is_forced: Annotated[bool, typer.Option("--force", help="Also from one that seems to be alive.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON.")] = False,
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
    output.answer({"hosts": {name: report.to_plain() for name, report in reports.items()}})
    return EXIT_FAILED if any(report.state == "failed" for report in reports.values()) else 0
