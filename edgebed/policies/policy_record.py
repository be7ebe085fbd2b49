"""``policy.json``: what a learned policy's file says of itself, and its plain forms."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np

from edgebed.errors import BadInput, SchemaMismatch
from edgebed.policies.forward import Network
from edgebed.types import Feature

SCHEMA_VERSION = 1
ACTOR = "actor"
HOSTS = "hosts"
JOINT = "joint"
DEVICE = "device"
SCOPES = (JOINT, DEVICE)


class FeatureRecord(msgspec.Struct, forbid_unknown_fields=True):
    """A feature; a bound that is null is infinite."""

    name: str
    unit: str
    low: float | None = None
    high: float | None = None
    meaning: str = ""


class LayerRecord(msgspec.Struct, forbid_unknown_fields=True):
    """A layer; ``devices``: each of so many has its own weights, null: all share them."""

    inputs: int
    outputs: int
    activation: str
    devices: int | None = None


class PolicyRecord(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The file's keys; see `edgebed.policies.policy_file.PolicyFile` for meanings."""

    schema_version: int
    edgebed: str
    scenario: str
    scenario_parameters: dict[str, Any] = {}
    scope: str
    slots: list[str]
    device_features: list[FeatureRecord]
    shared_features: list[FeatureRecord] = []
    choices: list[str] = []
    numbers: list[FeatureRecord] = []
    head: str
    squash: str = "tanh"
    transforms: list[str] = []
    clip: float = 1e6
    networks: dict[str, list[LayerRecord]]
    learner: str = ""
    version: str
    training: dict[str, Any] = {}
    weights_sha256: str


class _Version(msgspec.Struct):
    schema_version: int
    edgebed: str = "an unknown version"


def read_record(name: str, content: bytes) -> PolicyRecord:
    """The record in a file's bytes.

    Args:
        name: the file, for errors.
        content: JSON.

    Raises:
        BadInput: it is not JSON, or a key is missing, unknown or of the wrong type.
        SchemaMismatch: it was written by a newer edgebed.
    """
    try:
        version = msgspec.json.decode(content, type=_Version)
        if version.schema_version != SCHEMA_VERSION:
            raise SchemaMismatch(
                f"{name}: has schema {version.schema_version}, written by edgebed {version.edgebed}; this edgebed "
                f"reads schema {SCHEMA_VERSION}: {_way_out(version.schema_version)}"
            )
        return msgspec.json.decode(content, type=PolicyRecord)
    except msgspec.MsgspecError as error:
        raise BadInput(f"{name}: is not the record of a policy: {error}; save it with save_policy") from None


def _way_out(found: int) -> Literal["install a newer edgebed", "train it again"]:
    return "install a newer edgebed" if found > SCHEMA_VERSION else "train it again"


def to_feature_record(feature: Feature) -> FeatureRecord:
    """A feature for the file: JSON has no infinity."""
    low = float(feature.low) if np.isfinite(feature.low) else None
    high = float(feature.high) if np.isfinite(feature.high) else None
    return FeatureRecord(feature.name, feature.unit, low, high, feature.meaning)


def to_feature(record: FeatureRecord) -> Feature:
    """A feature of the file."""
    low = -np.inf if record.low is None else record.low
    high = np.inf if record.high is None else record.high
    return Feature(record.name, record.unit, low, high, record.meaning)


def record_layers(network: Network) -> list[LayerRecord]:
    """The layers of a network for the file."""
    return [LayerRecord(one.inputs, one.outputs, one.activation, network.count) for one in network.layers]
