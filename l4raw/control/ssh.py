"""The way back in: SSH connections of this host that an interface carries.

A dataplane that takes frames away from the kernel can cut the session that it
was started from. $SSH_CONNECTION is no help: sudo removes it. So the sockets
of the kernel are read from /proc/net/tcp, and which of them are an sshd's from
/proc/PID/fd. Reading only; of this network namespace only.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

from l4raw.control.errors import L4Error
from l4raw.control.netlink import Netlink, addresses_v6

_SSH_PORT: Final = 22
_ESTABLISHED, _LISTEN = 1, 10  # TCP_ESTABLISHED, TCP_LISTEN: net/tcp_states.h
# OpenSSH since 9.8 gives each connection a process named sshd-session.
_SERVERS: Final = ("sshd", "sshd-session", "dropbear")

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class TcpSocket:
    """A line of /proc/net/tcp or tcp6. IPv4-mapped addresses are IPv4 here."""

    local: Address
    local_port: int
    remote: Address
    state: int
    inode: int


def parse_sockets(text: str) -> list[TcpSocket]:
    """The sockets in the text of /proc/net/tcp or /proc/net/tcp6; lines of another shape are left out."""
    sockets = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        with contextlib.suppress(ValueError, IndexError):
            (local, port), (remote, _) = (_endpoint(fields[i]) for i in (1, 2))
            sockets.append(TcpSocket(local, port, remote, int(fields[3], 16), int(fields[9])))
    return sockets


def ssh_connections(sockets: Collection[TcpSocket], of_sshd: Collection[int]) -> list[TcpSocket]:
    """The established ones of an SSH server: on port 22, or on a port or socket that an sshd owns.

    `of_sshd`: inodes of the sockets that SSH server processes have open.
    """
    ports = {_SSH_PORT} | {s.local_port for s in sockets if s.state == _LISTEN and s.inode in of_sshd}
    return [s for s in sockets if s.state == _ESTABLISHED and (s.local_port in ports or s.inode in of_sshd)]


def established_ssh(interface: str) -> list[str]:
    """The clients, as text, whose SSH connections to this host come in or go out through `interface`.

    The address that the client connected to may be on one interface and the route back to it through
    another: both count.
    """
    connections = ssh_connections(_sockets(), _sshd_inodes())
    if not connections:
        return []
    with Netlink() as netlink:
        owners = netlink.local_addresses()
        clients = set()
        for connection in connections:
            if isinstance(connection.local, IPv6Address):
                used = {addresses_v6().get(connection.local.packed)}
            else:
                route = netlink.route(connection.remote.packed)
                used = {owners.get(connection.local.packed), _name(route.interface) if route else None}
            if interface in used:
                clients.add(str(connection.remote))
    return sorted(clients)


def require_ssh_safe(interface: str, dataplane_takes_traffic: bool, accept: bool) -> None:
    """Raises L4R-203 if the dataplane could cut an SSH connection and nobody accepted that.

    A dataplane that only listens, like raw, takes nothing from the kernel.
    """
    if not dataplane_takes_traffic or accept:
        return
    clients = established_ssh(interface)
    if clients:
        raise L4Error(
            "L4R-203",
            what=f"{interface} carries the SSH connection from {', '.join(clients)}",
            where=interface,
        )


def _endpoint(text: str) -> tuple[Address, int]:
    """`0100007F:0016`: the address in 32-bit words of the host's byte order, the port as a number."""
    words, port = text.split(":")
    packed = b"".join(int(words[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(words), 8))
    address = ip_address(packed)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address, int(port, 16)


def _sockets() -> list[TcpSocket]:
    sockets = []
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError):  # A kernel without IPv6.
            sockets += parse_sockets(Path("/proc/thread-self/net", name).read_text())
    return sockets


def _sshd_inodes() -> set[int]:
    """Inodes of all sockets of SSH server processes; of other users' only if we may look."""
    inodes = set()
    for process in _servers():
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    target = os.readlink(descriptor)
                    if target.startswith("socket:["):
                        inodes.add(int(target[len("socket:[") : -1]))
    return inodes


def _servers() -> Iterable[Path]:
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                if (process / "comm").read_text().strip() in _SERVERS:
                    yield process


def _name(index: int) -> str | None:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return None
