"""``docs/extending.md``, followed literally: its files are written where it says, its commands are run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "extending.md"
BLOCK = re.compile(r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL)
PLAN = (
    "import pathlib, orchestrator.experiment as e;"
    "experiment = e.load_experiment(pathlib.Path('inventory/experiments/urgent.yaml'));"
    "print(*(policy.label for policy in experiment.policies))"
)


@dataclass(frozen=True)
class Block:
    """A fenced block of the page: a file when it has a title, else commands."""

    language: str
    title: str | None
    text: str


def blocks() -> list[Block]:
    return [Block(found["language"], found["title"], found["text"]) for found in BLOCK.finditer(PAGE.read_text())]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the repository to write into; git and big or generated folders are left out."""
    clone = tmp_path / "clone"
    for folder in ("edgebed", "workloads", "orchestrator", "inventory", "tests/contracts"):
        shutil.copytree(ROOT / folder, clone / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (clone / "tests" / "unit").mkdir()
    shutil.copy(ROOT / "pyproject.toml", clone)
    return clone


def environment(clone: Path) -> dict[str, str]:
    """The clone is what Python imports, and what pip installs lands beside it and needs no network.

    Where hatchling is missing, pip fetches it, as it did to install edgebed.
    """
    site = clone.parent / "site"
    here = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{clone}{os.pathsep}{site}",
        "PIP_TARGET": str(site),
        "PIP_NO_DEPS": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    if find_spec("hatchling"):
        here |= {"PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1"}
    return os.environ | here


def run(command: list[str], clone: Path) -> str:
    done = subprocess.run(
        command, cwd=clone, env=environment(clone), check=False, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_page_has_only_files_and_commands() -> None:
    assert {block.language for block in blocks() if block.title is None} == {"sh"}
    assert {block.language for block in blocks() if block.title} == {"python", "yaml", "toml"}


def test_the_page_works_as_it_is_written(clone: Path) -> None:
    ran: list[str] = []
    for block in blocks():
        if block.title:
            path = clone / block.title
            path.parent.mkdir(exist_ok=True)
            path.write_text(block.text)
        else:
            ran.append(run(["bash", "-euo", "pipefail", "-c", block.text], clone))
        if block.language == "yaml":
            assert run([sys.executable, "-c", PLAN], clone).split() == ["all_local", "urgent", "urgent-early"]
    assert [re.findall(r"(\d+) passed", output) for output in ran[:2]] == [["3", "2"], ["1", "2"]]
    assert "2 passed" in ran[2]
    assert (clone.parent / "site" / "urgent.py").exists()


def test_the_page_s_code_passes_the_linter(tmp_path: Path) -> None:
    for block in blocks():
        if block.language == "python" and block.title:
            path = tmp_path / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for verb in (["check", "--extend-ignore", "D100,D103,S101,I001"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *verb, "."], cwd=tmp_path, check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
