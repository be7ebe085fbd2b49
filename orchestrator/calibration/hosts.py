"""Hosts of a profile: service time, CPU, energy, accuracy, and the content that they are given."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgebed.metering.board import Board
from edgebed.simulation.testbed.profile import DeviceProfile, Link, Power, ServerProfile, ServiceTime
from orchestrator.calibration.evidence import Evidence
from orchestrator.calibration.fitting import LineFit, stored_quantiles
from orchestrator.calibration.rows import Rows
from orchestrator.calibration.service import Computations, ServiceFits
from orchestrator.inventory import Host

ESTIMATED = "estimated:"


def device_profile(host: Host, evidence: Evidence, service: ServiceFits, line: LineFit, link: Link) -> DeviceProfile:
    """A device, with the line of its service times and its link."""
    return DeviceProfile(
        board=host.board,
        compute=_service_time(host, evidence, service, line),
        processor=evidence.group_of.get(host.name, ""),
        accuracy=_accuracy(evidence.rows, "device"),
        power=_power(host, evidence, service),
        cpu_idle=_idle_share(host, evidence),
        cpu_resting=evidence.observed.shown_share(host.name, is_working=False),
        cpu_working=evidence.observed.shown_share(host.name, is_working=True),
        link=link,
    )


def server_profile(host: Host, evidence: Evidence, service: ServiceFits, line: LineFit) -> ServerProfile:
    """An edge server, with the line of its service times."""
    return ServerProfile(
        board=host.board,
        compute=_service_time(host, evidence, service, line),
        processor=evidence.group_of.get(host.name, ""),
        accuracy=_accuracy(evidence.rows, "edge"),
        power=_power(host, evidence, service),
        cpu_idle=_idle_share(host, evidence),
        cpu_resting=evidence.observed.shown_share(host.name, is_working=False),
        cpu_working=evidence.observed.shown_share(host.name, is_working=True),
        workers=host.workers,
        queue_tasks=host.queue_tasks,
    )


def _service_time(host: Host, evidence: Evidence, service: ServiceFits, line: LineFit) -> ServiceTime:
    found = service.computations.get(host.name)
    cpu_share = 1.0 / host.slowdown
    if found is not None and np.isfinite(found.cpu_s).any():
        known = np.isfinite(found.cpu_s)
        cpu_share = float(found.cpu_s[known].sum() / found.duration_s[known].sum())
    return ServiceTime(
        overhead_s=line.overhead_s,
        seconds_per_frame=line.slope,
        ratio=stored_quantiles(line.ratios),
        cpu_share=cpu_share,
        # Waiting that emulates a slower board is as long as its computing would have been.
        busy_share=cpu_share * host.slowdown,
        warm_up_s_per_frame=evidence.observed.first_s_per_frame(host.name, evidence.cycles_per_frame),
    )


def _power(host: Host, evidence: Evidence, service: ServiceFits) -> Power | None:
    """The board's model, corrected by what a meter saw, where there was one."""
    board = evidence.boards.get(host.board)
    column = "device_energy_j" if host.role == "device" else "server_energy_j"
    found = service.computations.get(host.name)
    if board is None:
        return None
    ratio = 1.0
    if found is not None and len(found):
        joules = evidence.rows[column][found.position]
        if not np.isfinite(joules).any():
            return None
        ratio = _compute_ratio(host, board, found, joules)
    return Power(
        cores=board.cores,
        idle_w=board.idle_w,
        max_w=board.max_w,
        transmit_w=board.transmit_w,
        compute_ratio=ratio,
        compute_error_fraction=board.marginal_error_fraction,
        transmit_error_fraction=board.transmit_error_fraction,
        source=board.energy_source.removeprefix(ESTIMATED),
    )


def _compute_ratio(host: Host, board: Board, found: Computations, joules: Any) -> float:
    """Joules of computing over those of the board's model, both summed; 1 where the model has none."""
    known = np.isfinite(joules) & np.isfinite(found.cpu_s)
    busy_s = float((found.cpu_s[known] * host.slowdown).sum())
    modelled_j = board.span_w * busy_s / board.cores
    return float(joules[known].sum() / modelled_j) if modelled_j > 0 else 1.0


def _accuracy(rows: Rows, site: str) -> float | None:
    known = rows.is_done & (rows["site"] == site) & ~np.isnan(rows["correct"]) & (rows["counts"] > 0)
    frames = float(rows["frames"][known].sum())
    return float(rows["correct"][known].sum() / frames) if frames else None


def _idle_share(host: Host, evidence: Evidence) -> float:
    sharing, cores = evidence.sharing(host)
    return evidence.observed.idle_share(host.name, sharing, cores)


def frame_bytes(rows: Rows) -> list[float]:
    """Quantiles of a clip's mean frame size."""
    known = (rows["counts"] > 0) & (rows["payload_bytes"] > 0) & (rows["frames"] > 0)
    return stored_quantiles((rows["payload_bytes"] / rows["frames"])[known])


def content_correlation(rows: Rows, service: ServiceFits) -> float:
    """Rank correlation of what the same content took on devices and at servers, relative to their lines; 0 to 1."""
    servers = {name for name in service.lines if name in set(rows["server"])}
    by_content: tuple[dict[str, list[float]], dict[str, list[float]]] = ({}, {})
    for host, line in service.lines.items():
        side = by_content[host in servers]
        positions = service.computations[host].position
        for content, ratio in zip(rows["content_id"][positions], line.ratios, strict=True):
            side.setdefault(content, []).append(float(ratio))
    both = sorted(by_content[0].keys() & by_content[1].keys())
    if len(both) < 3:
        return 0.0
    ranks = [np.argsort(np.argsort([np.mean(side[content]) for content in both])) for side in by_content]
    return float(max(0.0, np.corrcoef(ranks[0], ranks[1])[0, 1]))
