"""The command line: a light table of verbs, exit statuses, answers for programs."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

import orchestrator.cli
from edgebed import __version__
from edgebed.errors import BadInput, Problem, WorkFailed
from orchestrator.cli import VERBS, Verb, main, new_application
from orchestrator.cli.output import Output
from orchestrator.plan import make_plan
from orchestrator.shipped import shipped_inventory
from workloads import workload_names

ROOT = Path(__file__).parents[2]
DEMO = str(ROOT / "inventory/experiments/demo.yaml")
LOCAL = str(ROOT / "inventory/hosts/local.yaml")
INSTANT = ("--set", "workload=instant")

Capture = pytest.CaptureFixture[str]


# --- the table of verbs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_the_table_says_what_the_modules_say(verb: Verb) -> None:
    module = importlib.import_module(verb.module)
    assert (module.__doc__ or "").partition("\n")[0] == verb.summary


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_the_help_of_every_verb_has_an_example(verb: Verb, capsys: Capture) -> None:
    assert main([verb.name, "--help"]) == 0
    help_text = capsys.readouterr().out
    _, heading, examples = help_text.partition("Example:\n")
    assert heading
    assert examples.strip().startswith(f"edgebed {verb.name} ")


def test_help_names_every_verb(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for verb in VERBS:
        assert any(line.split()[:1] == [verb.name] and line.endswith(verb.summary) for line in lines)


def test_help_imports_nothing_that_is_slow() -> None:
    code = "import sys; from orchestrator.cli import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {name.partition(".")[0] for name in found.stderr.split()}
    assert not loaded & {
        "typer",
        "rich",
        "pydantic",
        "numpy",
        "yaml",
        "duckdb",
        "paramiko",
        "zmq",
        "msgspec",
        "workloads",
    }


def test_the_version(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"edgebed {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pln"], "there is no verb 'pln'; did you mean plan?"),
        (["frobnicate"], "there is no verb 'frobnicate'. Verbs: init, "),
        ([], "Usage: edgebed VERB"),
        (["plan"], "Missing argument"),
        (["plan", "x.yaml", "--nope"], "No such option"),
        (["list", "clouds"], "'clouds' is not one of"),
        (
            ["plan", "nowhere.yaml", "--hosts", "nor-here.yaml"],
            "nowhere.yaml: cannot be read: No such file or directory",
        ),
    ],
)
def test_bad_input_ends_with_status_2(arguments: list[str], message: str, capsys: Capture) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    assert "Traceback" not in captured.err


# --- what becomes of errors -------------------------------------------------------------------------------------------


@pytest.fixture
def run_verb(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run a function, or an application with sub-verbs, as the verb ``trial``."""

    def run(command: Any, *arguments: str) -> int:
        module = types.ModuleType("a_trial_verb", "Try something.")
        module.EXAMPLES = ("edgebed trial",)  # type: ignore[attr-defined]
        setattr(module, "app" if isinstance(command, typer.Typer) else "command", command)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(orchestrator.cli, "VERBS", (Verb("trial", module.__name__, "Try something."),))
        return main(["trial", *arguments])

    return run


def raising(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (
            BadInput([Problem("is wrong", "a.b", "f.yaml", 3), Problem("too", "c")]),
            2,
            "f.yaml:3: a.b: is wrong\nc: too\n",
        ),
        (WorkFailed("two hosts failed"), 1, "two hosts failed\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (
            ModuleNotFoundError("No module named 'duckdb'", name="duckdb"),
            2,
            "trial needs the extra [orchestrator], which is not installed: pip install 'edgebed[orchestrator]'\n",
        ),
        (
            ModuleNotFoundError("No module named 'rich.live'", name="rich.live"),
            2,
            "pip install 'edgebed[orchestrator]'\n",
        ),
    ],
)
def test_an_error_is_a_message_and_a_status(
    run_verb: Callable[..., int], capsys: Capture, error: BaseException, status: int, message: str
) -> None:
    assert run_verb(raising(error)) == status
    captured = capsys.readouterr()
    assert captured.err.endswith(message)
    assert "Traceback" not in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("error", [ZeroDivisionError(), ModuleNotFoundError("No module named 'x'", name="x")])
def test_what_nobody_expected_keeps_its_traceback(run_verb: Callable[..., int], error: Exception) -> None:
    with pytest.raises(type(error)):
        run_verb(raising(error))


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (1, 1), (130, 130)])
def test_what_a_verb_returns_is_the_status(run_verb: Callable[..., int], returned: int | None, status: int) -> None:
    def command() -> int | None:
        return returned

    assert run_verb(command) == status


@pytest.mark.parametrize(
    ("arguments", "status", "shown"),
    [
        (("look",), 3, "looked"),
        (("look", "--deep"), 4, "looked"),
        (("--help",), 0, "Example:\n    edgebed trial\n"),
        (("look", "--help"), 0, "Look at it."),
        ((), 2, "look   Look at it."),
        (("loook",), 2, "No such command 'loook'"),
    ],
)
def test_a_verb_may_have_sub_verbs(
    run_verb: Callable[..., int], capsys: Capture, arguments: tuple[str, ...], status: int, shown: str
) -> None:
    app = new_application()

    @app.command()
    def look(deep: bool = False) -> int:
        """Look at it."""
        print("looked")
        return 4 if deep else 3

    @app.command()
    def leave() -> None:
        """Leave it."""

    assert run_verb(app, *arguments) == status
    captured = capsys.readouterr()
    assert shown in captured.out + captured.err


def test_a_missing_extra_is_named_before_anything_runs(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setitem(sys.modules, "typer", None)
    assert main(["plan", "x.yaml"]) == 2
    assert "pip install 'edgebed[orchestrator]'" in capsys.readouterr().err


# --- answers ----------------------------------------------------------------------------------------------------------


def test_an_answer_is_one_line_and_the_rest_goes_to_standard_error(capsys: Capture) -> None:
    output = Output(as_json=True)
    output.text("for people")
    output.note("a note")
    output.answer({"text": "a\nb", "number": 1.5})
    captured = capsys.readouterr()
    assert captured.out == '{"text": "a\\nb", "number": 1.5}\n'
    assert captured.err == "for people\na note\n"


def test_without_json_the_answer_is_for_people(capsys: Capture) -> None:
    output = Output()
    output.text("for people")
    output.note("a note")
    output.answer({"number": 1})
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("for people\n", "a note\n")


def test_an_answer_has_no_numbers_that_json_has_not() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Output(as_json=True).answer({"x": float("nan")})


def answer(arguments: list[str], capsys: Capture) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1
    found = json.loads(captured.out)
    assert isinstance(found, dict)
    return found


# --- plan -------------------------------------------------------------------------------------------------------------


def test_plan_answers_programs(capsys: Capture) -> None:
    found = answer(["plan", DEMO, "--hosts", LOCAL, *INSTANT, "--set", "seeds=[7]"], capsys)
    planned = make_plan(DEMO, LOCAL, ["workload=instant", "seeds=[7]"])
    assert found["plan_hash"] == planned.plan_hash
    assert [cell["id"] for cell in found["cells"]] == [cell.cell_id for cell in planned.cells]
    assert len(found["cells"]) == 5
    assert found["tasks"] == planned.estimate.tasks
    assert found["payload_bytes"] == planned.estimate.payload_bytes
    assert list(found["hosts"]) == ["edge", "pi-1", "pi-2", "pi-3"]
    assert found["controller"] == "edge"


def test_plan_tells_people_what_would_run(capsys: Capture) -> None:
    assert main(["plan", DEMO, "--hosts", LOCAL, *INSTANT]) == 0
    text = capsys.readouterr().out
    assert "25 cells = 5 policies x 5 seeds" in text
    for name in ("edge", "pi-1", "pi-2", "pi-3", "greedy_latency-s5", "20 Mbit/s", "minutes"):
        assert name in text


def test_plan_touches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plan", DEMO, "--hosts", LOCAL, *INSTANT]) == 0
    assert capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_plan_reports_everything_that_is_wrong(capsys: Capture) -> None:
    changes = ["--set", "epchs=3", "--set", "seeds=[]", "--set", "policies.0=nobody"]
    assert main(["plan", DEMO, "--hosts", LOCAL, *changes]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["--set epchs=3", "--set policies.0=nobody", "--set seeds=[]"]


# --- init -------------------------------------------------------------------------------------------------------------


def test_init_makes_a_project_that_can_be_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    found = answer(["init", str(tmp_path / "mine")], capsys)
    assert "inventory/experiments/demo.yaml" in found["files"]
    made = sorted(str(path.relative_to(tmp_path / "mine")) for path in (tmp_path / "mine").rglob("*.yaml"))
    assert made == sorted(found["files"])
    for name in found["files"]:
        shipped = shipped_inventory() / Path(name).relative_to("inventory")
        assert (tmp_path / "mine" / name).read_bytes() == shipped.read_bytes()
    monkeypatch.chdir(tmp_path / "mine")
    assert answer(["plan", "inventory/experiments/demo.yaml", *INSTANT], capsys)["experiment"] == "demo"


def test_init_overwrites_nothing_and_writes_nothing_then(tmp_path: Path, capsys: Capture) -> None:
    mine = tmp_path / "inventory/experiments/demo.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    assert main(["init", str(tmp_path)]) == 2
    assert f"{mine}: is there already and would be overwritten" in capsys.readouterr().err
    assert mine.read_text() == "mine"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]


# --- list -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("policies", {"all_local", "all_edge", "uniform_random", "queue_threshold", "greedy_latency"}),
        ("workloads", {"digits"}),
        ("boards", {"generic-x86", "raspberry-pi-4b", "raspberry-pi-5"}),
        ("meters", {"cpu_model", "hwmon_ina2xx"}),
    ],
)
def test_list_names_what_there_is(kind: str, names: set[str], capsys: Capture) -> None:
    found = answer(["list", kind], capsys)[kind]
    assert names <= {each["name"] for each in found}
    assert all(each["summary"] for each in found)
    assert main(["list", kind]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [each["name"] for each in found]


def test_the_workload_of_tests_is_not_listed(capsys: Capture) -> None:
    assert "instant" in workload_names()
    assert "instant" not in {each["name"] for each in answer(["list", "workloads"], capsys)["workloads"]}


# --- a reader that leaves ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("list", "policies"), ("plan", "--help")])
def test_a_reader_that_leaves_ends_it_quietly(arguments: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [sys.executable, "-m", "orchestrator", *arguments]
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")
