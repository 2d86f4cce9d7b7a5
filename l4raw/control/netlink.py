"""What the kernel knows: interfaces, addresses, routes, neighbours.

It imports pyroute2, as xdp_features.py and egress.py do, inside functions: the
import takes about 140 ms, which `l4raw --help` must not pay. Everything is
asked in the network namespace of the calling thread. Nothing here changes the
host; the one message that is no question, NTF_USE, asks the kernel to resolve
a neighbour, as a packet to it would.

Addresses are 4 or 16 bytes in network order, MACs 6 bytes.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final, Self

from l4raw.control.errors import L4Error
from l4raw.wire.ethernet import parse_mac

_ETHERNET = 1  # ARPHRD_ETHER, linux/if_arp.h
_UP, _LOWER_UP = 0x1, 0x10000  # IFF_UP, IFF_LOWER_UP, linux/if.h
_ROUTE_LOCAL, _ROUTE_BROADCAST = 2, 3  # RTN_LOCAL, RTN_BROADCAST, linux/rtnetlink.h

_NEW_NEIGHBOUR, _DELETED_NEIGHBOUR, _GET_NEIGHBOUR = 28, 29, 30  # RTM_*NEIGH
_NEIGHBOUR_GROUP = 1 << 2  # RTNLGRP_NEIGH as a bit of nl_groups
_NTF_USE = 1
# NUD_REACHABLE, STALE, DELAY, PROBE, NOARP, PERMANENT: states in which the kernel sends to the MAC.
_USABLE_STATES: Final = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80


@dataclass(frozen=True, slots=True)
class Interface:
    """Facts about an Ethernet interface."""

    name: str
    index: int
    mac: bytes
    up: bool
    """Administratively up, and with a carrier."""
    mtu: int
    addresses: tuple[tuple[bytes, int], ...]
    """Each with its prefix length; not the link-local ones."""

    @property
    def subnets(self) -> list[IPv4Network | IPv6Network]:
        """The networks of its addresses."""
        return [ip_network(pair, strict=False) for pair in self.addresses]


@dataclass(frozen=True, slots=True)
class Route:
    """Where the kernel would send a packet."""

    interface: int
    """Index of the interface it leaves through."""
    gateway: bytes | None
    """None: the destination is on the link."""
    source: bytes | None
    """The address that the kernel would send from."""
    local: bool
    """The destination is an address of this host."""
    broadcast: bool
    """The destination is all hosts of a network."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An entry of the kernel's table of neighbours (ARP, ND)."""

    interface: int
    address: bytes
    mac: bytes | None
    """None: unresolved, failed, or deleted."""


@contextmanager
def _operation(what: str, where: str | None = None) -> Iterator[None]:
    """Turns the kernel's refusal into an L4Error that names the operation."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as error:
        code = "L4R-301" if error.code in (errno.EPERM, errno.EACCES) else "L4R-306"
        raise L4Error(code, what=f"{what}: {error.args[-1]}", where=where) from error


class Netlink:
    """Questions, each answered at once. A context manager."""

    def __init__(self) -> None:
        from pyroute2 import IPRoute

        with _operation("opening a netlink socket"):
            self._ip: Any = IPRoute()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ip.close()

    def interfaces(self, names: Iterable[str]) -> list[Interface]:
        """The facts of each name. Raises L4R-302 for a missing one, L4R-306 for one that is not Ethernet."""
        addresses = self._addresses()
        return [self._interface(name, addresses) for name in names]

    def _interface(self, name: str, addresses: list[tuple[int, bytes, int]]) -> Interface:
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            link = next(iter(self._ip.link("get", ifname=name)))
        except NetlinkError as error:
            if error.code != errno.ENODEV:
                raise L4Error("L4R-306", what=f"reading {name}: {error.args[-1]}", where=name) from error
            raise L4Error("L4R-302", what=f"no interface is named {name}", where=name) from None
        if link["ifi_type"] != _ETHERNET:
            raise L4Error(
                "L4R-306",
                what=f"{name} is not an Ethernet interface (type {link['ifi_type']})",
                where=name,
                why="l4raw rewrites Ethernet headers and answers ARP.",
                fix="name an Ethernet interface in [lb] interfaces: ip -br link",
            )
        return Interface(
            name=name,
            index=link["index"],
            mac=_mac(link.get_attr("IFLA_ADDRESS")) or bytes(6),
            up=bool(link["flags"] & _UP and link["flags"] & _LOWER_UP),
            mtu=link.get_attr("IFLA_MTU"),
            addresses=tuple(
                (address, bits)
                for owner, address, bits in addresses
                if owner == link["index"] and not ip_address(address).is_link_local
            ),
        )

    def _addresses(self) -> list[tuple[int, bytes, int]]:
        """(interface index, address, prefix length) of every address of this host."""
        with _operation("reading the addresses of this host"):
            return [
                (entry["index"], ip_address(local).packed, entry["prefixlen"])
                for entry in self._ip.get_addr()
                # On a point-to-point link IFA_ADDRESS is the other end; IPv6 has only that, else.
                if (local := entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS"))
            ]

    def local_addresses(self) -> dict[bytes, str]:
        """Every address of this host, and the name of its interface."""
        return {address: _interface_name(index) for index, address, _ in self._addresses()}

    def require_admin(self) -> None:
        """Raises L4R-301 unless this process may change the network, which resolving a backend counts as."""
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            # A request that names no neighbour: the kernel looks at the sender's rights before it says so.
            self._ip.neigh("del", family=socket.AF_INET)
        except NetlinkError as error:
            if error.code in (errno.EPERM, errno.EACCES):
                what = "may not change the network: no CAP_NET_ADMIN in this network namespace"
                raise L4Error("L4R-301", what=what) from None

    def route(self, address: bytes) -> Route | None:
        """The kernel's route to `address`; None: it has none."""
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            text = str(ip_address(address))
            answer = next(iter(self._ip.route("get", dst=text, family=family_of(address))))
        except NetlinkError as error:
            # The three are what an unreachable, a blackhole and a prohibit route answer.
            if error.code in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL, errno.EACCES):
                return None
            raise L4Error("L4R-306", what=f"route lookup: {error.args[-1]}") from error
        return Route(
            interface=answer.get_attr("RTA_OIF"),
            gateway=_address(answer.get_attr("RTA_GATEWAY")),
            source=_address(answer.get_attr("RTA_PREFSRC")),
            local=answer["type"] == _ROUTE_LOCAL,
            broadcast=answer["type"] == _ROUTE_BROADCAST,
        )


def require_up(interface: Interface) -> None:
    """Raises L4R-303 if it is down or has no carrier."""
    if not interface.up:
        raise L4Error(
            "L4R-303",
            what=f"{interface.name} is down or has no carrier",
            where=interface.name,
            fix=f"bring it up: ip link set dev {interface.name} up; if it is, look at the cable or its peer",
        )


class NeighbourSocket:
    """Changes of the kernel's table of neighbours, and a way to ask it to resolve an address.

    A plain socket, so that a thread can wait for it and for its own end at
    once; pyroute2 only reads and writes the messages.
    """

    def __init__(self) -> None:
        from pyroute2.netlink.rtnl.marshal import MarshalRtnl

        self._marshal: Any = MarshalRtnl()
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.bind((0, _NEIGHBOUR_GROUP))
        self._socket.setblocking(False)
        self._sequence = 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def use(self, interface: int, address: bytes) -> None:
        """Have the kernel resolve or verify `address`, and report what it knows. Raises OSError.

        NTF_USE does what a packet to the address would: nothing for an entry
        that was confirmed lately, else a probe. Its result comes as a change;
        an entry that needs none is reported by the second message.
        """
        from pyroute2.netlink import NLM_F_CREATE, NLM_F_REQUEST

        self._send(_NEW_NEIGHBOUR, NLM_F_REQUEST | NLM_F_CREATE, interface, address, _NTF_USE)
        self._send(_GET_NEIGHBOUR, NLM_F_REQUEST, interface, address, 0)

    def _send(self, kind: int, flags: int, interface: int, address: bytes, neighbour_flags: int) -> None:
        from pyroute2.netlink.rtnl.ndmsg import ndmsg

        self._sequence = (self._sequence + 1) & 0x7FFFFFFF
        message = ndmsg()
        message["family"] = family_of(address)
        message["ifindex"] = interface
        message["flags"] = neighbour_flags
        message["attrs"] = [("NDA_DST", str(ip_address(address)))]
        message["header"]["type"] = kind
        message["header"]["flags"] = flags
        message["header"]["sequence_number"] = self._sequence
        message.encode()
        self._socket.send(message.data)

    def read(self) -> list[Neighbour]:
        """What changed, in order; empty if nothing waits. Raises OSError; ENOBUFS: changes were lost."""
        try:
            data = self._socket.recv(1 << 16)
        except BlockingIOError:
            return []
        return [change for message in self._marshal.parse(data) if (change := _change(message)) is not None]


def _change(message: Any) -> Neighbour | None:
    """None for acknowledgements, refusals, and families other than IPv4 and IPv6."""
    kind = message["header"]["type"]
    families = (socket.AF_INET, socket.AF_INET6)
    if kind not in (_NEW_NEIGHBOUR, _DELETED_NEIGHBOUR) or message["family"] not in families:
        return None
    address = _address(message.get_attr("NDA_DST"))
    if address is None:
        return None
    usable = kind == _NEW_NEIGHBOUR and message["state"] & _USABLE_STATES
    return Neighbour(message["ifindex"], address, _mac(message.get_attr("NDA_LLADDR")) if usable else None)


def addresses_v6() -> dict[bytes, str]:
    """Interfaces by IPv6 address, in the thread's network namespace, in microseconds; none without IPv6."""
    with suppress(OSError), open("/proc/thread-self/net/if_inet6", encoding="ascii") as lines:
        return {bytes.fromhex(fields[0]): fields[5] for fields in map(str.split, lines)}
    return {}


def family_of(address: bytes) -> int:
    """AF_INET for 4 bytes, AF_INET6 for 16."""
    return socket.AF_INET if len(address) == 4 else socket.AF_INET6


def _address(text: str | None) -> bytes | None:
    return ip_address(text).packed if text else None


def _mac(text: str | None) -> bytes | None:
    """None for what is no Ethernet address: a tunnel's neighbours have IP addresses for one, or nothing."""
    try:
        return parse_mac(text or "")
    except ValueError:
        return None


def _interface_name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return f"interface {index}"
