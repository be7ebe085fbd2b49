"""Settings of all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.integration.sshd import SshServers

# Machines are shared and slow at times: how long an example takes says nothing. And a test that fails must fail again.
settings.register_profile("edgebed", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("edgebed")


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
