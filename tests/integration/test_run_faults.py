"""What may go wrong in a run, done to real processes.

In every case: each planned task has exactly one row with one outcome, the run's state says what happened, and no
process, key or folder is left behind (the fixture looks).
"""

from __future__ import annotations

import os
import random
import signal
import struct
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from edgebed.configuration import PeerAddress, ServerConfig, read_config
from edgebed.protocol.security import make_key_pair, read_key_pair, secure_client

pytestmark = pytest.mark.integration


def only(counts: dict[tuple[str, str], int], *allowed: tuple[str, str]) -> None:
    assert set(counts) <= {("done", ""), *allowed}, counts


def test_the_edge_server_is_killed(testbed: Any) -> None:
    testbed.run(epochs=48)
    testbed.wait_for_rows(3)
    os.kill(testbed.pid("edge", "edge_server"), signal.SIGKILL)
    answer = testbed.finish()
    counts = testbed.check_rows()
    only(counts, ("unknown", "server_lost"), ("failed", "server_unreachable"), ("failed", "server_lost"),
         ("failed", "not_ready"), ("failed", "wrong_cell"))  # fmt: skip
    assert answer["state"] == "complete"
    assert counts["done", ""] < sum(counts.values()), "a server that is not there does nothing"
    last = testbed.sql("SELECT outcome FROM tasks ORDER BY arrived_s DESC LIMIT 1")
    assert last == [("done",)], "it was started again, and the cell went on with it"
    noticed = "SELECT DISTINCT host FROM events WHERE kind = 'server_up' AND json(detail).restarted ORDER BY ALL"
    assert testbed.sql(noticed) == [("pi-1",), ("pi-2",)]


def test_agents_are_killed_one_of_them_for_good(testbed: Any) -> None:
    testbed.devices = ["pi-1", "pi-2", "pi-3"]
    testbed.run(epochs=40, policies=["all_local", "all_edge"])
    testbed.wait_for_rows(3, "pi-1")
    os.kill(testbed.pid("pi-1", "device_agent"), signal.SIGKILL)
    agent = testbed.pid("pi-3", "device_agent")
    os.kill(int((testbed.host_folder("pi-3") / "device_agent.supervisor.pid").read_text()), signal.SIGKILL)
    os.kill(agent, signal.SIGKILL)
    answer = testbed.finish()
    counts = testbed.check_rows()
    only(counts, ("unknown", "agent_restarted"), ("failed", "device_down"), ("unknown", "lost"))
    assert (answer["state"], answer["verdict"], answer["cells"]) == ("complete", "invalid", 2)
    assert [each["lost"] for each in testbed.attempts()] == [{"pi-3": "its program has ended"}] * 2
    first, second = [each["cell_id"] for each in testbed.attempts()]

    def ends(cell: str, device: str) -> list[tuple[str, str]]:
        where = f"cell_id = '{cell}' AND device_id = '{device}'"
        return testbed.sql(f"SELECT outcome, reason FROM tasks WHERE {where} ORDER BY arrived_s")

    done, down = ("done", None), ("failed", "device_down")
    assert {*ends(first, "pi-2"), *ends(second, "pi-1"), *ends(second, "pi-2")} == {done}, "others are not touched"
    assert ends(first, "pi-1")[0] == ends(first, "pi-1")[-1] == done, "it was started again"
    assert testbed.sql("SELECT count(*) FROM events WHERE host = 'pi-1' AND kind = 'restarted'") == [(1,)]
    assert ends(first, "pi-3")[-1] == down, "it was certainly not there when this one came"
    assert ("unknown", "agent_restarted") not in ends(first, "pi-3")
    assert set(ends(second, "pi-3")) == {down}, "the next cell goes on without it"


def test_the_controller_is_killed(testbed: Any) -> None:
    testbed.run(epochs=60)
    testbed.wait_for_rows(3)
    os.kill(testbed.pid("edge", "controller"), signal.SIGKILL)
    answer = testbed.finish()
    assert set(testbed.check_rows()) == {("done", "")}, "no task needs the controller"
    assert answer["state"] == "complete"
    decided = dict(testbed.sql("SELECT decided_by, count(*) FROM tasks GROUP BY ALL"))
    assert decided["fallback"] > 0
    assert decided["controller"] > 0
    late = testbed.sql("SELECT count(*) FROM tasks WHERE (decided_by = 'fallback') <> ('decision_late' IN flags)")
    assert late == [(0,)]
    lost = "SELECT min(arrived_s) FROM tasks WHERE decided_by = 'fallback'"
    again = testbed.sql(f"SELECT count(*) FROM tasks WHERE decided_by = 'controller' AND arrived_s > ({lost})")
    assert again[0][0] > 0, "it was started again, told the cell, and went on deciding"


def test_an_agent_is_stopped_for_ten_seconds(testbed: Any) -> None:
    testbed.run(epochs=48, arrivals={"kind": "periodic", "period_s": 0.5})
    testbed.wait_for_rows(2, "pi-1")
    agent = testbed.pid("pi-1", "device_agent")
    os.kill(agent, signal.SIGSTOP)
    offset_s = max(row.arrived_s for row in testbed.reported()) - testbed.attempts()[0]["run_clock_s"]
    testbed.wait_for_rows(1, "pi-2", offset_s + 10.0)
    os.kill(agent, signal.SIGCONT)
    answer = testbed.finish()
    counts = testbed.check_rows()
    only(counts, ("unknown", "timeout"), ("failed", "timeout_not_started"), ("unknown", "server_lost"),
         ("failed", "server_lost"), ("failed", "server_unreachable"))  # fmt: skip
    assert answer["state"] == "complete"
    assert testbed.sql("SELECT DISTINCT outcome FROM tasks WHERE device_id = 'pi-2'") == [("done",)]
    stopped = testbed.sql("SELECT outcome, flags FROM tasks WHERE device_id = 'pi-1' ORDER BY arrived_s")
    assert any("decision_late" in flags or outcome != "done" for outcome, flags in stopped)
    assert stopped[-1][0] == "done", "it went on"


def test_the_orchestrator_is_killed_and_the_cell_is_taken_over(testbed: Any) -> None:
    testbed.run(epochs=14)
    testbed.wait_for_rows(3)
    testbed.signal(signal.SIGKILL)
    testbed.process.communicate()
    assert testbed.manifest()["state"] == "running"
    before = testbed.attempts()
    testbed.resume()
    answer = testbed.finish()
    assert set(testbed.check_rows()) == {("done", "")}, "the cell went on without it, and nothing was lost"
    assert answer["state"] == "complete"
    after = testbed.attempts()
    assert [(each["cell_id"], each["attempt"]) for each in after] == [(each["cell_id"], 1) for each in after]
    assert after[0]["run_clock_s"] == before[0]["run_clock_s"], "the same start"
    kinds = {kind for (kind,) in testbed.sql("SELECT kind FROM events WHERE host = 'orchestrator'")}
    assert {"run_resumed", "programs_adopted", "cell_taken_over"} <= kinds


def test_everything_is_killed_and_the_cell_starts_over(testbed: Any) -> None:
    testbed.run(epochs=20, policies=["all_local", "all_edge"])
    testbed.wait_until_running(serial=2)
    testbed.wait_for_rows(len(testbed.reported()) + 2)
    testbed.signal(signal.SIGKILL)
    testbed.process.communicate()
    testbed.kill_programs()
    first_cell = testbed.attempts()[0]["cell_id"]
    kept = {path: path.read_bytes() for path in (testbed.run_folder / "cells" / first_cell).rglob("*.records")}
    testbed.resume()
    answer = testbed.finish()
    assert set(testbed.check_rows()) == {("done", "")}
    assert answer["state"] == "complete"
    numbers = [(each["cell_id"] == first_cell, each["attempt"], each["state"]) for each in testbed.attempts()]
    assert numbers == [(True, 1, "complete"), (False, 1, "abandoned"), (False, 2, "complete")]
    assert all(path.read_bytes().startswith(content) for path, content in kept.items()), "nothing is overwritten"


def test_ctrl_c_collects_and_resume_finishes(testbed: Any) -> None:
    testbed.run(epochs=20, policies=["all_local", "all_edge"])
    testbed.wait_until_running(serial=2)
    testbed.wait_for_rows(len(testbed.reported()) + 2)
    testbed.signal(signal.SIGINT)
    answer = testbed.finish(status=130)
    assert (answer["state"], answer["cells"]) == ("incomplete", 1)
    counts = testbed.check_rows()
    only(counts, ("failed", "stopped"), ("unknown", "stopped"), ("failed", "not_run"))
    assert counts["done", ""] > 0
    testbed.check_nothing_is_left()
    assert (testbed.run_folder / "logs" / "pi-1.log").exists()
    testbed.resume()
    answer = testbed.finish()
    assert (answer["state"], answer["cells"]) == ("complete", 2)
    assert set(testbed.check_rows()) == {("done", "")}


def test_ctrl_c_while_programs_start(testbed: Any) -> None:
    testbed.write_files()
    # An agent that never gets as far as to listen: the start is not over before it is interrupted.
    slow = testbed.folder / "slow-python"
    slow.write_text(
        f'#!/bin/sh\ncase "$*" in *device_agent*) while :; do sleep 0.1; done ;; esac\nexec {sys.executable} "$@"\n'
    )
    slow.chmod(0o755)
    hosts = testbed.folder / "hosts.yaml"
    hosts.write_text(hosts.read_text().replace("pi-2: {}", f"pi-2: {{edgebed_python: {slow}}}"))
    testbed.begin("run", str(testbed.folder / "tiny.yaml"), "--hosts", str(hosts), "--runs", str(testbed.runs))
    testbed.wait_for(lambda: list(testbed.state.glob("*/edge/controller.pid")), "the first program")
    testbed.signal(signal.SIGINT)
    answer = testbed.finish(status=130)
    assert (answer["state"], answer["cells"]) == ("incomplete", 0)
    assert set(testbed.check_rows()) == {("failed", "not_run")}


def test_ctrl_c_twice_is_faster_and_still_leaves_nothing(testbed: Any) -> None:
    testbed.run(epochs=100)
    testbed.wait_for_rows(3)
    os.kill(testbed.pid("pi-1", "device_agent"), signal.SIGSTOP)  # it will not answer, and must be ended all the same
    testbed.signal(signal.SIGINT)
    testbed.wait_for(lambda: testbed.attempts()[0]["state"] == "stopping", "the stop")
    testbed.signal(signal.SIGINT)
    answer = testbed.finish(status=130)
    assert answer["state"] == "incomplete"
    counts = testbed.check_rows()
    assert counts["done", ""] >= 3


def server_address(testbed: Any) -> PeerAddress:
    """Where the edge server listens, and its key."""
    folder = testbed.host_folder("edge")
    endpoint = testbed.wait_for(lambda: _read(folder / "edge_server.endpoint"), "the server's endpoint")
    config = read_config(folder / "edge_server.json", ServerConfig)
    return PeerAddress("edge", endpoint, read_key_pair(Path(config.secret_key_file)).public)


def _read(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


MESSAGES = 100_000


def test_strangers_and_a_hundred_thousand_random_messages_at_the_servers_port(testbed: Any) -> None:
    testbed.run(epochs=1000)  # longer than the flood takes, however busy the machine is; it is ended when that is over
    testbed.wait_until_running()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    address = server_address(testbed)
    check_stranger_gets_nothing(context, address)
    # A key that is listed: what comes with another never gets past the handshake.
    keys = read_key_pair(testbed.host_folder("pi-2") / "keys" / "device_agent.key")
    sender = context.socket(zmq.DEALER)
    sender.sndtimeo = 20_000  # if the run should end during the flood, the test must end too
    secure_client(sender, keys, address.public_key)
    sender.connect(address.endpoint)
    golden = msgspec.json.decode(Path("tests/golden/messages.json").read_bytes(), type=dict[str, str])
    headers = [bytes.fromhex(text) for text in golden.values()]
    rng = random.Random(5)
    for number in range(MESSAGES):
        sender.send_multipart(hostile_frames(rng, headers))
        if number % 1000 == 0:
            while sender.poll(0):
                sender.recv_multipart()  # what the server answers must not fill its buffers either
    flooded_s = max((row.arrived_s for row in testbed.reported()), default=0.0)
    testbed.wait_for(lambda: any(row.arrived_s > flooded_s for row in testbed.reported()), "a task after the flood")
    sender.close(linger=0)
    context.destroy(linger=0)
    starts = (testbed.host_folder("edge") / "edge_server.starts").read_text()
    testbed.signal(signal.SIGINT)
    answer = testbed.finish(status=130)
    assert int(starts) == 1, "the server did not even crash"
    assert answer["state"] == "incomplete"
    counts = testbed.check_rows()
    only(counts, ("failed", "stopped"), ("unknown", "stopped"), ("failed", "not_run"))
    harmed = testbed.sql(f"SELECT task_id FROM tasks WHERE arrived_s <= {flooded_s} AND outcome <> 'done'")
    assert harmed == [], "the run is unharmed"


def check_stranger_gets_nothing(context: zmq.Context[zmq.Socket[bytes]], address: PeerAddress) -> None:
    stranger = context.socket(zmq.DEALER)
    watcher = stranger.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_SUCCEEDED)
    secure_client(stranger, make_key_pair(), address.public_key)
    stranger.connect(address.endpoint)
    stranger.send(msgspec.msgpack.encode([1, 1, "device", "pi-1", "0123456789abcdef"]))
    assert watcher.poll(20_000)
    event = struct.unpack_from("<H", watcher.recv_multipart()[0])[0]
    assert event == zmq.EVENT_HANDSHAKE_FAILED_AUTH
    assert stranger.poll(0) == 0, "not one byte came back"
    stranger.disable_monitor()
    watcher.close()
    stranger.close(linger=0)


def hostile_frames(rng: random.Random, golden: list[bytes]) -> list[bytes]:
    """One to four frames: random bytes, or a message with some of its bytes changed, cut off or doubled."""
    if rng.random() < 0.3:
        return [rng.randbytes(rng.randrange(0, 80)) for _ in range(rng.randrange(1, 5))]
    header = bytearray(rng.choice(golden))
    for _ in range(rng.randrange(0, 4)):
        header[rng.randrange(len(header))] = rng.randrange(256)
    if rng.random() < 0.2:
        header = header[: rng.randrange(len(header))]
    payload = [rng.randbytes(rng.randrange(0, 200))] if rng.random() < 0.3 else []
    # No message says that it is one of this run's devices: with its key that would be believed, and rightly.
    return [bytes(header).replace(b"pi-", b"pj-"), *payload]
