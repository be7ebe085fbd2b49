"""`edgebed trust` against real SSH servers."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.cli import main
from orchestrator.remote.host_keys import KnownHosts
from orchestrator.remote.ssh import SshRemote
from tests.integration.sshd import ADDRESS, SshServer, SshServers, free_port, make_key

Capture = pytest.CaptureFixture[str]
WriteHosts = Callable[..., str]


@pytest.fixture
def write_hosts(tmp_path: Path) -> WriteHosts:
    """Write a hosts file of servers, by name; a host without one is this machine."""

    def write(**servers: SshServer | int | None) -> str:
        def variables(server: SshServer | int | None) -> dict[str, Any]:
            if server is None:
                return {"ansible_connection": "local"}
            port = server if isinstance(server, int) else server.port
            return {"ansible_host": ADDRESS, "ansible_port": port, "edgebed_board": "generic-x86"}

        hosts = {name.replace("_", "-"): variables(server) for name, server in servers.items()}
        edge = {"edge": hosts.pop("edge", {"ansible_connection": "local"})}
        path = tmp_path / "project" / "pis.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump({"edge_servers": {"hosts": edge}, "devices": {"hosts": hosts}}))
        return str(path)

    return write


def answer(capsys: Capture) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_new_and_changed_keys_are_shown_and_pinned(
    ssh_servers: SshServers, write_hosts: WriteHosts, capsys: Capture
) -> None:
    same, changed, new = ssh_servers(), ssh_servers(), ssh_servers()
    hosts = write_hosts(same=same, changed=changed, new=new)
    known = KnownHosts.beside(hosts)
    known.pin({same.name: same.key, changed.name: changed.key})
    old = changed.key
    changed.restart(with_new_host_key=True)
    with pytest.raises(OSError, match=f"edgebed trust {hosts} --host changed"):
        SshRemote(changed.target("changed"), known).connect()
    assert main(["trust", hosts, "--yes", "--json"]) == 0
    found = answer(capsys)
    assert {name: each["state"] for name, each in found["hosts"].items()} == {
        "same": "unchanged",
        "changed": "changed",
        "new": "new",
    }
    assert found["hosts"]["changed"]["old"] == [str(old)]
    assert found["hosts"]["changed"]["new"] == str(changed.key)
    assert sorted(found["pinned"]) == ["changed", "new"]
    for server in (same, changed, new):
        remote = SshRemote(server.target(), known)
        remote.connect()
        remote.close()
    assert main(["trust", hosts]) == 0  # nothing has changed: nothing to ask
    assert main(["trust", hosts, "--json"]) == 0
    assert answer(capsys)["pinned"] == []


def test_without_a_terminal_nothing_is_pinned(
    ssh_servers: SshServers, write_hosts: WriteHosts, capsys: Capture
) -> None:
    server = ssh_servers()
    hosts = write_hosts(pi_1=server)
    assert main(["trust", hosts]) == 2
    shown = capsys.readouterr()
    assert server.key.fingerprint in shown.out
    assert "add --yes" in shown.err
    assert not KnownHosts.beside(hosts).path.exists()


@pytest.mark.parametrize(("typed", "status"), [("y", 0), ("n", 1), ("", 1)])
def test_at_a_terminal_one_is_asked(ssh_servers: SshServers, write_hosts: WriteHosts, typed: str, status: int) -> None:
    server = ssh_servers()
    hosts = write_hosts(pi_1=server)
    ours, theirs = pty.openpty()
    os.write(ours, f"{typed}\n".encode())
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", "trust", hosts],
        stdin=theirs,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    os.close(ours)
    os.close(theirs)
    assert done.returncode == status, done.stderr
    assert "Pin the keys of these 1 hosts?" in done.stdout
    assert KnownHosts.beside(hosts).known(server.name).keys == ((server.key,) if status == 0 else ())


def test_only_the_hosts_that_are_named(ssh_servers: SshServers, write_hosts: WriteHosts, capsys: Capture) -> None:
    one, two = ssh_servers(), ssh_servers()
    hosts = write_hosts(pi_1=one, pi_2=two, pi_3=None)
    assert main(["trust", hosts, "--host", "pi-2", "--yes", "--json"]) == 0
    assert answer(capsys)["pinned"] == ["pi-2"]
    assert KnownHosts.beside(hosts).known(one.name).keys == ()
    assert main(["trust", hosts, "--host", "pi-9"]) == 2
    assert "pi-9" in capsys.readouterr().err
    assert main(["trust", hosts, "--host", "pi-3"]) == 2
    assert "has no host key" in capsys.readouterr().err


def test_hosts_that_cannot_be_reached_do_not_stop_the_others(
    ssh_servers: SshServers, write_hosts: WriteHosts, capsys: Capture
) -> None:
    server = ssh_servers()
    hosts = write_hosts(pi_1=free_port(), pi_2=server)
    assert main(["trust", hosts, "--yes", "--json"]) == 1
    found = answer(capsys)
    assert found["hosts"]["pi-1"]["state"] == "unreachable"
    assert "refuses" in found["hosts"]["pi-1"]["error"]
    assert found["pinned"] == ["pi-2"]


def test_clones_are_told(ssh_servers: SshServers, write_hosts: WriteHosts, tmp_path: Path, capsys: Capture) -> None:
    image = make_key(tmp_path / "image")
    hosts = write_hosts(pi_1=ssh_servers(host_key=image), pi_2=ssh_servers(host_key=image))
    assert main(["trust", hosts, "--yes", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out.splitlines()[-1])["clones"] == [["pi-1", "pi-2"]]
    assert "warning: pi-1, pi-2 show the same host key" in shown.err


def test_hosts_on_this_machine_have_nothing_to_pin(write_hosts: WriteHosts, capsys: Capture) -> None:
    assert main(["trust", write_hosts(pi_1=None)]) == 0
    assert "nothing to pin" in capsys.readouterr().out


def test_a_revoked_key_is_never_pinned(ssh_servers: SshServers, write_hosts: WriteHosts, capsys: Capture) -> None:
    server = ssh_servers()
    hosts = write_hosts(pi_1=server)
    known = KnownHosts.beside(hosts)
    known.pin({server.name: server.key})
    known.path.write_text(f"@revoked {known.path.read_text()}")
    assert main(["trust", hosts, "--yes", "--json"]) == 1
    found = answer(capsys)
    assert (found["hosts"]["pi-1"]["state"], found["pinned"]) == ("revoked", [])
