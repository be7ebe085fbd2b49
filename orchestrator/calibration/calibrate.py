"""A profile from runs: every part of it fitted to the rows that speak of it, with what was left over and what was used.

What is missing is said all at once: a profile that guesses where nothing was measured would look like one that knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgebed.errors import BadInput, Problem
from edgebed.simulation.radio.between_hosts import interference_of
from edgebed.simulation.testbed.profile import Link, Profile, Source
from orchestrator.calibration.deciding import fit_deciders
from orchestrator.calibration.evidence import Evidence, gather
from orchestrator.calibration.fitting import LineFit, stored_quantiles
from orchestrator.calibration.hosts import content_correlation, device_profile, frame_bytes, server_profile
from orchestrator.calibration.links import LinkFit, fit_link
from orchestrator.calibration.service import LEAST_ROWS, ServiceFits, computations_of, fit_service
from orchestrator.calibration.traces import Trace, check_alike
from orchestrator.inventory import Host
from orchestrator.plan_file import Plan


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fitted profile, and what people are told of it.

    Attributes:
        notes: sentences on what could not be fitted and was taken from elsewhere.
    """

    profile: Profile
    notes: tuple[str, ...]


def calibrate(traces: Sequence[Trace]) -> Calibration:
    """Fit a profile to runs.

    Args:
        traces: of one workload, one model and one set of boards.

    Raises:
        BadInput: the runs lack what a part of the profile needs; everything that is missing is named.
        SchemaMismatch: the runs are of different workloads, models or boards.
    """
    check_alike(traces)
    if len(traces[0].workloads) != 1:
        raise BadInput(
            f"{traces[0].run.path} computes several workloads ({', '.join(traces[0].workloads)}); a profile is of one"
        )
    evidence = gather(traces)
    service = fit_service(computations_of(evidence.rows, evidence.group_of), evidence.group_of, evidence.cores)
    links = _links(evidence)
    _check_complete(evidence, service, links)
    deciding = fit_deciders(evidence.rows, traces)
    notes = [*deciding.notes, *_left_out(evidence)]
    lines = {host.name: _line_of(host, evidence, service, notes) for host in (*evidence.devices, *evidence.servers)}
    profile = Profile(
        workload=traces[0].workloads[0],
        model_sha256=traces[0].model_sha256,
        cycles_per_frame=evidence.cycles_per_frame,
        frame_bytes=frame_bytes(evidence.rows),
        within_task_correlation=content_correlation(evidence.rows, service),
        drift=stored_quantiles(service.drift) if np.ptp(service.drift) > 0 else [1.0],
        devices={
            host.name: device_profile(host, evidence, service, lines[host.name], _link_of(host, evidence, links, notes))
            for host in evidence.devices
        },
        servers={host.name: server_profile(host, evidence, service, lines[host.name]) for host in evidence.servers},
        deciders=deciding.deciders,
        processors=service.processors,
        source=_source(evidence, notes, _residuals(service, links) | {"deciders": deciding.residuals}),
    )
    problems = list(profile.problems())
    if problems:  # a number in the rows was not what it can be
        raise BadInput(problems)
    return Calibration(profile, tuple(notes))


# -- links, and what is missing ----------------------------------------------------------------------------------------


def _links(evidence: Evidence) -> dict[str, LinkFit]:
    """Links of the devices that sent something; the second pass lends refusals to those that saw none."""
    rows = evidence.rows
    found: dict[str, LinkFit | None] = {}
    trips_s = {host.name: evidence.observed.typical_round_trip_s(host.name) for host in evidence.devices}
    for host in evidence.devices:
        mine = rows.only(np.asarray(rows["device_id"] == host.name))
        found[host.name] = fit_link(mine, host.link_rate_bps, trips_s[host.name])
    lender = next((fit.link for fit in found.values() if fit is not None and fit.refusals), None)
    for host in evidence.devices:
        fit = found[host.name]
        if fit is not None and lender is not None and not fit.refusals:
            mine = rows.only(np.asarray(rows["device_id"] == host.name))
            found[host.name] = fit_link(mine, host.link_rate_bps, trips_s[host.name], lender)
    return {name: fit for name, fit in found.items() if fit is not None}


def _check_complete(evidence: Evidence, service: ServiceFits, links: Mapping[str, LinkFit]) -> None:
    problems = []
    for host in (*evidence.devices, *evidence.servers):
        if host.name not in service.lines and _alike(host, evidence, service) is None:
            seen = len(service.computations.get(host.name, ()))
            role = "add a run with a policy that computes there, all_local say"
            if host.role == "edge_server":
                role = "add a run with a policy that offloads, all_edge say"
            message = f"{seen} usable tasks were computed there; its service time needs {LEAST_ROWS}: {role}"
            message += "".join(f" ({note})" for note in _left_out(evidence))
            problems.append(Problem(message, host.name))
    for host in evidence.devices:
        if host.name not in links and _link_alike(host, evidence, links) is None:
            message = "no offloaded task of it is done in these runs; its link needs some: add a run with all_edge"
            problems.append(Problem(message, host.name))
    if problems:
        raise BadInput(problems)


def _alike(host: Host, evidence: Evidence, service: ServiceFits) -> str | None:
    """Another host of the same kind that was seen computing."""
    group = evidence.devices if host.role == "device" else evidence.servers
    for other in group:
        same = (other.board, other.slowdown, other.connection) == (host.board, host.slowdown, host.connection)
        if same and other.name in service.lines:
            return other.name
    return None


def _link_alike(
    host: Host, evidence: Evidence, links: Mapping[str, LinkFit] | Mapping[str, LinkFit | None]
) -> str | None:
    for other in evidence.devices:
        same = (other.link_rate_bps, other.connection) == (host.link_rate_bps, host.connection)
        if same and other.name in links:
            return other.name
    return None


def _line_of(host: Host, evidence: Evidence, service: ServiceFits, notes: list[str]) -> LineFit:
    if host.name in service.lines:
        return service.lines[host.name]
    other = _alike(host, evidence, service)
    assert other is not None, "_check_complete has looked"
    notes.append(f"{host.name} computed too few tasks; its service time is that of {other}, a host alike")
    return service.lines[other]


def _left_out(evidence: Evidence) -> Iterator[str]:
    rows = evidence.rows
    disturbed = int(((rows["disturbed"] > 0) & (rows["counts"] > 0)).sum())
    if disturbed:
        yield f"{disturbed} tasks were under way while faults were done on purpose, and are left out"


def _link_of(host: Host, evidence: Evidence, links: Mapping[str, LinkFit], notes: list[str]) -> Link:
    if host.name in links:
        return links[host.name].link
    other = _link_alike(host, evidence, links)
    assert other is not None, "_check_complete has looked"
    notes.append(f"{host.name} sent nothing; its link is that of {other}, paced alike")
    return links[other].link


# -- what it was made of ----------------------------------------------------------------------------------------------


def _residuals(service: ServiceFits, links: Mapping[str, LinkFit]) -> dict[str, Any]:
    computing = {}
    for host, line in sorted(service.lines.items()):
        found = service.computations[host]
        computing[host] = {
            "rows": len(found),
            "relative_rms": line.relative_rms,
            "mean_others": float(np.mean(found.others)),
        }
    sending = {
        name: {
            "rows": fit.rows,
            "rows_waited_for": fit.pairs,
            "refusals": fit.refusals,
            "relative_rms": fit.relative_rms,
        }
        for name, fit in sorted(links.items())
    }
    drift = {"cells": len(service.drift), "least": float(service.drift.min()), "most": float(service.drift.max())}
    return {"compute": computing, "link": sending, "drift": drift}


def _source(evidence: Evidence, notes: Sequence[str], residuals: Mapping[str, Any]) -> Source:
    rows = evidence.rows
    used = int((rows.is_usable & rows.is_done).sum())
    counts = int((rows["counts"] > 0).sum())
    text = f"fitted to {used} of {rows.total} tasks of {len(evidence.traces)} runs"
    if counts - used:
        text += f"; {counts - used} were not done, or flagged as doubtful"
    if rows.total - counts:
        text += f"; {rows.total - counts} are of later epochs, for which there was no room"
    return Source(
        kind="calibrated",
        runs=list(rows.runs),
        cells=rows.only(rows.is_usable).cells,
        tasks=used,
        seeds=sorted({int(seed) for seed in rows["seed"]}),
        policies=sorted(set(rows["policy"])),
        text="; ".join([text, *notes]),
        residuals=dict(residuals),
        conditions=_conditions(evidence.traces[0].plan),
    )


def _channel_rate_bps(plan: Plan) -> float:
    """Of the first setting; 0: not shaped. `edgebed.simulation.calibrated` shares it equally.

    Where uploads interfere it is what one gets that is alone on a channel, the mean over devices and servers.
    """
    setting = plan.settings[0]
    if setting.channels.model != "sinr":
        return setting.channels.rate_bps if setting.channels.model == "share" else 0.0
    cell = next(cell for cell in plan.cells if cell.setting.name == setting.name).spec(serial=1, attempt=1)
    interference = interference_of(cell)
    return float(np.mean([interference.alone_bps(index) for index in range(len(cell.servers))]))


def _conditions(plan: Plan) -> dict[str, Any]:
    """The first setting, in the terms of `edgebed.simulation.calibrated`, as far as these have them."""
    setting = plan.settings[0]
    arrivals = setting.arrival_settings
    if arrivals.kind == "poisson" and arrivals.rate_per_s is not None:
        rate_per_s = arrivals.rate_per_s
    else:
        rate_per_s = 1.0 / arrivals.period_s if arrivals.period_s else 1.0 / setting.epoch_s
    return {
        "epochs": setting.epochs,
        "epoch_s": setting.epoch_s,
        "rate_per_s": rate_per_s,
        "frames_low": arrivals.frames_low,
        "frames_high": arrivals.frames_high,
        "deadline_s": arrivals.deadline_s,
        "task_timeout_s": setting.timeouts.task_s or 5.0 * arrivals.deadline_s,
        "channels": setting.channels.count,
        "channel_rate_bps": _channel_rate_bps(plan),
        "latency_weight": setting.reward.latency,
        "energy_weight": setting.reward.energy,
        "miss_penalty": setting.reward.miss_penalty,
    }
