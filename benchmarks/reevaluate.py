"""How fast a policy is judged on a long recorded day, and how much memory that takes.

    .venv/bin/python benchmarks/reevaluate.py [--tasks 100000 300000 1000000] [--devices 200] [--json]

Each trace is generated: rows like those of hosts, of two cells, all on the devices and all at the edge, in a run
folder. Another policy then decides on that day, in a process of its own. Counted are the tasks that were decided. Two
times are told, and the peak memory until then: that of the engine, from the recorded rows to the sealed tables (reading
both cells, queues, policy, writing), which the aim of 100,000 tasks/s is about; and that of everything, with the plan,
the comparison with the source and the report, which hardly grow with the trace. Beside the time that passed stands the
CPU time of that process, of all its threads, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

from edgebed.simulation.testbed.hosts import Testbed
from edgebed.simulation.testbed.ingredients import Ended
from edgebed.trace.manifest import Manifest, write_manifest
from edgebed.trace.schema import STAGES
from orchestrator.backends.simulated_cell import SimulatedCell
from orchestrator.backends.simulated_rows import task_table, write_cell
from orchestrator.columnar import ColumnWriter
from orchestrator.plan import create_run_folder, make_plan
from orchestrator.plan_file import Plan
from orchestrator.seal_columnar import SealedCell, seal_columns
from orchestrator.simulated_profile import testbeds_of

TASKS_PER_EPOCH = 8.0
"""Of each device."""

HOSTS = """
all:
  vars: { ansible_connection: local }
  children:
    edge_servers:
      hosts:
        edge: { edgebed_board: generic-x86, edgebed_workers: 16, edgebed_queue_tasks: 100000 }
    devices:
      vars: { edgebed_board: raspberry-pi-4b, edgebed_link: { rate_bps: 50000000 } }
      hosts:
"""

EXPERIMENT = """
name: long-day
workload: digits
deadline_s: 2.0
arrivals: {{ kind: poisson, rate_per_s: {rate}, frames: {{ low: 2, high: 6 }} }}
epoch_s: 1.0
epochs: {epochs}
warm_up_epochs: 0
placement: controller
policies: [all_local, all_edge]
order: sequential
seeds: [1]
backend: simulated
"""


def write_trace(folder: Path, tasks: int, devices: int) -> Path:
    """Generate a run of about so many tasks; returns its folder."""
    folder.mkdir(parents=True)
    hosts = folder / "hosts.yaml"
    hosts.write_text(HOSTS + "".join(f"        pi-{number:04d}: {{}}\n" for number in range(devices)))
    experiment = folder / "experiment.yaml"
    epochs = max(10, round(tasks / devices / TASKS_PER_EPOCH))
    experiment.write_text(EXPERIMENT.format(rate=TASKS_PER_EPOCH, epochs=epochs))
    plan = make_plan(experiment, hosts)
    run = create_run_folder(plan, folder / "runs")
    plan = Plan.from_yaml(run / "plan.yaml")
    _write_tables(run, plan, testbeds_of(plan, None)["base"])
    return run


def _write_tables(run: Path, plan: Plan, testbed: Testbed) -> None:
    """Rows as hosts would have written them, each task behind a little queue."""
    cells = plan.cells
    with tempfile.TemporaryDirectory() as scratch, ColumnWriter(Path(scratch)) as writer:
        for number, planned in enumerate(cells):
            spec = planned.spec(number + 1, 1)
            cell = SimulatedCell(spec, testbed, 0.0, run)
            _fill(cell, site=number)
            write_cell(writer, run / "cells" / spec.cell_id / "attempt-1", cell, math.inf)
    manifest = Manifest(run_id=plan.run_id, experiment=plan.experiment, plan_hash=plan.plan_hash, state="complete")
    sealed = [SealedCell(planned.spec(number + 1, 1), 1) for number, planned in enumerate(cells)]
    counts = seal_columns(run, sealed, lambda spec: task_table(SimulatedCell(spec, testbed, 0.0, run), 0.0))
    manifest.counts = {"planned": counts.planned, "done": counts.done}
    write_manifest(run, manifest)


def _fill(cell: SimulatedCell, site: int) -> None:
    count, rng, spec = len(cell.tasks), np.random.default_rng(1 + site), cell.cell
    work, record, frames = cell.work(np.arange(count)), cell.record, cell.tasks.frames
    sites, decision_s = np.full(count, site), (cell.tasks.epoch + 1.0) * spec.epoch_s + 0.004 - cell.tasks.offset_s
    stages, waits_s = np.zeros((count, len(STAGES))), rng.exponential(0.02, count)
    stages[:, 0], stages[:, 1] = waits_s * (site == 0), 0.028 * frames * rng.uniform(0.9, 1.1, count) * (site == 0)
    upload_s = 8 * work.bytes_of(frames) / 5e7 + 0.001
    stages[:, 2], stages[:, 3] = waits_s * (site == 1), upload_s * (site == 1)
    stages[:, 5], stages[:, 6] = 0.003 * frames * rng.uniform(0.9, 1.1, count) * (site == 1), 0.001 * (site == 1)
    record.note(
        Ended(
            task=np.arange(count),
            device=cell.tasks.slot,
            outcome=np.zeros(count, np.int64),
            reason=np.zeros(count, np.int64),
            known_s=cell.tasks.offset_s,
            site=sites,
            server=sites - 1,
            edge_frames=frames * sites,
            decision_s=decision_s,
            stages=stages,
            latency_s=decision_s + stages.sum(axis=1),
            device_busy_s=stages[:, 1],
            server_busy_s=stages[:, 5],
            air_s=stages[:, 3],
            granted_bps=np.full(count, np.nan),
            has_resources=np.ones(count, np.bool_),
        )
    )
    record.requested_site[:], record.requested_server[:], record.requested_channel[:] = sites, sites - 1, 0
    record.decision_epoch[:], record.decided_by[:], record.decision_compute_s[:] = cell.tasks.epoch, 0, 0.0002
    record.version[:], record.ready_s[:] = record.version_code("1"), cell.tasks.offset_s + decision_s


REPLAY = """
import json, resource, sys, time
from pathlib import Path
from edgebed.clock import MonotonicClock
from orchestrator.progress import Display
from orchestrator.replay.planning import target_of
from orchestrator.replay.reevaluate import Reevaluation
from orchestrator.replay.source import open_source

def peak_bytes():
    # Not by getrusage where there is another way: its peak has in it that of the process which started this one.
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024

class Silent(Display):
    sealed = peak = None
    def show(self, standing): pass
    def note(self, text): pass
    def close(self):  # once the tables are sealed
        self.sealed = time.perf_counter(), time.process_time()
        self.peak = peak_bytes()

began_s, began_cpu_s = time.perf_counter(), time.process_time()
source = open_source(sys.argv[1], Path("runs"))
target = target_of(sys.argv[3], source.trace.plan)
display = Silent()
engine = time.perf_counter(), time.process_time()
outcome = Reevaluation(source, [target], None, Path(sys.argv[2]), display).run()
took_s = time.perf_counter() - began_s
cpu_s = time.process_time() - began_cpu_s
peak = peak_bytes()
replay = outcome.manifest.replay
engine_s, engine_cpu_s = (end - begin for end, begin in zip(display.sealed, engine))
print(json.dumps({"engine_s": engine_s, "engine_cpu_s": engine_cpu_s, "seconds": took_s, "cpu_s": cpu_s,
                  "engine_peak_bytes": display.peak, "peak_bytes": peak,
                  "shares": replay["shares"], "event_by_event": replay["event_by_event"],
                  "tasks": outcome.manifest.counts["planned"]}))
"""


def measure(run: Path, runs: Path, policy: str) -> dict[str, object]:
    """Judge a policy on a run, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", REPLAY, str(run), str(runs), policy], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, object] = msgspec.json.decode(done.stdout.splitlines()[-1], type=dict)
    return found


def _with_rates(found: dict[str, object]) -> dict[str, object]:
    """What was measured, and tasks for each of its seconds."""
    count = int(str(found["tasks"]))
    names = {"engine_s": "engine_tasks_per_s", "engine_cpu_s": "engine_tasks_per_cpu_s"}
    names |= {"seconds": "tasks_per_s", "cpu_s": "tasks_per_cpu_s"}
    return found | {rate: count / float(str(found[name])) for name, rate in names.items()}


def _tell(row: dict[str, object], devices: int, policy: str) -> None:
    def number(name: str) -> float:
        return float(str(row[name]))

    print(f"{number('tasks'):>9.0f} tasks, {devices} devices, {policy}")
    for label, began in (("engine", "engine_"), ("everything", "")):
        seconds, cpu_s = number(f"{began}s" if began else "seconds"), number(f"{began}cpu_s")
        print(
            f"{label:>12}: {seconds:.1f} s, {number(f'{began}tasks_per_s'):,.0f} tasks/s; {cpu_s:.1f} CPU-s, "
            f"{number(f'{began}tasks_per_cpu_s'):,.0f} tasks/CPU-s; "
            f"peak {number(f'{began}peak_bytes') / 2**20:,.0f} MiB"
        )


def main() -> None:
    """Generate, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--tasks", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--policy", default="queue_threshold")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    rows = []
    for tasks in asked.tasks:
        with tempfile.TemporaryDirectory(prefix="edgebed-long-day-") as scratch:
            began_s = time.perf_counter()
            run = write_trace(Path(scratch) / "trace", tasks, asked.devices)
            print(f"trace written in {time.perf_counter() - began_s:.1f} s", file=sys.stderr)
            found = measure(run, Path(scratch) / "replays", asked.policy)
        rows.append(_with_rates(found))
        _tell(rows[-1], asked.devices, asked.policy)
    if asked.json:
        print(json.dumps({"benchmark": "reevaluate", "devices": asked.devices, "rows": rows}))


if __name__ == "__main__":
    main()
