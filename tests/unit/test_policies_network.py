"""Learned policies on hosts: they read by name, decide by mask, and say what does not fit, with both sides named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from edgebed.errors import BadInput, SchemaMismatch
from edgebed.policies import make_policy
from edgebed.policies.forward import Layer, Network
from edgebed.policies.heads import Head
from edgebed.policies.hosts_features import device_columns, shared_columns
from edgebed.policies.inputs import Inputs
from edgebed.policies.network import NetworkPolicy
from edgebed.policies.network_testing import random_hosts_policy, random_network
from edgebed.policies.policy_file import PolicyFile, load_policy, save_policy
from edgebed.policies.testing import random_observation
from edgebed.simulation.hosts_layout import batch_observation, layout_of
from edgebed.simulation.network_actor import NetworkActor, policy_file
from edgebed.simulation.scenarios import make_scenario
from edgebed.types import Decision, Feature, ObservationSpec, Placement, Site
from orchestrator.documents import parse_document
from orchestrator.experiment import read_experiment
from orchestrator.inventory import known_boards, read_inventory
from orchestrator.plan import Plan, plan_of

SPEC = ObservationSpec(("pi-1", "pi-2", "pi-3"), ("edge-1",), channels=2)
DC_DRL = {
    "scenario": "dc-drl",
    "slots": "in_order",
    "features": {
        "cpu_hz": {"from": "device_speed_hz"},
        "queue_s": {"from": "device_queue_delay_s"},
        "x_m": {"from": "position_x_m"},
        "y_m": {"from": "position_y_m"},
        "cycles": {"from": "waiting_cycles", "scale": 2.0, "offset": 5.0},
        "deadline_s": {"value": 2.0},
        "input_bytes": {"from": "waiting_bytes"},
    },
    "shared": {
        "server_hz": {"from": "server0.worker_speed_hz"},
        "server_queue_s": {"from": "server0.queue_delay_s"},
        "step": {"value": 0.0},
    },
    "choices": {"local": "device", "channel 0": "server0.channel0", "channel 1": "server0.channel1"},
}


def made(folder: Path, policy: PolicyFile, spec: ObservationSpec = SPEC, **options: Any) -> NetworkPolicy:
    save_policy(folder, policy)
    policy_made = make_policy("network", spec, {"weights": str(folder), **options})
    assert isinstance(policy_made, NetworkPolicy)
    policy_made.reset(0)
    return policy_made


def chooser(spec: ObservationSpec, of_device: str, scope: str = "device") -> PolicyFile:
    """Scores every offload by one of the device's features: whoever has it above 0 offloads to the last action."""
    columns = (*device_columns(spec), *shared_columns(spec))
    weight = np.zeros((len(columns), spec.actions))
    weight[[one.name for one in columns].index(of_device), -1] = 1.0
    base = random_hosts_policy(spec, scope=scope)
    return replace(
        base,
        inputs=Inputs.unchanged(len(columns)),
        networks={"actor": Network([Layer.of(weight, np.zeros(spec.actions))])},
    )


class TestDeciding:
    def test_each_device_by_its_own_feature(self, tmp_path: Path) -> None:
        policy = made(tmp_path, chooser(SPEC, "device_queue_delay_s"))
        observation = random_observation(SPEC, np.random.default_rng(0))
        observation.values[:, SPEC.device_index("device_queue_delay_s")] = [0.0, 2.0, 1.0]
        decision = policy.decide(observation)
        assert decision.site.tolist() == [Site.DEVICE, Site.EDGE, Site.EDGE]
        assert decision.channel.tolist() == [0, 1, 1]
        observation.allowed_actions[1, 2] = False  # the favourite is masked: the first of the equal others
        assert policy.decide(observation).site.tolist() == [Site.DEVICE, Site.DEVICE, Site.EDGE]

    @pytest.mark.parametrize("scope", ["joint", "device"])
    def test_hosts_are_shown_what_the_layout_says(self, scope: str, tmp_path: Path) -> None:
        """A scenario calibrated from hosts has this layout: trained there, a policy reads the same numbers here."""
        file = random_hosts_policy(SPEC, scope=scope, seed=3)
        policy = made(tmp_path, file)
        layout = layout_of(SPEC)
        rng = np.random.default_rng(1)
        for _ in range(20):
            observation = random_observation(SPEC, rng)
            seen = batch_observation(observation)
            assert seen.devices.shape[2] == len(layout.device_features)
            assert seen.shared.shape[1] == len(layout.shared_features)
            if scope == "joint":
                x = seen.joint()
            else:
                shared = np.broadcast_to(seen.shared[:, None, :], (1, 3, seen.shared.shape[1]))
                x = np.concatenate([seen.devices, shared], axis=2)
            actions = file.head.actions(file.outputs(x))[0]
            expected = Decision.from_actions(actions.astype(np.int32), SPEC)
            assert policy.decide(observation).site.tolist() == expected.site.tolist()
            assert policy.decide(observation).channel.tolist() == expected.channel.tolist()

    def test_a_device_that_sees_itself_alone_decides_as_the_controller_would(self, tmp_path: Path) -> None:
        for own_weights in (False, True):
            folder = tmp_path / str(own_weights)
            policy = made(folder, random_hosts_policy(SPEC, scope="device", own_weights=own_weights, seed=2))
            observation = random_observation(SPEC, np.random.default_rng(5))
            together = policy.decide(observation)
            for slot in range(3):
                alone = replace(observation, present=np.arange(3) == slot)
                assert policy.decide(alone).slot(slot) == together.slot(slot)

    def test_numbers_become_shares(self, tmp_path: Path) -> None:
        numbers = tuple(Feature(name, "1", 0, 1, "") for name in ("edge_fraction", "cpu_fraction", "power_fraction"))
        file = random_hosts_policy(SPEC, numbers=numbers)
        bias = np.zeros((3, 6), np.float32)
        bias[0] = [0, 1, 0, 0.0, 0.0, 0.0]  # offloads half
        bias[1] = [0, 0, 1, 9.0, -9.0, 9.0]  # offloads all, at the least clock
        bias[2] = [1, 0, 0, 9.0, 9.0, 9.0]  # stays
        network = Network([Layer.of(np.zeros((file.width, 18)), bias.ravel())])
        decision = made(tmp_path, replace(file, networks={"actor": network})).decide(
            random_observation(SPEC, np.random.default_rng(0))
        )
        assert decision.site.tolist() == [Site.SPLIT, Site.EDGE, Site.DEVICE]
        assert decision.edge_fraction.tolist() == [0.5, 1.0, 0.0]
        assert decision.channel.tolist() == [0, 1, 0]
        assert decision.cpu_fraction.tolist() == pytest.approx([0.5, 0.01, 1.0])

    def test_outputs_that_are_not_finite_are_an_error(self, tmp_path: Path) -> None:
        """The devices' fallback then decides, and the row says so."""
        file = chooser(SPEC, "battery")
        policy = made(tmp_path, file)
        observation = random_observation(SPEC, np.random.default_rng(0))
        observation.values[0, SPEC.device_index("battery")] = np.nan
        with pytest.raises(BadInput, match="outputs are not finite in epoch 0"):
            policy.decide(observation)

    def test_the_version_is_the_file_s(self, tmp_path: Path) -> None:
        policy = made(tmp_path, random_hosts_policy(SPEC))
        assert policy.version == load_policy(tmp_path).version
        assert policy.version.startswith("random-")

    @pytest.mark.parametrize(
        ("scope", "expected"),
        [("joint", (Placement.CONTROLLER,)), ("device", (Placement.CONTROLLER, Placement.DEVICE))],
    )
    def test_a_joint_policy_sits_in_the_controller(
        self, scope: str, expected: tuple[Placement, ...], tmp_path: Path
    ) -> None:
        assert made(tmp_path, random_hosts_policy(SPEC, scope=scope)).placements == expected


class TestMapping:
    def test_a_paper_s_policy_sees_what_the_mapping_says(self, tmp_path: Path) -> None:
        scenario = make_scenario("dc-drl", {"n": 3, "channels": 2})
        file = policy_file(scenario, random_network([3 * 7 + 3, 16, 9], seed=4))
        policy = made(tmp_path, file, mapping=DC_DRL)
        observation = random_observation(SPEC, np.random.default_rng(2))

        def column(name: str) -> Any:
            return observation.values[:, SPEC.device_index(name)]

        devices = np.stack(
            [
                column("device_speed_hz"),
                column("device_queue_delay_s"),
                column("position_x_m"),
                column("position_y_m"),
                column("waiting_cycles") * 2 + 5,
                np.full(3, 2.0),
                column("waiting_bytes"),
            ],
            axis=1,
        )
        shared = [
            observation.server[SPEC.server_index("worker_speed_hz")],
            observation.server[SPEC.server_index("queue_delay_s")],
            0.0,
        ]
        x = np.concatenate([devices.ravel(), shared]).astype(np.float32)[None]
        expected = file.head.actions(file.outputs(x))[0]
        decision = policy.decide(observation)
        assert np.where(decision.site == 0, 0, 1 + decision.channel).tolist() == expected.tolist()

    def test_the_page_s_mapping_is_one(self, tmp_path: Path) -> None:
        page = (Path(__file__).parents[2] / "docs" / "policies.md").read_text()
        mapping = yaml.safe_load(page.partition('```yaml title="dc-drl-on-hosts.yaml"\n')[2].partition("```")[0])
        scenario = make_scenario("dc-drl", {"n": 3, "channels": 2})
        policy = made(tmp_path, policy_file(scenario, random_network([24, 9])), mapping=mapping)
        policy.decide(random_observation(SPEC, np.random.default_rng(0))).check(SPEC)

    def test_slots_by_name(self, tmp_path: Path) -> None:
        """The policy's slots in another order than the hosts': each host gets its own slot's decision."""
        file = random_hosts_policy(SPEC, seed=6)
        observation = random_observation(SPEC, np.random.default_rng(3))
        plain = made(tmp_path / "plain", file).decide(observation)
        other = ObservationSpec(("pi-3", "pi-1", "pi-2"), SPEC.servers, SPEC.channels)
        order = [2, 0, 1]
        moved = replace(
            observation, values=observation.values[order], allowed_actions=observation.allowed_actions[order]
        )
        decision = made(tmp_path / "other", file, other).decide(moved)
        assert decision.site.tolist() == plain.site[order].tolist()
        assert decision.channel.tolist() == plain.channel[order].tolist()
        renamed = replace(SPEC, slots=("a", "b", "c"))
        slots = {"b": "pi-1", "c": "pi-2", "a": "pi-3"}
        decision = made(tmp_path / "renamed", file, renamed, mapping={"slots": slots}).decide(moved)
        assert decision.site.tolist() == plain.site[order].tolist()

    @pytest.mark.parametrize(
        ("spec", "options", "text"),
        [
            (replace(SPEC, slots=("a", "b", "c")), {}, "trained for the devices pi-1, pi-2, pi-3, these are a, b, c"),
            (replace(SPEC, slots=("pi-1", "pi-2")), {}, "trained for 3 devices, there are 2"),
            (replace(SPEC, channels=1), {}, r"needs the shared features server0\.channel1\.channel_rate_bps"),
            (
                replace(SPEC, channels=1),
                {},
                r"choices server0\.channel1 mean nothing here; actions of these hosts: dev",
            ),
            (
                SPEC,
                {"mapping": {"scenario": "dc-drl"}},
                "the mapping is for the scenario dc-drl, the policy .* in hosts",
            ),
            (SPEC, {"mapping": {"features": {"nonsense": {"value": 1}}}}, "the mapping's features name nonsense"),
            (SPEC, {"mapping": {"features": {"battery": {"from": "batery"}}}}, "needs the device features batery"),
            (SPEC, {"mapping": {"feature": {}}}, "unknown field `feature`; its keys: scenario, slots, features"),
        ],
    )
    def test_what_does_not_fit_is_named(
        self, spec: ObservationSpec, options: dict[str, Any], text: str, tmp_path: Path
    ) -> None:
        with pytest.raises(BadInput, match=text):
            made(tmp_path, random_hosts_policy(SPEC), spec, **options)

    def test_a_paper_s_policy_needs_one(self, tmp_path: Path) -> None:
        file = policy_file(make_scenario("dc-drl", {"n": 3, "channels": 2}), random_network([24, 9]))
        text = "trained in the scenario dc-drl, whose observation has cpu_hz, .*; hosts give waiting_tasks, .*`mapping`"
        with pytest.raises(SchemaMismatch, match=text):
            made(tmp_path, file)

    def test_weights_are_needed(self) -> None:
        with pytest.raises(BadInput, match="needs `weights`, the folder of a trained policy"):
            make_policy("network", SPEC)


EXPERIMENT = """\
name: trial
workload: instant
deadline_s: 1
arrivals: {kind: poisson, rate_per_s: 4}
epoch_s: 0.5
epochs: 6
seeds: [1]
channels: 2
policies:
"""
HOSTS = """\
all:
  children:
    edge_servers:
      hosts: {edge: {edgebed_board: generic-x86, ansible_host: 192.0.2.9}}
    devices:
      vars: {edgebed_board: raspberry-pi-4b}
      hosts: {pi-1: , pi-2: , pi-3: }
"""


class TestInAnExperiment:
    def planned(self, folder: Path, policies: str) -> Plan:
        document = parse_document(EXPERIMENT + policies, "e.yaml")
        return plan_of(
            read_experiment(document, folder), read_inventory(parse_document(HOSTS, "h.yaml"), known_boards())
        )

    def test_weights_beside_the_experiment_are_named_by_checksum(self, tmp_path: Path) -> None:
        save_policy(tmp_path / "trained", random_hosts_policy(SPEC))
        plan = self.planned(tmp_path, "  - {name: network, weights: trained}\n")
        assert plan.policies[0].options["weights"].startswith("sha256:")
        save_policy(tmp_path / "trained", random_hosts_policy(SPEC, seed=1))
        assert self.planned(tmp_path, "  - {name: network, weights: trained}\n").plan_hash != plan.plan_hash

    def test_a_mapping_file_becomes_part_of_the_plan(self, tmp_path: Path) -> None:
        scenario = make_scenario("dc-drl", {"n": 3, "channels": 2})
        save_policy(tmp_path / "trained", policy_file(scenario, random_network([24, 9])))
        (tmp_path / "hosts.yaml").write_text(yaml.safe_dump(DC_DRL))
        plan = self.planned(tmp_path, "  - {name: network, weights: trained, mapping: hosts.yaml}\n")
        assert plan.policies[0].options["mapping"] == DC_DRL

    @pytest.mark.parametrize(
        ("policies", "text"),
        [
            ("  - {name: network, weights: nowhere}\n", "nowhere: is not a folder"),
            ("  - {name: network}\n", "needs `weights`"),
            ("  - {name: network, weights: joint, mapping: gone.yaml}\n", r"gone\.yaml: the mapping cannot be read"),
            ("  - {name: network, weights: joint, mapping: [1]}\n", "mapping"),
            (
                "  - {name: network, weights: joint, placement: device}\n",
                "cannot decide at 'device', where it does not see all devices; allowed placement: controller",
            ),
            ("  - {name: network, weights: paper}\n", "trained in the scenario dc-drl"),
        ],
    )
    def test_what_is_wrong_is_told_when_it_is_planned(self, policies: str, text: str, tmp_path: Path) -> None:
        save_policy(tmp_path / "joint", random_hosts_policy(SPEC))
        scenario = make_scenario("dc-drl", {"n": 3, "channels": 2})
        save_policy(tmp_path / "paper", policy_file(scenario, random_network([24, 9])))
        with pytest.raises(BadInput, match=text):
            self.planned(tmp_path, policies)


class TestInScenarios:
    def test_an_actor_acts_on_what_the_scenario_shows(self, tmp_path: Path) -> None:
        scenario = make_scenario("dc-drl", {"n": 4, "channels": 2})
        file = save_policy(tmp_path, policy_file(scenario, random_network([4 * 7 + 3, 12]), learner="test"))
        scenario.reset([0, 1, 2])
        actor = NetworkActor(load_policy(tmp_path), scenario)
        actions = actor.act(scenario)
        assert actions.shape == (3, 4)
        scores = file.outputs(scenario.observe().joint())
        assert np.array_equal(actions, scores.argmax(axis=2))
        scenario.step(actions)

    def test_a_device_s_policy_acts_on_views(self) -> None:
        scenario = make_scenario("dc-drl", {"n": 4, "channels": 2})
        scenario.reset([0, 1])
        actor = NetworkActor(policy_file(scenario, random_network([10, 3]), scope="device"), scenario)
        assert actor.act(scenario).shape == (2, 4)

    def test_partial_offloading(self) -> None:
        scenario = make_scenario("explaboff-3x2")
        width = len(scenario.view_features)
        head = Head("choice_and_numbers", len(scenario.actions.choices), scenario.actions.numbers)
        actor = random_network([width, 64, 64, head.outputs], count=scenario.devices)
        scenario.reset([0, 1])
        actions = NetworkActor(policy_file(scenario, actor, scope="device", kind=head.kind), scenario).act(scenario)
        assert actions.shape == (2, scenario.devices, 1 + len(scenario.actions.numbers))
        scenario.step(actions)

    def test_a_policy_for_another_scenario_is_refused(self) -> None:
        ours, other = make_scenario("dc-drl", {"n": 4}), make_scenario("dc-drl", {"n": 5})
        file = policy_file(ours, random_network([4 * 7 + 3, 24]))
        with pytest.raises(SchemaMismatch, match="trained for 4 devices, the scenario has 5"):
            NetworkActor(file).act(other)
        with pytest.raises(
            SchemaMismatch, match=r"scenario meta-rl: it was trained in dc-drl.*its device features are"
        ):
            NetworkActor(file, make_scenario("meta-rl"))
