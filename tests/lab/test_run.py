"""Runs on virtual hosts, over the real way: what they measure, and what they survive."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.testbed import EXPERIMENT, Testbed
from tests.lab.running_lab import RunningLab, answer_of, edgebed

pytestmark = [pytest.mark.lab, pytest.mark.integration]

DEVICE = "pi-1"


class LabTestbed(Testbed):
    """A testbed whose hosts are those of a lab."""

    def __init__(self, folder: Path, lab: RunningLab) -> None:
        super().__init__(folder)
        self.lab = lab

    def run(self, **changes: Any) -> None:
        """Begin `edgebed run`."""
        (self.folder / "tiny.yaml").write_text(yaml.safe_dump(EXPERIMENT | {"timeouts": {"task_s": 4.0}} | changes))
        hosts = str(self.lab.hosts_file)
        self.begin("run", str(self.folder / "tiny.yaml"), "--hosts", hosts, "--runs", str(self.runs))

    def programs_on(self, host: str) -> list[str]:
        """The programs of edgebed that run on a host."""
        found = self.lab.said(host, "ps -eo args | grep -E 'python -m (edge_server|device_agent)' | grep -v grep || :")
        return found.splitlines()

    def check_nothing_is_left(self) -> None:
        """No program, no state folder and no lease on any host."""
        for host in ("edge", "pi-1", "pi-2"):
            assert self.programs_on(host) == []
            left = self.lab.said(host, "ls -A ~/.local/state/edgebed ~/.edgebed/active 2>/dev/null; ls ~/.edgebed")
            assert "lease.json" not in left
            assert self.run_folder.name not in left
        assert not list(self.state.glob("*"))

    def incidents(self, kind: str) -> list[dict[str, Any]]:
        """What the events of a kind say, in the order of time."""
        rows = self.sql(f"SELECT t_s, host, detail FROM events WHERE kind = '{kind}' ORDER BY t_s")
        return [json.loads(detail) | {"t_s": t_s, "host": host} for t_s, host, detail in rows]


@pytest.fixture(scope="module")
def deployed(lab: RunningLab) -> Iterator[RunningLab]:
    """The lab with edgebed on it."""
    answer_of(edgebed("deploy", lab.hosts_file, "--json"))
    yield lab
    answer_of(edgebed("clean", lab.hosts_file, "--json"))


@pytest.fixture
def testbed(tmp_path: Path, deployed: RunningLab) -> Iterator[LabTestbed]:
    made = LabTestbed(tmp_path.resolve(), deployed)
    try:
        yield made
        made.check_nothing_is_left()
    finally:
        made.kill_everything()


def test_a_run_measures_real_hosts(testbed: LabTestbed) -> None:
    testbed.run(workload="digits", deadline_s=2.0, policies=["all_local", "all_edge"], epochs=20)
    answer = testbed.finish()
    assert (answer["state"], answer["cells"]) == ("complete", 2)
    counts = testbed.check_rows()
    assert counts["done", ""] == sum(counts.values())
    sources = dict(testbed.sql("SELECT site, any_value(energy_source) FROM tasks GROUP BY site"))
    assert sources["device"] == "measured:ina219", "the scripted sensor, by its real driver"
    slow = testbed.sql("SELECT min(uplink_s + downlink_s) FROM tasks WHERE site = 'edge'")[0][0]
    assert slow > 0.008, "two ways of 5 ms each, give or take a millisecond"
    heat = testbed.sql("SELECT host, avg(temperature_c), avg(power_w) FROM samples GROUP BY host ORDER BY host")
    assert [host for host, *_ in heat] == ["edge", "pi-1", "pi-2"]
    assert all(celsius > 20 and watts > 0 for _, celsius, watts in heat)
    hosts = testbed.manifest()["hosts"]
    assert {name: "lab" in str(facts.get("virtual")) for name, facts in hosts.items()} == dict.fromkeys(hosts, True)
    assert testbed.sql("SELECT count(*) FROM tasks WHERE NOT list_contains(flags, 'emulated')") == [(0,)]
    assert not [path for path in testbed.run_folder.rglob("*") if path.suffix == ".key"]
    key = testbed.lab.live.lab.key_file.name
    assert key not in (testbed.run_folder / "plan.yaml").read_text()


def test_a_device_that_reboots_comes_back_into_the_run(testbed: LabTestbed) -> None:
    testbed.run(epochs=120, faults=[{"kind": "reboot", "host": DEVICE, "at_s": 5.0}])
    answer = testbed.finish()
    assert answer["state"] == "complete"
    counts = testbed.check_rows()
    assert counts["done", ""] > sum(counts.values()) / 2
    (over,) = testbed.incidents("fault_end")
    start_s = testbed.attempts()[0]["run_clock_s"]
    again = f"SELECT min(arrived_s) FROM tasks WHERE device_id = '{DEVICE}' AND outcome = 'done'"
    back_s = testbed.sql(f"{again} AND arrived_s > {start_s + 6.0}")[0][0]
    assert back_s - over["t_s"] < 15.0, "a host that comes back works again within 15 s, also on a busy machine"


def test_an_orchestrator_that_is_killed_finds_its_programs_again(testbed: LabTestbed) -> None:
    testbed.run(epochs=60, policies=["all_edge", "all_local"])
    testbed.wait_for_rows(5)
    assert testbed.process is not None
    testbed.signal(signal.SIGKILL)
    testbed.process.communicate()
    assert all(testbed.programs_on(host) for host in ("edge", "pi-1", "pi-2")), "nobody needs it to go on"
    testbed.begin("resume", str(testbed.run_folder))
    answer = testbed.finish()
    assert (answer["state"], answer["cells"]) == ("complete", 2)
    assert testbed.incidents("programs_adopted")
    counts = testbed.check_rows()
    assert counts["done", ""] == sum(counts.values()), "nothing was lost"
    assert [each["attempt"] for each in testbed.attempts()] == [1, 1], "the cell went on"


def test_a_second_orchestrator_is_told_who_is_there(testbed: LabTestbed) -> None:
    testbed.run(epochs=40)
    testbed.wait_for_rows(2)
    second = edgebed(
        "run", testbed.folder / "tiny.yaml", "--hosts", testbed.lab.hosts_file, "--runs", testbed.folder / "second"
    )
    assert second.returncode == 1
    for host in ("edge", "pi-1", "pi-2"):
        assert f"{host}: is held by" in second.stderr
    assert not (testbed.folder / "second").exists()
    answer = testbed.finish()
    assert testbed.check_rows()["done", ""] == answer["planned"], "and the first has noticed nothing"


def test_an_interrupt_collects_and_resume_goes_on(testbed: LabTestbed) -> None:
    testbed.run(epochs=30, policies=["all_edge", "all_local"])
    testbed.wait_for_rows(3)
    testbed.signal(signal.SIGINT)
    assert testbed.finish(130)["state"] == "incomplete"
    testbed.check_nothing_is_left()
    testbed.begin("resume", str(testbed.run_folder))
    assert testbed.finish()["cells"] == 2
    counts = testbed.check_rows()
    assert counts["done", ""] == sum(counts.values())
