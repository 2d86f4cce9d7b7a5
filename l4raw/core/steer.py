"""steer(): what becomes of a frame. Start reading here.

    parse          bytes -> headers, or the verdict that says what is wrong
    whose is it?   to a VIP: find the service; else maybe a backend's reply
    known flow?    its entry names the backend, unless its client begins anew
    new flow?      the service's ring names one, and an entry remembers it
    rewrite        the edits that send it there
    verdict        exactly one, for every frame

The frame is only read: the caller applies the edits, if it is to be sent.
What changes is the tables: flows, next hops, the cursor of a ring. This page
is what a class reads and what production runs; a faster executor repeats its
decisions over the same tables.
"""

from __future__ import annotations

from l4raw.core import fragments, portless, rewrite
from l4raw.core.admit import admit, opens
from l4raw.core.answers import answered
from l4raw.core.decision import Decision
from l4raw.core.flows import flow_key
from l4raw.core.full import without_entry
from l4raw.core.mss import clamp
from l4raw.core.mtu import fit
from l4raw.core.path_mtu import limit
from l4raw.core.reuse import ask, reuse
from l4raw.core.snat import stray
from l4raw.core.states import note
from l4raw.core.tables import Tables
from l4raw.core.tunnel import through
from l4raw.wire import segments, tcp
from l4raw.wire.abi import (
    DROP_NEXT_HOP_UNKNOWN,
    DROP_NO_SERVICE,
    DROP_TTL,
    FLOW_CLOSING,
    FLOW_UDP_NEW,
    FORWARD,
    PASS_OTHER_MAC,
    REPLY,
    SENT,
)
from l4raw.wire.headers import Frame, Headers, parse


def steer(frame: bytes | Frame, arm: int, csum_start: int, tables: Tables, segment: int = 0) -> Decision:
    """Decide what becomes of `frame`, which came in on `arm`.

    `csum_start`: offset of a transport header whose checksum is *partial*: it covers the pseudo-header only,
    because the sender left the rest to its network card. 0: none. It need not be the outermost header's.
    `segment`: payload bytes of each segment that a super-frame will be cut into; 0: it is an ordinary frame.
    """
    headers = parse(frame)
    if isinstance(headers, int):
        return Decision(headers)
    if headers.dst_mac != tables.arms[arm].mac:
        return Decision(PASS_OTHER_MAC, headers)
    partial = csum_start != 0 and csum_start == headers.l4
    if headers.fragment:  # no card could cut it; but it can be said
        segment = 0
    whose = _to_vip if headers.dst in tables.policy.vips else _from_backend
    decision = whose(frame, headers, arm, partial, tables)
    if headers.flags & tcp.SYN:
        decision = clamp(frame, decision, partial)
    if decision.backend and decision.backend.source:
        if headers.length > segment * segments.MOST:
            segment = 0
        decision = through(frame, decision, partial, segment, tables)
    if decision.verdict < SENT and headers.length + len(decision.outer) > limit(decision, tables):
        return fit(frame, decision, arm, partial, segment, tables)
    return decision


def _to_vip(frame: bytes | Frame, headers: Headers, arm: int, partial: bool, tables: Tables) -> Decision:
    """A client's frame: on to the backend of its flow."""
    if headers.fragment and not headers.l4:
        return fragments.follow(frame, headers, arm, _to_vip, tables)
    if not headers.l4:
        return portless.to_vip(frame, headers, arm, tables)
    policy, flows, hops = tables.policy, tables.flows, tables.next_hops
    service = policy.find(headers.dst, headers.dport, headers.protocol)
    if service is None:
        return Decision(DROP_NO_SERVICE, headers)

    key = flow_key(headers.src, headers.sport, headers.dst, headers.dport, headers.protocol)
    known, pick, source = flows.look_up(key), None, None
    if known and (headers.flags & tcp.SYN or known.entry.state == FLOW_UDP_NEW):
        known = reuse(known, headers, arm, service, tables)
    if known is None:
        verdict, flow, pick, source = admit(headers, key, arm, service, tables)
        known = flows.look_up(key) if flow >= 0 else None
        if known is None:
            ended = without_entry(verdict, pick, headers, service, tables)
            return answered(frame, ended, arm, partial, tables)
    flow, entry, peer = known
    wanted, service, backend = service, policy.by_number[entry.service], policy.backends[entry.backend]
    assert service is not None and backend is not None, "the policy keeps what a flow names"
    mode = service.service.mode
    if mode.routes and headers.ttl <= 1:  # RFC 1812 section 5.3.1, RFC 8200 section 3
        return Decision(DROP_TTL, headers, service, backend, flow)
    own_mac, mac = tables.arms[backend.arm].mac, hops.macs[backend.next_hop]
    if mac is None:
        return Decision(DROP_NEXT_HOP_UNKNOWN, headers, service, backend, flow)
    if entry.state == FLOW_CLOSING and opens(headers) and (why := ask(tables, headers, wanted)) != FORWARD:
        return Decision(why, headers, service, backend, flow)
    note(tables, flow, entry, headers, first=pick is not None)
    if peer:
        edits = _as_flipped(headers, own_mac, mac, peer, partial)
    else:
        edits = rewrite.dsr_l2(headers, own_mac, mac)
    return Decision(FORWARD, headers, service, backend, flow, pick, edits, backend.arm, source=source)


def _from_backend(
    frame: bytes | Frame, headers: Headers, arm: int, partial: bool, tables: Tables
) -> Decision:
    """Not to a VIP: the reply of a NAT flow if its full key is known, else a stray."""
    flows, hops = tables.flows, tables.next_hops
    if headers.fragment and not headers.l4 and tables.may_reply(headers.src, headers.dst, arm):
        return fragments.follow(frame, headers, arm, _from_backend, tables)
    if not headers.l4:
        return portless.from_backend(frame, headers, arm, tables)
    key = flow_key(headers.src, headers.sport, headers.dst, headers.dport, headers.protocol)
    known = flows.look_up(key)
    if known is None:
        return Decision(stray(headers, tables.policy.snat), headers)
    flow, entry, peer = known
    service, backend = tables.policy.by_number[entry.service], tables.policy.backends[entry.backend]
    assert backend is not None, "the policy keeps what a flow names"
    mac, out = hops.macs[entry.next_hop], hops.arms[entry.next_hop]
    # mac: a client's entry, whose VIP the policy has lost, or a port at rest. arm: only backends reply.
    if mac is None or peer is None or arm != backend.arm or not flows.is_still(known):
        return Decision(stray(headers, tables.policy.snat), headers)
    if headers.ttl <= 1:  # RFC 1812 section 5.3.1, RFC 8200 section 3
        return Decision(DROP_TTL, headers, service, backend, flow)
    note(tables, flow, entry, headers)
    edits = _as_flipped(headers, tables.arms[out].mac, mac, peer, partial)
    return Decision(REPLY, headers, service, backend, flow, None, edits, out)


def _as_flipped(
    headers: Headers, src_mac: bytes, dst_mac: bytes, peer: tuple[rewrite.End, rewrite.End], partial: bool
) -> tuple[rewrite.Edit, ...]:
    """NAT: the rewrite of one direction is the other one's key, source and destination exchanged."""
    source, destination = peer
    return rewrite.nat(headers, src_mac, dst_mac, destination, source, partial)
