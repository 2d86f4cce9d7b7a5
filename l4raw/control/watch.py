"""What may change on the host while a balancer runs, and must end it: looked at every second.

Lives here: looking, by calls that take microseconds, because the packet path waits for them. Must not live
here: what `up` looks at once, before it begins (inspection.py), or a change of anything.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from l4raw.control.errors import L4Error
from l4raw.control.netlink import Interface, addresses_v6, family_of
from l4raw.control.vips import SNAT, refuse_local
from l4raw.wire.ethernet import format_mac

_SIOCGIFMTU, _SIOCGIFHWADDR = 0x8921, 0x8927  # linux/sockios.h
_IFREQ = struct.Struct("16sH6s16x")
"""struct ifreq with an address in it: name, hardware type, MAC, padding."""
_IFREQ_MTU = struct.Struct("=16si20x")
"""The same with a number in it."""
_SIOCGIFCONF = 0x8912
_IFCONF = struct.Struct("@iP")
"""struct ifconf: the size of a buffer, and where it is."""
_IFREQ_ADDRESS = struct.Struct("16s4x4s16x")
"""struct ifreq with an IPv4 address in it."""
_ROOM = 4096 * _IFREQ_ADDRESS.size
"""For as many addresses; more are not looked at."""
_ANY_PORT = 9


class Watch:
    """The interfaces, VIPs and SNAT addresses of a running balancer."""

    def __init__(
        self, interfaces: Sequence[Interface], vips: Iterable[bytes], snat: Iterable[bytes] = ()
    ) -> None:
        """Opens a socket, in the caller's network namespace."""
        self._interfaces = tuple(interfaces)
        self._vips, self._snat = tuple(vips), tuple(snat)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def look(self) -> None:
        """Raises L4R-306 for an interface that is gone or has another MAC, L4R-202 for a local address.

        A deleted interface is not told by the sockets that were bound to it, nor is a new MAC.
        """
        for interface in self._interfaces:
            self._require_same(interface)
        local = self._local_addresses()
        refuse_local(self._vips, local)
        refuse_local(self._snat, local, SNAT)

    def _local_addresses(self) -> dict[bytes, str]:
        """Addresses of the host, and those of ours that a route makes such, with the interface of each."""
        local = {each: "lo" for each in (*self._vips, *self._snat) if _is_routed_here(each)}
        room = bytearray(_ROOM)
        view = (ctypes.c_char * _ROOM).from_buffer(room)
        answer = fcntl.ioctl(self._socket, _SIOCGIFCONF, _IFCONF.pack(_ROOM, ctypes.addressof(view)))
        for name, address in _IFREQ_ADDRESS.iter_unpack(room[: _IFCONF.unpack(answer)[0]]):
            local[address] = name.partition(b"\0")[0].decode().partition(":")[0]  # without an alias's label
        return local | addresses_v6()

    def _require_same(self, interface: Interface) -> None:
        try:
            name = socket.if_indextoname(interface.index)
            answer = fcntl.ioctl(self._socket, _SIOCGIFHWADDR, _IFREQ.pack(name.encode(), 0, b""))
        except OSError as error:
            raise L4Error(
                "L4R-306",
                what=f"{interface.name} was deleted while the balancer ran",
                where=interface.name,
                why="its frames do not come any more, also not those of a new interface of that name.",
                fix="make the interface again, then start again",
            ) from error
        mac = _IFREQ.unpack(answer)[2]
        if mac != interface.mac:
            raise L4Error(
                "L4R-306",
                what=f"{interface.name} got another MAC address: {format_mac(mac)}",
                where=interface.name,
                why="the balancer has announced the old one, and takes only frames that are sent to it.",
                fix="start again",
            )

    def mtus(self) -> list[int]:
        """What each interface takes now, in bytes of an IP packet; after `look`. Raises OSError."""
        names = [socket.if_indextoname(interface.index) for interface in self._interfaces]
        asked = [_IFREQ_MTU.pack(name.encode(), 0) for name in names]
        return [_IFREQ_MTU.unpack(fcntl.ioctl(self._socket, _SIOCGIFMTU, each))[1] for each in asked]

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _is_routed_here(address: bytes) -> bool:
    """Whether a local route leads to `address`, from which the kernel would send then, too."""
    text = str(ip_address(address))
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((text, _ANY_PORT))  # UDP: looks up a route, sends nothing
        except OSError:
            return False
        return bool(sock.getsockname()[0] == text)
