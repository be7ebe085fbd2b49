"""The real edge server process, a controller in the test, and devices by the agent's own link and uplink."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq

from device_agent.uplink import Uplink, Upload
from edge_server.membership import STATUS_INTERVAL_S
from edge_server.testing import SERVER, ServerUnderTest, cell_for
from edgebed.configuration import Liveness
from edgebed.metering.board import board_from_dict, load_board
from edgebed.metering.energy import task_energy_estimate
from edgebed.protocol.cells import ChannelSettings
from edgebed.protocol.link import Link
from edgebed.protocol.messages import (
    CHUNK_BYTES,
    Cancel,
    Chunk,
    Credit,
    Error,
    ErrorCode,
    Load,
    Offer,
    Prepare,
    Refusal,
    RefusalReason,
    Status,
    TaskMessage,
    TaskResult,
)
from edgebed.protocol.security import secure_client
from edgebed.trace.schema import RECORD_TYPES
from edgebed.types import CHANNEL_FEATURES, SERVER_FEATURES
from workloads import load_workload
from workloads.base import pack_clip

pytestmark = pytest.mark.integration

BOARD = asdict(load_board(Path(__file__).parents[2] / "inventory/boards/generic-x86.yaml"))

MakeServer = Callable[..., ServerUnderTest]


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[MakeServer]:
    """Start a server; keywords are its settings."""
    made: list[ServerUnderTest] = []

    def make(devices: int = 2, **settings: Any) -> ServerUnderTest:
        server = ServerUnderTest(tmp_path, devices, **settings)
        made.append(server)
        server.start()
        return server

    yield make
    for server in made:
        server.close()


@pytest.fixture
def server(make_server: MakeServer) -> ServerUnderTest:
    """A server that runs cell 1 of the instant workload."""
    return running(make_server())


def running(server: ServerUnderTest, **cell: Any) -> ServerUnderTest:
    ready = server.prepare(cell_for(1, "instant", **cell))
    assert ready.ok, ready.detail
    server.begin(1)
    return server


def clip(*frames: bytes) -> bytes:
    return pack_clip(frames or (b"\x07" + bytes(999),))


def offer(link: Link[TaskMessage], task_id: str, payload: bytes | None = None, **changes: Any) -> None:
    """Offer a whole task in one message."""
    payload = clip() if payload is None else payload
    frames = changes.pop("frames", 1)
    link.send(Offer(task_id, changes.pop("cell", 1), len(payload), frames, **changes), payload)


def upload(server: ServerUnderTest, link: Link[TaskMessage], payload: bytes, frames: int, shaped: bool) -> TaskResult:
    """Send a task as the device agent does, and wait for its result."""
    uplink = Uplink(1, link.send, is_shaped=shaped)
    uplink.add(Upload("big", len(payload), frames, 0, lambda: payload))
    while True:
        uplink.advance(server.clock.now_s())
        for message in server.answers(link):
            if isinstance(message, Credit):
                uplink.credit(message.task_id, message.chunks)
            else:
                assert isinstance(message, TaskResult), message
                return message


def features(load: Load) -> dict[str, float]:
    names = [feature.name for feature in (*SERVER_FEATURES, *CHANNEL_FEATURES)]
    return dict(zip(names, load.values, strict=True))


# -- tasks ------------------------------------------------------------------------------------------------------------


def test_a_task_is_executed_and_every_stamp_is_in_order(make_server: MakeServer) -> None:
    server = running(make_server(board=BOARD))
    link = server.connected()
    offer(link, "t1", clip(b"\x03abc", b"\x09defg"), frames=2)
    (result,) = server.answers(link)
    assert isinstance(result, TaskResult)
    assert (result.task_id, result.predicted) == ("t1", [3, 9])
    stamps = [result.offered_s, result.received_s, result.started_s, result.finished_s, result.replied_s]
    assert stamps == sorted(stamps)
    assert 0 < result.cpu_s <= result.finished_s - result.started_s + 1e-3
    energy = task_energy_estimate(board_from_dict(BOARD), busy_s=result.cpu_s, air_s=0.0)
    assert (result.energy_j, result.energy_error_j) == (energy.device_energy_j, energy.error_j)
    assert result.energy_j == pytest.approx((BOARD["max_w"] - BOARD["idle_w"]) * result.cpu_s / BOARD["cores"])
    assert result.energy_source == "estimated:cpu-model/generic-x86"
    assert result.granted_bps == 0.0


def test_without_a_board_energy_is_unknown_and_not_zero(server: ServerUnderTest) -> None:
    link = server.connected()
    offer(link, "t1")
    (result,) = server.answers(link)
    assert isinstance(result, TaskResult)
    assert (result.energy_j, result.energy_error_j, result.energy_source) == (None, None, "")


@pytest.mark.parametrize(("workers", "slowdown"), [(1, 1.0), (3, 1.0), (1, 100.0), (3, 100.0)])
def test_results_of_many_tasks_are_the_workload_s_own(make_server: MakeServer, workers: int, slowdown: float) -> None:
    # Unpadded, these tasks are too short to be handed to a worker; padded, they are not.
    server = running(make_server(workers=workers, slowdown=slowdown))
    workload = load_workload("instant")
    tasks = [workload.generate(np.random.default_rng(n), f"c{n}", 1 + n % 5) for n in range(200)]
    link = server.connected()
    results: dict[str, TaskMessage] = {}
    for start in range(0, 200, 50):
        for number in range(start, start + 50):
            offer(link, f"t{number}", pack_clip(tasks[number].frames), frames=len(tasks[number].frames))
        for message in server.answers(link, 50):
            assert isinstance(message, TaskResult), message
            results[message.task_id] = message
    assert [list(task.labels) for task in tasks] == [results[f"t{n}"].predicted for n in range(200)]  # type: ignore[union-attr]


def test_padding_makes_a_task_slower_and_its_cpu_time_real(make_server: MakeServer) -> None:
    server = running(make_server(slowdown=50.0, board=BOARD))
    link = server.connected()
    offer(link, "t1", clip(*[b"\x01"] * 1000), frames=1000)
    (result,) = server.answers(link)
    assert isinstance(result, TaskResult)
    assert result.finished_s - result.started_s >= 50 * result.cpu_s * 0.99
    per_cpu_s = (BOARD["max_w"] - BOARD["idle_w"]) / BOARD["cores"]
    assert result.energy_j == pytest.approx(per_cpu_s * 50 * result.cpu_s)  # padding counts as busy


def test_a_payload_in_chunks_is_put_together(server: ServerUnderTest) -> None:
    frames = [random.Random(n).randbytes(70_000) for n in range(30)]
    result = upload(server, server.connected(), pack_clip(frames), 30, shaped=False)
    assert result.predicted == [frame[0] for frame in frames]
    assert result.received_s > result.offered_s


def test_a_shared_channel_is_as_slow_as_its_rate(make_server: MakeServer) -> None:
    rate_bps = 8e6
    shared = ChannelSettings(count=1, model="share", rate_bps=rate_bps)
    server = running(make_server(), channels=shared)
    payload = clip(bytes(5 * CHUNK_BYTES - 8))
    result = upload(server, server.connected(), payload, 1, shaped=True)
    assert result.granted_bps == pytest.approx(rate_bps)
    assert result.received_s - result.offered_s >= 8 * len(payload) / rate_bps
    load = server.wait_for(Load, lambda load: load.serial == 1)
    assert features(load)["channel_rate_bps"] == rate_bps


# -- refusals ---------------------------------------------------------------------------------------------------------


def slow(make_server: MakeServer, **settings: Any) -> ServerUnderTest:
    """A server whose tasks of `long_clip` take a good while: about half a second."""
    return running(make_server(slowdown=1000.0, **settings))


LONG = 1024


def long_clip() -> bytes:
    return clip(*[b"\x01"] * LONG)


@contextmanager
def at_once(server: ServerUnderTest) -> Iterator[None]:
    """Let a server hear all at once what is sent here, however long this process takes for it."""
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


def only(server: ServerUnderTest, link: Link[TaskMessage]) -> Refusal:
    (answer,) = server.answers(link)
    assert isinstance(answer, Refusal), answer
    return answer


def test_a_full_queue_says_so_and_takes_again_later(make_server: MakeServer) -> None:
    server = slow(make_server, queue_tasks=2)
    link = server.connected()
    with at_once(server):
        for number in range(3):
            offer(link, f"t{number}", long_clip(), frames=LONG)
    refusal = only(server, link)
    assert (refusal.task_id, refusal.reason) == ("t2", RefusalReason.QUEUE_FULL)
    done = server.answers(link, 2)
    assert [answer.task_id for answer in done if isinstance(answer, TaskResult)] == ["t0", "t1"]
    offer(link, "t3")
    assert isinstance(server.answers(link)[0], TaskResult)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cell": 2}, RefusalReason.WRONG_CELL),
        ({"channel": 1}, RefusalReason.BAD_CHANNEL),
        ({"payload": b"\xff" * 100}, RefusalReason.BAD_PAYLOAD),
        ({"frames": 2}, RefusalReason.BAD_PAYLOAD),
        ({"payload": clip(bytes(600_000))}, RefusalReason.TOO_LARGE),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_reason(
    server: ServerUnderTest, changes: dict[str, Any], reason: RefusalReason
) -> None:
    link = server.connected()
    offer(link, "t1", **changes)
    assert only(server, link).reason is reason
    # The worker lives on.
    offer(link, "t2")
    assert isinstance(server.answers(link)[0], TaskResult)


def test_before_a_cell_and_after_it_nothing_is_taken(make_server: MakeServer) -> None:
    server = make_server()
    link = server.connected()
    offer(link, "t1")
    assert only(server, link).reason is RefusalReason.WRONG_CELL
    running(server)
    server.end(1)
    server.wait_for(Status, lambda status: status.state == "idle")
    offer(link, "t2")
    assert only(server, link).reason is RefusalReason.WRONG_CELL


def test_a_task_offered_twice_is_executed_once(make_server: MakeServer) -> None:
    server = slow(make_server)
    link = server.connected()
    with at_once(server):
        offer(link, "t1", long_clip(), frames=LONG)
        offer(link, "t1", long_clip(), frames=LONG)
    first, second = server.answers(link, 2)
    assert isinstance(first, Refusal)
    assert first.reason is RefusalReason.DUPLICATE
    assert isinstance(second, TaskResult)


def test_a_cancelled_task_that_waits_is_dropped(make_server: MakeServer) -> None:
    server = slow(make_server)
    link = server.connected()
    with at_once(server):
        offer(link, "busy", long_clip(), frames=LONG)
        offer(link, "waits", long_clip(), frames=LONG)
        link.send(Cancel("waits"))
        link.send(Cancel("never heard of"))
        offer(link, "next")
    answers = server.answers(link, 2)
    assert [answer.task_id for answer in answers if isinstance(answer, TaskResult)] == ["busy", "next"]


def test_wrong_chunks_cost_the_upload(server: ServerUnderTest) -> None:
    link = server.connected()
    link.send(Offer("t1", 1, 200_000, 1))
    link.send(Chunk("t1", 1), bytes(CHUNK_BYTES))
    refusal = only(server, link)
    assert refusal.reason is RefusalReason.BAD_PAYLOAD
    assert "0 was expected" in refusal.detail
    link.send(Chunk("t1", 0), bytes(CHUNK_BYTES))  # of an upload that is no more: nothing to say
    link.send(Offer("t2", 1, 100, 1))
    link.send(Chunk("t2", 0))
    (error,) = server.answers(link)
    assert isinstance(error, Error)
    assert (error.code, error.task_id) == (ErrorCode.UNEXPECTED, "t2")


def test_what_devices_do_not_send_is_answered_with_an_error(server: ServerUnderTest) -> None:
    link = server.connected()
    link.send(Credit("t1", 1))
    (error,) = server.answers(link)
    assert isinstance(error, Error)
    assert error.code is ErrorCode.UNEXPECTED


# -- memory and hostile peers -----------------------------------------------------------------------------------------


def test_uploads_of_a_device_that_vanished_are_freed(make_server: MakeServer) -> None:
    server = running(make_server(liveness=Liveness(heartbeat_s=0.1, dead_after_s=3.0)))
    link = server.connected()
    link.send(Offer("t1", 1, 10_000_000, 1))
    link.send(Chunk("t1", 0), bytes(CHUNK_BYTES))
    uploading = 10_000_000 - CHUNK_BYTES
    server.wait_for(Load, lambda load: features(load)["uploading_bytes"] == uploading)
    link.close()
    server.heard.clear()
    load = server.wait_for(Load, lambda load: features(load)["uploading_bytes"] == 0)
    assert features(load)["queue_tasks"] == 0


def test_a_restarted_device_gets_nothing_of_its_predecessor(make_server: MakeServer) -> None:
    server = slow(make_server)
    before = server.connected()
    offer(before, "t1", long_clip(), frames=LONG)
    offer(before, "t2", long_clip(), frames=LONG)
    after = server.connected(instance="d0-2")
    offer(after, "t3")
    (answer,) = server.answers(after)
    assert isinstance(answer, TaskResult)
    assert answer.task_id == "t3"


def test_a_device_that_came_back_gets_its_answer_on_the_new_connection(make_server: MakeServer) -> None:
    server = slow(make_server)
    before = server.connected()
    for number in range(8):
        offer(before, f"t{number}", long_clip(), frames=LONG)
    server.wait_for(Load, lambda load: features(load)["queue_tasks"] >= 1)
    before.close()
    after = server.connected()
    answers: list[TaskMessage] = []
    while not any(isinstance(answer, TaskResult) and answer.task_id == "t7" for answer in answers):
        answers += server.answers(after)


def test_any_bytes_at_the_port_do_not_disturb_the_others(make_server: MakeServer) -> None:
    server = running(make_server())
    link = server.connected("d0")
    hostile: zmq.Socket[bytes] = server.context.socket(zmq.DEALER)
    hostile.linger = 0
    secure_client(hostile, server.device_keys["d1"], server.server_keys.public)
    hostile.connect(server.endpoint)
    rng = random.Random(5)
    real = [
        msgspec.msgpack.encode(each) for each in (Offer("x", 1, 999, 1), Chunk("x", 0), Cancel("x"), Credit("x", 1))
    ]
    done = 0
    for task in range(200):
        for _ in range(100):
            header = bytearray(rng.choice(real))
            header[rng.randrange(len(header))] = rng.randrange(256)
            hostile.send_multipart([bytes(header) if rng.random() < 0.7 else rng.randbytes(rng.randrange(300))])
        offer(link, f"t{task}")
        (answer,) = server.answers(link)
        assert isinstance(answer, TaskResult), answer
        assert answer.task_id == f"t{task}"
        done += 1
    hostile.close()
    assert done == 200
    assert "Traceback" not in server.log()


# -- the life of the server -------------------------------------------------------------------------------------------


def test_it_tells_its_load_and_its_rows_while_a_cell_runs(make_server: MakeServer) -> None:
    server = make_server(board=BOARD, workers=2)
    ready = server.prepare(
        cell_for(1, "instant", channels=ChannelSettings(count=3), workload_options={"cycles_per_frame": 1e6})
    )
    assert ready.ok
    assert ready.facts["workers"] == 2
    assert ready.facts["clock_error_s"] > 0
    assert ready.facts["cycles_per_frame"] == 1e6
    server.begin(1)
    link = server.connected()
    server.wait_for(Load)
    loads = [message for message in server.heard if isinstance(message, Load)]
    assert len(loads[-1].values) == len(SERVER_FEATURES) + 3 * len(CHANNEL_FEATURES)
    assert loads[-1].values[2] == 2
    assert loads[-1].values[3] == pytest.approx(1e6 / ready.facts["service_s_per_frame"])
    server.until(lambda: sum(row.kind == "sample" for row in server.rows) >= 5)
    server.end(1)
    server.wait_for(Status, lambda status: status.state == "idle" and status.unsent == 0)
    rows = [msgspec.msgpack.decode(row.row, type=RECORD_TYPES[row.kind]) for row in server.rows]
    samples = [row for row in rows if hasattr(row, "power_w")]
    # The first may be taken at the start itself, which the server knows by its estimate of the clocks' offset.
    assert all(sample.host == SERVER and -0.1 < sample.t_s < 60 for sample in samples)  # type: ignore[attr-defined]
    assert samples[-1].power_source == "estimated:cpu-model/generic-x86"  # type: ignore[attr-defined]
    kinds = [row.kind for row in rows if hasattr(row, "kind")]
    assert kinds[0] == "started"
    assert "peer_joined" in kinds
    assert [row.sequence for row in server.rows] == sorted({row.sequence for row in server.rows})
    assert link.is_up


def test_that_the_last_row_of_a_stopped_cell_has_arrived_is_said_before_the_next_beat(make_server: MakeServer) -> None:
    server = make_server(devices=20)
    waits_s = [STATUS_INTERVAL_S]
    # Some try: the machine may be busy. Rows are written about every 0.05 s.
    while min(waits_s) > 0.7 * STATUS_INTERVAL_S:
        serial = len(waits_s)
        assert serial <= 20, waits_s
        assert server.prepare(cell_for(serial, "instant")).ok
        server.begin(serial)
        server.wait_for(Load)
        server.connected(f"d{serial - 1}")  # an event, which nobody acknowledges before the stop
        stopped_s = server.clock.now_s()
        server.end(serial)
        server.wait_for(Status, lambda status: status.state == "idle" and status.unsent == 0)
        waits_s.append(server.clock.now_s() - stopped_s)
        assert any(isinstance(each, Status) and each.state == "idle" and each.unsent for each in server.heard)
        server.heard.clear()


def test_a_cell_that_is_prepared_again_is_told_ready_again(server: ServerUnderTest) -> None:
    server.heard.clear()
    assert server.prepare(cell_for(1, "instant")).ok


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ({"workload": "no-such-workload"}, "no-such-workload"),
        ({"channels": ChannelSettings(model="sinr")}, "needs to know where hosts are"),
        ({"servers": ["another"]}, "none of the cell's servers"),
        ({"workload_options": {"frame_bytes": 0}}, "frame_bytes"),
    ],
)
def test_a_cell_that_cannot_be_served_is_refused_in_words_and_the_next_one_works(
    make_server: MakeServer, cell: dict[str, Any], says: str
) -> None:
    server = make_server()
    ready = server.prepare(cell_for(1, **({"workload": "instant"} | cell)))
    assert not ready.ok
    assert says in ready.detail
    assert server.prepare(cell_for(2, "instant")).ok


def test_a_message_that_is_no_cell_is_refused_in_words(make_server: MakeServer) -> None:
    server = make_server()
    server.control.send(server.session, Prepare(3, {"serial": 3}))
    ready = server.wait_for(type(server.prepare(cell_for(4, "instant"))), lambda ready: ready.serial == 3)
    assert not ready.ok
    assert "not a cell" in ready.detail


def test_asked_to_end_it_finishes_what_it_has_and_takes_no_more(make_server: MakeServer) -> None:
    server = slow(make_server)
    link = server.connected()
    for number in range(3):  # few: it leaves unfinished what would take it longer than `DRAIN_S`
        offer(link, f"t{number}", long_clip(), frames=LONG)
    server.wait_for(Load, lambda load: features(load)["queue_tasks"] >= 1)
    assert server.process is not None
    server.process.send_signal(signal.SIGTERM)
    answers: list[TaskMessage] = []
    while not any(isinstance(answer, TaskResult) and answer.task_id == "t2" for answer in answers):
        number += 1
        offer(link, f"t{number}")
        answers += server.answers(link)
    assert server.process.wait(20) == 0
    refused = [answer for answer in answers if isinstance(answer, Refusal)]
    assert all(answer.reason is RefusalReason.DRAINING for answer in refused)


def test_killed_and_started_again_it_is_found_at_the_same_place(make_server: MakeServer) -> None:
    server = running(make_server())
    ups: list[bool] = []
    link = server.connected(up=ups.append)
    endpoint = server.endpoint
    assert server.process is not None
    server.process.kill()
    server.process.wait(20)
    server.heard.clear()
    server.start()
    assert server.endpoint == endpoint
    running(server)

    def is_back() -> bool:
        link.tick(server.clock.now_s())
        list(link.receive())
        return ups == [False, True]

    server.until(is_back)
    offer(link, "t1")
    assert isinstance(server.answers(link)[0], TaskResult)
    server.until(lambda: any(row.kind == "event" and b"restarted" in row.row for row in server.rows))


def test_wrong_settings_end_it_with_status_2(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"name": "edge"}))
    ended = subprocess.run(
        [sys.executable, "-m", "edge_server", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert str(config) in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_server_that_nobody_wants_ends_by_itself(make_server: MakeServer) -> None:
    server = make_server(orphan_after_s=0.5)
    assert server.process is not None
    assert server.process.wait(30) == 0
