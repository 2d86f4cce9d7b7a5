"""IPv6 VIPs on the client's segment, as arp.py has IPv4 ones: what is said and answered.

RFC 4861 is the protocol, RFC 4862 section 5.4 how to find out whether an
address is taken. Must not live here: bytes (wire/nd.py), the socket and the
thread (responder.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from l4raw.wire.ethernet import HEADER, is_unicast
from l4raw.wire.nd import (
    ADVERTISEMENT,
    ALL_NODES,
    NO_ADDRESS,
    OVERRIDE,
    SOLICITATION,
    SOLICITED,
    Discovery,
    build,
    group_mac,
    group_of,
    parse,
)

Frame = bytes | bytearray | memoryview
_EVERYBODY: Final = group_mac(ALL_NODES)


def answer(frame: Frame, vips: Iterable[bytes], mac: bytes) -> bytes | None:
    """The frame that answers a solicitation of one of `vips` with `mac`; None: nothing to say.

    RFC 4861, section 7.2.4. A probe has no source to answer: everybody is told.
    """
    asked = parse(frame)
    if asked is None or asked.type != SOLICITATION or asked.target not in vips:
        return None
    asker: bytes = HEADER.unpack_from(frame)[1]
    if asker == mac or not is_unicast(asker):
        return None
    if asked.src == NO_ADDRESS:
        return announcement(asked.target, mac)
    reply = Discovery(ADVERTISEMENT, asked.target, asked.src, asked.target, SOLICITED | OVERRIDE, mac)
    return build(reply, src=mac, dst=asker)


def claim(frame: Frame, vips: Iterable[bytes], mac: bytes) -> tuple[bytes, bytes] | None:
    """(VIP, MAC) if the frame says that a host other than `mac` has one of `vips`."""
    seen = parse(frame)
    if seen is None or seen.type != ADVERTISEMENT or seen.target not in vips:
        return None
    owner: bytes = seen.mac or HEADER.unpack_from(frame)[1]
    return None if owner == mac else (seen.target, owner)


def rival(frame: Frame, vips: Iterable[bytes], mac: bytes) -> tuple[bytes, bytes] | None:
    """(VIP, MAC) of another host that probes for a VIP just now: RFC 4862, section 5.4.3."""
    seen = parse(frame)
    if seen is None or seen.type != SOLICITATION or seen.src != NO_ADDRESS or seen.target not in vips:
        return None
    owner: bytes = HEADER.unpack_from(frame)[1]
    return None if owner == mac else (seen.target, owner)


def probe_frame(vip: bytes, mac: bytes) -> bytes:
    """Does somebody have `vip`? Asked without saying that we do: RFC 4862, section 5.4.2."""
    group = group_of(vip)
    return build(Discovery(SOLICITATION, NO_ADDRESS, group, vip, 0, None), src=mac, dst=group_mac(group))


def announcement(vip: bytes, mac: bytes) -> bytes:
    """`vip` is at `mac`, for everyone's neighbour cache: RFC 4861, section 7.2.6."""
    return build(Discovery(ADVERTISEMENT, vip, ALL_NODES, vip, OVERRIDE, mac), src=mac, dst=_EVERYBODY)
