"""Health checks with real servers: whose server stops gets no new connection until it is back."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
from l4raw.netns import Topology, dsr, fullnat, nat

from tests.cells import halved
from tests.integration.capture import capturing, kernel_counter
from tests.integration.checked import (
    INTERVAL_MS,
    Build,
    answers,
    balanced,
    handshakes,
    one_stops_and_returns,
    told,
)
from tests.integration.starting import Place

pytestmark = pytest.mark.root

each_cell = pytest.mark.parametrize(
    ("build", "dataplane", "version"), halved((dsr, nat, fullnat), ("raw", "af_xdp"), (4, 6))
)
each_dataplane = pytest.mark.parametrize("dataplane", ["raw", "af_xdp"])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@each_cell
def test_a_stopped_server_gets_no_new_connection_and_gets_them_again_when_it_is_back(
    build: Build, dataplane: str, version: int, place: Place
) -> None:
    one_stops_and_returns(build, dataplane, place, version)


@each_dataplane
@pytest.mark.parametrize("version", [4, 6])
def test_a_server_behind_a_vip_that_is_gone_is_down(dataplane: str, version: int, place: Place) -> None:
    """Asked at its own address it would answer; but no client does that under DSR."""
    with balanced(dsr, dataplane, place, version) as (network, _, up):
        backend = network.backends[2]
        length = 32 if version == 4 else 128
        backend.ip(f"addr del {network.vip}/{length} dev lo")
        up.wait_for(lambda: told(up, "b3", "down: no answer within 0.2 s"), "b3 is down")
        assert answers(network).keys() == {"b1", "b2"}
        with network.balancer.enter():
            socket.create_connection((backend.address, 80), 5).close()
        backend.ip(f"addr add {network.vip}/{length} dev lo" + " nodad" * (version == 6))
        up.wait_for(lambda: told(up, "b3", "up"), "b3 is up again")
        assert answers(network).keys() == {"b1", "b2", "b3"}


@each_dataplane
@pytest.mark.parametrize("build", [dsr, nat])
def test_a_host_that_is_gone_is_down_and_when_all_are_nobody_gets_anything(
    build: Build, dataplane: str, place: Place
) -> None:
    with balanced(build, dataplane, place) as (network, _, up):
        for backend in network.backends[1:]:
            backend.ip("link set eth0 down")
        up.wait_for(lambda: told(up, "b2", "down") and told(up, "b3", "down"), "two are down")
        assert answers(network, 20).keys() == {"b1"}
        network.backends[0].ip("link set eth0 down")
        up.wait_for(lambda: told(up, "b1", "down"), "all are down")
        with network.client.enter(), socket.socket() as sock:
            sock.settimeout(0.5)
            with pytest.raises(TimeoutError):
                sock.connect((network.vip, 80))
        network.backends[0].ip("link set eth0 up")
        if build is nat:
            network.backends[0].ip(f"route add default via {gateway(network)}")
        up.wait_for(lambda: told(up, "b1", "up"), "b1 is up again")
        assert answers(network, 20).keys() == {"b1"}
    assert "drop_no_backend" in up.err


def gateway(network: Topology) -> str:
    """The balancer's address on the backends' side."""
    return network.balancer.links[-1].addresses[-1].partition("/")[0]


@each_dataplane
def test_a_check_under_dsr_is_what_a_client_sends_and_leaves_nothing(dataplane: str, place: Place) -> None:
    """The SYN is for the VIP; its answer is answered by one RST; the balancer's kernel says nothing."""
    with balanced(dsr, dataplane, place) as (network, _, up):
        backend, balancer = network.backends[0], network.balancer
        before = kernel_counter(balancer, "Tcp", "OutRsts")
        with capturing(backend) as seen, capturing(balancer) as own:
            until = time.monotonic() + 5 * INTERVAL_MS / 1000
            up.wait_for(lambda: time.monotonic() > until, "five checks")
        syns = handshakes(seen)
        assert len(syns) >= 4
        assert {(p["IP"].src, p["IP"].dst) for p in syns} == {(balancer.address, network.vip)}
        ports = {p["TCP"].sport for p in syns}
        assert len(ports) == len(syns), "each from a port of its own"
        for port in ports:
            said = [str(p["TCP"].flags) for p in seen.packets() if port in (p["TCP"].sport, p["TCP"].dport)]
            assert said in (["S", "SA", "R"], ["S", "SA"], ["S"]), "the last one may be under way"
        whole = [p for p in seen.packets() if p["TCP"].flags == "R"]
        assert len(whole) >= len(syns) - 1
        assert kernel_counter(balancer, "Tcp", "OutRsts") == before
        assert network.vip not in balancer.run(["ip", "neigh"]).stdout
        rows = Path(f"/proc/{backend.pid}/net/tcp").read_text().splitlines()[1:]
        assert not [row for row in rows if row.split()[3] == "03"], "no half-open connection"
        assert not [p for p in own.packets() if p.haslayer("ICMP")]
