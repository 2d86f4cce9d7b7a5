"""How a backend is asked whether it is there: what every way has in common, and the plain one.

A way is an async function from a target to a `Result`. It may take as long as
it likes: health.py ends it after the timeout. What it raises as `OSError` is
a failed check, or, where this host is at its limits, none at all.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from contextlib import suppress
from ipaddress import ip_address
from typing import Final, Protocol

from l4raw.control.checks import Target
from l4raw.control.netlink import family_of
from l4raw.control.standing import Result

UP: Final = Result(True)
REFUSED: Final = Result(False, "connection refused")

_OURS: Final = frozenset(
    {
        *(errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN),
        *(errno.EACCES, errno.EPERM, errno.EADDRNOTAVAIL, errno.ENODEV, errno.ENETDOWN),
    }
)
"""Errors of this host, which say nothing of a backend; an unreachable network may be a router's word."""


class Probe(Protocol):
    """A way to ask. Called in the event loop of the thread that checks."""

    async def __call__(self, target: Target) -> Result:
        """Ask once. Ended from outside, by cancelling, when it takes too long."""


async def handshake(target: Target) -> Result:
    """A TCP connection of this host's kernel (RFC 9293, section 3.5), closed as soon as it is open."""
    loop = asyncio.get_running_loop()
    with socket.socket(family_of(target.asked), socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, (str(ip_address(target.asked)), target.port))
        with suppress(OSError):  # the backend was faster
            sock.shutdown(socket.SHUT_RDWR)
    return UP


def failed(error: OSError) -> Result:
    """What an error of a system call says of a backend: that it does not answer, or nothing."""
    number = error.errno or 0
    reason = (os.strerror(number) if number else str(error) or repr(error)).lower()
    return Result(None if number in _OURS else False, reason)
