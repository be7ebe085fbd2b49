"""A testbed of local hosts, driven from outside: the real command, the real programs, and what they leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import yaml

from edgebed.trace.schema import TaskRecord
from edgebed.trace.segments import read_segment
from orchestrator.plan_file import Plan
from tests.processes import await_end

PATIENCE_S = 120.0

EXPERIMENT = {
    "name": "tiny",
    "workload": "instant",
    "deadline_s": 0.4,
    "arrivals": {"kind": "periodic", "period_s": 0.2, "frames": {"low": 1, "high": 3}},
    "epoch_s": 0.3,
    "epochs": 8,
    "policies": ["all_edge"],
    "seeds": [1],
    "timeouts": {"task_s": 10.0},  # only an outage takes so long, however busy the machine is
}


@contextmanager
def clean_testbed(folder: Path) -> Iterator[Testbed]:
    """A testbed that must leave nothing behind."""
    made = Testbed(folder.resolve())
    try:
        yield made
        made.check_nothing_is_left()
    finally:
        made.kill_everything()


class Testbed:
    """One run of `edgebed`, and the processes that it starts.

    Attributes:
        process: the orchestrator.
    """

    __test__ = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state" / "edgebed"
        self.runs = folder / "runs"
        self.process: subprocess.Popen[str] | None = None
        self.environment = os.environ | {"XDG_STATE_HOME": str(folder / "state")}
        self.devices = ["pi-1", "pi-2"]
        self.sessions = 0

    # -- the command --------------------------------------------------------------------------------------------------

    def write_files(self, **changes: Any) -> None:
        """Write the experiment and the hosts file."""
        (self.folder / "tiny.yaml").write_text(yaml.safe_dump(EXPERIMENT | changes))
        groups = {
            "edge_servers": {"hosts": {"edge": {"edgebed_queue_tasks": 32}}},
            "devices": {"hosts": {name: {} for name in self.devices}},
        }
        hosts = {"all": {"vars": {"ansible_connection": "local"}, "children": groups}}
        (self.folder / "hosts.yaml").write_text(yaml.safe_dump(hosts))

    def run(self, **changes: Any) -> None:
        """Begin `edgebed run`."""
        self.write_files(**changes)
        hosts = str(self.folder / "hosts.yaml")
        self.begin("run", str(self.folder / "tiny.yaml"), "--hosts", hosts, "--runs", str(self.runs))

    def resume(self) -> None:
        """Begin `edgebed resume`."""
        self.begin("resume", str(self.run_folder))

    def begin(self, *arguments: str) -> None:
        """Begin an `edgebed` command, with ``--json``."""
        self.sessions += 1
        with self.error_file.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "orchestrator", *arguments, "--json"],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=self.environment,
                start_new_session=True,
            )

    @property
    def error_file(self) -> Path:
        """What the newest command has on standard error."""
        return self.folder / f"session-{self.sessions}.err"

    def finish(self, status: int = 0) -> dict[str, Any]:
        """Wait for the command's end; what its last line of standard output says."""
        assert self.process is not None
        output, _ = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == status, f"{output}\n{self.error_file.read_text()}"
        answer: dict[str, Any] = json.loads(output.splitlines()[-1])
        return answer

    def signal(self, number: signal.Signals) -> None:
        """Send the command a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    # -- looking at it ------------------------------------------------------------------------------------------------

    def wait_for(self, holds: Callable[[], Any], what: str) -> Any:
        """Look until something holds; returns it."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not (found := holds()):
            assert time.monotonic() < deadline_s, f"{what} never came; {self.error_file.read_text()}"
            assert self.process is None or self.process.poll() in (None, -signal.SIGKILL), (
                f"the command ended before {what}: {self.error_file.read_text()}"
            )
            time.sleep(0.01)
        return found

    @property
    def run_folder(self) -> Path:
        """The newest run's folder."""
        return (self.runs / "tiny" / "latest").resolve()

    @property
    def plan(self) -> Plan:
        """Its plan."""
        return Plan.from_yaml(self.run_folder / "plan.yaml")

    def attempts(self, cell: str = "*") -> list[dict[str, Any]]:
        """What the run folder says of attempts, by their serial."""
        found = [json.loads(path.read_text()) for path in self.run_folder.glob(f"cells/{cell}/attempt-*/attempt.json")]
        return sorted(found, key=lambda attempt: attempt["serial"])

    def wait_until_running(self, serial: int = 1) -> None:
        """Wait for an attempt's start."""
        self.wait_for(
            lambda: any(each["serial"] == serial and each.get("state") == "running" for each in self.attempts()),
            f"the start of attempt {serial}",
        )

    def reported(self) -> list[TaskRecord]:
        """Task rows in the raw segments of this run, in the order of their arrival there."""
        paths = sorted(self.run_folder.glob("cells/*/attempt-*/*.records"))
        rows = [record.row for path in paths for record in read_segment(path) if record.kind == "task"]
        return [msgspec.msgpack.decode(row, type=TaskRecord) for row in rows]

    def wait_for_rows(self, count: int, device: str | None = None, at_least_offset_s: float = 0.0) -> None:
        """Wait until so many tasks (of a device, that arrived so late in their cell) were reported."""

        def enough() -> bool:
            start_s = {each["cell_id"]: each.get("run_clock_s", 0.0) for each in self.attempts()}
            rows = [row for row in self.reported() if device in (None, row.device_id)]
            return sum(row.arrived_s - start_s[row.cell_id] >= at_least_offset_s for row in rows) >= count

        self.wait_for(enough, f"{count} rows of {device or 'anyone'} beyond {at_least_offset_s} s")

    def host_folder(self, host: str) -> Path:
        """A host's state folder."""
        return next(self.state.glob(f"*/{host}"))

    def pid(self, host: str, program: str) -> int:
        """The process of a program, as soon as it runs."""

        def read() -> int:
            path = self.host_folder(host) / f"{program}.pid"
            return int(path.read_text() or 0) if path.exists() else 0

        return int(self.wait_for(read, f"a process of {program} on {host}"))

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the run's tables."""
        with duckdb.connect() as connection:
            for table in ("tasks", "epochs", "samples", "events"):
                path = self.run_folder / f"{table}.parquet"
                connection.execute(f"CREATE VIEW {table} AS FROM read_parquet('{path}')")
            return connection.execute(query).fetchall()

    # -- what must hold whatever happened -----------------------------------------------------------------------------

    def check_rows(self) -> Counter[tuple[str, str]]:
        """Each planned task has one row with one outcome, and nothing else is there; how often (outcome, reason)."""
        planned = [
            cell.task_id(device.name, task.index)
            for cell in self.plan.cells
            for device in self.plan.devices
            for task in cell.planned_tasks(device.name)
        ]
        rows = self.sql("SELECT task_id, outcome, coalesce(reason, ''), latency_s, attempt FROM tasks")
        assert Counter(row[0] for row in rows) == Counter(planned)
        assert {row[1] for row in rows} <= {"done", "failed", "unknown"}
        assert all((row[1] == "done") == (row[3] is not None) for row in rows)
        assert all((row[1] == "done") == (row[2] == "") for row in rows)
        latest = {each["cell_id"]: each["attempt"] for each in self.attempts()}
        assert all(row[4] == latest.get(row[0].split("/")[0], 0) for row in rows)
        unequal = self.sql(
            "SELECT task_id FROM tasks WHERE outcome = 'done' AND abs(latency_s - decision_s - device_queue_s - "
            "device_compute_s - uplink_queue_s - uplink_s - server_queue_s - server_compute_s - downlink_s) > 0.001"
        )
        assert unequal == [], "stages add up to the latency"
        return Counter((row[1], row[2]) for row in rows)

    def manifest(self) -> dict[str, Any]:
        """The run's manifest."""
        manifest: dict[str, Any] = json.loads((self.run_folder / "manifest.json").read_text())
        return manifest

    def commands(self) -> list[str]:
        """Command lines of the processes that belong to this testbed; zombies have none."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue  # it has ended meanwhile
            if str(self.folder) in text:
                found.append(f"{path.parent.name}: {text}")
        return found

    def check_nothing_is_left(self) -> None:
        """No process, no key, no state folder, no half-written file."""
        for line in self.commands():  # what was told to end does so when the kernel next runs it
            await_end(int(line.partition(":")[0]))
        assert self.commands() == []
        assert not list(self.state.glob("*"))
        left = {path.name for path in self.run_folder.iterdir()} - {
            "plan.yaml", "manifest.json", "report.html", "cells", "outside", "logs",
            "tasks.parquet", "epochs.parquet", "samples.parquet", "events.parquet", "profile.yaml",
            "stop.json",
        }  # fmt: skip
        assert left == set()

    def kill_programs(self) -> None:
        """Kill what runs on the hosts, also what a supervisor starts meanwhile."""

        def is_over() -> bool:
            lines = self.commands()
            for line in lines:
                with suppress(ProcessLookupError):
                    os.kill(int(line.partition(":")[0]), signal.SIGKILL)
            return not lines

        self.wait_for(is_over, "the end of all programs")

    def kill_everything(self) -> None:
        """End what a failed test has left; by number, and only what belongs to this testbed."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process is not None and self.process.stdout is not None:
            self.process.stdout.close()
        self.process = None
        self.kill_programs()
