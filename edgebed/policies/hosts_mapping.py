"""How a learned policy reads the hosts' observation, and what its outputs mean there.

A policy trained on hosts, or in a scenario calibrated from them, has the hosts' own columns and needs nothing. One that
was trained in a paper's scenario needs a mapping, spelt out by a person: which number of the hosts stands for which
number of the paper. ``docs/policies.md`` has an example.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import msgspec.yaml
import numpy as np

from edgebed.errors import BadInput, SchemaMismatch
from edgebed.policies.hosts_features import action_names, device_columns, shared_columns
from edgebed.policies.policy_file import HOSTS, JOINT, PolicyFile
from edgebed.types import Feature, Float32Array, IntArray, ObservationSpec

CALIBRATED = "calibrated:"
FRACTIONS = ("edge_fraction", "cpu_fraction", "power_fraction")


class Source(msgspec.Struct, forbid_unknown_fields=True, rename={"source": "from"}):
    """Where a number of the policy comes from: ``{from: FEATURE, scale: 1, offset: 0}`` or ``{value: 3.5}``."""

    source: str = ""
    scale: float = 1.0
    offset: float = 0.0
    value: float | None = None


class HostsMapping(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A mapping, as its file has it.

    Attributes:
        scenario: of the policy that it is for; empty: any.
        slots: the policy's slots by host's name, or ``in_order``; needed where their names differ.
        features: the policy's device features. shared: its shared features.
        choices: the policy's choices, each one of ``device``, ``server0.channel0``, ... (see `action_names`).
        numbers: the policy's numbers, each one of ``edge_fraction``, ``cpu_fraction``, ``power_fraction``, or
            ``unused``.
    """

    scenario: str = ""
    slots: Literal["in_order"] | dict[str, str] = {}
    features: dict[str, Source] = {}
    shared: dict[str, Source] = {}
    choices: dict[str, str] = {}
    numbers: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Columns:
    """Where the numbers of a network lie in the hosts' flat observation: its device block, then its server block.

    Attributes:
        index: ``[width]`` of a joint policy, ``[N, width]`` of a device's (a row a host's slot).
        scale, offset: of the same shape; the number is ``flat[index] * scale + offset``.
    """

    index: IntArray
    scale: Float32Array
    offset: Float32Array


def plain_mapping(given: Mapping[str, Any] | str, folder: Path = Path()) -> dict[str, Any]:
    """A mapping as plain data: what stands in the file where one is named.

    Args:
        given: plain data, or the name of a YAML file.
        folder: where the file is looked for first.

    Raises:
        BadInput: the file cannot be read, or is not a mapping.
    """
    if not isinstance(given, str):
        return dict(given)
    path = folder / given if (folder / given).exists() else Path(given)
    try:
        found = msgspec.yaml.decode(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path}: the mapping cannot be read: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise BadInput(f"{path}: the mapping is not YAML: {error}") from None
    if not isinstance(found, dict):
        raise BadInput(f"{path}: a mapping has keys and values; see docs/policies.md")
    return found


def read_mapping(plain: Mapping[str, Any]) -> HostsMapping:
    """A mapping from plain data.

    Raises:
        BadInput: a key is unknown or of the wrong type.
    """
    try:
        return msgspec.convert(dict(plain), HostsMapping)
    except msgspec.ValidationError as error:
        raise BadInput(f"mapping: {error}; its keys: {', '.join(HostsMapping.__struct_encode_fields__)}") from None


def check_fit(policy: PolicyFile, mapping: HostsMapping, spec: ObservationSpec) -> None:
    """Can the policy decide on these hosts?

    Raises:
        SchemaMismatch: with everything that does not fit, both sides named.
    """
    if policy.scenario != HOSTS and not policy.scenario.startswith(CALIBRATED) and not mapping.features:
        raise SchemaMismatch(
            f"the policy was trained in the scenario {policy.scenario}, whose observation has "
            f"{_names(policy.device_features)}; hosts give {_names(device_columns(spec))}: give it a `mapping` that "
            "says what stands for what (docs/policies.md), or train it in a scenario calibrated:PROFILE"
        )
    problems = [*_problems(policy, mapping, spec)]
    if problems:
        raise SchemaMismatch(f"policy {policy.version} does not fit these hosts: " + "; ".join(problems))


def host_slots(policy: PolicyFile, mapping: HostsMapping, spec: ObservationSpec) -> IntArray:
    """For each slot of the hosts the policy's slot, ``[N]``; after `check_fit`."""
    if policy.scope != JOINT and policy.actor.count is None:
        return np.zeros(len(spec.slots), np.int32)
    if mapping.slots == "in_order":
        return np.arange(len(spec.slots), dtype=np.int32)
    named = _named_slots(policy, mapping)
    return np.array([named[host] for host in spec.slots], np.int32)


def columns_of(policy: PolicyFile, mapping: HostsMapping, spec: ObservationSpec) -> Columns:
    """Where the policy's inputs lie; after `check_fit`."""
    slots, width = len(spec.slots), len(device_columns(spec))
    positions = {one.name: (True, i) for i, one in enumerate(device_columns(spec))}
    positions |= {one.name: (False, slots * width + i) for i, one in enumerate(shared_columns(spec))}

    def located(
        features: Sequence[Feature], sources: Mapping[str, Source], slot: int
    ) -> list[tuple[int, float, float]]:
        found = []
        for feature in features:
            source = sources.get(feature.name, Source(source=feature.name))
            if source.value is not None:
                found.append((0, 0.0, source.value))
                continue
            is_device, at = positions[source.source]
            found.append((at + slot * width if is_device else at, source.scale, source.offset))
        return found

    by_slot = [located(policy.device_features, mapping.features, slot) for slot in range(slots)]
    if policy.scope == JOINT:
        order = np.argsort(host_slots(policy, mapping, spec))  # the policy's slots, each the host's
        rows: Any = [one for slot in order for one in by_slot[slot]]
        rows += located(policy.shared_features, mapping.shared, 0)
    else:
        rows = by_slot
    table = np.array(rows, np.float64)
    return Columns(table[..., 0].astype(np.int32), table[..., 1].astype(np.float32), table[..., 2].astype(np.float32))


def own_columns(columns: Columns, spec: ObservationSpec) -> IntArray:
    """Where the inputs of a device's policy lie in the device's own numbers followed by the servers', ``[width]``.

    Args:
        columns: as `columns_of` gives them; of a joint policy nothing is asked that way, and the answer is empty.
        spec: of the hosts.
    """
    if columns.index.ndim == 1:
        return np.zeros(0, np.int32)
    width = len(device_columns(spec))
    first: IntArray = columns.index[0]  # the first slot's: its own numbers come first
    return np.where(first < width, first, first - (len(spec.slots) - 1) * width).astype(np.int32)


def choice_actions(policy: PolicyFile, mapping: HostsMapping, spec: ObservationSpec) -> IntArray:
    """For each choice of the policy the hosts' action index; after `check_fit`. Without choices: the first offload."""
    names = action_names(spec)
    if not policy.choices:
        return np.array([min(1, len(names) - 1)], np.int32)
    return np.array([names.index(mapping.choices.get(one, one)) for one in policy.choices], np.int32)


def _named_slots(policy: PolicyFile, mapping: HostsMapping) -> dict[str, int]:
    assert not isinstance(mapping.slots, str)
    index = {name: slot for slot, name in enumerate(policy.slots)}
    if not mapping.slots:
        return index
    return {host: index[slot] for host, slot in mapping.slots.items() if slot in index}


def _problems(policy: PolicyFile, mapping: HostsMapping, spec: ObservationSpec) -> Iterator[str]:
    if mapping.scenario not in ("", policy.scenario):
        yield f"the mapping is for the scenario {mapping.scenario}, the policy was trained in {policy.scenario}"
    yield from _slot_problems(policy, mapping, spec)
    yield from _feature_problems(policy, mapping, spec)
    names = action_names(spec)
    unknown = [one for one in policy.choices if mapping.choices.get(one, one) not in names]
    if unknown:
        yield f"its choices {', '.join(unknown)} mean nothing here; actions of these hosts: {', '.join(names)}"
    for number in policy.head.numbers:
        meant = mapping.numbers.get(number.name, number.name)
        if meant not in (*FRACTIONS, "unused"):
            yield f"its number {number.name} means nothing here; allowed: {', '.join(FRACTIONS)}, unused"
    for what, given, has in (
        ("features", mapping.features, [one.name for one in policy.device_features]),
        ("shared", mapping.shared, [one.name for one in policy.shared_features]),
        ("choices", mapping.choices, list(policy.choices)),
        ("numbers", mapping.numbers, [one.name for one in policy.head.numbers]),
    ):
        extra = sorted(set(given) - set(has))
        if extra:
            yield f"the mapping's {what} name {', '.join(extra)}; the policy has: {', '.join(has) or 'none'}"


def _slot_problems(policy: PolicyFile, mapping: HostsMapping, spec: ObservationSpec) -> Iterator[str]:
    if policy.scope != JOINT and policy.actor.count is None:
        return  # one network for whoever asks
    if len(policy.slots) != len(spec.slots):
        yield f"it was trained for {len(policy.slots)} devices, there are {len(spec.slots)}"
    elif mapping.slots != "in_order":
        missing = [host for host in spec.slots if host not in _named_slots(policy, mapping)]
        if missing or len(set(_named_slots(policy, mapping).values())) < len(policy.slots):
            yield (
                f"it was trained for the devices {', '.join(policy.slots)}, these are {', '.join(spec.slots)}: give "
                "it `mapping: {slots: in_order}`, or name each device's slot there"
            )


def _feature_problems(policy: PolicyFile, mapping: HostsMapping, spec: ObservationSpec) -> Iterator[str]:
    of_device = [one.name for one in device_columns(spec)]
    of_servers = [one.name for one in shared_columns(spec)]
    sides = (
        ("device", policy.device_features, mapping.features, [*of_device, *of_servers]),
        ("shared", policy.shared_features, mapping.shared, of_servers),
    )
    for side, features, sources, given in sides:
        missing = []
        for feature in features:
            source = sources.get(feature.name, Source(source=feature.name))
            if source.value is None and source.source not in given:
                missing.append(source.source or feature.name)
        if missing:
            yield f"it needs the {side} features {', '.join(missing)}; these hosts give: {', '.join(given) or 'none'}"


def _names(features: Sequence[Feature]) -> str:
    return ", ".join(one.name for one in features) or "nothing"
