"""The manifest of the shipped files: their checksums, and every number that the model card states.

The training script writes it; nobody edits it by hand. A file is handed out only when its bytes are the ones that were
measured, so a run can never report the accuracy of one model and execute another.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from edgebed.errors import BadInput

FOLDER = Path(__file__).resolve().parent
MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 1
RETRAIN = "restore it from the repository or run `python -m workloads.digits.training.train`"


class Scans(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The scans' file and how many of them each part of the split has."""

    file: str
    sha256: str
    source: str
    split_seed: int
    train: int
    validation: int
    test: int


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The network's file; ``multiply_adds`` of one frame, so its FLOPs are twice that."""

    file: str
    sha256: str
    multiply_adds: int
    parameters: int
    file_bytes: int


class Training(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the weights came about.

    Attributes:
        frames: rendered and learnt from.
        duration_s: wall time of the training.
        earlier_test_accuracies: what earlier recipes reached on the same test scans; each look at them makes the
            stated accuracy a little less independent of them.
    """

    command: str
    seed: int
    rounds: int
    frames: int
    best_round: int
    validation_accuracy: float
    duration_s: float
    earlier_test_accuracies: tuple[float, ...]
    packages: dict[str, str]


class Accuracy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Recognition of the test scans, each rendered ``renderings`` times, through JPEG and ONNX Runtime.

    Attributes:
        low: lower end of the 95 % binomial (Wilson) interval of ``correct / frames``: which frames one might draw.
        high: its upper end.
        scans_right: scans of which most renderings were recognised.
        scans_low: lower end of the interval of ``scans_right / scans``: which scans one might have been given.
        scans_high: its upper end.
        by_digit: accuracy for each digit, 0 to 9.
    """

    scans: int
    renderings: int
    frames: int
    correct: int
    low: float
    high: float
    scans_right: int
    scans_low: float
    scans_high: float
    by_digit: tuple[float, ...]

    @property
    def fraction(self) -> float:
        """Fraction of frames that were recognised."""
        return self.correct / self.frames


class Cost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one frame costs where the script ran.

    Attributes:
        cpu_s_per_frame: median CPU time of decoding and recognising one frame, one thread.
        nominal_hz: clock that the processor states; cycles are time multiplied by it, an estimate.
        bytes_per_frame: mean encoded size.
    """

    cpu_s_per_frame: float
    nominal_hz: float
    bytes_per_frame: float
    bytes_low: int
    bytes_high: int
    render_s_per_frame: float
    processor: str

    @property
    def cycles_per_frame(self) -> float:
        """CPU cycles to decode and recognise one frame."""
        return self.cpu_s_per_frame * self.nominal_hz


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that is known about the shipped files."""

    schema_version: int
    scans: Scans
    model: Model
    training: Training
    accuracy: Accuracy
    cost: Cost


def read_manifest(folder: Path = FOLDER) -> Manifest:
    """Read a folder's manifest.

    Raises:
        BadInput: it is missing, malformed, or of another version.
    """
    path = folder / MANIFEST_NAME
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise BadInput(f"{path}: cannot be read as a manifest: {error}; {RETRAIN}") from error
    if manifest.schema_version != SCHEMA_VERSION:
        raise BadInput(f"{path}: schema_version is {manifest.schema_version}, expected {SCHEMA_VERSION}; {RETRAIN}")
    return manifest


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write a folder's manifest, readable for people."""
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    (folder / MANIFEST_NAME).write_bytes(text + b"\n")


def read_checked(folder: Path, file: str, sha256: str) -> bytes:
    """The bytes of a shipped file.

    Raises:
        BadInput: it is missing, or its bytes are not those that the manifest names.
    """
    path = folder / file
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error}; {RETRAIN}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise BadInput(f"{path}: SHA-256 is {found}, the manifest expects {sha256}; {RETRAIN}")
    return content
