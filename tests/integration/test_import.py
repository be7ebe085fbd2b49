"""`edgebed import`: a foreign trace becomes a run like any other, or is refused with everything that is wrong in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgebed.trace.runs import Run, find_run
from edgebed.trace.schema import SCHEMA_VERSION
from orchestrator.cli import main
from orchestrator.plan_file import Plan

HEADER = "node,t_ms,size_kb,delay_ms,where,algo\n"
ROWS = """\
n1,100,120,300,L,paper
n1,900,80,250.5,E,paper
n2,400,200,,E,paper
n1,100,120,320,E,other
n1,900,80,150,L,other
n2,400,200,900,E,other
"""
MAP = """\
name: foreign-day
epoch_s: 0.5
policy: algo
seed: {value: 4}
columns:
  device_id: node
  arrived_s: {column: t_ms, scale: 0.001}
  payload_bytes: {column: size_kb, scale: 1024}
  latency_s: {column: delay_ms, scale: 0.001}
  site: {column: where, values: {L: device, E: edge}}
  server: {value: edge}
  deadline_s: {value: 0.7}
"""


@pytest.fixture
def imported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Writes the two files and imports them: the exit status, what was printed, and the run if there is one."""

    def work(rows: str = ROWS, mapping: str = MAP, header: str = HEADER) -> tuple[int, str, Run | None]:
        (tmp_path / "day.csv").write_text(header + rows)
        (tmp_path / "day.yaml").write_text(mapping)
        arguments = ["import", str(tmp_path / "day.csv"), "--map", str(tmp_path / "day.yaml")]
        status = main([*arguments, "--runs", str(tmp_path / "runs"), "--json"])
        printed = capsys.readouterr()
        run = find_run("foreign-day", tmp_path / "runs") if status == 0 else None
        return status, printed.out + printed.err, run

    return work


def test_rows_are_in_our_columns_and_units(imported: Any) -> None:
    status, printed, run = imported()
    assert status == 0
    answer = json.loads([line for line in printed.splitlines() if line.startswith("{")][-1])
    assert (answer["planned"], answer["done"], answer["unknown"], answer["state"]) == (6, 5, 1, "complete")
    assert {"requested_site", "uplink_s", "cycles"} <= set(answer["not_mapped"])
    assert "not mapped: requested_site, decision_s" in printed, "what a replay would need is told of"
    rows = run.query("FROM tasks").records()
    assert [(row["policy"], row["device_id"], row["epoch"]) for row in rows] == [
        ("other", "n1", 0),
        ("other", "n1", 1),
        ("other", "n2", 0),
        ("paper", "n1", 0),
        ("paper", "n1", 1),
        ("paper", "n2", 0),
    ]
    row = rows[4]
    assert row["arrived_s"] == pytest.approx(0.9)
    assert row["payload_bytes"] == 81920
    assert row["latency_s"] == pytest.approx(0.2505)
    assert (row["site"], row["server"], row["outcome"], row["seed"]) == ("edge", "edge", "done", 4)
    assert row["cost"] == pytest.approx(0.2505)
    assert [row["deadline_met"] for row in rows] == [True, True, False, True, True, None]
    assert [row["reason"] for row in rows] == [None] * 5 + ["not_recorded"]
    assert rows[2]["cost"] == pytest.approx(1.9), "late: with the penalty"


def test_what_the_source_does_not_say_is_null(imported: Any) -> None:
    _, _, run = imported()
    unknown = ("uplink_s", "device_cpu_s", "server_energy_j", "cycles", "decision_epoch", "link_rate_bps", "frames")
    for name in unknown:
        assert run.query(f"SELECT count({name}) FROM tasks").rows == [(0,)], name
    assert [run.query(f"SELECT count(*) FROM {table}").rows[0][0] for table in ("epochs", "samples")] == [0, 0]


def test_it_says_that_it_is_imported(imported: Any) -> None:
    _, _, run = imported()
    assert run.manifest.backend == "imported"
    assert run.manifest.command.startswith("edgebed import ")
    assert run.query("SELECT DISTINCT flags, backend FROM tasks").rows == [(["imported"], "imported")]
    kind, detail = run.query("SELECT kind, detail FROM events").rows[0]
    assert kind == "imported"
    assert json.loads(detail)["file"] == "day.csv"
    assert len(json.loads(detail)["sha256"]) == 64


def test_the_plan_has_the_arrivals(imported: Any) -> None:
    """So that they can be repeated, and the run be read by whoever reads runs."""
    _, _, run = imported()
    plan = Plan.from_yaml(run.path / "plan.yaml")
    assert [cell.cell_id for cell in plan.cells] == ["other-s4", "paper-s4"]
    assert {cell.setting.name for cell in plan.cells} == {"base"}, "the same arrivals: policies can be compared"
    assert [task.offset_s for task in plan.cells[0].planned_tasks("n1")] == pytest.approx([0.1, 0.9])
    ids = {row[0] for row in run.query("SELECT task_id FROM tasks").rows}
    planned = {
        cell.task_id(host.name, task.index)
        for cell in plan.cells
        for host in plan.devices
        for task in cell.planned_tasks(host.name)
    }
    assert ids == planned


def test_seeds_may_have_arrivals_of_their_own(imported: Any) -> None:
    """As long as they are the same for all policies, these are compared over the seeds."""
    rows = "".join(f"n1,{100 * k},1,{k}0,L,{policy},{k}\n" for k in (1, 2, 3) for policy in ("a", "b"))
    header = HEADER.replace("algo", "algo,k")
    status, printed, run = imported(rows, MAP.replace("seed: {value: 4}", "seed: k"), header)
    assert status == 0, printed
    plan = Plan.from_yaml(run.path / "plan.yaml")
    assert {cell.setting.name for cell in plan.cells} == {"base"}
    assert [(cell.cell_id, cell.planned_tasks("n1")[0].offset_s) for cell in plan.cells] == [
        (f"{policy}-s{k}", pytest.approx(0.1 * k)) for policy in ("a", "b") for k in (1, 2, 3)
    ]


def test_cells_with_other_arrivals_have_other_settings(imported: Any) -> None:
    status, _, run = imported(ROWS + "n2,2000,10,20,L,other\n")
    assert status == 0
    plan = Plan.from_yaml(run.path / "plan.yaml")
    assert sorted(cell.setting.name for cell in plan.cells) == ["arrivals-1", "arrivals-2"]


def test_reports_and_exports_read_it(imported: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, _, run = imported()
    assert (run.path / "report.html").stat().st_size > 1000
    assert main(["report", str(run.path), "-o", str(tmp_path / "again.html")]) == 0
    assert "foreign-day" in capsys.readouterr().out
    assert main(["export", str(run.path), "--to", "csv", "-o", str(tmp_path / "csv")]) == 0
    assert (tmp_path / "csv" / "tasks.csv").read_text().count("\n") == 7


def test_a_run_exported_and_imported_is_the_same(imported: Any, tmp_path: Path) -> None:
    _, _, run = imported()
    assert main(["export", str(run.path), "--to", "csv", "-o", str(tmp_path / "csv")]) == 0
    ours = ("device_id", "arrived_s", "deadline_s", "payload_bytes", "latency_s", "site", "server", "outcome", "reason")
    columns = "".join(f"  {name}: {name}\n" for name in ours)
    again = f"name: foreign-day\nepoch_s: 0.5\npolicy: policy\nseed: seed\ncolumns:\n{columns}"
    text = (tmp_path / "csv" / "tasks.csv").read_text()
    status, printed, second = imported(text.partition("\n")[2], again, text.partition("\n")[0] + "\n")
    assert status == 0, printed
    what = f"SELECT task_id, epoch, cost, deadline_met, flags, {', '.join(ours)} FROM tasks"
    assert second.query(what).rows == run.query(what).rows


@pytest.mark.parametrize(
    ("rows", "texts"),
    [
        ("n1,1x,1,2,L,p\n", [r"day.csv:2: arrived_s: '1x' is not a number"]),
        ("n1,-1,1,2,L,p\n", ["day.csv:2: arrived_s: -0.001 is below 0"]),
        ("n1,1,0.0001,2,L,p\n", ["payload_bytes: 0.1024 is not a whole number"]),
        ("n1,1,1,nan,L,p\n", ["latency_s: 'nan' is not finite; leave the field empty where it is unknown"]),
        ("n1,1,1,2,X,p\n", ["site: 'X' has no meaning; values has: L, E"]),
        ("n 1,1,1,2,L,p\n", ["device_id: 'n 1' is not a name; allowed: letters"]),
        (",1,1,2,L,p\n", ["day.csv:2: device_id: is empty"]),
        ("n1,1,1,2,L,p\nn1,5,1,2\n", ["day.csv:3: has 4 fields; the header has 6: is the file cut off?"]),
        ('n1,1,1,2,L,p\nn1,5,1,2,L,"p', ["day.csv:3: is not CSV", "is it cut off?"]),
        ("n1,1,1,2,L,p\nn1,1,1,2,L,p\n", ["day.csv:3: is the same as line 2"]),
        ("n1,1x,1,2,L,p\nn1,5,1,y,L,p\nn1,6,1,2,X,p\n", ["day.csv:2: arrived_s", "day.csv:3: latency_s", ":4: site"]),
        ("edge,1,1,2,L,p\n", ["edge: both a device and an edge server"]),
        ("", ["has no rows below its header"]),
    ],
)
def test_a_source_that_is_wrong_is_refused_with_its_lines(
    rows: str, texts: list[str], imported: Any, tmp_path: Path
) -> None:
    status, printed, _ = imported(rows)
    assert status == 2
    for text in texts:
        assert text in printed
    assert not (tmp_path / "runs").exists()


def test_of_very_many_problems_the_first_are_told(imported: Any) -> None:
    status, printed, _ = imported("n1,x,1,2,L,p\n" * 500)
    assert status == 2
    assert printed.count("arrived_s") == 50
    assert "and 450 problems more" in printed


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        (("epoch_s: 0.5\n", ""), ["epoch_s: is missing; seconds between decisions"]),
        (("device_id: node", "device_id: nodes"), ["day.csv:1: columns.device_id", "did you mean node?"]),
        (("payload_bytes:", "payload_byte:"), ["day.yaml:8: columns.payload_byte: is not a key", "payload_bytes"]),
        (("deadline_s: {value: 0.7}", "task_id: node"), ["is made by edgebed", "deadline_s is missing"]),
        (("E: edge", "E: cloud"), ["columns.site: means cloud; allowed: device, edge, split"]),
        (("{value: 0.7}", "{value: 0.7, column: node}"), ["needs either `column` or `value`"]),
        (("name:", f"schema_version: {SCHEMA_VERSION + 1}\nname:"), ["columns of a newer edgebed", "update it"]),
        (("{value: edge}", "{value: cloud}"), ["server: there is no server 'cloud'", "edge"]),
        (("epoch_s: 0.5", "epoch_s: 0.5\nworkload: digit"), ["did you mean digits?"]),
        (("epoch_s: 0.5", "epoch_s: 0.5\ndevices: {board: pi}"), ["there is no board 'pi'"]),
    ],
)
def test_a_mapping_that_is_wrong_is_refused(
    change: tuple[str, str], texts: list[str], imported: Any, tmp_path: Path
) -> None:
    assert change[0] in MAP
    status, printed, _ = imported(mapping=MAP.replace(*change))
    assert status == 2
    for text in texts:
        assert text in printed
    assert not (tmp_path / "runs").exists()


def test_a_table_of_ours_is_not_taken_for_csv(
    imported: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, run = imported()
    capsys.readouterr()
    assert main(["import", str(run.path / "tasks.parquet"), "--map", str(tmp_path / "day.yaml")]) == 2
    assert "is a Parquet file; a CSV file is needed" in capsys.readouterr().err
