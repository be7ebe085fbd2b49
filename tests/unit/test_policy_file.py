"""The files of learned policies: what is written comes back, and what does not fit is refused with both sides named."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgebed.errors import BadInput, SchemaMismatch
from edgebed.policies.forward import ACTIVATIONS, Layer, Network
from edgebed.policies.heads import Head
from edgebed.policies.inputs import Inputs
from edgebed.policies.network_testing import random_hosts_policy, random_network
from edgebed.policies.policy_file import PolicyFile, load_policy, pack_policy, save_policy
from edgebed.types import Feature, ObservationSpec

SPEC = ObservationSpec(("pi-1", "pi-2"), ("edge-1",), channels=2)
SHARE = Feature("edge_fraction", "1", 0, 1, "share of the frames")


def policy(**changes: Any) -> PolicyFile:
    return replace(random_hosts_policy(SPEC, hidden=(8,)), **changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_policy(tmp_path / "policy", policy())
    return tmp_path / "policy"


class TestForward:
    def test_two_layers_by_hand(self) -> None:
        network = Network([Layer.of([[1.0, -1.0], [2.0, 0.5]], [0.0, 1.0], "relu"), Layer.of([[1.0], [10.0]], [0.5])])
        # [1, 1] -> relu([3, 0.5]) -> 3 + 5 + 0.5; [0, -4] -> relu([-8, -1]) -> 0.5
        np.testing.assert_allclose(network(np.array([[1, 1], [0, -4]], np.float32)), [[8.5], [0.5]])

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("identity", lambda x: x),
            ("relu", lambda x: np.maximum(x, 0)),
            ("tanh", np.tanh),
            ("sigmoid", lambda x: 1 / (1 + np.exp(-x))),
            ("elu", lambda x: np.where(x > 0, x, np.exp(x) - 1)),
            ("leaky_relu", lambda x: np.where(x > 0, x, 0.01 * x)),
        ],
    )
    def test_activations(self, name: str, expected: Callable[[Any], Any]) -> None:
        x = np.linspace(-6, 6, 25)
        got = ACTIVATIONS[name](x.astype(np.float32))
        np.testing.assert_allclose(got, expected(x), rtol=1e-5, atol=1e-6)

    def test_no_activation_overflows(self) -> None:
        for function in ACTIVATIONS.values():
            assert np.isfinite(function(np.array([-3e38, 3e38], np.float32))).all()

    def test_weights_of_each_device_are_its_own(self) -> None:
        network = random_network([3, 5, 2], count=4)
        x = np.random.default_rng(0).normal(size=(6, 4, 3)).astype(np.float32)
        apart = [network.of_device(device)(x[:, device]) for device in range(4)]
        np.testing.assert_allclose(network(x), np.stack(apart, axis=1), rtol=1e-5, atol=1e-6)

    def test_the_input_is_left_alone(self) -> None:
        x = np.ones((2, 3), np.float32)
        x.flags.writeable = False
        random_network([3, 4, 1])(x)
        Inputs(np.zeros(3, np.float32), np.ones(3, np.float32), ("log10", "linear", "log1p"))(x)

    @pytest.mark.parametrize(
        ("layers", "text"),
        [
            ([], "no layers"),
            ([Layer.of(np.ones((2, 3)), np.ones(2))], r"bias has shape \(2,\); a weight of \(2, 3\) needs \(3,\)"),
            (
                [Layer.of(np.ones((2, 3)), np.ones(3)), Layer.of(np.ones((4, 1)), np.ones(1))],
                "layer 1 takes 4 numbers, the one before it gives 3",
            ),
            ([Layer.of(np.ones((2, 1)), [np.nan])], "bias has 1 of 1 numbers that are NaN"),
            ([Layer.of([[np.inf]], [0.0])], "weight has 1 of 1 numbers"),
            ([Layer.of([[1.0]], [0.0], "swish")], "no activation 'swish'; allowed: identity, relu"),
        ],
    )
    def test_layers_that_do_not_fit_are_refused(self, layers: list[Layer], text: str) -> None:
        with pytest.raises(SchemaMismatch, match=text):
            Network(layers)


class TestInputs:
    def test_normalises_and_limits(self) -> None:
        inputs = Inputs(np.array([10, 0], np.float32), np.array([2, 1], np.float32), clip=3.0)
        np.testing.assert_allclose(inputs(np.array([[14, 0.5], [1e38, -3.4e38]], np.float32)), [[2, 0.5], [3, -3]])

    def test_transforms(self) -> None:
        inputs = Inputs(np.zeros(3, np.float32), np.ones(3, np.float32), ("linear", "log10", "log1p"), clip=100.0)
        np.testing.assert_allclose(
            inputs(np.array([[5, 1000, np.e - 1], [5, 0, -1]], np.float32)), [[5, 3, 1], [5, -30, 0]], rtol=1e-5
        )


class TestHead:
    def test_the_best_allowed_choice(self) -> None:
        head = Head("categorical_per_device", 3)
        outputs = np.array([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0]], np.float32)
        assert head.choice(outputs).tolist() == [1, 1]
        assert head.choice(outputs, np.array([[True, False, True], [False] * 3])).tolist() == [2, 0]

    @pytest.mark.parametrize(
        ("squash", "expected"),
        [
            ("tanh", lambda x: 10 + 5 * (np.tanh(x) + 1)),
            ("sigmoid", lambda x: 10 + 10 / (1 + np.exp(-x))),
            ("tanh_cubed", lambda x: 10 + 5 * (np.tanh(x) ** 3 + 1)),
            ("clip", lambda x: 10 + 5 * (np.clip(x, -1, 1) + 1)),
        ],
    )
    def test_numbers_fill_their_range(self, squash: str, expected: Callable[[Any], Any]) -> None:
        head = Head("numbers", 0, (Feature("speed", "m/s", 10, 20, ""),), squash)
        x = np.linspace(-4, 4, 9, dtype=np.float32)[:, None]
        np.testing.assert_allclose(head.values(x), expected(x), rtol=1e-5)

    def test_threshold(self) -> None:
        assert Head("sigmoid_threshold", 2).actions(np.array([[[-0.1], [0.1]]], np.float32)).tolist() == [[0, 1]]

    def test_choice_and_numbers_lie_beside_each_other(self) -> None:
        actions = Head("choice_and_numbers", 2, (SHARE,)).actions(np.array([[[0, 1, 0], [2, 1, 9]]], np.float32))
        assert actions.dtype == np.float32
        np.testing.assert_allclose(actions, [[[1, 0.5], [0, 1.0]]], atol=1e-6)


class TestRoundTrip:
    @pytest.mark.parametrize(("scope", "own_weights"), [("joint", False), ("device", False), ("device", True)])
    @pytest.mark.parametrize("numbers", [(), (SHARE,)])
    def test_everything_comes_back(
        self, scope: str, own_weights: bool, numbers: tuple[Feature, ...], tmp_path: Path
    ) -> None:
        policy = random_hosts_policy(SPEC, scope=scope, own_weights=own_weights, numbers=numbers)
        saved = save_policy(tmp_path / "policy", replace(policy, training={"steps": 7}, scenario_parameters={"n": 2}))
        loaded = load_policy(tmp_path / "policy")
        for name in ("scenario", "scope", "slots", "device_features", "shared_features", "choices", "head", "learner"):
            assert getattr(loaded, name) == getattr(policy, name), name
        assert (loaded.training, loaded.scenario_parameters) == ({"steps": 7}, {"n": 2})
        assert loaded.version == saved.version
        shape = (5, policy.width) if scope == "joint" else (5, 2, policy.width)
        x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
        assert np.array_equal(loaded.outputs(x), policy.outputs(x))
        assert loaded.outputs(x).shape == (5, 2, policy.head.outputs)

    def test_the_same_policy_gives_the_same_bytes_and_version(self, folder: Path, tmp_path: Path) -> None:
        save_policy(tmp_path / "again", policy())
        assert pack_policy(folder) == pack_policy(tmp_path / "again")

    def test_other_weights_are_another_version(self, folder: Path, tmp_path: Path) -> None:
        other = save_policy(tmp_path / "other", random_hosts_policy(SPEC, hidden=(8,), seed=1))
        assert other.version != load_policy(folder).version

    def test_packed_bytes_are_read_too(self, folder: Path, tmp_path: Path) -> None:
        packed = pack_policy(folder)
        (tmp_path / "packed").write_bytes(packed)
        versions = {load_policy(source).version for source in (folder, packed, tmp_path / "packed")}
        assert len(versions) == 1
        assert pack_policy(tmp_path / "packed") == packed

    def test_a_training_of_one_seed_is_its_policy(self, tmp_path: Path) -> None:
        save_policy(tmp_path / "policies" / "seed-3", policy())
        assert load_policy(tmp_path).slots == SPEC.slots
        save_policy(tmp_path / "policies" / "seed-4", policy())
        with pytest.raises(BadInput, match=r"a training of 2 seeds; name the policy of one: .*seed-3, .*seed-4"):
            load_policy(tmp_path)

    def test_nothing_is_left_beside_the_two_files(self, folder: Path) -> None:
        assert sorted(path.name for path in folder.iterdir()) == ["policy.json", "policy.npz"]


def rewrite(folder: Path, **changes: Any) -> None:
    """Change keys of the record; None takes them away."""
    record = json.loads((folder / "policy.json").read_text()) | changes
    kept = {key: value for key, value in record.items() if value is not None}
    (folder / "policy.json").write_text(json.dumps(kept))


def replace_arrays(folder: Path, allow_pickle: bool = False, **changes: Any) -> None:
    """Change arrays, and the checksum with them, as a careful forger would."""
    with np.load(folder / "policy.npz") as loaded:
        arrays = {name: loaded[name] for name in loaded.files} | changes
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=allow_pickle, **arrays)
    (folder / "policy.npz").write_bytes(buffer.getvalue())
    rewrite(folder, weights_sha256=hashlib.sha256(buffer.getvalue()).hexdigest())


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            (
                {"schema_version": 2},
                "has schema 2, written by edgebed .*; this edgebed reads schema 1: install a newer",
            ),
            ({"schema_version": 0}, "reads schema 1: train it again"),
            ({"slots": None}, "missing required field `slots`"),
            ({"surprise": 1}, "unknown field `surprise`"),
            ({"head": "swish"}, "no head 'swish'; allowed: categorical_per_device"),
            ({"scope": "galaxy"}, "no scope 'galaxy'; allowed: joint, device"),
            ({"slots": ["a", "a"]}, "different names"),
            ({"slots": ["a", "b", "c"]}, "the actor takes 44 inputs, the observation has 61"),
            ({"choices": ["device", "edge"]}, "gives 6 outputs; categorical_per_device of 2 slots needs 4"),
            ({"transforms": ["linear"]}, "1 transforms for 44 inputs"),
            ({"clip": -1.0}, "clip is -1.0"),
            ({"networks": {}}, "no network 'actor'"),
        ],
    )
    def test_a_record_that_does_not_fit(self, changes: dict[str, Any], text: str, folder: Path) -> None:
        rewrite(folder, **changes)
        with pytest.raises(BadInput, match=text):
            load_policy(folder)

    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"actor.0.weight": np.full((44, 8), np.nan, np.float32)}, "weight has 352 of 352 numbers that are NaN"),
            ({"actor.0.weight": np.zeros((44, 8))}, "actor.0.weight is float64; every array is float32"),
            ({"actor.0.weight": np.zeros((9, 8), np.float32)}, "the actor takes 9 inputs, the observation has 44"),
            ({"actor.1.bias": np.zeros(3, np.float32)}, r"bias has shape \(3,\); a weight of \(8, 6\) needs \(6,\)"),
            ({"mean": np.zeros(3, np.float32)}, r"mean has shape \(3,\); the network takes 44 inputs"),
            ({"scale": np.zeros(44, np.float32)}, "every scale must be above 0"),
            ({"stowaway": np.zeros(3, np.float32)}, "has arrays that policy.json does not name: stowaway"),
        ],
    )
    def test_numbers_that_do_not_fit(self, changes: dict[str, Any], text: str, folder: Path) -> None:
        replace_arrays(folder, **changes)
        with pytest.raises(BadInput, match=text):
            load_policy(folder)

    def test_pickled_arrays(self, folder: Path) -> None:
        replace_arrays(folder, allow_pickle=True, mean=np.array([{"a": 1}], object))
        with pytest.raises(BadInput, match=r"has pickled data, which is never loaded: it could run any program"):
            load_policy(folder)

    def test_a_pickle_under_the_name_of_an_archive(self, folder: Path) -> None:
        (folder / "policy.npz").write_bytes(pickle.dumps({"actor": [1]}))
        with pytest.raises(BadInput, match=r"is not an \.npz file"):
            load_policy(folder)

    def test_two_policies_mixed(self, folder: Path, tmp_path: Path) -> None:
        save_policy(tmp_path / "other", random_hosts_policy(SPEC, hidden=(8,), seed=1))
        (folder / "policy.npz").write_bytes((tmp_path / "other" / "policy.npz").read_bytes())
        with pytest.raises(SchemaMismatch, match=r"SHA-256 .* was written with .*copy the whole folder again"):
            load_policy(folder)

    def test_a_file_that_was_cut_off(self, folder: Path) -> None:
        path = folder / "policy.npz"
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(BadInput, match="cut off"):
            load_policy(folder)

    def test_a_compressed_archive(self, folder: Path) -> None:
        with np.load(folder / "policy.npz") as loaded:
            np.savez_compressed(folder / "policy.npz", **{name: loaded[name] for name in loaded.files})
        with pytest.raises(BadInput, match="is compressed"):
            load_policy(folder)

    def test_a_folder_without_one(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput, match=r"has no policy\.json; a policy's folder is needed"):
            load_policy(tmp_path)
        with pytest.raises(BadInput, match="is not a folder"):
            load_policy(tmp_path / "nowhere")

    def test_bytes_that_are_no_packed_policy(self) -> None:
        with pytest.raises(BadInput, match="is not a packed policy"):
            load_policy(b"edgebed-policy\n\x93")

    def test_nothing_is_written_of_a_policy_that_does_not_fit(self, tmp_path: Path) -> None:
        with pytest.raises(SchemaMismatch, match="needs 18"):
            save_policy(tmp_path / "new", policy(slots=("a", "b", "c", "d", "e", "f")))
        assert not (tmp_path / "new").exists()
