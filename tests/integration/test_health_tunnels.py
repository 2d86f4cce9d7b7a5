"""Health checks through tunnels: they prove what a client meets, the end of the tunnel included.

Each backend's kernel takes packets out (decapsulate.bpf.c); a capture there is before that.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from l4raw.netns import Host
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from tests.cells import halved
from tests.integration.capture import capturing, kernel_counter
from tests.integration.checked import (
    INTERVAL_MS,
    Build,
    answers,
    balanced,
    one_stops_and_returns,
    told,
)
from tests.integration.starting import Place, Up
from tests.integration.tunnelled import behind_tunnels, compiled, decapsulate, of_other_version

pytestmark = pytest.mark.root

MODES = ("dsr-ipip", "dsr-gue")
each_cell = pytest.mark.parametrize(
    ("mode", "version", "dataplane"),
    halved(MODES, (4, 6), ("raw", "af_xdp")),
    ids=lambda value: f"ipv{value}" if isinstance(value, int) else value,
)
each_mode = pytest.mark.parametrize("mode", MODES)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The decapsulator, compiled."""
    return compiled(tmp_path_factory.mktemp("bpf"))


@pytest.fixture
def build(mode: str, program: Path) -> Build:
    """Makes a network of the mode."""
    return partial(behind_tunnels, mode, program)


@each_cell
def test_a_stopped_server_gets_no_new_connection_and_gets_them_again_when_it_is_back(
    build: Build, version: int, dataplane: str, place: Place
) -> None:
    one_stops_and_returns(build, dataplane, place, version)


@each_cell
def test_so_it_is_in_a_tunnel_of_the_other_ip_version(
    build: Build, version: int, dataplane: str, place: Place
) -> None:
    """Our address that a backend answers is the clients' side's then: the answer comes in there."""
    edit = partial(of_other_version, version=version)
    one_stops_and_returns(partial(build, crossed=True), dataplane, place, version, edit)


@each_mode
def test_a_server_behind_an_end_of_a_tunnel_that_is_gone_is_down(
    build: Build, place: Place, program: Path
) -> None:
    """At its own address it would answer, and at the VIP too; but no client gets there past the tunnel."""
    with balanced(build, "raw", place) as (network, _, up):
        backend = network.backends[2]
        backend.run(["tc", "qdisc", "del", "dev", "eth0", "clsact"])
        up.wait_for(lambda: told(up, "b3", "down: no answer within 0.2 s"), "b3 is down")
        assert answers(network).keys() == {"b1", "b2"}
        with network.balancer.enter():
            socket.create_connection((backend.address, 80), 5).close()
        decapsulate(backend, program)
        up.wait_for(lambda: told(up, "b3", "up"), "b3 is up again")
        assert answers(network).keys() == {"b1", "b2", "b3"}


@each_cell
def test_a_check_comes_through_the_tunnel_and_leaves_nothing(
    build: Build, version: int, dataplane: str, place: Place
) -> None:
    """The SYN is for the VIP and its answer comes from there; one RST answers that; our kernel is silent."""
    layer = IP if version == 4 else IPv6
    with balanced(build, dataplane, place, version) as (network, _, up):
        backend, balancer = network.backends[0], network.balancer
        (ours,) = (address.partition("/")[0] for address in balancer.links[-1].addresses)
        before = kernel_counter(balancer, "Tcp", "OutRsts")
        with capturing(backend, version=version) as seen:
            pause(up)
        received = [p for p in seen.received() if p[layer].dst == backend.address]
        assert received and {p[layer].src for p in received} == {ours}
        inside = [taken_out(p, layer) for p in received]
        assert {(p.src, p.dst) for p in inside} == {(ours, network.vip)}
        said = Counter(str(p[TCP].flags) for p in inside)
        assert said.keys() == {"S", "R"} and said["S"] >= 4
        assert said["R"] in (said["S"], said["S"] - 1), "the last one may be under way"
        ports = {p[TCP].sport for p in inside}
        assert len(ports) == said["S"], "each from a port of its own"
        assert {p[TCP].dport for p in seen.between(network.vip, ours)} == ports
        assert kernel_counter(balancer, "Tcp", "OutRsts") == before
        assert not half_open(backend)


def pause(up: Up) -> None:
    """Five checks long."""
    until = time.monotonic() + 5 * INTERVAL_MS / 1000
    up.wait_for(lambda: time.monotonic() > until, "five checks")


def taken_out(frame: Ether, layer: type[Packet]) -> Any:
    """The packet inside of an outer one, behind 12 bytes of UDP and GUE if they are there."""
    outer = frame[layer]
    return layer(bytes(outer.payload)[12 * (UDP in outer) :])


def half_open(host: Host) -> list[Any]:
    """Connections of this host that have had a SYN and nothing since."""
    rows = [
        row.split()
        for table in ("tcp", "tcp6")
        if (path := Path(f"/proc/{host.pid}/net/{table}")).exists()
        for row in path.read_text().splitlines()[1:]
    ]
    return [row for row in rows if row[3] == "03"]


@pytest.mark.parametrize("mode", MODES[:1])
def test_without_an_address_of_the_vips_version_nothing_is_said_of_a_backend(
    build: Build, place: Place
) -> None:
    """Also not of one whose server has stopped: it is told that nothing is known."""
    edit = partial(of_other_version, version=6)
    with balanced(partial(build, crossed=True), "raw", place, 6, edit) as (network, web, up):
        for arm in network.interfaces:
            network.balancer.run(["ip", "-6", "addr", "flush", "dev", arm, "scope", "global"])
        up.wait_for(lambda: told(up, "b3", "cannot be checked, and stays"), "it is told")
        web.stop("b2")
        pause(up)
        assert ": this host has no address that the backend could answer" in up.err
        assert not told(up, "b2", "down")
