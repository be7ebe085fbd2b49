"""What a host says of itself: the script run for real, and its answer read."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgebed.errors import RemoteError
from orchestrator.inventory import Host
from orchestrator.provision.facts import HostFacts, Interpreter, parse_facts, read_facts
from orchestrator.remote.base import Completed
from orchestrator.remote.local import LocalRemote

HOST = Host(name="pi-1", role="device", connection="ssh", address="x", board="raspberry-pi-4b", python=sys.executable)


class HomeRemote(LocalRemote):
    """This machine with another home folder."""

    def __init__(self, home: Path) -> None:
        super().__init__("pi-1")
        self._home = home

    def execute(self, command: str, **options: object) -> Completed:
        return super().execute(f"HOME={self._home}; unset XDG_STATE_HOME\n{command}", **options)  # type: ignore[arg-type]


def facts_of(home: Path) -> HostFacts:
    remote = HomeRemote(home)
    remote.connect()
    return read_facts(remote, HOST)


def test_a_host_without_edgebed(tmp_path: Path) -> None:
    facts = facts_of(tmp_path)
    assert (facts.home, facts.root, facts.state_root) == (str(tmp_path), "none", f"{tmp_path}/.local/state/edgebed")
    assert (facts.kernel, facts.bits) == ("Linux", 64)
    assert facts.glibc is not None
    assert facts.pythons == (Interpreter(sys.executable, sys.version_info[:2]),)
    assert facts.sudo is not None
    assert list(tmp_path.iterdir()) == [], "asking changes nothing"


def test_what_is_there_of_edgebed(tmp_path: Path) -> None:
    root = tmp_path / ".edgebed"
    (root / "versions" / "whole").mkdir(parents=True)
    (root / "versions" / "whole" / "complete").touch()
    (root / "versions" / "half").mkdir()
    (root / "active").mkdir()
    (root / "active" / "device_agent").write_text("/run of/it\n")
    (root / "current").symlink_to("versions/whole")
    (root / "launch.sh").write_text("abc")
    (root / "ledger.jsonl").write_text('{"key":"root","what":"make it","undo":"rm\\nx"}\n{"key":"ha')
    (root / "lease.json").write_text("{}")
    (tmp_path / ".local").mkdir()
    facts = facts_of(tmp_path)
    assert (facts.root, facts.current, facts.current_python) == ("ours", "versions/whole", "")
    assert (facts.versions, facts.partial) == ({"whole"}, {"half"})
    assert facts.active == (("device_agent", "/run of/it"),)
    assert facts.sum_of(f"{root}/launch.sh") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert [(entry.key, entry.undo) for entry in facts.ledger] == [("root", "rm\nx")]
    assert facts.has_changed("root")
    assert facts.lease is not None
    assert facts.lease.holder is None
    assert 0 <= facts.lease.age_s < 60
    assert facts.folders == {str(tmp_path / ".local")}


@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_what_edgebed_has_not_made_is_foreign(tmp_path: Path, kind: str) -> None:
    root = tmp_path / ".edgebed"
    if kind == "file":
        root.write_text("mine")
    elif kind == "link":
        root.symlink_to(tmp_path)
    else:
        root.mkdir()
        (root / "mine").touch()
    assert facts_of(tmp_path).root == "foreign"


def test_an_empty_folder_is_a_deploy_that_was_cut_short(tmp_path: Path) -> None:
    (tmp_path / ".edgebed").mkdir()
    assert facts_of(tmp_path).root == "empty"


def test_an_interpreter_that_does_not_start_is_none(tmp_path: Path) -> None:
    remote = HomeRemote(tmp_path)
    remote.connect()
    host = Host(name="pi-1", role="device", connection="ssh", address="x", board="b", python="/no/python")
    assert read_facts(remote, host).pythons == ()


def test_an_answer_that_is_none_is_an_error_that_shows_it(tmp_path: Path) -> None:
    class Chatty(HomeRemote):
        def execute(self, command: str, **options: object) -> Completed:
            return Completed("pi-1", command, 0, b"Welcome to fish\n")

    remote = Chatty(tmp_path)
    with pytest.raises(RemoteError, match="Welcome to fish") as caught:
        read_facts(remote, HOST)
    assert "login shell" in str(caught.value)


def test_the_deployed_python_is_asked_for_its_version() -> None:
    text = "user pi\nuid 1000\nhome /home/pi\nroot ours\ncurrent versions/d\ncurrent_python Python 3.11.2\n"
    text += "ssh_connection 10.0.0.9 55555 10.0.0.1 22\nlinger yes\nsystemd user\n"
    facts = parse_facts(text)
    assert (facts.current_python, facts.address, facts.linger) == ("3.11.2", "10.0.0.1", True)
    assert facts.sudo is None, "not asked"
