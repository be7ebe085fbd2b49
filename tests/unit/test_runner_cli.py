"""`edgebed run` and `edgebed resume`: what is refused before anything is touched."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import yaml

from orchestrator.cli import main

EXPERIMENT = {
    "name": "x",
    "workload": "instant",
    "deadline_s": 1.0,
    "arrivals": {"kind": "periodic", "period_s": 0.5},
    "epoch_s": 0.5,
    "epochs": 2,
    "policies": ["all_edge"],
    "seeds": [1],
}


def port_without_listener() -> int:
    """A port of this machine that refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def files(folder: Path, connection: str = "local", **changes: object) -> list[str]:
    """Arguments that name an experiment, hosts, and where runs go."""
    pi: dict[str, object] = {"ansible_connection": connection, "edgebed_board": "raspberry-pi-4b"}
    if connection == "ssh":
        pi |= {"ansible_host": "127.0.0.1", "ansible_port": port_without_listener(), "ansible_user": "pi"}
    groups = {
        "edge_servers": {"hosts": {"edge": {"ansible_connection": "local"}}},
        "devices": {"hosts": {"pi-1": pi}},
    }
    (folder / "x.yaml").write_text(yaml.safe_dump(EXPERIMENT | changes))
    (folder / "hosts.yaml").write_text(yaml.safe_dump({"all": {"children": groups}}))
    return [str(folder / "x.yaml"), "--hosts", str(folder / "hosts.yaml"), "--runs", str(folder / "runs")]


@pytest.mark.parametrize(
    ("backend", "text"),
    [
        ("replayed", "--backend replayed needs the recorded run that is decided anew: --from RUN, its folder or its"),
        ("magic", "--backend: there is no 'magic'; available: hosts, simulated, replayed"),
    ],
)
def test_backends_that_are_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], backend: str, text: str
) -> None:
    assert main(["run", *files(tmp_path), "--backend", backend]) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_hosts_that_cannot_be_reached_are_told_before_a_folder_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *files(tmp_path, connection="ssh")]) == 1
    assert "pi-1" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_wrong_files_are_reported_at_once_and_nothing_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *files(tmp_path, epochs=0, seeds=[])]) == 2
    errors = capsys.readouterr().err
    assert "epochs" in errors
    assert "seeds" in errors
    assert not (tmp_path / "runs").exists()


def test_what_is_no_run_cannot_be_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume", str(tmp_path)]) == 2
    assert "there is no run" in capsys.readouterr().err
