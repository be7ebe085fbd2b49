"""The decisions of an earlier run, once more: what `edgebed replay --mode rerun` sends to hosts."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebed.errors import BadInput, SchemaMismatch
from edgebed.policies.base import Options, Policy, read_options, settle
from edgebed.types import Decision, Observation, ObservationSpec, PolicySpec, Site
from workloads.files import Packed, reference_to

COLUMNS: dict[str, Any] = {
    "seed": np.int64, "epoch": np.int64, "device": np.int64, "turn": np.int64,
    "site": np.int8, "server": np.int32, "channel": np.int32, "edge_fraction": np.float64,
}  # fmt: skip
"""Arrays of a file of decisions, a decision each; beside them are ``devices``, names in slot order.

``seed`` is what the policy is reset with: the cell's, or on a device one of its own. ``turn`` counts the decisions for
a device in one epoch, of which there are several where every arrival is decided by itself.
"""


class RecordedOptions(Options):
    """Settings of `Recorded`."""

    decisions: str = ""


class Recorded(Policy):
    """Decides as the record says, by seed, epoch and device; where it says nothing tasks stay on the device."""

    spec = PolicySpec(
        "recorded",
        sets=("site", "server", "channel", "edge_fraction"),
        options={"decisions": "file of decisions, as `edgebed replay --mode rerun` makes it; none by default"},
    )
    options_type = RecordedOptions
    options: RecordedOptions

    def __init__(self, observation_spec: ObservationSpec, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(observation_spec, options)
        self._columns: dict[str, NDArray[Any]] | None = None
        if self.options.decisions:
            path = Path(self.options.decisions)
            try:
                content = path.read_bytes()
            except OSError as error:
                raise BadInput(f"policy recorded: {path} cannot be read: {error.strerror}") from None
            self._columns = read_decisions(content, str(path))
            self._check_slots(path)
        self.reset(0)

    def _check_slots(self, path: Path) -> None:
        assert self._columns is not None
        names, slots = tuple(self._columns["devices"].tolist()), self.observation_spec.slots
        if names != slots:
            raise SchemaMismatch(
                f"policy recorded: {path} is of the devices {', '.join(names)}; these observations are of "
                f"{', '.join(slots)}: rerun on hosts of the same names"
            )

    @classmethod
    def pack(cls, options: Mapping[str, Any], folder: Path) -> Packed:
        """The file of decisions for hosts; see `workloads.files.NeedsFiles`.

        Raises:
            BadInput: it is not there, or damaged.
        """
        given = read_options(cls.spec, cls.options_type, options)
        if not given.decisions:
            return Packed(dict(options))
        path = folder / given.decisions
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BadInput(f"policy recorded: {path} cannot be read: {error.strerror}") from None
        read_decisions(content, str(path))
        reference = reference_to(content)
        return Packed(dict(options) | {"decisions": reference}, {reference: content})

    def reset(self, seed: int) -> None:
        """Begin at the first decision that was recorded for this seed."""
        super().reset(seed)
        self._epoch, self._turns = -1, np.zeros(len(self.observation_spec.slots), np.int64)
        self._answers: dict[tuple[int, int, int], tuple[int, int, int, float]] = {}
        if self._columns is not None:
            kept = self._columns["seed"] == seed
            columns = [self._columns[name][kept].tolist() for name in COLUMNS if name != "seed"]
            for epoch, device, turn, *answer in zip(*columns, strict=True):
                self._answers[epoch, device, turn] = tuple(answer)

    def decide(self, observation: Observation) -> Decision:
        """What was decided then; an action that is not allowed now is replaced as `settle` does."""
        if observation.epoch != self._epoch:
            self._epoch = observation.epoch
            self._turns[:] = 0
        spec = self.observation_spec
        decision = Decision.local(len(spec.slots))
        preferred = np.zeros(len(spec.slots), np.int32)
        for slot in np.flatnonzero(observation.present).tolist():
            answer = self._answers.get((observation.epoch, slot, int(self._turns[slot])))
            self._turns[slot] += 1
            if answer is None or answer[0] == Site.DEVICE:
                continue
            decision.site[slot], decision.server[slot], decision.channel[slot], decision.edge_fraction[slot] = answer
            preferred[slot] = 1 + answer[1] * spec.channels + answer[2]
        settled = Decision.from_actions(settle(preferred, observation), spec)
        changed = settle(preferred, observation) != preferred
        for name in ("site", "server", "channel", "edge_fraction"):
            getattr(decision, name)[changed] = getattr(settled, name)[changed]
        return decision


def decisions_file(devices: tuple[str, ...], columns: Mapping[str, NDArray[Any]]) -> bytes:
    """The content of a file of decisions; the same decisions give the same bytes.

    Args:
        devices: their names, in slot order.
        columns: see `COLUMNS`.
    """
    target = io.BytesIO()
    arrays: dict[str, Any] = {name: np.asarray(columns[name], kind) for name, kind in COLUMNS.items()}
    np.savez_compressed(target, devices=np.array(devices, np.str_), **arrays)
    return target.getvalue()


def read_decisions(content: bytes, file: str) -> dict[str, NDArray[Any]]:
    """The arrays of a file of decisions.

    Raises:
        BadInput: it is damaged, or something else.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as found:
            columns = {name: found[name] for name in (*COLUMNS, "devices")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BadInput(f"policy recorded: {file} is not a file of decisions: {error}") from None
    lengths = {len(columns[name]) for name in COLUMNS}
    if len(lengths) != 1 or any(columns[name].dtype != kind for name, kind in COLUMNS.items()):
        raise BadInput(f"policy recorded: {file} is not a file of decisions: its columns do not belong together")
    return columns


POLICY = Recorded
