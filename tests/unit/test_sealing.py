"""A run that is complete and lacks something of its end: `edgebed resume` makes it again, of its segments."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgebed.trace.manifest import read_manifest, write_manifest
from edgebed.trace.runs import TABLES
from orchestrator.cli import main
from orchestrator.simulated_runner import SimulatedRunner
from tests.unit.test_simulated_run import Quiet, planned


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, plan = planned(tmp_path_factory.mktemp("finished"))
    SimulatedRunner(folder, plan, Quiet()).run(None)
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


@pytest.mark.parametrize("table", TABLES)
def test_a_table_that_is_missing_is_made_again(
    finished: Path, copied: Path, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (copied / f"{table}.parquet").unlink()
    assert main(["resume", str(copied)]) == 0, capsys.readouterr().err
    for each in TABLES:
        assert (copied / f"{each}.parquet").read_bytes() == (finished / f"{each}.parquet").read_bytes()


def test_a_run_that_was_cut_off_before_its_verdict_gets_it(finished: Path, copied: Path) -> None:
    manifest = read_manifest(copied)
    manifest.verdict = None
    write_manifest(copied, manifest)
    (copied / "report.html").unlink()
    assert main(["resume", str(copied)]) == 0
    assert read_manifest(copied).verdict == read_manifest(finished).verdict == "valid"
    assert (copied / "report.html").is_file()


def test_without_segments_nothing_is_run_again(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copied / "events.parquet").unlink()
    shutil.rmtree(copied / "cells")
    assert main(["resume", str(copied)]) == 2
    assert "a table is missing, and segments to make it of are, too; take another copy" in capsys.readouterr().err
    assert not (copied / "cells").exists()
