"""Reaching a host over SSH: every way in which it does not work has its own sentence with the next step."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from edgebed.errors import RemoteError
from orchestrator.remote import ssh_link
from orchestrator.remote.connect import remote_for
from orchestrator.remote.host_keys import KnownHosts, clone_warning
from orchestrator.remote.ssh import SshRemote
from orchestrator.remote.ssh_config import KeyFile, SshConfig, SshTarget
from orchestrator.remote.unreachable import Reason, Unreachable
from tests.integration.sshd import ADDRESS, SshServers, free_port, make_key, program


def nobody(tmp_path: Path) -> KnownHosts:
    return KnownHosts(tmp_path / "known_hosts", hosts_file="pis.yaml")


def refusal(target: SshTarget, known_hosts: KnownHosts, reason: Reason, *parts: str) -> Unreachable:
    """Try to connect; the error has the reason, and its text has the parts."""
    remote = SshRemote(target, known_hosts)
    with pytest.raises(Unreachable) as caught:
        remote.connect()
    remote.close()
    error = caught.value
    assert error.reason == reason, error
    assert error.host == target.name
    assert error.exit_status_remote is None
    assert str(error).startswith(f"{target.name}: ")
    for part in (*parts, f": `{error.command}`"):
        assert part in str(error), f"{part!r} is not in: {error}"
    return error


# --- the way there ----------------------------------------------------------------------------------------------------


def elsewhere(**changes: object) -> SshTarget:
    values: dict[str, object] = {"name": "pi-1", "address": ADDRESS, "port": free_port(), "user": "pi", "key_name": "x"}
    return SshTarget(**(values | changes))  # type: ignore[arg-type]


def test_a_closed_port_refuses(tmp_path: Path) -> None:
    target = elsewhere()
    refusal(target, nobody(tmp_path), "refused", f"{ADDRESS} port {target.port} refuses", "systemctl enable --now ssh")


@pytest.mark.parametrize(
    ("address", "family"), [(ADDRESS, socket.AF_INET6), ("a" * 70, socket.AF_UNSPEC)], ids=["no such", "no name at all"]
)
def test_a_name_without_an_address(tmp_path: Path, address: str, family: socket.AddressFamily) -> None:
    target = elsewhere(address=address, family=family)
    refusal(target, nobody(tmp_path), "name_unknown", f"the name {address} has no address", "ansible_host")


def test_a_host_that_does_not_answer(tmp_path: Path) -> None:
    with socket.create_server((ADDRESS, 0), backlog=0) as server:
        address = server.getsockname()
        with socket.create_connection(address):  # fills the queue of those who wait: the next is not answered
            target = elsewhere(port=address[1], connect_timeout_s=0.2)
            refusal(target, nobody(tmp_path), "no_answer", f"no answer from {ADDRESS} port {address[1]} within 0.2 s")


@contextmanager
def answering(answer: Callable[[socket.socket], object]) -> Iterator[int]:
    """A server that is no SSH server."""
    with socket.create_server((ADDRESS, 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            thread.join(10.0)


def test_what_answers_is_no_ssh_server(tmp_path: Path) -> None:
    with answering(lambda stream: stream.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 101)) as port:
        refusal(elsewhere(port=port), nobody(tmp_path), "no_ssh", "is no SSH server", "ansible_port")


def test_a_server_that_hangs_up_at_once(tmp_path: Path) -> None:
    with answering(lambda stream: None) as port:
        error = refusal(elsewhere(port=port), nobody(tmp_path), "hung_up", "MaxStartups", "fail2ban")
    assert error.may_pass


def test_a_server_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_link, "BANNER_TIMEOUT_S", 0.2)
    with answering(lambda stream: stream.recv(1000) and stream.recv(1000)) as port:
        refusal(elsewhere(port=port), nobody(tmp_path), "no_answer", "says nothing")


def test_a_frozen_server_is_given_up(ssh_servers: SshServers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_link, "BANNER_TIMEOUT_S", 0.2)
    server = ssh_servers()
    server.pause()
    try:
        refusal(server.target(), server.known_hosts(), "no_answer", "says nothing")
    finally:
        server.resume()


# --- user and keys ----------------------------------------------------------------------------------------------------


def fingerprint(key: Path) -> str:
    command = [program("ssh-keygen"), "-l", "-f", str(key)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[1]


def test_a_wrong_key_is_named_with_its_origin(ssh_servers: SshServers, tmp_path: Path) -> None:
    server = ssh_servers()
    named, configured = make_key(tmp_path / "named"), make_key(tmp_path / "configured")
    config = tmp_path / "config"
    config.write_text(f"Host *\n  IdentityFile {configured}\n")
    host = replace(server.host(), ssh_key_file=str(named))
    error = refusal(
        SshConfig.load(config).target_of(host),
        server.known_hosts(),
        "rejected",
        "wrong user or key",
        f"{named} (ansible_ssh_private_key_file) {fingerprint(named)}",
        f"{configured} ({config}) {fingerprint(configured)}",
        f"ssh-copy-id -p {server.port} {server.user}@{ADDRESS}",
    )
    assert not error.may_pass


def test_a_wrong_user_is_named(ssh_servers: SshServers) -> None:
    server = ssh_servers()
    target = server.target(user="edgebed-nobody")
    refusal(target, server.known_hosts(), "rejected", "edgebed-nobody is let in by none", str(server.client_key))


def test_a_wrong_key_is_not_tried_again(ssh_servers: SshServers, tmp_path: Path) -> None:
    server = ssh_servers()
    host = replace(server.host(), ssh_key_file=str(make_key(tmp_path / "wrong")))
    with pytest.raises(Unreachable):
        remote_for(host, server.known_hosts()).connect()
    assert server.log.count("Connection from") == 1


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda key: key.unlink(), "there is no such file"),
        (lambda key: key.write_text("nonsense"), "is not a private key that can be read"),
        (lambda key: make_key(key, "-N", "a passphrase"), "needs a passphrase; `ssh-add"),
    ],
    ids=["missing", "broken", "with a passphrase"],
)
def test_keys_that_cannot_be_used(
    ssh_servers: SshServers, tmp_path: Path, spoil: Callable[[Path], object], complaint: str
) -> None:
    server = ssh_servers()
    key = make_key(tmp_path / "key")
    key.with_name("key.pub").unlink()
    spoil(key)
    target = server.target(key_files=(KeyFile(key, "ansible_ssh_private_key_file"),))
    refusal(target, server.known_hosts(), "rejected", "there is no key to try", f"{key} (ansible", complaint)


def test_too_many_keys(ssh_servers: SshServers, tmp_path: Path) -> None:
    server = ssh_servers(MaxAuthTries=2)
    keys = [make_key(tmp_path / f"key-{number}") for number in range(4)]
    target = server.target(key_files=tuple(KeyFile(key, "default") for key in keys))
    refusal(target, server.known_hosts(), "rejected", "MaxAuthTries", "IdentitiesOnly", str(keys[0]))


def test_a_host_that_wants_more_than_a_key(ssh_servers: SshServers, tmp_path: Path) -> None:
    server = ssh_servers(AuthenticationMethods="publickey,publickey")
    refusal(server.target(), server.known_hosts(), "rejected", "wants more than a key: publickey")


def test_a_host_that_takes_no_keys(ssh_servers: SshServers) -> None:
    server = ssh_servers(PubkeyAuthentication="no", PasswordAuthentication="yes")
    refusal(server.target(), server.known_hosts(), "rejected", "takes no keys, only", "PubkeyAuthentication yes")


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """A real ssh-agent; call it with a key that it is to hold."""
    path = tmp_path / "agent"
    with subprocess.Popen([program("ssh-agent"), "-D", "-a", str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it listens

        def add(key: Path) -> None:
            monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
            subprocess.run([program("ssh-add"), "-q", str(key)], check=True, stderr=subprocess.DEVNULL)

        yield add
        process.terminate()


def test_keys_of_the_agent_are_tried(ssh_servers: SshServers, agent: Callable[[Path], None], tmp_path: Path) -> None:
    server = ssh_servers()
    agent(make_key(tmp_path / "other"))
    agent(server.client_key)
    remote = SshRemote(server.target(key_files=(), may_use_agent=True), server.known_hosts())
    remote.connect()
    assert remote.execute("echo in").text == "in"
    remote.close()


def test_identities_only_leaves_the_other_keys_of_the_agent_alone(
    ssh_servers: SshServers, agent: Callable[[Path], None], tmp_path: Path
) -> None:
    server = ssh_servers(MaxAuthTries=2)
    for number in range(3):
        agent(make_key(tmp_path / f"other-{number}"))
    agent(server.client_key)
    public = tmp_path / "key-of-the-agent"
    shutil.copy(f"{server.client_key}.pub", public)  # a public half names the agent's key, as with OpenSSH
    files = (KeyFile(public, "config"),)
    remote = SshRemote(server.target(key_files=files, may_use_agent=True, identities_only=True), server.known_hosts())
    remote.connect()
    remote.close()
    target = server.target(key_files=(), may_use_agent=True, identities_only=True)
    refusal(target, server.known_hosts(), "rejected", "there is no key to try")


def test_an_agent_that_is_gone_is_named(
    ssh_servers: SshServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ssh_servers()
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "gone"))
    target = server.target(key_files=(), may_use_agent=True)
    refusal(target, server.known_hosts(), "rejected", f"the agent at SSH_AUTH_SOCK={tmp_path / 'gone'}")


# --- host keys --------------------------------------------------------------------------------------------------------


def test_an_unknown_host_key_is_shown_and_refused(ssh_servers: SshServers, tmp_path: Path) -> None:
    server = ssh_servers()
    known = nobody(tmp_path)
    refusal(
        server.target(),
        known,
        "host_key_unknown",
        fingerprint(server.host_key),
        "edgebed check pis.yaml --accept-new",
    )
    assert not known.path.exists()
    assert "Accepted publickey" not in server.log  # nothing is shown to a host that has not shown who it is


def test_a_new_host_key_is_accepted_once(ssh_servers: SshServers, tmp_path: Path) -> None:
    server = ssh_servers()
    known = KnownHosts(tmp_path / "known_hosts", accept_new=True)
    remote = SshRemote(server.target(), known)
    remote.connect()
    remote.close()
    assert known.accepted == {"pi-1": server.key}
    again = SshRemote(server.target(), nobody(tmp_path))
    again.connect()
    again.close()
    server.restart(with_new_host_key=True)
    refusal(server.target(), KnownHosts(known.path, accept_new=True), "host_key_changed")


def test_a_changed_host_key_names_the_flash_and_the_command(ssh_servers: SshServers) -> None:
    server = ssh_servers()
    known = server.known_hosts()
    old = server.key
    server.restart(with_new_host_key=True)
    error = refusal(
        server.target(),
        known,
        "host_key_changed",
        old.fingerprint,
        server.key.fingerprint,
        "flashed anew",
        "`edgebed trust pis.yaml --host pi-1`",
    )
    assert not error.may_pass
    assert old != server.key


def test_a_revoked_host_key_is_refused(ssh_servers: SshServers) -> None:
    server = ssh_servers()
    known = server.known_hosts()
    line = known.path.read_text().split()
    known.path.write_text(known.path.read_text() + f"@revoked * {' '.join(line[1:])}\n")
    refusal(server.target(), known, "host_key_revoked", "is revoked")


def test_a_server_with_several_keys_shows_the_one_that_is_pinned(ssh_servers: SshServers, tmp_path: Path) -> None:
    rsa = make_key(tmp_path / "rsa", "-t", "rsa", "-b", "2048")
    server = ssh_servers(host_key=rsa)
    known = server.known_hosts()
    assert server.key.kind == "ssh-rsa"
    both = f"{rsa}\nHostKey {make_key(tmp_path / 'another')}"
    server.stop()
    server.configure(HostKey=both)
    server.start()
    remote = SshRemote(server.target(), known)
    remote.connect()
    remote.close()


def test_the_users_own_known_hosts_is_a_second_source(ssh_servers: SshServers, tmp_path: Path) -> None:
    server = ssh_servers()
    users = Path.home() / ".ssh" / "known_hosts"
    users.parent.mkdir()
    shutil.copy(server.known_hosts().path, users)
    subprocess.run([program("ssh-keygen"), "-q", "-H", "-f", str(users)], check=True, stderr=subprocess.DEVNULL)
    before = users.read_text()
    assert before.startswith("|1|")
    known = KnownHosts.beside(tmp_path / "elsewhere" / "pis.yaml")
    remote = SshRemote(server.target(), known)
    remote.connect()
    remote.close()
    assert users.read_text() == before
    assert not known.path.exists()


def test_hosts_that_show_the_same_key_are_clones(ssh_servers: SshServers, tmp_path: Path) -> None:
    image = make_key(tmp_path / "image")
    servers = {"pi-1": ssh_servers(host_key=image), "pi-2": ssh_servers(host_key=image), "pi-3": ssh_servers()}
    known = KnownHosts(tmp_path / "known_hosts", accept_new=True)
    for name, server in servers.items():
        remote = SshRemote(server.target(name), known)
        remote.connect()
        remote.close()
    assert known.cloned == (("pi-1", "pi-2"),)
    assert "pi-1, pi-2 show the same host key" in clone_warning(known.cloned[0])


# --- other ways -------------------------------------------------------------------------------------------------------


def test_jump_hosts_are_gone_through_one_after_another(ssh_servers: SshServers, tmp_path: Path) -> None:
    far, near, host = ssh_servers(), ssh_servers(), ssh_servers()
    known = KnownHosts(tmp_path / "known_hosts", accept_new=True)
    target = host.target(jumps=(near.target("near"), far.target("far")))
    remote = SshRemote(target, known)
    remote.connect()
    assert remote.execute("echo $SSH_CONNECTION").text.split()[3] == str(host.port)
    remote.close()
    assert "Accepted publickey" in near.log
    assert "Accepted publickey" in far.log
    assert known.accepted == {"pi-1": host.key}
    assert all(known.known(each.name).keys for each in (near, far, host))


def test_a_jump_from_the_users_configuration(ssh_servers: SshServers, tmp_path: Path) -> None:
    near, host = ssh_servers(), ssh_servers()
    config = tmp_path / "config"
    config.write_text(
        f"Host gate\n HostName {ADDRESS}\n Port {near.port}\n User {near.user}\n IdentityFile {near.client_key}\n"
        f"Host board\n HostName {ADDRESS}\n Port {host.port}\n ProxyJump gate\n User {host.user}\n"
        f" IdentityFile {host.client_key}\n"
    )
    target = SshConfig.load(config).target("pi-1", "board")
    remote = SshRemote(target, KnownHosts(tmp_path / "known_hosts", accept_new=True))
    remote.connect()
    assert remote.execute("echo in").text == "in"
    remote.close()
    assert "Accepted publickey" in near.log


def test_what_is_wrong_with_a_jump_host_is_said_of_the_jump_host(ssh_servers: SshServers, tmp_path: Path) -> None:
    near, host = ssh_servers(), ssh_servers()
    target = host.target(jumps=(near.target("gate"),))
    remote = SshRemote(target, host.known_hosts(tmp_path))
    with pytest.raises(Unreachable, match="the jump host gate on the way there: its host key is not known") as caught:
        remote.connect()
    assert caught.value.host == "pi-1"
    assert caught.value.reason == "host_key_unknown"
    known = near.known_hosts(tmp_path)
    near.restart(with_new_host_key=True)
    repin = f"`ssh-keygen -R '{near.name}' -f {known.path}` and `edgebed check pis.yaml --accept-new`"
    refusal(target, known, "host_key_changed", "the jump host gate", repin)


@pytest.mark.parametrize("settings", [{"AllowTcpForwarding": "no"}, {}], ids=["not allowed", "nobody there"])
def test_a_jump_host_that_does_not_get_through(
    ssh_servers: SshServers, tmp_path: Path, settings: dict[str, str]
) -> None:
    near, host = ssh_servers(**settings), ssh_servers()
    if not settings:
        host.stop()
    known = near.known_hosts(tmp_path)
    target = host.target(jumps=(near.target("gate"),))
    refusal(target, known, "proxy_failed", "gate does not get through", "AllowTcpForwarding yes")


RELAY = """
import os, socket, sys, threading
stream = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def up():
    while data := os.read(0, 65536):
        stream.sendall(data)
threading.Thread(target=up, daemon=True).start()
while data := stream.recv(65536):
    while data:
        data = data[os.write(1, data):]
"""


def test_a_proxy_command_is_the_connection(ssh_servers: SshServers, tmp_path: Path) -> None:
    server = ssh_servers()
    relay = tmp_path / "relay.py"
    relay.write_text(RELAY)
    config = tmp_path / "config"
    config.write_text(f"Host board\n HostName {ADDRESS}\n ProxyCommand {sys.executable} {relay} %h %p\n")
    target = SshConfig.load(config).target(
        "pi-1", "board", port=server.port, user=server.user, key_file=str(server.client_key)
    )
    remote = SshRemote(target, server.known_hosts())
    remote.connect()
    assert remote.execute("cat", stdin=b"x" * 300_000).stdout == b"x" * 300_000
    remote.close()


def test_a_proxy_command_that_fails_says_what_it_said(tmp_path: Path) -> None:
    target = elsewhere(proxy_command="sh -c 'echo no proxy today >&2; exit 3'")
    refusal(target, nobody(tmp_path), "proxy_failed", "ProxyCommand", "no proxy today")


# --- many at once -----------------------------------------------------------------------------------------------------


def test_many_hosts_at_once(ssh_servers: SshServers, tmp_path: Path) -> None:
    servers = [ssh_servers() for _ in range(4)]
    known = KnownHosts(tmp_path / "known_hosts", accept_new=True)
    remotes = [SshRemote(server.target(f"pi-{i}-{n}"), known) for n, server in enumerate(servers) for i in range(4)]

    def one(remote: SshRemote) -> str:
        remote.connect()
        try:
            return remote.execute("echo $SSH_CONNECTION").text.split()[3]
        finally:
            remote.close()

    with ThreadPoolExecutor(len(remotes)) as pool:
        ports = list(pool.map(one, remotes))
    assert ports == [str(server.port) for server in servers for _ in range(4)]
    assert {line.split()[0] for line in known.path.read_text().splitlines()} == {server.name for server in servers}


def test_a_crowd_does_not_make_one_jump_host_hang_up(ssh_servers: SshServers, tmp_path: Path) -> None:
    near, host = ssh_servers(MaxStartups="10:100:10"), ssh_servers()
    known = KnownHosts(tmp_path / "known_hosts", accept_new=True)
    remotes = [SshRemote(host.target(f"pi-{n}", jumps=(near.target("gate"),)), known) for n in range(16)]

    def one(remote: SshRemote) -> str:
        remote.connect()
        try:
            return remote.execute("echo in").text
        finally:
            remote.close()

    with ThreadPoolExecutor(len(remotes)) as pool:
        assert list(pool.map(one, remotes)) == ["in"] * len(remotes)
    assert "drop connection" not in near.log


def test_a_starting_host_is_tried_again(ssh_servers: SshServers) -> None:
    server = ssh_servers()
    known = server.known_hosts()
    server.stop()
    remote = remote_for(server.host(), known)
    with pytest.raises(RemoteError, match="refuses the connection"):
        remote.connect()
    starter = threading.Timer(0.2, server.start)
    starter.start()
    try:
        remote.connect()
        assert remote.execute("echo up").text == "up"
    finally:
        starter.join()
        remote.close()


def test_the_socket_does_not_delay_and_notices_a_dead_host(ssh_servers: SshServers) -> None:
    server = ssh_servers()
    remote = SshRemote(server.target(), server.known_hosts())
    remote.connect()
    link = remote._linked("a look at its socket")
    stream = link.transport.sock
    assert isinstance(stream, socket.socket)
    assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    remote.close()
