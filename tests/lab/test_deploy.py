"""Deploying to virtual hosts: fresh Debian, real SSH, real systemd, no internet; used, rebooted, and undone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgebed.errors import RemoteError, WorkFailed
from orchestrator.cli import main
from orchestrator.inventory import Host, load_inventory
from orchestrator.lab.live import LiveLab
from orchestrator.provision.installation import Installation, read_installation
from orchestrator.provision.supervision import ProgramState, Supervision
from orchestrator.provision.systemd import SystemdSupervision, supervision_for
from orchestrator.remote.base import Remote
from orchestrator.remote.connect import remote_for
from orchestrator.remote.host_keys import KnownHosts
from tests.lab.running_lab import RunningLab

pytestmark = [pytest.mark.lab, pytest.mark.integration]

PATIENCE_S = 60.0

# All that a host has on its disk, and what its systemd and its accounts are; without what logs and clocks write.
LISTING = r"""
sudo find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /var/log \
    -o -path /var/lib/systemd/timers -o -path /var/lib/systemd/random-seed -o -path /var/tmp \) -prune \
    -o -type f -printf '%p %m %u %g %s\n' -o -printf '%p %y %m %u %g %l\n' | sort
systemctl list-unit-files --no-legend --no-pager | grep -v transient
cat /etc/passwd /etc/group
ls /var/lib/systemd/linger 2>/dev/null
"""

# Says that it listens, and waits to be told to end. The folder in its command is how supervise.sh knows it.
PROGRAM = 'trap "exit 0" TERM; echo tcp://127.0.0.1:1 >prog.endpoint; while :; do sleep 0.1; done'


class LabHosts:
    """The hosts of a lab, as an orchestrator sees them."""

    def __init__(self, hosts_file: Path, folder: Path) -> None:
        self.hosts_file = hosts_file
        self.folder = folder
        self._remotes: list[Remote] = []

    def host(self, name: str) -> Host:
        return load_inventory(self.hosts_file).host(name)

    def connect(self, name: str) -> Remote:
        remote = remote_for(self.host(name), KnownHosts.beside(self.hosts_file))
        remote.connect()
        self._remotes.append(remote)
        return remote

    def with_variables(self, **variables: object) -> LabHosts:
        """The same hosts, with more variables for all of them."""
        plain = yaml.safe_load(self.hosts_file.read_text())
        plain["all"].setdefault("vars", {}).update(variables)
        path = self.hosts_file.with_name(f"with-{'-'.join(map(str, variables.values()))}.yaml")
        path.write_text(yaml.safe_dump(plain))
        return LabHosts(path, self.folder)

    def verb(self, capsys: pytest.CaptureFixture[str], verb: str, *options: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        status = main([verb, str(self.hosts_file), "--json", *options])
        captured = capsys.readouterr()
        assert captured.out, captured.err
        return status, json.loads(captured.out)["hosts"]

    def close(self) -> None:
        for remote in self._remotes:
            remote.close()


@pytest.fixture
def hosts(lab_hosts_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[LabHosts]:
    hosts = LabHosts(lab_hosts_file, tmp_path)
    hosts.verb(capsys, "clean", "--force")  # whatever another test has left
    yield hosts
    hosts.verb(capsys, "clean", "--force")
    hosts.close()


@pytest.fixture
def live_lab(lab: RunningLab) -> LiveLab:
    return lab.live


def listing(remote: Remote) -> list[str]:
    return remote.execute(LISTING, timeout_s=120).checked().text.splitlines()


def eventually(read: Callable[[], Any], holds: Callable[[Any], bool]) -> Any:
    """Look until something holds; a host that is just rebooting does not answer."""
    end_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            found = read()
            if holds(found):
                return found
        except RemoteError as error:
            found = error
        assert time.monotonic() < end_s, f"still {found}"
        time.sleep(0.05)


def test_the_second_deploy_changes_nothing_and_clean_leaves_nothing(
    hosts: LabHosts, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [host.name for host in load_inventory(hosts.hosts_file).hosts]
    remotes = {name: hosts.connect(name) for name in names}
    before = {name: listing(remote) for name, remote in remotes.items()}

    status, first = hosts.verb(capsys, "deploy")
    assert status == 0, first
    assert {report["state"] for report in first.values()} == {"changed"}

    after = {name: listing(remote) for name, remote in remotes.items()}
    status, second = hosts.verb(capsys, "deploy")
    assert (status, {report["state"] for report in second.values()}) == (0, {"unchanged"})
    assert not any(report["changed"] or report["commands"] for report in second.values())
    assert {name: listing(remote) for name, remote in remotes.items()} == after
    for name in names:
        added = set(after[name]) - set(before[name])
        assert any("/etc/systemd/system/edgebed@.service 644 root root" in line for line in added)

    assert hosts.verb(capsys, "clean")[0] == 0
    for name in names:
        assert listing(remotes[name]) == before[name]
    status, again = hosts.verb(capsys, "clean")
    assert (status, {report["state"] for report in again.values()}) == (0, {"unchanged"})


def test_one_host_that_fails_does_not_stop_the_others_and_is_all_that_a_rerun_repairs(
    hosts: LabHosts, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = hosts.connect("pi-1")
    bad.execute("mkdir ~/.edgebed && echo mine >~/.edgebed/notes").checked()
    status, first = hosts.verb(capsys, "deploy")
    states = {name: report["state"] for name, report in first.items()}
    assert (status, states.pop("pi-1"), set(states.values())) == (1, "failed", {"changed"})
    assert "move it away" in first["pi-1"]["error"]
    assert bad.execute("cat ~/.edgebed/notes").text == "mine"
    bad.execute("rm -r ~/.edgebed").checked()
    status, second = hosts.verb(capsys, "deploy")
    states = {name: report["state"] for name, report in second.items()}
    assert (status, states.pop("pi-1"), set(states.values())) == (0, "changed", {"unchanged"})


class Kept:
    """A program of a made-up run on a host."""

    def __init__(self, hosts: LabHosts, name: str, program: str = "device_agent") -> None:
        self.name = name
        self.program = program
        self.remote = hosts.connect(name)
        self.installation: Installation = read_installation(self.remote, hosts.host(name))
        root = '"${XDG_STATE_HOME:-$HOME/.local/state}"/edgebed/made-up'
        self.folder = self.remote.execute(f"mkdir -p {root}/{name} && cd {root}/{name} && pwd -P").checked().text
        self.keeper: Supervision = supervision_for(self.remote, self.folder, self.installation)
        self.keeper.install()

    def start(self, script: str = PROGRAM) -> None:
        script = script.replace("prog", self.program)
        self.keeper.start(self.program, ["sh", "-c", script, f"{self.folder}/it's"])

    def state(self) -> ProgramState:
        return self.keeper.states([self.program])[self.program]


@pytest.mark.parametrize("service", ["system", "user", "none"])
def test_a_program_is_kept_until_it_is_stopped(
    hosts: LabHosts, capsys: pytest.CaptureFixture[str], service: str
) -> None:
    wanted = hosts.with_variables(edgebed_service=service)
    before = listing(hosts.connect("pi-1"))
    status, reports = wanted.verb(capsys, "deploy", "--host", "pi-1")
    assert status == 0, reports["pi-1"]["error"]
    kept = Kept(wanted, "pi-1")
    assert kept.installation.keeper == {"system": "systemd_system", "user": "systemd_user", "none": "shell"}[service]
    assert isinstance(kept.keeper, SystemdSupervision) == (service != "none")
    assert kept.state().is_dead

    kept.start()
    assert kept.keeper.await_endpoint("device_agent", 20.0) == "tcp://127.0.0.1:1"
    first = kept.state()
    assert first.is_kept
    assert first.starts == 1
    kept.start()
    assert kept.state() == first, "starting twice keeps the first"

    kept.remote.execute(f"kill -KILL {first.pid}").checked()
    second = eventually(kept.state, lambda state: state.starts == 2 and state.pid not in (None, first.pid))
    assert second.is_kept

    kept.remote.execute(f"kill -STOP {second.pid}").checked()
    kept.keeper.stop(["device_agent"], 5.0)
    ended = kept.state()
    assert (ended.is_dead, ended.exit_status) == (True, 0)
    kept.keeper.stop(["device_agent"], 5.0)

    kept.remote.execute(f"rm -r {kept.folder.rpartition('/')[0]}").checked()
    assert wanted.verb(capsys, "clean", "--host", "pi-1")[0] == 0
    assert listing(hosts.connect("pi-1")) == before


def test_a_program_that_ends_by_itself_is_not_started_again(
    hosts: LabHosts, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hosts.verb(capsys, "deploy", "--host", "pi-1")[0] == 0
    kept = Kept(hosts, "pi-1")
    for script, status in (("exit 0", 0), ("echo wrong settings; exit 2", 2)):
        kept.start(script)
        with pytest.raises(WorkFailed, match="ended before it listened"):
            kept.keeper.await_endpoint("device_agent", 20.0)
        ended = kept.state()
        assert (ended.is_dead, ended.exit_status) == (True, status)
    assert "wrong settings" in kept.keeper.log_tail("device_agent")
    kept.keeper.stop(["device_agent"], 5.0)
    # What hears no TERM is killed.
    kept.start('trap "" TERM; echo tcp://127.0.0.1:1 >prog.endpoint; while :; do sleep 0.1; done')
    kept.keeper.await_endpoint("device_agent", 20.0)
    kept.keeper.stop(["device_agent"], 1.0)
    assert kept.state().is_dead


def test_after_a_reboot_exactly_what_was_kept_starts_again(
    hosts: LabHosts, live_lab: LiveLab, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hosts.verb(capsys, "deploy", "--host", "edge")[0] == 0
    kept, idle = Kept(hosts, "edge", "edge_server"), Kept(hosts, "edge", "controller")
    kept.start()
    idle.start()
    kept.keeper.await_endpoint("edge_server", 20.0)
    idle.keeper.await_endpoint("controller", 20.0)
    idle.keeper.stop(["controller"], 5.0)
    boots = live_lab.status()["hosts"]["edge"]["boots"]
    live_lab.reboot("edge")
    eventually(lambda: live_lab.status()["hosts"]["edge"]["boots"], lambda found: found > boots)
    again = eventually(kept.state, lambda state: state.is_kept and state.starts == 2)
    assert again.pid is not None
    assert idle.state().is_dead
    kept.keeper.stop(["edge_server"], 5.0)


def test_the_service_may_do_little(hosts: LabHosts, capsys: pytest.CaptureFixture[str]) -> None:
    assert hosts.verb(capsys, "deploy", "--host", "pi-1")[0] == 0
    kept = Kept(hosts, "pi-1")
    kept.start(
        "echo tcp://127.0.0.1:1 >prog.endpoint; id -un >who; touch /etc/x /home/pi/x 2>denied; sudo -n true 2>>denied;"
        "cat /sys/class/thermal/thermal_zone0/temp >sensor; vcgencmd get_throttled >throttled;"
        "ulimit -n >files; exec sleep 60"
    )
    kept.keeper.await_endpoint("device_agent", 20.0)
    said = kept.remote.execute(f"cd {kept.folder}; tail -n +1 who denied sensor files throttled").checked().text
    assert "pi" in said
    assert said.count("Read-only file system") == 2
    assert "no new privileges" in said
    files = int(kept.remote.execute(f"cat {kept.folder}/files").text)
    assert files > 1024, "as far as the machine below the virtual host allows"
    assert "throttled=0x" in said
    security = kept.remote.execute("systemd-analyze security --no-pager edgebed@device_agent.service").text
    exposure = float(security.rsplit("service:", 1)[1].split()[0])
    assert exposure < 4.0, security
    kept.keeper.stop(["device_agent"], 5.0)


def test_another_runs_program_is_left_alone(hosts: LabHosts, capsys: pytest.CaptureFixture[str]) -> None:
    assert hosts.verb(capsys, "deploy", "--host", "pi-1")[0] == 0
    kept = Kept(hosts, "pi-1")
    kept.start()
    kept.keeper.await_endpoint("device_agent", 20.0)
    kept.remote.execute(f"mkdir -p {kept.folder}/../other").checked()
    other = supervision_for(kept.remote, f"{kept.folder.rpartition('/')[0]}/other", kept.installation)
    with pytest.raises(RemoteError, match="runs for another run already"):
        other.start("device_agent", ["sleep", "60"])
    other.stop(["device_agent"], 1.0)
    assert kept.state().is_kept
    assert other.states(["device_agent"])["device_agent"].is_dead
    kept.keeper.stop(["device_agent"], 5.0)
    kept.remote.execute(f"rm -r {kept.folder.rpartition('/')[0]}").checked()


def test_sudo_that_asks_for_a_password(hosts: LabHosts, capsys: pytest.CaptureFixture[str]) -> None:
    remote = hosts.connect("pi-1")
    allow = "/etc/sudoers.d/010_pi-nopasswd"
    # Someone with the right to do so gives it back when this file is there.
    giver = f"while ! [ -e /run/edgebed-test/give-back ]; do sleep 0.1; done; mv /root/allow {allow}"
    remote.execute("sudo install -d -m 777 /run/edgebed-test").checked()
    remote.execute(f"sudo systemd-run --quiet sh -c {giver!r} && sudo mv {allow} /root/allow").checked()
    try:
        before = remote.execute("find ~ | sort").checked().text
        wanted = hosts.with_variables(edgebed_service="system")
        status, reports = wanted.verb(capsys, "deploy", "--host", "pi-1")
        assert status == 1
        assert "needs sudo without a password for pi" in reports["pi-1"]["error"]
        assert remote.execute("find ~ | sort").checked().text == before
    finally:
        remote.execute("touch /run/edgebed-test/give-back").checked()
        eventually(lambda: remote.execute("sudo -n true").status, lambda status: status == 0)
        remote.execute("sudo rm -r /run/edgebed-test").checked()
