"""The links of the lab are what was asked for, and can be changed, cut and restored while it is up."""

from __future__ import annotations

import pytest

from edgebed.errors import BadInput
from orchestrator.lab.probe import LinkProbe, WayProbe, probe_link
from orchestrator.lab.shaping import LinkShape
from tests.lab.running_lab import RunningLab

ASKED = LinkShape(rate_bps=20e6, delay_s=0.005, jitter_s=0.001)


def probed(lab: RunningLab, name: str, asked: LinkShape) -> LinkProbe:
    description = lab.live.lab
    return probe_link(description, description.host(name), description.host("edge"), asked)


TRIES = 8


def is_as_asked(way: WayProbe, asked: LinkShape) -> bool:
    # Whole frames, as a link's rate counts: the TCP payload alone is 4.4 % less.
    has_rate = not asked.rate_bps or way.rate_bps == pytest.approx(asked.rate_bps, rel=0.05)
    has_jitter = not asked.jitter_s or way.jitter_s == pytest.approx(asked.jitter_s, abs=0.0005)
    return has_rate and has_jitter and way.delay_s == pytest.approx(asked.delay_s, abs=0.001)


def found_as_asked(lab: RunningLab, name: str, asked: LinkShape) -> LinkProbe:
    """The first of some probes that finds a link so: these are milliseconds, and the machine may be busy."""
    probes = []
    for _ in range(TRIES):
        probes.append(probe := probed(lab, name, asked))
        if all(is_as_asked(way, asked) for way in (probe.up, probe.down)):
            return probe
    raise AssertionError(probes)


def test_links_are_what_was_asked_for(lab: RunningLab):
    probe = found_as_asked(lab, "pi-1", ASKED)
    for way in (probe.up, probe.down):
        assert way.lost == 0
        assert way.goodput_bps < way.rate_bps


def test_up_has_probed_and_said_so(lab: RunningLab):
    probes = {each["host"]: each for each in lab.answer["probes"]}
    assert set(probes) == {"pi-1", "pi-2"}
    assert probes["pi-1"]["asked"] == ASKED.to_plain()


def test_a_link_can_be_changed_while_it_carries(lab: RunningLab):
    slower = LinkShape(rate_bps=5e6, delay_s=0.020)
    lab.live.set_link("pi-1", slower)
    try:
        found_as_asked(lab, "pi-1", slower)
        found_as_asked(lab, "pi-2", LinkShape(delay_s=ASKED.delay_s))  # the others keep theirs
    finally:
        lab.live.reset_link("pi-1")
    found_as_asked(lab, "pi-1", LinkShape(delay_s=ASKED.delay_s))


def test_a_lossy_link_loses(lab: RunningLab):
    lossy = LinkShape(delay_s=0.005, loss=0.3)
    lab.live.set_link("pi-1", lossy)
    try:
        probe = probed(lab, "pi-1", lossy)
    finally:
        lab.live.reset_link("pi-1")
    assert 0.1 < probe.up.lost < 0.5
    assert 0.1 < probe.down.lost < 0.5


def test_a_cut_link_carries_nothing_and_a_restored_one_does(lab: RunningLab):
    lab.live.cut("pi-1")
    try:
        assert probed(lab, "pi-1", LinkShape(delay_s=0.005)).up.delay_s is None
        assert lab.said("pi-2", "hostname") == "pi-2"
        assert lab.live.status()["hosts"]["pi-1"]["link"]["cut"] is True
    finally:
        lab.live.restore("pi-1")
    found_as_asked(lab, "pi-1", LinkShape(delay_s=ASKED.delay_s))


def test_hosts_speak_tcp_as_a_pi_does(lab: RunningLab):
    route = lab.said("pi-1", "ip -4 route show dev eth0")
    assert "congctl cubic" in route


def test_hosts_have_no_way_out(lab: RunningLab):
    assert "default" not in lab.said("pi-1", "ip route; ip -6 route")


def test_an_impossible_link_is_refused(lab: RunningLab):
    with pytest.raises(BadInput, match="jitter"):
        lab.live.set_link("pi-1", LinkShape(rate_bps=1e6, jitter_s=0.1))
    with pytest.raises(BadInput, match="pi-9"):
        lab.live.set_link("pi-9", LinkShape())
