"""Reaching the host, and the way between devices and edge servers: Wi-Fi, round trips, clocks. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from edgebed.metering.wifi import carrying_interface, parse_power_save
from orchestrator.doctor.finding import Finding, fail, ok, warn
from orchestrator.doctor.probe import ClockReading, Probe
from orchestrator.doctor.round_trips import RoundTrips

WEAK_SIGNAL_DBM = -70
SLOW_P50_S = 0.020
SLOW_P99_S = 0.050

SUSPECT_OFFSET_S = 0.100
"""Runs measure offsets themselves and do not need clocks to agree; logs and leases are easier to read if they do."""

WRONG_OFFSET_S = 3600.0


def interface_of(probe: Probe, peers: Iterable[str] = ()) -> str | None:
    """The interface that carries the host's traffic: that of the peers, of SSH, or of the default route."""
    if (found := carrying_interface(probe.text("routes"), tuple(peers) or ("",))) is not None:
        return found
    own = probe.text("ssh").split()
    for line in probe.lines("addresses") if len(own) == 4 else ():
        fields = line.split()
        if len(fields) > 3 and fields[3].partition("/")[0] == own[2]:
            return fields[1].partition("@")[0]
    return None


def check_wifi(probe: Probe, peers: Iterable[str] = ()) -> list[Finding]:
    """Power saving and signal, where the traffic takes Wi-Fi.

    Args:
        probe: of the host.
        peers: IPv4 addresses that it will talk to.
    """
    wireless = _wireless(probe)
    interface = interface_of(probe, peers)
    if interface is None or interface not in wireless:
        return [ok("wifi", f"wired ({interface})" if interface else "no Wi-Fi in use")]
    return [_check_power_save(interface, probe), _check_signal(interface, wireless[interface])]


def _wireless(probe: Probe) -> dict[str, float | None]:
    """Signal in dBm of each wireless interface; None where it is not told."""
    found: dict[str, float | None] = dict.fromkeys(probe.lines("wireless_interfaces"))
    for line in probe.lines("wireless")[2:]:
        name, colon, rest = line.partition(":")
        fields = rest.split()
        if colon and len(fields) >= 3 and re.fullmatch(r"-?\d+\.?", fields[2]):
            found[name.strip()] = float(fields[2])
    return found


def _check_power_save(interface: str, probe: Probe) -> Finding:
    told = [line.partition(" ")[2] for line in probe.lines("power_save") if line.split()[0] == interface]
    state = parse_power_save(told[0]) if told else None
    if state is None:
        fix = "install iw: sudo apt install iw"
        return warn("wifi_power_save", f"{interface}: cannot be told without iw", fix)
    if state:
        fix = (
            f"sudo iw dev {interface} set power_save off (lost at reboot); for good, with NetworkManager: "
            "wifi.powersave = 2 under [connection] in /etc/NetworkManager/conf.d/wifi.conf"
        )
        return warn("wifi_power_save", f"{interface}: on, which can add a second to a round trip", fix)
    return ok("wifi_power_save", f"{interface}: off")


def _check_signal(interface: str, signal_dbm: float | None) -> Finding:
    if signal_dbm is None:
        return ok("wifi", f"{interface}, signal not told")
    seen = f"{interface}, signal {signal_dbm:.0f} dBm"
    if signal_dbm < WEAK_SIGNAL_DBM:
        return warn("wifi", seen, "move it closer to the access point, or use 5 GHz or a cable")
    return ok("wifi", seen)


def check_round_trips(server: str, measured: RoundTrips) -> Finding:
    """Round trips from a device to an edge server."""
    name = "round_trip"
    if measured.problem:
        return fail(name, f"{server}: {measured.problem}", measured.fix)
    seen = (
        f"{server} at {measured.endpoint}: p50 {1e3 * measured.p50_s:.2f} ms, p99 {1e3 * measured.p99_s:.2f} ms "
        f"({measured.count} echoes over TCP)"
    )
    if measured.p50_s > SLOW_P50_S or measured.p99_s > SLOW_P99_S:
        return warn(name, seen, "look at Wi-Fi power saving and signal, and at who else uses the network; try a cable")
    return ok(name, seen)


def check_clock(reading: ClockReading | None) -> Finding:
    """The host's wall clock against the orchestrator's."""
    if reading is None:
        return warn("clock", "the host's `date` knows no fractions of a second", "install coreutils")
    seen = f"{1e3 * reading.offset_s:+.1f} ms +- {1e3 * reading.error_s:.1f} ms against this machine"
    certain_s = abs(reading.offset_s) - reading.error_s
    fix = "let chrony set it (`edgebed_clock: chrony` and deploy), or: sudo timedatectl set-ntp true"
    if certain_s > WRONG_OFFSET_S:
        return fail("clock", seen, fix)
    return warn("clock", seen, fix) if certain_s > SUSPECT_OFFSET_S else ok("clock", seen)


def check_clock_sync(probe: Probe) -> Finding:
    """Somebody keeps the host's clock: chrony, or systemd's timesyncd."""
    text = probe.text("clock_sync")
    leap = re.search(r"^Leap status\s*:\s*(.+)$", text, re.MULTILINE)
    source = re.search(r"^Reference ID\s*:\s*(.+)$", text, re.MULTILINE)
    if leap is not None and leap[1].strip() == "Normal":
        return ok("clock_sync", f"chrony follows {source[1].strip() if source else 'a source'}")
    if "NTPSynchronized=yes" in text.split():
        return ok("clock_sync", "synchronised, says systemd")
    fix = "boards without a clock chip wake up in the past: sudo timedatectl set-ntp true, or chrony to the edge server"
    if leap is not None:
        return warn("clock_sync", f"chrony runs and is not synchronised ({leap[1].strip()})", fix)
    if "NTPSynchronized=no" in text.split():
        return warn("clock_sync", "not synchronised", fix)
    return warn("clock_sync", "nobody tells whether the clock is kept", fix)
