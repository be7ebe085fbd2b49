"""Examine hosts: reachability, clocks, throttling, Wi-Fi, disk, versions; each finding with its fix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgebed.errors import EXIT_DONE, EXIT_FAILED
from orchestrator.cli.arguments import AsJson, HostsFile
from orchestrator.cli.output import Output

if TYPE_CHECKING:
    from orchestrator.doctor.finding import Finding

EXAMPLES = (
    "edgebed check inventory/hosts/my-cluster.yaml",
    "edgebed check inventory/hosts/my-cluster.yaml --accept-new --json",
    "edgebed check inventory/hosts/my-cluster.yaml --calibrate",
)

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def command(
    hosts: HostsFile,
    accept_new: Annotated[
        bool, typer.Option("--accept-new", help="Show and pin the keys of hosts that are not known yet.")
    ] = False,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Instead, fit the power model of each host's board with the meter beside it: about a minute of load.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Examine all hosts at once and say what is wrong, how that shows, and how to fix it.

    ok: fine. warn: it works, and what is measured may suffer. fail: a run would not work; the exit status is then 1.
    Nothing on the hosts is changed.
    """
    from orchestrator.cli.hosts import HostsSession

    output = Output(as_json)
    session = HostsSession(hosts, output, accept_new=accept_new)
    if calibrate:
        from orchestrator.doctor.calibration import calibrate_hosts

        return calibrate_hosts(session.inventory, hosts, session.connect, output)
    from orchestrator.doctor.examination import examine

    found = examine(session.inventory, session.connect)
    session.warn_of_clones()
    _print(found, output)
    output.answer({"hosts": {name: [each.to_plain() for each in findings] for name, findings in found.items()}})
    failed = any(each.status == "fail" for findings in found.values() for each in findings)
    return EXIT_FAILED if failed else EXIT_DONE


def _print(found: dict[str, list[Finding]], output: Output) -> None:
    from rich.table import Table
    from rich.text import Text

    from orchestrator.report.terminal import terminal

    console = terminal(to_standard_error=output.as_json)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("host", "", "check", "what was seen"):
        table.add_column(heading, overflow="fold", no_wrap=heading != "what was seen")
    for name, findings in found.items():
        for number, each in enumerate(findings):
            seen = Text(each.evidence)
            if each.fix:
                seen.append(f"\n-> {each.fix}", style="dim" if each.status == "ok" else "bold")
            status = Text(each.status.value, style=_COLOURS[each.status.value])
            table.add_row(Text("" if number else name), status, Text(each.check), seen)
    console.print(table)
    counts = {status: sum(each.status == status for all_ in found.values() for each in all_) for status in _COLOURS}
    console.print(Text(", ".join(f"{count} {status}" for status, count in counts.items())))
