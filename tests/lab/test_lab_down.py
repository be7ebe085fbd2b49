"""`lab down` leaves nothing, also after a kill, an interrupt, or half an `up`; labs live side by side."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from orchestrator.lab.cgroups import hierarchies
from orchestrator.lab.programs import call
from orchestrator.lab.spec import DISKS_ROOT, STATE_ROOT, lab_names, labs
from orchestrator.lab.teardown import take_down
from tests.lab.running_lab import RunningLab, answer_of, bring_up, edgebed, eventually

SECOND = "second"
RAY_NETWORKS = "edgebed-ray"
"""How the namespaces of tests/learning/ray_cluster.py are named, which may run beside these tests."""


@pytest.fixture(autouse=True)
def _no_second_lab() -> Iterator[None]:
    yield
    if SECOND in lab_names():  # a test has failed in the middle; the next one is to have its chance
        take_down(SECOND)


def listing() -> dict[str, list[str]]:
    """All that labs make on this machine, but for what belongs to the other labs that are up, by their descriptions."""
    others = [lab for lab in labs() if lab.name != SECOND]
    marks = [
        mark for lab in others for mark in (f"edgebed-{lab.name}", f"edgebed-lab/{lab.name}", f"keeper {lab.name} ")
    ]
    marks += [mark for lab in others for mark in (lab.machine_interface, lab.prefix)]
    marks.append(RAY_NETWORKS)

    def ours(items: Iterable[str]) -> list[str]:
        return sorted(item for item in items if not any(mark in item for mark in marks))

    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return {
        "namespaces": ours(line.split()[0] for line in call(["ip", "netns", "list"]).splitlines()),
        "interfaces": ours(line.split(": ")[1] for line in call(["ip", "-oneline", "link"]).splitlines()),
        "routes": ours(call(["ip", "-4", "route", "show", "table", "all"]).splitlines()),
        "mounts": ours(mounts),
        "groups": ours(str(path) for each in hierarchies() for path in each.folder.glob("edgebed*")),
        "loops": ours(line for line in call(["losetup", "--list", "--noheadings"]).splitlines() if "edgebed" in line),
        "processes": ours(lab_processes()),
        "files": ours(str(path) for root in (STATE_ROOT, DISKS_ROOT) for path in root.glob("*")),
    }


def lab_processes() -> list[str]:
    """Command lines of all programs of labs."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if re.search(r"orchestrator\.lab\.\w+ ", text):
                found.append(text)
    return found


def test_down_leaves_nothing_and_another_lab_alone(lab: RunningLab, tmp_path: Path):
    before = listing()
    second = bring_up(SECOND, tmp_path / "second.yaml", "--devices", "1", "--no-probe")
    assert second.live.lab.subnet != lab.live.lab.subnet
    assert second.said("pi-1", "hostname") == "pi-1"
    assert set(listing()["namespaces"]) - set(before["namespaces"]) == {
        "edgebed-second",
        "edgebed-second.edge",
        "edgebed-second.pi-1",
    }
    answer_of(edgebed("lab", "down", "--name", SECOND, "--json"))
    assert listing() == before
    assert list(tmp_path.iterdir()) == []
    assert lab.said("pi-1", "hostname") == "pi-1"


def test_what_a_killed_keeper_leaves_is_removed(lab: RunningLab, tmp_path: Path):
    before = listing()
    second = bring_up(SECOND, tmp_path / "second.yaml", "--devices", "1", "--no-probe")
    keeper = int((second.live.lab.state / "keeper.pid").read_text().split()[0])
    os.kill(keeper, signal.SIGKILL)
    # All hosts and links die with it.
    eventually(lambda: listing()["processes"] == before["processes"])
    report = answer_of(edgebed("lab", "status", "--name", SECOND, "--json"))["labs"]["second"]
    assert report["state"] == "broken"
    answer_of(edgebed("lab", "down", "--name", SECOND, "--json"))
    assert listing() == before


def test_an_interrupted_up_takes_itself_back(lab: RunningLab, tmp_path: Path):
    before = listing()
    command = [sys.executable, "-m", "orchestrator", "lab", "up", "--name", SECOND, "--devices", "2"]
    for number in (signal.SIGINT, signal.SIGTERM):
        up = subprocess.Popen(
            [*command, "--hosts", str(tmp_path / "second.yaml")],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        # In the middle: some namespaces are there, the hosts do not answer yet.
        eventually(lambda: "edgebed-second.edge" in listing()["namespaces"])
        up.send_signal(number)
        _, said = up.communicate(timeout=60)
        assert up.returncode == 130, said
        assert listing() == before, said
    assert list(tmp_path.iterdir()) == []


def test_a_killed_up_is_removed_by_down(lab: RunningLab, tmp_path: Path):
    before = listing()
    command = [sys.executable, "-m", "orchestrator", "lab", "up", "--name", SECOND, "--devices", "1"]
    up = subprocess.Popen([*command, "--hosts", str(tmp_path / "second.yaml")], stderr=subprocess.DEVNULL)
    eventually(lambda: "edgebed-second" in listing()["namespaces"])
    up.kill()
    up.wait()
    refused = edgebed("lab", "up", "--name", SECOND, "--hosts", tmp_path / "second.yaml")
    assert refused.returncode == 2
    answer_of(edgebed("lab", "down", "--name", SECOND, "--json"))
    assert listing() == before


def test_down_of_no_lab_says_so(lab: RunningLab):
    done = edgebed("lab", "down", "--name", "nowhere")
    assert done.returncode == 2
    assert "no lab called 'nowhere'" in done.stderr
