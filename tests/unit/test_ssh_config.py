"""What of ``~/.ssh/config`` is honoured, what is told, what is refused."""

from __future__ import annotations

import getpass
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from edgebed.errors import BadInput
from orchestrator.inventory import Host
from orchestrator.remote.ssh_config import SshConfig, SshTarget


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()


def target(text: str, address: str = "pi", **given: object) -> SshTarget:
    return SshConfig(text).target("pi-1", address, **given)  # type: ignore[arg-type]


HOST = Host(name="pi-1", role="device", connection="ssh", address="pi", board="raspberry-pi-4b")


def test_without_a_configuration_the_defaults_of_ssh_hold(tmp_path: Path) -> None:
    found = SshConfig.load().target_of(HOST)
    assert (found.address, found.port, found.user) == ("pi", 22, getpass.getuser())
    assert found.key_name == "pi"
    assert [file.path for file in found.key_files] == [
        tmp_path / ".ssh" / name for name in ("id_ed25519", "id_ecdsa", "id_rsa")
    ]
    assert found.may_use_agent
    assert not found.identities_only
    assert found.notes == ()


CONFIG = """
Host pi other
    HostName 10.0.0.7
    Port 2222
    User alice
    IdentityFile ~/.ssh/board
    IdentitiesOnly yes
    ConnectTimeout 3
    AddressFamily inet
Host *
    User everybody
    IdentityFile /keys/all
"""


def test_what_the_configuration_says_of_a_host(tmp_path: Path) -> None:
    found = target(CONFIG)
    assert (found.address, found.port, found.user) == ("10.0.0.7", 2222, "alice")
    assert found.key_name == "[10.0.0.7]:2222"
    assert [file.path for file in found.key_files] == [tmp_path / ".ssh/board", Path("/keys/all")]
    assert found.identities_only
    assert found.connect_timeout_s == 3.0
    assert found.family == socket.AF_INET
    assert found.command == "ssh -p 2222 alice@10.0.0.7"


def test_the_hosts_file_wins_over_the_configuration() -> None:
    host = replace(HOST, user="bob", ssh_port=2022, ssh_key_file="/keys/bob")
    found = SshConfig(CONFIG).target_of(host)
    assert (found.address, found.port, found.user) == ("10.0.0.7", 2022, "bob")
    assert str(found.key_files[0].path) == "/keys/bob"
    assert found.key_files[0].origin == "ansible_ssh_private_key_file"
    assert not any(file.is_default for file in found.key_files)


def test_other_hosts_are_not_meant() -> None:
    assert target(CONFIG, "elsewhere").user == "everybody"


def test_the_user_that_is_given_decides_what_matches() -> None:
    text = "Match user bob\n  Port 2022\nMatch all\n  Port 2023\n"
    assert target(text, user="bob").port == 2022
    assert target(text, user="alice").port == 2023


def test_an_alias_for_host_keys() -> None:
    assert target("Host pi\n HostName 10.0.0.7\n HostKeyAlias The-Pi\n").key_name == "the-pi"


def test_the_agent_may_be_refused() -> None:
    assert not target("IdentityAgent none\n").may_use_agent


JUMPS = """
Host a
  HostName 10.0.0.1
  User anna
Host b
  HostName 10.0.0.2
  Port 2022
  ProxyJump nobody
Host nested
  ProxyJump a
Host pi
  HostName 10.0.0.7
"""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", ["anna@10.0.0.1:22"]),
        ("carl@a:99", ["carl@10.0.0.1:99"]),
        ("a,b", ["anna@10.0.0.1:22", "me@10.0.0.2:2022"]),
        ("nested,b", ["anna@10.0.0.1:22", "me@nested:22", "me@10.0.0.2:2022"]),
        ("ssh://carl@[::1]:99", ["carl@::1:99"]),
        ("none", []),
    ],
)
def test_jump_hosts_are_looked_up_too(value: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "me")
    found = target(f"{JUMPS}  ProxyJump {value}\n")
    assert [f"{jump.user}@{jump.address}:{jump.port}" for jump in found.jumps] == expected
    if expected:
        assert found.command.startswith(f"ssh -J {','.join(expected)} -p 22 ")


def test_a_proxy_command_knows_host_and_port() -> None:
    text = "Host pi\n HostName 10.0.0.7\n ProxyCommand relay --to %h:%p\n"
    assert target(text, port=2022).proxy_command == "relay --to 10.0.0.7:2022"
    assert target("Host pi\n ProxyCommand none\n").proxy_command is None
    assert target("Host pi\n ProxyJump a\n ProxyCommand relay\n").proxy_command is None


def test_included_files_are_read(tmp_path: Path) -> None:
    (tmp_path / ".ssh/parts").mkdir()
    (tmp_path / ".ssh/parts/one").write_text("Host pi\n  User anna\n")
    (tmp_path / ".ssh/parts/two").write_text("Host pi\n  Port 2022\n")
    (tmp_path / ".ssh/config").write_text("Include parts/*\nConnectTimeout 4\nInclude missing\nHost pi\n  User bob\n")
    found = SshConfig.load().target_of(HOST)
    assert (found.user, found.port, found.connect_timeout_s) == ("anna", 2022, 4.0)
    assert SshConfig.load().target("x", "elsewhere").connect_timeout_s == 4.0
    assert found.notes == ()


def test_what_is_not_honoured_is_told(tmp_path: Path) -> None:
    config = tmp_path / ".ssh/config"
    config.write_text(
        "Host pi\n  BindAddress 10.0.0.9\n  StrictHostKeyChecking no\n  Compression yes\n  Include more\n"
        "  IdentityAgent /run/other\n"
    )
    notes = SshConfig.load().target_of(HOST).notes
    assert notes == (
        f"{config}:5: Include after a Host or Match is not followed; move it to the top",
        f"{config}: bindaddress, stricthostkeychecking: not used for pi-1",
        f"{config}: identityagent: only SSH_AUTH_SOCK and none are supported; pi-1 uses SSH_AUTH_SOCK",
    )


def test_commands_of_the_configuration_are_not_run(tmp_path: Path) -> None:
    config = tmp_path / ".ssh/config"
    config.write_text(f'Match host pi exec "touch {tmp_path}/run"\n  Port 2022\nHost pi\n  User bob\n')
    found = SshConfig.load().target_of(HOST)
    assert (found.port, found.user) == (22, "bob")
    assert "Match exec is not evaluated" in found.notes[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Host pi\n  Port many\n", "Port many of pi; expected 1 to 65535"),
        ("Host pi\n  ProxyJump a:b:c\n", "expected [user@]host[:port]"),
        ("Host pi\n  ProxyJump pi\n", "a circle?"),
        ("Host pi\n  Port\n", "is not understood"),
        ("Host *\n  CanonicalizeHostname yes\n", "is not understood"),
    ],
)
def test_what_is_wrong_is_refused(text: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        target(text)
    assert message in str(caught.value)
    assert str(caught.value).startswith("~/.ssh/config: ")


def test_a_configuration_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        SshConfig.load(tmp_path)
