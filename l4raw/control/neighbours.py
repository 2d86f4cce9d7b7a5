"""The MAC addresses of the backends, kept as fresh as the kernel's own.

The kernel's table of neighbours does the work; but the kernel sends nothing to the
backends itself, so it would neither resolve an address nor notice that one
moved. A thread says "use it" for it (NTF_USE) every few seconds and writes
what the table then says into the next hops.

Not NTF_EXT_MANAGED, with which the kernel would refresh an entry by itself:
such an entry stays after the process is gone, also after SIGKILL. One that is
only "used" is forgotten like any other.

Must not live here: the packet path. It reads `NextHops.macs` and never waits.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from l4raw.control.errors import L4Error
from l4raw.control.netlink import Interface, Neighbour, NeighbourSocket, Netlink
from l4raw.core.model import Backend, Mode, Service
from l4raw.core.next_hops import NextHops
from l4raw.engine.readable import readable

_FRESH_S = 5.0
"""Between two uses of a resolved address: as often as the kernel's delay_first_probe_time asks for."""
_AGAIN_S = 1.0
"""Between two uses of an unresolved one: the kernel's own retrans_time, so ARP is not sent faster."""


@dataclass(slots=True)
class _Hop:
    """One address on the link that frames are sent to: backends, or a gateway before them."""

    address: bytes
    index: int
    names: list[str] = field(default_factory=list)
    mac: bytes | None = None
    due: float = 0.0
    """When to use it next, on the monotonic clock."""


class Neighbours:
    """Resolves backends behind the last of `arms` and keeps their next hops current."""

    def __init__(
        self,
        next_hops: NextHops,
        arms: Sequence[Interface],
        services: Iterable[Service],
    ) -> None:
        """Looks up the routes and pins the hops; resolves nothing yet.

        Raises L4R-305 for a backend that is not reached through `arms[-1]`, or that `dsr-l2` does not reach.
        """
        self._next_hops = next_hops
        self._arm = arms[-1]
        self._hops: dict[bytes, _Hop] = {}
        self._hop_of_backend: dict[bytes, _Hop] = {}
        with Netlink() as netlink:
            for backend, mode in ((b, service.mode) for service in services for b in service.backends):
                via = next_address(netlink, self._arm, backend, mode)
                if via not in self._hops:
                    self._hops[via] = _Hop(via, next_hops.pin(len(arms) - 1))
                hop = self._hop_of_backend[backend.address] = self._hops[via]
                if backend.name not in hop.names:
                    hop.names.append(backend.name)
        self._news = threading.Condition()
        self._end: int | None = None
        """Writing end of a pipe; closing it ends the thread."""
        self._thread: threading.Thread | None = None
        self._failed: Exception | None = None

    def next_hop(self, address: bytes) -> int:
        """Index in `NextHops` for the backend with this address."""
        return self._hop_of_backend[address].index

    def hops(self) -> dict[bytes, tuple[int, int]]:
        """For each backend's address: the index in `NextHops`, and the arm that it is behind."""
        arms = self._next_hops.arms
        return {address: (hop.index, arms[hop.index]) for address, hop in self._hop_of_backend.items()}

    def mac_of(self, address: bytes) -> bytes | None:
        """The MAC address that frames for this backend go to; None: not known now."""
        return self._hop_of_backend[address].mac

    def owners(self) -> dict[bytes, str]:
        """The MACs known so far, each with the backends it belongs to; for the address probe."""
        return {hop.mac: ", ".join(hop.names) for hop in self._hops.values() if hop.mac}

    def start(self) -> None:
        """Begin to resolve. The socket is opened here, in the caller's network namespace."""
        kernel = NeighbourSocket()
        ended, self._end = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(
            target=self._run, args=(kernel, ended), name="neighbours", daemon=True
        )
        self._thread.start()

    def wait_resolved(self, timeout: float) -> list[str]:
        """Wait at most `timeout` seconds for every next hop; the names of the backends without one."""
        with self._news:
            self._news.wait_for(lambda: all(hop.mac for hop in self._hops.values()), timeout)
        return self.unresolved()

    def unresolved(self) -> list[str]:
        """The names of the backends whose next hop has no MAC now."""
        return [name for hop in self._hops.values() if not hop.mac for name in hop.names]

    def check(self) -> None:
        """Raises what ended the thread, if it was not `close`."""
        if self._failed:
            raise self._failed

    def close(self) -> None:
        """Stop. The MACs stay as they are. May be called twice."""
        if self._end is not None and self._thread:
            os.close(self._end)
            self._end = None
            self._thread.join()

    def _run(self, kernel: NeighbourSocket, ended: int) -> None:
        try:
            while True:
                now = time.monotonic()
                for hop in self._hops.values():
                    if hop.due <= now:
                        self._use(kernel, hop, now)
                wait = min((hop.due for hop in self._hops.values()), default=now + _FRESH_S) - now
                ready = readable(kernel, ended, timeout=wait)
                if ended in ready:
                    return
                if ready:
                    self._read(kernel)
        except Exception as error:
            self._failed = error
        finally:
            kernel.close()
            os.close(ended)

    def _use(self, kernel: NeighbourSocket, hop: _Hop, now: float) -> None:
        hop.due = now + (_FRESH_S if hop.mac else _AGAIN_S)
        try:
            kernel.use(self._arm.index, hop.address)
        except OSError:
            # The kernel is out of buffers; `due` has the next try.
            hop.due = now + _AGAIN_S

    def _read(self, kernel: NeighbourSocket) -> None:
        try:
            changes = kernel.read()
        except OSError:
            # ENOBUFS: changes were lost. A use reports the current state too: have them all reported soon.
            for known in self._hops.values():
                known.due = min(known.due, time.monotonic() + _AGAIN_S)
            return
        for change in changes:
            hop = self._hops.get(change.address)
            if hop is not None and change.interface == self._arm.index:
                self._apply(hop, change)

    def _apply(self, hop: _Hop, change: Neighbour) -> None:
        if change.mac == hop.mac:
            return
        with self._news:
            hop.mac = change.mac
            self._next_hops.set_mac(hop.index, change.mac)
            # Lost: have it resolved again soon. Found: not due before _FRESH_S.
            hop.due = time.monotonic() + (_FRESH_S if change.mac else _AGAIN_S)
            self._news.notify_all()


def next_address(netlink: Netlink, arm: Interface, backend: Backend, mode: Mode) -> bytes:
    """The address on the link to send to for `backend`: its own, or a gateway's. Raises L4R-305."""
    address = str(ip_address(backend.address))
    route = netlink.route(backend.address)
    where = f"backend {backend.name}, {address}"
    fix = f"look at `ip route get {address}`; correct the address, the route or [lb] interfaces"
    if route is None:
        raise L4Error("L4R-305", what=f"no route to backend {backend.name}", where=where, fix=fix)
    if route.local:
        raise L4Error(
            "L4R-305",
            what=f"backend {backend.name} has an address of this host",
            where=where,
            why="l4raw sends frames out of an interface; a server on the balancer itself never sees them.",
            fix="give the backend the address of another host",
        )
    if route.broadcast:
        what = f"backend {backend.name} has a broadcast address, which is that of all hosts of its network"
        raise L4Error("L4R-305", what=what, where=where, fix="give the backend the address of one host")
    if route.interface != arm.index:
        found = socket.if_indextoname(route.interface)
        raise L4Error(
            "L4R-305",
            what=f"backend {backend.name} is reached through {found}, not through {arm.name}",
            where=where,
            fix=fix,
        )
    if route.gateway and mode is Mode.DSR_L2:
        gateway = str(ip_address(route.gateway))
        raise L4Error(
            "L4R-305",
            what=f"backend {backend.name} is behind the router {gateway}, where {mode} does not reach",
            where=where,
            why=f"{mode} rewrites only MAC addresses: a router would send the frame back to the VIP.",
            fix=f'use a backend in the segment of {arm.name}, or mode = "{Mode.DSR_IPIP}" or "{Mode.NAT}"',
        )
    return route.gateway or backend.address
