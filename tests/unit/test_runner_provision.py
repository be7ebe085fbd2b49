"""From a plan to names, keys and settings of programs; and the run clock."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgebed.clock import ManualClock
from edgebed.configuration import ControllerConfig, DeviceConfig, ServerConfig, config_bytes, read_config
from edgebed.errors import BadInput
from edgebed.protocol.messages import Role
from orchestrator.attempts import Attempts
from orchestrator.backends.run_clock import RunClock
from orchestrator.plan import make_plan
from orchestrator.plan_file import Plan
from orchestrator.provision.addresses import endpoint, listening_addresses
from orchestrator.provision.credentials import EXTERNAL_KEY, ORCHESTRATOR_KEY, load_own, make_credentials, save_own
from orchestrator.provision.deployment import local_remote
from orchestrator.provision.layout import HostFolder, controller_name, members_of, programs_on, state_name
from orchestrator.provision.settings import Setup
from orchestrator.remote.local import LocalRemote


def plan_with(tmp_path: Path, servers: dict[str, Any], devices: dict[str, Any]) -> Plan:
    experiment = {
        "name": "x",
        "workload": "instant",
        "deadline_s": 1.0,
        "arrivals": {"kind": "periodic", "period_s": 0.5},
        "epoch_s": 0.5,
        "epochs": 2,
        "policies": ["all_edge"],
        "seeds": [1],
    }
    groups = {"edge_servers": {"hosts": servers}, "devices": {"hosts": devices}}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(experiment))
    (tmp_path / "hosts.yaml").write_text(
        yaml.safe_dump({"all": {"vars": {"ansible_connection": "local"}, "children": groups}})
    )
    return make_plan(tmp_path / "x.yaml", tmp_path / "hosts.yaml")


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    servers = {"edge-a": {"edgebed_workers": 2, "edgebed_port": 5555}, "edge-b": {"edgebed_controller": True}}
    devices = {"pi-1": {"edgebed_slowdown": 6, "edgebed_link": {"rate_bps": 2e7}}, "pi-2": {}}
    return plan_with(tmp_path, servers, devices)


def test_who_runs_where(plan: Plan) -> None:
    members = members_of(plan)
    assert [(each.name, each.role.value, each.program, each.host.name) for each in members] == [
        ("controller", "controller", "controller", "edge-b"),
        ("edge-a", "server", "edge_server", "edge-a"),
        ("edge-b", "server", "edge_server", "edge-b"),
        ("pi-1", "device", "device_agent", "pi-1"),
        ("pi-2", "device", "device_agent", "pi-2"),
    ]
    assert programs_on("edge-b", members) == ["controller", "edge_server"]


def test_a_host_may_be_called_controller(tmp_path: Path) -> None:
    plan = plan_with(tmp_path, {"controller": {}}, {"controller-2": {}, "orchestrator": {}})
    assert controller_name(plan) == "controller-3"
    public = make_credentials(plan, members_of(plan)).public
    assert len(public.keys) == len(set(public.keys.values())) == 6
    assert public.orchestrator == "orchestrator-2"


def test_settings_of_every_program(plan: Plan, tmp_path: Path) -> None:
    members = members_of(plan)
    credentials = make_credentials(plan, members)
    endpoints = {name: f"tcp://127.0.0.1:{port}" for port, name in enumerate(("controller", "edge-a", "edge-b"), 5000)}
    setup = Setup(plan, members, credentials.public, endpoints)
    kinds = [ControllerConfig, ServerConfig, ServerConfig, DeviceConfig, DeviceConfig]
    configs: list[Any] = [setup.config(member, HostFolder(f"/state/{member.host.name}")) for member in members]
    for config, kind in zip(configs, kinds, strict=True):
        path = tmp_path / "config.json"
        path.write_bytes(config_bytes(config))
        assert read_config(path, kind) == config
        for pair in credentials.secrets.values():
            assert pair.secret not in path.read_text(), "no settings have a secret in them"
    controller, server, _, agent, _ = configs
    assert (controller.name, controller.bind) == ("controller", "tcp://127.0.0.1:5000")
    roles = {peer.role for peer in controller.allow}
    assert roles == {Role.DEVICE, Role.SERVER, Role.ORCHESTRATOR, Role.EXTERNAL}
    assert (server.bind, server.workers) == ("tcp://127.0.0.1:5001", 2)
    assert server.secret_key_file == "/state/edge-a/keys/edge_server.key"
    assert {(peer.name, peer.role) for peer in server.allow} == {("pi-1", "device"), ("pi-2", "device")}
    assert (agent.slowdown, agent.link_rate_bps, agent.board["name"]) == (6.0, 2e7, "generic-x86")
    assert [address.name for address in (agent.controller, *agent.servers)] == ["controller", "edge-a", "edge-b"]
    assert agent.controller.public_key == credentials.public.keys["controller"]


def test_own_keys_are_the_owners_alone_and_are_found_again(plan: Plan, tmp_path: Path) -> None:
    credentials = make_credentials(plan, members_of(plan))
    save_own(credentials, tmp_path)
    for name in (ORCHESTRATOR_KEY, EXTERNAL_KEY):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    loaded = load_own(credentials.public, tmp_path)
    assert (loaded.orchestrator, loaded.external) == (credentials.orchestrator, credentials.external)
    save_own(make_credentials(plan, members_of(plan)), tmp_path)
    with pytest.raises(BadInput, match="not the key that this run's programs know"):
        load_own(credentials.public, tmp_path)


def test_state_folders_of_runs_that_began_in_the_same_second_differ(tmp_path: Path) -> None:
    names = {state_name("x-20260101T000000Z", tmp_path / place) for place in ("one", "two")}
    assert len(names) == 2
    assert all(name.startswith("x-20260101T000000Z-") for name in names)


def test_how_hosts_of_this_machine_are_reached(tmp_path: Path, plan: Plan) -> None:
    assert isinstance(local_remote(plan.devices[0]), LocalRemote)
    far = plan_with(tmp_path, {"edge": {}}, {"pi-9": {"ansible_connection": "ssh", "edgebed_board": "raspberry-pi-5"}})
    with pytest.raises(BadInput, match="pi-9: is behind SSH; the way there is in the hosts file"):
        local_remote(far.devices[0])


SSH = {"ansible_connection": "ssh", "edgebed_board": "raspberry-pi-4b"}


def test_on_one_machine_programs_listen_on_loopback(plan: Plan) -> None:
    found = listening_addresses(plan.hosts, plan.edge_servers, {})
    assert found == {"edge-a": "127.0.0.1", "edge-b": "127.0.0.1"}


def test_programs_listen_where_ssh_has_reached_their_host(tmp_path: Path) -> None:
    plan = plan_with(tmp_path, {"edge": SSH}, {"pi-1": SSH})
    seen = {"edge": ("192.0.2.1", "192.0.2.10"), "pi-1": ("192.0.2.1", "192.0.2.11")}
    assert listening_addresses(plan.hosts, plan.edge_servers, seen) == {"edge": "192.0.2.10"}


def test_a_server_on_this_machine_listens_where_it_has_reached_the_others_from(tmp_path: Path) -> None:
    plan = plan_with(tmp_path, {"edge": {}}, {"pi-1": SSH})
    seen = {"edge": None, "pi-1": ("192.0.2.1", "192.0.2.11")}
    assert listening_addresses(plan.hosts, plan.edge_servers, seen) == {"edge": "192.0.2.1"}


def test_an_address_that_is_given_is_taken(tmp_path: Path) -> None:
    plan = plan_with(tmp_path, {"edge": SSH | {"edgebed_address": "2001:db8::7"}}, {"pi-1": SSH})
    seen = {"edge": ("192.0.2.1", "192.0.2.10"), "pi-1": ("192.0.2.1", "192.0.2.11")}
    found = listening_addresses(plan.hosts, plan.edge_servers, seen)
    assert found == {"edge": "2001:db8::7"}
    assert endpoint(found["edge"], 5570) == "tcp://[2001:db8::7]:5570"
    assert endpoint("192.0.2.10", "5570") == "tcp://192.0.2.10:5570"


@pytest.mark.parametrize(
    ("seen", "text"),
    [
        (
            ("127.0.0.1", "127.0.0.1"),
            "would listen at 127.0.0.1, which the other hosts cannot reach; set edgebed_address",
        ),
        (("fe80::1%eth0", "fe80::2%eth0"), "would listen at fe80::1%eth0, which is only known on one link"),
    ],
)
def test_addresses_that_others_cannot_use(tmp_path: Path, seen: tuple[str, str], text: str) -> None:
    plan = plan_with(tmp_path, {"edge": {}}, {"pi-1": SSH})
    with pytest.raises(BadInput, match=text):
        listening_addresses(plan.hosts, plan.edge_servers, {"edge": None, "pi-1": seen})


def test_the_run_clock_goes_on_over_a_resume(tmp_path: Path) -> None:
    clock = ManualClock(100.0)
    attempts = Attempts(tmp_path, ["a"])
    fresh = RunClock(attempts, clock, utc_s=lambda: 5000.0)
    assert fresh.now_s() == 0.0
    clock.advance(7.0)
    assert fresh.now_s() == 7.0
    attempt = attempts.begin("a")
    attempt.run_clock_s, attempt.started_utc_s = 7.0, 5007.0
    attempts.save(attempt)
    assert RunClock(attempts, ManualClock(1.0), utc_s=lambda: 5107.0).now_s() == 107.0
    assert RunClock(attempts, ManualClock(1.0), utc_s=lambda: 4000.0).now_s() == 7.0, "never back"
