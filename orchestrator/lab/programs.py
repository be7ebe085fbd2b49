"""The machine's own programs that the lab uses, and what has to hold before it can be used at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from edgebed.errors import BadInput, Problem, WorkFailed

NEEDED = {"ip": "iproute2", "ping": "iputils-ping"}
"""Programs and the Debian packages that have them; a new root also needs `debootstrap`."""

TIMEOUT_S = 60.0
# Where a login shell of root looks; a service or sudo may look at less.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def require_lab() -> None:
    """Check that this machine can have a lab.

    Raises:
        BadInput: with everything that is missing.
    """
    if sys.platform != "linux":
        raise BadInput(
            f"the lab needs Linux (network namespaces, systemd), and this is {sys.platform}; "
            "use a Linux machine or virtual machine, or inventory/hosts/local.yaml, which runs everywhere"
        )
    if os.geteuid() != 0:
        raise BadInput(
            "the lab makes network namespaces and mounts, which only root may; run `sudo edgebed lab ...` "
            "(or, without root, use inventory/hosts/local.yaml)"
        )
    problems = [
        Problem(f"the program {name} is missing; install it: apt-get install {package}")
        for name, package in NEEDED.items()
        if find_program(name) is None
    ]
    if not Path("/dev/net/tun").exists():
        problems.append(Problem("/dev/net/tun is missing; load it: modprobe tun"))
    if problems:
        raise BadInput(problems)


def find_program(name: str) -> str | None:
    """The path of a program; sbin is looked at whatever $PATH says."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_PATH}")


def call(command: Sequence[str | Path], *, stdin: str = "", timeout_s: float = TIMEOUT_S) -> str:
    """Run a program of this machine to its end and return its standard output.

    Raises:
        WorkFailed: it is missing, failed, or took too long; with its output.
    """
    words = [str(word) for word in command]
    words[0] = find_program(words[0]) or words[0]
    try:
        done = subprocess.run(
            words, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False, env=_environment()
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WorkFailed(f"`{' '.join(words)}` could not be run to its end: {error}") from error
    if done.returncode != 0:
        output = (done.stdout + done.stderr).strip()[-2000:]
        raise WorkFailed(f"`{' '.join(words)}` ended with status {done.returncode}:\n{output}")
    return done.stdout


def _environment() -> dict[str, str]:
    # Programs' messages are read (route tables): always in English.
    return {**os.environ, "LC_ALL": "C.UTF-8", "PATH": f"{os.environ.get('PATH', '')}:{_PATH}"}
