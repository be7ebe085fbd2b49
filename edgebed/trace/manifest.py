"""``manifest.json`` of a run folder: what the run is, how it stands, and what it may be used for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from edgebed.errors import BadInput, Problem, SchemaMismatch
from edgebed.replacing import replace_file
from edgebed.trace.schema import SCHEMA_VERSION

MANIFEST_FILE = "manifest.json"

State = Literal["planned", "running", "complete", "incomplete", "failed"]
VerdictName = Literal["valid", "suspect", "invalid"]


class ClockOffset(msgspec.Struct, kw_only=True):
    """A host's clock against the run clock, and how wrong that may be."""

    offset_s: float
    error_s: float


class Software(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What ran: versions, and where the code came from.

    Attributes:
        git_commit: empty when the code is not in a git repository. git_dirty: it had changes that no commit has.
        packages: installed version by distribution name.
    """

    edgebed: str = ""
    python: str = ""
    git_commit: str = ""
    git_dirty: bool | None = None
    packages: dict[str, str] = {}


class Model(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The recogniser, and the accuracy that its card promises (share of frames, 0..1)."""

    name: str = ""
    sha256: str = ""
    accuracy: float | None = None


class Manifest(msgspec.Struct, kw_only=True):
    """``manifest.json``: what a run is, how it stands, and what it may be used for.

    Attributes:
        started, ended: UTC as ISO 8601, empty in runs that hold no wall-clock value.
        command: the command line that reproduces the run.
        hosts: facts by host name, as plain data; ``board`` is the board file's content.
        clocks: clock offset by host name.
        counts: planned, done, failed, unknown and so on, see `orchestrator.seal.SealedCounts`.
        problems: what sealing found damaged.
        profile: of a simulated run: ``file`` in its folder, ``sha256``, ``kind`` (stated or calibrated), ``text``.
        replay: of a replay: its mode, its source, shares and errors, see ``docs/replay.md``.
    """

    schema_version: int = SCHEMA_VERSION
    run_id: str
    experiment: str
    plan_hash: str = ""
    backend: str = "hosts"
    state: State = "planned"
    verdict: VerdictName | None = None
    reasons: list[str] = []
    started: str = ""
    ended: str = ""
    command: str = ""
    software: Software = msgspec.field(default_factory=Software)
    model: Model = msgspec.field(default_factory=Model)
    hosts: dict[str, dict[str, Any]] = {}
    clocks: dict[str, ClockOffset] = {}
    counts: dict[str, int] = {}
    problems: list[str] = []
    profile: dict[str, str] = {}
    replay: dict[str, Any] = {}


def write_manifest(run_folder: Path, manifest: Manifest) -> None:
    """Replace a run's manifest; after a crash there is the old one or the new one, never half of one."""
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    replace_file(run_folder / MANIFEST_FILE, text + b"\n")


def read_manifest(run_folder: Path) -> Manifest:
    """The manifest of a run.

    Raises:
        BadInput: there is none, or it is not one.
        SchemaMismatch: it was written by a newer edgebed than this.
    """
    path = run_folder / MANIFEST_FILE
    try:
        data = path.read_bytes()
        version = msgspec.json.decode(data, type=_Version).schema_version
        if version > SCHEMA_VERSION:
            raise SchemaMismatch(
                f"{path}: the run has schema version {version}; this edgebed reads up to {SCHEMA_VERSION}: update it"
            )
        return msgspec.json.decode(data, type=Manifest)
    except OSError as error:
        raise BadInput(Problem(f"cannot be read: {error.strerror}", file=str(path))) from None
    except msgspec.MsgspecError as error:
        raise BadInput(Problem(f"not a run's manifest: {error}", file=str(path))) from None


class _Version(msgspec.Struct):
    schema_version: int
