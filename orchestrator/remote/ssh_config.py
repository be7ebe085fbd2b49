"""Where SSH finds a host: the hosts file first, then the user's ``~/.ssh/config``, then OpenSSH's defaults.

What is honoured of the configuration is `HONOURED`. Settings that neither are honoured nor leave the connection as it
is are told by `SshTarget.notes`. ``/etc/ssh/ssh_config`` is not read.
"""

from __future__ import annotations

import getpass
import re
import shlex
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import paramiko

from edgebed.errors import BadInput, Problem
from orchestrator.inventory import Host
from orchestrator.remote.host_keys import SSH_PORT, name_of

_HONOURED = """
hostname port user identityfile identitiesonly identityagent proxyjump proxycommand hostkeyalias connecttimeout
addressfamily canonicalizehostname canonicaldomains canonicalizemaxdots canonicalizefallbacklocal include
"""
HONOURED = frozenset(_HONOURED.split())
"""The settings of ``~/.ssh/config`` that are used; an ``Include`` only before the first ``Host``."""

# They change nothing about which host is reached, as whom, and how it is checked.
_HARMLESS = """
addkeystoagent batchmode checkhostip clearallforwardings compression connectionattempts controlmaster controlpath
controlpersist dynamicforward escapechar exitonforwardfailure fingerprinthash forwardagent forwardx11 forwardx11trusted
gssapiauthentication gssapidelegatecredentials hashknownhosts ignoreunknown ipqos kbdinteractiveauthentication
localcommand localforward loglevel nohostauthenticationforlocalhost numberofpasswordprompts passwordauthentication
permitlocalcommand preferredauthentications pubkeyauthentication remoteforward requesttty sendenv serveralivecountmax
serveraliveinterval setenv tcpkeepalive updatehostkeys usekeychain verifyhostkeydns visualhostkey
"""
_WITHOUT_EFFECT = frozenset(_HARMLESS.split())
_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
_FAMILIES = {"any": socket.AF_UNSPEC, "inet": socket.AF_INET, "inet6": socket.AF_INET6}
_INCLUDE = re.compile(r"\s*include(?:\s*=\s*|\s+)(?P<files>\S.*)", re.IGNORECASE)
_BLOCK = re.compile(r"\s*(host|match)\b", re.IGNORECASE)
_MATCH_EXEC = re.compile(r"\s*match\b.*\bexec\b.*", re.IGNORECASE)
_JUMP = re.compile(r"(?:ssh://)?(?:(?P<user>[^@]+)@)?(?P<address>\[[^\]]+\]|[^:\[\]]+)(?::(?P<port>\d+))?/?")
_DEEPEST = 8
DEFAULT_CONNECT_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A private key that may open a host, and who named it.

    Attributes:
        is_default: nobody did; it is not missed when it is not there.
    """

    path: Path
    origin: str
    is_default: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SshTarget:
    """All that is needed to reach a host over SSH.

    Attributes:
        name: what the inventory calls it.
        key_name: what it is called in a ``known_hosts`` file.
        key_files: in the order in which they are tried.
        may_use_agent: keys of the agent are tried, too; with ``identities_only`` those alone whose public half one of
            ``key_files`` has.
        jumps: the hosts to go through, the nearest first.
        proxy_command: a command that is a connection to the host, instead.
        notes: what the configuration says and edgebed does not do.
        is_jump: it is on the way to a host of the inventory, and need not be one itself.
    """

    name: str
    address: str
    port: int
    user: str
    key_name: str
    key_files: tuple[KeyFile, ...] = ()
    may_use_agent: bool = True
    identities_only: bool = False
    jumps: tuple[SshTarget, ...] = ()
    proxy_command: str | None = None
    family: socket.AddressFamily = socket.AF_UNSPEC
    connect_timeout_s: float = DEFAULT_CONNECT_TIMEOUT_S
    notes: tuple[str, ...] = ()
    is_jump: bool = False

    @property
    def command(self) -> str:
        """The command that reaches it by hand."""
        jumps = [f"{jump.user}@{jump.address}:{jump.port}" for jump in self.jumps]
        options = (["-J", ",".join(jumps)] if jumps else []) + ["-p", str(self.port)]
        return shlex.join(["ssh", *options, f"{self.user}@{self.address}"])


class SshConfig:
    """The user's SSH configuration.

    Args:
        text: its lines. file: where they are from, for messages.
        notes: what could not be followed.
    """

    def __init__(self, text: str = "", *, file: str = "~/.ssh/config", notes: tuple[str, ...] = ()) -> None:
        self._text = text
        self._file = file
        self._notes = notes

    @classmethod
    def load(cls, path: Path | None = None) -> SshConfig:
        """Read a file and those that it includes; ``~/.ssh/config`` by default, which need not exist.

        Raises:
            BadInput: it cannot be read.
        """
        path = path or Path.home() / ".ssh" / "config"
        notes: list[str] = []
        return cls("".join(_lines(path, notes, 0)), file=str(path), notes=tuple(notes))

    def target_of(self, host: Host) -> SshTarget:
        """How a host of the inventory is reached.

        Raises:
            BadInput: the configuration has something that is not understood.
        """
        return self.target(host.name, host.address, user=host.user, port=host.ssh_port, key_file=host.ssh_key_file)

    def target(
        self,
        name: str,
        address: str,
        *,
        user: str | None = None,
        port: int | None = None,
        key_file: str | None = None,
        depth: int = 0,
    ) -> SshTarget:
        """How ``address`` is reached, which may be an alias of the configuration.

        What is given here wins over the configuration.

        Raises:
            BadInput: the configuration has something that is not understood, or hosts that are reached through each
                other.
        """
        if depth > _DEEPEST:
            raise BadInput(self._problem(f"ProxyJump: more than {_DEEPEST} hosts in a row before {address}; a circle?"))
        found = self._lookup(address, user, port)
        real_address = str(found["hostname"])
        real_port = self._port(found.get("port", SSH_PORT), address)
        alias = found.get("hostkeyalias")
        jumps = self._jumps(found, depth)
        return SshTarget(
            name=name,
            address=real_address,
            port=real_port,
            user=found.get("user") or getpass.getuser(),
            key_name=str(alias).lower() if alias else name_of(real_address, real_port),
            key_files=tuple(self._key_files(found, key_file)),
            may_use_agent=str(found.get("identityagent", "")).lower() != "none",
            identities_only=str(found.get("identitiesonly", "no")).lower() == "yes",
            jumps=jumps,
            proxy_command=None if jumps else found.get("proxycommand"),
            family=_FAMILIES.get(str(found.get("addressfamily", "any")).lower(), socket.AF_UNSPEC),
            connect_timeout_s=self._seconds(found.get("connecttimeout")),
            notes=(*self._notes, *self._ignored(found, name)),
        )

    def _lookup(self, address: str, user: str | None, port: int | None) -> paramiko.SSHConfigDict:
        # As with the options of ssh itself: the first value counts, so what is given goes before the file.
        given = [f"User {user}\n"] if user else []
        given += [f"Port {port}\n"] if port else []
        try:
            return paramiko.SSHConfig.from_text("".join(given) + "Host *\n" + self._text).lookup(address)
        except (paramiko.SSHException, KeyError, ValueError) as error:
            raise BadInput(
                self._problem(f"is not understood: {error}; `ssh -G {address}` shows OpenSSH's view")
            ) from None

    def _port(self, value: object, address: str) -> int:
        if not str(value).isdecimal() or not 1 <= int(str(value)) <= 65535:
            raise BadInput(self._problem(f"Port {value} of {address}; expected 1 to 65535"))
        return int(str(value))

    def _seconds(self, value: str | None) -> float:
        is_number = value is not None and value.isdecimal() and int(value) > 0
        return float(str(value)) if is_number else DEFAULT_CONNECT_TIMEOUT_S

    def _key_files(self, found: paramiko.SSHConfigDict, key_file: str | None) -> Iterator[KeyFile]:
        if key_file:
            yield KeyFile(Path(key_file).expanduser(), "ansible_ssh_private_key_file")
        configured = [path for path in found.get("identityfile", []) if path.lower() != "none"]
        for path in configured:
            yield KeyFile(Path(path).expanduser(), self._file)
        if not key_file and "identityfile" not in found:
            for each in _DEFAULT_KEYS:
                yield KeyFile(Path.home() / ".ssh" / each, "default", is_default=True)

    def _jumps(self, found: paramiko.SSHConfigDict, depth: int) -> tuple[SshTarget, ...]:
        value = str(found.get("proxyjump", "none")).strip()
        if value.lower() == "none":
            return ()
        jumps: list[SshTarget] = []
        for text in value.split(","):
            parts = _JUMP.fullmatch(text.strip())
            if parts is None:
                raise BadInput(
                    self._problem(f"ProxyJump {value}: expected [user@]host[:port],..., got {text.strip()!r}")
                )
            address = parts["address"].strip("[]")
            port = int(parts["port"]) if parts["port"] else None
            jump = self.target(address, address, user=parts["user"], port=port, depth=depth + 1)
            # As with ssh: how the first is reached is its own affair; the others are reached through those before them.
            jumps += [*jump.jumps, jump] if not jumps else [jump]
        return tuple(jumps)

    def _ignored(self, found: paramiko.SSHConfigDict, name: str) -> Iterator[str]:
        ignored = sorted(set(found) - HONOURED - _WITHOUT_EFFECT)
        if ignored:
            yield f"{self._file}: {', '.join(ignored)}: not used for {name}"
        agent = str(found.get("identityagent", "none"))
        if agent.lower() != "none" and agent != "SSH_AUTH_SOCK":
            yield f"{self._file}: identityagent: only SSH_AUTH_SOCK and none are supported; {name} uses SSH_AUTH_SOCK"

    def _problem(self, message: str) -> Problem:
        return Problem(message, file=self._file)


def _lines(path: Path, notes: list[str], depth: int) -> Iterator[str]:
    """A file's lines, those of the files that it includes in their place."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return
    except OSError as error:
        raise BadInput(Problem(f"cannot be read: {error.strerror}", file=str(path))) from None
    is_in_block = False
    for number, line in enumerate(lines, 1):
        is_in_block = is_in_block or _BLOCK.match(line) is not None
        include = _INCLUDE.fullmatch(line)
        if _MATCH_EXEC.fullmatch(line):
            notes.append(f"{path}:{number}: Match exec is not evaluated, its block is not used; write a Host block")
            yield "Host !*\n"
        elif include is None:
            yield f"{line}\n"
        elif is_in_block or depth == _DEEPEST:
            notes.append(f"{path}:{number}: Include after a Host or Match is not followed; move it to the top")
        else:
            for each in _included(include["files"]):
                yield from _lines(each, notes, depth + 1)
                yield "Host *\n"  # what follows is not in the last block of the included file


def _included(files: str) -> Iterator[Path]:
    folder = Path.home() / ".ssh"
    for pattern in shlex.split(files):
        path = folder / Path(pattern).expanduser()
        yield from sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
