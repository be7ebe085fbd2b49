"""Tables for the terminal: a fitted profile, and a validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgebed.simulation.testbed.profile import Host, Profile
from orchestrator.calibration.calibrate import Calibration
from orchestrator.calibration.comparison import ABSOLUTE, METRICS, Error
from orchestrator.calibration.validate import Validation

METRIC_WORDS = {
    "median_latency": "median latency",
    "p95_latency": "95 % latency",
    "miss_rate": "miss rate",
    "energy": "energy",
}


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        return "  ".join((cells[0].ljust(widths[0]), *padded)).rstrip()

    return [line(headings), line(["-" * width for width in widths]), *map(line, rows)]


def calibration_lines(found: Calibration) -> list[str]:
    """What was fitted, and to how much."""
    profile = found.profile
    lines = [f"{profile.workload}: {profile.source.text.split('; no policy')[0]}", ""]
    lines += _compute_lines(profile)
    lines += ["", *_link_lines(profile), ""]
    for name, processor in profile.processors.items():
        lines.append(
            f"processors of one {name}: {processor.cores:g} cores; each computation that goes on prolongs a new one by "
            f"{100 * processor.per_other:.1f} %, and by {100 * processor.per_excess:.1f} % more beyond the cores"
        )
    drift = profile.source.residuals["drift"]
    lines.append(
        f"drift of {drift['cells']} cells: {drift['least']:.3f} to {drift['most']:.3f} of the median cell's time"
    )
    for placement, decider in profile.deciders.items():
        typical_ms = 1e3 * float(np.median(decider.delay_s))
        lines.append(f"deciding at the {placement}: {typical_ms:.1f} ms after the tick, median")
    return [*lines, *(f"note: {note}" for note in found.notes)]


def _compute_lines(profile: Profile) -> list[str]:
    fitted = profile.source.residuals["compute"]
    rows = []
    hosts: list[tuple[str, Host]] = [*profile.devices.items(), *profile.servers.items()]
    for name, host in hosts:
        residual = fitted.get(name, {})
        spread = residual.get("relative_rms")
        rows.append(
            [
                name,
                host.board,
                f"{1e3 * host.compute.overhead_s:.1f}",
                f"{1e3 * host.compute.seconds_per_frame:.2f}",
                "" if spread is None else f"{100 * spread:.1f} %",
                str(residual.get("rows", 0)),
            ]
        )
    return table(["host", "board", "overhead ms", "ms a frame", "residual", "tasks"], rows)


def _link_lines(profile: Profile) -> list[str]:
    fitted = profile.source.residuals["link"]
    rows = []
    for name, device in profile.devices.items():
        link, residual = device.link, fitted.get(name, {})
        rate_bps = link.paced_bps if link.rate_bps is None else link.rate_bps
        spread = residual.get("relative_rms")
        rows.append(
            [
                name,
                f"{rate_bps / 1e6:.2f}" if rate_bps else "not limited",
                f"{1e3 * float(np.median(link.uplink_delay_s)):.1f}",
                f"{1e3 * float(np.median(link.downlink_s)):.1f}",
                "" if spread is None else f"{100 * spread:.1f} %",
                str(residual.get("rows", 0)),
            ]
        )
    return table(["link of", "Mbit/s", "up ms", "down ms", "residual", "tasks"], rows)


def validation_lines(found: Validation) -> list[str]:
    """Errors in all, policy by policy, and the ranking."""
    lines = [*(f"! {notice}" for notice in found.notices), ""] if found.notices else []
    rows = [
        ["all policies, mean of |error|", *(error_text(metric, found.errors.get(metric)) for metric in METRICS), ""]
    ]
    for policy in found.policies:
        distance = "" if policy.ks is None else f"{policy.ks:.3f}"
        rows.append([policy.name, *(error_text(metric, policy.errors.get(metric)) for metric in METRICS), distance])
    rows.append(["repeat difference", *(repeat_text(metric, found.errors.get(metric)) for metric in METRICS), ""])
    lines += table(["simulated against measured", *(METRIC_WORDS[metric] for metric in METRICS), "KS"], rows)
    kept = sum(pair.is_kept for pair in found.pairs)
    lines += ["", f"ranking of policies: {kept} of {len(found.pairs)} measured orders kept"]
    for pair in found.pairs:
        if not pair.is_kept:
            lines.append(
                f"  {pair.measure}: {pair.first} - {pair.second} is {pair.measured:.4g} measured, "
                f"{pair.simulated:.4g} simulated"
            )
    return lines


def error_text(metric: str, error: Error | None) -> str:
    """An error with its interval; a dash where there is none."""
    if error is None:
        return "-"
    return f"{_amount(metric, error.value)} [{_amount(metric, error.low)}, {_amount(metric, error.high)}]"


def repeat_text(metric: str, error: Error | None) -> str:
    """The repeat difference, and whether it was only simulated."""
    if error is None:
        return "-"
    return f"{100 * error.repeat:.1f} {_unit(metric)}{'' if error.repeat_is_measured else ' (simulated)'}"


def _amount(metric: str, value: float) -> str:
    return f"{100 * value:+.1f} {_unit(metric)}"


def _unit(metric: str) -> str:
    return "points" if metric in ABSOLUTE else "%"
