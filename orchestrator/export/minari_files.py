"""A run as Minari datasets: one of all devices together, and one a device.

They lie in the output folder as Minari lays them out; ``MINARI_DATASETS_PATH=FOLDER`` makes `minari.load_dataset` find
them. Spaces are those of the environments over hosts (`edgebed.envs.backend`).
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgebed.errors import BadInput, MissingExtra
from edgebed.simulation.hosts_layout import layout_of
from edgebed.trace.runs import Run
from edgebed.types import ObservationSpec
from orchestrator.export.csv_files import make_folder
from orchestrator.export.episodes import (
    DECISION,
    Episode,
    actions_of,
    check_has_epochs,
    episodes_of,
    plan_of_run,
    spec_of_cell,
)
from orchestrator.plan_file import Plan

JOINT = "joint"
METADATA_KEY = "edgebed"
_PATH_VARIABLE = "MINARI_DATASETS_PATH"


def write_minari(run: Run, folder: Path) -> list[dict[str, Any]]:
    """Write ``edgebed/<experiment>/joint-v0`` and ``edgebed/<experiment>/<device>-v0``.

    Args:
        run: sealed, its cells with the same number of channels.
        folder: made where it is missing.

    Returns:
        Of each dataset: ``id, episodes, steps``.

    Raises:
        BadInput: the run has not been sealed, decided nothing, or a dataset is there already.
        MissingExtra: Minari is not installed.
    """
    try:
        import h5py  # noqa: F401  (Minari finds out late that it needs it)
        import minari  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtra("minari", "export --to minari") from None
    check_has_epochs(run)
    plan = plan_of_run(run)
    spec = _one_spec(run, plan)
    grouped: dict[str, list[Episode]] = {}
    for cell in plan.cells:
        for episode in episodes_of(run, cell):
            grouped.setdefault(episode.device or JOINT, []).append(episode)
    if not grouped:
        raise BadInput(f"{run.path}: no two consecutive epochs were recorded, so there is no transition to export")
    names = {name: f"edgebed/{_plain(plan.experiment)}/{_plain(name)}-v0" for name in grouped}
    there = [str(folder / each) for each in names.values() if (folder / each).exists()]
    if there:
        raise BadInput(f"{', '.join(there)}: there already; name another folder with -o, or delete them")
    make_folder(folder)
    with _datasets_in(folder):
        return [_write(run, plan, spec, names[name], name, grouped[name]) for name in sorted(grouped)]


def _one_spec(run: Run, plan: Plan) -> ObservationSpec:
    specs = {spec_of_cell(cell) for cell in plan.cells}
    if len(specs) != 1:
        counts = sorted({spec.channels for spec in specs})
        raise BadInput(f"{run.path}: its settings have {counts} channels; a dataset has one space: export runs of one")
    return specs.pop()


def _write(
    run: Run, plan: Plan, spec: ObservationSpec, name: str, group: str, episodes: Sequence[Episode]
) -> dict[str, Any]:
    import minari
    from minari.data_collector import EpisodeBuffer

    is_joint = group == JOINT
    indices = [actions_of(episode.decisions, spec.channels) for episode in episodes]
    is_full = any(one is None for one in indices)
    buffers = []
    for number, (episode, index) in enumerate(zip(episodes, indices, strict=True)):
        actions: Any = episode.decisions.astype(np.float32) if is_full else index
        ends = np.arange(len(episode)) == len(episode) - 1
        fallback = np.array([by == "fallback" for by in episode.decided_by])
        buffers.append(
            EpisodeBuffer(
                id=number,
                seed=episode.seed,
                observations=_limited(episode.observations),
                actions=actions if is_joint else actions[:, 0],
                rewards=episode.rewards,
                terminations=np.zeros(len(episode), np.bool_),
                truncations=ends,
                # Minari keeps one more of these than there are steps: the first belongs to the reset.
                infos={
                    "reward_complete": np.concatenate([[True], episode.is_complete]),
                    "decided_by_fallback": np.concatenate([[False], fallback]),
                },
            )
        )
    observation_space, action_space = _spaces(spec, is_joint, is_full)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it knows no author's e-mail, no link to code
        dataset = minari.create_dataset_from_buffers(
            name,
            buffers,
            observation_space=observation_space,
            action_space=action_space,
            algorithm_name=", ".join(sorted({episode.policy for episode in episodes})),
            description=f"run {run.manifest.run_id} of edgebed, {'all devices' if is_joint else group}",
        )
    dataset.storage.update_metadata({METADATA_KEY: json.dumps(_metadata(run, plan, spec, is_joint, is_full))})
    dataset.storage.update_episode_metadata([_episode_metadata(one) for one in episodes], np.arange(len(episodes)))
    return {"id": name, "episodes": len(episodes), "steps": sum(len(one) for one in episodes)}


def _spaces(spec: ObservationSpec, is_joint: bool, is_full: bool) -> tuple[Any, Any]:
    from gymnasium import spaces

    from edgebed.envs.spaces import box_of, device_action_space, joint_action_space, joint_features

    layout = layout_of(spec)
    slots = len(spec.slots) if is_joint else 1
    columns = joint_features(spec.slots if is_joint else ("",), layout.device_features, layout.shared_features)
    if not is_full:
        actions = joint_action_space(layout.actions, slots) if is_joint else device_action_space(layout.actions)
        return box_of(columns), actions
    high = np.array([2, max(0, len(spec.servers) - 1), spec.channels - 1, 1, 1, 1], np.float32)
    high = np.tile(high, (slots, 1)) if is_joint else high
    return box_of(columns), spaces.Box(np.zeros_like(high), high, dtype=np.float32)


def _limited(observations: Any) -> Any:
    largest = np.finfo(np.float32).max
    return np.clip(observations, -largest, largest)


def _metadata(run: Run, plan: Plan, spec: ObservationSpec, is_joint: bool, is_full: bool) -> dict[str, Any]:
    """What a user of the data has to know: where it is from, what its columns mean, what is to be mistrusted."""
    layout = layout_of(spec)
    slots = spec.slots if is_joint else ("",)
    named = [(slot, one) for slot in slots for one in layout.device_features] + [
        ("", one) for one in layout.shared_features
    ]
    flags: Counter[str] = Counter()
    for found, count in run.query("SELECT flags, count(*) FROM tasks GROUP BY ALL").rows:
        flags.update(dict.fromkeys(found or [], count))
    manifest = run.manifest
    return {
        "run_id": manifest.run_id,
        "edgebed": manifest.software.edgebed or plan.edgebed,
        "schema_version": manifest.schema_version,
        "backend": manifest.backend,
        "verdict": manifest.verdict,
        "verdict_reasons": manifest.reasons,
        "flags": dict(sorted(flags.items())),
        "tasks": sum(count for _, count in run.query("SELECT 1, count(*) FROM tasks").rows),
        "slots": list(spec.slots),
        "observation": [{"slot": slot, "name": one.name, "unit": one.unit} for slot, one in named],
        "actions": ["site", "server", "channel", "edge_fraction", "cpu_fraction", "power_fraction"][:DECISION]
        if is_full
        else list(layout.actions.choices),
        "reward": "minus the sum of the costs of the tasks that the decision covered",
        "not_recorded": "present is 1 where a slot has any number that is not 0; age_s is always 0",
    }


def _episode_metadata(episode: Episode) -> dict[str, Any]:
    return {
        "cell": episode.cell_id,
        "behaviour_policy": episode.policy,
        "policy_versions": ",".join(sorted(set(episode.versions))),
        "device": episode.device,
        "first_epoch": episode.first_epoch,
    }


def _plain(name: str) -> str:
    """A name as Minari allows it in an id."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-") or "run"


@contextmanager
def _datasets_in(folder: Path) -> Iterator[None]:
    before = os.environ.get(_PATH_VARIABLE)
    os.environ[_PATH_VARIABLE] = str(folder.resolve())
    try:
        yield
    finally:
        if before is None:
            del os.environ[_PATH_VARIABLE]
        else:
            os.environ[_PATH_VARIABLE] = before
