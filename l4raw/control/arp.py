"""IPv4 VIPs on the client's segment: what is said and answered.

RFC 826 is the protocol, RFC 5227 how to claim an address and notice a
conflict. Must not live here: bytes (wire/arp.py), the socket and the thread
(responder.py), the kernel's own ARP table (neighbours.py).
"""

from __future__ import annotations

from collections.abc import Iterable

from l4raw.wire.arp import NO_ADDRESS, REPLY, REQUEST, Arp, build, parse
from l4raw.wire.ethernet import BROADCAST, NO_MAC, is_unicast

Frame = bytes | bytearray | memoryview


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


def rival(frame: bytes, vips: Iterable[bytes], mac: bytes) -> tuple[bytes, bytes] | None:
    """(VIP, MAC) of another host that probes for a VIP just now: RFC 5227 section 2.1.1."""
    seen = parse(frame)
    if seen is None or seen.op != REQUEST or seen.spa != NO_ADDRESS:
        return None
    return (seen.tpa, seen.sha) if seen.tpa in vips and seen.sha != mac else None
