"""Files that a workload's options name, and how they come to the hosts.

A workload that needs files of the user's `NeedsFiles`: when the experiment is read, it checks them and packs them into
a few byte strings; the options that hosts get name those by checksum (``sha256:...``). The orchestrator places each on
every host, once; a program looks at the bytes again before the workload gets their path. So what was checked is what
is executed, and no path of one machine means anything on another.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from edgebed.errors import BadInput
from workloads import load_workload, workload_class

if TYPE_CHECKING:
    from workloads.base import Workload

CONTENT_FOLDER = "content"
"""The folder of a program's state folder that has the placed files, each called by its checksum."""

_PREFIX = "sha256:"
_REFERENCE = re.compile(r"sha256:[0-9a-f]{64}")
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Packed:
    """What hosts need of a workload.

    Attributes:
        options: as hosts get them: plain data, small, the same bytes for the same files; no paths.
        files: content by reference, see `reference_to`.
    """

    options: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)


@runtime_checkable
class NeedsFiles(Protocol):
    """The ability of a workload's or a policy's class whose options name files."""

    @classmethod
    def pack(cls, options: Mapping[str, Any], folder: Path) -> Packed:
        """Read, check and pack the files.

        Args:
            options: as the experiment has them.
            folder: where relative paths start.

        Raises:
            BadInput: with everything that is wrong with the files.
        """
        ...


def pack_workload(name: str, options: Mapping[str, Any], folder: Path) -> Packed | None:
    """Pack the files of a workload; None when it needs none.

    Raises:
        BadInput: there is no such workload, or something is wrong with its files.
    """
    kind: Any = workload_class(name)
    return kind.pack(options, folder) if isinstance(kind, NeedsFiles) else None


def reference_to(content: bytes) -> str:
    """What options call these bytes."""
    return _PREFIX + hashlib.sha256(content).hexdigest()


def is_reference(value: object) -> bool:
    """Does an option's value name a placed file?"""
    return isinstance(value, str) and _REFERENCE.fullmatch(value) is not None


def file_name(reference: str) -> str:
    """What a placed file is called: its checksum, in hexadecimal digits."""
    assert is_reference(reference), reference
    return reference.removeprefix(_PREFIX)


def load_placed(name: str, options: Mapping[str, Any], folder: Path) -> Workload:
    """Make a workload whose files lie in ``folder``.

    Raises:
        BadInput: a file is missing or has other bytes than its name says; or as `workloads.load_workload`.
    """
    return load_workload(name, placed_options(options, folder))


def placed_options(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Options with the path of the placed file in the place of each reference.

    Raises:
        BadInput: a file is missing or has other bytes than its name says.
    """
    return {key: str(_checked(str(value), folder)) if is_reference(value) else value for key, value in options.items()}


def _checked(reference: str, folder: Path) -> Path:
    """The path of a placed file, after a look at all of its bytes."""
    path = folder / file_name(reference)
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise BadInput(
            f"{path}: a file of the workload or the policy cannot be read: {error.strerror}; start the run again"
        ) from None
    if digest.hexdigest() != path.name:
        raise BadInput(
            f"{path}: has other bytes than were checked, its SHA-256 is {digest.hexdigest()}; delete it and run again"
        )
    return path
