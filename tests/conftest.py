"""Settings of all tests."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

    from tests.integration.sshd import SshServers

# Machines are shared and slow at times: how long an example takes says nothing. And a test that fails must fail again.
settings.register_profile("edgebed", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("edgebed")


PROGRAMS = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))

ALL_TESTS = "EDGEBED_ALL_TESTS"
"""Set where every test must run: what one needs and is not there is a failure then."""

_left_out = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    """Hear Ctrl-C, and let the programs that tests start hear it; let tables be as wide as they are.

    A shell that starts something in the background has it ignore SIGINT, and so would every program below it.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.pop("COLUMNS", None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests over real SSH; without OpenSSH's server they are left out, counted, and told of at the end."""
    over_ssh = [item for item in items if _needs_sshd(item)]
    for item in over_ssh:
        item.add_marker(pytest.mark.ssh)
    if over_ssh and not os.environ.get(ALL_TESTS) and shutil.which("sshd", path=PROGRAMS) is None:
        items[:] = [item for item in items if item not in over_ssh]
        config.hook.pytest_deselected(items=over_ssh)
        config.stash[_left_out] = len(over_ssh)


def _needs_sshd(item: pytest.Item) -> bool:
    return "ssh_servers" in getattr(item, "fixturenames", ()) or "_ssh" in item.path.stem


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    """Say what was left out, and how to have it run."""
    if left_out := config.stash.get(_left_out, 0):
        text = f"left out: {left_out} tests over a real SSH server; with it they run: apt-get install openssh-server"
        terminalreporter.write_line(text, yellow=True)


@pytest.fixture
def ssh_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshServers]:
    """Makes real SSH servers; nothing of the user's own SSH settings is seen meanwhile."""
    from tests.integration.sshd import SshServers

    home = tmp_path / "own-home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    servers = SshServers(tmp_path)
    try:
        yield servers
    finally:
        servers.stop()
