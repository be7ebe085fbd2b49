"""Hosts over a real SSH server that cannot be deployed to, and who holds them: clear errors, and nothing changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from edgebed.errors import BadInput, WorkFailed
from orchestrator.cli import main
from orchestrator.inventory import Host
from orchestrator.provision import lease
from orchestrator.provision.clean import Cleaner
from orchestrator.provision.installation import read_installation
from orchestrator.remote.base import Remote
from orchestrator.remote.connect import remote_for
from tests.integration.sshd import SshServer

pytestmark = pytest.mark.integration


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SshServer]:
    server = SshServer(tmp_path / "pi").start()
    yield server
    server.stop()


@pytest.fixture
def remote(server: SshServer) -> Iterator[Remote]:
    remote = remote_for(server.host(), server.known_hosts())
    remote.connect()
    yield remote
    remote.close()


@pytest.fixture
def hosts_file(server: SshServer, tmp_path: Path) -> Path:
    path = tmp_path / "hosts.yaml"
    write_hosts(path, server)
    server.known_hosts(tmp_path)
    return path


def write_hosts(path: Path, server: SshServer, **variables: object) -> None:
    edge = {"ansible_connection": "local"}
    groups = {
        "edge_servers": {"hosts": {"edge": edge}},
        "devices": {"hosts": {"pi-1": {**server.variables(), **variables}}},
    }
    path.write_text(yaml.safe_dump({"all": {"children": groups}}))


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


BAD = [
    ({"edgebed_python": "/no/such/python"}, "edgebed_python: /no/such/python does not start there"),
    ({"edgebed_clock": "chrony"}, "chrony is not installed there"),
]


@pytest.mark.parametrize(("variables", "says"), BAD, ids=[says[:20] for _, says in BAD])
def test_a_host_that_cannot_have_what_is_asked_for(
    server: SshServer, hosts_file: Path, capsys: pytest.CaptureFixture[str], variables: dict[str, object], says: str
) -> None:
    if Path("/usr/sbin/chronyd").exists() and "edgebed_clock" in variables:
        pytest.fail("this test needs a machine without chrony")
    write_hosts(hosts_file, server, **variables)
    assert main(["deploy", str(hosts_file)]) == 1
    told = capsys.readouterr().out
    assert "pi-1: FAILED" in told
    assert says in told
    assert "edge: this machine, nothing to do" in told
    assert files(server.home) == []


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_foreign_files_in_the_way_stay_as_they_are(
    server: SshServer, hosts_file: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    root = server.home / ".edgebed"
    if kind == "folder":
        root.mkdir()
        root = root / "notes"
    root.write_text("mine")
    assert main(["deploy", str(hosts_file)]) == 1
    assert "edgebed has not made it; move it away" in capsys.readouterr().out
    assert main(["clean", str(hosts_file)]) == 0
    assert "is not edgebed's and stays" in capsys.readouterr().err
    assert root.read_text() == "mine"


def test_a_host_that_was_never_deployed(remote: Remote, server: SshServer, hosts_file: Path) -> None:
    with pytest.raises(BadInput, match="is not deployed; run `edgebed deploy HOSTS`"):
        read_installation(remote, server.host())
    assert main(["clean", str(hosts_file)]) == 0
    assert main(["release", str(hosts_file)]) == 0
    assert files(server.home) == []


def test_an_unknown_host_of_the_file_is_bad_input(hosts_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deploy", str(hosts_file), "--host", "pi-2"]) == 2
    assert "pi-2" in capsys.readouterr().err


@pytest.fixture
def held(server: SshServer, remote: Remote) -> lease.Holder:
    """Someone else, on another machine, holds the host."""
    root = server.home / ".edgebed"
    root.mkdir()
    (root / "ledger.jsonl").touch()
    other = lease.Holder(
        holder="ana@desk", machine="desk", pid=7, started_s=1.0, run_id="night-run", taken="2026-01-01"
    )
    lease.take(remote, str(root), other)
    return other


def test_a_held_host_is_neither_cleaned_nor_released(
    server: SshServer, hosts_file: Path, held: lease.Holder, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb in ("clean", "release"):
        assert main([verb, str(hosts_file)]) == 1
        assert "ana@desk" in capsys.readouterr().out
    assert (server.home / ".edgebed/lease.json").exists()
    assert main(["release", str(hosts_file), "--force"]) == 0
    assert not (server.home / ".edgebed/lease.json").exists()


def test_a_silent_holder_is_dead_after_a_while_and_its_lease_broken(
    server: SshServer, hosts_file: Path, held: lease.Holder, capsys: pytest.CaptureFixture[str]
) -> None:
    path = server.home / ".edgebed/lease.json"
    then_s = path.stat().st_mtime - lease.DEAD_AFTER_S - 5
    os.utime(path, (then_s, then_s))
    assert main(["release", str(hosts_file)]) == 0
    assert "was held by ana@desk (process 7, run night-run" in capsys.readouterr().err
    assert not path.exists()


def test_a_second_orchestrator_is_told_by_ssh_too(server: SshServer, remote: Remote, held: lease.Holder) -> None:
    with pytest.raises(WorkFailed, match="pi-1: is held by ana@desk"):
        lease.take(remote, str(server.home / ".edgebed"), lease.own_holder("mine"))


def test_rows_that_nobody_collected_keep_a_host_from_being_cleaned(
    server: SshServer, hosts_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run = server.home / ".edgebed", server.home / ".local/state/edgebed/demo-1"
    root.mkdir()
    (root / "ledger.jsonl").touch()
    (run / "pi-1").mkdir(parents=True)
    (run / "pi-1" / "device_agent.outbox.sqlite").write_bytes(b"rows")
    (run / "pi-2").mkdir()
    assert main(["clean", str(hosts_file)]) == 1
    assert "has rows of demo-1 that may not have been collected" in capsys.readouterr().out
    assert (run / "pi-1" / "device_agent.outbox.sqlite").exists()
    assert main(["clean", str(hosts_file), "--force"]) == 0
    assert "removes the state of run demo-1" in capsys.readouterr().err
    left = [path for path in files(server.home) if "demo-1" in path]
    assert [path.rpartition("/")[2] for path in left] == ["demo-1", "pi-2"], "what is another host's stays"


def test_connections_are_given_back(server: SshServer) -> None:
    host: Host = server.host()
    reports = Cleaner(lambda each: remote_for(each, server.known_hosts())).clean([host])
    assert reports["pi-1"].state == "unchanged"
