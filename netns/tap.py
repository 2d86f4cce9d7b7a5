"""Counting the web servers' replies where a host receives them, for the demo.

Lives here: the socket that counts, and what is wrong when it missed one. Must
not live here: what the counts should be (demo.py).
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from l4raw.wire.headers import Headers, parse

from .host import Host

_PORT: Final = 80
_OFTEN_S: Final = 0.002

_SOL_PACKET: Final = 263  # linux/socket.h
_PACKET_STATISTICS, _PACKET_IGNORE_OUTGOING = 6, 23  # linux/if_packet.h
_SO_RCVBUFFORCE: Final = 33  # asm-generic/socket.h
_ETH_P_IP, _ETH_P_ALL = 0x0800, 3


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
        self._sockets = []
        with host.enter():
            for interface in interfaces:
                tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
                self._sockets.append(tap)
                tap.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, int(not sent))
                with suppress(PermissionError):  # in a user namespace, what rmem_default allows must do
                    tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 8 << 20)
                tap.bind((interface, _ETH_P_ALL if sent else _ETH_P_IP))

    def count(self) -> int:
        """Read what has come so far; how many replies in all. Raises `Failed` if one was missed."""
        for tap in self._sockets:
            while True:
                try:
                    frame, sender = tap.recvfrom(1 << 16, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    break
                if sender[2] != self._direction:
                    continue
                headers = parse(frame)
                if isinstance(headers, Headers) and headers.sport == _PORT:
                    self.replies += 1
            # struct tpacket_stats: frames, drops.
            lost = tap.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)[4:]
            if any(lost):
                raise Failed(f"missed {int.from_bytes(lost, sys.byteorder)} frames: the counts say nothing")
        return self.replies

    def close(self) -> None:
        for tap in self._sockets:
            tap.close()


@contextmanager
def counting(taps: Sequence[Tap]) -> Iterator[None]:
    """Read all the time: an ordinary user's sockets have room for a hundred frames. Raises `Failed`."""
    done, failed = threading.Event(), list[Failed]()

    def read() -> None:
        try:
            while not done.wait(_OFTEN_S):
                for tap in taps:
                    tap.count()
        except Failed as error:
            failed.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    if failed:
        raise failed[0]
