"""What has no ports of its own: pings, and ICMP errors, which quote a packet that has.

An error follows the flow of the packet that it quotes (RFC 5508, section 4):
else no backend learns the MTU of the path to its clients, and no client that
of the path to its backend. It says nothing of the flow itself, so it changes
no state and keeps no entry alive. Where the flow has none, DSR's ring still
tells whose it is, if a hash chose; an error makes no entry.
One about a tunnel's packet is for us (path_mtu.py).

Lives here: what becomes of such a frame. Must not live here: how a flow is
found by ports (steer.py), how an error is read (wire/quoted.py) and translated
(rewrite.py).
"""

from __future__ import annotations

from l4raw.core import rewrite
from l4raw.core.admit import martian, without_state
from l4raw.core.decision import Decision
from l4raw.core.flows import flow_key
from l4raw.core.path_mtu import is_told
from l4raw.core.snat import stray
from l4raw.core.tables import Tables
from l4raw.wire import icmp
from l4raw.wire.abi import (
    DROP_ICMP,
    DROP_MARTIAN,
    DROP_NEXT_HOP_UNKNOWN,
    DROP_PROTOCOL,
    DROP_TTL,
    ECHO,
    ICMP_ERROR,
    PASS_ND,
    PASS_PATH_MTU,
)
from l4raw.wire.headers import Frame, Headers
from l4raw.wire.ipv6 import NEIGHBOUR_DISCOVERY
from l4raw.wire.quoted import Quoted, is_error, read


def to_vip(frame: bytes | Frame, headers: Headers, arm: int, tables: Tables) -> Decision:
    """A ping of a VIP is answered; an error follows its flow; who asks for the MAC is the responder's."""
    version = 4 if len(headers.dst) == 4 else 6
    if version == 6 and headers.icmp and headers.icmp_type in NEIGHBOUR_DISCOVERY:
        return Decision(PASS_ND, headers)
    is_ping = headers.icmp and headers.icmp_type == icmp.ECHO[version]
    if not is_ping and not is_error(headers):
        return Decision(DROP_PROTOCOL, headers)
    if martian(headers, arm, tables):
        return Decision(DROP_MARTIAN, headers)
    if is_ping:
        return Decision(ECHO, headers, edits=rewrite.echo(headers, tables.arms[arm].mac), arm=arm)
    return _error_to_vip(headers, read(frame, headers), arm, tables)


def _error_to_vip(headers: Headers, quoted: Quoted | None, arm: int, tables: Tables) -> Decision:
    """About what the client should have got: on to the backend that sent it in the VIP's name."""
    if quoted is None or quoted.src != headers.dst:
        return Decision(DROP_ICMP, headers)
    found = tables.flows.look_up(_flipped(quoted))
    if found is None:
        return _error_without_entry(headers, quoted, arm, tables)
    flow, entry, peer = found
    service, backend = tables.policy.by_number[entry.service], tables.policy.backends[entry.backend]
    assert service is not None and backend is not None, "the policy keeps what a flow names"
    known = Decision(ICMP_ERROR, headers, service, backend, flow, arm=backend.arm)
    own_mac, mac = tables.arms[backend.arm].mac, tables.next_hops.macs[backend.next_hop]
    if peer and headers.ttl <= 1:  # RFC 1812, section 5.3.1
        return known._replace(verdict=DROP_TTL, arm=0)
    if mac is None:
        return known._replace(verdict=DROP_NEXT_HOP_UNKNOWN, arm=0)
    if not peer:
        return known._replace(edits=rewrite.dsr_l2(headers, own_mac, mac))
    server, client = peer
    # The backend knows the client by another address in fullnat: then it knows nobody behind it either.
    source = headers.src if client[0] == quoted.dst else client[0]
    outer = own_mac, mac, source, server[0]
    return known._replace(edits=rewrite.error(headers, quoted, outer, server, client))


def _error_without_entry(headers: Headers, quoted: Quoted, arm: int, tables: Tables) -> Decision:
    """The same about a flow that has no entry: to whom a segment of it would go that opens none."""
    policy, pick = tables.policy, None
    service = policy.find(quoted.src, quoted.sport, quoted.protocol)
    if service and not martian(headers._replace(src=quoted.dst), arm, tables):
        pick = without_state(quoted.dst, _flipped(quoted), service, tables)
    backend = policy.backends[pick.backend] if pick else None
    if backend is None:
        return Decision(DROP_ICMP, headers)
    mac = tables.next_hops.macs[backend.next_hop]
    if mac is None:
        return Decision(DROP_NEXT_HOP_UNKNOWN, headers, service, backend, pick=pick)
    edits = rewrite.dsr_l2(headers, tables.arms[backend.arm].mac, mac)
    return Decision(ICMP_ERROR, headers, service, backend, -1, pick, edits, backend.arm)


def from_backend(frame: bytes | Frame, headers: Headers, arm: int, tables: Tables) -> Decision:
    """From a backend, or a router before it, about what a client sent: on to the client, from the VIP.

    About what a tunnel carried, it tells us.
    """
    flows, hops = tables.flows, tables.next_hops
    if is_told(frame, headers, arm, tables):
        return Decision(PASS_PATH_MTU, headers)
    quoted = read(frame, headers) if is_error(headers) else None
    if quoted is None or quoted.src != headers.dst:
        return Decision(stray(headers, tables.policy.snat), headers)
    found = flows.look_up(_flipped(quoted))
    if found is None:
        return Decision(stray(headers, tables.policy.snat), headers)
    flow, entry, peer = found
    service, backend = tables.policy.by_number[entry.service], tables.policy.backends[entry.backend]
    assert backend is not None, "the policy keeps what a flow names"
    mac, out = hops.macs[entry.next_hop], hops.arms[entry.next_hop]
    if mac is None or peer is None or arm != backend.arm or not flows.is_still(found):  # as in steer.py
        return Decision(stray(headers, tables.policy.snat), headers)
    if headers.ttl <= 1:
        return Decision(DROP_TTL, headers, service, backend, flow)
    client, vip = peer
    outer = tables.arms[out].mac, mac, vip[0], client[0]
    edits = rewrite.error(headers, quoted, outer, client, vip)
    return Decision(ICMP_ERROR, headers, service, backend, flow, None, edits, out)


def _flipped(quoted: Quoted) -> bytes:
    """The key of the flow that the quoted packet belongs to: what its receiver sends."""
    return flow_key(quoted.dst, quoted.dport, quoted.src, quoted.sport, quoted.protocol)
