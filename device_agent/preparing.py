"""Getting ready for a cell, on the executor's thread: load the model, render the clips, measure the own speed."""

from __future__ import annotations

import logging
import os
import platform
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from device_agent.content import Clip, Content
from device_agent.deciding import LocalPolicy
from device_agent.executor import SlowedWorkload
from edgebed.errors import BadInput, EdgebedError
from edgebed.protocol.cells import CellSpec
from edgebed.randomness import stream
from workloads.arrival_files import settings_from_plain
from workloads.arrivals import PlannedTask, planned_tasks
from workloads.base import Workload, pack_clip
from workloads.files import CONTENT_FOLDER, load_placed

_log = logging.getLogger(__name__)

WARM_UP_FRAMES = 5
"""Frames whose median time says how fast this device is; the first frames after loading are slower."""


@dataclass(frozen=True, slots=True)
class PreparedCell:
    """All that a device needs to run a cell.

    Attributes:
        clips: by the task's index.
        slowed: what executes frames here.
        seconds_per_frame: measured, as slow as the device is to appear.
        policy: the policy itself where this device decides, else None.
        fallback: decides when nobody else does.
        facts: what the run's manifest is told of this device.
    """

    cell: CellSpec
    planned: list[PlannedTask]
    clips: dict[int, Clip]
    slowed: SlowedWorkload
    cycles_per_frame: float
    seconds_per_frame: float
    policy: LocalPolicy | None
    fallback: LocalPolicy
    facts: dict[str, Any]


@dataclass(slots=True)
class Workshop:
    """What is kept between cells, so that the next one is ready sooner. Belongs to the executor's thread.

    Attributes:
        make_slowed: a workload as this device is to execute it, and the same without waiting.
    """

    device: str
    servers: frozenset[str]
    content: Content
    slowdown: float
    make_slowed: Callable[[Workload, float], SlowedWorkload]
    _workloads: dict[str, Workload] = field(default_factory=dict)

    def workload(self, name: str, options: Mapping[str, Any]) -> tuple[str, Workload]:
        """The loaded workload, and a text that names it with its options."""
        source = name + msgspec.json.encode(dict(options), order="deterministic").decode()
        if source not in self._workloads:
            self._workloads.clear()  # one model in memory is enough
            self._workloads[source] = load_placed(name, options, self.content.folder / CONTENT_FOLDER)
        workload = self._workloads[source]
        workload.load()
        return source, workload


@dataclass(slots=True, eq=False)
class Preparation:
    """A job: prepare a cell.

    Attributes:
        cancelled: set it to end early; the result does not count then.
        prepared, problem: what came of it.
    """

    cell: CellSpec
    workshop: Workshop
    cancelled: bool = False
    prepared: PreparedCell | None = None
    problem: str = ""

    def run(self) -> None:
        """Prepare; never raises."""
        if self.cancelled:
            return
        try:
            self.prepared = prepare(self.cell, self.workshop, lambda: self.cancelled)
        except EdgebedError as error:
            self.problem = str(error)
        except Exception as error:  # workloads and policies are someone's own code: they may raise anything
            _log.exception("preparing cell %s failed", self.cell.cell_id)
            self.problem = repr(error)


def prepare(cell: CellSpec, workshop: Workshop, is_cancelled: Callable[[], bool]) -> PreparedCell:
    """Load, render, warm up and measure.

    Raises:
        BadInput: the cell cannot run on this device.
        WorkFailed: the clips cannot be written.
    """
    check_cell(cell, workshop.device, workshop.servers)
    policy, files = None, workshop.content.folder / CONTENT_FOLDER
    if cell.placement == "device":
        policy = LocalPolicy(cell.policy_name, cell.policy_options, workshop.device, cell, "policy", files)
    fallback = LocalPolicy(cell.fallback_policy, {}, workshop.device, cell, "fallback", files)
    planned = planned_tasks(
        settings_from_plain(cell.arrivals),
        cell.seed,
        workshop.device,
        workload=cell.workload,
        epochs=cell.epochs,
        epoch_s=cell.epoch_s,
    )
    source, workload = workshop.workload(cell.workload, cell.workload_options)
    clips, rendered = workshop.content.prepare(workload, source, cell.seed, workshop.device, planned, is_cancelled)
    seconds_per_frame = measure_frame(workload, workshop, cell.seed)
    facts = {
        **host_facts(workload),
        "planned": len(planned),
        "rendered": rendered,
        "cycles_per_frame": workload.demand.cycles_per_frame,
        "seconds_per_frame": seconds_per_frame,
        "slowdown": workshop.slowdown,
    }
    return PreparedCell(
        cell,
        planned,
        clips,
        workshop.make_slowed(workload, workshop.slowdown),
        workload.demand.cycles_per_frame,
        seconds_per_frame,
        policy,
        fallback,
        facts,
    )


def check_cell(cell: CellSpec, device: str, servers: frozenset[str]) -> None:
    """Can this device take part?

    Raises:
        BadInput: it is not in the cell, does not know a server, or is asked for what only the other placement can do.
    """
    if device not in cell.devices:
        raise BadInput(f"cell {cell.cell_id} is not for {device}, only for {', '.join(cell.devices)}")
    unknown = [name for name in cell.servers if name not in servers]
    if unknown:
        known = ", ".join(sorted(servers)) or "none"
        raise BadInput(
            f"cell {cell.cell_id} uses the servers {', '.join(unknown)}; {device} knows {known}: deploy again"
        )
    if cell.decide_at == "arrival" and cell.placement != "device":
        raise BadInput(f"decide_at: arrival needs placement: device; cell {cell.cell_id} has {cell.placement}")


def measure_frame(workload: Workload, workshop: Workshop, seed: int) -> float:
    """Seconds that one frame takes on this device, the waiting that emulates a slower board included."""
    rng = stream(seed, "warm-up", workshop.device)
    frame = workload.generate(rng, "warm-up", 1).frames
    payload = pack_clip(frame)
    unslowed = workshop.make_slowed(workload, 1.0)
    times_s = []
    for _ in range(WARM_UP_FRAMES):
        result = unslowed.execute(lambda: payload, 1)
        if result.error:
            raise BadInput(f"workload {workload.name} cannot execute its own frame: {result.error}")
        # Not waited for, but counted: a slow board would make every cell start later otherwise.
        times_s.append(result.finished_s - result.started_s + (workshop.slowdown - 1.0) * result.cpu_s)
    return max(statistics.median(times_s), 1e-9)


def host_facts(workload: Workload) -> dict[str, Any]:
    """What a run's manifest says of this host."""
    from importlib.metadata import PackageNotFoundError, version  # here: nobody but a starting cell pays for it

    packages = {}
    for name in ("edgebed", "numpy", "onnxruntime", "pyzmq", "msgspec", "pillow"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "cpu_count": os.cpu_count(),
        "machine": platform.machine(),
        "system": platform.system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": packages,
        "model_sha256": _model_checksum(workload),
    }


def _model_checksum(workload: Workload) -> str | None:
    """The checksum of the model that a workload with a manifest ships; others have none to tell."""
    model = getattr(getattr(workload, "manifest", None), "model", None)
    checksum = getattr(model, "sha256", None)
    return checksum if isinstance(checksum, str) else None
