"""The report: the right numbers, honest labels, one file without links, whatever the run was like."""

from __future__ import annotations

import io
import json
import math
import statistics
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
import yaml
from rich.console import Console

from edgebed.errors import BadInput
from edgebed.trace.manifest import read_manifest, write_manifest
from edgebed.trace.runs import Run
from edgebed.trace.schema import TaskRecord
from orchestrator.report import figures, text
from orchestrator.report.html import HOSTS_SHOWN, render, write_report
from orchestrator.report.series import idle_power_w
from orchestrator.report.summary import PARTS_OF_LATENCY, Summary, summarise
from orchestrator.report.terminal import print_summary
from orchestrator.statistics import Interval, PairedDifference, Relation

MakeRun = Callable[..., Any]


class Page(HTMLParser):
    """What a test wants to know about a page."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open, "tags that are never closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def summary(shared_run: Any) -> Summary:
    return summarise(Run(shared_run.path))


@pytest.fixture(scope="module")
def page(summary: Summary) -> str:
    return render([summary])


def task_rows(run: Any) -> list[dict[str, Any]]:
    return Run(run.path).query("FROM tasks").records()


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_measures_are_those_of_the_tasks_that_count(shared_run: Any, summary: Summary) -> None:
    rows = [row for row in task_rows(shared_run) if "warm_up" not in row["flags"]]
    assert [policy.name for policy in summary.policies] == list(shared_run.recipe.policies)
    assert summary.left_out == {"warm_up": shared_run.counts.planned - len(rows)}
    for policy in summary.policies:
        own = [row for row in rows if row["policy"] == policy.name]
        assert policy.tasks == len(own)
        for name, value in {
            "latency_s": lambda row: row["latency_s"],
            "miss_rate": lambda row: not row["deadline_met"],
            "cpu_s": lambda row: row["device_cpu_s"] + row["server_cpu_s"],
            "energy_j": lambda row: row["device_energy_j"] + row["server_energy_j"],
            "offload_share": lambda row: row["site"] == "edge",
            "cost": lambda row: row["cost"],
        }.items():
            expected = {
                seed: statistics.mean(float(value(row)) for row in own if row["seed"] == seed) for seed in (1, 2, 3)
            }
            assert policy.by_seed[name] == pytest.approx(expected)
            interval = policy.measures[name]
            assert interval is not None
            assert interval.mean == pytest.approx(statistics.mean(expected.values()))
        for site in policy.accuracy:
            there = [row for row in own if row["site"] == site.site]
            assert (site.frames, site.correct) == (sum(r["frames"] for r in there), sum(r["correct"] for r in there))


def test_stages_add_up_to_the_mean_latency(summary: Summary) -> None:
    for policy in summary.policies:
        latency = policy.measures["latency_s"]
        assert latency is not None
        assert set(policy.parts_s) == set(PARTS_OF_LATENCY)
        assert math.fsum(policy.parts_s.values()) == pytest.approx(latency.mean)
        energy = policy.measures["energy_j"]
        assert energy is not None
        assert (policy.device_energy_j or 0) + (policy.server_energy_j or 0) == pytest.approx(energy.mean)


def test_pairs_are_compared_seed_by_seed(summary: Summary) -> None:
    pairs = {(pair.first, pair.second): pair.differences for pair in summary.comparisons}
    assert len(pairs) == 10
    by_name = {policy.name: policy for policy in summary.policies}
    found = pairs["uniform_random", "greedy_latency"]["latency_s"]
    one, other = (by_name[name].by_seed["latency_s"] for name in ("uniform_random", "greedy_latency"))
    assert found.interval is not None
    assert found.interval.mean == pytest.approx(statistics.mean((one[seed] or 0) - (other[seed] or 0) for seed in one))
    assert found.relation is Relation.ABOVE


def test_idle_energy_is_idle_power_times_the_time_of_the_cell(shared_run: Any, summary: Summary) -> None:
    rows = task_rows(shared_run)
    for cell in summary.series.cells:
        own = [row for row in rows if row["cell_id"] == cell.cell_id]
        end_s = max(row["arrived_s"] + row["latency_s"] for row in own)
        assert cell.duration_s == pytest.approx(end_s - min(row["arrived_s"] for row in own))
        assert cell.devices_idle_j == pytest.approx(3 * 2.29 * cell.duration_s)
        assert cell.servers_idle_j == pytest.approx(2.29 * cell.duration_s)
        assert cell.tasks_j == pytest.approx(sum(row["device_energy_j"] + row["server_energy_j"] for row in own))
        assert cell.hosts_j is not None
        assert cell.hosts_j > 3 * 2.29 * cell.duration_s
    assert [cell.cell_id for cell in summary.series.cells] == [cell.cell_id for cell in shared_run.recipe.cells()]


def test_idle_power_is_not_known_when_one_board_is_not() -> None:
    known = {"role": "device", "board": {"idle_w": 2.0}}
    assert idle_power_w({"a": known, "b": known, "s": {"role": "edge_server"}}, "device") == 4.0
    assert idle_power_w({"a": known, "b": {"role": "device", "board": {}}}, "device") is None
    assert idle_power_w({}, "device") is None


def test_decisions_over_time_are_shares(summary: Summary) -> None:
    for shares in summary.series.decisions.values():
        for each in zip(*shares.shares.values(), strict=True):
            assert math.fsum(each) == pytest.approx(1.0)
    assert set(summary.series.decisions["all_edge", "base"].shares) == {"edge"}


# --- the page --------------------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_but_itself(page: str) -> None:
    found = Page(page)
    names = {tag for tag, _ in found.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in found.tags:
        assert not {"href", "srcset", "action", "onclick", "onload"} & attributes.keys()
        if tag == "img":
            assert (attributes["src"] or "").startswith("data:image/svg+xml;base64,")
            assert len(attributes["alt"] or "") > 40
    assert "url(" not in page
    assert "@import" not in page
    assert sum(tag == "img" for tag, _ in found.tags) == 6


def test_the_page_says_what_must_be_said(page: str, summary: Summary) -> None:
    words = Page(page).text
    for expected in (
        "verdict: not judged",
        "state: running",
        "855 tasks planned",
        "Emulated boards: 100 % of the tasks",
        "Energy is estimated: cpu-model (raspberry-pi-4b)",
        "95 % t-intervals",
        "left out: 110 tasks of warm-up epochs",
        "edgebed run inventory/experiments/demo.yaml --hosts inventory/hosts/local.yaml",
        "its card promises 99.00 % of frames",
        summary.manifest.plan_hash,
        summary.manifest.software.git_commit,
        "clock offset 0.100 ms ± 0.400 ms",
        "uniform_random − greedy_latency",
    ):
        assert expected in words
    latency = summary.policies[0].measures["latency_s"]
    assert f"{text.mean(latency, 'latency_s')} {text.bounds(latency, 'latency_s')}" in words


def test_the_same_run_gives_the_same_page(shared_run: Any, page: str) -> None:
    assert render([summarise(Run(shared_run.path))]) == page


def test_nothing_from_the_run_becomes_markup(make_run: MakeRun) -> None:
    nasty = '<script>alert("$x_{")</script>&'

    def change(row: TaskRecord) -> TaskRecord:
        row.policy, row.reason, row.flags = nasty, nasty, [nasty]
        row.outcome = "failed" if row.task_id.endswith("1") else "done"
        return row

    made = make_run(policies=("all_local",), seeds=(1, 2), epochs=4, change=change)
    manifest = read_manifest(made.path)
    manifest.experiment = manifest.command = manifest.model.name = nasty
    manifest.reasons, manifest.problems, manifest.verdict = [nasty], [nasty], "suspect"
    manifest.hosts = {nasty: {nasty: [nasty]}}
    write_manifest(made.path, manifest)
    page = render([summarise(Run(made.path))])
    found = Page(page)
    assert "script" not in {tag for tag, _ in found.tags}
    assert found.text.count(nasty) >= 9


def awkward(make_run: MakeRun, kind: str) -> Any:
    """A run with something missing."""

    def fail(row: TaskRecord) -> TaskRecord:
        return replace_fields(
            row, outcome="failed", reason="queue_full", latency_s=None, deadline_met=False, device_energy_j=None
        )

    small: dict[str, Any] = {"epochs": 4}
    recipes: dict[str, dict[str, Any]] = {
        "one seed": {"seeds": (1,)},
        "one policy": {"policies": ("all_local",)},
        "one of both": {"policies": ("all_local",), "seeds": (1,)},
        "none done": {"change": fail},
        "none reported": {"change": lambda row: None, "samples": False},
        "no samples": {"samples": False},
        "no energy": {"change": lambda row: replace_fields(row, device_energy_j=None, energy_source=None)},
        "never run": {"change": lambda row: replace_fields(row, outcome="failed", reason="not_run", latency_s=None)},
        "all warm-up": {"epochs": 1},
        "many policies": {"policies": tuple(f"policy_{number}" for number in range(14)), "seeds": (1,)},
    }
    return make_run(**(small | recipes[kind]))


def replace_fields(row: TaskRecord, **changes: Any) -> TaskRecord:
    for name, value in changes.items():
        setattr(row, name, value)
    return row


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("one seed", "One seed only"),
        ("one policy", "Policy by policy"),
        ("one of both", "One seed only"),
        ("none done", "No task that counts was done."),
        ("none reported", "not_reported"),
        ("no samples", "There are no samples of hosts."),
        ("no energy", "Energy is not known: no task has one."),
        ("never run", "No task counts: there is nothing to compare."),
        ("all warm-up", "No task counts: there is nothing to compare."),
        ("many policies", "91 pairs"),
    ],
)
def test_a_run_with_something_missing_still_has_a_report(make_run: MakeRun, kind: str, expected: str) -> None:
    made = awkward(make_run, kind)
    found = Page(render([summarise(Run(made.path))]))
    assert expected in found.text
    assert "nan" not in found.text.lower().split()
    assert "None" not in found.text
    stream = io.StringIO()
    print_summary(Run(made.path), Console(file=stream, width=200))
    assert f"{made.counts.planned} tasks" in stream.getvalue()


def test_energy_that_is_partly_measured_says_so(make_run: MakeRun) -> None:
    def change(row: TaskRecord) -> TaskRecord:
        local = row.site == "device"
        return replace_fields(
            row, energy_source="measured:ina219" if local else "estimated:cpu-model/x+measured:ina219"
        )

    measured = summarise(Run(make_run(policies=("all_local",), epochs=3, name="a", change=change).path))
    mixed = summarise(Run(make_run(policies=("uniform_random",), epochs=3, name="b", change=change).path))
    assert measured.energy_label == "measured: ina219"
    assert not [notice for notice in measured.notices if "Energy" in notice]
    assert mixed.energy_label == "partly estimated: cpu-model (x); partly measured: ina219"
    assert [notice for notice in mixed.notices if notice.startswith("Energy is partly estimated: cpu-model (x)")]


def test_of_many_hosts_the_page_shows_the_first_and_says_so(summary: Summary, page: str) -> None:
    hosts = {f"pi-{number:03d}": {"role": "device"} for number in range(HOSTS_SHOWN + 1)}
    manifest = msgspec.structs.replace(summary.manifest, hosts=hosts)
    crowded = render([replace(summary, manifest=manifest)])
    assert f"pi-{HOSTS_SHOWN - 1:03d}" in crowded
    assert f"pi-{HOSTS_SHOWN:03d}" not in crowded
    assert f"The first {HOSTS_SHOWN} of {HOSTS_SHOWN + 1} hosts" in crowded
    assert f"The first {HOSTS_SHOWN}" not in page


def test_settings_of_a_sweep_are_kept_apart(make_run: MakeRun) -> None:
    made = make_run(policies=("all_local", "all_edge"), seeds=(1, 2), epochs=4)
    plan = yaml.safe_load((made.path / "plan.yaml").read_text())
    for cell in plan["cells"]:
        cell["setting"] = "slow" if cell["seed"] == 1 else "fast"
    plan["settings"] = [{"name": "slow"}, {"name": "fast"}]
    (made.path / "plan.yaml").write_text(yaml.safe_dump(plan))
    summary = summarise(Run(made.path))
    names = [policy.name for policy in summary.policies]
    assert names == ["all_local · slow", "all_edge · slow", "all_local · fast", "all_edge · fast"]
    assert [(pair.first, pair.second) for pair in summary.comparisons] == [tuple(names[:2]), tuple(names[2:])]


def test_several_runs_in_one_file(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run(policies=("all_local",), epochs=3, name=name) for name in ("first", "second")]
    out = tmp_path / "both.html"
    write_report([run.path for run in runs], out)
    words = Page(out.read_text()).text
    assert "edgebed report of 2 runs" in words
    assert words.count("How it was made") == 2


def test_a_place_that_cannot_be_written_is_an_error(shared_run: Any, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be written"):
        write_report([shared_run.path], tmp_path / "none" / "report.html")


def test_pictures_are_well_formed_and_do_not_join_what_was_not_sampled(summary: Summary) -> None:
    picture = figures.hosts_picture(summary)
    assert picture is not None
    assert ElementTree.fromstring(picture.svg).tag.endswith("svg")
    host = replace(summary.series.hosts[0], t_s=(0.0, 1.0, 2.0, 30.0), cpu=(0.1, None, 0.2, 0.3))
    times_s, values = figures._with_gaps(host.t_s, host.cpu, 100.0)
    assert times_s == [0.0, 1.0, 2.0, 2.0, 30.0]
    assert [math.isnan(value) for value in values] == [False, True, False, True, False]


# --- the terminal and --json -----------------------------------------------------------------------------------------


def test_the_terminal_says_the_same_as_the_page(shared_run: Any, summary: Summary) -> None:
    stream = io.StringIO()
    print_summary(Run(shared_run.path), Console(file=stream, width=220))
    printed = " ".join(stream.getvalue().split())
    for policy in summary.policies:
        latency = policy.measures["latency_s"]
        assert f"{policy.name} 3 {text.mean(latency, 'latency_s')} {text.bounds(latency, 'latency_s')}" in printed
    for notice in summary.notices:
        assert notice in printed
    assert "energy (estimated)" in printed


def test_the_plain_form_is_json(summary: Summary) -> None:
    plain = json.loads(json.dumps(summary.to_plain(), allow_nan=False))
    assert plain["counts"]["planned"] == 855
    assert plain["policies"][0]["measures"]["latency_s"]["n"] == 3
    assert plain["comparisons"][0]["differences"]["latency_s"]["relation"] == "above"
    assert plain["state"] == "running"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "not known"),
        (0.0, "0"),
        (0.1, "0.100"),
        (0.01234, "0.0123"),
        (1.0, "1.00"),
        (12.345, "12.3"),
        (123.45, "123"),
        (12345.6, "12,346"),
        (-2.5, "\N{MINUS SIGN}2.50"),
        (0.00001234, "1.23e\N{MINUS SIGN}05"),
    ],
)
def test_numbers_have_three_digits(value: float | None, expected: str) -> None:
    assert text.number(value) == expected


def test_differences_in_words() -> None:
    known = PairedDifference(Interval(-0.1, -0.2, -0.05, 3))
    assert text.difference(known, "latency_s") == "−100 [−200, −50.0] ms"
    assert text.difference(known, "miss_rate") == "−10.0 [−20.0, −5.00] points"
    assert text.difference(PairedDifference(Interval(0.5, None, None, 1)), "energy_j") == "+0.500 J"
    assert text.difference(PairedDifference(None), "energy_j") == "not known"
