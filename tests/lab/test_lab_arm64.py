"""One emulated arm64 host: the root, the packages and the programs of a 64-bit Pi work. Correctness only, not speed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.lab.arm64 import PREPARE, require_arm64
from orchestrator.lab.programs import call
from tests.lab.running_lab import RunningLab, answer_of, bring_up, edgebed

NAME = "arm"
MOUNTED = Path("/proc/sys/fs/binfmt_misc")


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    was_mounted = (MOUNTED / "register").exists()
    for command in PREPARE[1:]:  # the packages are those of apt-packages.txt
        if not (command.startswith("mount") and was_mounted):
            call(command.split())
    require_arm64()
    hosts_file = tmp_path_factory.mktemp("arm") / "lab.yaml"
    yield bring_up(NAME, hosts_file, "--devices", "1", "--arm64", "--no-probe")
    answer_of(edgebed("lab", "down", "--name", NAME, "--json"))
    if not was_mounted:
        call(["umount", str(MOUNTED)])


def test_it_is_a_64_bit_arm_debian_with_systemd(arm: RunningLab):
    assert arm.said("pi-1", "uname -m", timeout_s=120) == "aarch64"
    assert arm.said("pi-1", "dpkg --print-architecture", timeout_s=120) == "arm64"
    assert arm.said("pi-1", "systemctl show --property=Version --value", timeout_s=120).startswith("252")


def test_it_shows_a_pis_processor(arm: RunningLab):
    assert "0xd08" in arm.said("pi-1", "cat /proc/cpuinfo", timeout_s=120)  # Cortex-A72


def test_the_arm64_wheels_install_and_work(arm: RunningLab):
    """Deploys with the arm64 wheelhouse, and recognises one clip."""
    answer = answer_of(edgebed("deploy", arm.hosts_file, "--json"))
    assert answer["hosts"]["pi-1"]["error"] in (None, ""), answer
    python = "$HOME/.edgebed/current/bin/python"
    code = "import numpy, zmq, psutil, msgspec, onnxruntime, yaml, PIL; print(onnxruntime.__version__)"
    assert arm.said("pi-1", f"{python} -c '{code}'", timeout_s=300)
    loads = 'from workloads import load_workload; import numpy; w = load_workload("digits"); print(w.name)'
    assert arm.said("pi-1", f"{python} -c '{loads}'", timeout_s=300)
