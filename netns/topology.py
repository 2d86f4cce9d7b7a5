"""What the networks have in common: names, addresses, cables, the configuration text.

Lives here: Topology, the object that a network's context manager yields, and
Builder, which makes hosts and segments. Must not live here: which host has
which address (dsr.py, nat.py).

    hosts                 the switch's namespace
    +--------+  veth      +-------------------------+
    | client |------------| client-eth0 --+         |
    +--------+            |               +-- bridge|
    | b1     |------------| b1-eth0 ------+         |
    +--------+            +-------------------------+
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from .host import Host, Link
from .process import Log

VIPS = {4: "10.77.0.100", 6: "2001:db8:77::100"}
"""By IP version; likewise:"""
CLIENTS = {4: ("10.77.0.", 24), 6: ("2001:db8:77::", 64)}
"""The client side: what its addresses begin with, and the prefix length."""
BACKENDS = {4: ("10.78.0.", 24), 6: ("2001:db8:78::", 64)}
"""The backend side, where it is a subnet of its own."""
FAR = {4: ("10.79.0.", 24), 6: ("2001:db8:79::", 64)}
"""Behind a router of the backend side."""
BALANCER_MAC = ("02:00:00:00:00:02", "02:00:00:00:00:03")
"""Of the balancer's eth0 and eth1."""
ARMS = (1, 2)
NO_CHECK = {"type": "none"}
"""For `check`: what is on the wire is the traffic alone, and backends without a server stay."""
MAX_BACKENDS = 80
"""b1 is .11 and the client side's VIP .100 stays free."""

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Topology:
    """A network that is up. Interfaces are the balancer's, client side first."""

    name: str
    """Unique: kind, process id and a running number."""
    mode: str
    """dsr-l2, nat or fullnat, as in the configuration."""
    client: Host
    balancer: Host
    backends: list[Host]
    interfaces: list[str]
    hosts: list[Host]
    """All of the above, the switch and the router if there is one."""
    build_seconds: float
    queues: int = 1
    """Of each of the balancer's interfaces, to receive and to send."""
    router: Host | None = None
    """Two-arm DSR: carries the backends' replies to the client."""
    vip: str = VIPS[4]
    version: int = 4
    """Of IP."""
    snat: str = ""
    """fullnat: the address that backends see."""

    @property
    def vip_host(self) -> str:
        """The VIP as it stands before a port: an IPv6 address in brackets (RFC 3986, section 3.2.2)."""
        return f"[{self.vip}]" if self.version == 6 else self.vip

    @property
    def arms(self) -> int:
        """1: client and backend side on one interface of the balancer; 2: one each."""
        return len(self.interfaces)

    def counters(self) -> dict[str, int]:
        """Checksum errors of every host, such as {"b1.Tcp.InCsumErrors": 0}."""
        return {f"{host.name}.{key}": n for host in self.hosts for key, n in host.counters().items()}

    def config_toml(
        self,
        *services: str,
        scheduler: str = "maglev",
        dataplane: str = "raw",
        backend_port: int = 0,
        weights: Sequence[int] = (),
        snat_ports: str = "1024-65535",
        check: Mapping[str, object] | None = None,
        lb: Mapping[str, object] | None = None,
    ) -> str:
        """The text of an l4raw.toml for this network.

        `services` are ports such as "80/tcp" (which is also the default),
        "53/udp" or "0/tcp" for every port. `backend_port` 0 leaves the port
        as the client asked (NAT only otherwise). `weights`: one a backend.
        `snat_ports`: of the SNAT address. `check`: how backends are checked, such as NO_CHECK.
        `lb`: further keys of [lb].
        """
        top = {"interfaces": self.interfaces, "dataplane": dataplane, **(lb or {})}
        lines = ["[lb]", *(f"{key} = {_toml(value)}" for key, value in top.items())]
        shares: Sequence[int | None] = weights or [None] * len(self.backends)
        for service in services or ("80/tcp",):
            port, _, protocol = service.partition("/")
            named = "every-port" if port == "0" else f"port-{port}"
            lines += [
                "",
                "[[service]]",
                f"name = {_toml(f'{named}-{protocol}')}",
                f"vip = {_toml(f'{self.vip_host}:{port}/{protocol}')}",
                f"mode = {_toml(self.mode)}",
                f"scheduler = {_toml(scheduler)}",
                *([f'snat = [{{ address = "{self.snat}", ports = "{snat_ports}" }}]'] if self.snat else []),
                *([f"check = {_toml(check)}"] if check else []),
                "backends = [",
            ]
            for host, weight in zip(self.backends, shares, strict=True):
                extra = f", port = {backend_port}" if backend_port else ""
                extra += "" if weight is None else f", weight = {weight}"
                lines.append(f"  {{ name = {_toml(host.name)}, address = {_toml(host.address)}{extra} }},")
            lines.append("]")
        return "\n".join(lines) + "\n"


class Builder:
    """Makes the parts of a network; `stack` takes down whatever was made, half a network included."""

    def __init__(
        self, kind: str, stack: ExitStack, log: Log | None, queues: int = 1, version: int = 4
    ) -> None:
        self.version = version
        self.vip = VIPS[version]
        self.everywhere = "::/0" if version == 6 else "default"
        self.name = f"{kind}-{os.getpid()}-{next(_numbers)}"
        self.hosts: dict[str, Host] = {}
        self._stack = stack
        self._queues = queues
        self._log = log if log is not None else Log()
        self._begin = time.monotonic()

    def add_hosts(self, *names: str, forwarding: Sequence[str] = ()) -> None:
        """Make hosts, all at once. `forwarding`: those whose kernel routes (ip_forward=1)."""
        for name in names:
            self.hosts[name] = host = Host(name, self._log)
            self._stack.callback(host.close)
        for name in names:
            self.hosts[name].wait_ready()
            self.hosts[name].sysctls(_quiet_sysctls(name in forwarding, self.version))

    def on_clients(self, number: int | str) -> str:
        """An address on the clients' side, such as 10.77.0.1/24."""
        start, length = CLIENTS[self.version]
        return f"{start}{number}/{length}"

    @property
    def subnet(self) -> str:
        """The backends', such as 10.78.0.0/24."""
        start, length = BACKENDS[self.version]
        return f"{start}0/{length}" if self.version == 4 else f"{start}/{length}"

    def on_backends(self, number: int | str) -> str:
        """An address on the backends' side, such as 10.78.0.11/24."""
        start, length = BACKENDS[self.version]
        return f"{start}{number}/{length}"

    def far(self, number: int | str) -> str:
        """An address behind a router of the backends' side, such as 10.79.0.11/24."""
        start, length = FAR[self.version]
        return f"{start}{number}/{length}"

    @property
    def far_subnet(self) -> str:
        """Of those, such as 10.79.0.0/24."""
        start, length = FAR[self.version]
        return f"{start}0/{length}" if self.version == 4 else f"{start}/{length}"

    def segment(self, bridge: str, ports: Mapping[str, Link]) -> None:
        """Plug hosts into a bridge of the switch, by a veth pair each, and give them their addresses.

        `ports`: host name to the interface that it gets. Offloads stay as veth has them. Only the balancer's
        cable has several queues: the kernel takes the TX queue 1 that a veth left in a packet for RX queue 0,
        and a bridge would put all flows on that.
        """
        switch = self.hosts["switch"]
        # The bridge asks for multicast listeners unless told not to: frames that no capture expects.
        commands = [f"link add {bridge} type bridge mcast_snooping 0", f"link set {bridge} up"]
        for name, link in ports.items():
            port = f"{name}-{link.interface}"
            queues = f"numrxqueues {self._queues} numtxqueues {self._queues}" if name == "balancer" else ""
            peer = f"name {link.interface} address {link.mac} netns {self.hosts[name].pid} {queues}"
            commands += [f"link add {port} {queues} type veth peer {peer}"]
            commands += [f"link set {port} master {bridge} up"]
        switch.ip(*commands)
        for name, link in ports.items():
            host = self.hosts[name]
            first = [] if host.links else ["link set lo up"]
            host.links.append(link)
            host.ip(
                *first,
                *(f"addr add {address} dev {link.interface}{nodad(address)}" for address in link.addresses),
                f"link set {link.interface} up",
            )

    def finish(self, mode: str, interfaces: list[str]) -> Topology:
        """The network, ready to be handed out."""
        return Topology(
            name=self.name,
            mode=mode,
            client=self.hosts["client"],
            balancer=self.hosts["balancer"],
            backends=[host for name, host in self.hosts.items() if name[1:].isdecimal()],
            interfaces=interfaces,
            hosts=list(self.hosts.values()),
            build_seconds=time.monotonic() - self._begin,
            queues=self._queues,
            router=self.hosts.get("router"),
            vip=self.vip,
            version=self.version,
        )


def alone(address: str) -> str:
    """10.77.0.1 of 10.77.0.1/24."""
    return address.partition("/")[0]


def nodad(address: str) -> str:
    """What `ip addr add` needs for an IPv6 address that is not to be probed for; nothing for IPv4."""
    return " nodad" if ":" in address else ""


def backend_names(count: int) -> list[str]:
    """b1, b2, ... Raises ValueError for a count that the addresses have no room for."""
    if not 1 <= count <= MAX_BACKENDS:
        raise ValueError(f"{count} backends: 1 to {MAX_BACKENDS} fit")
    return [f"b{number}" for number in range(1, count + 1)]


def backend_links(names: Sequence[str], address: Callable[[int], str]) -> dict[str, Link]:
    """b1 is .11 with a MAC that ends in 11, and so on; the digits of both read the same."""
    return {
        name: Link("eth0", f"02:00:00:00:00:{number:02d}", (address(number),))
        for number, name in enumerate(names, 11)
    }


def check_arms(arms: int) -> None:
    """Raises ValueError unless the balancer has one or two interfaces."""
    if arms not in ARMS:
        raise ValueError(f"arms = {arms}: a balancer has 1 or 2")


def _quiet_sysctls(forward: bool, version: int) -> dict[str, int | str]:
    """A new namespace inherits some settings from the machine: fix them, so that all machines agree.

    IPv6 is on only where it is used: it says things unasked. Its addresses are usable at once (no DAD).
    """
    values: dict[str, int | str] = {
        "net.ipv4.ip_forward": int(forward),
        "net.ipv4.conf.all.rp_filter": 0,
        "net.ipv4.conf.default.rp_filter": 0,
    }
    if Path("/proc/sys/net/ipv6").exists():
        values["net.ipv6.conf.all.disable_ipv6"] = int(version != 6)
        values["net.ipv6.conf.all.forwarding"] = int(forward and version == 6)
        for conf in ("all", "default"):
            for name in ("accept_dad", "dad_transmits", "router_solicitations", "accept_ra"):
                values[f"net.ipv6.conf.{conf}.{name}"] = 0
    return values


def _toml(value: object) -> str:
    """A TOML value. JSON writes strings, integers, booleans and lists of them the same way."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {_toml(each)}' for key, each in value.items())} }}"
    return json.dumps(value)
