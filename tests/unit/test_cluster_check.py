"""What the check of a cluster shares: findings and numbers; no names, addresses, users, keys or paths."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.inventory import load_inventory
from tests.hardware.cluster import Check, main
from tests.hardware.redaction import HIDDEN, Redactor, redactor_for, shared_finding

HOSTS = """\
all:
  vars: { ansible_user: alice, ansible_ssh_private_key_file: ~/.ssh/id_of_alice }
  children:
    edge_servers:
      hosts: { bigbox: { ansible_host: bigbox.lab.example.org, edgebed_board: generic-x86 } }
    devices:
      vars: { edgebed_board: raspberry-pi-4b }
      hosts:
        pi-1: { ansible_host: 10.1.2.3, edgebed_address: 10.9.9.9 }
        pi-11: { ansible_host: "fd00:1:2::7" }
"""

PRIVATE = (
    *("alice", "bigbox", "example.org", "10.1.2.3", "10.9.9.9", "fd00:1:2::7", "id_of_alice", "pi-1", "pi-11"),
    *("/home/", "02:ed:0a:00:00:01", "SHA256:", "0123456789abcdef0123", "tcp://", "cluster.yaml"),
)


@pytest.fixture
def hosts_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # no ~/.ssh/config of whoever runs this
    path = tmp_path / "cluster.yaml"
    path.write_text(HOSTS)
    return path


def findings(host: str, user: str) -> list[dict[str, str]]:
    """As ``check --json`` says them, with all that may be private in them."""
    told = {
        "reachable": f"by SSH as {user} in 22 ms",
        "board": "Raspberry Pi 4 Model B Rev 1.4, 4 cores, revision c03114",
        "python": "/home/alice/py/bin/python3 (3.11)",
        "round_trip": "bigbox at tcp://10.1.2.3:5570: p50 6.10 ms, p99 9.00 ms (200 echoes over TCP)",
        "lease": f"held by {user}@bigbox (process 12, run demo)",
        "machine_id": "01234567..., the same as pi-11",
        "host_key": "SHA256:Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9v of pi-1",
        "storage": "3 kernel messages about errors, the last: mmc0 serial 0x1234 of alice",
        "clock_sync": "chrony follows C0A80001 (bigbox.lan)",
        "wifi": f"{host} by 02:ed:0a:00:00:01 and fd00:1:2::7, id 0123456789abcdef0123456789abcdef",
    }
    return [{"check": name, "status": "warn", "evidence": seen, "fix": f"ask {user}"} for name, seen in told.items()]


def test_nothing_private_is_in_a_result(hosts_file: Path) -> None:
    inventory = load_inventory(hosts_file)
    check = Check(inventory, hosts_file, Path("runs"), 12, False)
    check.begin()
    for name in ("bigbox", "pi-1", "pi-11"):
        check.result["hosts"][name]["findings"] = [shared_finding(each) for each in findings(name, "alice")]
    check.problems.append("pi-1: lost alice@10.1.2.3:22, see /home/alice/.ssh/id_of_alice and pi-11.local")
    check.result["run"] = {"reasons": ["Other work kept up to 67 % of bigbox, pi-1 busy."]}
    result = check.finished(redactor_for(inventory))

    text = json.dumps(result)
    assert [word for word in PRIVATE if word in text] == []
    assert list(result["hosts"]) == ["server-1", "device-1", "device-2"]
    assert result["run"]["reasons"] == ["Other work kept up to 67 % of server-1, device-1 busy."]
    shown = {each["check"]: each.get("evidence") for each in result["hosts"]["device-1"]["findings"]}
    assert shown["board"] == "Raspberry Pi 4 Model B Rev 1.4, 4 cores, revision c03114"
    assert shown["round_trip"] == f"server-1 at {HIDDEN} p50 6.10 ms, p99 9.00 ms (200 echoes over TCP)"
    assert [name for name in ("reachable", "lease", "machine_id", "storage") if shown[name] is not None] == []


@pytest.mark.parametrize(
    "text",
    [
        *("Linux 6.12.25+rpt-rpi-v8", "2026-11-21T11:22:33+00:00", "+0.4 ms +- 1.2 ms", "throttled=0x50005"),
        *("Python 3.11.2, deployed", "estimated:cpu-model/raspberry-pi-4b", "digits/model.onnx", "now: a, b; p50/p99"),
        *("41.2 °C; it slows down at 80 °C", "raspberry-pi-4b", "1800 MHz under load (measured by the firmware)"),
    ],
)
def test_what_is_measured_stays_as_it_is(text: str) -> None:
    assert Redactor({"edge": "server-1"}, {"pi", "alice"}).text(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *(
            "192.168.7.20:22",
            "2001:db8::1",
            "[fe80::1]",
            "b8:27:eb:12:34:56",
            "bob@desk",
            "~/.ssh/config",
            "/etc/passwd",
        ),
        *("tcp://[::1]:5570", "kitchen.local", "AAAAC3NzaC1lZDI1NTE5AAAAIKexampleexample", "d41d8cd98f00b204e9800998"),
    ],
)
def test_what_has_the_shape_of_something_private_is_hidden(text: str) -> None:
    clean = Redactor({}, set()).text(f"seen {text} there")
    assert HIDDEN in clean
    assert text.strip("[]") not in clean


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.yaml", "-o", "result.json"], "nowhere.yaml"),
        (["cluster.yaml", "-o", "no/folder/result.json"], "its folder is not there"),
        (["cluster.yaml", "-o", "result.json", "--epochs", "1"], "at least 4"),
    ],
)
def test_bad_input_is_told_before_anything_is_touched(
    hosts_file: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    full = [str(hosts_file.parent / each) if each.endswith((".yaml", ".json")) else each for each in arguments]
    assert main(full) == 2
    assert words in capsys.readouterr().err
    assert not hosts_file.with_name("result.json").exists()
