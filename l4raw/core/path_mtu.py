"""The MTU of the path from a tunnel's source to a backend, as routers on it tell: RFC 1191, RFC 8201.

A router that cannot pass an outer packet tells its source, which is an address of ours; of the client
it knows nothing. So what it says is remembered for that path, for ten minutes (RFC 1191, section 6.3;
RFC 8201, section 4), and the client's next packet that is too long for it is treated as one that is too
long for our own link (mtu.py): the soft state of RFC 2003, section 5, the MTU of RFC 2473, section 7.

Anybody can send such an error. So it must quote what we send: a packet of that tunnel that is longer than
what it says, and no longer than our own link takes. It can only make a path narrower, and none narrower than
LEAST.

Lives here: which errors are believed, and for how long. Must not live here: what becomes of a packet that
is too long (mtu.py).
"""

from __future__ import annotations

from typing import Final

from l4raw.core.decision import Decision
from l4raw.core.model import Mode
from l4raw.core.tables import BackendEntry, Tables
from l4raw.wire import gue, icmp, ipv4, ipv6
from l4raw.wire.checksum import checksum, pseudo_header
from l4raw.wire.headers import Frame, Headers
from l4raw.wire.quoted import Carried, carried

LEAST: Final = {4: 552, 16: 1280}
"""Bytes, by those of an address. IPv6 has no narrower link (RFC 8200, section 5). IPv4 may have, down to 68
bytes, but none is in use, and a forged error of 68 would make 30 packets of one: like Linux's `min_pmtu`."""
LIFE_MS: Final = 600_000
_WRAP: Final = 0xFFFF_FFFF


def limit(decision: Decision, tables: Tables) -> int:
    """The longest packet, headers in front included, that goes where a decision sends it."""
    mtu, backend = tables.arms[decision.arm].mtu, decision.backend
    if not tables.paths or not backend or not decision.outer:
        return mtu
    told, _ = tables.paths.get((backend.source, backend.backend.address), (mtu, 0))
    return min(mtu, told)


def is_told(frame: bytes | Frame, headers: Headers, arm: int, tables: Tables) -> bool:
    """Whether an ICMP error that came in on `arm` tells the MTU of a path; if so, it is known now.

    A router from before RFC 1191 says 0.
    """
    mtu = _mtu_in(frame, headers)
    quoted = carried(frame, headers) if mtu is not None else None
    if mtu is None or quoted is None or quoted.src != headers.dst:
        return False
    if not mtu < quoted.length <= tables.arms[arm].mtu:
        return False
    ends = quoted.src, quoted.dst
    backends = [each for each in tables.policy.tunnels.get(ends, ()) if each.arm == arm]
    if not any(_is_in(quoted, each, tables) for each in backends) or not _is_whole(frame, headers):
        return False
    told = max(mtu, LEAST[len(quoted.src)])
    known, _ = tables.paths.get(ends, (tables.arms[arm].mtu, 0))
    if told <= known:
        tables.paths[ends] = told, tables.now
        if told < known:
            tables.path_is(ends, told)
    return True


def expire(tables: Tables) -> None:
    """Forget what was told too long ago: the path may be another one now."""
    for ends, (_, since) in list(tables.paths.items()):
        if tables.now - since & _WRAP > LIFE_MS:
            del tables.paths[ends]
            tables.path_is(ends, 0)


def _mtu_in(frame: bytes | Frame, headers: Headers) -> int | None:
    """What a Fragmentation Needed or a Packet Too Big says; None: it is another message."""
    if not headers.icmp or headers.ip + headers.length - headers.icmp < icmp.LENGTH:
        return None
    kind, code, _, word = icmp.ERROR.unpack_from(frame, headers.icmp)
    if len(headers.src) == 4:
        return word & 0xFFFF if (kind, code) == icmp.FRAGMENTATION_NEEDED else None
    # RFC 4443, section 3.2: the code is ignored. RFC 8201, section 4: no path is that narrow.
    return int(word) if kind == icmp.PACKET_TOO_BIG[0] and word >= LEAST[16] else None


def _is_in(quoted: Carried, backend: BackendEntry, tables: Tables) -> bool:
    """Whether the quoted packet is one of the tunnel to this backend."""
    entry = tables.policy.by_number[backend.service]
    assert entry is not None, "the policy keeps what a backend is of"
    if entry.service.mode is Mode.DSR_GUE:
        is_ours = quoted.sport - gue.FIRST_PORT in range(gue.PORTS)
        return is_ours and quoted.protocol == ipv4.UDP and quoted.dport == entry.service.tunnel.port
    return quoted.protocol in (ipv4.IPV4_INSIDE, ipv4.IPV6_INSIDE)


def _is_whole(frame: bytes | Frame, headers: Headers) -> bool:
    """Whether its checksum is right: whoever forwards an error need not ask, but it ends here."""
    message = frame[headers.icmp : headers.ip + headers.length]
    if len(headers.src) == 4:
        return checksum(message) == 0
    return checksum(message, pseudo_header(headers.src, headers.dst, ipv6.ICMPV6, len(message))) == 0
