"""Tunnels end in devices of Debian's kernels: ipip, sit, ip6tnl, and fou with GUE in front of them.

Client, balancer and backends are namespaces of a guest: inside_tunnels.py has the network. Here is what has
to come of it, for every way through a tunnel on both dataplanes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from l4raw.netns import Log

from tests.long.inside_tunnels import REQUESTS, SIZE, WAYS, Way
from tests.qemu import DEBIAN, Guest

# The first run fetches the kernels.
pytestmark = [pytest.mark.root, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
MODULES = ["ipip", "sit", "ip6_tunnel", "fou", "fou6"]
"""These bring tunnel4, tunnel6, udp_tunnel and ip6_udp_tunnel."""
ETHERNET = 14
each_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)


@pytest.fixture(scope="module", params=DEBIAN)
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """A guest with all the tunnels that its kernel has."""
    with Guest(request.param, MODULES, memory="1536M", cpus=2, log=Log(silent=True)) as found:
        yield found


@pytest.fixture(scope="module", params=["raw", pytest.param("af_xdp", marks=pytest.mark.xdp)])
def report(request: pytest.FixtureRequest, guest: Guest) -> dict[str, Any]:
    """What came of all ways on one dataplane."""
    argv = ["env", "-C", str(ROOT), sys.executable, "-m", "tests.long.inside_tunnels", request.param]
    found: dict[str, Any] = json.loads(guest.run(argv, timeout=900).stdout)
    assert found["dataplanes"] == [request.param] * 2
    return found


@each_way
def test_a_megabyte_each_way_comes_out_of_the_device(report: dict[str, Any], way: Way) -> None:
    moved, seen = report["ways"][way.name]["moved"], report["ways"][way.name]["while_moved"]
    assert moved["file"] == moved["download"] == moved["upload"]
    assert moved["udp"]["sent"] == moved["udp"]["received"] == moved["udp"]["returned"]
    assert seen[way.device]["bytes"] > 2 * SIZE, "what the client sent, over TCP and UDP"
    only_by_its_device(way, seen)


@each_way
def test_what_is_sent_into_a_tunnel_is_what_the_device_takes_out(report: dict[str, Any], way: Way) -> None:
    """Each frame is counted here as it came, and there without the Ethernet header."""
    found = report["ways"][way.name]
    sent, taken = found["sent"], found["while_looked"][way.device]
    assert found["answers"] == {"b1": REQUESTS}
    assert sent["packets"] == taken["packets"] > 4 * REQUESTS
    assert sent["bytes"] == taken["bytes"] + ETHERNET * taken["packets"]
    only_by_its_device(way, found["while_looked"])


def only_by_its_device(way: Way, seen: dict[str, dict[str, int]]) -> None:
    """All that came, without an error; and before it by the GUE port, if that is the mode."""
    by_gue, taken = seen["gue"]["packets"], seen[way.device]
    assert by_gue == (taken["packets"] if way.mode == "dsr-gue" else 0)
    assert not [key for key, count in taken.items() if count and key not in ("packets", "bytes")]
    others = [name for name in ("tunl0", "sit0", "l4raw") if name != way.device]
    assert not [name for name in others if seen[name]["packets"]]


def test_no_host_sees_a_wrong_checksum_and_no_frame_is_dropped(report: dict[str, Any]) -> None:
    assert report["wrong"] == {}
    for verdicts in report["verdicts"]:
        assert verdicts["forward"] > 0
        assert not {name: count for name, count in verdicts.items() if name.startswith("drop_") and count}
