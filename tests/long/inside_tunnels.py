"""Runs in a guest: `l4raw up` in namespaces there, and a backend with the tunnel devices of its kernel.

    python -m tests.long.inside_tunnels raw|af_xdp

A VIP of its own for each way through a tunnel; one backend, prepared as docs/backends.md says. The first run
moves data, with offloads as veth has them. In the second one, checksums are finished by who sends and nothing
is a super-frame, so that our counters can be held against those of the devices. One way after the other: what
the devices count meanwhile is that way's.

Prints one line of JSON. Must not live here: what should be in it (test_tunnel_devices.py).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import product
from typing import Any, Final, NamedTuple

from l4raw.netns import Host, Log, Topology, dsr
from l4raw.netns.clients import download, make_file, many_requests, sha256, upload
from l4raw.netns.servers import Server, nginx
from l4raw.netns.topology import BACKENDS, CLIENTS

from tests.integration import capture, running
from tests.integration.tunnelled import widen
from tests.integration.udp_echo import serving, there_and_back
from tests.long.inside_guest import SLOW_S

SIZE: Final = 1_000_000
REQUESTS: Final = 5
FEW: Final = 20_000
"""Bytes over UDP where frames are counted."""
ECHO: Final = 7000
COUNTED: Final = "add table inet seen; add counter inet seen gue; add chain inet seen in"
"""Packets that come to the backend's GUE port, by nft."""
RULE: Final = (
    " { type filter hook prerouting priority raw; }; add rule inet seen in udp dport 6080 counter name gue"
)


class Way(NamedTuple):
    """Through a tunnel: mode, and the IP versions of the client's packet and of the one around it."""

    mode: str
    inner: int
    outer: int

    @property
    def name(self) -> str:
        return f"{self.mode}-{self.inner}in{self.outer}"

    @property
    def device(self) -> str:
        """What takes the packet out."""
        return "l4raw" if self.outer == 6 else {4: "tunl0", 6: "sit0"}[self.inner]

    @property
    def vip(self) -> str:
        return f"{CLIENTS[self.inner][0]}{101 + WAYS.index(self)}"

    @property
    def host(self) -> str:
        """The VIP as it stands before a port."""
        return f"[{self.vip}]" if self.inner == 6 else self.vip


WAYS: Final = [Way(*each) for each in product(("dsr-ipip", "dsr-gue"), (4, 6), (4, 6))]


def main(dataplane: str) -> None:
    running.DEADLINE = capture.DEADLINE = SLOW_S
    told: dict[str, dict[str, Any]] = {way.name: {} for way in WAYS}
    with network_of_both() as (network, servers):
        toml = configuration(dataplane)
        errors = network.counters()
        with running.running(network, toml) as balancer:
            for way in WAYS:
                before = seen(network.backends[0])
                told[way.name]["moved"] = move(network, way, servers[way.inner])
                capture.wait_until_quiet(network)
                told[way.name]["while_moved"] = difference(before, seen(network.backends[0]))
        for host in (network.client, *network.backends):
            host.run(["ethtool", "-K", "eth0", "tx", "off"])
        with running.running(network, toml) as counted:
            for way in WAYS:
                before = seen(network.backends[0])
                told[way.name]["answers"] = look(network, way)
                capture.wait_until_quiet(network)
                told[way.name]["while_looked"] = difference(before, seen(network.backends[0]))
        wrong = {key: count for key, count in network.counters().items() if count != errors[key]}
    for way in WAYS:
        told[way.name]["sent"] = {
            key: counted.backends(f"rx_{key}")[way.name] for key in ("packets", "bytes")
        }
    planes = [balancer.dataplane, counted.dataplane]
    verdicts = [balancer.counters["verdicts"], counted.counters["verdicts"]]
    print(json.dumps({"ways": told, "dataplanes": planes, "verdicts": verdicts, "wrong": wrong}))


@contextmanager
def network_of_both() -> Iterator[tuple[Topology, dict[int, Server]]]:
    """Two arms and both IP versions; the web servers by version."""
    with dsr(2, 1, version=6, log=Log(silent=True)) as network, ExitStack() as stack:
        add_ipv4(network)
        widen(network)
        (backend,) = network.backends
        prepare(backend)
        servers = {}
        for version in (6, 4):
            servers[version] = stack.enter_context(nginx(backend))
            (link,) = backend.links  # a server listens for the version of the first address
            backend.links[0] = replace(link, addresses=link.addresses[::-1])
        for way in WAYS:
            stack.enter_context(serving(backend, way.vip, ECHO))
        yield network, servers


def add_ipv4(network: Topology) -> None:
    """Beside the IPv6 of the same numbers; and ECN, which tunnels have to carry."""
    near, far, router = CLIENTS[4][0], BACKENDS[4][0], network.router
    assert router is not None
    network.client.ip(f"addr add {near}1/24 dev eth0", f"route add {far}0/24 via {near}254")
    for host, number in ((network.balancer, 2), (router, 254)):
        host.ip(f"addr add {near}{number}/24 dev eth0", f"addr add {far}{number}/24 dev eth1")
    router.sysctls({"net.ipv4.ip_forward": 1})
    (backend,) = network.backends
    backend.ip(f"addr add {far}11/24 dev eth0", f"route add default via {far}254")
    (link,) = backend.links
    backend.links[0] = replace(link, addresses=(*link.addresses, f"{far}11/24"))
    for host in (network.client, backend):
        host.sysctls({"net.ipv4.tcp_ecn": 1})


def prepare(backend: Host) -> None:
    """As docs/backends.md has it, but for modules, which are there."""
    backend.ip(*(f"addr add {way.vip} dev lo{' nodad' if way.inner == 6 else ''}" for way in WAYS))
    backend.ip(
        "link set tunl0 up",
        "link set sit0 up",
        f"link add l4raw type ip6tnl mode any local {BACKENDS[6][0]}11 remote ::",
        "link set l4raw up",
    )
    backend.run(["ip", "fou", "add", "port", "6080", "gue"])
    backend.run(["ip", "-6", "fou", "add", "port", "6080", "gue"])
    backend.run(["nft", COUNTED + RULE])


def configuration(dataplane: str) -> str:
    """An l4raw.toml with two services for each way, TCP and UDP; its backend has the way's name."""
    text = f'[lb]\ninterfaces = ["eth0", "eth1"]\ndataplane = "{dataplane}"\n'
    for way, (port, protocol) in product(WAYS, ((80, "tcp"), (ECHO, "udp"))):
        text += f"""
[[service]]
name = "{way.name}-{protocol}"
vip = "{way.host}:{port}/{protocol}"
mode = "{way.mode}"
check = {{ type = "none" }}
backends = [{{ name = "{way.name}", address = "{BACKENDS[way.outer][0]}11" }}]
"""
    return text


def move(network: Topology, way: Way, server: Server) -> dict[str, Any]:
    """SIZE bytes to the VIP and from it, over TCP and over UDP: their SHA-256 where they began and ended."""
    client, name = network.client, way.name
    digest = make_file(server.files / name, SIZE, seed=WAYS.index(way))
    got = download(client, f"http://{way.host}/files/{name}", timeout=SLOW_S)
    upload(client, f"http://{way.host}/upload/{name}", server.files / name, timeout=SLOW_S)
    udp = there_and_back(client, way.vip, ECHO, SIZE)
    return {"file": digest, "download": got.sha256, "upload": sha256(server.uploads / name), "udp": udp}


def look(network: Topology, way: Way) -> dict[str, int]:
    """Few frames, of both protocols. Returns how many requests were answered, by the body."""
    there_and_back(network.client, way.vip, ECHO, FEW)
    return many_requests(network.client, f"http://{way.host}/", REQUESTS, timeout=SLOW_S)


def seen(backend: Host) -> dict[str, dict[str, int]]:
    """What the backend's tunnel devices have received, by name; and under "gue" what nft has counted."""
    shown = backend.run(["sh", "-c", "ip -j -s -s link show && nft -j list counters"]).stdout
    devices, counters = map(json.loads, shown.splitlines())
    found = {each["ifname"]: each["stats64"]["rx"] for each in devices}
    (gue,) = (each["counter"] for each in counters["nftables"] if "counter" in each)
    return {name: found[name] for name in ("tunl0", "sit0", "l4raw")} | {"gue": {"packets": gue["packets"]}}


def difference(old: dict[str, dict[str, int]], new: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """What has been added."""
    return {name: {key: new[name][key] - old[name][key] for key in new[name]} for name in new}


if __name__ == "__main__":
    main(sys.argv[1])
