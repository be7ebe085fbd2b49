"""The result of a cluster's check, for the terminal."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.table import Table

from orchestrator.report.terminal import terminal


def print_result(result: dict[str, Any]) -> None:
    """Print hosts, and what each policy came to."""
    console = terminal()
    console.print(_hosts(result["hosts"]))
    run = result.get("run", {})
    if run.get("policies"):
        console.print(_policies(run["policies"]))
    for step in ("run", "run_with_faults"):
        if told := result.get(step):
            counts = ", ".join(f"{told.get(key, '?')} {key}" for key in ("planned", "done", "failed", "unknown"))
            reasons = " ".join(told.get("reasons", []))
            console.print(f"{step.replace('_', ' ')}: {told.get('verdict', 'no verdict')}; {counts}. {reasons}")


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(heading)
    return table


def _hosts(hosts: dict[str, dict[str, Any]]) -> Table:
    table = _table("host", "board", "checks", "not ok", "deploy s", "again s", "clock ms")
    for name, host in hosts.items():
        findings = host.get("findings", [])
        counts = Counter(each["status"] for each in findings)
        table.add_row(
            name,
            host.get("model", host["board"]),
            ", ".join(f"{counts[status]} {status}" for status in ("ok", "warn", "fail") if counts[status]),
            ", ".join(each["check"] for each in findings if each["status"] != "ok"),
            *(f"{host[step]['seconds']:.1f}" if step in host else "-" for step in ("deploy", "deploy_again")),
            _clock(host.get("run_clock")),
        )
    return table


def _clock(clock: dict[str, float] | None) -> str:
    return f"{1e3 * clock['offset_s']:+.1f} +- {1e3 * clock['error_s']:.1f}" if clock else "-"


def _policies(policies: list[dict[str, Any]]) -> Table:
    table = _table("policy", "n", "done", "mean s", "p50 s", "p95 s", "missed", "J a task", "energy")
    for each in policies:
        table.add_row(
            each["policy"],
            str(each["n"]),
            str(each["done"]),
            *(_number(each[key], 3) for key in ("mean_s", "p50_s", "p95_s")),
            _number(each["missed_share"], 2),
            _number(each["device_energy_j"], 3),
            ", ".join(sorted({source.partition(":")[0] for source in each["energy_sources"]})),
        )
    return table


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
