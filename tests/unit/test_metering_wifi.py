"""Which interface carries the traffic, and what ``iw`` says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgebed.metering.wifi import carrying_interface, parse_power_save, wireless_interfaces

# /proc/net/route of a Raspberry Pi with a cable and Wi-Fi in one network, and a VPN.
ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0101A8C0\t0003\t0\t0\t202\t00000000\t0\t0\t0
wlan0\t00000000\t0101A8C0\t0003\t0\t0\t303\t00000000\t0\t0\t0
wg0\t0000060A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
eth0\t0001A8C0\t00000000\t0001\t0\t0\t202\t00FFFFFF\t0\t0\t0
wlan0\t0001A8C0\t00000000\t0001\t0\t0\t303\t00FFFFFF\t0\t0\t0
"""


@pytest.mark.parametrize(
    ("peers", "interface"),
    [
        ((), "eth0"),
        (("192.168.1.7",), "eth0"),
        (("10.6.3.4",), "wg0"),
        (("203.0.113.9",), "eth0"),
        (("edge-1.local", "::1"), "eth0"),
        (("edge-1.local", "10.6.0.1"), "wg0"),
    ],
)
def test_the_route_with_the_longest_prefix_and_the_least_metric_carries(peers: tuple[str, ...], interface: str) -> None:
    assert carrying_interface(ROUTES, peers) == interface


def test_wifi_carries_where_there_is_no_cable() -> None:
    without = "\n".join(line for line in ROUTES.splitlines() if not line.startswith("eth0"))
    assert carrying_interface(without, ("192.168.1.7",)) == "wlan0"


@pytest.mark.parametrize("text", ["", "Iface\tDestination\n", "header\neth0 zz 0 0 0 0 0 0\n", "header\neth0\n"])
def test_no_route_is_no_interface(text: str) -> None:
    assert carrying_interface(text, ()) is None


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("Power save: on\n", True),
        ("Power save: off", False),
        ("\tPower save: on", True),
        ("", None),
        ("command failed: No such device (-19)", None),
        ("Power save: perhaps", None),
    ],
)
def test_power_save(text: str, state: bool | None) -> None:
    assert parse_power_save(text) is state


def test_wireless_interfaces_are_found_by_either_sign(tmp_path: Path) -> None:
    assert wireless_interfaces(tmp_path, tmp_path) == set()
    (tmp_path / "class/net/wlan1/phy80211").mkdir(parents=True)
    (tmp_path / "class/net/eth0").mkdir()
    (tmp_path / "net").mkdir()
    (tmp_path / "net/wireless").write_text(
        "Inter-| sta-|   Quality        |   Discarded packets               | Missed | WE\n"
        " face | tus | link level noise |  nwid  crypt   frag  retry   misc | beacon | 22\n"
        " wlan0: 0000   58.  -52.  -256        0      0      0      0      0        0\n"
    )
    assert wireless_interfaces(tmp_path, tmp_path) == {"wlan0", "wlan1"}
