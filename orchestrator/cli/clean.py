"""Undo every change that deploy made on hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgebed.errors import EXIT_FAILED
from orchestrator.cli.output import Output

EXAMPLES = (
    "edgebed clean inventory/hosts/pi-cluster.yaml",
    "edgebed clean inventory/hosts/pi-cluster.yaml --host pi-3 --force",
)


def command(
    hosts: Annotated[Path, typer.Argument(help="The hosts' YAML file, an Ansible inventory.")],
    only: Annotated[
        list[str] | None, typer.Option("--host", metavar="NAME", help="Only this host; may be given several times.")
    ] = None,
    is_forced: Annotated[
        bool, typer.Option("--force", help="Also when rows were not collected, or someone holds the host.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON.")] = False,
) -> int:
    """Bring hosts back to what they were: files, services, settings, by the ledger that deploying has kept there.

    Run folders on this machine stay. A host that has rows of a run which may not have been collected is left alone.
    """
    from orchestrator.cli.hosts import HostsSession
    from orchestrator.provision.clean import Cleaner

    output = Output(as_json)
    session = HostsSession(hosts, output, only=only or ())
    reports = Cleaner(session.connect, is_forced=is_forced, tell=session.tell).clean(session.hosts)
    for name, report in reports.items():
        output.text(session.line(name, report, changed="clean again", unchanged="was clean"))
    output.answer({"hosts": {name: report.to_plain() for name, report in reports.items()}})
    return EXIT_FAILED if any(report.state == "failed" for report in reports.values()) else 0
