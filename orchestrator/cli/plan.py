"""Show what would run: cells, hours, tasks, bytes; touches nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from orchestrator.cli.output import Output
from orchestrator.inventory import Host
from orchestrator.plan import Plan, plan_of, read_files
from orchestrator.shipped import LOCAL_HOSTS

EXAMPLES = (
    "edgebed plan inventory/experiments/demo.yaml",
    "edgebed plan inventory/experiments/demo.yaml --hosts inventory/hosts/local.yaml --set seeds=[7] --json",
)


def command(
    experiment: Annotated[Path, typer.Argument(help="The experiment's YAML file.")],
    hosts: Annotated[Path, typer.Option(help="The hosts' YAML file, an Ansible inventory.")] = LOCAL_HOSTS,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, as in reward.energy=0.5.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what would run: cells and their order, hours, tasks, bytes a device could send, hosts.

    Both files are checked, and everything that is wrong with them is reported. Nothing is connected to or written.
    """
    described, inventory = read_files(experiment, hosts, changes or ())
    plan = plan_of(described, inventory)
    output = Output(as_json)
    for note in inventory.notes:
        output.note(f"note: {note}")
    output.text(_text(plan))
    output.answer(_answer(plan))


def _text(plan: Plan) -> str:
    estimate = plan.estimate
    factors = [(len(plan.policies), "policies"), (len(plan.seeds), "seeds"), (len(plan.settings), "settings")]
    product = " x ".join(f"{number} {what}" for number, what in factors if number > 1) or "1"
    lines = [
        f"Experiment {plan.experiment}: {len(plan.listed_cells)} cells = {product}",
        f"About {_duration(estimate.hours)} for {estimate.tasks} tasks; plan hash {plan.plan_hash[:12]}",
        "",
        f"Hosts ({plan.hosts_file}), the controller beside {plan.controller}:",
        *(f"  {_host_line(plan, host)}" for host in plan.hosts),
        "",
        f"Cells, in this order ({plan.order}):",
        *(f"  {number:>3}  {cell.id}" for number, cell in enumerate(plan.listed_cells, 1)),
        *([f"\nStop: {plan.stop.text()}"] if plan.stop is not None else []),
        *_fault_lines(plan),
    ]
    return "\n".join(lines)


def _fault_lines(plan: Plan) -> Iterator[str]:
    """Every fault of every cell, in the order of time; nothing when there are none."""
    for found in plan.fault_lists:
        where = "" if len(plan.settings) == 1 else f", {', '.join(found.settings)}"
        yield f"\nFaults in each cell of seed {found.seed}{where}:" + (" none" if not found.faults else "")
        for fault in found.faults:
            lasts = f" for {fault.for_s:g} s" if fault.for_s else ""
            told = "".join(f", {name} {value:g}" for name, value in fault.parameters.items())
            yield f"  {fault.at_s:>7g} s  {fault.host:<12}  {f'{fault.kind} {fault.program}'.strip()}{lasts}{told}"


def _host_line(plan: Plan, host: Host) -> str:
    where = "this machine" if host.connection == "local" else f"ssh {host.address}"
    parts = [host.board, where]
    if host.role == "edge_server":
        parts.append(f"{host.workers} worker{'s' if host.workers != 1 else ''}")
    else:
        parts.append(f"up to {plan.estimate.payload_bytes[host.name] / 1e6:.1f} MB sent")
    if host.slowdown != 1:
        parts.append(f"slowed down {host.slowdown:g} times (emulated)")
    if host.link_rate_bps:
        parts.append(f"uplink paced to {host.link_rate_bps / 1e6:g} Mbit/s")
    return f"{host.name:<12}  {', '.join(parts)}"


def _duration(hours: float) -> str:
    return f"{hours * 60:.0f} minutes" if hours < 2 else f"{hours:.1f} hours"


def _answer(plan: Plan) -> dict[str, Any]:
    return {
        "experiment": plan.experiment,
        "plan_hash": plan.plan_hash,
        "hours": plan.estimate.hours,
        "tasks": plan.estimate.tasks,
        "payload_bytes": plan.estimate.payload_bytes,
        "order": plan.order,
        "cells": [
            {"id": cell.id, "policy": cell.policy, "seed": cell.seed, "setting": cell.setting}
            for cell in plan.listed_cells
        ],
        "faults": [
            {"seed": found.seed, "settings": found.settings, "faults": msgspec.to_builtins(found.faults)}
            for found in plan.fault_lists
        ],
        "stop": msgspec.to_builtins(plan.stop),
        "settings": {setting.name: setting.changes for setting in plan.settings},
        "controller": plan.controller,
        "hosts": {
            host.name: {"role": host.role, "connection": host.connection, "address": host.address, "board": host.board}
            for host in plan.hosts
        },
    }
