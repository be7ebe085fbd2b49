"""Every Remote, and the fake, keeps the `Remote` contract. A new Remote adds its case to ``CASES``."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from edgebed.clock import ManualClock
from edgebed.errors import RemoteError
from orchestrator.remote.base import Completed, Remote
from orchestrator.remote.connect import remote_for
from orchestrator.remote.local import LocalRemote
from orchestrator.remote.retrying import RetryingRemote
from orchestrator.remote.ssh import SshRemote
from orchestrator.remote.testing import Answer, FakeRemote, check_remote, checked_programs
from tests.integration.sshd import SshServer, SshServers
from tests.processes import await_end


def make_fake(folder: str) -> FakeRemote:
    return FakeRemote(programs=checked_programs(folder), folders={folder})


CASES: dict[str, Callable[[str], Remote]] = {
    "fake": make_fake,
    "local": lambda folder: LocalRemote("here"),
    "retrying, around a fake": lambda folder: RetryingRemote(make_fake(folder), clock=ManualClock()),
    "retrying, around local": lambda folder: RetryingRemote(LocalRemote("here"), clock=ManualClock()),
}


@pytest.mark.parametrize("name", CASES)
def test_remote_keeps_the_contract(name: str, tmp_path: Path) -> None:
    check_remote(lambda: CASES[name](str(tmp_path)), str(tmp_path))


SSH_CASES: dict[str, Callable[[SshServer], Remote]] = {
    "ssh": lambda server: SshRemote(server.target(), server.known_hosts()),
    "retrying, around ssh": lambda server: remote_for(server.host(), server.known_hosts()),
}


@pytest.mark.parametrize("name", SSH_CASES)
def test_remote_over_ssh_keeps_the_contract(name: str, ssh_servers: SshServers, tmp_path: Path) -> None:
    server = ssh_servers()
    folder = tmp_path / "a host"
    folder.mkdir()
    check_remote(lambda: SSH_CASES[name](server), str(folder))


class Forgetful(FakeRemote):
    """Breaks the contract: standard error gets lost."""

    def execute(self, command: str, **options: object) -> Completed:
        done = FakeRemote.execute(self, command, **options)  # type: ignore[arg-type]
        return Completed(done.host, done.command, done.status, done.stdout)


def test_checker_finds_a_broken_remote() -> None:
    with pytest.raises(AssertionError, match="status and both streams"):
        check_remote(lambda: Forgetful(programs=checked_programs("/f"), folders={"/f"}), "/f")


def flaky(**faults: int) -> tuple[FakeRemote, RetryingRemote, ManualClock]:
    fake = FakeRemote(programs={"count": lambda stdin: Answer(0, b"1")}, files={"/f/a": b"0123456789"}, folders={"/f"})
    clock = ManualClock()
    remote = RetryingRemote(fake, tries=3, clock=clock, first_wait_s=0.5)
    remote.connect()
    fake.faults = Counter(faults)
    return fake, remote, clock


def test_retrying_repeats_a_connect_and_waits_longer_each_time() -> None:
    fake, remote, clock = flaky(connect=2)
    remote.close()
    remote.connect()
    assert fake.is_connected
    assert clock.now_s() == 0.5 + 1.0


def test_retrying_repeats_an_idempotent_command_over_a_new_connection() -> None:
    fake, remote, _ = flaky(execute=2)
    assert remote.execute("count", idempotent=True).text == "1"
    assert fake.executed == ["count"] * 3


def test_retrying_never_repeats_any_other_command() -> None:
    fake, remote, clock = flaky(execute=1)
    with pytest.raises(RemoteError, match="connection was lost"):
        remote.execute("count")
    assert fake.executed == ["count"]
    assert clock.now_s() == 0.0


def test_retrying_cuts_off_what_an_unfinished_download_left() -> None:
    _, remote, _ = flaky(download=2)
    into = io.BytesIO()
    into.write(b"head:")
    assert remote.download("/f/a", into) == 10
    assert into.getvalue() == b"head:0123456789"


def test_retrying_takes_the_hosts_own_answer() -> None:
    _, remote, clock = flaky()
    with pytest.raises(RemoteError, match="No such file"):
        remote.download("/f/b", io.BytesIO())
    assert clock.now_s() == 0.0


def test_retrying_gives_up_with_the_last_error() -> None:
    fake, remote, _ = flaky(execute=9)
    with pytest.raises(RemoteError, match="connection was lost"):
        remote.execute("count", idempotent=True)
    assert fake.executed == ["count"] * 3


def test_retrying_does_not_repeat_a_command_that_ended_badly() -> None:
    fake, remote, _ = flaky()
    assert remote.execute("other", idempotent=True).status == 127
    assert fake.executed == ["other"]


def test_a_killed_command_takes_its_children_along(tmp_path: Path) -> None:
    remote = LocalRemote("here")
    remote.connect()
    with pytest.raises(RemoteError, match="begun"):
        remote.execute(f"sleep 600 & echo $! > '{tmp_path}/pid'; echo begun; wait", timeout_s=2.0)
    # A child that was killed may need another turn on the processor to end, and then be a zombie until it is reaped.
    await_end(int((tmp_path / "pid").read_text()))
