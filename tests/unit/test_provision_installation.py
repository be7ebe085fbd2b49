"""What deploying has left on a host, read back; and the same work on many hosts."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from edgebed.errors import BadInput, RemoteError, WorkFailed
from orchestrator.inventory import Host
from orchestrator.provision.each_host import HostReport, on_each_host
from orchestrator.provision.installation import Installation, Record, read_installation
from orchestrator.provision.supervision import Supervision
from orchestrator.provision.systemd import SystemdSupervision, supervision_for
from orchestrator.provision.wheel import own_wheel
from orchestrator.remote.base import Completed, Remote
from orchestrator.remote.local import LocalRemote
from orchestrator.remote.testing import FakeRemote

HOST = Host(name="pi-1", role="device", connection="ssh", address="x", board="raspberry-pi-4b")


class HomeRemote(LocalRemote):
    """This machine with another home folder."""

    def __init__(self, home: Path) -> None:
        super().__init__("pi-1")
        self._home = home
        self.connect()

    def execute(self, command: str, **options: object) -> Completed:
        return super().execute(f"HOME={self._home}\n{command}", **options)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def record() -> Record:
    return Record(
        digest="d1",
        wheel=own_wheel().sha256,
        edgebed="0.1.0",
        interpreter="/usr/bin/python3",
        python="3.11",
        machine="x86_64",
        keeper="systemd_user",
    )


@pytest.fixture
def root(tmp_path: Path, record: Record) -> Path:
    root = tmp_path / ".edgebed"
    (root / "versions/d1/bin").mkdir(parents=True)
    (root / "versions/d1/bin/python").symlink_to(sys.executable)
    (root / "current").symlink_to("versions/d1")
    (root / "installation.json").write_bytes(msgspec.json.encode(record))
    return root


def test_it_says_where_python_is_and_who_keeps_programs(tmp_path: Path, root: Path) -> None:
    found = read_installation(HomeRemote(tmp_path), HOST)
    assert found == Installation(f"{root}/versions/d1/bin/python", "d1", str(root), "systemd_user")


def test_this_machine_needs_none() -> None:
    host = Host(name="pi-1", role="device", connection="local", address="x", board="b")
    assert read_installation(FakeRemote(), host) == Installation(sys.executable, "", "", "shell")


def test_a_host_without_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="pi-1: is not deployed; run `edgebed deploy HOSTS`"):
        read_installation(HomeRemote(tmp_path), HOST)


def test_half_of_one(tmp_path: Path, root: Path) -> None:
    (root / "installation.json").unlink()
    with pytest.raises(BadInput, match="is not deployed"):
        read_installation(HomeRemote(tmp_path), HOST)


def test_a_python_that_the_system_no_longer_has(tmp_path: Path, root: Path) -> None:
    (root / "versions/d1/bin/python").unlink()
    (root / "versions/d1/bin/python").symlink_to("/gone/python3.11")
    with pytest.raises(BadInput, match="does not start"):
        read_installation(HomeRemote(tmp_path), HOST)


@pytest.mark.parametrize("what", ["wheel", "current"])
def test_another_version(tmp_path: Path, root: Path, record: Record, what: str) -> None:
    if what == "wheel":
        other = msgspec.structs.replace(record, wheel="of another")
        (root / "installation.json").write_bytes(msgspec.json.encode(other))
    else:
        (root / "versions/d1").rename(root / "versions/d2")
        (root / "current").unlink()
        (root / "current").symlink_to("versions/d2")
    with pytest.raises(BadInput, match="deployed with another edgebed"):
        read_installation(HomeRemote(tmp_path), HOST)


def test_a_record_that_is_none(tmp_path: Path, root: Path) -> None:
    (root / "installation.json").write_text("{")
    with pytest.raises(BadInput, match="cannot be read"):
        read_installation(HomeRemote(tmp_path), HOST)


def test_who_keeps_the_programs_of_a_run() -> None:
    by_script = supervision_for(FakeRemote(), "/run", Installation("/p", "d", "/root", "shell"))
    by_systemd = supervision_for(FakeRemote(), "/run", Installation("/p", "d", "/root", "systemd_user"))
    assert type(by_script) is Supervision
    assert type(by_systemd) is SystemdSupervision


def test_a_service_that_is_not_there_is_noticed() -> None:
    remote = FakeRemote()
    remote.connect()
    keeper = supervision_for(remote, "/run", Installation("/p", "d", "/root", "systemd_user"))
    with pytest.raises(BadInput, match=r"service[.]sh is missing; run `edgebed deploy HOSTS`"):
        keeper.install()


# -- many hosts --------------------------------------------------------------------------------------------------------


def host(name: str, connection: str = "ssh") -> Host:
    return Host(name=name, role="device", connection=connection, address=name, board="b")  # type: ignore[arg-type]


def test_what_fails_on_one_does_not_stop_the_others() -> None:
    remotes = {name: FakeRemote(name) for name in ("a", "b", "c")}
    remotes["b"].faults["connect"] = 1

    def work(each: Host, remote: Remote) -> HostReport:
        if each.name == "c":
            raise WorkFailed("c: no room")
        return HostReport("changed", ["did it"])

    hosts = [host("a"), host("here", "local"), host("b"), host("c")]
    reports = on_each_host(hosts, lambda each: remotes[each.name], work)
    assert list(reports) == ["a", "here", "b", "c"]
    assert {name: report.state for name, report in reports.items()} == {
        "a": "changed",
        "here": "local",
        "b": "failed",
        "c": "failed",
    }
    assert reports["c"].error == "c: no room"
    assert "b" in str(reports["b"].error)
    assert not any(remote.is_connected for remote in remotes.values())
    assert reports["a"].to_plain()["changed"] is True


def test_a_host_that_cannot_even_be_addressed_is_one_that_failed() -> None:
    def connect(each: Host) -> Remote:
        raise RemoteError(each.name, "connect", "no such name")

    assert on_each_host([host("a")], connect, lambda each, remote: HostReport())["a"].state == "failed"


def test_a_mistake_of_ours_is_no_failure_of_the_host() -> None:
    def work(each: Host, remote: Remote) -> HostReport:
        raise KeyError("mistake")

    remote = FakeRemote("a")
    with pytest.raises(KeyError):
        on_each_host([host("a")], lambda each: remote, work)
    assert not remote.is_connected
