"""``edgebed check`` over real SSH servers: keys that are unknown, changed or not let in, and hosts that are fine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from orchestrator.cli import main
from tests.integration.sshd import SshServers, make_key

pytestmark = pytest.mark.integration

Checks = dict[str, dict[str, str]]
Check = Callable[..., tuple[int, dict[str, Checks], str]]


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """Check devices behind servers, the edge server being this machine: exit status, findings, standard error."""
    hosts_file = tmp_path / "hosts.yaml"

    def run(devices: dict[str, dict[str, object]], *options: str) -> tuple[int, dict[str, Checks], str]:
        edge = {"hosts": {"edge": {"ansible_connection": "local"}}}
        groups = {"edge_servers": edge, "devices": {"hosts": devices}}
        hosts_file.write_text(yaml.safe_dump({"all": {"children": groups}}))
        status = main(["check", str(hosts_file), "--json", *options])
        captured = capsys.readouterr()
        hosts = json.loads(captured.out.splitlines()[-1])["hosts"]
        by_check = {name: {each["check"]: each for each in reversed(found)} for name, found in hosts.items()}
        return status, by_check, captured.err

    return run


def test_unknown_keys_are_shown_accepted_on_request_and_then_known(ssh_servers: SshServers, check: Check) -> None:
    devices = {"pi-1": ssh_servers().variables(), "pi-2": ssh_servers().variables()}
    status, found, _ = check(devices)
    assert status == 1
    for name in devices:
        assert list(found[name]) == ["reachable"]
        assert "its host key is not known" in found[name]["reachable"]["evidence"]
        assert "SHA256:" in found[name]["reachable"]["evidence"]
        assert "--accept-new" in found[name]["reachable"]["fix"]
    assert found["edge"]["reachable"]["status"] == "ok"
    status, found, told = check(devices, "--accept-new")
    assert status == 0, found
    assert "is pinned now: SHA256:" in told
    status, found, told = check(devices)
    assert status == 0, found
    assert "pinned now" not in told
    for name in devices:
        assert found[name]["reachable"]["evidence"].startswith("by SSH as ")
        # Both servers are this machine, which is what two clones of an image look like.
        assert found[name]["machine_id"]["status"] == "warn"
        assert "100 echoes" in found[name]["round_trip"]["evidence"]
        assert "edge at 127.0.0.1:" in found[name]["round_trip"]["evidence"]
        assert found[name]["version"]["evidence"] == "edgebed is not deployed"


def test_a_changed_key_and_a_wrong_key_are_told_and_the_others_are_checked(
    ssh_servers: SshServers, check: Check, tmp_path: Path
) -> None:
    changed, shut, fine = ssh_servers(), ssh_servers(), ssh_servers()
    devices = {name: each.variables() for name, each in (("pi-1", changed), ("pi-2", shut), ("pi-3", fine))}
    assert check(devices, "--accept-new")[0] == 0
    changed.restart(with_new_host_key=True)
    devices["pi-2"]["ansible_ssh_private_key_file"] = str(make_key(tmp_path / "stranger"))
    status, found, _ = check(devices, "--accept-new")
    assert status == 1
    reachable = {name: found[name]["reachable"] for name in found}
    assert "not the pinned one" in reachable["pi-1"]["evidence"]
    assert "edgebed trust" in reachable["pi-1"]["fix"]
    assert reachable["pi-2"]["status"] == "fail"
    assert "stranger" in reachable["pi-2"]["evidence"] + reachable["pi-2"]["fix"]
    assert reachable["pi-3"]["status"] == "ok"
    assert len(found["pi-3"]) > 10
