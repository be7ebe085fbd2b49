"""The backend of a recorded day, on the shipped trace: the record where decided as then, else what `replay` says."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from edgebed.backend import TaskOutcome, opened
from edgebed.backend_testing import Episode, check_backend, play
from edgebed.errors import BadInput, SchemaMismatch
from edgebed.policies import make_policy
from edgebed.protocol.cells import CellSpec
from edgebed.types import DecidedBy, Decision, Observation, Site
from orchestrator.backends.replayed import ReplayedBackend
from orchestrator.cli import main

TRACE = Path("inventory/traces/local-day")
Decide = Callable[[Observation], Decision | None]


def rows(folder: Path | str, cell_id: str) -> dict[str, dict[str, Any]]:
    """Tasks of a cell, by device and number."""
    with duckdb.connect() as connection:
        found = connection.execute(f"SELECT * FROM read_parquet('{folder}/tasks.parquet') WHERE cell_id = ?", [cell_id])
        names = [column[0] for column in found.description or ()]
        records = (dict(zip(names, row, strict=True)) for row in found.fetchall())
        return {_key(record["task_id"]): record for record in records}


def _key(task_id: str) -> str:
    return task_id.split("/", 1)[1]


def day_of(policy: str, seed: int, decide: Decide, folder: Path = TRACE) -> tuple[dict[str, TaskOutcome], Any]:
    """Outcomes of a day by device and number, and the backend's claims."""
    backend = ReplayedBackend(folder)
    plan = backend.plan_of(policy, seed)
    with opened(backend, plan):
        episode = play(backend, plan, seed, decide)
        claims = backend.claims
    return _by_key(episode), claims


def _by_key(episode: Episode) -> dict[str, TaskOutcome]:
    return {_key(outcome.task_id): outcome for outcome in episode.outcomes}


def policy_of(name: str, plan: CellSpec) -> Decide:
    """A registered policy as whoever decides."""
    policy = make_policy(name, ReplayedBackend(TRACE).observation_spec(plan), {})
    policy.reset(plan.seed)
    return policy.decide


def as_recorded(cell: str, plan: CellSpec, folder: Path = TRACE) -> Decide:
    """Decides what was decided then, without looking."""
    then = {(row["epoch"], row["device_id"]): row for row in rows(folder, cell).values() if row["requested_site"]}

    def decide(seen: Observation) -> Decision:
        decision = Decision.local(len(plan.devices))
        for slot, name in enumerate(plan.devices):
            row = then.get((seen.epoch, name))
            if row is not None and row["requested_site"] == "edge":
                decision.site[slot], decision.edge_fraction[slot] = Site.EDGE, 1.0
                decision.server[slot] = plan.servers.index(row["requested_server"])
                decision.channel[slot] = row["requested_channel"]
        return decision

    return decide


@pytest.mark.parametrize("policy", ["all_local", "all_edge", "greedy_latency"])
@pytest.mark.parametrize("seed", [1, 2])
def test_deciding_as_recorded_gives_back_the_record(policy: str, seed: int) -> None:
    cell = f"{policy}-s{seed}"
    plan = ReplayedBackend(TRACE).plan_of(policy, seed)
    outcomes, claims = day_of(policy, seed, as_recorded(cell, plan))
    recorded = rows(TRACE, cell)
    assert outcomes.keys() == recorded.keys()
    for key, row in recorded.items():
        one = outcomes[key]
        assert (one.outcome.value, one.reason, one.device_id) == (row["outcome"], row["reason"] or "", row["device_id"])
        assert (one.latency_s, one.deadline_met, one.cost) == (row["latency_s"], row["deadline_met"], row["cost"])
        assert (one.device_energy_j, one.server_energy_j) == (row["device_energy_j"], row["server_energy_j"])
        assert one.site is not None
        assert (one.site.label, one.decision_epoch) == (row["site"], row["decision_epoch"])
        assert one.task_id == row["task_id"]
    assert claims == {"recorded": len(recorded), "recomputed": 0, "modelled": 0}


def test_it_shows_what_hosts_showed() -> None:
    """So a policy that looks decides as it did."""
    backend = ReplayedBackend(TRACE)
    plan = backend.plan_of("greedy_latency", 2)
    with opened(backend, plan):
        episode = play(backend, plan, 2, policy_of("greedy_latency", plan))
    with duckdb.connect() as connection:
        recorded = dict(
            connection.execute(
                f"SELECT epoch, observation FROM read_parquet('{TRACE}/epochs.parquet') "
                "WHERE cell_id = 'greedy_latency-s2' AND device_id = ''"
            ).fetchall()
        )
    assert len(recorded) == plan.epochs + 1
    for seen in episode.observations[: plan.epochs]:
        shown = np.concatenate([seen.values.ravel(), seen.server])
        np.testing.assert_array_equal(shown, np.array(recorded[seen.epoch], np.float32))
    assert {outcome.decided_by for outcome in episode.outcomes} == {DecidedBy.EXTERNAL}
    table = rows(TRACE, "greedy_latency-s2")
    assert {key: one.latency_s for key, one in _by_key(episode).items()} == {
        key: row["latency_s"] for key, row in table.items()
    }


def with_only(tmp_path: Path, *cells: str) -> Path:
    """The shipped trace with only some of its cells."""
    folder = tmp_path / "source"
    shutil.copytree(TRACE, folder)
    with duckdb.connect() as connection:
        names = ", ".join(f"'{cell}'" for cell in cells)
        connection.execute(
            f"COPY (SELECT * FROM read_parquet('{TRACE}/tasks.parquet') WHERE cell_id IN ({names})) "
            f"TO '{folder}/tasks.parquet' (FORMAT parquet)"
        )
        found = connection.execute(f"SELECT count(*) FROM read_parquet('{folder}/tasks.parquet')").fetchone()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["counts"]["planned"] = found[0] if found else 0
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize(
    ("policy", "cells", "expected"),
    [
        ("queue_threshold", ("all_edge-s1", "all_local-s1", "greedy_latency-s1"), {"recomputed"}),
        ("all_edge", ("all_local-s1", "greedy_latency-s1"), {"recomputed", "modelled"}),
        ("all_edge", ("all_local-s1",), {"modelled"}),
    ],
)
def test_another_policy_gets_what_a_reevaluation_says(
    policy: str, cells: tuple[str, ...], expected: set[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = with_only(tmp_path, *cells)
    arguments = [str(folder), "--mode", "reevaluate", "--policy", policy, "--runs", str(tmp_path), "--json"]
    assert main(["replay", *arguments]) == 0
    table = rows(json.loads(capsys.readouterr().out.splitlines()[-1])["run"], f"{policy}-s1")
    plan = ReplayedBackend(folder).plan_of()  # of the cell that the reevaluation compares with
    outcomes, claims = day_of(plan.policy, 1, policy_of(policy, plan), folder)
    assert outcomes.keys() == table.keys()
    for key, row in table.items():
        one = outcomes[key]
        assert one.site is not None
        assert (one.outcome.value, one.site.label) == (row["outcome"], row["site"])
        assert one.latency_s == pytest.approx(row["latency_s"], abs=1e-9)
        assert one.cost == pytest.approx(row["cost"], abs=1e-9)
        assert one.device_energy_j == pytest.approx(row["device_energy_j"])
        assert one.server_energy_j == pytest.approx(row["server_energy_j"])
    assert claims == {name: sum(name in row["flags"] for row in table.values()) for name in claims}
    assert expected <= {name for name, count in claims.items() if count}


def test_what_nobody_answers_is_the_fallback_policy_s_and_later() -> None:
    outcomes, claims = day_of("all_local", 1, lambda _: None)
    recorded = rows(TRACE, "all_local-s1")
    plan = ReplayedBackend(TRACE).plan_of("all_local", 1)
    assert plan.fallback_policy == "all_local"
    assert claims["recorded"] == 0
    for key, one in outcomes.items():
        assert (one.decided_by, one.site) == (DecidedBy.FALLBACK, Site.DEVICE)
        # A decision that nobody gives is known to be missing when the time for it is over.
        assert one.latency_s is None or one.latency_s >= plan.timeouts.decision_s + recorded[key]["device_compute_s"]


def test_seeds_that_were_not_recorded(tmp_path: Path) -> None:
    plan = ReplayedBackend(TRACE).plan_of("all_edge", 1)
    with opened(ReplayedBackend(TRACE), plan) as backend:
        with pytest.raises(BadInput, match=r"seed 7: no day of it was recorded; .* has: 1, 2"):
            backend.reset(7)
        backend.reset(2)  # and goes on
        assert backend.observe().epoch == 0
    decide = policy_of("all_edge", plan)
    with opened(ReplayedBackend(TRACE, any_seed=True), plan) as backend:
        named, stood_for = (play(backend, plan, seed, decide) for seed in (2, 7))
        assert named.outcomes == stood_for.outcomes


def test_plans_that_are_not_of_the_run_are_refused() -> None:
    backend = ReplayedBackend(TRACE)
    with pytest.raises(BadInput, match="has no cell of policy 'clever' and seed None; it has: all_"):
        backend.plan_of("clever")
    plan = backend.plan_of("all_edge", 2)
    plan.devices = ["pi-1", "pi-2"]
    with pytest.raises(SchemaMismatch, match=r"the plan has devices \['pi-1', 'pi-2'\], cell all_edge-s2 of"):
        backend.open(plan)
    plan.cell_id = "other"
    with pytest.raises(BadInput, match="has no cell 'other'; it has: "):
        backend.open(plan)
    with pytest.raises(BadInput, match="no-such"):
        ReplayedBackend("runs/no-such").plan_of()


def test_waiting_for_outcomes_lets_time_pass_up_to_the_next_tick() -> None:
    backend = ReplayedBackend(TRACE)
    plan = backend.plan_of("all_local", 1)
    told: list[int] = []
    with opened(backend, plan):
        backend.reset(1)
        for _ in range(plan.epochs):
            backend.observe()
            backend.submit(Decision.local(len(plan.devices)))
            told.append(len(backend.poll(math.inf)))
        last = backend.observe()
        assert last.epoch == plan.epochs
        rest = []
        while found := backend.poll(math.inf):
            rest += found
    assert sum(told) > 0
    assert sum(told) + len(rest) <= len(rows(TRACE, "all_local-s1"))


HOSTS = {
    "all": {
        "vars": {"ansible_connection": "local"},
        "children": {
            "edge_servers": {
                "hosts": {
                    "edge-1": {"edgebed_queue_tasks": 3, "edgebed_slowdown": 2},
                    "edge-2": {"edgebed_queue_tasks": 2, "edgebed_slowdown": 3},
                }
            },
            "devices": {
                "vars": {"edgebed_board": "raspberry-pi-4b", "edgebed_link": {"rate_bps": 20_000_000}},
                "hosts": {"pi-1": {"edgebed_slowdown": 8}, "pi-2": {"edgebed_slowdown": 14}},
            },
        },
    }
}
CROWDED = {
    "name": "crowded",
    "workload": "digits",
    "deadline_s": 0.4,
    "arrivals": {"kind": "poisson", "rate_per_s": 12.0, "frames": {"low": 2, "high": 8}},
    "epoch_s": 0.5,
    "epochs": 6,
    "channels": {"count": 2, "rate_bps": 20_000_000},
    "channel_model": "share",
    "policies": ["uniform_random", "all_local"],
    "fallback_policy": "greedy_latency",
    "seeds": [0, 3, 4],
    "timeouts": {"task_s": 1.5},
    "reward": {"latency": 1.0, "energy": 0.5, "miss_penalty": 1.0},
}


@pytest.fixture
def crowded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A day with two servers that refuse, shaped channels and time-outs, recorded in virtual time."""
    (tmp_path / "hosts.yaml").write_text(json.dumps(HOSTS))
    (tmp_path / "crowded.yaml").write_text(json.dumps(CROWDED))
    options = ["--hosts", str(tmp_path / "hosts.yaml"), "--backend", "simulated", "--runs", str(tmp_path / "runs")]
    assert main(["run", str(tmp_path / "crowded.yaml"), *options, "--json"]) == 0
    return Path(json.loads(capsys.readouterr().out.splitlines()[-1])["run"])


def test_a_crowded_day_keeps_the_contract_and_gives_back_its_record(crowded: Path) -> None:
    plan = ReplayedBackend(crowded).plan_of("uniform_random", 3)
    check_backend(lambda: ReplayedBackend(crowded), plan)
    outcomes, claims = day_of("uniform_random", 3, as_recorded(plan.cell_id, plan, crowded), crowded)
    recorded = rows(crowded, plan.cell_id)
    assert {row["reason"] for row in recorded.values()} >= {None, "queue_full", "timeout_not_started"}
    assert claims == {"recorded": len(recorded), "recomputed": 0, "modelled": 0}
    for key, row in recorded.items():
        one = outcomes[key]
        assert (one.outcome.value, one.reason, one.latency_s) == (row["outcome"], row["reason"] or "", row["latency_s"])
        assert one.cost == row["cost"]


def test_tasks_that_nobody_decided_about_stay_as_they_were(tmp_path: Path) -> None:
    """A device was down for a while on that day: no decision brings its tasks back."""
    folder = with_only(tmp_path, "all_local-s1", "all_edge-s1")
    down = "device_id = 'pi-2' AND epoch BETWEEN 3 AND 6"
    unknown = ("requested_site", "site", "decision_s", "decision_epoch", "decided_by", "latency_s")
    changes = [f"CASE WHEN {down} THEN NULL ELSE {name} END AS {name}" for name in unknown]
    changes += [
        f"CASE WHEN {down} THEN 'failed' ELSE outcome END AS outcome",
        f"CASE WHEN {down} THEN 'device_down' ELSE reason END AS reason",
        f"CASE WHEN {down} THEN false ELSE deadline_met END AS deadline_met",
        f"CASE WHEN {down} THEN 4.5 ELSE cost END AS cost",
    ]
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT * REPLACE ({', '.join(changes)}) FROM read_parquet('{folder}/tasks.parquet')) "
            f"TO '{tmp_path}/new.parquet' (FORMAT parquet)"
        )
    (tmp_path / "new.parquet").replace(folder / "tasks.parquet")
    plan = ReplayedBackend(folder).plan_of("all_local", 1)
    check_backend(lambda: ReplayedBackend(folder, any_seed=True), plan)
    outcomes, _ = day_of("all_local", 1, policy_of("all_edge", plan), folder)
    lost = [one for one in outcomes.values() if one.reason == "device_down"]
    assert lost
    assert len(lost) == sum(row["reason"] == "device_down" for row in rows(folder, "all_local-s1").values())
    assert all((one.decision_epoch, one.site, one.cost) == (None, None, 4.5) for one in lost)
