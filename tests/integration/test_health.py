"""Health checks with real servers: whose server stops gets no new connection until it is back."""

from __future__ import annotations

import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from l4raw.netns import Host, Log, Topology, dsr, fullnat, nat
from l4raw.netns.clients import many_requests
from l4raw.netns.servers import nginx

from tests.cells import halved
from tests.integration.capture import Capture, capturing, kernel_counter
from tests.integration.starting import Place, Up

pytestmark = pytest.mark.root

Build = Callable[..., AbstractContextManager[Topology]]
INTERVAL_MS, TIMEOUT_MS, RISE, FALL = 300, 200, 2, 3
CHECK = {"interval": f"{INTERVAL_MS}ms", "timeout": f"{TIMEOUT_MS}ms", "rise": RISE, "fall": FALL}
WITHIN_S = (FALL * INTERVAL_MS + TIMEOUT_MS) / 1000
"""A backend that stops just after a check is told to be down after this time at the latest."""
SLACK_S = 2.0
"""Of a loaded machine, and `up` tells once a second."""
SYN_ACK = 0x12
NAME = "port-80-tcp"

each_cell = pytest.mark.parametrize(
    ("build", "dataplane", "version"), halved((dsr, nat, fullnat), ("raw", "af_xdp"), (4, 6))
)
each_dataplane = pytest.mark.parametrize("dataplane", ["raw", "af_xdp"])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


class Web:
    """nginx on every backend, each of which can be stopped and started."""

    def __init__(self, network: Topology, stack: ExitStack) -> None:
        self._stacks = {backend.name: stack.enter_context(ExitStack()) for backend in network.backends}
        self._hosts = {backend.name: backend for backend in network.backends}
        for name in self._hosts:
            self.start(name)

    def start(self, name: str) -> None:
        self._stacks[name].enter_context(nginx(self._hosts[name]))

    def stop(self, name: str) -> None:
        self._stacks[name].close()


@contextmanager
def balanced(build: Build, dataplane: str, place: Place, version: int = 4) -> Iterator[tuple[Any, ...]]:
    """A network, its web servers, a running balancer."""
    with build(version=version, log=Log(silent=True)) as network, ExitStack() as stack:
        web = Web(network, stack)
        toml = network.config_toml(dataplane=dataplane, check=CHECK, lb={"ring_seed": "health"})
        up = Up(network.balancer, place, "-c", place.config(toml)).wait_ready()
        yield network, web, up
        up.stop()


def answers(network: Topology, count: int = 60) -> Counter[str]:
    return many_requests(network.client, f"http://{network.vip_host}/", count)


def told(up: Up, name: str, state: str) -> bool:
    return f"backend {NAME}/{name} {state}" in up.err


class Client:
    """HTTP connections that stay open: RFC 9112, section 9.3."""

    def __init__(self, network: Topology, count: int, stack: ExitStack) -> None:
        self._open = []
        for _ in range(count):
            with network.client.enter():
                sock = stack.enter_context(socket.create_connection((network.vip, 80), 5))
            self._open.append((sock, stack.enter_context(sock.makefile("rb"))))

    def ask(self) -> list[str | None]:
        """Who answers on each connection; None: it is closed."""
        return [self._ask(sock, lines) for sock, lines in self._open]

    @staticmethod
    def _ask(sock: socket.socket, lines: Any) -> str | None:
        headers: dict[str, str] = {}
        try:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            lines.readline()
            while line := lines.readline().decode().strip():
                key, _, value = line.partition(": ")
                headers[key] = value
            lines.read(int(headers.get("Content-Length", 0)))
        except OSError:
            return None
        return headers.get("X-Backend")


@each_cell
def test_a_stopped_server_gets_no_new_connection_and_gets_them_again_when_it_is_back(
    build: Build, dataplane: str, version: int, place: Place
) -> None:
    with balanced(build, dataplane, place, version) as (network, web, up), ExitStack() as stack:
        assert answers(network).keys() == {"b1", "b2", "b3"}
        held = Client(network, 30, stack)
        began = held.ask()
        assert set(began) == {"b1", "b2", "b3"}

        web.stop("b2")
        stopped = time.monotonic()
        up.wait_for(lambda: told(up, "b2", "down"), "b2 is down")
        took = time.monotonic() - stopped
        assert took < WITHIN_S + SLACK_S
        # The first result of all counts alone, if it comes only now.
        counted = rf"\(({FALL} of {FALL}|1 of 1)\)"
        assert re.search(f"^backend {NAME}/b2 down: connection refused {counted}$", up.err, re.MULTILINE)
        assert answers(network).keys() == {"b1", "b3"}
        # Connections of the others have not moved: each is answered by who answered it first.
        assert held.ask() == [None if name == "b2" else name for name in began]

        web.start("b2")
        up.wait_for(lambda: told(up, "b2", f"up ({RISE} of {RISE})"), "b2 is up again")
        assert answers(network).keys() == {"b1", "b2", "b3"}
        assert held.ask() == [None if name == "b2" else name for name in began]


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


def handshakes(seen: Capture, host: Host) -> list[Any]:
    """SYNs of the balancer to this backend."""
    return [p for p in seen.received() if p.haslayer("TCP") and p["TCP"].flags == "S"]


@each_dataplane
def test_a_check_under_dsr_is_what_a_client_sends_and_leaves_nothing(dataplane: str, place: Place) -> None:
    """The SYN is for the VIP; its answer is answered by one RST; the balancer's kernel says nothing."""
    with balanced(dsr, dataplane, place) as (network, _, up):
        backend, balancer = network.backends[0], network.balancer
        before = kernel_counter(balancer, "Tcp", "OutRsts")
        with capturing(backend) as seen, capturing(balancer) as own:
            until = time.monotonic() + 5 * INTERVAL_MS / 1000
            up.wait_for(lambda: time.monotonic() > until, "five checks")
        syns = handshakes(seen, backend)
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
