"""Queues under any faults: every task ends, and nothing is left behind in them."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest

from edge_server.controller.deciding import CentralPolicy
from edgebed.protocol.cells import CellSpec, ChannelSettings, Timeouts
from edgebed.simulation.testbed.ingredients import DONE, NOWHERE, Ended
from orchestrator.backends.simulated_cell import SimulatedCell
from orchestrator.backends.simulated_record import OPEN
from orchestrator.faults.schedule import PlannedFault
from tests.simulated_cells import cell, hosts_of

CHANNELS = (ChannelSettings(), ChannelSettings(2, "share", 8e6), ChannelSettings(2, "sinr"))
PLACES_M = {"pi-1": (30.0, 0.0), "pi-2": (0.0, 40.0), "pi-10": (9.0, 9.0), "edge-1": (0.0, 0.0), "edge-2": (40.0, 0.0)}
KINDS = ("kill", "stop", "reboot", "cut_link", "throttle", "slow_link")


def any_faults(spec: CellSpec, rng: np.random.Generator) -> list[PlannedFault]:
    """Some faults of random kinds at random times; those of one kind and host are apart, as plans have them."""
    found: list[PlannedFault] = []
    free_s: dict[tuple[str, str], float] = {}
    for at_s in np.sort(rng.uniform(0.0, spec.horizon_s, rng.integers(1, 9))).tolist():
        kind = str(rng.choice(KINDS))
        of_device = kind in ("reboot", "cut_link", "slow_link") or rng.random() < 0.5
        host = str(rng.choice(spec.devices if of_device else spec.servers))
        program = ""
        if kind in ("kill", "stop"):
            program = "device_agent" if of_device else str(rng.choice(["edge_server", "controller"]))
        for_s = 0.0 if kind in ("kill", "reboot") else float(rng.choice([0.3, 2.0, 4.0]))
        parameters = {
            "throttle": {"fraction": 0.4}, "slow_link": {"delay_s": 0.1, "rate_bps": 3e6}, "reboot": {"boot_s": 1.0},
        }.get(kind, {})  # fmt: skip
        if at_s > free_s.get((host, program or kind), -1.0):
            free_s[host, program or kind] = at_s + for_s
            found.append(
                PlannedFault(
                    number=len(found), at_s=at_s, for_s=for_s, kind=kind, host=host, program=program,
                    parameters=parameters,
                )
            )  # fmt: skip
    return found


def check_instants(simulated: SimulatedCell, ended: Ended) -> None:
    """The stages of a task that is done reach from its arrival until its device knows."""
    done = ended.outcome == DONE
    known_s = simulated.tasks.offset_s[ended.task[done]] + ended.latency_s[done]
    np.testing.assert_allclose(known_s, ended.known_s[done], atol=1e-6)


def run_through(spec: CellSpec, faults: list[PlannedFault]) -> SimulatedCell:
    """A cell from its begin to its end."""
    simulated = SimulatedCell(spec, hosts_of(spec), faults=faults)
    policy = CentralPolicy(spec, simulated.spec) if spec.placement == "controller" else None
    simulated.on_ended = partial(check_instants, simulated)
    while simulated.step(policy):
        pass
    simulated.conclude()
    simulated.advance(math.inf)
    return simulated


@pytest.mark.parametrize("seed", range(60))
def test_every_task_ends_and_nothing_is_left(seed: int) -> None:
    rng = np.random.default_rng(seed)
    spec = cell(
        seed=seed,
        epochs=24,
        policy_name=str(rng.choice(["uniform_random", "all_edge", "greedy_latency"])),
        placement=str(rng.choice(["controller", "device"])),
        on_refusal=str(rng.choice(["fail", "local"])),
        servers=["edge-1", "edge-2"],
        channels=CHANNELS[seed % len(CHANNELS)],
        positions_m=PLACES_M,
        timeouts=Timeouts(task_s=float(rng.choice([1.0, 3.0, 10.0]))),
    )
    simulated = run_through(spec, any_faults(spec, rng))
    record = simulated.record
    assert (record.outcome != OPEN).all()
    done = record.outcome == DONE
    assert done.any()
    assert (record.site[done] != NOWHERE).all()
    assert np.isfinite(record.latency_s[done]).all()
    assert (record.stages[done] >= 0.0).all()
    assert (record.device_busy_s[done] >= 0.0).all()
    load = simulated.pipeline.load()
    assert simulated.pipeline.open == 0
    for name in ("server_tasks", "server_busy_workers", "uploading_bytes", "uplink_queue_bytes", "device_is_busy"):
        assert np.allclose(getattr(load, name), 0.0, atol=1e-6), name
    assert not load.channel_uploads.any()
    assert np.allclose(load.device_queue_delay_s, 0.0)
