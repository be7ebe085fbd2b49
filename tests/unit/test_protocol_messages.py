"""The bytes of every message, and that nothing else is accepted."""

from __future__ import annotations

import json
import re
import typing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgebed.errors import ProtocolError
from edgebed.protocol import messages as m
from edgebed.protocol.codec import control_headers, encode, task_headers

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "messages.json"

EXAMPLES: list[m.AnyMessage] = [
    m.Hello(1, m.Role.DEVICE, "pi-1", "0123456789abcdef", "a1b2", 3),
    m.Welcome(1, "edge-1", "fedcba9876543210", 0.5, 3.0, 67108864, 65536, 8, "a1b2", 3),
    m.Ping(7, 12.5),
    m.Pong(7, 12.5, 100.25, 100.5, [1.0, 0.0]),
    m.Error(m.ErrorCode.BAD_MESSAGE, "no such tag", "c/pi-1/4"),
    m.Bye("drained"),
    m.Offer("c/pi-1/4", 3, 50000, 4, 1),
    m.Credit("c/pi-1/4", 2),
    m.Chunk("c/pi-1/4", 5),
    m.Cancel("c/pi-1/4"),
    m.Refusal("c/pi-1/4", m.RefusalReason.QUEUE_FULL, "64 of 64 tasks"),
    m.TaskResult("c/pi-1/4", [3, 1], 1.0, 1.5, 2.0, 2.5, 2.75, 0.25, 0.5, 0.125, "estimated:cpu_model", 2e7),
    m.Prepare(3, {"cell_id": "c"}),
    m.Ready(3, "pi-1", True, "", {"cores": 4}),
    m.Start(3, 1000.5, 12.25),
    m.Stop(3, "complete"),
    m.Status(3, "pi-1", "running", 20, 7, 2, ""),
    m.Observe(3, 9, "pi-1", [1.0, 2.5], [True, False]),
    m.Decide(3, 9, "pi-1", 1, 0, 2, 1.0, 1.0, 0.5, "1", "controller", 0.001),
    m.Load(3, "edge-1", [2.0]),
    m.Records("pi-1", 41, 2),
    m.Acknowledge("pi-1", 41),
    m.Members([("pi-1", m.Role.DEVICE, True, "0123456789abcdef")]),
    m.JointObserve(3, 9, [1.0], [True], [0.0], [2.0], b"\x01\x00", True),
    m.JointDecide(3, 9, [1], [0], [2], [1.0], [1.0], [0.5], "v1"),
    m.Weights(3, "dc_drl-1f2e+7"),
]


def decode(header: bytes) -> m.AnyMessage:
    tag = msgspec.msgpack.decode(header)[0]
    return control_headers.decode(header) if tag >= 20 else task_headers.decode(header)


def test_there_is_an_example_of_every_message() -> None:
    assert {type(example) for example in EXAMPLES} == set(typing.get_args(m.AnyMessage))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_golden_bytes(example: m.AnyMessage) -> None:
    golden = json.loads(GOLDEN.read_text())
    header = bytes.fromhex(golden[type(example).__name__])
    assert encode(example) == header
    assert decode(header) == example


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_fields_added_later_are_ignored(example: m.AnyMessage) -> None:
    longer = [*msgspec.msgpack.decode(encode(example)), "a field of the future"]
    assert decode(msgspec.msgpack.encode(longer)) == example


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_the_page_lists_every_field(example: m.AnyMessage) -> None:
    kind = type(example)
    tag = kind.__struct_config__.tag
    row = re.search(
        rf"^\| {tag} \| `{kind.__name__}` \|[^|]*\| ([^|]*) \|", (ROOT / "docs/protocol.md").read_text(), re.M
    )
    assert row is not None, f"docs/protocol.md has no row for {kind.__name__} with tag {tag}"
    assert row[1].strip().split(", ") == [field.name for field in msgspec.structs.fields(kind)]


@pytest.mark.parametrize("code", [*m.ErrorCode, *m.RefusalReason])
def test_the_page_explains_every_code(code: str) -> None:
    assert f"| `{code}` |" in (ROOT / "docs/protocol.md").read_text()


@pytest.mark.parametrize(
    "plain",
    [
        [10, "", 1, 1, 1, 0],
        [10, "t", -1, 1, 1, 0],
        [10, "t", 1, 0, 1, 0],
        [10, "t", 1, m.MAX_PAYLOAD_BYTES + 1, 1, 0],
        [10, "t", 1, 1, 1025, 0],
        [10, "t", 1, 1, 1, 1024],
        [10, "x" * 161, 1, 1, 1, 0],
        [1, 1, "king", "pi-1", "i"],
        [1, 1, "device", "pi 1", "i"],
        [1, 1, "device", "../pi", "i"],
        [1, 1, "device", "pi-1\n", "i"],
        [14, "t", "because"],
        [11, "t", 0],
        [99, 1],
        [20, 1, {}],
        {"a": 1},
        None,
    ],
    ids=repr,
)
def test_values_out_of_bounds_are_refused(plain: object) -> None:
    with pytest.raises(ProtocolError) as caught:
        task_headers.decode(msgspec.msgpack.encode(plain))
    assert caught.value.code == m.ErrorCode.BAD_MESSAGE


def test_fractions_and_durations_that_are_no_number_are_refused() -> None:
    bad = m.Decide(3, 9, "pi-1", 1, 0, 2, float("nan"), 1.0, 1.0, "1", "controller", 0.0)
    with pytest.raises(ProtocolError):
        control_headers.decode(encode(bad))


def test_a_header_that_is_too_long_is_refused() -> None:
    with pytest.raises(ProtocolError) as caught:
        task_headers.decode(b"\x91" * (m.MAX_HEADER_BYTES + 1))
    assert caught.value.code == m.ErrorCode.TOO_LARGE


@settings(max_examples=500)
@given(st.binary(max_size=300))
def test_any_bytes_decode_or_are_a_protocol_error(header: bytes) -> None:
    for headers in (task_headers, control_headers):
        try:
            message = headers.decode(header)
        except ProtocolError:
            continue
        assert isinstance(message, msgspec.Struct)


@settings(max_examples=500)
@given(st.sampled_from(EXAMPLES), st.integers(0, 10**6), st.integers(0, 255))
def test_mutated_messages_decode_or_are_a_protocol_error(example: m.AnyMessage, where: int, byte: int) -> None:
    header = bytearray(encode(example))
    header[where % len(header)] = byte
    for headers in (task_headers, control_headers):
        try:
            message = headers.decode(bytes(header))
        except ProtocolError:
            continue
        assert isinstance(message, msgspec.Struct)
