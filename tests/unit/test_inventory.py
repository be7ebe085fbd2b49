"""Hosts files: groups, precedence, ranges, defaults, and every problem at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgebed.errors import BadInput
from orchestrator.ansible import expand_range, read_ansible
from orchestrator.documents import parse_document, parse_value
from orchestrator.host_variables import HostVariables
from orchestrator.inventory import Inventory, known_boards, load_inventory, read_inventory
from orchestrator.shipped import shipped_inventory

ROOT = Path(__file__).parents[2]
BOARDS = known_boards()

SMALL = """\
all:
  vars: {ansible_connection: local}
  children:
    edge_servers:
      hosts: {edge: }
    devices:
      hosts:
        pi-1: {%s}
"""


def inventory(text: str) -> Inventory:
    return read_inventory(parse_document(text, "h.yaml"), BOARDS)


def problems(text: str) -> list[str]:
    with pytest.raises(BadInput) as caught:
        inventory(text)
    return [str(problem) for problem in caught.value.problems]


def test_the_local_hosts_file() -> None:
    local = load_inventory(ROOT / "inventory/hosts/local.yaml")
    assert [host.name for host in local.devices] == ["pi-1", "pi-2", "pi-3"]
    assert [host.name for host in local.edge_servers] == ["edge"]
    assert local.controller == "edge"
    assert {host.connection for host in local.hosts} == {"local"}
    assert all(host.slowdown > 1 and host.link_rate_bps > 0 for host in local.devices)
    assert len({host.slowdown for host in local.devices}) == 3
    assert set(local.boards) == {host.board for host in local.hosts}
    assert local.notes == ()


def test_the_example_of_a_cluster() -> None:
    cluster = load_inventory(ROOT / "inventory/hosts/pi-cluster.example.yaml")
    assert [host.name for host in cluster.devices] == [f"pi-{number}" for number in range(1, 7)]
    assert {host.connection for host in cluster.hosts} == {"ssh"}
    assert cluster.host("edge-1").port == 5570
    assert cluster.host("pi-5").meter == "hwmon_ina2xx"
    assert cluster.host("pi-5").position_m == (3.0, 1.5)


def test_defaults() -> None:
    host = inventory(SMALL % "").host("pi-1")
    assert (host.address, host.board, host.meter, host.slowdown) == ("pi-1", "generic-x86", "cpu_model", 1.0)
    assert (host.ssh_port, host.user, host.ssh_key_file, host.python) == (None, None, None, None)
    assert (host.link_rate_bps, host.workers, host.queue_tasks, host.port) == (0.0, 1, 64, 0)


def test_every_variable_arrives() -> None:
    text = """\
edge_servers:
  hosts:
    big:
      ansible_connection: smart
      ansible_host: 192.0.2.1
      ansible_port: 2222
      ansible_user: ubuntu
      ansible_ssh_private_key_file: ~/.ssh/lab
      edgebed_board: generic-x86
      edgebed_workers: 8
      edgebed_queue_tasks: 100
      edgebed_port: 5570
      edgebed_python: /usr/bin/python3.12
    other: {edgebed_board: generic-x86, edgebed_controller: true}
devices:
  hosts:
    pi:
      edgebed_board: raspberry-pi-5
      edgebed_link: {rate_bps: 20e6}
      edgebed_meter: {name: hwmon_ina2xx, options: {gain_error_fraction: 0.01}}
      edgebed_slowdown: 2
      edgebed_position: [1, -2.5]
"""
    found = inventory(text)
    big, pi = found.host("big"), found.host("pi")
    assert found.controller == "other"
    assert (big.connection, big.address, big.ssh_port, big.user) == ("ssh", "192.0.2.1", 2222, "ubuntu")
    assert (big.ssh_key_file, big.python) == ("~/.ssh/lab", "/usr/bin/python3.12")
    assert (big.workers, big.queue_tasks, big.port) == (8, 100, 5570)
    assert (pi.connection, pi.board, pi.link_rate_bps, pi.slowdown) == ("ssh", "raspberry-pi-5", 20e6, 2.0)
    assert (pi.second_meter, pi.second_meter_options) == ("", {})
    assert (pi.meter, pi.meter_options, pi.position_m) == ("hwmon_ina2xx", {"gain_error_fraction": 0.01}, (1.0, -2.5))


@pytest.mark.parametrize(
    ("places", "winner"),
    [
        ({"all"}, "all"),
        ({"all", "outer"}, "outer"),
        ({"all", "outer", "inner"}, "inner"),
        ({"all", "outer", "inner", "host"}, "host"),
        ({"all", "host"}, "host"),
        ({"inner", "other"}, "inner"),
        ({"outer", "other"}, "outer"),
    ],
)
def test_which_variable_wins(places: set[str], winner: str) -> None:
    def value(place: str) -> str:
        return f"{{v: {place}}}" if place in places else "{}"

    text = f"""\
all:
  vars: {value("all")}
  children:
    devices:
      vars: {value("outer")}
      children:
        arm:
          vars: {value("inner")}
          hosts: {{pi: {value("host")}}}
    basement:
      vars: {value("other")}
      hosts: {{pi: }}
"""
    assert read_ansible(parse_document(text, "h.yaml")).variables("pi")["v"].value == winner


def test_a_second_meter_is_what_the_first_is_held_against() -> None:
    text = (Path(__file__).parents[2] / "inventory/hosts/local.yaml").read_text()
    meters = "edgebed_meter: [{name: hwmon_ina2xx, options: {channel: 2}}, cpu_model]"
    pi = inventory(text.replace("pi-1: {", f"pi-1: {{ {meters}, ")).host("pi-1")
    assert (pi.meter, pi.meter_options) == ("hwmon_ina2xx", {"channel": 2})
    assert (pi.second_meter, pi.second_meter_options) == ("cpu_model", {})


def test_groups_of_one_depth_are_ranked_by_priority_then_by_name() -> None:
    text = "{a: {vars: {v: 1%s}, hosts: {pi: }}, b: {vars: {v: 2}, hosts: {pi: }}}"
    for extra, winner in (("", 2), (", ansible_group_priority: 5", 1)):
        assert read_ansible(parse_document(text % extra, "h.yaml")).variables("pi")["v"].value == winner


def test_a_group_is_gathered_from_everywhere() -> None:
    text = """\
all:
  hosts:
    pi-1: {edgebed_slowdown: 3}
  children:
    edge_servers: {hosts: {edge: {ansible_connection: local}}}
    devices: {children: {rack: }}
rack:
  vars: {ansible_connection: local}
  hosts: {pi-1: , pi-2: }
devices:
  hosts: {pi-0: {ansible_connection: local}}
"""
    found = inventory(text)
    assert [host.name for host in found.devices] == ["pi-0", "pi-1", "pi-2"]
    assert found.host("pi-1").slowdown == 3.0


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("pi", ["pi"]),
        ("pi-[1:3]", ["pi-1", "pi-2", "pi-3"]),
        ("pi-[08:10]", ["pi-08", "pi-09", "pi-10"]),
        ("pi-[1:6:2]", ["pi-1", "pi-3", "pi-5"]),
        ("pi-[a:c]", ["pi-a", "pi-b", "pi-c"]),
        ("r[1:2]-n[1:2].local", ["r1-n1.local", "r1-n2.local", "r2-n1.local", "r2-n2.local"]),
    ],
)
def test_ranges(pattern: str, names: list[str]) -> None:
    assert expand_range(pattern) == names


@pytest.mark.parametrize("pattern", ["[3:1]", "[1:c]", "[1:5:0]", "[1:2000]", "[1:999][1:999][1:999]"])
def test_ranges_that_make_no_sense(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"is empty or mixes|makes more than 1000 hosts"):
        expand_range(pattern)


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ("edgebed_bord: x", "pi-1.edgebed_bord: is not a key here; did you mean edgebed_board?"),
        ("edgebed_board: raspberry", "edgebed_board: there is no board 'raspberry'"),
        ("edgebed_meter: ina", "edgebed_meter: there is no meter 'ina'"),
        ("edgebed_meter: {name: cpu_model, options: {x: 1}}", "edgebed_meter: options: x is not a key here"),
        ("edgebed_meter: [auto, ina]", "edgebed_meter: there is no meter 'ina'"),
        ("edgebed_meter: [rapl, rapl]", "edgebed_meter: names 'rapl' twice"),
        ("edgebed_meter: {name: rapl, options: 5}", "edgebed_meter.options: is 5; expected a mapping of keys"),
        ("edgebed_meter: [auto, {name: 5}]", "edgebed_meter.1.name: is 5; expected text"),
        ("edgebed_meter: []", "edgebed_meter: has 0 entries; at least 1 needed"),
        ("edgebed_meter: [rapl, battery, cpu_model]", "edgebed_meter: has more than 2 entries"),
        ("edgebed_slowdown: 0.5", "edgebed_slowdown: is 0.5; allowed: at least 1"),
        ("edgebed_slowdown: .nan", "edgebed_slowdown: is nan; expected a finite number"),
        ("edgebed_slowdown: '2'", "edgebed_slowdown: is '2'; expected a number"),
        ("edgebed_workers: 2.0", "edgebed_workers: is 2.0; expected a whole number"),
        ("edgebed_workers: true", "edgebed_workers: is true; expected a whole number"),
        ("edgebed_link: {rate_bps: -1}", "edgebed_link.rate_bps: is -1; allowed: at least 0"),
        ("edgebed_link: 20", "edgebed_link: is 20; expected a mapping of keys"),
        ("edgebed_link: {}", "edgebed_link.rate_bps: is missing; bits a second"),
        ("edgebed_position: [1]", "edgebed_position: has 1 entries; at least 2 needed"),
        ("edgebed_controller: true", "edgebed_controller: is true for pi-1, a device"),
        ("ansible_port: 0", "ansible_port: is 0; allowed: at least 1"),
        ("ansible_connection: telnet", "ansible_connection: is 'telnet'; allowed: 'local' or 'ssh'"),
        ("ansible_host: -oProxyCommand=x", "ansible_host: is '-oProxyCommand=x'; expected a host name"),
        ("ansible_host: '{{ ip }}'", "ansible_host: is the template '{{ ip }}'; templates are not evaluated"),
        ("ansible_connection: ssh", "edgebed_board: is missing; say which board it is"),
    ],
)
def test_what_is_wrong_with_a_variable(variables: str, problem: str) -> None:
    (found,) = problems(SMALL % variables)
    assert found.startswith("h.yaml:8: all.children.devices.hosts.pi-1")
    assert problem in found


def test_a_wrong_variable_of_a_group_is_one_problem() -> None:
    text = SMALL.replace("vars: {", "vars: {edgebed_slowdown: 0, ") % ""
    assert problems(text) == ["h.yaml:2: all.vars.edgebed_slowdown: is 0; allowed: at least 1"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("devices: {hosts: {a: }}", "edge_servers: the group is missing; there are: devices, all; at least one"),
        ("edge_servers: {hosts: {e: }}\ndevices: ", "devices: the group has no hosts; at least one device is needed"),
        ("edge_servers: {hosts: {a: }}\ndevices: {hosts: {a: }}", "a: is in both edge_servers and devices"),
        (
            "edge_servers: {hosts: {e: }}\ndevices: {hosts: {'a b': }}",
            "a b: 'a b' cannot name a host; allowed: letters",
        ),
        (
            "edge_servers: {hosts: {e: }}\ndevices: {host: {a: }}",
            "devices.host: is not a key here; did you mean hosts?",
        ),
        ("edge_servers: {hosts: {e: }}\ndevices: {hosts: [a]}", "devices.hosts: is a list; expected a mapping"),
        (
            "edge_servers: {hosts: {e: }}\ndevices: {hosts: {a: 5}}",
            "devices.hosts.a: is 5; expected the host's variables",
        ),
        ("edge_servers: {hosts: {e: }}\ndevices: 5", "devices: is 5; expected a group"),
        ("a: {children: {b: {children: {a: }}}}", "contains b, which contains it"),
        (
            "edge_servers: {hosts: {e: {edgebed_controller: yes}, f: {edgebed_controller: yes}}}",
            "edge_servers.hosts.f.edgebed_controller: f is the second with a controller, after e; one is allowed",
        ),
        (
            "devices: {hosts: {a: {ansible_host: X.local}, b: {ansible_host: x.local, ansible_port: 22}}}",
            "devices.hosts.b: has the address of a, x.local port 22; each host needs its own",
        ),
    ],
)
def test_what_is_wrong_with_the_groups(text: str, expected: str) -> None:
    everyone = "\nall: {vars: {edgebed_board: generic-x86}}\n"
    assert any(expected in problem for problem in problems(text + everyone))


def test_all_problems_of_a_file_come_at_once_and_in_its_order() -> None:
    text = """\
edge_servers:
  hosts:
    edge: {ansible_connection: local, edgebed_workers: 0}
    edge: {}
devices:
  vars: {ansible_connection: local}
  hosts:
    "pi 1": {edgebed_link: {rate: 3}}
    pi-[2:1]:
    pi-3: {edgebed_board: raspberry-pi4b, edgebed_slowdown: 0, edgebed_controller: "yes"}
  childen: {}
"""
    assert [problem.partition(";")[0] for problem in problems(text)] == [
        "h.yaml:3: edge_servers.hosts.edge.edgebed_workers: is 0",
        "h.yaml:4: edge_servers.hosts.edge: is here twice, first in line 3",
        "h.yaml:8: devices.hosts.pi 1: 'pi 1' cannot name a host",
        "h.yaml:8: devices.hosts.pi 1.edgebed_link.rate_bps: is missing",
        "h.yaml:8: devices.hosts.pi 1.edgebed_link.rate: is not a key here",
        "h.yaml:9: devices.hosts.pi-[2:1]: [2:1] is empty or mixes letters and numbers",
        "h.yaml:10: devices.hosts.pi-3.edgebed_board: there is no board 'raspberry-pi4b'",
        "h.yaml:10: devices.hosts.pi-3.edgebed_controller: is 'yes'",
        "h.yaml:10: devices.hosts.pi-3.edgebed_slowdown: is 0",
        "h.yaml:11: devices.childen: is not a key here",
    ]


def test_two_hosts_on_one_machine_are_fine_when_local_or_on_another_port() -> None:
    assert len(inventory(SMALL % "" + "        pi-2:\n").devices) == 2
    text = """\
all: {vars: {ansible_host: lab.example, edgebed_board: generic-x86}}
edge_servers: {hosts: {e: }}
devices: {hosts: {a: {ansible_port: 2201}, b: {ansible_port: 2202}}}
"""
    assert len(inventory(text).hosts) == 3


def test_what_is_not_used_is_noted(tmp_path: Path) -> None:
    (tmp_path / "group_vars").mkdir()
    path = tmp_path / "h.yaml"
    path.write_text(SMALL % "ansible_become: true" + "    spare: {hosts: {pi-9: }}\n")
    notes = load_inventory(path).notes
    assert [note.removeprefix(str(tmp_path)) for note in notes] == [
        "/group_vars: is not read; write the variables into h.yaml",
        "/h.yaml:8: all.children.devices.hosts.pi-1.ansible_become: is accepted and not used",
        "/h.yaml:9: all.children.spare.hosts.pi-9: pi-9 is in neither edge_servers nor devices; not used",
    ]


def test_a_project_describes_its_own_boards(tmp_path: Path) -> None:
    for folder in ("boards", "hosts"):
        (tmp_path / folder).mkdir()
    shipped = (shipped_inventory() / "boards/raspberry-pi-4b.yaml").read_text()
    own = shipped.replace("name: raspberry-pi-4b\n", "name: my-board\n")
    (tmp_path / "boards/my-board.yaml").write_text(own)
    path = tmp_path / "hosts/h.yaml"
    path.write_text(SMALL % "edgebed_board: my-board")
    assert load_inventory(path).boards["my-board"].title == BOARDS["raspberry-pi-4b"].title


def test_an_ini_inventory_is_named_as_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "hosts.ini"
    path.write_text("[devices]\npi-1\n")
    with pytest.raises(BadInput, match="ansible-inventory -i FILE --list --yaml"):
        load_inventory(path)


def test_a_host_that_is_not_there_is_named() -> None:
    with pytest.raises(BadInput, match="there is no host 'pi-2'; did you mean pi-1"):
        inventory(SMALL % "").host("pi-2")


def documented(heading: str, until: str) -> list[str]:
    text = (ROOT / "docs/experiments.md").read_text()
    part = text.partition(heading)[2].partition(until)[0]
    return [line.split("`")[1] for line in part.splitlines() if line.startswith("| `")]


def test_the_documentation_has_every_variable() -> None:
    assert sorted(documented("## Hosts", "## Experiment")) == sorted(HostVariables.model_fields)


@pytest.mark.parametrize(
    ("variable", "default"),
    [
        ("ansible_connection", "`ssh`"),
        ("edgebed_slowdown", "1"),
        ("edgebed_workers", "1"),
        ("edgebed_queue_tasks", "64"),
        ("edgebed_port", "0"),
        ("edgebed_position", "`[0, 0]`"),
    ],
)
def test_the_documentation_states_defaults_as_they_are(variable: str, default: str) -> None:
    text = (ROOT / "docs/experiments.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith(f"| `{variable}` ")]
    assert row.split("|")[3].strip() == default
    value = HostVariables.model_fields[variable].get_default(call_default_factory=True)
    assert parse_value(default.strip("`"), "docs") == value
