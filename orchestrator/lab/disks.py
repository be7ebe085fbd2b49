"""The disks of the lab's hosts: a file system of a fixed size each, in a sparse file.

Of a fixed size, so that a full disk is the host's and not the machine's. A host's root is an overlay: the cached Debian
root below, the disk above.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from edgebed.errors import WorkFailed
from orchestrator.lab.image import machine_architecture
from orchestrator.lab.keys import KeyPair
from orchestrator.lab.programs import call
from orchestrator.lab.sensor_files import PI_IDENTITIES, VCGENCMD
from orchestrator.lab.spec import DISKS_ROOT, USER, Lab, LabHost

SECRET_MODE = 0o600


def make_disk(lab: Lab, host: LabHost, size_bytes: int, host_key: KeyPair, user_key: KeyPair) -> None:
    """Make a host's disk, and write on it what makes the host differ from the others."""
    folder = lab.disk_of(host)
    folder.mkdir(parents=True)
    image = folder.with_suffix(".img")
    with image.open("xb") as file:
        file.truncate(size_bytes)
    # No room kept for root, no lazy work in the background that would disturb measurements.
    call(["mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0,nodiscard", "-O", "^resize_inode", image])
    call(["mount", "-o", "loop,noatime", image, folder])
    for name in ("upper", "work", "root"):
        (folder / name).mkdir()
    _write_identity(lab, host, folder / "upper", host_key, user_key)


def _write_identity(lab: Lab, host: LabHost, upper: Path, host_key: KeyPair, user_key: KeyPair) -> None:
    names = [f"127.0.0.1 localhost {host.name}", *(f"{each.address} {each.name}" for each in lab.hosts)]
    _write(upper / "etc/hosts", "\n".join(names) + "\n")
    _write(upper / "etc/hostname", host.name + "\n")
    _write(upper / "etc/edgebed-lab", f"edgebed lab {lab.name}\n")  # so that no run takes it for a board
    _write(upper / "etc/machine-id", host.machine_id + "\n", 0o444)
    _write(upper / "etc/ssh/ssh_host_ed25519_key", host_key.private.decode(), SECRET_MODE)
    _write(upper / "etc/ssh/ssh_host_ed25519_key.pub", f"{host_key.public} root@{host.name}\n")
    if host.board["name"] in PI_IDENTITIES:
        _write(upper / "usr/bin/vcgencmd", VCGENCMD, 0o755)
    if host.architecture != machine_architecture():
        # Under emulation a user's own systemd spins for ever, and with it every login; process 1 is well.
        unit = upper / "etc/systemd/system/user@.service"
        unit.parent.mkdir(parents=True)
        unit.symlink_to("/dev/null")
    home = Path(host.root) / "home" / USER
    owner = home.stat()
    _write(upper / f"home/{USER}/.ssh/authorized_keys", f"{user_key.public} edgebed lab {lab.name}\n", SECRET_MODE)
    for path in (upper / f"home/{USER}", upper / f"home/{USER}/.ssh", upper / f"home/{USER}/.ssh/authorized_keys"):
        os.chown(path, owner.st_uid, owner.st_gid)
    (upper / f"home/{USER}/.ssh").chmod(0o700)
    # A folder of the overlay's upper layer hides the mode that it has in the lower one.
    (upper / f"home/{USER}").chmod(owner.st_mode & 0o7777)


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=mode)
    path.write_text(text)
    path.chmod(mode)


def remove_disks(lab: Lab) -> None:
    """Remove all disks of a lab.

    Raises:
        WorkFailed: one is still in use.
    """
    for host in lab.hosts:
        folder = lab.disk_of(host)
        while os.path.ismount(folder):
            call(["umount", folder])
    try:
        shutil.rmtree(lab.disks, ignore_errors=False)
    except FileNotFoundError:
        return
    except OSError as error:
        raise WorkFailed(f"{lab.disks} cannot be removed: {error}") from error
    finally:
        if DISKS_ROOT.is_dir() and not any(DISKS_ROOT.iterdir()):
            DISKS_ROOT.rmdir()
