"""The project's ``known_hosts``: what is read, what is written, and what is left as it is."""

from __future__ import annotations

import base64
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgebed.errors import BadInput
from orchestrator.remote.host_keys import HostKey, KnownHosts, name_of


def key(text: str = "one", kind: str = "ssh-ed25519") -> HostKey:
    return HostKey(kind, text.encode())


def line(names: str, of: HostKey, *, marker: str = "", comment: str = "") -> str:
    parts = (marker, names, of.kind, base64.b64encode(of.blob).decode(), comment)
    return " ".join(part for part in parts if part) + "\n"


def known(tmp_path: Path, text: str) -> KnownHosts:
    (tmp_path / "known_hosts").write_text(text)
    return KnownHosts(tmp_path / "known_hosts")


@pytest.mark.parametrize(
    ("address", "port", "name"), [("Pi.local", 22, "pi.local"), ("10.0.0.7", 2022, "[10.0.0.7]:2022")]
)
def test_names_are_those_of_openssh(address: str, port: int, name: str) -> None:
    assert name_of(address, port) == name


@pytest.mark.parametrize(
    ("patterns", "name", "is_meant"),
    [
        ("pi", "pi", True),
        ("pi", "pi2", False),
        ("a,pi,b", "pi", True),
        ("Pi", "pi", True),
        ("pi*", "pi-7", True),
        ("pi-?", "pi-7", True),
        ("pi-?", "pi-77", False),
        ("*,!pi-7", "pi-7", False),
        ("*,!pi-7", "pi-8", True),
        ("[10.0.0.7]:2022", "[10.0.0.7]:2022", True),
        ("[10.0.0.7]:2022", "1", False),
        ("[10.0.0.*]:2022", "[10.0.0.7]:2022", True),
        ("|1|bad", "pi", False),
        ("|1|!!|!!", "pi", False),
    ],
)
def test_which_line_is_about_a_host(tmp_path: Path, patterns: str, name: str, is_meant: bool) -> None:
    found = known(tmp_path, line(patterns, key())).known(name)
    assert found.keys == ((key(),) if is_meant else ())


def test_hashed_names_are_understood(tmp_path: Path) -> None:
    known_hosts = known(tmp_path, line("[10.0.0.7]:2022", key()) + line("pi", key("two")))
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(known_hosts.path)], check=True, stderr=subprocess.DEVNULL)
    assert "10.0.0.7" not in known_hosts.path.read_text()
    assert known_hosts.known("[10.0.0.7]:2022").keys == (key(),)
    assert known_hosts.known("pi").keys == (key("two"),)
    assert known_hosts.known("elsewhere").keys == ()


def test_fingerprints_are_those_of_openssh(tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    kind, encoded = (tmp_path / "key.pub").read_text().split()[:2]
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", str(tmp_path / "key")], check=True, capture_output=True, text=True
    ).stdout
    assert HostKey(kind, base64.b64decode(encoded)).fingerprint == shown.split()[1]


def test_what_is_not_understood_pins_nothing(tmp_path: Path) -> None:
    text = "# pi ssh-ed25519 AAAA\n\npi\npi ssh-ed25519\npi ssh-ed25519 not-base64!\n"
    text += line("pi", key(), marker="@cert-authority")
    assert known(tmp_path, text).known("pi").keys == ()


def test_revoked_keys_are_found(tmp_path: Path) -> None:
    found = known(tmp_path, line("*", key(), marker="@revoked") + line("pi", key("two"))).known("pi")
    assert (found.keys, found.revoked) == ((key("two"),), (key(),))


def test_the_projects_file_hides_the_users(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text(line("pi", key("users")) + line("other", key("users")))
    known_hosts = KnownHosts(tmp_path / "known_hosts", user_file=users)
    assert known_hosts.known("pi").keys == (key("users"),)
    assert known_hosts.known("pi").file == users
    known_hosts.pin({"pi": key("project")})
    assert known_hosts.known("pi").keys == (key("project"),)
    assert known_hosts.known("other").keys == (key("users"),)


def test_pinning_replaces_all_keys_of_a_host_and_nothing_else(tmp_path: Path) -> None:
    comment, revoked = "# of the lab\n", line("*", key("bad"), marker="@revoked")
    text = comment + line("pi,pi.local", key()) + line("pi", key("rsa", "ssh-rsa")) + line("other", key(), comment="x")
    known_hosts = known(tmp_path, text + revoked)
    known_hosts.pin({"pi": key("new"), "[10.0.0.7]:2022": key("newer")})
    expected = comment + line("pi.local", key()) + line("other", key(), comment="x") + revoked
    expected += line("pi", key("new")) + line("[10.0.0.7]:2022", key("newer"))
    assert known_hosts.path.read_text() == expected
    assert [path.name for path in tmp_path.iterdir()] == ["known_hosts"]


def test_what_is_pinned_is_understood_by_openssh(tmp_path: Path) -> None:
    known_hosts = KnownHosts(tmp_path / "known_hosts")
    known_hosts.pin({"[10.0.0.7]:2022": key()})
    found = subprocess.run(
        ["ssh-keygen", "-F", "[10.0.0.7]:2022", "-f", str(known_hosts.path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0
    assert line("[10.0.0.7]:2022", key()) in found.stdout


def test_pinning_from_many_threads_loses_nothing(tmp_path: Path) -> None:
    files = [KnownHosts(tmp_path / "known_hosts") for _ in range(4)]  # each with a lock of its own
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: files[n % 4].pin({f"pi-{n}": key(str(n))}), range(32)))
    assert all(files[0].known(f"pi-{n}").keys == (key(str(n)),) for n in range(32))


@pytest.mark.parametrize("where", ["missing/known_hosts", "folder"])
def test_a_file_that_cannot_be_written(tmp_path: Path, where: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadInput, match=r"cannot be (read|written)"):
        KnownHosts(tmp_path / where).pin({"pi": key()})


def test_clones_are_found_among_the_hosts_that_were_seen(tmp_path: Path) -> None:
    known_hosts = KnownHosts(tmp_path / "known_hosts")
    for host, shown in (("c", "x"), ("a", "x"), ("b", "y"), ("d", "x"), ("e", "z"), ("f", "z")):
        known_hosts.note(host, key(shown))
    assert [*known_hosts.cloned] == [("a", "c", "d"), ("e", "f")]
    known_hosts.note("f", key("made anew"))
    assert [*known_hosts.cloned] == [("a", "c", "d")]
