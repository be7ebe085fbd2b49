"""Commands and files over a real SSH server, and what becomes of them when it fails."""

from __future__ import annotations

import io
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from edgebed.errors import RemoteError
from orchestrator.remote import ssh, ssh_command
from orchestrator.remote.connect import remote_for
from orchestrator.remote.ssh import SshRemote
from tests.integration.sshd import SshServer, SshServers, make_key, wait_until


@pytest.fixture
def server(ssh_servers: SshServers) -> SshServer:
    return ssh_servers()


@pytest.fixture
def remote(server: SshServer) -> Iterator[SshRemote]:
    made = SshRemote(server.target(), server.known_hosts())
    made.connect()
    yield made
    made.close()


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def number_in(path: Path) -> int:
    """A process number that a command writes, as soon as it has."""
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"), f"a number in {path}")
    return int(path.read_text())


# --- time-outs --------------------------------------------------------------------------------------------------------


def test_a_command_that_is_overdue_is_killed_on_the_host_with_its_children(remote: SshRemote, tmp_path: Path) -> None:
    grandchild = ["sleep", f"600.{os.getpid()}"]
    command = f"echo begun; sleep 600 & echo $! >'{tmp_path}/child'; sh -c '{' '.join(grandchild)}; true' & wait"
    with pytest.raises(RemoteError, match=r"did not end within 3 s and was killed") as caught:
        remote.execute(command, timeout_s=3.0)
    assert caught.value.output == "begun\n"
    assert caught.value.exit_status_remote is None
    assert not is_running(number_in(tmp_path / "child"))
    assert not [each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == grandchild]


def test_what_was_started_before_is_not_killed_with_it(remote: SshRemote, tmp_path: Path) -> None:
    remote.execute(f"sleep 600 </dev/null >/dev/null 2>&1 & echo $! >'{tmp_path}/daemon'").checked()
    with pytest.raises(RemoteError, match="was killed"):
        remote.execute("sleep 600", timeout_s=2.0)
    daemon = number_in(tmp_path / "daemon")
    assert is_running(daemon)
    os.kill(daemon, signal.SIGKILL)


def test_a_command_that_ignores_signals_and_closes_its_streams_is_killed(remote: SshRemote, tmp_path: Path) -> None:
    command = f"trap '' TERM HUP INT; echo $$ >'{tmp_path}/pid'; exec >&- 2>&-; while :; do sleep 600; done"
    with pytest.raises(RemoteError, match="was killed"):
        remote.execute(command, timeout_s=3.0)
    assert not is_running(number_in(tmp_path / "pid"))


def test_input_that_nobody_reads_does_not_delay_the_time_limit(remote: SshRemote) -> None:
    with pytest.raises(RemoteError, match="was killed"):
        remote.execute("sleep 600", stdin=b"x" * (8 << 20), timeout_s=2.0)


def test_a_command_may_end_without_reading_its_input(remote: SshRemote) -> None:
    assert remote.execute("exit 4", stdin=b"x" * (8 << 20)).status == 4


def test_a_frozen_host_ends_in_an_error_that_says_what_is_not_known(remote: SshRemote, server: SshServer) -> None:
    remote.execute("true")
    server.pause()
    try:
        with pytest.raises(RemoteError, match=r"no answer within 0.3 s: not run"):
            remote.execute("true", timeout_s=0.3)
    finally:
        server.resume()
    assert remote.execute("echo back").text == "back"


def test_a_host_that_freezes_in_a_command(
    remote: SshRemote, server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "_KILL_TIMEOUT_S", 0.2)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(remote.execute, f"echo $$ >'{tmp_path}/pid'; exec sleep 600", timeout_s=5.0)
        pid = number_in(tmp_path / "pid")
        server.pause()
        try:
            with pytest.raises(RemoteError, match="could not be killed: it may go on"):
                running.result(30)
        finally:
            server.resume()
    assert is_running(pid)
    os.kill(pid, signal.SIGKILL)


# --- lost connections -------------------------------------------------------------------------------------------------


def test_a_host_that_dies_in_a_command(
    remote: SshRemote, server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = threading.Event()

    class Heard(ssh._Output):
        """Tells that output has come."""

        def write(self, data: object, /) -> int:
            written = super().write(data)
            heard.set()
            return written

    monkeypatch.setattr(ssh, "_Output", Heard)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(remote.execute, f"echo some; echo $$ >'{tmp_path}/pid'; exec sleep 600")
        pid = number_in(tmp_path / "pid")
        assert heard.wait(30)
        server.stop()
        with pytest.raises(RemoteError, match=r"the connection was lost .*what became of it is not known") as caught:
            running.result(30)
    assert caught.value.exit_status_remote is None
    assert caught.value.output == "some\n"
    os.kill(pid, signal.SIGKILL)


def test_a_connection_that_was_lost_in_between_is_made_again(remote: SshRemote, server: SshServer) -> None:
    assert remote.execute("echo one").text == "one"
    server.restart()
    assert remote.execute("echo two").text == "two"
    server.stop()
    with pytest.raises(RemoteError, match="refuses the connection"):
        remote.execute("echo three")
    server.start()
    assert remote.execute("echo four").text == "four"


def test_retrying_repeats_an_idempotent_command_whose_host_dies(server: SshServer, tmp_path: Path) -> None:
    remote = remote_for(server.host(), server.known_hosts())
    remote.connect()
    command = f"echo $$ >>'{tmp_path}/tries'; [ $(wc -l <'{tmp_path}/tries') -ge 2 ] || exec sleep 600"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(remote.execute, command, idempotent=True)
        first = number_in(tmp_path / "tries")
        server.restart()
        assert running.result(30).status == 0
    assert len((tmp_path / "tries").read_text().splitlines()) == 2
    os.kill(first, signal.SIGKILL)
    remote.close()


def test_a_command_that_was_cut_off_is_not_repeated(server: SshServer, tmp_path: Path) -> None:
    remote = remote_for(server.host(), server.known_hosts())
    remote.connect()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(remote.execute, f"echo $$ >>'{tmp_path}/tries'; exec sleep 600")
        first = number_in(tmp_path / "tries")
        server.restart()
        with pytest.raises(RemoteError, match="not known"):
            running.result(30)
    assert len((tmp_path / "tries").read_text().splitlines()) == 1
    os.kill(first, signal.SIGKILL)
    remote.close()


# --- streams ----------------------------------------------------------------------------------------------------------


def test_what_login_scripts_print_is_no_output(server: SshServer) -> None:
    (server.home / ".bashrc").write_text("echo Welcome to this board; echo 'it is hot' >&2\n")
    server.stop()
    # bash reads it for commands over SSH, unless another bash is around it.
    server.configure(SetEnv=f"HOME={server.home} SHLVL=0")
    server.start()
    remote = SshRemote(server.target(), server.known_hosts())
    remote.connect()
    done = remote.execute("echo out; echo err >&2; exit 3")
    assert (done.status, done.stdout, done.stderr) == (3, b"out\n", b"err\n")
    into = io.BytesIO()
    remote.upload(b"content", f"{server.folder}/file")
    assert remote.download(f"{server.folder}/file", into) == 7
    assert into.getvalue() == b"content"
    remote.close()


def test_long_output_on_both_streams(remote: SshRemote) -> None:
    command = "head -c 5000000 /dev/zero; head -c 5000000 /dev/zero >&2; head -c 5000000 /dev/zero"
    done = remote.execute(command)
    assert (len(done.stdout), len(done.stderr)) == (10_000_000, 5_000_000)


def test_endless_output_is_cut_off(remote: SshRemote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "OUTPUT_LIMIT_BYTES", 1 << 20)
    with pytest.raises(RemoteError, match="printed more than 1 MiB and was killed"):
        remote.execute(f"echo $$ >'{tmp_path}/pid'; exec yes")
    wait_until(lambda: not is_running(number_in(tmp_path / "pid")), "the end of yes")


def test_a_command_with_every_kind_of_quote(remote: SshRemote) -> None:
    text = "a'b\"c$d`e\\f\n*~!#& é"
    assert remote.execute(f"cat <<'EOF'\n{text}\nEOF").stdout == f"{text}\n".encode()


@pytest.mark.parametrize("command", ["x" * (ssh_command.LONGEST_COMMAND_BYTES + 1), "echo \0"])
def test_a_command_that_no_host_can_take(remote: SshRemote, command: str) -> None:
    with pytest.raises(RemoteError, match="upload a script instead"):
        remote.execute(command)


def test_a_command_nearly_too_long(remote: SshRemote) -> None:
    text = "x" * (ssh_command.LONGEST_COMMAND_BYTES - 10)
    assert remote.execute(f"echo {text}").text == text


def test_an_interrupted_command_is_killed(remote: SshRemote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupting(io.BytesIO):
        """Ctrl-C comes while the output is taken."""

        def write(self, data: object, /) -> int:
            raise KeyboardInterrupt

    monkeypatch.setattr(ssh, "_Output", Interrupting)
    with pytest.raises(KeyboardInterrupt):
        remote.execute(f"echo $$ >'{tmp_path}/pid'; echo begun; exec sleep 600")
    monkeypatch.undo()
    wait_until(lambda: not is_running(number_in(tmp_path / "pid")), "the end of the command")
    assert remote.execute("echo on").text == "on"


# --- many at once -----------------------------------------------------------------------------------------------------


def test_more_commands_at_once_than_a_host_has_sessions(remote: SshRemote, server: SshServer) -> None:
    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(lambda n: remote.execute(f"echo {n}; sleep 0.05").text, range(30)))
    assert answers == [str(n) for n in range(30)]
    assert server.log.count("Accepted publickey") == 1


@contextmanager
def busy_until_the_end(fifo: Path) -> Iterator[None]:
    """Keep a command that reads a FIFO waiting, from when it has begun."""
    os.mkfifo(fifo)

    def opened() -> int | None:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads it yet
            return None

    descriptor = wait_until(opened, "a reader")
    assert descriptor is not None
    try:
        yield
    finally:
        os.close(descriptor)


def test_a_host_that_allows_one_session_only(
    ssh_servers: SshServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ssh_servers(MaxSessions=1)
    remote = SshRemote(server.target(), server.known_hosts())
    remote.connect()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(remote.execute, f"until [ -p '{tmp_path}/fifo' ]; do :; done; cat '{tmp_path}/fifo'")
        with monkeypatch.context() as patched, busy_until_the_end(tmp_path / "fifo"):
            patched.setattr(ssh, "_SESSION_WAIT_S", 0.1)
            with pytest.raises(RemoteError, match=r"opens no session .*: not run; raise MaxSessions"):
                remote.execute("true")
        assert running.result(30).status == 0
    with pytest.raises(RemoteError, match="was killed"):  # over a connection of its own
        remote.execute("sleep 600", timeout_s=3.0)
    with ThreadPoolExecutor(4) as pool:  # it is slow, but does all
        assert [each.text for each in pool.map(lambda n: remote.execute(f"echo {n}"), range(8))] == list("01234567")
    remote.close()


def test_commands_that_wait_for_their_turn_have_a_time_limit(
    remote: SshRemote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_sessions", threading.BoundedSemaphore(1))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(remote.execute, f"until [ -p '{tmp_path}/fifo' ]; do :; done; cat '{tmp_path}/fifo'")
        refused = pytest.raises(RemoteError, match=r"kept the host for 0.2 s: not run")
        with busy_until_the_end(tmp_path / "fifo"), refused:
            remote.execute("true", timeout_s=0.2)
        assert running.result(30).status == 0


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_large_file_there_and_back_without_sftp(ssh_servers: SshServers, tmp_path: Path) -> None:
    server = ssh_servers()  # its configuration names no sftp subsystem
    assert "Subsystem" not in (server.folder / "sshd_config").read_text()
    remote = SshRemote(server.target(), server.known_hosts())
    remote.connect()
    source = tmp_path / "large"
    source.write_bytes(os.urandom(1 << 20) * 20)
    remote.upload(source, f"{tmp_path}/uploaded", mode=0o640)
    assert (tmp_path / "uploaded").stat().st_mode & 0o777 == 0o640
    with (tmp_path / "back").open("wb") as into:
        assert remote.download(f"{tmp_path}/uploaded", into) == 20 << 20
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    remote.close()


@pytest.mark.parametrize("name", ["a b", "it's", "$HOME", "-rf", "ünï", 'with"quote', "a\\b"])
def test_file_names_of_every_kind(remote: SshRemote, tmp_path: Path, name: str) -> None:
    remote.upload(b"content", f"{tmp_path}/{name}")
    assert (tmp_path / name).read_bytes() == b"content"
    into = io.BytesIO()
    remote.download(f"{tmp_path}/{name}", into)
    assert into.getvalue() == b"content"


def test_a_folder_is_not_overwritten_and_not_filled(remote: SshRemote, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(RemoteError, match="is a directory"):
        remote.upload(b"content", f"{tmp_path}/folder")
    assert list((tmp_path / "folder").iterdir()) == []
    with pytest.raises(RemoteError, match=r"(?i)is a directory"):
        remote.download(f"{tmp_path}/folder", io.BytesIO())


def test_an_upload_that_is_cut_off_leaves_the_old_file_and_nothing_else(
    remote: SshRemote, server: SshServer, tmp_path: Path
) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    target = folder / "file"
    remote.upload(b"the old one", str(target))
    source = tmp_path / "endless"
    os.mkfifo(source)  # its length is 0 for the host; what matters is that it is cut off in its midst
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(remote.upload, source, str(target))
        with source.open("wb") as feed:
            feed.write(b"x" * 100_000)
            feed.flush()
            wait_until(lambda: any(each.stat().st_size for each in folder.glob(".file.*")), "the first bytes")
            server.stop()
        with pytest.raises(RemoteError, match="lost"):
            running.result(30)
    wait_until(lambda: [each.name for each in folder.iterdir()] == ["file"], "the end of the temporary file")
    assert target.read_bytes() == b"the old one"


def test_a_file_that_shrinks_meanwhile_is_not_placed(remote: SshRemote, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 10)
    with source.open("rb") as file:
        file.seek(5)
        command = remote._upload_command(f"{tmp_path}/target", 10, 0o600)
        patience = ssh_command.Patience(30.0)
        ended = remote._run(command, "upload", file, ssh._Output(), patience)
    assert ended.status != 0
    assert b"only a part of 10 bytes" in ended.stderr
    assert not (tmp_path / "target").exists()


def test_a_file_of_this_machine_that_is_not_there(remote: SshRemote, tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match=r"on this machine: .*missing") as caught:
        remote.upload(tmp_path / "missing", f"{tmp_path}/target")
    assert caught.value.exit_status_remote == 1


def test_a_download_to_a_full_disk(remote: SshRemote, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 1_000_000)
    with pytest.raises(RemoteError, match=r"on this machine: .*No space left"), Path("/dev/full").open("wb", 0) as full:
        remote.download(f"{tmp_path}/file", full)
    assert remote.execute("echo on").text == "on"


def test_an_upload_to_a_full_disk(remote: SshRemote, tmp_path: Path) -> None:
    # What the shell starts may write files of 100 blocks only; to a program that is a full disk, but for the signal.
    patience = ssh_command.Patience(30.0)
    content = b"x" * 200_000
    command = "trap '' XFSZ; ulimit -f 100\n" + remote._upload_command(f"{tmp_path}/target", len(content), 0o600)
    ended = remote._run(command, "upload", io.BytesIO(content), ssh._Output(), patience)
    assert ended.status == 1
    assert b"File too large" in ended.stderr
    assert list(tmp_path.glob("*target*")) == []


@pytest.mark.parametrize("path", ["relative", "~/file", ""])
def test_paths_have_to_be_absolute(remote: SshRemote, path: str) -> None:
    with pytest.raises(RemoteError, match="absolute"):
        remote.upload(b"", path)
    with pytest.raises(RemoteError, match="absolute"):
        remote.download(path, io.BytesIO())


def test_a_reflashed_host_is_noticed_when_it_comes_back(remote: SshRemote, server: SshServer) -> None:
    remote.execute("true")
    server.restart(with_new_host_key=True)
    with pytest.raises(RemoteError, match="not the pinned one"):
        remote.execute("true")


def test_another_key_for_a_host_of_the_same_name_is_not_mixed_up(ssh_servers: SshServers, tmp_path: Path) -> None:
    first, second = ssh_servers(), ssh_servers(host_key=make_key(tmp_path / "other"))
    known = first.known_hosts(tmp_path)
    known.pin({second.name: second.key})
    for server in (first, second):
        remote = SshRemote(server.target(), known)
        remote.connect()
        remote.close()
