"""Install edgebed on hosts; the second time changes nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.arguments import AsJson, HostsFile, OnlyHosts
from orchestrator.cli.output import Output

EXAMPLES = (
    "edgebed deploy inventory/hosts/pi-cluster.yaml",
    "edgebed deploy inventory/hosts/pi-cluster.yaml --dry-run",
    "edgebed deploy inventory/hosts/pi-cluster.yaml --host pi-1 --host pi-2 --accept-new --json",
)


def command(
    hosts: HostsFile,
    only: OnlyHosts = None,
    is_dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what hosts would get; change nothing.")] = False,
    accept_new: Annotated[bool, typer.Option("--accept-new", help="Pin the keys of hosts never seen before.")] = False,
    as_json: AsJson = False,
) -> int:
    """Install edgebed on hosts over SSH: in parallel, without needing the internet there, and so that it can be undone.

    A host that has all of it already is asked one question and left alone. What fails on one host does not stop the
    others; run it again, and only what failed is repaired. `edgebed clean` undoes it.
    """
    from orchestrator.cli.hosts import HostsSession
    from orchestrator.provision.deploy import Deployer

    output = Output(as_json)
    session = HostsSession(hosts, output, only=only or (), accept_new=accept_new)
    deployer = Deployer(session.inventory, session.connect, is_dry_run=is_dry_run, tell=session.tell)
    reports = deployer.deploy(session.hosts)
    for name, report in reports.items():
        output.text(session.line(name, report))
        if report.state == "planned":
            for text in report.commands:
                output.text("\n".join(f"    {line}" for line in text.splitlines()))
    session.warn_of_clones()
    return session.finish(reports)
