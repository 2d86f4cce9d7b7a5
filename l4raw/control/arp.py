"""The VIPs on the client's segment: probe, announce, answer, watch for another owner.

No interface of the host has a VIP as its address (the kernel would answer
clients itself), so nobody answers ARP for it unless this module does. RFC 826
is the protocol, RFC 5227 how to claim an address and notice a conflict.

One AF_PACKET socket that receives nothing but ARP, the same for every
dataplane. Must not live here: the kernel's own ARP table (neighbours.py).
"""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from l4raw.control.errors import L4Error
from l4raw.control.netlink import Interface
from l4raw.engine.raw import PACKET_IGNORE_OUTGOING, SOL_PACKET
from l4raw.wire import ethernet
from l4raw.wire.arp import NO_ADDRESS, REPLY, REQUEST, Arp, build, parse
from l4raw.wire.ethernet import BROADCAST, NO_MAC, format_mac, is_unicast

# RFC 5227 section 1.1 has PROBE_WAIT 1 s, PROBE_NUM 3, PROBE_MIN 1 s, PROBE_MAX 2 s and ANNOUNCE_WAIT
# 2 s: up to 7 s, made for laptops that join a busy wireless network all at once. A balancer is started
# by a person who waits, on a wired segment where an owner answers within a millisecond; so three
# probes, but 0.1 s apart, without a random delay. An owner that is slower is found by the watch.
PROBES: Final = 3
PROBE_INTERVAL_S: Final = 0.1

ANNOUNCE_INTERVAL_S: Final = 2.0
DEFEND_INTERVAL_S: Final = 10.0
"""RFC 5227 section 1.1: at most one defence of an address in this time; conflicts are told as rarely."""

_FOR_OTHERS = (socket.PACKET_OTHERHOST, socket.PACKET_OUTGOING)

Frame = bytes | bytearray | memoryview

Owners = Callable[[], Mapping[bytes, str]]

Conflict = Callable[[bytes, bytes], None]
"""Called by the thread with a VIP and the MAC of the host that claims it too."""


def answer(frame: Frame, vips: Iterable[bytes], mac: bytes) -> bytes | None:
    """The frame that answers a request for one of `vips` with `mac`; None: nothing to say.

    Probes (sender address 0.0.0.0) are answered too: that defends the address, RFC 5227 section 2.1.1.
    A sender that names a group address as its own is not answered: the reply would go to the group.
    """
    asked = parse(frame)
    if asked is None or asked.op != REQUEST or asked.tpa not in vips:
        return None
    if asked.spa == asked.tpa or asked.sha == mac or not is_unicast(asked.sha):
        return None
    # RFC 826, "Packet Reception": swap the two, put your own address in, send it to the asker.
    return build(Arp(REPLY, mac, asked.tpa, asked.sha, asked.spa), src=mac, dst=asked.sha)


def claim(frame: Frame, vips: Iterable[bytes], mac: bytes) -> tuple[bytes, bytes] | None:
    """(VIP, MAC) if the frame says that a host other than `mac` has one of `vips`: RFC 5227 section 2.4."""
    seen = parse(frame)
    if seen is None or seen.spa not in vips or seen.sha == mac:
        return None
    return seen.spa, seen.sha


def probe_frame(vip: bytes, mac: bytes) -> bytes:
    """Does somebody have `vip`? Asked without saying that we do: RFC 5227 section 1.1."""
    return build(Arp(REQUEST, mac, NO_ADDRESS, NO_MAC, vip), src=mac, dst=BROADCAST)


def announcement(vip: bytes, mac: bytes) -> bytes:
    """`vip` is at `mac`, for everyone's ARP table: RFC 5227 section 2.3."""
    return build(Arp(REQUEST, mac, vip, NO_MAC, vip), src=mac, dst=BROADCAST)


def refuse_local(vips: Iterable[bytes], local: Mapping[bytes, str]) -> None:
    """Raises L4R-202 for a VIP that is an address of this host; `local` has each address's interface."""
    for vip in vips:
        if vip in local:
            text, interface = socket.inet_ntoa(vip), local[vip]
            raise L4Error(
                "L4R-202",
                what=f"the VIP {text} is an address of this host",
                where=interface,
                fix=f"ip address del {text} dev {interface} (with its prefix length), or choose another VIP",
            )


class ArpResponder:
    """Answers for `vips` on one interface. Probe first, then start."""

    def __init__(self, interface: Interface, vips: Iterable[bytes], conflict: Conflict | None = None) -> None:
        """Opens the socket; sends nothing. Raises L4R-301 without CAP_NET_RAW, L4R-306 if it fails."""
        self._interface = interface
        self._mac = interface.mac
        self._vips = frozenset(vips)
        self._conflict = conflict
        self._quiet_until: dict[bytes, float] = {}
        self._end: int | None = None
        """Writing end of a pipe; closing it ends the thread."""
        self._thread: threading.Thread | None = None
        self._failed: Exception | None = None
        self._socket = _open(interface)

    def probe(self, owners: Owners = dict, count: int = PROBES) -> None:
        """Ask `count` times, 0.1 s each for all VIPs together, whether somebody has one. Raises L4R-201.

        What was heard since the socket was opened counts too. `owners` is called only on a find: names
        of known MACs (of the backends), to tell whose fault it is.
        """
        for _ in range(count):
            for vip in self._vips:
                self._send(probe_frame(vip, self._mac))
            self._listen(time.monotonic() + PROBE_INTERVAL_S, owners)

    def start(self) -> None:
        """Announce every VIP, and again 2 s later (RFC 5227 section 2.3), and answer from now on."""
        self._announce()
        ended, self._end = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, args=(ended,), name="arp", daemon=True)
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

    def _listen(self, until: float, owners: Owners) -> None:
        while (left := until - time.monotonic()) > 0:
            if not select.select([self._socket], [], [], left)[0]:
                return
            frame = self._receive()
            found = claim(frame, self._vips, self._mac) or _rival(frame, self._vips, self._mac)
            if found:
                raise _owned(self._interface.name, *found, owners())

    def _announce(self) -> None:
        for vip in self._vips:
            self._send(announcement(vip, self._mac))

    def _run(self, ended: int) -> None:
        again = time.monotonic() + ANNOUNCE_INTERVAL_S
        left: float | None = ANNOUNCE_INTERVAL_S
        try:
            while True:
                ready, _, _ = select.select([self._socket.fileno(), ended], [], [], left)
                if ended in ready:
                    return
                if ready:
                    self._handle(self._receive())
                if left is not None and (left := max(0.0, again - time.monotonic())) == 0.0:
                    self._announce()
                    left = None
        except Exception as error:
            self._failed = error
        finally:
            os.close(ended)

    def _handle(self, frame: bytes) -> None:
        reply = answer(frame, self._vips, self._mac)
        if reply is not None:
            self._send(reply)
        found = claim(frame, self._vips, self._mac)
        if found is None:
            return
        vip, mac = found
        now = time.monotonic()
        if self._quiet_until.get(vip, now) <= now:
            self._quiet_until[vip] = now + DEFEND_INTERVAL_S
            # RFC 5227 section 2.4 (c): a host whose clients need the address keeps it, and says so once.
            self._send(announcement(vip, self._mac))
            if self._conflict:
                self._conflict(vip, mac)

    def _receive(self) -> bytes:
        """Empty for what was sent to another MAC or VLAN, and when the interface just went down."""
        try:
            frame, sender = self._socket.recvfrom(ethernet.LENGTH + 64)
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


def _open(interface: Interface) -> socket.socket:
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    except PermissionError as error:
        raise L4Error("L4R-301", what="may not open a raw socket for ARP", where=interface.name) from error
    try:
        sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        sock.bind((interface.name, ethernet.ARP))
    except OSError as error:
        sock.close()
        what = f"binding the ARP socket to {interface.name}: {error.strerror}"
        raise L4Error("L4R-306", what=what, where=interface.name) from error
    return sock


def _rival(frame: bytes, vips: Iterable[bytes], mac: bytes) -> tuple[bytes, bytes] | None:
    """(VIP, MAC) of another host that probes for a VIP just now: RFC 5227 section 2.1.1."""
    seen = parse(frame)
    if seen is None or seen.op != REQUEST or seen.spa != NO_ADDRESS:
        return None
    return (seen.tpa, seen.sha) if seen.tpa in vips and seen.sha != mac else None


def _owned(interface: str, vip: bytes, mac: bytes, owners: Mapping[bytes, str]) -> L4Error:
    text, where = socket.inet_ntoa(vip), f"{interface}, {format_mac(mac)}"
    if mac not in owners:
        return L4Error("L4R-201", what=f"the VIP {text} is owned by the host {format_mac(mac)}", where=where)
    return L4Error(
        "L4R-201",
        what=f"backend {owners[mac]} ({format_mac(mac)}) answers ARP for the VIP {text}",
        where=where,
        why="under DSR a backend owns the VIP but must not announce it: clients would bypass the balancer.",
        fix=f"on {owners[mac]}, with the VIP on lo:"
        " sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2",
    )
