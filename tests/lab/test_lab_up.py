"""Hosts of the lab are hosts: own root, systemd, sshd, identity; they reboot, and lose power."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestrator.inventory import load_inventory
from orchestrator.lab.making import answers_ssh
from tests.lab.running_lab import RunningLab, answer_of, edgebed, eventually

HOSTS = ("edge", "pi-1", "pi-2")


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_is_a_debian_of_its_own_with_systemd(lab: RunningLab, host: str):
    assert lab.said(host, "cat /proc/1/comm") == "systemd"
    assert lab.said(host, "hostname") == host
    assert lab.said(host, "id -un; sudo -n id -un").split() == ["pi", "root"]
    assert "bookworm" in lab.said(host, "cat /etc/os-release")
    # `is-system-running` waits for the boot to be over, and fails unless every unit is well.
    state = lab.ssh(host, "systemctl is-system-running --wait; systemctl --failed --no-legend")
    assert state.stdout.split() == ["running"], state.stdout


def test_the_hosts_file_is_what_the_orchestrator_reads(lab: RunningLab):
    inventory = load_inventory(lab.hosts_file)
    assert [host.name for host in inventory.hosts] == list(HOSTS)
    assert inventory.host("pi-2").board == "raspberry-pi-5"
    assert inventory.host("pi-1").meter == "hwmon_ina2xx"


def test_no_two_hosts_share_an_identity(lab: RunningLab):
    identities = {lab.said(host, "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub") for host in HOSTS}
    assert len(identities) == len(HOSTS)


def test_a_host_sees_its_own_processes_and_files_only(lab: RunningLab):
    assert lab.said("pi-1", "ls /proc | grep -c '^[0-9]'") != ""
    assert int(lab.said("pi-1", "ls /proc | grep -c '^[0-9]'")) < 60
    lab.said("pi-1", "echo mine > /var/tmp/mine && sudo sh -c 'echo root > /root/mine'")
    assert lab.ssh("pi-2", "cat /var/tmp/mine").returncode == 1
    assert not Path("/var/tmp/mine").exists()
    lab.said("pi-1", "sudo rm /var/tmp/mine /root/mine")


def test_root_in_a_host_cannot_touch_the_machine(lab: RunningLab):
    for command in ("date -s 2020-01-01", "mknod /dev/disk b 254 0", "sh -c 'echo 1 > /proc/sys/vm/overcommit_memory'"):
        done = lab.ssh("pi-1", f"sudo -n {command}")
        assert done.returncode != 0, command


def test_a_host_has_a_disk_of_its_own_size(lab: RunningLab):
    size_kb = int(lab.said("pi-1", "df -Pk / | tail -n 1").split()[1])
    assert 3.5 * 2**20 < size_kb <= 4 * 2**20
    done = lab.ssh("pi-1", "fallocate -l 8G /var/tmp/too-much; rm -f /var/tmp/too-much")
    assert "No space left" in done.stderr


def test_user_services_and_linger_work(lab: RunningLab):
    lab.said("pi-1", "sudo loginctl enable-linger pi")
    eventually(
        lambda: (
            lab.ssh("pi-1", "XDG_RUNTIME_DIR=/run/user/$(id -u) systemctl --user is-active default.target").returncode
            == 0
        )
    )
    assert (
        lab.said("pi-1", "XDG_RUNTIME_DIR=/run/user/$(id -u) systemd-run --user --wait --pipe --quiet echo hello")
        == "hello"
    )
    lab.said("pi-1", "sudo loginctl disable-linger pi")


def test_a_reboot_keeps_the_disk_and_nothing_else(lab: RunningLab):
    lab.said("pi-2", "echo kept > /home/pi/kept && echo gone > /tmp/gone")
    before = lab.said("pi-2", "cat /proc/sys/kernel/random/boot_id > /home/pi/boot; ps -o lstart= -p 1")
    boots = lab.live.status()["hosts"]["pi-2"]["boots"]
    lab.ssh("pi-2", "sudo systemctl reboot")
    eventually(lambda: lab.live.status()["hosts"]["pi-2"]["boots"] == boots + 1)
    eventually(lambda: answers_ssh(lab.live.lab.host("pi-2").address))
    assert lab.said("pi-2", "cat /home/pi/kept; ls /tmp/gone 2>/dev/null; rm /home/pi/kept /home/pi/boot") == "kept"
    assert lab.said("pi-2", "ps -o lstart= -p 1") != before


def test_a_power_cut_is_silent_and_the_host_comes_back(lab: RunningLab):
    address = lab.live.lab.host("pi-2").address
    lab.said("pi-2", "echo synced > /home/pi/synced; sync")
    lab.live.power_cut("pi-2", off_s=5.0)
    cut_s = time.monotonic()
    assert lab.live.status()["hosts"]["pi-2"]["state"] == "off"
    assert not answers_ssh(address, timeout_s=0.3)
    eventually(lambda: answers_ssh(address))
    assert time.monotonic() - cut_s > 3.0
    assert lab.said("pi-2", "cat /home/pi/synced; rm /home/pi/synced") == "synced"


def test_a_host_can_be_switched_off_and_on(lab: RunningLab):
    lab.live.power_off("pi-2")
    eventually(lambda: lab.live.status()["hosts"]["pi-2"]["state"] == "off")
    lab.live.boot("pi-2")
    eventually(lambda: answers_ssh(lab.live.lab.host("pi-2").address))


def test_a_cpu_quota_is_held(lab: RunningLab):
    loop = "end = time.monotonic() + 1.5\nwhile time.monotonic() < end: pass\nprint(time.process_time())"
    burn = f"python3 -c 'import time\n{loop}'"
    lab.live.set_cpu("pi-1", 0.2)
    slow_s = float(lab.said("pi-1", burn))
    lab.live.set_cpu("pi-1", None)
    assert slow_s < 0.9  # 0.2 of 1.5 s, and what the start of Python got


def test_status_tells_all_of_it(lab: RunningLab):
    report = answer_of(edgebed("lab", "status", "--name", "test", "--json"))["labs"]["test"]
    assert report["state"] == "up"
    assert set(report["hosts"]) == set(HOSTS)
    pi = report["hosts"]["pi-1"]
    assert (pi["state"], pi["board"], pi["link"]["cut"]) == ("on", "raspberry-pi-4b", False)
    assert pi["probe"]["up"]["delay_s"] > 0.004


def test_a_second_lab_of_the_same_name_is_refused(lab: RunningLab):
    done = edgebed("lab", "up", "--name", "test", "--hosts", lab.hosts_file)
    assert done.returncode == 2
    assert "edgebed lab down --name test" in done.stderr
