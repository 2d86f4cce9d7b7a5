"""The redirect program that comes with this package: chosen IPv4 traffic to sockets, the rest to the kernel.

Lives here: the meaning of its two maps. The program itself is
native/bpf/pass_to_socket.bpf.c, under GPL-2.0-only or BSD-2-Clause.
"""

from __future__ import annotations

import struct
from typing import Final

from l4raw.xdp.maps import XskMap
from l4raw.xdp.native import bpf_object
from l4raw.xdp.program import XdpProgram

_RULE: Final = struct.Struct("!BxH")
"""struct rule: protocol, port."""


class PassToSocket(XdpProgram):
    """Redirects what was asked for with accept(); nothing at first, so that attaching cuts nobody off.

    What arrives on a queue without a socket in `sockets` goes to the kernel,
    as do ARP, IPv6 and all that is not asked for. Needs Linux 6.1 or newer.

    Raises `XdpError` ENOENT with the reason when it was not compiled.
    """

    def __init__(self) -> None:
        super().__init__(bpf_object("pass_to_socket"), "pass_to_socket")

    @property
    def sockets(self) -> XskMap:
        """The XSKMAP: `sockets.update(queue, socket)`. Loads the program."""
        found = self.maps["xsks"]
        assert isinstance(found, XskMap)
        return found

    def accept(self, protocol: int = 0, port: int = 0) -> None:
        """Redirect IPv4 of a protocol (socket.IPPROTO_TCP; 0: all) to a destination port (0: all).

        Only TCP and UDP have ports; fragments after the first match port 0 only.
        """
        self.maps["wanted"].put(_rule(protocol, port), b"\1")

    def refuse(self, protocol: int = 0, port: int = 0) -> bool:
        """Take back one accept() with the same values; whether there was one."""
        return self.maps["wanted"].discard(_rule(protocol, port))


def _rule(protocol: int, port: int) -> bytes:
    if not 0 <= protocol <= 255 or not 0 <= port <= 65535:
        raise ValueError(f"protocol {protocol}, port {port}: 0 to 255, 0 to 65535")
    if port and not protocol:
        raise ValueError(f"port {port} of which protocol?")
    return _RULE.pack(protocol, port)
