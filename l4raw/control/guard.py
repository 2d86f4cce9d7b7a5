"""Where the kernel forwards, keeps its own copy of our frames away from it.

A raw socket receives a copy; the kernel has the original. On a host that
forwards, the kernel would route that one too, or answer it with an ICMP error:
for a frame to a VIP or a SNAT address, and for a NAT reply that passes through
on its way to the client. A netdev ingress chain of nftables runs before routing, so it can
drop the original; and after the raw sockets that listen to all protocols
(ETH_P_ALL) have their copy. One that is bound to ETH_P_IP would get nothing.

The table has the flag `owner`: it lives as long as the netlink socket that made
it. That socket belongs to an `nft -i` which reads from a pipe that we hold, so
the table goes when this process does, also by SIGKILL.
"""

from __future__ import annotations

import contextlib
import os
import string
import subprocess
import time
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import IO, Final

from l4raw.control.errors import L4Error
from l4raw.core.model import Mode, Service
from l4raw.engine.readable import readable

_LOAD_S = 5.0
"""An nft that has neither loaded the table nor complained by then is stuck."""
_VANISH_S = 2.0
"""How long the table of a process that was killed may take to go."""
_POLL_S = 0.01

# Before everything else: nft's own chains are at -300 and above.
_PRIORITY: Final = -500
_NFT: Final = "nft"
_PROTOCOLS = {6: "tcp", 17: "udp"}
_IP = {4: "ip", 6: "ip6"}

Address = IPv4Address | IPv6Address
_IDENTIFIER = frozenset(f"{string.ascii_letters}{string.digits}-_".encode())

# What the kernel would not route anyway goes on to this host: its own connections to a backend, DHCP.
_NOT_FOR_US = "fib daddr type != { local, broadcast, multicast }"


def table_name(instance: str) -> str:
    """A name that nft accepts, different for different instances."""
    return "l4raw-" + "".join(chr(c) if c in _IDENTIFIER else f".{c:02x}" for c in instance.encode())


def rules(services: Iterable[Service]) -> list[str]:
    """The nft statements that drop what the services claim."""
    own: set[Address] = set()
    backends: set[Address] = set()
    replies: set[tuple[str, Address, int]] = set()
    whole: set[tuple[str, Address]] = set()
    for service in services:
        own.update(map(ip_address, (service.vip, *(each.address for each in service.snat))))
        if service.mode is not Mode.NAT:
            continue
        protocol = _PROTOCOLS[service.protocol]
        for backend in service.backends:
            address, port = ip_address(backend.address), backend.port or service.port
            backends.add(address)
            if port:
                replies.add((protocol, address, port))
            else:
                whole.add((protocol, address))
    lines = []
    for version, ip in _IP.items():
        mine = [each for each in own if each.version == version]
        if mine and version == 6:  # The responder's socket comes after this hook.
            discovery = "{ nd-neighbor-solicit, nd-neighbor-advert }"
            lines.append(f"ip6 daddr {_set(mine)} icmpv6 type {discovery} accept")
        if mine:
            lines.append(f"{ip} daddr {_set(mine)} counter drop")
        for protocol in sorted(_PROTOCOLS.values()):
            ends = [f"{a} . {port}" for p, a, port in replies if p == protocol and a.version == version]
            hosts = [a for p, a in whole if p == protocol and a.version == version]
            if ends:
                lines.append(f"{ip} saddr . {protocol} sport {_set(ends)} {_NOT_FOR_US} counter drop")
            if hosts:
                lines.append(f"meta l4proto {protocol} {ip} saddr {_set(hosts)} {_NOT_FOR_US} counter drop")
        # Only the first fragment of a reply has ports (RFC 791, section 3.2; RFC 8200, section 4.5).
        if mine := [backend for backend in backends if backend.version == version]:
            later = "ip frag-off & 0x1fff != 0" if version == 4 else "frag frag-off != 0"
            lines.append(f"{later} {ip} saddr {_set(mine)} {_NOT_FOR_US} counter drop")
    return lines


def _set(elements: Iterable[object]) -> str:
    return "{ " + ", ".join(sorted(map(str, elements))) + " }"


class Guard:
    """Drops the kernel's copy while it would act on it: see `why_needed`."""

    def __init__(self, instance: str, interfaces: Sequence[str], services: Sequence[Service]) -> None:
        """Does nothing yet: call `ensure`."""
        self.table = table_name(instance)
        self._interfaces = tuple(interfaces)
        self._services = tuple(services)
        self._rules = rules(services)
        self._nft: subprocess.Popen[bytes] | None = None

    @property
    def reason(self) -> str:
        """Why a table is needed now, in words; empty: it is not."""
        return why_needed(self._interfaces, self._services)

    def ensure(self) -> bool:
        """Load the table if it is needed and not loaded; True if it was loaded just now.

        Call it at the start, and about once a second, for forwarding can be switched on later; costs a
        few microseconds when nothing changed. Once loaded, the table stays until `close`.
        Raises L4R-206 if nft is missing or refuses, L4R-205 if a table of another owner has our name.
        """
        if self._nft and self._nft.poll() is None:
            return False
        if not self.reason:
            return False
        self.close()
        self.refuse_foreign()
        self._load()
        return True

    def close(self) -> None:
        """Remove the table. May be called twice."""
        nft, self._nft = self._nft, None
        if nft is None:
            return
        assert nft.stdin is not None
        assert nft.stderr is not None
        nft.stdin.close()
        try:
            nft.wait(_LOAD_S)
        except subprocess.TimeoutExpired:
            nft.kill()
            nft.wait()
        nft.stderr.close()

    def refuse_foreign(self) -> None:
        """Raises L4R-205 if the table exists and does not go: it is not one of a process just killed.

        Looks only where a table is needed; elsewhere none is made.
        """
        if not self.reason:
            return
        until = time.monotonic() + _VANISH_S
        while _exists(self.table):
            if time.monotonic() > until:
                raise L4Error(
                    "L4R-205",
                    what=f"an nftables table `netdev {self.table}` exists that this instance did not make",
                    where=f"table netdev {self.table}",
                    fix=f"look at it: nft list table netdev {self.table}; remove it if nothing needs it",
                )
            time.sleep(_POLL_S)

    def _text(self) -> str:
        # A quoted device name has no escapes in nft.
        devices = ", ".join(f'"{name}"' for name in self._interfaces)
        hook = f"type filter hook ingress devices = {{ {devices} }} priority {_PRIORITY}; policy accept;"
        chain = f"chain in {{ {hook} {'; '.join(self._rules)}; }};"
        # On one line, for nft -i takes each line for a command.
        return f"table netdev {self.table} {{ flags owner; {chain} }}\n"

    def _load(self) -> None:
        if any('"' in name for name in self._interfaces):
            raise _unusable("nft cannot name an interface with a quotation mark in its name")
        self._nft = nft = _interactive()
        assert nft.stdin is not None
        assert nft.stderr is not None
        with contextlib.suppress(BrokenPipeError):  # It has ended; why is on its stderr.
            nft.stdin.write(self._text().encode())
        until = time.monotonic() + _LOAD_S
        while time.monotonic() < until:
            if readable(nft.stderr, timeout=0):
                complaint = _first_line(nft.stderr) or f"nft ended with {nft.poll()}"
                self.close()
                raise _unusable(complaint)
            if _exists(self.table):
                return
            time.sleep(_POLL_S)
        self.close()
        raise _unusable(f"nft did not load the table within {_LOAD_S:.0f} s")


def require_nft(interfaces: Iterable[str], services: Iterable[Service]) -> None:
    """Raises L4R-206 where a table is needed and nft cannot be used."""
    if why_needed(interfaces, services):
        _exists("")


def why_needed(interfaces: Iterable[str], services: Iterable[Service]) -> str:
    """Why the kernel must not see its copies, in words; empty: it has no use for them.

    It routes them where it forwards. And a packet to a foreign IPv6 address it answers with an error,
    whether it forwards or not.
    """
    if any(len(service.vip) == 16 for service in services):
        return "the kernel would answer packets to an IPv6 VIP"
    return "the kernel forwards packets here" if any(map(forwards, interfaces)) else ""


def forwards(interface: str) -> bool:
    """Would the kernel route what arrives here? ip_forward sets this value of every interface."""
    try:
        # /proc/sys/net shows the network namespace of the reading thread.
        return Path("/proc/sys/net/ipv4/conf", interface, "forwarding").read_text().strip() != "0"
    except OSError:
        return False


def _environment() -> dict[str, str]:
    """Ours, with the folders of nft, which an ordinary user's PATH may lack, and without a home.

    An interactive nft writes what it was told to ~/.nft.history.
    """
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    return {**os.environ, "PATH": path, "HOME": os.devnull, "TERM": "dumb", "LC_ALL": "C"}


def _interactive() -> subprocess.Popen[bytes]:
    # A session of its own: a Ctrl-C at the terminal is for us, and the table is needed until we have stopped.
    try:
        return subprocess.Popen(
            [_NFT, "-i"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=_environment(),
            start_new_session=True,
        )
    except OSError as error:
        raise _unusable(f"cannot run nft: {error.strerror}") from error


def _exists(table: str) -> bool:
    """Is the table loaded? A table is loaded as a whole or not at all. Raises L4R-206 if nft cannot tell."""
    try:
        # Not as JSON: nft 1.0.6 writes arbitrary bytes for the flag `owner`.
        command = [_NFT, "list", "tables", "netdev"]
        done = subprocess.run(command, capture_output=True, timeout=_LOAD_S, env=_environment())
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _unusable(f"cannot run nft: {error}") from error
    if done.returncode:
        raise _unusable(done.stderr.decode(errors="replace").partition("\n")[0])
    return f"table netdev {table}".encode() in done.stdout.splitlines()


def _first_line(stream: IO[bytes]) -> str:
    return os.read(stream.fileno(), 4096).decode(errors="replace").partition("\n")[0]


def _unusable(complaint: str) -> L4Error:
    return L4Error(
        "L4R-206",
        what=f"the kernel's copies of frames must be dropped, and nftables cannot be used: {complaint}",
        where="nft",
    )
