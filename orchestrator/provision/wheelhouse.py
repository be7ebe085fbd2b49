"""Wheels for hosts, for their own platform and Python: of all that edgebed needs, so that no host needs the internet.

Fetched once by the orchestrator's pip, and kept in the cache: from then on the same wheels go to every host of that
platform, until edgebed needs others.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import threading
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgebed.errors import WorkFailed
from orchestrator.provision.caches import cache_folder, keep_newest, write_whole
from orchestrator.provision.wheel import WHEEL_FILE, OwnWheel

GLIBC_MINIMUM = (2, 28)
"""The oldest C library that all the wheels run with; Debian 10 has it."""

KEPT_ARCHIVES = 6

_LOCK = "lock.json"
_DOWNLOAD_TIMEOUT_S = 900.0
# Tags do not include one another for pip: each C library that will do has to be named.
_MANYLINUX_MINORS = (28, 27, 26, 25, 24, 17)


@dataclass(frozen=True, slots=True)
class Platform:
    """What wheels have to fit.

    Attributes:
        machine: as ``uname -m`` says, x86_64 or aarch64.
        python: major and minor version.
    """

    machine: str
    python: tuple[int, int]

    @property
    def tag(self) -> str:
        """As in cp311-aarch64."""
        return f"cp{self.python[0]}{self.python[1]}-{self.machine}"

    @property
    def pip_options(self) -> list[str]:
        """What pip is told to choose wheels for it."""
        manylinux = [f"manylinux_2_{minor}_{self.machine}" for minor in _MANYLINUX_MINORS]
        platforms = [*manylinux, f"manylinux2014_{self.machine}"]
        abi = f"cp{self.python[0]}{self.python[1]}"
        options = ["--implementation", "cp", "--abi", abi, "--python-version", f"{self.python[0]}.{self.python[1]}"]
        return [*options, *(word for each in platforms for word in ("--platform", each))]


class LockedWheel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A wheel of a wheelhouse."""

    file: str
    sha256: str
    size_bytes: int


class _Lock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    requirements: tuple[str, ...]
    wheels: tuple[LockedWheel, ...]


@dataclass(frozen=True, slots=True)
class Wheelhouse:
    """The wheels for a platform, in a folder of the cache."""

    platform: Platform
    folder: Path
    wheels: tuple[LockedWheel, ...]

    @property
    def size_bytes(self) -> int:
        """Of all wheels together."""
        return sum(wheel.size_bytes for wheel in self.wheels)

    def digest(self, own: OwnWheel, interpreter: str) -> str:
        """The name of what results from installing these wheels and edgebed's own with an interpreter."""
        named = [own.sha256, sorted(wheel.sha256 for wheel in self.wheels), self.platform.tag, interpreter]
        return hashlib.sha256(msgspec.json.encode(named)).hexdigest()[:16]

    def archive(self, own: OwnWheel) -> Path:
        """One file with all wheels, edgebed's own among them; made unless it is in the cache.

        Raises:
            OSError: the cache cannot be written.
        """
        path = cache_folder("archives") / f"{self.digest(own, '')}.tar"
        with _locks[str(path)]:
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, self._archive_bytes(own))
                keep_newest(path.parent, "*.tar", KEPT_ARCHIVES)
        return path

    def _archive_bytes(self, own: OwnWheel) -> bytes:
        import tarfile  # costs more than all else that a deploy imports here, and is seldom needed

        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as archive:
            for name, path in [(WHEEL_FILE, own.path), *((each.file, self.folder / each.file) for each in self.wheels)]:
                entry = tarfile.TarInfo(name)
                entry.size = path.stat().st_size
                with path.open("rb") as file:
                    archive.addfile(entry, file)
        return content.getvalue()


_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


def wheelhouse_for(platform: Platform, requirements: tuple[str, ...]) -> Wheelhouse:
    """The wheels of a platform; fetched unless they are in the cache.

    Args:
        platform: that of a host.
        requirements: what edgebed needs, as pip is told.

    Raises:
        WorkFailed: pip could not fetch them; its own words are in the text.
        OSError: the cache cannot be written.
    """
    name = hashlib.sha256(msgspec.json.encode([requirements, _MANYLINUX_MINORS])).hexdigest()[:12]
    folder = cache_folder("wheelhouse") / f"{platform.tag}-{name}"
    with _locks[str(folder)]:
        lock = _read_lock(folder)
        if lock is None:
            lock = _fetch(platform, requirements, folder)
    return Wheelhouse(platform, folder, lock.wheels)


def _read_lock(folder: Path) -> _Lock | None:
    try:
        lock = msgspec.json.decode((folder / _LOCK).read_bytes(), type=_Lock)
    except (OSError, msgspec.MsgspecError):
        return None
    sizes = [(folder / wheel.file, wheel.size_bytes) for wheel in lock.wheels]
    return lock if all(path.is_file() and path.stat().st_size == size for path, size in sizes) else None


def _fetch(platform: Platform, requirements: tuple[str, ...], folder: Path) -> _Lock:
    """Fetch into a folder beside, then rename: what is under its name is complete."""
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        # pip goes along: a host's Python need not have it.
        _download(["--dest", str(partial), *platform.pip_options, *requirements, "pip"], platform)
        lock = _Lock(requirements, tuple(_locked(path) for path in sorted(partial.glob("*.whl"))))
        (partial / _LOCK).write_bytes(msgspec.json.encode(lock))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return lock


def _download(options: list[str], platform: Platform) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    command = [*pip, "download", "--quiet", "--only-binary=:all:", *options]
    what = f"the wheels for Python {platform.python[0]}.{platform.python[1]} on {platform.machine} could not be fetched"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DOWNLOAD_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise WorkFailed(f"{what} within {_DOWNLOAD_TIMEOUT_S:.0f} s; run the command again") from None
    if done.returncode == 0:
        return
    said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
    if "No module named pip" in said:
        raise WorkFailed(f"{what}: this Python has no pip; {sys.executable} -m ensurepip")
    raise WorkFailed(
        f"{what}; this machine has to reach a package registry once (hosts never do), see pip's own settings:\n{said}"
    )


def _locked(path: Path) -> LockedWheel:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return LockedWheel(path.name, digest, path.stat().st_size)
