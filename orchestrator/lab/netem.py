"""Links made by the kernel's own emulator, netem, where the kernel has it; see tc-netem(8)."""

from __future__ import annotations

from dataclasses import dataclass

from edgebed.errors import WorkFailed
from orchestrator.lab.programs import call, find_program
from orchestrator.lab.shaping import QUEUE_S, SMALLEST_QUEUE_BYTES, LinkShape

_FRAME_BYTES = 1514


def has_netem() -> bool:
    """Whether this kernel has netem: tried out, in a namespace that goes away again."""
    if find_program("tc") is None:
        return False
    name = "edgebed-netem-try"
    try:
        call(["ip", "netns", "add", name])
        try:
            call(["ip", "-netns", name, "link", "set", "lo", "up"])
            call(["tc", "-netns", name, "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"])
        finally:
            call(["ip", "netns", "delete", name])
    except WorkFailed:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Netem:
    """Both directions of a cable (veth pair): each end shapes what it sends.

    Attributes:
        network: the namespace of the switch's end. near: that end.
        inner: the host's namespace, None while it is off. eth: the end in it.
    """

    network: str
    near: str
    inner: str | None
    eth: str

    def shape(self, shape: LinkShape) -> None:
        """Make the cable a link of this shape."""
        for network, interface in ((self.network, self.near), (self.inner, self.eth)):
            if network is not None:
                call(["tc", "-netns", network, "qdisc", "replace", "dev", interface, "root", *netem_words(shape)])


def netem_words(shape: LinkShape) -> list[str]:
    """The shape in netem's words; units spelled out."""
    words = ["netem", "limit", str(_limit_frames(shape))]
    if shape.delay_s:
        words += ["delay", f"{shape.delay_s * 1e6:.0f}us"]
        if shape.jitter_s:
            words.append(f"{shape.jitter_s * 1e6:.0f}us")
    if shape.loss:
        words += ["loss", f"{shape.loss * 100:.6f}%"]
    if shape.rate_bps:
        # With a rate netem keeps frames in order, as the wire does.
        words += ["rate", f"{shape.rate_bps:.0f}bit"]
    return words


def _limit_frames(shape: LinkShape) -> int:
    """Netem's queue counts frames, those that are delayed included."""
    if not shape.rate_bps:
        return 100_000
    bytes_under_way = shape.rate_bps / 8 * (QUEUE_S + shape.delay_s + shape.jitter_s)
    return round(max(SMALLEST_QUEUE_BYTES, bytes_under_way) / _FRAME_BYTES) + 1
