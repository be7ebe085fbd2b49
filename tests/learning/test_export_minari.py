"""`edgebed export --to minari`: real transitions with the environments' spaces, and something learns from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import minari
import numpy as np
import pytest
import torch
from minari import MinariDataset

from edgebed.backend_toy import ToyBackend, ToyPlan
from edgebed.envs.backend import BackendEnv
from edgebed.trace.runs import Run, find_run
from edgebed.types import DEVICE_FEATURES
from orchestrator.cli import main

EXPERIMENT = """\
name: small
workload: digits
deadline_s: 0.7
arrivals: {kind: poisson, rate_per_s: 2, frames: {low: 4, high: 12}}
epoch_s: 0.5
epochs: 80
policies: [greedy_latency, {name: greedy_latency, label: own, placement: device}]
seeds: [1, 2]
backend: simulated
"""
STEPS = 80


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    (folder / "small.yaml").write_text(EXPERIMENT)
    assert main(["run", str(folder / "small.yaml"), "--runs", str(folder / "runs")]) == 0
    return find_run("small", folder / "runs")


@pytest.fixture(scope="module")
def folder(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("datasets")
    assert main(["export", str(run.path), "--to", "minari", "-o", str(folder)]) == 0
    return folder


@pytest.fixture
def load(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    return lambda name: minari.load_dataset(f"edgebed/small/{name}-v0")


def test_there_is_a_dataset_of_all_and_one_of_each_device(run: Run, folder: Path, load: Any) -> None:
    assert sorted(path.name for path in (folder / "edgebed" / "small").iterdir() if path.is_dir()) == [
        "joint-v0",
        "pi-1-v0",
        "pi-2-v0",
        "pi-3-v0",
    ]
    assert load("joint").total_episodes == 2  # a cell a seed; what devices decided by themselves is in theirs
    assert load("joint").total_steps == 2 * STEPS
    assert load("pi-1").total_episodes == 4
    assert load("pi-1").total_steps == 4 * STEPS


def test_spaces_are_those_of_the_environments_over_hosts(load: Any) -> None:
    env = BackendEnv(ToyBackend(), ToyPlan())
    assert load("joint").observation_space == env.observation_space
    assert load("joint").action_space == env.action_space
    assert load("pi-1").action_space.n == 2


def test_transitions_are_what_the_trace_says(run: Run, load: Any) -> None:
    for episode in load("joint").iterate_episodes():
        assert episode.observations.shape[0] == len(episode) + 1 == STEPS + 1
        assert not episode.terminations.any()
        assert episode.truncations.tolist() == [False] * (STEPS - 1) + [True]
        meta = dict(load("joint").storage.get_episode_metadata([episode.id]).__iter__().__next__())
        rows = run.query(
            "SELECT observation, action, reward FROM epochs WHERE cell_id = ? AND device_id = '' ORDER BY epoch",
            (text_of(meta["cell"]),),
        ).rows
        assert text_of(meta["behaviour_policy"]) == "greedy_latency"
        assert episode.rewards.tolist() == [reward for _, _, reward in rows[:-1]]
        width = len(DEVICE_FEATURES)
        for seen, (recorded, *_) in zip(episode.observations, rows, strict=True):
            shown = np.array(recorded, np.float32)
            assert seen[:width].tolist() == shown[:width].tolist()
            assert seen[width : width + 2].tolist() == [1.0, 0.0]
            assert seen[3 * (width + 2) :].tolist() == shown[3 * width :].tolist()
        for action, (_, recorded, _) in zip(episode.actions, rows[:-1], strict=True):
            site, server, channel = np.array(recorded).reshape(3, 6)[:, :3].T
            assert action.tolist() == np.where(site == 0, 0, 1 + server + channel).tolist()


def test_rewards_of_devices_add_up_to_the_joint_ones(load: Any) -> None:
    def by_cell(name: str) -> dict[str, Any]:
        dataset = load(name)
        metas = dataset.storage.get_episode_metadata(range(dataset.total_episodes))
        episodes = dataset.iterate_episodes()
        return {text_of(meta["cell"]): one.rewards for meta, one in zip(metas, episodes, strict=True)}

    joint, devices = by_cell("joint"), [by_cell(f"pi-{index}") for index in (1, 2, 3)]
    for cell, rewards in joint.items():
        np.testing.assert_allclose(sum(device[cell] for device in devices), rewards, rtol=1e-6)


def test_the_metadata_say_what_is_to_be_known(run: Run, load: Any) -> None:
    meta = json.loads(load("pi-2").storage.metadata["edgebed"])
    assert meta["run_id"] == run.manifest.run_id
    assert meta["verdict"] == run.manifest.verdict
    assert meta["flags"]["simulated"] == meta["tasks"]
    assert meta["actions"] == ["device", "server0.channel0"]
    assert [one["name"] for one in meta["observation"]][:1] == ["waiting_tasks"]
    assert all(one["unit"] for one in meta["observation"])


def test_a_policy_is_cloned_from_the_data(load: Any) -> None:
    """Behaviour cloning of what the devices did: on the held-out seed better than always doing the usual thing."""
    held, seen = split(load, seed=2)
    mean, scale = seen[0].mean(dim=0), seen[0].std(dim=0)
    scale[scale <= 1e-3 * mean.abs()] = torch.inf  # what hardly varies says nothing, and is not blown up
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = torch.nn.Sequential(torch.nn.Linear(seen[0].shape[1], 64), torch.nn.Tanh(), torch.nn.Linear(64, 2))
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(150):
        loss = torch.nn.functional.cross_entropy(network((seen[0] - mean) / scale), seen[1])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    right = (network((held[0] - mean) / scale).argmax(dim=1) == held[1]).float().mean().item()
    usual = torch.bincount(held[1], minlength=2).max().item() / len(held[1])
    assert right > usual + 0.05, (right, usual)


def split(load: Any, seed: int) -> tuple[Any, Any]:
    """Observations and actions of the episodes with this seed, and of the others."""
    parts: dict[bool, list[tuple[Any, Any]]] = {True: [], False: []}
    for name in ("pi-1", "pi-2", "pi-3"):
        dataset: MinariDataset = load(name)
        metas = dataset.storage.get_episode_metadata(range(dataset.total_episodes))
        for meta, episode in zip(metas, dataset.iterate_episodes(), strict=True):
            parts[text_of(meta["cell"]).endswith(f"s{seed}")].append((episode.observations[:-1], episode.actions))
    return tuple(  # type: ignore[return-value]
        (
            torch.tensor(np.concatenate([seen for seen, _ in parts[which]])),
            torch.tensor(np.concatenate([actions for _, actions in parts[which]])),
        )
        for which in (True, False)
    )


def text_of(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def test_a_dataset_is_not_overwritten(run: Run, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run.path), "--to", "minari", "-o", str(folder)]) == 2
    assert "there already" in capsys.readouterr().err
