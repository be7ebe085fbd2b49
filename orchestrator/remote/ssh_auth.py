"""Who one is for a host: the keys that are tried, where they came from, and what to say when none is taken."""

from __future__ import annotations

import base64
import binascii
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import paramiko

from orchestrator.remote.ssh_config import KeyFile, SshTarget
from orchestrator.remote.unreachable import Unreachable

AUTH_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Identity:
    """A key that can be tried.

    Attributes:
        origin: where it is and who named it.
    """

    key: paramiko.PKey
    origin: str

    def __str__(self) -> str:
        return f"{self.origin} {self.key.fingerprint}"


@dataclass(frozen=True, slots=True)
class Identities:
    """The keys for a host.

    Attributes:
        usable: in the order in which they are tried.
        unusable: those that cannot be, each with the reason.
    """

    usable: list[Identity] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)


def authenticate(transport: paramiko.Transport, target: SshTarget) -> None:
    """Prove to a host that one may come in.

    Args:
        transport: its host key is checked already.
        target: the host.

    Raises:
        Unreachable: it takes none of the keys; the text names each, with its origin.
    """
    transport.auth_timeout = AUTH_TIMEOUT_S
    with _identities(target) as identities:
        tried: list[str] = []
        for identity in identities.usable:
            tried.append(str(identity))
            if _is_taken(transport, target, identity, tried):
                return
        raise _rejection(target, tried, identities.unusable)


def _is_taken(transport: paramiko.Transport, target: SshTarget, identity: Identity, tried: list[str]) -> bool:
    began_s = time.monotonic()
    try:
        still_wanted = transport.auth_publickey(target.user, identity.key)
    except paramiko.BadAuthenticationType as error:
        detail = f"takes no keys, only {', '.join(error.allowed_types)}; set `PubkeyAuthentication yes` on the host"
        raise Unreachable(target.name, target.command, detail, reason="rejected") from None
    except (paramiko.SSHException, OSError, EOFError) as error:
        if time.monotonic() - began_s >= AUTH_TIMEOUT_S:
            detail = f"did not answer within {AUTH_TIMEOUT_S:g} s whether it takes {identity}; is the host overloaded?"
            raise Unreachable(target.name, target.command, detail, reason="no_answer") from error
        if not transport.is_active():
            raise _hung_up(target, tried) from error
        return False
    if still_wanted:
        detail = f"wants more than a key: {', '.join(still_wanted)}; edgebed cannot answer questions"
        raise Unreachable(target.name, target.command, detail, reason="rejected")
    return True


def _hung_up(target: SshTarget, tried: list[str]) -> Unreachable:
    if len(tried) > 1:
        detail = (
            f"hung up after {len(tried)} keys (MaxAuthTries): {'; '.join(tried)}. Name the right one with "
            "ansible_ssh_private_key_file, or set IdentitiesOnly yes for the host in ~/.ssh/config"
        )
        return Unreachable(target.name, target.command, detail, reason="rejected")
    detail = f"hung up while it looked at {tried[0]}; the reason is in the host's log: journalctl -u ssh"
    return Unreachable(target.name, target.command, detail, reason="hung_up")


def _rejection(target: SshTarget, tried: list[str], unusable: list[str]) -> Unreachable:
    port = "" if target.port == 22 else f"-p {target.port} "
    copy = f"ssh-copy-id {port}{target.user}@{target.address}"
    not_used = f"; not usable: {'; '.join(unusable)}" if unusable else ""
    if tried:
        detail = (
            f"wrong user or key: {target.user} is let in by none of these keys: {'; '.join(tried)}{not_used}. Set "
            f"ansible_user or ansible_ssh_private_key_file, or put a key on the host: {copy}"
        )
    else:
        detail = f"there is no key to try{not_used}. Make one with ssh-keygen, put it on the host: {copy}"
    return Unreachable(target.name, target.command, detail, reason="rejected")


@contextmanager
def _identities(target: SshTarget) -> Iterator[Identities]:
    """The keys for a host; those of the agent can be used only in here."""
    found = Identities()
    named, wanted = _from_files(target, found)
    with _agent(target, found) as agent_keys:
        held = {each.key.asbytes() for each in named}
        for key in agent_keys:
            blob = key.asbytes()
            if blob not in held and (not target.identities_only or blob in wanted):
                # An agent's key that a named file stands for comes before the others: servers count the tries.
                place = 0 if blob in wanted else len(found.usable)
                found.usable.insert(place, Identity(key, f"the agent's key {key.comment or key.get_name()!r}"))
        yield found


def _from_files(target: SshTarget, found: Identities) -> tuple[list[Identity], set[bytes]]:
    """Read the key files: those that can be used, and the public halves of all."""
    wanted: set[bytes] = set()
    for file in target.key_files:
        public = _public_blob(file.path)
        if public is not None:
            wanted.add(public)
        try:
            key = paramiko.PKey.from_path(file.path)
        except FileNotFoundError:
            if not file.is_default:
                found.unusable.append(f"{_origin(file)}: there is no such file")
        except TypeError:  # how `cryptography` says it
            found.unusable.append(f"{_origin(file)}: needs a passphrase; `ssh-add {file.path}` gives it to the agent")
        except OSError as error:
            found.unusable.append(f"{_origin(file)}: {error.strerror}")
        except Exception:
            # Whatever a broken file makes the parsers of two libraries raise; a public key is a way to name an agent's.
            if public is None:
                found.unusable.append(f"{_origin(file)}: is not a private key that can be read")
        else:
            wanted.add(key.asbytes())
            found.usable.append(Identity(key, _origin(file)))
    return list(found.usable), wanted


def _origin(file: KeyFile) -> str:
    return f"{file.path} ({file.origin})"


def _public_blob(path: Path) -> bytes | None:
    """The public half of a key, read from the file itself or from the one beside it."""
    for each in (path, path.with_name(f"{path.name}.pub")):
        try:
            kind, encoded = each.read_text().split()[:2]
            if kind.startswith(("ssh-", "ecdsa-", "sk-")):
                return base64.b64decode(encoded, validate=True)
        except (OSError, ValueError, binascii.Error):
            continue
    return None


@contextmanager
def _agent(target: SshTarget, found: Identities) -> Iterator[tuple[paramiko.AgentKey, ...]]:
    """The keys that the agent holds; none where there is no agent."""
    path = os.environ.get("SSH_AUTH_SOCK", "")
    if not target.may_use_agent or not path:
        yield ()
        return
    try:
        _knock(path)
        agent = paramiko.Agent()
    except (OSError, paramiko.SSHException) as error:
        found.unusable.append(f"the agent at SSH_AUTH_SOCK={path}: {error}")
        yield ()
        return
    try:
        yield agent.get_keys()
    finally:
        agent.close()


def _knock(path: str) -> None:
    """See whether an agent answers: paramiko says nothing when none does, and leaves its socket open."""
    with socket.socket(socket.AF_UNIX) as knocking:
        knocking.connect(path)
