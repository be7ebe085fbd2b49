"""Plans: what runs in which order, exact round trips, a hash that guards, folders that are never overwritten."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from edgebed.errors import BadInput, RunConflict
from edgebed.protocol.cells import cell_from_plain, cell_to_plain
from edgebed.trace.runs import LATEST, PLAN_FILE
from orchestrator.documents import parse_document
from orchestrator.experiment import read_experiment, with_overrides
from orchestrator.inventory import Inventory, known_boards, read_inventory
from orchestrator.plan import CELL_OVERHEAD_S, INLINE_TASKS, Plan, create_run_folder, make_plan, plan_of
from orchestrator.plan_file import checksum
from workloads import load_workload
from workloads.arrivals import ArrivalSettings, planned_tasks

EXPERIMENT = """\
name: trial
workload: instant
deadline_s: 1
arrivals: {kind: poisson, rate_per_s: 4, frames: {low: 1, high: 3}}
epoch_s: 0.5
epochs: 6
policies: [all_local, all_edge, {name: uniform_random, label: random, options: {p: 0.25}}, greedy_latency]
seeds: [3, 1, 2]
"""
HOSTS = """\
all:
  vars: {ansible_user: ubuntu, ansible_ssh_private_key_file: ~/.ssh/very-private}
  children:
    edge_servers:
      hosts: {edge: {edgebed_board: generic-x86, edgebed_workers: 2, ansible_host: 192.0.2.9}}
    devices:
      vars: {edgebed_board: raspberry-pi-4b}
      hosts: {pi-1: , pi-2: {edgebed_link: {rate_bps: 1e7}, edgebed_position: [1, 2]}}
"""
BOARDS = known_boards()
NOON = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


def hosts(text: str = HOSTS) -> Inventory:
    return read_inventory(parse_document(text, "h.yaml"), BOARDS)


def plan(*overrides: str, inventory: Inventory | None = None) -> Plan:
    document = with_overrides(parse_document(EXPERIMENT, "e.yaml"), overrides)
    return plan_of(read_experiment(document, Path()), inventory or hosts())


def in_a_folder(planned: Plan, folder: Path) -> Plan:
    """The plan as it lies in its run folder, with a name."""
    return Plan.from_yaml(create_run_folder(planned, folder, NOON) / PLAN_FILE)


# --- cells and their order --------------------------------------------------------------------------------------------


def test_a_cell_for_every_policy_seed_and_setting() -> None:
    planned = plan("sweep.deadline_s=[1, 2]")
    found = {(cell.policy.label, cell.seed, cell.setting.name) for cell in planned.cells}
    labels = ("all_local", "all_edge", "random", "greedy_latency")
    assert found == set(itertools.product(labels, (1, 2, 3), ("deadline_s_1", "deadline_s_2")))
    assert len(planned.cells) == 24


def test_blocks_keep_together_and_policies_are_shuffled_inside_them() -> None:
    planned = plan("sweep.deadline_s=[1, 2]")
    cells = [(cell.seed, cell.setting.name, cell.policy.label) for cell in planned.cells]
    blocks = [cells[start : start + 4] for start in range(0, len(cells), 4)]
    assert all(len({cell[:2] for cell in block}) == 1 for block in blocks)
    assert [block[0][0] for block in blocks] == [3, 3, 1, 1, 2, 2]
    assert len({tuple(cell[2] for cell in block) for block in blocks}) > 1
    assert cells == [
        (cell.seed, cell.setting.name, cell.policy.label) for cell in plan("sweep.deadline_s=[1, 2]").cells
    ]


def test_adding_a_seed_does_not_move_the_others() -> None:
    few, more = (
        [cell.cell_id for cell in plan(f"seeds={seeds}").cells if cell.seed != 9] for seeds in ("[3,1]", "[3,1,9]")
    )
    assert few == more


def test_each_policy_is_first_about_equally_often() -> None:
    planned = plan(f"seeds={list(range(200))}", "epochs=2")
    first = [planned.listed_cells[start].policy for start in range(0, 800, 4)]
    counts = [first.count(policy.label) for policy in planned.policies]
    # Binomial with n = 200, p = 1/4: a fair shuffle stays within 50 +- 25 (4 standard deviations).
    assert all(25 < count < 75 for count in counts)


def test_sequential_is_as_listed() -> None:
    labels = ["all_local", "all_edge", "random", "greedy_latency"]
    found = [(cell.seed, cell.policy.label) for cell in plan("order=sequential").cells]
    assert found == [(seed, label) for seed in (3, 1, 2) for label in labels]


def test_cells_have_names_for_people() -> None:
    names = [cell.cell_id for cell in plan("seeds=[7]", "order=sequential").cells]
    assert names == ["all_local-s7", "all_edge-s7", "random-s7", "greedy_latency-s7"]
    swept = plan("seeds=[7]", "order=sequential", "policies=[all_edge]", "sweep.deadline_s=[0.5, 1]")
    assert [cell.cell_id for cell in swept.cells] == ["all_edge-s7-deadline_s_0.5", "all_edge-s7-deadline_s_1"]


def test_a_name_of_a_cell_that_would_be_too_long() -> None:
    with pytest.raises(BadInput, match=r"the cell's name would be 'xxx.*give the policy a shorter label"):
        plan(f"policies.0.label={'x' * 62}")


def test_a_cell_says_all_that_members_need(tmp_path: Path) -> None:
    planned = in_a_folder(plan("reward.energy=2", "timeouts.task_s=9"), tmp_path)
    cell = planned.cell("random-s2")
    spec = cell.spec(serial=5, attempt=2)
    assert (spec.run_id, spec.plan_hash) == ("trial-20261121T120000Z", planned.plan_hash)
    assert (spec.cell_id, spec.serial, spec.attempt, spec.seed) == ("random-s2", 5, 2, 2)
    assert (spec.policy, spec.policy_name, spec.policy_options) == ("random", "uniform_random", {"p": 0.25})
    assert (spec.devices, spec.servers) == (["pi-1", "pi-2"], ["edge"])
    assert (spec.workload, spec.epochs, spec.epoch_s, spec.horizon_s) == ("instant", 6, 0.5, 3.0)
    assert (spec.reward.energy, spec.timeouts.task_s, spec.placement) == (2.0, 9.0, "controller")
    assert cell_from_plain(msgspec.msgpack.decode(msgspec.msgpack.encode(cell_to_plain(spec)))) == spec


def test_a_policy_may_decide_elsewhere_than_the_rest(tmp_path: Path) -> None:
    planned = in_a_folder(plan("policies=[all_edge, {name: all_edge, label: own, placement: device}]"), tmp_path)
    placements = {cell.policy.label: cell.spec(1, 1).placement for cell in planned.cells}
    assert placements == {"all_edge": "controller", "own": "device"}


def test_a_plan_without_a_run_has_nothing_to_tell() -> None:
    with pytest.raises(RunConflict, match="create_run_folder"):
        plan().cells[0].spec(1, 1)


def test_a_cell_that_is_not_there() -> None:
    with pytest.raises(BadInput, match="no cell 'nope'"):
        plan().cell("nope")


# --- tasks ------------------------------------------------------------------------------------------------------------


def test_tasks_are_those_that_devices_will_plan() -> None:
    planned = plan()
    settings = ArrivalSettings(deadline_s=1.0, kind="poisson", rate_per_s=4.0, frames_low=1, frames_high=3)
    for cell in planned.cells:
        for device in ("pi-1", "pi-2"):
            expected = planned_tasks(settings, cell.seed, device, workload="instant", epochs=6, epoch_s=0.5)
            assert cell.planned_tasks(device) == expected
            listed = planned.tasks_of(cell.seed, "base", device)
            assert (listed.count, listed.sha256) == (len(expected), checksum(expected))
            assert listed.tasks == [(task.offset_s, task.frames, task.deadline_s) for task in expected]


def test_settings_that_change_no_task_share_a_list() -> None:
    planned = plan("sweep.channels=[1, 2]", "sweep.arrivals.rate_per_s=[4, 8]")
    shared = [found.settings for found in planned.task_lists]
    assert len(planned.task_lists) == 3 * 2 * 2
    assert set(map(tuple, shared)) == {
        ("channels_1-rate_per_s_4", "channels_2-rate_per_s_4"),
        ("channels_1-rate_per_s_8", "channels_2-rate_per_s_8"),
    }


def test_a_large_plan_lists_no_tasks_and_still_knows_them() -> None:
    small = plan("arrivals={kind: periodic, period_s: 0.1, phase_s: 0.1}", "epochs=6666", "seeds=[1]", "epoch_s=0.15")
    assert sum(found.count for found in small.task_lists) == 2 * 9999 <= INLINE_TASKS
    assert all(found.tasks is not None for found in small.task_lists)
    large = plan("arrivals={kind: periodic, period_s: 0.1, phase_s: 0.1}", "epochs=6668", "seeds=[1]", "epoch_s=0.15")
    assert sum(found.count for found in large.task_lists) == 2 * 10002 > INLINE_TASKS
    assert all(found.tasks is None for found in large.task_lists)
    assert len(large.cells[0].planned_tasks("pi-1")) == 10002
    assert len(large.to_yaml()) < 20_000


def test_other_tasks_than_planned_are_noticed() -> None:
    planned = plan()
    lists = [msgspec.structs.replace(found, sha256="0" * 64) for found in planned.task_lists]
    other = msgspec.structs.replace(planned, task_lists=lists)
    with pytest.raises(RunConflict, match="plans other tasks for pi-1"):
        other.cells[0].planned_tasks("pi-1")


def test_names_of_tasks_are_unique_in_the_run() -> None:
    planned = plan("sweep.deadline_s=[1, 2]")
    names = [
        cell.task_id(device, task.index)
        for cell in planned.cells
        for device in ("pi-1", "pi-2")
        for task in cell.planned_tasks(device)
    ]
    assert len(set(names)) == len(names) == planned.estimate.tasks
    assert planned.cells[0].task_id("pi-1", 4) == f"{planned.cells[0].cell_id}/pi-1/4"


def test_a_run_without_tasks_is_refused() -> None:
    with pytest.raises(BadInput, match="no task arrives in any cell"):
        plan("arrivals={kind: trace, trace: [99]}")


def test_what_a_run_takes() -> None:
    planned = plan("arrivals={kind: periodic, period_s: 0.5, phase_s: 0.5, frames: 3}", "sweep.deadline_s=[1, 2]")
    # 6 tasks of 3 frames on each device in each of 4 policies x 3 seeds x 2 settings, cells of 3 s.
    frame_bytes = load_workload("instant").demand.bytes_per_frame
    assert planned.estimate.tasks == 6 * 2 * 24
    assert planned.estimate.payload_bytes == {name: round(6 * 3 * frame_bytes * 2) * 12 for name in ("pi-1", "pi-2")}
    seconds = 12 * (3 + 1 + CELL_OVERHEAD_S) + 12 * (3 + 2 + CELL_OVERHEAD_S)
    assert planned.estimate.hours == pytest.approx(seconds / 3600, abs=1e-4)


# --- the file and its hash --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides", [(), ("sweep.deadline_s=[1, 2.5]", "channels={count: 2}"), ("seeds=[9007199254740992]",)]
)
def test_a_plan_is_read_back_exactly(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    planned = plan(*overrides)
    path = tmp_path / "plan.yaml"
    path.write_text(planned.to_yaml())
    again = Plan.from_yaml(path)
    assert again == planned
    assert again.to_yaml() == planned.to_yaml()


def test_a_plan_is_for_people_too() -> None:
    text = plan().to_yaml()
    assert "- {id: random-s1, policy: random, seed: 1, setting: base}" in text
    assert "seeds: [3, 1, 2]" in text
    assert "&id" not in text
    assert max(len(line) for line in text.splitlines()) <= 110 + 70  # a checksum may end beyond the margin


def test_no_secret_and_no_path_of_a_key_is_in_a_plan() -> None:
    text = plan().to_yaml()
    assert "very-private" not in text
    assert "key_file" not in text
    assert "192.0.2.9" in text


@pytest.mark.parametrize(
    "change",
    [
        lambda p: {"run_id": "other"},
        lambda p: {"created": "2030-01-01T00:00:00+00:00"},
        lambda p: {"hosts_file": "elsewhere.yaml", "experiment_file": "elsewhere.yaml", "overrides": ["x=y"]},
        lambda p: {"edgebed": "9.9.9"},
        lambda p: {"estimate": msgspec.structs.replace(p.estimate, hours=99.0)},
        lambda p: {"devices": [replace(host, address="192.0.2.77", ssh_port=5, user="x") for host in p.devices]},
    ],
)
def test_what_does_not_matter_for_results_does_not_change_the_hash(
    tmp_path: Path, change: Callable[[Plan], dict[str, Any]]
) -> None:
    planned = plan()
    path = tmp_path / "plan.yaml"
    path.write_text(msgspec.structs.replace(planned, **change(planned)).to_yaml())
    assert Plan.from_yaml(path).plan_hash == planned.plan_hash


@pytest.mark.parametrize(
    "override",
    [
        "seeds=[3, 1]",
        "seeds=[1, 2, 3]",
        "deadline_s=2",
        "epochs=7",
        "warm_up_epochs=2",
        "reward.energy=1",
        "timeouts.task_s=7",
        "policies.2.options.p=0.5",
        "policies.2.label=other",
        "arrivals.rate_per_s=5",
        "order=sequential",
        "placement=device",
        "fallback_policy=all_edge",
        "on_refusal=local",
    ],
)
def test_what_matters_for_results_changes_the_hash(override: str) -> None:
    assert plan(override).plan_hash != plan().plan_hash


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("edgebed_workers: 2", "edgebed_workers: 3"),
        ("rate_bps: 1e7", "rate_bps: 2e7"),
        ("[1, 2]", "[1, 3]"),
        ("raspberry-pi-4b", "raspberry-pi-5"),
        ("pi-2: {", "pi-3: {"),
        ("{pi-1: ,", "{pi-1: {edgebed_slowdown: 2},"),
    ],
)
def test_hosts_that_matter_for_results_change_the_hash_and_are_refused_when_resuming(old: str, new: str) -> None:
    assert old in HOSTS
    changed = hosts(HOSTS.replace(old, new))
    planned = plan()
    assert plan(inventory=changed).plan_hash != planned.plan_hash
    with pytest.raises(
        RunConflict, match=r"h\.yaml: .*(devices|edge_servers|boards).* changed since the run was planned"
    ):
        planned.check_hosts(changed)


def test_the_first_devices_of_a_hosts_file_may_take_part_alone() -> None:
    planned = plan("devices=1")
    assert [host.name for host in planned.devices] == ["pi-1"]
    assert {found.device for found in planned.task_lists} == {"pi-1"}
    planned.check_hosts(hosts())
    planned.check_hosts(hosts(HOSTS.replace("[1, 2]", "[3, 4]")))
    with pytest.raises(RunConflict, match="devices changed"):
        plan("devices=2").check_hosts(hosts(HOSTS.replace("[1, 2]", "[3, 4]")))
    with pytest.raises(BadInput, match=r"has 2 devices; the experiment wants the first 3"):
        plan("devices=3")


def test_hosts_that_are_only_reached_otherwise_may_be_resumed() -> None:
    planned = plan()
    planned.check_hosts(hosts())
    planned.check_hosts(hosts(HOSTS.replace("192.0.2.9", "192.0.2.10").replace("ubuntu", "pi")))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seeds: [3, 1, 2]", "seeds: [3, 1, 4]"),
        ("slowdown: 1.0", "slowdown: 2.0"),
        ("options: {p: 0.25}", "options: {p: 0.5}"),
        ("epochs: 6", "epochs: 60"),
        ("{id: all_edge-s1,", "{id: all_edge-s9,"),
        ("plan_hash: ", "plan_hash: 0"),
        ("nominal_hz: ", "nominal_hz: 1"),
    ],
)
def test_a_plan_that_somebody_edited_is_refused(tmp_path: Path, old: str, new: str) -> None:
    text = plan().to_yaml()
    assert old in text
    path = tmp_path / "plan.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(RunConflict, match="was changed after it was written"):
        Plan.from_yaml(path)


def test_a_task_that_somebody_moved_is_noticed(tmp_path: Path) -> None:
    planned = plan()
    plain = yaml.safe_load(planned.to_yaml())
    plain["tasks"][0]["tasks"][0][0] += 1e-6
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(plain))
    with pytest.raises(RunConflict, match="was changed after it was written"):
        Plan.from_yaml(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "is not a plan: expected a mapping"),
        ("a: [\n", "is not YAML"),
        ("plan_version: 99\n", "is not a plan of version 99 of the format; this edgebed reads version 1"),
        ("plan_version: 1\ndevices: [5]\n", "is not a plan"),
        ("plan_version: 1\nx: .nan\n", "is not a plan"),
        ("plan_version: 1\nx: 2026-11-21\n", "is not a plan"),
    ],
)
def test_a_file_that_is_no_plan(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(BadInput, match=message):
        Plan.from_yaml(path)


def test_a_plan_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        Plan.from_yaml(tmp_path / "plan.yaml")


# --- run folders ------------------------------------------------------------------------------------------------------


def test_a_run_gets_a_folder_a_name_and_the_link_latest(tmp_path: Path) -> None:
    planned = plan()
    folder = create_run_folder(planned, tmp_path / "runs", NOON)
    assert folder == tmp_path / "runs/trial/20261121T120000Z"
    assert (tmp_path / "runs/trial" / LATEST).resolve() == folder.resolve()
    assert not (tmp_path / "runs/trial" / LATEST).readlink().is_absolute()
    written = Plan.from_yaml(folder / PLAN_FILE)
    assert written.run_id == "trial-20261121T120000Z"
    assert msgspec.structs.replace(written, run_id="") == planned


def test_runs_of_one_second_never_share_a_folder(tmp_path: Path) -> None:
    planned = plan()
    folders = [create_run_folder(planned, tmp_path, NOON) for _ in range(3)]
    assert [folder.name for folder in folders] == ["20261121T120000Z", "20261121T120000Z-2", "20261121T120000Z-3"]
    assert len({Plan.from_yaml(folder / PLAN_FILE).run_id for folder in folders}) == 3
    assert (tmp_path / "trial" / LATEST).resolve() == folders[-1].resolve()
    assert sorted(path.name for path in (tmp_path / "trial").iterdir()) == sorted([*(f.name for f in folders), LATEST])


def test_nothing_that_is_there_is_touched(tmp_path: Path) -> None:
    there = tmp_path / "trial/20261121T120000Z"
    there.mkdir(parents=True)
    (there / PLAN_FILE).write_text("precious")
    folder = create_run_folder(plan(), tmp_path, NOON)
    assert folder.name == "20261121T120000Z-2"
    assert (there / PLAN_FILE).read_text() == "precious"


def test_a_latest_that_is_no_link_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "trial" / LATEST).mkdir(parents=True)
    with pytest.raises(RunConflict, match="is not the link that edgebed makes"):
        create_run_folder(plan(), tmp_path, NOON)


def test_a_place_where_no_folder_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(BadInput, match="no run folder can be made here"):
        create_run_folder(plan(), tmp_path / "runs", NOON)


# --- from files -------------------------------------------------------------------------------------------------------


def test_problems_of_both_files_come_at_once(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(EXPERIMENT.replace("epochs: 6", "epochs: 0"))
    (tmp_path / "h.yaml").write_text(HOSTS.replace("edgebed_workers: 2", "edgebed_workers: 0"))
    with pytest.raises(BadInput) as caught:
        make_plan(tmp_path / "e.yaml", tmp_path / "h.yaml", ["seeds=[]"])
    files = sorted({problem.file for problem in caught.value.problems})
    assert files == ["--set seeds=[]", str(tmp_path / "e.yaml"), str(tmp_path / "h.yaml")]


def test_planning_touches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "e.yaml").write_text(EXPERIMENT)
    (tmp_path / "h.yaml").write_text(HOSTS)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    planned = make_plan("e.yaml", "h.yaml")
    assert sorted(tmp_path.rglob("*")) == before
    assert (planned.experiment_file, planned.hosts_file) == ("e.yaml", "h.yaml")
