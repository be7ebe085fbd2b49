"""When a server is worth waiting for. The link itself has its own tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from device_agent.servers import ServerLink
from edgebed.configuration import PeerAddress
from edgebed.protocol.liveness import ClockOffset
from edgebed.protocol.messages import CHUNK_BYTES, WINDOW_CHUNKS, Cancel, Welcome


@dataclass
class ScriptedLink:
    """A link whose state the test sets."""

    up: Callable[[bool], None]
    lost: Callable[[str], None]
    is_up: bool = False
    welcome: Welcome | None = None
    load: list[float] = field(default_factory=list)
    offset: ClockOffset = field(default_factory=ClockOffset)
    address: PeerAddress = field(default_factory=lambda: PeerAddress("edge-1", "", ""))
    sent: list[Any] = field(default_factory=list)

    def send(self, message: Any, payload: bytes | None = None) -> bool:
        self.sent.append(message)
        return True


class Scene:
    def __init__(self) -> None:
        self.told: list[object] = []
        self.server = ServerLink(ScriptedLink, self.told.append, self.told.append, patience_s=3.0)  # type: ignore[arg-type]
        self.link: Any = self.server.link

    def welcomes(self, restarted: bool = False) -> None:
        self.link.is_up = True
        self.link.up(restarted)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_it_is_reachable_from_its_first_welcome_until_it_is_lost(scene: Scene) -> None:
    assert not scene.server.is_reachable
    scene.server.check(100.0)
    scene.welcomes()
    assert scene.server.is_reachable
    scene.link.is_up = False
    scene.link.lost("silent")
    assert not scene.server.is_reachable
    scene.link.lost("silent")
    scene.welcomes(restarted=True)
    assert scene.told == [False, "silent", True]


def test_while_it_reconnects_it_is_waited_for_but_not_for_ever(scene: Scene) -> None:
    scene.welcomes()
    scene.link.is_up = False  # it does not know us any more
    for now_s in (10.0, 11.0, 13.0):
        scene.server.check(now_s)
        assert scene.server.is_reachable
    scene.welcomes(restarted=True)
    scene.server.check(20.0)
    scene.link.is_up = False
    for now_s in (21.0, 24.0):
        scene.server.check(now_s)
        assert scene.server.is_reachable
    scene.server.check(24.1)
    assert not scene.server.is_reachable
    assert scene.told == [False, True, "edge-1 did not come back within 3 s"]


def test_nothing_is_sent_to_who_has_not_welcomed_us(scene: Scene) -> None:
    assert not scene.server.send(Cancel("task"))
    assert not scene.link.sent
    scene.welcomes()
    assert scene.server.send(Cancel("task"))
    assert scene.link.sent == [Cancel("task")]


def test_its_limits_are_those_of_its_welcome(scene: Scene) -> None:
    assert scene.server.limits() == (CHUNK_BYTES, WINDOW_CHUNKS)
    scene.link.welcome = Welcome(1, "edge-1", "i", 0.5, 3.0, chunk_bytes=1000, window_chunks=3)
    assert scene.server.limits() == (1000, 3)
    scene.link.welcome = Welcome(1, "edge-1", "i", 0.5, 3.0, chunk_bytes=0)
    assert scene.server.limits() == (CHUNK_BYTES, WINDOW_CHUNKS), "a chunk of nothing would never end"
