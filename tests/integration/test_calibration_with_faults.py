"""Calibration and validation with runs in which something was broken on purpose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml

from edgebed.errors import BadInput
from edgebed.simulation.testbed.profile import read_profile
from edgebed.trace.runs import Run
from orchestrator.calibration.disturbed import is_disturbed, windows_of
from orchestrator.calibration.simulating import check_faults
from orchestrator.calibration.traces import Trace, open_traces
from orchestrator.cli import main
from orchestrator.faults.schedule import FaultList, PlannedFault

pytestmark = pytest.mark.integration

FAULTS = [
    {"kind": "throttle", "host": "devices", "at_s": 5.0, "for_s": 4.0, "fraction": 0.3},
    {"kind": "stop", "host": "edge", "at_s": 5.5, "for_s": 3.5},
    {"kind": "kill", "host": "edge", "at_s": 12.0},
    {"kind": "kill", "host": "pi-1", "at_s": 15.0},
    {"kind": "kill", "host": "edge", "program": "controller", "at_s": 17.0},
    {"kind": "cut_link", "host": "pi-2", "at_s": 20.0, "for_s": 2.0},
]


def answer(capsys: Any, *arguments: object) -> dict[str, Any]:
    """What a command's last line says."""
    assert main([str(argument) for argument in arguments]) == 0, capsys.readouterr().err
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def simulated(folder: Path, name: str, faults: list[dict[str, Any]]) -> Path:
    """A run of the shipped hosts."""
    experiment = yaml.safe_load(Path("inventory/experiments/demo.yaml").read_text())
    changes = {"name": name, "seeds": [1, 2], "epochs": 60, "policies": ["all_local", "all_edge"], "faults": faults}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(experiment | changes))
    runs = folder / "runs"
    assert main(["run", str(folder / f"{name}.yaml"), "--backend", "simulated", "--runs", str(runs)]) == 0
    return runs / name / "latest"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {name: simulated(folder, name, faults) for name, faults in (("calm", []), ("broken", FAULTS))}


def test_windows_are_those_of_the_events(runs: dict[str, Path]) -> None:
    windows = windows_of(Run(runs["broken"]))
    assert len(windows) == 4 * (len(FAULTS) + 2), "two seeds, two policies; a throttling for each of three devices"
    first = windows[:8]
    assert first[:3] == [(5.0, 9.0)] * 3
    assert first[3] == (5.5, 9.0)
    assert [window[0] for window in first[4:]] == [12.0, 15.0, 17.0, 20.0]
    assert [round(until_s - from_s, 6) for from_s, until_s in first[4:]] == [1.7, 1.7, 1.7, 2.0]
    assert windows_of(Run(runs["calm"])) == []


def test_tasks_are_disturbed_in_their_own_cell_only() -> None:
    columns = {
        "cell_id": np.array(["a", "a", "a", "a", "b"]),
        "arrived_s": np.array([0.0, 1.0, 2.0, 5.0, 10.0]),
        "latency_s": np.array([0.5, 2.5, np.nan, 0.5, 0.5]),
    }
    assert is_disturbed(columns, [(3.0, 4.0)]).tolist() == [0, 1, 0, 0, 0]
    assert is_disturbed(columns, [(3.0, float("inf"))]).tolist() == [0, 1, 0, 1, 0]
    assert is_disturbed(columns, []).tolist() == [0] * 5


def test_nothing_is_fitted_to_what_faults_disturbed(runs: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    profiles = {}
    for name, run in runs.items():
        fitted = answer(capsys, "calibrate", run, "-o", tmp_path / f"{name}.yaml", "--json")
        profiles[name] = read_profile(tmp_path / f"{name}.yaml")
        notes = [note for note in fitted["notes"] if "while faults were done on purpose, and are left out" in note]
        assert len(notes) == (name == "broken")
    for device, calm in profiles["calm"].devices.items():
        broken = profiles["broken"].device(device)
        assert broken.compute.seconds_per_frame == pytest.approx(calm.compute.seconds_per_frame, rel=0.02)
        assert max(broken.compute.ratio) == pytest.approx(max(calm.compute.ratio), rel=0.05)
        assert max(broken.link.uplink_delay_s) == pytest.approx(max(calm.link.uplink_delay_s), abs=0.002)


def test_faults_are_part_of_what_is_compared(runs: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    """The profile that a run was simulated with, and the run: there is no error, faults included."""
    run = runs["broken"]
    page = tmp_path / "page.html"
    found = answer(capsys, "validate", run / "profile.yaml", run, "--replicas", 1, "-o", page, "--json")
    assert {error["value"] for error in found["errors"].values()} == {0.0}
    assert any("had planned faults; the simulation has the same" in notice for notice in found["notices"])


def test_a_run_with_faults_that_are_not_simulated_is_refused(runs: dict[str, Path]) -> None:
    (trace,) = open_traces([str(runs["broken"])], Path("runs"))
    check_faults(trace)
    full = PlannedFault(number=0, at_s=1.0, for_s=1.0, kind="fill_disk", host="pi-1", parameters={"leave_bytes": 1e6})
    lossy = PlannedFault(number=1, at_s=3.0, for_s=1.0, kind="slow_link", host="pi-1", parameters={"loss": 0.1})
    faults = [FaultList(seed=1, settings=["base"], faults=[full, lossy])]
    with pytest.raises(BadInput) as caught:
        check_faults(Trace(trace.run, msgspec.structs.replace(trace.plan, fault_lists=faults)))
    texts = [problem.message for problem in caught.value.problems]
    assert [text.startswith(f"{trace.run.path}: ") for text in texts] == [True, True]
    assert "fill_disk is not simulated" in texts[0]
    assert "what lost packets cost is not simulated" in texts[1]
