"""The Debian root that the lab's hosts stand on: built once by debootstrap, cached, and from then on only read.

A root of its own and not the machine's: a provisioning test on the machine's files could pass by accident.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from edgebed.errors import BadInput
from orchestrator.lab.programs import call, find_program
from orchestrator.lab.spec import USER

CACHE_ROOT = Path("/var/cache/edgebed/lab")
RELEASE = "bookworm"
BUILD_TIMEOUT_S = 1800.0
FOREIGN_BUILD_TIMEOUT_S = 7200.0
"""Emulated; 20 minutes and more were seen on a busy machine of two cores."""

PACKAGES = (
    "ca-certificates",
    "dbus",
    "dbus-user-session",
    "ifupdown",
    "iproute2",
    "iputils-ping",
    "libpam-systemd",
    "openssh-server",
    "openssh-sftp-server",
    "procps",
    "python3",
    "sudo",
    "systemd",
    "systemd-sysv",
)
"""What is in a fresh Raspberry Pi OS and matters here; without python3-venv, which is not in it either."""

# What a virtual host has no use for, and would take time or fail.
_MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "getty.target",
    "networking.service",
    "systemd-logind-varlink.socket",
    "systemd-remount-fs.service",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-update-utmp.service",
    "tmp.mount",
)
_SSHD = """# The lab's hosts: keys only, as fresh and as strict as a Pi that was set up by Raspberry Pi Imager.
HostKey /etc/ssh/ssh_host_ed25519_key
PasswordAuthentication no
UseDNS no
"""


def root_folder(architecture: str, release: str = RELEASE) -> Path:
    """Where the root for an architecture is cached; another list of packages or set-up is another folder."""
    what = "\n".join((*PACKAGES, *_MASKED, _SSHD, USER, "1"))
    digest = hashlib.sha256(what.encode()).hexdigest()[:12]
    return CACHE_ROOT / f"debian-{release}-{architecture}-{digest}"


def machine_architecture() -> str:
    """This machine's, as Debian names it."""
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "armhf"}.get(machine, machine)


def build_root(say: Callable[[str], None], architecture: str | None = None, mirror: str | None = None) -> Path:
    """The cached root, which is built when there is none: by debootstrap, some minutes.

    Args:
        say: told what takes long.
        architecture: this machine's when None.
        mirror: where Debian packages come from; as this machine's apt when None.

    Raises:
        BadInput: debootstrap is missing, or no mirror is known.
        WorkFailed: it could not be built; nothing is left of it.
    """
    architecture = architecture or machine_architecture()
    root = root_folder(architecture)
    if root.is_dir():
        return root
    if find_program("debootstrap") is None:
        raise BadInput("a root for the lab has to be built, and debootstrap is missing: apt-get install debootstrap")
    mirror = mirror or apt_mirror(RELEASE)
    CACHE_ROOT.mkdir(parents=True, exist_ok=True)
    say(f"building a Debian {RELEASE} root for {architecture} (once; some minutes) in {root}")
    building = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=CACHE_ROOT))
    try:
        _bootstrap(building, architecture, mirror)
        _set_up(building)
        building.chmod(0o755)
        with suppress(OSError):  # someone else was faster; theirs is as good
            building.rename(root)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return root


def purge_roots() -> None:
    """Remove all cached roots, and half-built ones."""
    if CACHE_ROOT.is_dir():
        shutil.rmtree(CACHE_ROOT)
    with suppress(OSError):
        CACHE_ROOT.parent.rmdir()


def _bootstrap(target: Path, architecture: str, mirror: str) -> None:
    foreign = architecture != machine_architecture()
    command = ["debootstrap", "--variant=minbase", f"--arch={architecture}", f"--include={','.join(PACKAGES)}"]
    call([*command, *(["--foreign"] if foreign else []), RELEASE, target, mirror], timeout_s=BUILD_TIMEOUT_S)
    if foreign:
        second = ["/debootstrap/debootstrap", "--second-stage"]
        call(["chroot", target, *second], timeout_s=FOREIGN_BUILD_TIMEOUT_S)


def _set_up(root: Path) -> None:
    """Make a fresh Pi of it: a user who may use sudo, no keys, no identity, nothing that only costs time."""
    chroot = ["chroot", str(root)]
    call([*chroot, "useradd", "--create-home", "--shell", "/bin/bash", "--groups", "sudo,video", USER])
    call([*chroot, "usermod", "--password", "*", USER])  # "!" would be a locked account, which sshd refuses
    _write(root / "etc/sudoers.d/010_pi-nopasswd", f"{USER} ALL=(ALL) NOPASSWD: ALL\n", 0o440)
    _write(root / "etc/ssh/sshd_config.d/edgebed.conf", _SSHD, 0o644)
    for pattern in ("etc/ssh/ssh_host_*", "var/cache/apt/archives/*.deb", "var/cache/apt/*.bin", "var/log/*.log"):
        for path in root.glob(pattern):
            path.unlink()
    shutil.rmtree(root / "var/lib/apt/lists", ignore_errors=True)
    for name in ("etc/machine-id", "etc/resolv.conf", "etc/hostname", "etc/fstab"):
        _write(root / name, "", 0o644)
    (root / "var/lib/dbus/machine-id").unlink(missing_ok=True)
    for unit in _MASKED:
        link = root / "etc/systemd/system" / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")


def _write(path: Path, text: str, mode: int) -> None:
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(mode)


def apt_mirror(release: str) -> str:
    """Where this machine's apt takes the release's packages from.

    Raises:
        BadInput: apt is not there, or has no such source.
    """
    hint = "name a mirror with --mirror URL"
    if find_program("apt-get") is None:
        raise BadInput(f"this machine has no apt, so it is not known where Debian packages come from; {hint}")
    wanted = ["--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages", "Component: main"]
    found = re.findall(rf"^{release} (\S+)", call(["apt-get", "indextargets", *wanted]), re.MULTILINE)
    if not found:
        raise BadInput(f"this machine's apt has no source for Debian {release}; {hint}, or run `apt-get update`")
    return str(found[0])
