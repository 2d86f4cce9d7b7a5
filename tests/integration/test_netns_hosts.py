"""One host of the test networks: commands, counters, servers and clients in it.

Nothing here tests l4raw, nor the networks (test_netns.py).
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from l4raw.netns import CommandError, Host, Log, dsr
from l4raw.netns.clients import curl, dns_lookup, download, iperf3, make_file, many_requests, sha256, upload
from l4raw.netns.servers import Server, ServerError, dns_answer, dnsmasq, iperf3_server, nginx, python_web

pytestmark = pytest.mark.root

Serve = Callable[[Host], AbstractContextManager[Server]]

DEADLINE = 10.0


def test_commands_are_printed_before_they_run(capsys: pytest.CaptureFixture[str]) -> None:
    with Host("h") as host:
        host.ip("link set lo up")
        host.sysctl("net.ipv4.ip_forward", 1)
        with pytest.raises(CommandError, match="h# ip link set nothing up: .*nothing"):
            host.ip("link set lo down", "link set nothing up", "link set lo up")
        assert host.log.lines == [
            "h# ip link set lo up",
            "h# sysctl -w net.ipv4.ip_forward=1",
            "h# ip link set lo down",
            "h# ip link set nothing up",
            "h# ip link set lo up",
        ]
        assert capsys.readouterr().err.splitlines() == host.log.lines
        assert host.run(["cat", "/proc/sys/net/ipv4/ip_forward"]).stdout == "1\n"


def test_enter_moves_this_thread_and_brings_it_back() -> None:
    def here() -> int:
        return os.stat("/proc/thread-self/ns/net").st_ino

    home = here()
    with Host("h", Log(silent=True)) as host:
        with pytest.raises(KeyError), host.enter():
            assert here() == host.inode != home
            raise KeyError
        assert here() == home


def test_a_failed_command_says_what_and_why() -> None:
    with Host("h", Log(silent=True)) as host:
        with pytest.raises(CommandError, match=r"h# ls /nothing/here: exit code 2: .*No such file"):
            host.run(["ls", "/nothing/here"])
        with pytest.raises(CommandError, match=r"no end after 0.1 s"):
            host.run(["sleep", "1000"], timeout=0.1)


@pytest.mark.parametrize(("version", "counter"), [(4, "b1.Udp.InCsumErrors"), (6, "b1.Udp6.InCsumErrors")])
def test_counters_see_a_wrong_checksum(version: int, counter: str) -> None:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with dsr(1, version=version) as network:
        before = network.counters()
        assert {"b1.Tcp.InCsumErrors", "b1.Udp.InCsumErrors", "b1.IpExt.InCsumErrors"} <= before.keys()
        assert set(before.values()) == {0}
        udp = struct.pack("!4H", 1, 9, 8, 0xBAD)
        with network.client.enter():
            wire = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_UDP)
        with network.backends[0].enter():
            listener = socket.socket(family, socket.SOCK_DGRAM)
        with wire, listener:
            listener.bind(("", 9))
            wire.sendto(udp, (network.backends[0].address, 0))
            deadline = time.monotonic() + DEADLINE
            while network.counters() == before:
                assert time.monotonic() < deadline
        assert network.counters() == before | {counter: 1}


@pytest.mark.parametrize("server", [nginx, python_web])
def test_web_servers(server: Serve) -> None:
    with dsr(1, backends=2) as network, server(network.backends[0]) as one, server(network.backends[1]):
        urls = [f"http://{backend.address}" for backend in network.backends]
        assert [curl(network.client, url) for url in urls] == ["b1", "b2"]
        first = connection_number(network.client, urls[0])
        assert many_requests(network.client, urls[0], 300) == {"b1": 300}
        assert connection_number(network.client, urls[0]) == first + 301  # one connection a request
        digest = make_file(one.files / "big", 5_000_001)
        assert download(network.client, f"{urls[0]}/files/big").sha256 == digest
        assert upload(network.client, f"{urls[0]}/upload/copy", one.files / "big").size == 5_000_001
        assert sha256(one.uploads / "copy") == digest
        with pytest.raises(CommandError, match="exit code 22"):
            curl(network.client, f"{urls[0]}/files/none")
        with pytest.raises(ServerError, match="port 80 is taken"), server(network.backends[0]):
            pass
    assert not one.folder.exists()


def connection_number(host: Host, url: str) -> int:
    """The server's number of the connection that this request comes on."""
    headers = curl(host, url, "--include").splitlines()
    return next(int(line.split()[1]) for line in headers if line.startswith("X-Connection"))


def test_requests_without_an_answer_are_counted() -> None:
    with dsr(1, backends=1) as network:
        refused = many_requests(network.client, f"http://{network.backends[0].address}/", 3)
        silent = many_requests(network.client, f"http://{network.vip}/", 1, timeout=0.2)
        assert refused == {"curl exit 7": 3}
        assert silent == {"curl exit 28": 1}


def test_dnsmasq_and_iperf3() -> None:
    with dsr(1, backends=2) as network:
        one, two = network.backends
        with dnsmasq(one), dnsmasq(two):
            answers = [dns_lookup(network.client, host.address) for host in (one, two)]
            assert answers == [dns_answer(one), dns_answer(two)] == ["192.0.2.11", "192.0.2.12"]
        for reverse in (False, True):
            with iperf3_server(one):
                assert iperf3(network.client, one.address, 1, reverse=reverse) > 1e6
        with pytest.raises(CommandError, match="unable to connect"):
            iperf3(network.client, one.address, 1)
