"""Runs made up for the tests of sealing, verdict and report: five policies on three devices, a FIFO at each site."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml

from edgebed.protocol.cells import CellSpec, RewardSettings, Timeouts
from edgebed.randomness import stream
from edgebed.trace.cost import task_cost
from edgebed.trace.manifest import ClockOffset, Manifest, Model, Software, write_manifest
from edgebed.trace.schema import EpochRecord, EventRecord, Record, SampleRecord, TaskRecord
from edgebed.trace.segments import SegmentWriter, outside_path, segment_path
from orchestrator.seal import SealedCounts, seal

DEVICES = ["pi-1", "pi-2", "pi-3"]
SERVER = "edge-1"
BOARD = {"name": "raspberry-pi-4b", "title": "Raspberry Pi 4B", "idle_w": 2.29, "max_w": 6.82, "error_fraction": 0.15}
ENERGY_SOURCE = "estimated:cpu-model/raspberry-pi-4b"


@dataclass(frozen=True)
class Recipe:
    """What a made-up run is like.

    Attributes:
        change: called with each task's row before it is written; None drops the row, so that nobody reports it.
    """

    name: str = "demo"
    policies: tuple[str, ...] = ("all_local", "all_edge", "uniform_random", "queue_threshold", "greedy_latency")
    seeds: tuple[int, ...] = (1, 2, 3)
    epochs: int = 12
    epoch_s: float = 1.0
    tasks_per_epoch: float = 1.6
    deadline_s: float = 0.8
    samples: bool = True
    throttle_words: dict[str, int] = field(default_factory=dict)
    change: Callable[[TaskRecord], TaskRecord | None] = lambda row: row

    def cells(self) -> list[CellSpec]:
        return [
            CellSpec(
                run_id=f"{self.name}-0001",
                plan_hash="0f" * 32,
                cell_id=f"{policy}-seed{seed}",
                serial=number + 1,
                attempt=1,
                policy=policy,
                policy_name=policy,
                seed=seed,
                workload="digits",
                arrivals={"process": "poisson"},
                epoch_s=self.epoch_s,
                epochs=self.epochs,
                reward=RewardSettings(energy=0.1),
                timeouts=Timeouts(task_s=5 * self.deadline_s),
                devices=DEVICES,
                servers=[SERVER],
            )
            for number, (seed, policy) in enumerate((seed, policy) for seed in self.seeds for policy in self.policies)
        ]


def planned_rows(recipe: Recipe) -> Iterator[TaskRecord]:
    """The rows of the plan, all of them not reported."""
    for number, cell in enumerate(recipe.cells()):
        start_s = number * (recipe.epochs * recipe.epoch_s + 3.0)
        for device in DEVICES:
            rng = stream(cell.seed, "arrivals", device)
            count = int(recipe.epochs * recipe.tasks_per_epoch)
            for index, at_s in enumerate(np.sort(rng.uniform(0, recipe.epochs * recipe.epoch_s, count))):
                frames = int(rng.integers(1, 5))
                yield TaskRecord(
                    run_id=cell.run_id,
                    cell_id=cell.cell_id,
                    policy=cell.policy_name,
                    seed=cell.seed,
                    device_id=device,
                    task_id=f"{cell.cell_id}/{device}/{index}",
                    epoch=int(at_s / recipe.epoch_s),
                    backend="hosts",
                    attempt=1,
                    arrived_s=start_s + float(at_s),
                    content_id=f"digits:{cell.seed}:{device}:{index}:{frames}",
                    frames=frames,
                    payload_bytes=17_000 * frames,
                    cycles=9e7 * frames,
                    deadline_s=recipe.deadline_s,
                    outcome="unknown",
                    reason="not_reported",
                )


def executed_rows(recipe: Recipe, cell: CellSpec) -> list[TaskRecord]:
    """What the devices of a cell report: every task done, after it waited its turn."""
    rng = stream(cell.seed, "execution", cell.cell_id)
    free_s: dict[str, float] = {}
    rows = sorted((row for row in planned_rows(recipe) if row.cell_id == cell.cell_id), key=lambda row: row.arrived_s)
    for row in rows:
        _decide(row, recipe, rng, free_s)
        _execute(row, rng, free_s)
        row.cost = task_cost(row, cell.reward, cell.timeouts.task_s)
    return rows


def _decide(row: TaskRecord, recipe: Recipe, rng: np.random.Generator, free_s: dict[str, float]) -> None:
    queue_s = max(0.0, free_s.get(row.device_id, 0.0) - row.arrived_s)
    server_queue_s = max(0.0, free_s.get(SERVER, 0.0) - row.arrived_s)
    offload = {
        "all_local": False,
        "all_edge": True,
        "uniform_random": bool(rng.integers(2)),
        "queue_threshold": queue_s > 0.3,
        "greedy_latency": queue_s + 0.12 * (row.frames or 1) > server_queue_s + 0.07 * (row.frames or 1),
    }.get(row.policy, False)
    row.requested_site = row.site = "edge" if offload else "device"
    row.requested_server = row.server = SERVER if offload else None
    row.requested_channel = row.channel = 0 if offload else None
    row.edge_fraction, row.edge_frames = float(offload), (row.frames or 0) * offload
    row.cpu_fraction = row.power_fraction = 1.0
    row.decision_epoch = row.epoch + 1
    row.decided_by, row.policy_version = "controller", "1"
    row.decision_s = recipe.epoch_s * 0.1 * float(rng.random()) + 0.004
    row.decision_compute_s = 0.0004


def _execute(row: TaskRecord, rng: np.random.Generator, free_s: dict[str, float]) -> None:
    frames = row.frames or 1
    stages = dict.fromkeys(("device_queue", "device_compute", "uplink_queue", "uplink", "server_queue"), 0.0)
    stages |= {"server_compute": 0.0, "downlink": 0.0}
    now_s = row.arrived_s + (row.decision_s or 0.0)

    def through(site: str, queue: str, work: str, duration_s: float) -> None:
        nonlocal now_s
        stages[queue] = max(0.0, free_s.get(site, 0.0) - now_s)
        stages[work] = duration_s * float(rng.lognormal(0, 0.15))
        now_s += stages[queue] + stages[work]
        free_s[site] = now_s

    if row.site == "device":
        through(row.device_id, "device_queue", "device_compute", 0.12 * frames)
    else:
        through(f"uplink of {row.device_id}", "uplink_queue", "uplink", 0.035 * frames)
        through(SERVER, "server_queue", "server_compute", 0.025 * frames)
        stages["downlink"] = 0.002
        row.clock_error_s = 0.0004
    for stage, duration_s in stages.items():
        setattr(row, f"{stage}_s", duration_s)
    row.outcome, row.reason = "done", None
    row.latency_s = (row.decision_s or 0.0) + sum(stages.values())
    row.deadline_met = row.latency_s <= row.deadline_s
    row.device_cpu_s, row.server_cpu_s = stages["device_compute"] + 0.003, stages["server_compute"]
    row.device_energy_j = 4.53 * row.device_cpu_s / 4 + 1.2 * stages["uplink"]
    row.server_energy_j = 12.0 * row.server_cpu_s
    row.energy_source = ENERGY_SOURCE
    row.energy_error_j = 0.15 * (row.device_energy_j + row.server_energy_j)
    row.label = [int(label) for label in rng.integers(0, 10, frames)]
    row.predicted = [label if rng.random() < 0.99 else (label + 1) % 10 for label in row.label]
    row.correct = sum(a == b for a, b in zip(row.label, row.predicted, strict=True))
    row.flags = ["emulated"]


def write_segment(path: Path, serial: int, rows: list[Any]) -> None:
    """Append rows to a segment, numbered from 1."""
    kinds = {TaskRecord: "task", EpochRecord: "epoch", SampleRecord: "sample", EventRecord: "event"}
    with SegmentWriter(path) as writer:
        writer.append(
            Record(number + 1, serial, kinds[type(row)], msgspec.msgpack.encode(row)) for number, row in enumerate(rows)
        )


def write_raw(folder: Path, recipe: Recipe) -> None:
    """Write the plan, the manifest and the raw segments of a made-up run."""
    cells = recipe.cells()
    folder.mkdir(parents=True)
    hosts = {
        name: {
            "role": "edge_server" if name == SERVER else "device",
            "board": BOARD,
            "slowdown": 1.0 if name == SERVER else 6.0,
            "facts": {"system": "Linux 6.6 aarch64", "processor": "Cortex-A72"},
        }
        for name in [SERVER, *DEVICES]
    }
    plan = {
        "plan_hash": cells[0].plan_hash,
        "run_id": cells[0].run_id,
        "experiment": recipe.name,
        "experiment_file": f"inventory/experiments/{recipe.name}.yaml",
        "hosts_file": "inventory/hosts/local.yaml",
        "backend": "hosts",
        "controller": SERVER,
        "edge_servers": [{"name": SERVER, "role": "edge_server", "board": BOARD["name"], "slowdown": 1.0}],
        "devices": [{"name": name, "role": "device", "board": BOARD["name"], "slowdown": 6.0} for name in DEVICES],
        "boards": {BOARD["name"]: BOARD},
        "policies": [{"label": policy, "name": policy} for policy in recipe.policies],
        "seeds": list(recipe.seeds),
        "settings": [{"name": "base", "changes": {}, "epoch_s": recipe.epoch_s}],
        "cells": [{"id": cell.cell_id, "policy": cell.policy, "seed": cell.seed, "setting": "base"} for cell in cells],
    }
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    manifest = Manifest(
        run_id=cells[0].run_id,
        experiment=recipe.name,
        plan_hash=cells[0].plan_hash,
        state="running",
        started="2025-03-01T10:00:00Z",
        command=f"edgebed run inventory/experiments/{recipe.name}.yaml --hosts inventory/hosts/local.yaml",
        software=Software(edgebed="0.1.0", python="3.11.9", git_commit="c0ffee" + "0" * 34, git_dirty=False),
        model=Model(name="digits-mobilenet", sha256="ab" * 32, accuracy=0.99),
        hosts=hosts,
        clocks={name: ClockOffset(offset_s=0.0001, error_s=0.0004) for name in hosts},
    )
    write_manifest(folder, manifest)
    for number, cell in enumerate(cells):
        _write_cell(folder, recipe, cell, number * (recipe.epochs * recipe.epoch_s + 3.0))
    write_segment(
        outside_path(folder, "orchestrator"),
        0,
        [EventRecord(t_s=-1.0, host="orchestrator", kind="run_started", detail=f'{{"cells": {len(cells)}}}')],
    )


def _write_cell(folder: Path, recipe: Recipe, cell: CellSpec, start_s: float) -> None:
    executed = executed_rows(recipe, cell)
    for device in DEVICES:
        rows: list[Any] = [row for row in executed if row.device_id == device]
        rows = [changed for row in rows if (changed := recipe.change(row)) is not None]
        if recipe.samples:
            rows += _samples(recipe, device, executed, start_s, 2.29, 4.53)
        write_segment(segment_path(folder, cell.cell_id, 1, device), cell.serial, rows)
    if recipe.samples:
        rows = _samples(recipe, SERVER, executed, start_s, 30.0, 48.0)
        write_segment(segment_path(folder, cell.cell_id, 1, SERVER), cell.serial, rows)
    decisions: list[Any] = [
        EpochRecord(
            run_id=cell.run_id,
            cell_id=cell.cell_id,
            epoch=epoch,
            device_id="",
            observation=[0.5] * 6,
            action=[0.0] * 18 if epoch <= recipe.epochs else [],
            decided_by="controller",
        )
        for epoch in range(recipe.epochs + 2)
    ]
    decisions.append(EventRecord(t_s=start_s, host="controller", kind="cell_started", detail=f'"{cell.cell_id}"'))
    write_segment(segment_path(folder, cell.cell_id, 1, "controller"), cell.serial, decisions)


def _samples(
    recipe: Recipe, host: str, executed: list[TaskRecord], start_s: float, idle_w: float, span_w: float
) -> list[SampleRecord]:
    rng = stream(1, "samples", host, str(start_s))
    work = "server_compute_s" if host == SERVER else "device_compute_s"
    busy = [
        (row.arrived_s, row.arrived_s + (row.latency_s or 0.0))
        for row in executed
        if getattr(row, work) and host in (row.device_id, SERVER)
    ]
    rows = []
    for t_s in np.arange(start_s, start_s + recipe.epochs * recipe.epoch_s, 0.5).tolist():
        cpu = min(1.0, 0.04 + 0.3 * sum(begin <= t_s < end for begin, end in busy) + 0.02 * float(rng.random()))
        rows.append(
            SampleRecord(
                host=host,
                t_s=t_s,
                cpu=cpu,
                frequency_hz=1.5e9,
                temperature_c=48.0 + 10.0 * cpu,
                throttle_word=recipe.throttle_words.get(host, 0) if t_s - start_s >= 2.0 else 0,
                memory_bytes=400_000_000,
                rx_bytes=1000,
                tx_bytes=1000,
                power_w=idle_w + span_w * cpu,
                power_source=ENERGY_SOURCE,
            )
        )
    return rows


@dataclass(frozen=True)
class MadeRun:
    """A made-up run that has been sealed."""

    path: Path
    recipe: Recipe
    counts: SealedCounts

    def seal_again(self) -> SealedCounts:
        return seal(self.path, self.recipe.cells(), planned_rows(self.recipe))


MakeRun = Callable[..., MadeRun]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Make a sealed run; keywords change the recipe."""

    def make(path: Path | None = None, **changes: Any) -> MadeRun:
        recipe = replace(Recipe(), **changes)
        path = path or tmp_path / "runs" / recipe.name / "20250301T100000Z"
        write_raw(path, recipe)
        return MadeRun(path, recipe, seal(path, recipe.cells(), planned_rows(recipe)))

    return make


@pytest.fixture(scope="session")
def shared_run(tmp_path_factory: pytest.TempPathFactory) -> MadeRun:
    """One run with nothing unusual in it, for tests that only read."""
    recipe = Recipe()
    path = tmp_path_factory.mktemp("shared") / "runs" / recipe.name / "20250301T100000Z"
    write_raw(path, recipe)
    return MadeRun(path, recipe, seal(path, recipe.cells(), planned_rows(recipe)))


@pytest.fixture(name="write_segment")
def write_segment_fixture() -> Callable[[Path, int, list[Any]], None]:
    """Write rows as a raw segment."""
    return write_segment
