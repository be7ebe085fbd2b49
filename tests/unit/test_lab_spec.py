"""Names, descriptions, addresses, cgroup hierarchies and the hosts file of a lab; no root, nothing is made."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import pytest

from edgebed.errors import BadInput
from orchestrator.cli import main
from orchestrator.cli.lab import _quantity, _shape
from orchestrator.inventory import load_inventory
from orchestrator.lab import image, programs, spec
from orchestrator.lab.cgroups import hierarchies
from orchestrator.lab.control import ControlSocket, ask
from orchestrator.lab.hosts_file import check_hosts_file, hosts_text, remove_hosts_file, write_hosts_file, written_by
from orchestrator.lab.keys import new_key
from orchestrator.lab.network import _routed_networks
from orchestrator.lab.shaping import LinkShape
from orchestrator.lab.spec import Lab, LabHost, check_name, load_lab

V1_AND_2 = """\
24 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/lib/x,name=systemd
33 30 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
34 24 0:27 /inner /somewhere/bound rw,relatime - cgroup cgroup rw,cpu,cpuacct
"""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr(spec, "STATE_ROOT", tmp_path / "state")
    (tmp_path / "state" / "try").mkdir(parents=True)
    (tmp_path / "hosts").mkdir()
    common = {"root": "/nowhere", "architecture": "amd64", "machine_id": "0" * 32}
    edge = LabHost(
        name="edge", role="edge_server", index=0, address="10.213.7.2", board={"name": "generic-x86"}, **common
    )
    pi = LabHost(
        name="pi-1",
        role="device",
        index=1,
        address="10.213.7.11",
        board={"name": "raspberry-pi-4b"},
        link=LinkShape(rate_bps=2e7),
        slowdown=8.0,
        **common,
    )
    hosts_file = str(tmp_path / "hosts" / "lab.yaml")
    return Lab(name="try", subnet=7, hosts=(edge, pi), owner=0, hosts_file=hosts_file, meter="cpu_model", shaper="wire")


def test_a_description_survives_its_file(lab: Lab):
    lab.save()
    assert load_lab("try") == lab


def test_all_names_begin_with_edgebed(lab: Lab):
    for name in (lab.network, lab.machine_interface, lab.network_of(lab.hosts[1]), lab.hosts[1].near, lab.hosts[1].far):
        assert name.startswith("edgebed")
    longest = dataclasses.replace(lab, subnet=255)
    assert len(longest.machine_interface) <= 15  # the kernel's limit
    assert len(dataclasses.replace(lab.hosts[1], index=200).near) <= 15


@pytest.mark.parametrize("name", ["", "Lab", "a b", "../x", "a.b", "-a", "a" * 31])
def test_a_lab_cannot_be_called_anything(name: str):
    with pytest.raises(BadInput, match="allowed"):
        check_name(name)


def test_a_lab_that_is_not_there_is_said_so(lab: Lab):
    with pytest.raises(BadInput, match="edgebed lab up"):
        load_lab("other")


def test_the_hosts_file_is_an_inventory(lab: Lab):
    keys = {host.name: new_key() for host in lab.hosts}
    write_hosts_file(lab, keys)
    inventory = load_inventory(lab.hosts_file)
    assert [host.name for host in inventory.hosts] == ["edge", "pi-1"]
    pi = inventory.host("pi-1")
    assert (pi.address, pi.user, pi.connection) == ("10.213.7.11", "pi", "ssh")
    assert (pi.board, pi.slowdown, pi.ssh_key_file) == ("raspberry-pi-4b", 8.0, str(lab.key_file))
    pinned = (Path(lab.hosts_file).parent / "known_hosts").read_text().splitlines()
    assert f"10.213.7.11 {keys['pi-1'].public}" in pinned
    remove_hosts_file(lab)
    assert list(Path(lab.hosts_file).parent.iterdir()) == []


def test_keys_of_others_stay_when_a_lab_goes(lab: Lab):
    known_hosts = Path(lab.hosts_file).parent / "known_hosts"
    other = f"192.0.2.9 {new_key().public}\n"
    known_hosts.write_text(other)
    write_hosts_file(lab, {host.name: new_key() for host in lab.hosts})
    remove_hosts_file(lab)
    assert known_hosts.read_text() == other


def test_a_hosts_file_of_someone_else_is_left_alone(lab: Lab):
    path = Path(lab.hosts_file)
    path.write_text("all: {}\n")
    with pytest.raises(BadInput, match="was not written by"):
        check_hosts_file(path, "try")
    path.write_text(hosts_text(lab))
    assert written_by(path) == "try"
    check_hosts_file(path, "try")
    with pytest.raises(BadInput, match="of the lab try"):
        check_hosts_file(path, "second")


def test_hierarchies_of_both_versions_are_found_once_each():
    found = {each.folder.name: each.options for each in hierarchies(V1_AND_2)}
    assert found == {"cpu,cpuacct": "cpu,cpuacct", "systemd": "name=systemd", "unified": ""}


def test_routes_are_read_as_networks():
    routes = "default via 192.0.2.1 dev eth0\n10.213.0.0/24 dev edgebed0\nlocal 10.1.2.3 dev x table local\n"
    assert [str(each) for each in _routed_networks(routes)] == ["10.213.0.0/24", "10.1.2.3/32"]


def test_quantities_have_units():
    assert _shape("20M", "5ms", "1ms", "1%") == LinkShape(rate_bps=2e7, delay_s=0.005, jitter_s=0.001, loss=0.01)
    assert _shape("500kbit", "0.1s", "200us", "0.01").rate_bps == 5e5
    assert _shape("0", "0", "0", "0") == LinkShape()


@pytest.mark.parametrize("text", ["", "5", "ms", "5 m", "-5ms", "infs", "nanms", "5mss"])
def test_a_quantity_without_sense_is_refused(text: str):
    with pytest.raises(BadInput, match="--delay"):
        _quantity("--delay", text, {"s": 1.0, "ms": 1e-3})


def test_a_control_socket_answers_and_passes_errors_on(tmp_path: Path):
    import threading

    def refuse() -> None:
        raise BadInput("this is not allowed; try that")

    control = ControlSocket(tmp_path / "c.sock", {"double": lambda number: 2 * number, "refuse": refuse})
    thread = threading.Thread(target=lambda: [control.serve_one() for _ in range(3)])
    thread.start()
    assert ask(tmp_path / "c.sock", "double", number=21) == 42
    with pytest.raises(BadInput, match="try that"):
        ask(tmp_path / "c.sock", "refuse")
    with pytest.raises(BadInput, match="double, refuse"):
        ask(tmp_path / "c.sock", "unknown")
    thread.join()
    control.close()


def test_without_root_or_linux_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["lab", "up"]) == 2
    assert "sudo edgebed lab" in capsys.readouterr().err
    monkeypatch.setattr(sys, "platform", "darwin")
    for verb in ("up", "down", "status"):
        assert main(["lab", verb]) == 2
        assert "needs Linux" in capsys.readouterr().err


def test_purging_removes_the_roots_and_nothing_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(image, "CACHE_ROOT", tmp_path / "edgebed" / "lab")
    (tmp_path / "edgebed" / "lab" / "debian-x" / "etc").mkdir(parents=True)
    (tmp_path / "edgebed" / "wheels").mkdir()
    image.purge_roots()
    assert [path.name for path in (tmp_path / "edgebed").iterdir()] == ["wheels"]
    (tmp_path / "edgebed" / "wheels").rmdir()
    image.purge_roots()
    assert list(tmp_path.iterdir()) == []


def test_another_list_of_packages_is_another_root(monkeypatch: pytest.MonkeyPatch):
    before = image.root_folder("amd64")
    assert image.root_folder("arm64") != before
    monkeypatch.setattr(image, "PACKAGES", (*image.PACKAGES, "chrony"))
    assert image.root_folder("amd64") != before


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(programs, "find_program", lambda name: None)
    with pytest.raises(BadInput, match="apt-get install iproute2"):
        programs.require_lab()
