"""A forwarder in Python between two interfaces of one UMEM: the kernels at both ends talk through it."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator

import pytest
from l4raw.netns import Host

from l4raw.xdp import Umem
from tests.integration.capture import wait_for
from tests.integration.xdp_lab import DEADLINE, ECHO, RIGHT, Forwarder, between, opened, udp, xdp_on

pytestmark = [pytest.mark.root, pytest.mark.xdp]

FRAMES = 512
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Host, Host, Host]]:
    with between() as three:
        yield three


@pytest.fixture
def forwarder(hosts: tuple[Host, Host, Host]) -> Iterator[Forwarder]:
    """Running; at its end no frame is missing, and the program is off again."""
    middle = hosts[1]
    with Umem(FRAMES) as umem:
        with opened(middle, "eth0", "eth1", umem=umem) as (one, other):
            assert xdp_on(middle, "eth0")
            forwarder = Forwarder(one, other)
            with forwarder.running():
                yield forwarder
            while sum(umem.check()[3:]):
                one.reclaim()
                other.reclaim()
            one.refill()
            other.refill()
            accounting = umem.check()
            assert sum(accounting) == FRAMES
            assert (accounting.rx, accounting.fill) == (0, 512)
            for xsk in (one, other):
                statistics = xsk.statistics()
                assert statistics.rx_invalid_descs == statistics.tx_invalid_descs == 0
        assert umem.check().free == FRAMES
    assert xdp_on(middle, "eth0") == xdp_on(middle, "eth1") == 0


def test_nothing_passes_without_the_forwarder(hosts: tuple[Host, Host, Host]) -> None:
    left, middle, _ = hosts
    assert xdp_on(middle, "eth0") == 0
    assert left.run(["ping", "-c1", "-W0.2", RIGHT], check=False).returncode == 1


def test_ping(hosts: tuple[Host, Host, Host], forwarder: Forwarder) -> None:
    said = hosts[0].run(["ping", "-c20", "-i0.01", "-W5", "-s1400", RIGHT]).stdout
    assert "20 packets transmitted, 20 received, 0% packet loss" in said
    # It counts a frame after it has sent it.
    wait_for(lambda: forwarder.forwarded == 40, "all frames are counted")
    assert forwarder.dropped == 0


def test_udp(hosts: tuple[Host, Host, Host], forwarder: Forwarder) -> None:
    left, _, right = hosts
    with udp(left) as client, udp(right, ECHO) as server:
        for number in range(200):
            client.sendto(b"%d" % number, (RIGHT, ECHO))
            content, place = server.recvfrom(100)
            server.sendto(content, place)
            assert client.recv(100) == b"%d" % number
    assert right.counters()["Udp.InCsumErrors"] == 0


def test_tcp(hosts: tuple[Host, Host, Host], forwarder: Forwarder) -> None:
    """Bulk data arrives whole, whatever is lost on the way to a full ring."""
    left, _, right = hosts
    content = bytes(range(256)) * (MEGABYTE // 256)
    with right.enter():
        listener = socket.create_server(("", 8000))
    digests: list[bytes] = []

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            connection.settimeout(DEADLINE)
            digest = hashlib.sha256()
            while part := connection.recv(1 << 16):
                digest.update(part)
            digests.append(digest.digest())
            connection.sendall(digest.digest())

    listener.settimeout(DEADLINE)
    thread = threading.Thread(target=serve)
    thread.start()
    with left.enter():
        client = socket.socket()
    with client:
        client.settimeout(DEADLINE)
        client.connect((RIGHT, 8000))
        client.sendall(content)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == hashlib.sha256(content).digest()
    thread.join()
    assert digests == [hashlib.sha256(content).digest()]
    assert right.counters()["Tcp.InCsumErrors"] == 0
    assert forwarder.forwarded > MEGABYTE // 1500
