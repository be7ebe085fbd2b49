"""A deploy with the real wheels, over a real SSH server on this machine, to a home folder of its own.

Without systemd: that is for the lab's hosts (`test_deploy.py`). Fetches the wheels of this platform once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.cli import main
from orchestrator.provision import deploy
from orchestrator.provision.installation import read_installation
from orchestrator.provision.systemd import supervision_for
from orchestrator.remote.connect import remote_for
from tests.integration.sshd import SshServer

pytestmark = [pytest.mark.lab, pytest.mark.integration]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SshServer]:
    server = SshServer(tmp_path / "pi").start()
    yield server
    server.stop()


@pytest.fixture
def hosts_file(server: SshServer, tmp_path: Path) -> Path:
    reached = server.variables() | {"edgebed_python": sys.executable, "edgebed_service": "none"}
    groups = {
        "edge_servers": {"hosts": {"edge": {"ansible_connection": "local"}}},
        "devices": {"hosts": {"pi-1": reached}},
    }
    path = tmp_path / "hosts.yaml"
    path.write_text(yaml.safe_dump({"all": {"children": groups}}))
    server.known_hosts(tmp_path)
    return path


def deployed(hosts_file: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, Any]]:
    status = main(["deploy", str(hosts_file), "--json", *options])
    return status, json.loads(capsys.readouterr().out)["hosts"]["pi-1"]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_deployed_used_and_undone(
    server: SshServer, hosts_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (server.home / "notes").write_text("mine")
    before = files(server.home)

    status, shown = deployed(hosts_file, capsys, "--dry-run")
    assert (status, shown["state"], shown["changed"]) == (0, "planned", False)
    assert any("venv --without-pip" in command for command in shown["commands"])
    assert files(server.home) == before

    status, first = deployed(hosts_file, capsys)
    assert (status, first["state"], first["error"]) == (0, "changed", None)
    assert first["commands"] == shown["commands"]

    after = files(server.home)
    status, second = deployed(hosts_file, capsys)
    assert (status, second["state"], second["commands"]) == (0, "unchanged", [])
    assert files(server.home) == after

    python_works(server)
    assert main(["clean", str(hosts_file)]) == 0
    assert files(server.home) == before
    assert (server.home / "notes").read_text() == "mine"


def python_works(server: SshServer) -> None:
    remote = remote_for(server.host(), server.known_hosts())
    remote.connect()
    try:
        found = read_installation(remote, server.host())
        assert found.keeper == "shell"
        tells = "import numpy, workloads._onnxruntime, device_agent; print(workloads.__file__)"
        done = remote.execute(f"{found.python} -I -c '{tells}'").checked()
        assert done.text.startswith(found.root)
        modules = remote.execute(f"{found.python} -I -c 'import torch'")
        assert modules.status == 1
        folder = server.home / "run"
        folder.mkdir()
        keeper = supervision_for(remote, str(folder), found)
        keeper.install()
        keeper.start(
            "prog", ["sh", "-c", 'echo tcp://127.0.0.1:1 > prog.endpoint; exec sleep 600; : "$0"', f"{folder}/"]
        )
        assert keeper.await_endpoint("prog", 10.0) == "tcp://127.0.0.1:1"
        keeper.stop(["prog"], 5.0)
        subprocess.run(["rm", "-r", str(folder)], check=True)
    finally:
        remote.close()


def test_a_deploy_that_was_cut_short_is_repaired(
    server: SshServer, hosts_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deployed(hosts_file, capsys)[0] == 0
    root = server.home / ".edgebed"
    (version,) = (root / "versions").iterdir()
    # As if the connection had been lost in the middle of unpacking.
    (version / "complete").unlink()
    (root / "installation.json").unlink()
    (root / "current").unlink()
    (version / "lib/python3.11/site-packages/numpy/__init__.py").unlink(missing_ok=True)
    status, again = deployed(hosts_file, capsys)
    assert (status, again["state"]) == (0, "changed")
    python_works(server)
    assert main(["clean", str(hosts_file)]) == 0
    assert files(server.home) == []


def test_a_change_that_fails_leaves_nothing(
    server: SshServer, hosts_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = deploy.host_scripts()
    # A folder that is not there: placing this script is the first change that fails, after the wheels were installed.
    monkeypatch.setattr(deploy, "host_scripts", lambda: {**original, "no/such/folder/x.sh": "x"})
    status, report = deployed(hosts_file, capsys)
    assert (status, report["state"]) == (1, "failed")
    assert "what was begun on it is undone" in report["error"]
    assert files(server.home) == []


def test_a_full_disk_is_noticed_before_anything_is_changed(
    server: SshServer, hosts_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert os.geteuid() == 0, "mounting a small file system needs root"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "edgebed-test", str(server.home)], check=True)
    try:
        status, report = deployed(hosts_file, capsys)
        assert status == 1
        assert "MB free" in report["error"]
        assert files(server.home) == []
        subprocess.run(["mount", "-o", "remount,ro", str(server.home)], check=True)
        status, report = deployed(hosts_file, capsys)
        assert status == 1
        assert "read-only" in report["error"]
    finally:
        subprocess.run(["umount", str(server.home)], check=True)
