"""Undo every change that deploy made on hosts."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.arguments import AsJson, HostsFile, OnlyHosts
from orchestrator.cli.output import Output

EXAMPLES = (
    "edgebed clean inventory/hosts/pi-cluster.yaml",
    "edgebed clean inventory/hosts/pi-cluster.yaml --host pi-3 --force",
)


def command(
    hosts: HostsFile,
    only: OnlyHosts = None,
    is_forced: Annotated[
        bool, typer.Option("--force", help="Also when rows were not collected, or someone holds the host.")
    ] = False,
    as_json: AsJson = False,
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
    return session.finish(reports)
