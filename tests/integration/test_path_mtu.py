"""A link behind the balancer that takes 1400 bytes: a large upload completes in every mode.

The servers offer an MSS that is too large for it, as ones behind a tunnel do:
so clients send packets that do not fit, and somebody has to tell them. In a
tunnel that is so with 1500 everywhere.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from l4raw.netns import Host, Log, Topology, dsr, fullnat, nat
from l4raw.netns.clients import download, make_file, sha256, upload
from l4raw.netns.servers import Server, web

from tests.cells import halved
from tests.integration.running import running
from tests.integration.tunnelled import compiled, decapsulate

pytestmark = pytest.mark.root

Build = Callable[..., AbstractContextManager[Topology]]
NARROW, USUAL = 1400, 1500
SIZE = 5_000_000


class Row(NamedTuple):
    """A network, the mode in it, and what the links of the backends' segment take."""

    build: Build
    mode: str
    mtu: int = NARROW


ROWS = {
    "dsr-l2": Row(dsr, "dsr-l2"),
    "nat": Row(nat, "nat"),
    "fullnat": Row(fullnat, "fullnat"),
    "dsr-ipip": Row(dsr, "dsr-ipip"),
    "dsr-gue": Row(dsr, "dsr-gue"),
    "dsr-ipip-1500": Row(dsr, "dsr-ipip", USUAL),
}
IN_FRONT = {("dsr-ipip", 4): 20, ("dsr-ipip", 6): 40, ("dsr-gue", 4): 20 + 8 + 4, ("dsr-gue", 6): 40 + 8 + 4}
"""Bytes of the headers, by the mode and the IP version."""
each_cell = pytest.mark.parametrize(
    ("row", "version", "dataplane"),
    halved(list(ROWS), (4, 6), ("raw", "af_xdp")),
    ids=lambda value: f"ipv{value}" if isinstance(value, int) else value,
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The decapsulator, compiled."""
    return compiled(tmp_path_factory.mktemp("bpf"))


@contextmanager
def narrow(row: Row, version: int, program: Path) -> Iterator[tuple[Topology, list[Server]]]:
    """All links of the backends' segment take so many bytes; the servers offer what 1500 would."""
    with row.build(2, 2, version=version, log=Log(silent=True)) as built, ExitStack() as stack:
        network = replace(built, mode=row.mode)
        servers = [stack.enter_context(web(backend)) for backend in network.backends]
        switch = next(host for host in network.hosts if host.name == "switch")
        for backend in network.backends:
            backend.ip(f"link set eth0 mtu {row.mtu}")
            switch.ip(f"link set {backend.name}-eth0 mtu {row.mtu}")
            offer(backend, version)
            if network.mode in ("dsr-ipip", "dsr-gue"):
                decapsulate(backend, program)
        for host in filter(None, (network.balancer, network.router)):
            host.ip(f"link set eth1 mtu {row.mtu}")
            switch.ip(f"link set {host.name}-eth1 mtu {row.mtu}")
        yield network, servers


def offer(backend: Host, version: int) -> None:
    """On all its routes, the MSS of an interface that takes 1500 bytes."""
    offered = USUAL - (60 if version == 6 else 40)
    family = ["ip", f"-{version}", "route"]
    for route in backend.run([*family, "show", "dev", "eth0"]).stdout.splitlines():
        if not route.startswith("fe80:"):
            backend.run([*family, "replace", *route.split(), "dev", "eth0", "advmss", str(offered)])


def posted(network: Topology, servers: list[Server], folder: Path) -> None:
    """Upload a file, which must arrive at one of the servers as it is."""
    make_file(folder / "large", SIZE)
    upload(network.client, f"http://{network.vip_host}/upload/copy", folder / "large")
    copies = [file for server in servers for file in server.uploads.iterdir()]
    assert [sha256(file) for file in copies] == [sha256(folder / "large")]


@each_cell
def test_a_large_upload_through_a_narrow_egress(
    row: str, version: int, dataplane: str, program: Path, tmp_path: Path
) -> None:
    with narrow(ROWS[row], version, program) as (network, servers):
        with running(network, network.config_toml(dataplane=dataplane)) as balancer:
            posted(network, servers, tmp_path)
            route = network.client.run(["ip", "route", "get", network.vip]).stdout
            told = ROWS[row].mtu - IN_FRONT.get((network.mode, version), 0)
            assert f"mtu {told}" in route, "the client has learned it"
        assert 1 <= balancer.verdict("drop_too_big") <= 200
        assert balancer.lost == 0


def test_an_mtu_that_changes_is_followed(tmp_path: Path) -> None:
    """From 1500 to 1400 while it runs: within a second or so, the client is told."""
    with nat(2, log=Log(silent=True)) as network, web(network.backends[0]) as server:
        one = network.config_toml(dataplane="af_xdp").replace('name = "b2"', 'weight = 0, name = "b2"')
        toml = one.replace('name = "b3"', 'weight = 0, name = "b3"')
        network.backends[0].ip("route change default via 10.78.0.2 advmss 1460")
        with running(network, toml) as balancer:
            posted(network, [server], tmp_path)
            network.balancer.ip(f"link set eth1 mtu {NARROW}")
            until = time.monotonic() + 10
            while "mtu" not in network.client.run(["ip", "route", "get", network.vip]).stdout:
                assert time.monotonic() < until, "the client has not been told"
                (server.uploads / "copy").unlink()
                posted(network, [server], tmp_path)
        assert balancer.verdict("drop_too_big") >= 1


def veth(one: Host, other: Host) -> None:
    """A narrow cable between two hosts: eth1 of both."""
    one.ip(f"link add eth1 type veth peer name eth1 netns {other.pid}")
    for host in (one, other):
        host.ip(f"link set eth1 mtu {NARROW} up")


def only(network: Topology, dataplane: str, address: str) -> str:
    """A configuration with one backend, at this address."""
    text = network.config_toml(dataplane=dataplane).replace(network.backends[0].address, address, 1)
    return re.sub(r"  \{ name = \"b[23]\".*\n", "", text)


@pytest.mark.parametrize("dataplane", ["raw", "af_xdp"])
def test_a_router_before_the_backend_is_heard_by_the_client(dataplane: str, tmp_path: Path) -> None:
    """It tells the client's address what it knows: an error about a packet to the backend."""
    with nat(2, log=Log(silent=True)) as network:
        backend, _, router = network.backends
        veth(router, backend)
        router.sysctls({"net.ipv4.ip_forward": 1})
        router.ip("addr add 10.79.0.1/24 dev eth1")
        backend.ip("link set eth0 down", "addr add 10.79.0.11/24 dev eth1")
        backend.ip("route add default via 10.79.0.1 advmss 1460")
        network.balancer.ip(f"route add 10.79.0.0/24 via {router.address}")
        toml = only(network, dataplane, "10.79.0.11")
        with web(backend) as server, running(network, toml) as balancer:
            posted(network, [server], tmp_path)
            assert f"mtu {NARROW}" in network.client.run(["ip", "route", "get", network.vip]).stdout
        assert balancer.verdict("icmp_error") >= 1
        assert balancer.verdict("drop_too_big") == 0


@pytest.mark.parametrize(
    ("mode", "version", "dataplane"),
    halved(["dsr-ipip", "dsr-gue"], (4, 6), ("raw", "af_xdp")),
    ids=lambda value: f"ipv{value}" if isinstance(value, int) else value,
)
def test_a_router_within_a_tunnel_is_heard_by_the_client(
    mode: str, version: int, dataplane: str, program: Path, tmp_path: Path
) -> None:
    """It tells the tunnel's source, which is the balancer, and that tells the client what is left."""
    bits, net = (24, "10.79.0.") if version == 4 else (64, "2001:db8:79::")
    with dsr(1, version=version, log=Log(silent=True)) as built:
        network = replace(built, mode=mode)
        backend, _, router = network.backends
        veth(router, backend)
        router.run(["ip", "addr", "del", f"{network.vip}/{32 if version == 4 else 128}", "dev", "lo"])
        router.sysctls({"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1})
        router.sysctls({"net.ipv4.conf.all.send_redirects": 0})
        router.ip(f"addr add {net}1/{bits} dev eth1" + " nodad" * (version == 6))
        backend.ip("link set eth0 down", f"addr add {net}11/{bits} dev eth1" + " nodad" * (version == 6))
        backend.ip(f"route add default via {net}1 advmss {USUAL - (40 if version == 4 else 60)}")
        decapsulate(backend, program, "eth1")
        network.balancer.ip(f"route add {net}0/{bits} via {router.address}")
        with web(backend) as server, running(network, only(network, dataplane, net + "11")) as balancer:
            posted(network, [server], tmp_path)
            route = network.client.run(["ip", "route", "get", network.vip]).stdout
            assert f"mtu {NARROW - IN_FRONT[mode, version]}" in route, "it has learned what is left"
        assert balancer.verdict("pass_path_mtu") >= 1
        assert balancer.verdict("drop_too_big") >= 2, "of our own link, and of the one behind the router"


@pytest.mark.parametrize("dataplane", ["raw", "af_xdp"])
@pytest.mark.parametrize("build", [dsr, nat])
def test_a_router_before_the_client_is_heard_by_the_backend(
    build: Build, dataplane: str, tmp_path: Path
) -> None:
    """It tells the VIP, which is the balancer."""
    with build(1, log=Log(silent=True)) as network:
        router, backend, client = network.client, network.backends[0], network.backends[2]
        veth(router, client)
        router.sysctls({"net.ipv4.ip_forward": 1, "net.ipv4.conf.all.send_redirects": 0})
        router.ip("addr add 10.76.0.1/24 dev eth1")
        client.ip("addr flush dev lo", "link set eth0 down", "addr add 10.76.0.2/24 dev eth1")
        client.ip("route add default via 10.76.0.1 advmss 1460")
        if network.mode != "nat":
            backend.ip(f"route add 10.76.0.0/24 via {router.address}")
        toml = only(network, dataplane, backend.address)
        with web(backend) as server, running(network, toml) as balancer:
            digest = make_file(server.files / "large", SIZE)
            assert download(client, f"http://{network.vip}/files/large").sha256 == digest
            assert f"mtu {NARROW}" in backend.run(["ip", "route", "get", "10.76.0.2"]).stdout
        assert balancer.verdict("icmp_error") >= 1
