"""Megabytes over UDP, there and back: a server that echoes, a client that sends each until it is back.

Run as a program inside a host; `serving` and `there_and_back` do that. A
datagram is a number and a piece of the data. Only the standard library is
imported.

    python udp_echo.py serve ADDRESS PORT
    python udp_echo.py send ADDRESS PORT SIZE
"""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from l4raw.netns import Host

PIECE = 1400
WINDOW = 48
"""Datagrams that may be under way: fewer than any buffer on the way has room for."""
AGAIN_S = 0.5
GIVE_UP_S = 90.0
DIGEST = 0xFFFF_FFFF
"""The number that asks for the SHA-256 of all that the server has received."""
NUMBER = struct.Struct("!I")


def _socket(address: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)


def serve(address: str, port: int) -> None:
    """Echo until the process ends. Bound to one address, which is then also the source of what it sends."""
    pieces: dict[int, bytes] = {}
    with _socket(address) as sock:
        sock.bind((address, port))
        print("ready", flush=True)
        while True:
            data, sender = sock.recvfrom(65_535)
            (number,) = NUMBER.unpack_from(data)
            if number == DIGEST:
                digest = hashlib.sha256(b"".join(pieces[i] for i in sorted(pieces)))
                data = data[: NUMBER.size] + digest.digest()
            else:
                pieces[number] = data[NUMBER.size :]
            sock.sendto(data, sender)


def send(address: str, port: int, size: int) -> dict[str, Any]:
    """Send `size` bytes; the SHA-256 of what was sent, of what the server got, and of what came back."""
    content = Random(size).randbytes(size)
    pieces = [NUMBER.pack(i) + content[at : at + PIECE] for i, at in enumerate(range(0, size, PIECE))]
    waiting = dict(enumerate(pieces))
    back: dict[int, bytes] = {}
    again, latest = 0, time.monotonic() + GIVE_UP_S
    with _socket(address) as sock:
        sock.connect((address, port))
        sock.settimeout(AGAIN_S)
        following, under_way = iter(pieces), 0
        while waiting:
            assert time.monotonic() < latest, f"{len(waiting)} of {len(pieces)} datagrams did not come back"
            while under_way < WINDOW and (piece := next(following, None)) is not None:
                sock.send(piece)
                under_way += 1
            try:
                data = sock.recv(65_535)
            except TimeoutError:
                for number in list(waiting)[:WINDOW]:
                    sock.send(waiting[number])
                    again += 1
                continue
            (number,) = NUMBER.unpack_from(data)
            if waiting.pop(number, None) is not None:
                under_way -= 1
                back[number] = data[NUMBER.size :]
        told = _digest(sock, latest)
    return {
        "sent": hashlib.sha256(content).hexdigest(),
        "received": told[NUMBER.size :].hex(),
        "returned": hashlib.sha256(b"".join(back[i] for i in sorted(back))).hexdigest(),
        "again": again,
    }


def _digest(sock: socket.socket, latest: float) -> bytes:
    """The server's answer to that question, asked again while there is none: a slow server, or a lost one."""
    while True:
        sock.send(NUMBER.pack(DIGEST))
        try:
            while NUMBER.unpack_from(told := sock.recv(65_535))[0] != DIGEST:
                pass
        except TimeoutError:
            assert time.monotonic() < latest, "no answer to the question for the digest"
            continue
        return told


@contextmanager
def serving(host: Host, address: str, port: int) -> Iterator[None]:
    """Run a server on this address of a host."""
    process = host.popen(
        [sys.executable, "-I", __file__, "serve", address, str(port)], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield
    finally:
        host.end(process)
        if process.stdout:
            process.stdout.close()


def there_and_back(host: Host, address: str, port: int, size: int) -> dict[str, Any]:
    """Send `size` bytes from a host and have them back: what send() returns."""
    argv = [sys.executable, "-I", __file__, "send", address, str(port), str(size)]
    found: dict[str, Any] = json.loads(host.run(argv, timeout=GIVE_UP_S + 30).stdout)
    return found


def main() -> None:
    """By the first argument."""
    what, address, port, *rest = sys.argv[1:]
    if what == "serve":
        serve(address, int(port))
    print(json.dumps(send(address, int(port), int(rest[0]))))


if __name__ == "__main__":
    main()
