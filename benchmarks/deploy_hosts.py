"""What deploying to eight virtual hosts takes: the first time, and when nothing is to be done.

The latter as a whole process, in turn with three others that look at the same things on the same hosts: the link to the
installed version, its record, the unit's content, and that it is enabled. They are Ansible (a playbook), pyinfra
(facts), and a hand-written script that connects by plain paramiko with one command a host: the floor. Ansible and
pyinfra are installed by pip into a folder of their own, only for this. Root, Linux. Limits: first deploy 60 s from a
warm wheelhouse; at least 15 times as fast as Ansible and twice as fast as pyinfra; at most twice the floor.

    python -m benchmarks.deploy_hosts [--hosts 8] [--repeat 7] [--tools FOLDER] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.machine import VERDICTS, machine
from orchestrator.inventory import Host, load_inventory
from orchestrator.lab.spec import load_lab

NAME = "bench"
LIMIT_FIRST_S = 60.0
AT_LEAST_ANSIBLE, AT_LEAST_PYINFRA, AT_MOST_FLOOR = 15.0, 2.0, 2.0

UNIT = "/etc/systemd/system/edgebed@.service"
LOOK = (
    f"readlink ~/.edgebed/current && cat ~/.edgebed/installation.json && sha1sum {UNIT} "
    "&& systemctl is-enabled edgebed@{}"
)

PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - stat: {{path: ~/.edgebed/current}}
      register: link
    - slurp: {{src: ~/.edgebed/installation.json}}
    - stat: {{path: {unit}, checksum_algorithm: sha1}}
      register: unit
    - command: "systemctl is-enabled edgebed@{{{{ program }}}}"
      changed_when: false
    - assert: {{that: [link.stat.islnk, unit.stat.exists]}}
"""

PYINFRA = f"""
from pyinfra import host
from pyinfra.facts.files import File, FileContents, Link, Sha1File
from pyinfra.facts.systemd import SystemdEnabled
assert host.get_fact(Link, path="/home/pi/.edgebed/current")
assert host.get_fact(FileContents, path="/home/pi/.edgebed/installation.json")
assert host.get_fact(Sha1File, path="{UNIT}")
assert host.get_fact(SystemdEnabled)
"""

FLOOR = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
import paramiko

def look(host):
    client = paramiko.SSHClient()
    client.load_host_keys(host["known_hosts"])
    client.connect(host["address"], username="pi", key_filename=host["key"], allow_agent=False, look_for_keys=False)
    _, out, _ = client.exec_command(host["command"])
    text, status = out.read(), out.channel.recv_exit_status()
    client.close()
    assert status == 0, text

hosts = json.load(sys.stdin)
with ThreadPoolExecutor(len(hosts)) as pool:
    list(pool.map(look, hosts))
"""


def seconds(command: list[str], **options: Any) -> float:
    """What a process takes that must succeed."""
    began_s = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, **options)
    took_s = time.monotonic() - began_s
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return took_s


def edgebed(*words: str | Path) -> list[str]:
    """The command line of ours."""
    return [sys.executable, "-m", "orchestrator", *map(str, words)]


def program_of(host: Host) -> str:
    """The service that a host has."""
    return "edge_server" if host.role == "edge_server" else "device_agent"


class Others:
    """The ways to look that are not ours.

    Args:
        tools: has, or gets, a virtual environment with Ansible and pyinfra.
        folder: for their files.
        hosts_file: of the lab.
    """

    def __init__(self, tools: Path, folder: Path, hosts_file: Path) -> None:
        self._bin = tools / "bin"
        self._folder = folder
        if not (self._bin / "pyinfra").exists():
            seconds([sys.executable, "-m", "venv", str(tools)])
            seconds([str(self._bin / "pip"), "install", "--quiet", "ansible-core", "pyinfra"])
        hosts = load_inventory(hosts_file).hosts
        known_hosts = hosts_file.parent / "known_hosts"
        key = str(load_lab(NAME).key_file)
        self._write_ansible(hosts, known_hosts, key)
        self._write_pyinfra(hosts, known_hosts, key)
        (folder / "floor.py").write_text(FLOOR)
        self._asked = json.dumps(
            [
                {
                    "address": host.address,
                    "key": key,
                    "known_hosts": str(known_hosts),
                    "command": LOOK.format(program_of(host)),
                }
                for host in hosts
            ]
        )

    def _write_ansible(self, hosts: tuple[Host, ...], known_hosts: Path, key: str) -> None:
        lines = {"edge_server": ["[edge_servers]"], "device": ["[devices]"]}
        for host in hosts:
            lines[host.role].append(f"{host.name} ansible_host={host.address} program={program_of(host)}")
        variables = [
            "[all:vars]",
            "ansible_user=pi",
            f"ansible_ssh_private_key_file={key}",
            f"ansible_ssh_common_args=-F none -o UserKnownHostsFile={known_hosts} -o IdentitiesOnly=yes",
            "ansible_python_interpreter=/usr/bin/python3",
        ]
        (self._folder / "hosts.ini").write_text("\n".join([*lines["edge_server"], *lines["device"], *variables]) + "\n")
        (self._folder / "look.yaml").write_text(PLAYBOOK.format(unit=UNIT))
        # Its fastest honest settings: all hosts at once, one round trip a task, connections shared and kept.
        (self._folder / "ansible.cfg").write_text(
            f"[defaults]\nforks = {len(hosts)}\n[ssh_connection]\npipelining = True\n"
            "ssh_args = -o ControlMaster=auto -o ControlPersist=60s\n"
        )

    def _write_pyinfra(self, hosts: tuple[Host, ...], known_hosts: Path, key: str) -> None:
        data = {
            "ssh_user": "pi",
            "ssh_key": key,
            "ssh_known_hosts_file": str(known_hosts),
            "ssh_strict_host_key_checking": "yes",
        }
        found = [(host.name, {"ssh_hostname": host.address, **data}) for host in hosts]
        (self._folder / "inventory.py").write_text(f"hosts = {found!r}\n")
        (self._folder / "look.py").write_text(PYINFRA)

    def ansible(self) -> float:
        """Seconds of a playbook."""
        command = [str(self._bin / "ansible-playbook"), "-i", "hosts.ini", "look.yaml"]
        environment = {"PATH": f"{self._bin}:/usr/sbin:/usr/bin:/bin", "HOME": str(self._folder), "LC_ALL": "C.UTF-8"}
        return seconds(command, cwd=self._folder, env=environment)

    def pyinfra(self) -> float:
        """Seconds of a pyinfra deploy."""
        return seconds([str(self._bin / "pyinfra"), "-y", "inventory.py", "look.py"], cwd=self._folder)

    def floor(self) -> float:
        """Seconds of plain paramiko."""
        return seconds([sys.executable, "floor.py"], cwd=self._folder, input=self._asked)


def measure(count: int, repeat: int, tools: Path) -> dict[str, Any]:
    """Run the benchmark; the answer is what ``--json`` prints."""
    # All of them as their users have them: Python keeps compiled modules.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory()))
        hosts_file = folder / "lab.yaml"
        held.callback(subprocess.run, edgebed("lab", "down", "--name", NAME), capture_output=True, check=False)
        up = ("lab", "up", "--name", NAME, "--devices", str(count - 1), "--hosts", hosts_file, "--no-probe")
        seconds(edgebed(*up))
        # Wheels are fetched, and the first deploy is measured on hosts that have nothing.
        seconds(edgebed("deploy", hosts_file))
        seconds(edgebed("clean", hosts_file))
        first_s = seconds(edgebed("deploy", hosts_file))
        others = Others(tools, folder, hosts_file)
        ways = {
            "edgebed": lambda: seconds(edgebed("deploy", hosts_file)),
            "ansible": others.ansible,
            "pyinfra": others.pyinfra,
            "floor": others.floor,
        }
        found: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(repeat + 1):
            for name, way in ways.items():
                took_s = way()
                if turn:  # the first warms up
                    found[name].append(took_s)
    return _summary(count, first_s, found) | machine()


def _summary(count: int, first_s: float, found: dict[str, list[float]]) -> dict[str, Any]:
    medians = {name: statistics.median(values) for name, values in found.items()}
    ours = medians["edgebed"]
    ratios = {name: medians[name] / ours for name in ("ansible", "pyinfra")} | {"floor": ours / medians["floor"]}
    return {
        "benchmark": "deploy_hosts",
        "hosts": count,
        "first_deploy_s": first_s,
        "unchanged_s": medians,
        "ranges_s": {name: [min(values), max(values)] for name, values in found.items()},
        "times_ansible": ratios["ansible"],
        "times_pyinfra": ratios["pyinfra"],
        "of_floor": ratios["floor"],
        "within_limit": first_s <= LIMIT_FIRST_S
        and ratios["ansible"] >= AT_LEAST_ANSIBLE
        and ratios["pyinfra"] >= AT_LEAST_PYINFRA
        and ratios["floor"] <= AT_MOST_FLOOR,
    }


def main() -> int:
    """Run the benchmark and print its answer."""
    parser = argparse.ArgumentParser(description="Deploying to virtual hosts, against Ansible, pyinfra and paramiko")
    parser.add_argument("--hosts", type=int, default=8, help="how many, the edge server included")
    parser.add_argument("--repeat", type=int, default=7, help="how many rounds")
    parser.add_argument(
        "--tools", type=Path, default=Path("build/benchmark-tools"), help="where Ansible and pyinfra go"
    )
    parser.add_argument("--json", action="store_true", help="one object on one line")
    options = parser.parse_args()
    found = measure(options.hosts, options.repeat, options.tools.resolve())
    if options.json:
        print(json.dumps(found))
        return 0 if found["within_limit"] else 1
    print(f"{found['hosts']} virtual hosts: first deploy {found['first_deploy_s']:.1f} s (limit {LIMIT_FIRST_S:g})")
    for name, median_s in found["unchanged_s"].items():
        low, high = found["ranges_s"][name]
        print(f"  nothing to do: {name:<8}{median_s:7.2f} s  ({low:.2f} to {high:.2f})")
    print(
        f"  {found['times_ansible']:.1f} times as fast as Ansible (at least {AT_LEAST_ANSIBLE:g}), "
        f"{found['times_pyinfra']:.1f} as pyinfra (at least {AT_LEAST_PYINFRA:g}), "
        f"{found['of_floor']:.2f} of the floor (at most {AT_MOST_FLOOR:g})"
    )
    print(f"  {VERDICTS[found['within_limit']]}; {found['machine']}; load {found['load_1min']}")
    return 0 if found["within_limit"] else 1


if __name__ == "__main__":
    sys.exit(main())
