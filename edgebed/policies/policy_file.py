"""A learned policy as a file: ``policy.json`` says what it is, ``policy.npz`` has its numbers.

Written by learners, read where there is no torch. Nothing in it is ever unpickled. The JSON names the checksum of the
numbers, so that a half-copied folder is noticed; both are checked whole before anything is computed.

    save_policy(folder, policy)         policy = load_policy(folder)
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgebed import __version__
from edgebed.errors import BadInput, SchemaMismatch
from edgebed.policies.forward import Layer, Network
from edgebed.policies.heads import Head
from edgebed.policies.inputs import Inputs
from edgebed.policies.policy_record import (
    ACTOR,
    HOSTS,
    JOINT,
    SCHEMA_VERSION,
    SCOPES,
    PolicyRecord,
    read_record,
    record_layers,
    to_feature,
    to_feature_record,
)
from edgebed.types import Feature, Float32Array

__all__ = [
    "ACTOR",
    "HOSTS",
    "JOINT",
    "SCHEMA_VERSION",
    "Inputs",
    "PolicyFile",
    "find_policy",
    "load_policy",
    "pack_policy",
    "save_policy",
]

JSON_NAME = "policy.json"
NPZ_NAME = "policy.npz"
MOST_BYTES = 256 << 20
_PACKED = b"edgebed-policy\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFile:
    """A learned policy, with all that is needed to know what it may be asked.

    Attributes:
        scenario: the scenario that it was trained in (``calibrated:...`` included), or ``hosts``.
        scenario_parameters: the settings of the scenario, plain data.
        scope: ``joint``: sees all devices and decides for all; ``device``: sees one device's view, decides for it.
        slots: names of the devices it was trained for, in order.
        device_features: columns of a device; with scope ``device`` all columns of its view.
        shared_features: columns that follow once, after all devices; none with scope ``device``.
        choices: meanings of the choices, in order. head: how outputs become actions.
        inputs: normalisation.
        networks: by name; the ``actor`` decides, others (a master critic, say) serve special policies.
        learner: the learner's registered name.
        version: changes whenever it would decide differently; made from the checksum unless given.
        training: where it comes from: steps, seed, settings; plain data.
    """

    scenario: str
    scope: str
    slots: tuple[str, ...]
    device_features: tuple[Feature, ...]
    choices: tuple[str, ...]
    head: Head
    inputs: Inputs
    networks: Mapping[str, Network]
    shared_features: tuple[Feature, ...] = ()
    scenario_parameters: Mapping[str, Any] = field(default_factory=dict)
    learner: str = ""
    version: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def actor(self) -> Network:
        """The network that decides."""
        return self.networks[ACTOR]

    @property
    def width(self) -> int:
        """Numbers that go into the actor for one decision (of all devices, or of one)."""
        devices = len(self.slots) if self.scope == JOINT else 1
        return devices * len(self.device_features) + len(self.shared_features)

    def outputs(self, x: Float32Array) -> Float32Array:
        """What the head takes, ``[B, N, outputs of a device]``.

        Args:
            x: raw inputs, float32: ``[B, width]`` of a joint policy, ``[B, N, width]`` of a device's.
        """
        raw = self.actor(self.inputs(x))
        return raw.reshape(len(raw), len(self.slots), -1) if self.scope == JOINT else raw

    def problems(self) -> Iterator[str]:
        """Everything that does not fit together."""
        if self.scope not in SCOPES:
            yield f"there is no scope {self.scope!r}; allowed: {', '.join(SCOPES)}"
        if not self.slots or len(set(self.slots)) < len(self.slots):
            yield f"slots must be one or more different names, got {list(self.slots)}"
        if self.scope != JOINT and self.shared_features:
            yield "with scope device all columns of the view are device_features, shared_features is empty"
        yield from self.head.problems()
        if self.head.choices != len(self.choices):
            yield f"the head has {self.head.choices} choices, the action has {len(self.choices)}"
        if ACTOR not in self.networks:
            yield f"there is no network {ACTOR!r}; there are: {', '.join(self.networks) or 'none'}"
            return
        yield from self.inputs.problems(self.width)
        yield from self._actor_problems()

    def _actor_problems(self) -> Iterator[str]:
        actor, slots = self.actor, len(self.slots)
        if actor.inputs != self.width:
            yield f"the actor takes {actor.inputs} inputs, the observation has {self.width}"
        expected = self.head.outputs * (slots if self.scope == JOINT else 1)
        if actor.outputs != expected:
            yield f"the actor gives {actor.outputs} outputs; {self.head.kind} of {slots} slots needs {expected}"
        if actor.count is not None and (self.scope == JOINT or actor.count != slots):
            yield f"the actor has weights for {actor.count} devices, the policy is {self.scope} with {slots} slots"


def save_policy(folder: Path | str, policy: PolicyFile) -> PolicyFile:
    """Write a policy; a reader sees the old one or the new one.

    Args:
        folder: made where it is missing.
        policy: what is written.

    Returns:
        The policy with its version filled in.

    Raises:
        BadInput: it does not fit together, with everything that is wrong; or the folder cannot be written.
    """
    _refuse(f"policy for {folder}", policy)
    content = _npz(policy)
    checksum = hashlib.sha256(content).hexdigest()
    policy = policy if policy.version else replace(policy, version=f"{policy.learner or 'network'}-{checksum[:12]}")
    record = msgspec.json.format(msgspec.json.encode(_record(policy, checksum)), indent=1)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The JSON last: it names the checksum of the numbers, so a mixture of two policies is noticed.
        for name, data in ((NPZ_NAME, content), (JSON_NAME, record)):
            fresh = folder / f".{name}.{os.getpid()}"
            fresh.write_bytes(data)
            fresh.replace(folder / name)
    except OSError as error:
        raise BadInput(f"{folder}: no policy can be written here: {error.strerror}") from None
    return policy


def find_policy(where: Path | str) -> Path:
    """The folder of a policy: ``where`` itself, or the only ``policies/seed-*`` of a training's folder.

    Raises:
        BadInput: there is none, or more than one; they are named.
    """
    where = Path(where)
    if (where / JSON_NAME).is_file() or where.is_file():
        return where
    seeds = sorted(path.parent for path in where.glob(f"policies/seed-*/{JSON_NAME}"))
    if len(seeds) == 1:
        return seeds[0]
    if seeds:
        names = ", ".join(str(path) for path in seeds)
        raise BadInput(f"{where}: a training of {len(seeds)} seeds; name the policy of one: {names}")
    what = "has no policy.json" if where.is_dir() else "is not a folder"
    raise BadInput(f"{where}: {what}; a policy's folder is needed, for example <training>/policies/seed-0")


def load_policy(where: Path | str | bytes) -> PolicyFile:
    """Read and check a policy.

    Args:
        where: its folder, the folder of a training of one seed, a file of `pack_policy`'s bytes, or these bytes.

    Raises:
        BadInput: it is missing, damaged, has pickled data, or does not fit together; everything that is wrong.
        SchemaMismatch: it was written by a newer edgebed.
    """
    if isinstance(where, bytes):
        return _from_bytes("policy", *_unpacked("policy", where))
    path = find_policy(where)
    if path.is_file():
        return _from_bytes(str(path), *_unpacked(str(path), _read(path)))
    return _from_bytes(str(path), _read(path / JSON_NAME), _read(path / NPZ_NAME))


def pack_policy(where: Path | str) -> bytes:
    """A policy's folder, checked, as one string of bytes, for hosts; the same policy gives the same bytes.

    Raises:
        BadInput, SchemaMismatch: as `load_policy`.
    """
    load_policy(where)
    path = find_policy(where)
    if path.is_file():
        return _read(path)
    return _PACKED + msgspec.msgpack.encode([_read(path / JSON_NAME), _read(path / NPZ_NAME)])


def _unpacked(name: str, content: bytes) -> tuple[bytes, bytes]:
    try:
        if not content.startswith(_PACKED):
            raise msgspec.DecodeError("it begins with other bytes")
        return msgspec.msgpack.decode(content[len(_PACKED) :], type=tuple[bytes, bytes])
    except msgspec.MsgspecError as error:
        raise BadInput(f"{name}: is not a packed policy ({error}); a policy's folder is needed") from None


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BadInput(f"{path}: has {path.stat().st_size} bytes; a policy's file has at most {MOST_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}; copy the policy's whole folder again") from None


def _from_bytes(name: str, record_bytes: bytes, content: bytes) -> PolicyFile:
    record = read_record(f"{name}/{JSON_NAME}", record_bytes)
    arrays = _arrays(f"{name}/{NPZ_NAME}", content)
    networks = {}
    for network, layers in record.networks.items():
        try:
            networks[network] = Network(
                [
                    Layer(
                        _taken(arrays, f"{network}.{i}.weight"), _taken(arrays, f"{network}.{i}.bias"), one.activation
                    )
                    for i, one in enumerate(layers)
                ]
            )
        except BadInput as error:
            raise BadInput(f"{name}: network {network}: {error}") from None
    policy = _of_record(name, record, arrays, networks)
    _refuse(name, policy)
    if arrays:
        raise BadInput(f"{name}/{NPZ_NAME}: has arrays that {JSON_NAME} does not name: {', '.join(sorted(arrays))}")
    for network, layers in record.networks.items():
        if record_layers(networks[network]) != layers:
            raise SchemaMismatch(
                f"{name}: {JSON_NAME} says that {network} has the layers {_shapes(layers)}; "
                f"{NPZ_NAME} has {_shapes(record_layers(networks[network]))}"
            )
    # Last, so that what is wrong with the numbers is told rather than that they have changed.
    checksum = hashlib.sha256(content).hexdigest()
    if checksum != record.weights_sha256:
        raise SchemaMismatch(
            f"{name}: {NPZ_NAME} has the SHA-256 {checksum}, {JSON_NAME} was written with {record.weights_sha256}: "
            "they belong to two policies, or one is damaged; copy the whole folder again"
        )
    return policy


def _shapes(layers: list[Any]) -> str:
    return ", ".join(f"{one.inputs}x{one.outputs}" for one in layers)


def _of_record(
    name: str, record: PolicyRecord, arrays: dict[str, Float32Array], networks: dict[str, Network]
) -> PolicyFile:
    try:
        inputs = Inputs(_taken(arrays, "mean"), _taken(arrays, "scale"), tuple(record.transforms), record.clip)
    except BadInput as error:
        raise BadInput(f"{name}: {error}") from None
    numbers = tuple(to_feature(one) for one in record.numbers)
    return PolicyFile(
        scenario=record.scenario,
        scenario_parameters=record.scenario_parameters,
        scope=record.scope,
        slots=tuple(record.slots),
        device_features=tuple(to_feature(one) for one in record.device_features),
        shared_features=tuple(to_feature(one) for one in record.shared_features),
        choices=tuple(record.choices),
        head=Head(record.head, len(record.choices), numbers, record.squash),
        inputs=inputs,
        networks=networks,
        learner=record.learner,
        version=record.version,
        training=record.training,
    )


def _record(policy: PolicyFile, checksum: str) -> PolicyRecord:
    return PolicyRecord(
        schema_version=SCHEMA_VERSION,
        edgebed=__version__,
        scenario=policy.scenario,
        scenario_parameters=dict(policy.scenario_parameters),
        scope=policy.scope,
        slots=list(policy.slots),
        device_features=[to_feature_record(one) for one in policy.device_features],
        shared_features=[to_feature_record(one) for one in policy.shared_features],
        choices=list(policy.choices),
        numbers=[to_feature_record(one) for one in policy.head.numbers],
        head=policy.head.kind,
        squash=policy.head.squash,
        transforms=list(policy.inputs.transforms),
        clip=policy.inputs.clip,
        networks={name: record_layers(network) for name, network in policy.networks.items()},
        learner=policy.learner,
        version=policy.version,
        training=dict(policy.training),
        weights_sha256=checksum,
    )


def _refuse(name: str, policy: PolicyFile) -> None:
    problems = list(policy.problems())
    if problems:
        raise SchemaMismatch(f"{name}: " + "; ".join(problems))


def _npz(policy: PolicyFile) -> bytes:
    arrays = {"mean": policy.inputs.mean, "scale": policy.inputs.scale}
    for name, network in policy.networks.items():
        for index, layer in enumerate(network.layers):
            arrays |= {f"{name}.{index}.weight": layer.weight, f"{name}.{index}.bias": layer.bias}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _arrays(name: str, content: bytes) -> dict[str, Float32Array]:
    """The arrays of an ``.npz`` file, no larger than the file, none of them pickled."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            packed = [info.filename for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]
        if packed:
            raise BadInput(f"{name}: {', '.join(packed)} is compressed, which save_policy never does; save it again")
        with np.load(io.BytesIO(content), allow_pickle=False) as loaded:
            arrays = {key: loaded[key] for key in loaded.files}
    except zipfile.BadZipFile as error:
        raise BadInput(f"{name}: is not an .npz file, or was cut off ({error}); copy it again") from None
    except (ValueError, EOFError, OSError) as error:
        why = "has pickled data, which is never loaded: it could run any program" if "pickle" in str(error) else error
        raise BadInput(f"{name}: {why}; save the policy again with edgebed's save_policy") from None
    wrong = [f"{key} is {array.dtype}" for key, array in arrays.items() if array.dtype != np.float32]
    if wrong:
        raise BadInput(f"{name}: {', '.join(wrong)}; every array is float32")
    return arrays


def _taken(arrays: dict[str, Float32Array], key: str) -> Float32Array:
    if key not in arrays:
        raise BadInput(f"{NPZ_NAME} has no array {key!r} (any more); it has: {', '.join(sorted(arrays)) or 'none'}")
    return arrays.pop(key)
