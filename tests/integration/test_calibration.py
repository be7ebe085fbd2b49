"""Calibration from a run to a scenario: runs of local hosts, and simulated ones whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import yaml

from edgebed.simulation.testbed.profile import (
    Decider,
    DeviceProfile,
    Link,
    Power,
    Processor,
    Profile,
    ServerProfile,
    ServiceTime,
    read_profile,
    write_profile,
)
from edgebed.types import ObservationSpec
from orchestrator.cli import main

pytestmark = pytest.mark.integration


def answer(capsys: Any, *arguments: object, status: int = 0) -> dict[str, Any]:
    """What a command's last line says."""
    assert main([str(argument) for argument in arguments]) == status, capsys.readouterr().err
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def refusal(capsys: Any, *arguments: object) -> str:
    """What a command that exits with 2 says."""
    assert main([str(argument) for argument in arguments]) == 2
    error: str = capsys.readouterr().err
    return error


class TestLocalHosts:
    def test_a_run_is_fitted_validated_and_evaluated(self, testbed: Any, tmp_path: Path, capsys: Any) -> None:
        policies = ["all_local", "all_edge", "greedy_latency"]
        testbed.run(workload="digits", policies=policies, seeds=[1, 2], epochs=5, deadline_s=0.1)
        assert testbed.finish()["state"] == "complete"
        run, profile = testbed.run_folder, tmp_path / "profile.yaml"

        fitted = answer(capsys, "calibrate", run, "-o", profile, "--json")
        counts = "FROM tasks WHERE outcome = 'done' AND NOT list_contains(flags, 'warm_up')"
        assert fitted["tasks"] == testbed.sql(f"SELECT count(*) {counts}")[0][0]
        assert fitted["seeds"] == [1, 2]
        assert set(fitted["policies"]) == set(policies)
        known = read_profile(profile)
        for device in ("pi-1", "pi-2"):
            mean_s = testbed.sql(
                f"SELECT avg(device_compute_s), avg(frames) {counts} AND device_id = '{device}' AND site = 'device'"
            )[0]
            compute = known.device(device).compute
            drawn_s = compute.mean_s(np.array(mean_s[1])) * np.mean(compute.ratio)
            assert drawn_s == pytest.approx(mean_s[0], rel=0.25)
        assert known.server("edge").queue_tasks == 32
        check_shown_processors(testbed, known)
        assert known.processors["machine"].cores >= 1

        page = tmp_path / "page.html"
        found = answer(capsys, "validate", profile, run, "-o", page, "--json")
        assert found["in_sample"] == [testbed.plan.run_id]
        assert found["notices"][0].startswith("IN-SAMPLE")
        assert set(found["errors"]) == {"median_latency", "p95_latency", "miss_rate", "energy"}
        for error in found["errors"].values():
            assert all(isinstance(error[key], float) for key in ("value", "low", "high", "repeat"))
            assert error["low"] <= error["value"] <= error["high"]
        assert isinstance(found["ranking_kept"], bool)
        assert found["policies"]["all_local"]["tasks"] > 0
        # It was fitted to this: a mean of tens of per cent would be a mistake, not noise.
        assert found["errors"]["energy"]["value"] < 0.5
        text = page.read_text()
        assert "IN-SAMPLE" in text
        assert text.count('<img src="data:image/svg+xml;base64,') == 2
        assert "http://" not in text.replace("http://www.w3.org", "")

        scenario = f"calibrated:{profile}"
        costs = {
            policy: answer(capsys, "evaluate", scenario, "--policy", policy, "--episodes", 4, "--json")
            for policy in ("all_local", "all_edge", "greedy_latency")
        }
        assert all(len(each["returns"]) == 4 for each in costs.values())
        assert costs["all_local"]["metrics"]["offload_share"] == 0.0
        assert costs["all_edge"]["metrics"]["offload_share"] == 1.0
        again = answer(capsys, "evaluate", scenario, "--policy", "greedy_latency", "--episodes", 4, "--json")
        assert again == costs["greedy_latency"]

    def test_what_is_missing_is_named(self, testbed: Any, tmp_path: Path, capsys: Any) -> None:
        testbed.run(policies=["all_local"], epochs=2)
        testbed.finish()
        error = refusal(capsys, "calibrate", testbed.run_folder, "-o", tmp_path / "profile.yaml")
        assert "edge: 0 usable tasks were computed there" in error
        assert "pi-1: no offloaded task" in error
        assert "all_edge" in error
        assert not (tmp_path / "profile.yaml").exists()


def check_shown_processors(testbed: Any, known: Profile) -> None:
    """The distributions of what hosts showed of their processors are those of the observations in the trace."""
    spec = ObservationSpec(("pi-1", "pi-2"), ("edge",))
    seen = np.array([row[0] for row in testbed.sql("SELECT observation FROM epochs")])
    devices = seen[:, : 2 * len(spec.device_features)].reshape(len(seen), 2, -1)
    servers = seen[:, 2 * len(spec.device_features) :]
    shown = {
        name: (devices[:, slot, spec.device_index("device_cpu")], devices[:, slot, spec.device_index(delay)] > 0)
        for slot, (name, delay) in enumerate((each, "device_queue_delay_s") for each in spec.slots)
    }
    held = servers[:, spec.server_index("queue_tasks")] > 0
    shown["edge"] = servers[:, spec.server_index("server_cpu")], held
    for name, (cpu, is_working) in shown.items():
        host = known.server(name) if name == "edge" else known.device(name)
        for quantiles, mine in ((host.cpu_resting, ~is_working), (host.cpu_working, is_working)):
            expected = cpu[mine] if mine.sum() >= 20 else cpu
            assert quantiles is not None
            assert quantiles == sorted(quantiles)
            assert np.mean(np.add(quantiles[1:], quantiles[:-1])) / 2 == pytest.approx(expected.mean(), rel=1e-6)


TRUTH = Profile(
    workload="digits",
    cycles_per_frame=1.1e7,
    frame_bytes=[30_000.0, 45_000.0, 55_000.0],
    devices={
        name: DeviceProfile(
            board=board,
            compute=ServiceTime(
                overhead_s=0.01,
                seconds_per_frame=frame_s,
                ratio=[0.8, 0.95, 1.0, 1.05, 1.2],
                cpu_share=0.1,
                busy_share=0.9,
            ),
            processor="machine",
            accuracy=0.95,
            power=Power(cores=4, idle_w=idle_w, max_w=max_w, transmit_w=1.0, source=f"cpu-model/{board}"),
            link=Link(uplink_delay_s=[0.001, 0.002, 0.006], downlink_s=[0.001, 0.003], round_trip_s=0.002),
        )
        for name, board, frame_s, idle_w, max_w in (
            ("pi-1", "raspberry-pi-4b", 0.03, 2.29, 6.82),
            ("pi-2", "raspberry-pi-3b-plus", 0.04, 2.0, 5.3),
            ("pi-3", "raspberry-pi-3b", 0.05, 1.08, 4.56),
        )
    },
    servers={
        "edge": ServerProfile(
            board="generic-x86",
            compute=ServiceTime(overhead_s=0.004, seconds_per_frame=0.01, ratio=[0.9, 1.0, 1.1]),
            processor="machine",
            accuracy=0.99,
            power=Power(cores=4, idle_w=25.0, max_w=75.0, transmit_w=1.0, source="cpu-model/generic-x86"),
        )
    },
    deciders={
        "controller": Decider(delay_s=[0.002, 0.004, 0.01], compute_s=[0.0002]),
        "device": Decider(delay_s=[0.0005], compute_s=[0.0003]),
    },
    processors={"machine": Processor(cores=2.0, per_other=0.15)},
)
"""A testbed that is made up."""


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``truth.yaml`` and runs of it: ``fit``, ``check`` and ``check`` again under another name."""
    folder = tmp_path_factory.mktemp("simulated")
    write_profile(TRUTH, folder / "truth.yaml")
    experiment = yaml.safe_load(Path("inventory/experiments/demo.yaml").read_text())
    for name, seeds in (("fit", [1, 2, 3]), ("check", [11, 12, 13])):
        policies = ["all_local", "all_edge", "greedy_latency"]
        changes = {"name": name, "seeds": seeds, "epochs": 40, "policies": policies}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(experiment | changes))
        arguments = ("run", folder / f"{name}.yaml", "--backend", "simulated", "--profile", folder / "truth.yaml")
        assert main([*map(str, arguments), "--runs", str(folder / "runs")]) == 0
    return folder


class TestRecovery:
    def test_what_a_simulated_testbed_was_made_of_is_found_again(
        self, simulated: Path, tmp_path: Path, capsys: Any
    ) -> None:
        profile = tmp_path / "profile.yaml"
        answer(capsys, "calibrate", simulated / "runs/fit/latest", "-o", profile, "--json")
        found = read_profile(profile)
        for name, truth in TRUTH.devices.items():
            device = found.device(name)
            mean = np.mean(device.compute.ratio) / np.mean(truth.compute.ratio)
            assert device.compute.seconds_per_frame * mean == pytest.approx(truth.compute.seconds_per_frame, rel=0.03)
            assert device.compute.overhead_s == pytest.approx(truth.compute.overhead_s, abs=0.006)
            assert device.power is not None
            joules = device.compute.busy_share * device.power.compute_ratio
            assert joules == pytest.approx(truth.compute.busy_share, rel=0.01)
            assert device.accuracy == pytest.approx(0.95, abs=0.02)
            assert np.median(device.link.uplink_delay_s) == pytest.approx(0.002, abs=0.0007)
            assert np.mean(device.link.downlink_s) == pytest.approx(0.002, abs=0.0003)
            assert device.link.paced_bps == 20e6
        server = found.server("edge")
        assert server.compute.seconds_per_frame == pytest.approx(0.01, rel=0.05)
        assert server.accuracy == pytest.approx(0.99, abs=0.01)
        assert found.processors["machine"].per_other == pytest.approx(0.15, abs=0.02)
        assert np.median(found.decider("controller").delay_s) == pytest.approx(0.004, abs=0.0005)
        assert np.mean(found.frame_bytes) == pytest.approx(np.mean([37_500, 50_000]), rel=0.03)

    @pytest.mark.parametrize(
        "channels",
        [
            ("channels={count: 2, rate_bps: 8000000}", "channel_model=share"),
            ("channels={count: 2}", "channel_model=sinr"),  # an upload alone is granted more than its uplink's pace
        ],
    )
    def test_what_a_channel_granted_is_not_taken_for_delay(
        self, simulated: Path, tmp_path: Path, capsys: Any, channels: tuple[str, ...]
    ) -> None:
        arguments = ("run", simulated / "fit.yaml", "--backend", "simulated", "--profile", simulated / "truth.yaml")
        changes = (*channels, "policies=[all_edge, all_local]", "seeds=[1]")
        options = [part for change in changes for part in ("--set", change)]
        run = answer(capsys, *arguments, *options, "--runs", tmp_path, "--json")["run"]
        answer(capsys, "calibrate", run, "-o", tmp_path / "profile.yaml", "--json")
        for device in read_profile(tmp_path / "profile.yaml").devices.values():
            assert np.median(device.link.uplink_delay_s) == pytest.approx(0.002, abs=0.001)

    def test_other_seeds_are_predicted(self, simulated: Path, tmp_path: Path, capsys: Any) -> None:
        profile = tmp_path / "profile.yaml"
        answer(capsys, "calibrate", simulated / "runs/fit/latest", "-o", profile, "--json")
        found = answer(capsys, "validate", profile, simulated / "runs/check/latest", "--replicas", 3, "--json")
        assert found["in_sample"] == []
        assert found["ranking_kept"] is True
        assert found["ranking"]["pairs"] > 0
        assert found["errors"]["median_latency"]["value"] < 0.06
        assert found["errors"]["miss_rate"]["value"] < 0.03
        assert found["errors"]["energy"]["value"] < 0.05

    def test_the_same_runs_give_the_same_profile(self, simulated: Path, tmp_path: Path, capsys: Any) -> None:
        for name in ("one", "two"):
            answer(capsys, "calibrate", simulated / "runs/fit/latest", "-o", tmp_path / name, "--json")
        assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


class TestBadInput:
    @pytest.fixture
    def copy(self, simulated: Path, tmp_path: Path) -> Path:
        """A copy of a run, to be damaged."""
        import shutil

        return Path(shutil.copytree((simulated / "runs/check/latest").resolve(), tmp_path / "run"))

    def test_a_truncated_table(self, copy: Path, tmp_path: Path, capsys: Any) -> None:
        table = copy / "tasks.parquet"
        table.write_bytes(table.read_bytes()[:-200])
        error = refusal(capsys, "calibrate", copy, "-o", tmp_path / "profile.yaml")
        assert str(copy) in error
        assert "tasks.parquet" in error
        assert "truncated" in error

    def test_a_table_of_something_else(self, copy: Path, tmp_path: Path, capsys: Any) -> None:
        duckdb.sql(f"COPY (SELECT 1 AS one) TO '{copy / 'tasks.parquet'}' (FORMAT parquet)")
        assert str(copy) in refusal(capsys, "calibrate", copy, "-o", tmp_path / "profile.yaml")

    def test_a_newer_schema(self, copy: Path, tmp_path: Path, capsys: Any) -> None:
        manifest = json.loads((copy / "manifest.json").read_text())
        (copy / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 99}))
        error = refusal(capsys, "calibrate", copy, "-o", tmp_path / "profile.yaml")
        assert "schema version 99" in error
        assert "this edgebed reads up to" in error

    def test_a_profile_of_another_board(self, simulated: Path, tmp_path: Path, capsys: Any) -> None:
        plain = yaml.safe_load((simulated / "truth.yaml").read_text())
        plain["devices"]["pi-2"]["board"] = "raspberry-pi-5"
        (tmp_path / "profile.yaml").write_text(yaml.safe_dump(plain))
        error = refusal(capsys, "validate", tmp_path / "profile.yaml", simulated / "runs/check/latest")
        assert "raspberry-pi-5" in error
        assert "raspberry-pi-3b-plus" in error

    def test_a_profile_of_another_workload(self, simulated: Path, tmp_path: Path, capsys: Any) -> None:
        plain = yaml.safe_load((simulated / "truth.yaml").read_text())
        plain["workload"] = "speech"
        (tmp_path / "profile.yaml").write_text(yaml.safe_dump(plain))
        error = refusal(capsys, "validate", tmp_path / "profile.yaml", simulated / "runs/check/latest")
        assert "speech" in error
        assert "digits" in error

    def test_a_run_given_twice(self, simulated: Path, tmp_path: Path, capsys: Any) -> None:
        run = simulated / "runs/fit/latest"
        assert "twice" in refusal(capsys, "calibrate", run, run, "-o", tmp_path / "profile.yaml")

    def test_no_such_profile(self, simulated: Path, capsys: Any) -> None:
        assert "nowhere.yaml" in refusal(capsys, "validate", "nowhere.yaml", simulated / "runs/check/latest")
        assert "nowhere.yaml" in refusal(capsys, "evaluate", "calibrated:nowhere.yaml", "--policy", "all_local")
