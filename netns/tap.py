"""Counting the web servers' replies where a host receives them, for the demo.

Lives here: the socket that counts, and what is wrong when it missed one. Must
not live here: what the counts should be (demo.py).
"""

from __future__ import annotations

import mmap
import socket
import sys
from collections.abc import Iterator
from struct import Struct
from typing import Final

from l4raw.wire.headers import Headers, parse

from .host import Host

_PORT: Final = 80

_SOL_PACKET: Final = 263  # linux/socket.h
# linux/if_packet.h
_PACKET_RX_RING, _PACKET_STATISTICS, _PACKET_VERSION, _PACKET_IGNORE_OUTGOING = 5, 6, 10, 23
_TPACKET_V2: Final = 1
_ETH_P_IP, _ETH_P_ALL = 0x0800, 3

_FRAMES, _SLOT, _BLOCK = 8192, 2048, 1 << 16
"""Room for every frame of a demo: no reader has to be in time. An ordinary user's queue holds a hundred."""

# struct tpacket2_hdr: status, bytes on the wire, bytes here, offset of the frame; then a struct sockaddr_ll.
_HEADER: Final = Struct("=IIIH")
_STATUS: Final = Struct("=I")
_TO_US, _TO_KERNEL = 1, 0
_PACKET_TYPE_AT: Final = 32 + 10


class Failed(RuntimeError):
    """Something that the demo promises was not so."""


class Tap:
    """Counts frames from port 80, the web servers' replies: those that a host receives, or sends if `sent`.

    An XDP program takes frames before a packet socket of the same host sees
    them. So what arrives at such a host is counted where it is sent.
    """

    def __init__(self, host: Host, interfaces: list[str], sent: bool = False) -> None:
        self.replies = 0
        self._direction = socket.PACKET_OUTGOING if sent else socket.PACKET_HOST
        with host.enter():
            self._rings = [_Ring(interface, sent) for interface in interfaces]

    def count(self) -> int:
        """Read what has come so far; how many replies in all. Raises `Failed` if one was missed."""
        for ring in self._rings:
            for direction, frame in ring.read():
                headers = parse(frame)
                if direction == self._direction and isinstance(headers, Headers) and headers.sport == _PORT:
                    self.replies += 1
        return self.replies

    def close(self) -> None:
        for ring in self._rings:
            ring.close()


class _Ring:
    """A packet socket whose frames the kernel puts in shared memory (kernel: networking/packet_mmap.rst)."""

    def __init__(self, interface: str, sent: bool) -> None:
        self._at = 0
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, int(not sent))
        self._socket.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2)
        # struct tpacket_req: bytes of a block, blocks, bytes of a slot, slots.
        shape = Struct("=4I").pack(_BLOCK, _FRAMES * _SLOT // _BLOCK, _SLOT, _FRAMES)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_RX_RING, shape)
        self._memory = mmap.mmap(self._socket.fileno(), _FRAMES * _SLOT)
        self._socket.bind((interface, _ETH_P_ALL if sent else _ETH_P_IP))

    def read(self) -> Iterator[tuple[int, bytes]]:
        """Which way each frame went, as `socket.PACKET_...`, and its bytes. Raises `Failed`."""
        while True:
            status, length, here, offset = _HEADER.unpack_from(self._memory, self._at)
            if not status & _TO_US:
                break
            start = self._at + offset
            if here < length:
                raise Failed(f"a frame of {length} bytes does not fit into a slot: the counts say nothing")
            yield self._memory[self._at + _PACKET_TYPE_AT], self._memory[start : start + length]
            _STATUS.pack_into(self._memory, self._at, _TO_KERNEL)
            self._at = (self._at + _SLOT) % (_FRAMES * _SLOT)
        # struct tpacket_stats: frames, drops.
        lost = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)[4:]
        if any(lost):
            raise Failed(f"missed {int.from_bytes(lost, sys.byteorder)} frames: the counts say nothing")

    def close(self) -> None:
        self._memory.close()
        self._socket.close()
