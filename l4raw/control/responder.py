"""The VIPs on the clients' segment, the SNAT addresses on the backends': probe, announce, answer, watch.

No interface of the host has one as its address (the kernel would answer
itself), so nobody answers ARP or neighbour solicitations for it unless
this module does. One AF_PACKET socket for each IP version, which receives
nothing else, the same for every dataplane.

Lives here: sockets, the thread, when something is said. Must not live here:
what is said (arp.py, nd.py), the kernel's own tables (neighbours.py).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Final, NamedTuple

from l4raw.control import arp, nd
from l4raw.control.errors import L4Error
from l4raw.control.netlink import Interface
from l4raw.control.vips import VIP, owned
from l4raw.engine.raw import PACKET_IGNORE_OUTGOING, SOL_PACKET, attach_filter
from l4raw.engine.readable import readable
from l4raw.wire import ethernet, ipv6
from l4raw.wire.nd import OFFSET, group_of

# RFC 5227 section 1.1 has PROBE_WAIT 1 s, PROBE_NUM 3, PROBE_MIN 1 s, PROBE_MAX 2 s and ANNOUNCE_WAIT
# 2 s: up to 7 s, made for laptops that join a busy wireless network all at once. A balancer is started
# by a person who waits, on a wired segment where an owner answers within a millisecond; so three
# probes, but 0.1 s apart, without a random delay. An owner that is slower is found by the watch.
PROBES: Final = 3
PROBE_INTERVAL_S: Final = 0.1

ANNOUNCE_INTERVAL_S: Final = 2.0
ANNOUNCE_EVERY_S: Final = 60.0
"""From then on: a neighbour that missed it all, or a switch that has forgotten the port, learns it again."""
DEFEND_INTERVAL_S: Final = 10.0
"""RFC 5227 section 1.1: at most one defence of an address in this time; conflicts are told as rarely."""

_FOR_OTHERS = (socket.PACKET_OTHERHOST, socket.PACKET_OUTGOING)

Owners = Callable[[], Mapping[bytes, str]]

Conflict = Callable[[bytes, bytes], None]
"""Called by the thread with a VIP and the MAC of the host that claims it too."""


class Protocol(NamedTuple):
    """How one IP version finds its neighbours."""

    name: str
    says: ModuleType
    """arp or nd: answer, claim, rival, probe_frame, announcement."""
    open: Callable[[Interface, frozenset[bytes]], tuple[socket.socket, socket.socket | None]]
    """The packet socket, and one that is a member of the groups that are asked."""


class Responder:
    """Answers for `vips` on one interface, all of them of one IP version. Probe first, then start."""

    def __init__(
        self,
        protocol: Protocol,
        interface: Interface,
        vips: Iterable[bytes],
        conflict: Conflict | None = None,
        kind: str = VIP,
    ) -> None:
        """Opens the socket; sends nothing. `kind`: what the addresses are, in words.

        Raises L4R-301 without CAP_NET_RAW, L4R-306 if it fails.
        """
        self._interface = interface
        self._protocol = protocol
        self.name = protocol.name
        self._mac = interface.mac
        self._vips = frozenset(vips)
        self._conflict = conflict
        self._kind = kind
        self._quiet_until: dict[bytes, float] = {}
        self._end: int | None = None
        """Writing end of a pipe; closing it ends the thread."""
        self._thread: threading.Thread | None = None
        self._failed: Exception | None = None
        self._socket, self._member = protocol.open(interface, self._vips)

    def probe(self, owners: Owners = dict, count: int = PROBES) -> None:
        """Ask `count` times, 0.1 s each for all VIPs together, whether somebody has one. Raises L4R-201.

        What was heard since the socket was opened counts too. `owners` is called only on a find: names
        of known MACs (of the backends), to tell whose fault it is.
        """
        for _ in range(count):
            for vip in self._vips:
                self._send(self._protocol.says.probe_frame(vip, self._mac))
            self._listen(time.monotonic() + PROBE_INTERVAL_S, owners)

    def start(self) -> None:
        """Announce every VIP, again 2 s later (RFC 5227 section 2.3) and every minute, and answer."""
        self._announce()
        ended, self._end = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(
            target=self._run, args=(ended,), name=self._protocol.name.lower(), daemon=True
        )
        self._thread.start()

    def check(self) -> None:
        """Raises what ended the thread, if it was not `close`."""
        if self._failed:
            raise self._failed

    def close(self) -> None:
        """Answer no more. May be called twice."""
        if self._end is not None and self._thread:
            os.close(self._end)
            self._end = None
            self._thread.join()
        self._socket.close()
        if self._member:
            self._member.close()

    def _listen(self, until: float, owners: Owners) -> None:
        while (left := until - time.monotonic()) > 0:
            if not readable(self._socket, timeout=left):
                return
            frame = self._receive()
            heard = frame, self._vips, self._mac
            found = self._protocol.says.claim(*heard) or self._protocol.says.rival(*heard)
            if found:
                vip, mac = found
                raise owned(self._protocol.name, self._interface.name, vip, mac, owners(), self._kind)

    def _announce(self) -> None:
        for vip in self._vips:
            self._send(self._protocol.says.announcement(vip, self._mac))

    def _run(self, ended: int) -> None:
        again = time.monotonic() + ANNOUNCE_INTERVAL_S
        try:
            while True:
                left = max(0.0, again - time.monotonic())
                ready = readable(self._socket, ended, timeout=left)
                if ended in ready:
                    return
                if ready:
                    self._handle(self._receive())
                if time.monotonic() >= again:
                    self._announce()
                    again += ANNOUNCE_EVERY_S
        except Exception as error:
            self._failed = error
        finally:
            os.close(ended)

    def _handle(self, frame: bytes) -> None:
        reply = self._protocol.says.answer(frame, self._vips, self._mac)
        if reply is not None:
            self._send(reply)
        found = self._protocol.says.claim(frame, self._vips, self._mac)
        if found is None:
            return
        vip, mac = found
        now = time.monotonic()
        if self._quiet_until.get(vip, now) <= now:
            self._quiet_until[vip] = now + DEFEND_INTERVAL_S
            # RFC 5227 section 2.4 (c): a host whose clients need the address keeps it, and says so once.
            self._send(self._protocol.says.announcement(vip, self._mac))
            if self._conflict:
                self._conflict(vip, mac)

    def _receive(self) -> bytes:
        """Empty for what was sent to another MAC or VLAN, and when the interface just went down."""
        try:
            frame, sender = self._socket.recvfrom(ethernet.LENGTH + 256)
        except OSError:
            # ENETDOWN, once; the socket works again when the interface does.
            return b""
        return b"" if sender[2] in _FOR_OTHERS else frame

    def _send(self, frame: bytes) -> None:
        """A frame that cannot be sent is as good as lost on the wire: whoever asked asks again."""
        try:
            self._socket.send(frame)
        except OSError as error:
            if error.errno in (errno.EBADF, errno.EMSGSIZE):
                raise


class Responders:
    """Those of both IP versions, as one."""

    def __init__(
        self,
        interface: Interface,
        vips: Iterable[bytes],
        conflict: Conflict | None = None,
        kind: str = VIP,
    ) -> None:
        """One for each version that is among the VIPs. Raises as `Responder`."""
        self._all: list[Responder] = []
        by_length = {4: ARP, 16: ND}
        wanted = list(vips)
        self.kind, self.count, self.interface = kind, len(wanted), interface.name
        try:
            for length, protocol in by_length.items():
                if mine := [vip for vip in wanted if len(vip) == length]:
                    self._all.append(Responder(protocol, interface, mine, conflict, kind))
        except BaseException:
            self.close()
            raise

    @property
    def names(self) -> str:
        """Of the protocols, such as "ARP and ND"."""
        return " and ".join(each.name for each in self._all)

    def probe(self, owners: Owners = dict, count: int = PROBES) -> None:
        """As `Responder.probe`, one after the other."""
        for each in self._all:
            each.probe(owners, count)

    def start(self) -> None:
        """Announce and answer from now on."""
        for each in self._all:
            each.start()

    def check(self) -> None:
        """Raises what ended a thread."""
        for each in self._all:
            each.check()

    def close(self) -> None:
        """Answer no more. May be called twice."""
        for each in self._all:
            each.close()


def _open(interface: Interface, name: str, ethertype: int) -> socket.socket:
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    except PermissionError as error:
        raise L4Error(
            "L4R-301", what=f"may not open a raw socket for {name}", where=interface.name
        ) from error
    try:
        sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        if ethertype == ethernet.IPV6:
            attach_filter(sock, _DISCOVERY)
        sock.bind((interface.name, ethertype))
    except OSError as error:
        sock.close()
        what = f"binding the {name} socket to {interface.name}: {error.strerror}"
        raise L4Error("L4R-306", what=what, where=interface.name) from error
    return sock


# Classic BPF, as <linux/filter.h> has it: (code, jump if true, jump if false, operand). Solicitations and
# advertisements only: this socket is bound to all of IPv6.
_LOAD_BYTE, _IF_EQUAL, _RETURN = 0x30, 0x15, 0x06
_DISCOVERY: Final = (
    (_LOAD_BYTE, 0, 0, ethernet.LENGTH + 6),
    (_IF_EQUAL, 0, 4, ipv6.ICMPV6),
    (_LOAD_BYTE, 0, 0, OFFSET),
    (_IF_EQUAL, 1, 0, 135),
    (_IF_EQUAL, 0, 1, 136),
    (_RETURN, 0, 0, 0xFFFF),
    (_RETURN, 0, 0, 0),
)


def _open_arp(interface: Interface, vips: frozenset[bytes]) -> tuple[socket.socket, socket.socket | None]:
    return _open(interface, "ARP", ethernet.ARP), None


def _open_nd(interface: Interface, vips: frozenset[bytes]) -> tuple[socket.socket, socket.socket | None]:
    """The kernel joins the solicited-node groups: the card lets them in, switches that snoop learn."""
    member = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        for group in sorted({group_of(vip) for vip in vips}):
            request = group + struct.pack("=I", interface.index)
            member.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
        return _open(interface, "neighbour discovery", ethernet.IPV6), member
    except OSError as error:
        member.close()
        what = f"joining the groups that ask for the VIPs on {interface.name}: {error.strerror}"
        fix = f"is IPv6 on? sysctl net.ipv6.conf.{interface.name}.disable_ipv6"
        raise L4Error("L4R-306", what=what, where=interface.name, fix=fix) from error
    except BaseException:
        member.close()
        raise


ARP: Final = Protocol("ARP", arp, _open_arp)
ND: Final = Protocol("ND", nd, _open_nd)
