"""A lane in which something may have to wait: for a program that stands still, or for a link that is cut.

Whoever drives the lane tells it of everything at its instant, and until when it lasts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Self

from edgebed.simulation.testbed.fluid import Channel
from edgebed.simulation.testbed.ingredients import Layout
from edgebed.simulation.testbed.lane import Lane
from edgebed.simulation.testbed.parts import BACK, RECEIVED, REFUSED, REJOINED, SENT, TIMED_OUT, Part


class WaitingLane(Lane):
    """The queues of one cell; see `Lane`. Devices and servers are numbered within the lane."""

    def __init__(self, layout: Layout, first_device: int, first_server: int) -> None:
        super().__init__(layout, first_device, first_server)
        self._device_wakes_s: dict[int, float] = {}
        self._server_wakes_s: dict[int, float] = {}
        self._healed_s: dict[int, float] = {}
        # Uploads that nothing of passes just now, and what they still have to send.
        self._stalled_bits: dict[Part, float] = {}
        waits = {
            BACK: (self._device_wakes, self._link_heals),
            REFUSED: (self._device_wakes, self._server_wakes, self._link_heals),
            RECEIVED: (self._server_wakes, self._link_heals),
            SENT: (self._device_wakes,),
            TIMED_OUT: (self._device_wakes,),
        }
        handlers = list(self._handlers)
        for kind, reasons in waits.items():
            handlers[kind] = partial(self._when_possible, kind, reasons, handlers[kind])
        self._handlers = (*handlers, self._on_rejoined)

    def _fork_more(self, other: Self, of: Callable[[Any], Any]) -> None:
        super()._fork_more(other, of)
        for name in ("_device_wakes_s", "_server_wakes_s", "_healed_s"):
            setattr(other, name, dict(getattr(self, name)))
        other._stalled_bits = {of(part): bits for part, bits in self._stalled_bits.items()}

    def _uplink_of(self, part: Part) -> int:
        return part.device * self.layout.servers + part.server

    def _when_possible(
        self, kind: int, reasons: tuple[Callable[[Part], float], ...], handler: Callable[[Any], None], part: Part
    ) -> None:
        until_s = max(reason(part) for reason in reasons)
        if until_s > self.now_s:
            _prolong(part, kind, until_s - self.now_s)
            self._at(until_s, kind, part)
        else:
            handler(part)

    def _device_wakes(self, part: Part) -> float:
        return self._device_wakes_s.get(part.device, 0.0)

    def _server_wakes(self, part: Part) -> float:
        return self._server_wakes_s.get(part.server, 0.0)

    def _link_heals(self, part: Part) -> float:
        return self._healed_s.get(self._uplink_of(part), 0.0)

    def stop_device(self, device: int, until_s: float) -> None:
        """Its program stands still; what it computes is in the layout's disturbances."""
        self._device_wakes_s[device] = until_s
        for server in range(self.layout.servers):
            self._stall(device * self.layout.servers + server)

    def stop_server(self, server: int, until_s: float) -> None:
        """Its program stands still; what it computes is in the layout's disturbances."""
        self._server_wakes_s[server] = until_s
        for channel in self._channels_of_server(server):
            channel.stand_still(self.now_s, until_s)
            if channel.first is not None:
                self._foretell(channel.first)

    def cut(self, device: int, server: int, until_s: float) -> None:
        """Nothing passes between them; what is sent meanwhile comes then."""
        uplink = device * self.layout.servers + server
        self._healed_s[uplink] = max(until_s, self._healed_s.get(uplink, 0.0))
        self._stall(uplink)

    def _stall(self, uplink: int) -> None:
        """On a shaped channel the others have for themselves what this upload cannot use."""
        part = self.uploading.get(uplink)
        if part is None or not self.channels or part not in self._channel(part):
            return
        channel = self._channel(part)
        self._stalled_bits[part] = channel.left_bits(part, self.now_s)
        channel.leave(part, self.now_s)
        self._foretell(part)
        self._at(max(self._device_wakes(part), self._link_heals(part)), REJOINED, part)

    def _on_rejoined(self, part: Part) -> None:
        if part not in self._stalled_bits:
            return
        until_s = max(self._device_wakes(part), self._link_heals(part))
        if until_s > self.now_s:
            self._at(until_s, REJOINED, part)
            return
        self._channel(part).join(part, self._stalled_bits.pop(part), self.now_s)
        self._foretell(part)

    def _leave_server(self, part: Part) -> None:
        self._stalled_bits.pop(part, None)
        super()._leave_server(part)

    def _channels_of_server(self, server: int) -> list[Channel]:
        count = self.layout.channels
        return self.channels[server * count : (server + 1) * count]

    def _upload(self, part: Part, uplink: int) -> None:
        super()._upload(part, uplink)
        if max(self._device_wakes(part), self._link_heals(part)) > self.now_s:
            self._stall(uplink)


def _prolong(part: Part, kind: int, by_s: float) -> None:
    """The stage that ends with it lasts so much longer."""
    if kind == BACK:
        part.downlink_s += by_s
    elif kind in (SENT, RECEIVED):
        part.uplink_s += by_s
        if kind == SENT:
            part.hold_s += by_s
