"""Direct server return: is a backend ready to answer clients? Asked as a client asks.

A client's SYN comes to the backend with the VIP as its destination, and the
answer has the VIP as its source. A connection to the backend's own address
would show neither that it has the VIP nor that its server listens there. The
kernel cannot ask: to it, the VIP is at the balancer. So a SYN is sent by a
packet socket, to the VIP, at the backend's MAC address or through its tunnel:

    us                                        backend
    our address : a port  -> VIP : port  SYN      -->
                                         <--  SYN-ACK   the VIP is there, and somebody listens: up
                          RST            -->            it keeps no half-open connection
                                         <--  RST       nobody listens: refused
                                         <--  nothing   no VIP, no end of the tunnel, a firewall, a dead
                                                        host: the timeout

The answer comes from the VIP to our address, past the tunnel, by whatever interface the way back has.

The kernel has its copy of the answers too. It would answer a SYN-ACK of which
it knows nothing with an RST, and ask by ARP where the VIP is, to send it. So
the port belongs to a socket of the kernel that listens, with a filter which
lets nothing in: what a filter drops is answered by nobody.

Lives here: that exchange. Must not live here: bytes (wire/segment.py, check_frame.py), what an answer
means for a backend (standing.py), timeouts (health.py).
"""

from __future__ import annotations

import asyncio
import errno
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from typing import Final, NamedTuple

from l4raw.control.check_frame import frame_of
from l4raw.control.checks import Target
from l4raw.control.netlink import Interface, family_of
from l4raw.control.probes import REFUSED, UP
from l4raw.control.standing import Result
from l4raw.engine.raw import PACKET_IGNORE_OUTGOING, SOL_PACKET, attach_filter
from l4raw.wire import ethernet, ipv4, ipv6, tcp
from l4raw.wire.segment import Segment, read

MAC_UNKNOWN: Final = Result(False, "it does not answer ARP or neighbour discovery")
NO_ADDRESS: Final = Result(None, "this host has no address that the backend could answer")
_NO_ROUTE: Final = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EAFNOSUPPORT)
_ANY_PORT: Final = 9
_BURST: Final = 64
_MSS: Final = 2, 4
"""Kind and length of the option: RFC 9293, section 3.2."""

Expected = tuple[bytes, bytes, int, int, int]
"""Of an answer: source, destination, their ports, and what it acknowledges."""

# Classic BPF, as <linux/filter.h> has it: (code, jump if true, jump if false, operand).
_LOAD_BYTE, _LOAD_WORD = 0x30, 0x20
_IF_EQUAL, _IF_ANY, _RETURN = 0x15, 0x45, 0x06
_NOTHING: Final = (_RETURN, 0, 0, 0)
_PACKET_TYPE: Final = 0x1_0000_0000 - 0x1000 + 4  # SKF_AD_OFF + SKF_AD_PKTTYPE


class _Asked(NamedTuple):
    """A check under way."""

    target: Target
    mac: bytes
    """Where its frames go."""
    answer: asyncio.Future[Result]


class VipProbe:
    """Asks VIPs behind one interface. Opens what it needs when it is first used, in an event loop."""

    def __init__(self, arm: Interface, mac_of: Callable[[bytes], bytes | None]) -> None:
        """`mac_of`: the MAC address of a backend by its own address, if it is known now."""
        self._arm = arm
        self._mac_of = mac_of
        self._taps: dict[tuple[bytes, str], socket.socket] = {}
        """By our own address, which frames to there must have as their destination, and the interface."""
        self._waiting: dict[Expected, _Asked] = {}

    async def __call__(self, target: Target) -> Result:
        """Send a SYN and wait for its answer. Raises `OSError`."""
        mac = self._mac_of(target.address)
        if mac is None:
            return MAC_UNKNOWN
        ours = _source(target)
        if not any(ours):
            return NO_ADDRESS
        heard_on = ours, "" if target.tunnel else self._arm.name
        tap = self._taps.get(heard_on) or self._open(*heard_on)
        with _silent_port(ours) as reserved:
            port, start = reserved.getsockname()[1], secrets.randbits(32)
            syn = self._syn(Segment(ours, target.asked, port, target.port, start, 0, tcp.SYN))
            answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
            expected = target.asked, ours, target.port, port, start + 1 & 0xFFFF_FFFF
            self._waiting[expected] = asked = _Asked(target, mac, answer)
            try:
                self._send(tap, syn, asked)
                return await answer
            finally:
                del self._waiting[expected]

    def close(self) -> None:
        """Close the sockets; in the event loop in which they were opened."""
        for tap in self._taps.values():
            asyncio.get_running_loop().remove_reader(tap)
            tap.close()
        self._taps.clear()

    def _syn(self, segment: Segment) -> Segment:
        """With the largest segment that the interface can take, as any client says."""
        headers = (ipv4.LENGTH if len(segment.src) == 4 else ipv6.LENGTH) + tcp.LENGTH
        return segment._replace(options=bytes(_MSS) + (self._arm.mtu - headers).to_bytes(2, "big"))

    def _send(self, tap: socket.socket, segment: Segment, asked: _Asked) -> None:
        frame = frame_of(segment, asked.target, src=self._arm.mac, dst=asked.mac)
        tap.sendto(frame, (self._arm.name, ethernet.HEADER.unpack_from(frame)[2]))

    def _open(self, ours: bytes, interface: str) -> socket.socket:
        """`interface`: the only one on which answers are heard; empty: any."""
        kind = ethernet.IPV4 if len(ours) == 4 else ethernet.IPV6
        of_all = 0 if interface else socket.htons(kind)
        # Of all, it hears before the filter is there too; `_answered` knows what it waits for.
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, of_all)
        try:
            tap.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            attach_filter(tap, answers_to(ours))
            if interface:
                tap.bind((interface, kind))
            asyncio.get_running_loop().add_reader(tap, self._hear, tap)
        except BaseException:
            tap.close()
            raise
        self._taps[ours, interface] = tap
        return tap

    def _hear(self, tap: socket.socket) -> None:
        for _ in range(_BURST):
            try:
                frame = tap.recv(ethernet.LENGTH + 1500)
            except OSError:  # nothing more; or ENETDOWN, once, and frames again when the link is up
                return
            heard = read(frame)
            if heard is not None:
                self._answered(heard, tap)

    def _answered(self, heard: Segment, tap: socket.socket) -> None:
        asked = self._waiting.get((heard.src, heard.dst, heard.sport, heard.dport, heard.ack))
        if asked is None or not heard.flags & tcp.ACK or asked.answer.done():
            return
        if heard.flags & tcp.RST:
            asked.answer.set_result(REFUSED)
        elif heard.flags & tcp.SYN:
            asked.answer.set_result(UP)
            # RFC 9293, section 3.5.2: an RST takes its sequence number from what it answers.
            rst = Segment(heard.dst, heard.src, heard.dport, heard.sport, heard.ack, 0, tcp.RST)
            with suppress(OSError):  # the backend gives up by itself
                self._send(tap, rst, asked)


def _silent_port(ours: bytes) -> socket.socket:
    """A TCP port of this address that nobody else gets, and at which the kernel says nothing."""
    sock = socket.socket(family_of(ours), socket.SOCK_STREAM)
    try:
        attach_filter(sock, [_NOTHING])
        sock.bind((str(ip_address(ours)), 0))
        sock.listen(1)
    except BaseException:
        sock.close()
        raise
    return sock


def _source(target: Target) -> bytes:
    """Our own address that a backend can answer, as the kernel chooses it; only zeros: there is none.

    It is the one towards the backend; where the tunnel is of the other IP version, the one towards the VIP.
    What comes out of a tunnel is on no link, so no link-local address is answered. Raises `OSError`.
    """
    none, crossed = bytes(len(target.asked)), len(target.address) != len(target.asked)
    towards = target.asked if crossed else target.address
    try:
        with socket.socket(family_of(towards), socket.SOCK_DGRAM) as sock:
            sock.connect((str(ip_address(towards)), _ANY_PORT))  # looks up a route, sends nothing
            found = ip_address(sock.getsockname()[0].partition("%")[0])
    except OSError as error:
        if crossed and error.errno in _NO_ROUTE:
            return none
        raise
    return none if target.tunnel and found.is_link_local else found.packed


def answers_to(address: bytes) -> list[tuple[int, int, int, int]]:
    """A filter for the answers that are awaited at one of our addresses: SYN-ACK and RST.

    Whatever else comes to this host, such as an SSH session, does not wake us. A server answers without
    IP options and extension headers, so that every field has one place.
    """
    ip = ipv4 if len(address) == 4 else ipv6
    protocol = ipv4.PROTOCOL if len(address) == 4 else ipv6.NEXT_HEADER
    words = [(ip.DST + at, int.from_bytes(address[at : at + 4], "big")) for at in range(0, len(address), 4)]
    tests = [
        (_LOAD_BYTE, _PACKET_TYPE, _IF_EQUAL, socket.PACKET_HOST),
        (_LOAD_BYTE, ethernet.LENGTH + protocol, _IF_EQUAL, ipv4.TCP),
        *((_LOAD_WORD, ethernet.LENGTH + at, _IF_EQUAL, word) for at, word in words),
        (_LOAD_BYTE, ethernet.LENGTH + ip.LENGTH + tcp.FLAGS, _IF_ANY, tcp.SYN | tcp.RST),
    ]
    program = []
    for left, (load, at, test, value) in zip(range(len(tests) - 1, -1, -1), tests, strict=True):
        program += [(load, 0, 0, at), (test, 0, 2 * left + 1, value)]
    return [*program, (_RETURN, 0, 0, 0xFFFF), _NOTHING]
