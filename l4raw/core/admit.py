"""admit(): a new flow gets its backend and its entry, or a verdict says why not.

The slow half of steer(): a frame comes here once in the life of its flow.
Nothing is half done: whatever is refused leaves flows and next hops as they
were, but for flows that made room for it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from l4raw.core.affinity import recall, remember
from l4raw.core.changes import of_owner, remembers
from l4raw.core.flows import flow_key
from l4raw.core.full import has_room
from l4raw.core.model import Full
from l4raw.core.ring import HASHES, Pick
from l4raw.core.snat import Pool, Source
from l4raw.core.states import first
from l4raw.core.tables import BackendEntry, ServiceEntry, Tables
from l4raw.wire import ipv4, tcp
from l4raw.wire.abi import (
    DROP_ACL,
    DROP_FLOWS_FULL,
    DROP_MARTIAN,
    DROP_NEXT_HOP_UNKNOWN,
    DROP_NEXT_HOPS_FULL,
    DROP_NO_BACKEND,
    DROP_NO_FLOW,
    DROP_REPLY_KEY_TAKEN,
    DROP_SNAT_EXHAUSTED,
    DROP_TTL,
    FORWARD,
    PORT_TRIES,
    REPLY_TAKEN,
    TAKEN,
    Verdict,
)
from l4raw.wire.ethernet import is_unicast
from l4raw.wire.headers import Headers

_OPENING: Final = tcp.SYN | tcp.ACK | tcp.FIN | tcp.RST
_LOOPBACK: Final = 127
_CLASS_D: Final = 224
_NO_ADDRESS_V6: Final = bytes(16)
_LOOPBACK_V6: Final = bytes(15) + b"\1"

OF_NO_NETWORK: Final = "is of 0.0.0.0/8, which is nobody's"
LOOPBACK: Final = "is a loopback address"
UNSPECIFIED: Final = "is ::, the unspecified address"
OF_ONE_LINK: Final = "is a link-local address, which means nothing behind the balancer"
OF_A_GROUP: Final = "is a multicast or reserved address"
IS_VIP: Final = "is a VIP"
IS_SNAT: Final = "is a SNAT address"
IS_LOCAL: Final = "is an address of this host"
MAC_OF_NONE: Final = "is no address of one interface"
OWN_MAC: Final = "is the balancer's own"
"""What `martian` says of the source address, but for the last two: of the MAC."""


class Admission(NamedTuple):
    """FORWARD and the new flow's index, -1 if it goes on without an entry; or the verdict that refuses it."""

    verdict: Verdict
    flow: int = -1
    pick: Pick | None = None
    source: Source | None = None


def admit(headers: Headers, key: bytes, arm: int, service: ServiceEntry, tables: Tables) -> Admission:
    """Choose a backend for the flow `key`, whose first frame came in on `arm`, and remember the choice.

    The cursor moves on also if the flow is refused after that: else a dead backend had every turn.
    """
    if martian(headers, arm, tables):
        return Admission(DROP_MARTIAN)
    if not service.acl.allow(headers.src):
        return Admission(DROP_ACL)
    is_nat = service.service.mode.is_nat
    if service.service.mode.routes and headers.ttl <= 1:
        return Admission(DROP_TTL)
    if not opens(headers) and not _finds_again(service):
        return Admission(DROP_NO_FLOW)
    choice = recall(headers.src, service, tables)
    pick = choice.pick if choice and choice.pick else None
    if pick is None and not opens(headers):
        pick = of_owner(service, key)
    if pick is None:
        pick = _scheduled(key, service, tables)
    if pick is None:
        return Admission(DROP_NO_BACKEND)
    backend = tables.policy.backends[pick.backend]
    assert backend is not None, "a ring names backends of its policy"
    if tables.next_hops.macs[backend.next_hop] is None:
        return Admission(DROP_NEXT_HOP_UNKNOWN, pick=pick)
    if not remembers(service, pick):
        return Admission(FORWARD, -1, pick)

    refused = tables.counts.take(service.number, service.service.limits, headers.src, tables.now)
    if refused != FORWARD:
        return Admission(refused, pick=pick)
    source = None
    if service.pool:
        verdict, flow, source = _insert_from_pool(headers, key, arm, service.pool, backend, tables)
    elif is_nat:
        verdict, flow = _insert_pair(headers, key, arm, (headers.src, headers.sport), backend, tables)
    else:
        verdict, flow = _insert_one(headers, key, arm, backend, tables)
    if flow < 0:
        tables.counts.end(service.number, headers.src)
    if flow == TAKEN:  # only in a table that others write too: one of them was faster, and has counted it
        return Admission(FORWARD, tables.flows.find(key), pick)
    if verdict == DROP_FLOWS_FULL and service.service.full is Full.STATELESS:
        return Admission(FORWARD, -1, pick)
    if verdict == FORWARD:
        tables.backends[backend.number].flows += 1
        if choice and not remember(choice, backend.number, service.number, tables):
            return _again(headers, key, arm, service, tables, flow)
    return Admission(verdict, flow, pick, source)


def _finds_again(service: ServiceEntry) -> bool:
    """In mid-stream a hash still finds the backend; NAT's state and a cursor's place are lost."""
    return not service.service.mode.is_nat and service.ring.rule in HASHES


def without_state(client: bytes, key: bytes, service: ServiceEntry, tables: Tables) -> Pick | None:
    """Where a frame goes that opens no flow, of a flow `key` without an entry; None: nothing tells.

    As admit() would choose, but nothing is counted or remembered. `client`: 4 or 16 bytes.
    """
    if not _finds_again(service) or not service.acl.allow(client):
        return None
    choice = recall(client, service, tables)
    return choice.pick if choice and choice.pick else of_owner(service, key) or service.ring.pick(key, 0)


def _scheduled(key: bytes, service: ServiceEntry, tables: Tables) -> Pick | None:
    """What the service's scheduler picks; its cursor has moved on."""
    cursor = tables.cursors[service.number]
    pick = service.ring.pick(key, cursor, tables.load)
    if pick and pick.rule not in HASHES:
        tables.cursors[service.number] = service.ring.after(pick, cursor)
    return pick


def _again(
    headers: Headers, key: bytes, arm: int, service: ServiceEntry, tables: Tables, flow: int
) -> Admission:
    """Another thread made a choice for the client meanwhile: the flow, not sent yet, follows that."""
    tables.free(flow, tables.flows.read(flow).lock)
    return admit(headers, key, arm, service, tables)


def martian(headers: Headers, arm: int, tables: Tables) -> str | None:
    """Why no client can have this source (RFC 1812, section 5.3.7; RFC 4291, section 2); None: one can.

    A reply would go to a group of machines, to nobody, or to ourselves: see
    below; our own addresses, VIPs and SNAT addresses; a group MAC (IEEE 802.3, clause 3.2.3),
    none, our own.
    """
    src, mac = headers.src, headers.src_mac
    if reason := _of_nobody_v4(src[0]) if len(src) == 4 else _of_nobody_v6(src):
        return reason
    if src in tables.policy.vips:
        return IS_VIP
    if src in tables.policy.snat:
        return IS_SNAT
    if src in tables.local:
        return IS_LOCAL
    if not is_unicast(mac):
        return MAC_OF_NONE
    return OWN_MAC if mac == tables.arms[arm].mac else None


def _of_nobody_v4(first: int) -> str | None:
    """By the first byte: the network of 0.0.0.0, loopback, multicast (class D) and class E."""
    if first == 0:
        return OF_NO_NETWORK
    if first == _LOOPBACK:
        return LOOPBACK
    return OF_A_GROUP if first >= _CLASS_D else None


def _of_nobody_v6(src: bytes) -> str | None:
    """Unspecified, loopback, link-local (fe80::/10), multicast (ff00::/8)."""
    if src == _NO_ADDRESS_V6:
        return UNSPECIFIED
    if src == _LOOPBACK_V6:
        return LOOPBACK
    if src[0] == 0xFF:
        return OF_A_GROUP
    return OF_ONE_LINK if src[0] == 0xFE and src[1] & 0xC0 == 0x80 else None


def opens(headers: Headers) -> bool:
    """Whether this frame may be the first of its flow: any but a TCP segment that is not simply a SYN."""
    return headers.protocol != ipv4.TCP or headers.flags & _OPENING == tcp.SYN


def _insert_one(
    headers: Headers, key: bytes, arm: int, backend: BackendEntry, tables: Tables
) -> tuple[Verdict, int]:
    """DSR: the client's direction is all that passes here."""
    if not has_room(tables, key, 1, backend.service):
        return DROP_FLOWS_FULL, -1
    state, place = first(headers.protocol), tables.take_place()
    flow = tables.flows.insert(key, state, backend.service, backend.number, 0, tables.now, place)
    if flow < 0:
        tables.drop_place(place)
    return (FORWARD, flow) if flow >= 0 or flow == TAKEN else (DROP_FLOWS_FULL, -1)


def _insert_pair(
    headers: Headers, key: bytes, arm: int, source: tuple[bytes, int], backend: BackendEntry, tables: Tables
) -> tuple[Verdict, int]:
    """NAT: an entry for each direction, each naming the other; replies go where this frame came from.

    `source` is what the backend sees: the client, or an address and port of a SNAT pool.
    """
    flows, state, now = tables.flows, first(headers.protocol), tables.now
    port = backend.backend.port or headers.dport
    reply_key = flow_key(backend.backend.address, port, *source, headers.protocol)
    if flows.find(reply_key) >= 0:  # this flow's own, if another thread has just made it
        return (FORWARD, TAKEN) if flows.find(key) >= 0 else (DROP_REPLY_KEY_TAKEN, -1)
    if not has_room(tables, key, 2, backend.service):
        return DROP_FLOWS_FULL, -1
    place = tables.take_place()
    client_hop = tables.next_hops.learn(arm, headers.src_mac)
    if not client_hop:
        tables.drop_place(place)
        return DROP_NEXT_HOPS_FULL, -1
    flow = flows.insert_pair(key, reply_key, state, backend.service, backend.number, client_hop, now, place)
    if flow < 0:  # the table is chosen so that this does not happen below its capacity
        tables.drop_place(place)
        tables.next_hops.release(client_hop)
        if flow == TAKEN:
            return FORWARD, flow
        return DROP_REPLY_KEY_TAKEN if flow == REPLY_TAKEN else DROP_FLOWS_FULL, -1
    return FORWARD, flow


def _insert_from_pool(
    headers: Headers, key: bytes, arm: int, pool: Pool, backend: BackendEntry, tables: Tables
) -> tuple[Verdict, int, Source | None]:
    """fullnat: the same with the first source of the flow's walk through the pool that nobody has."""
    ports, place = (
        tables.ports,
        (backend.service, backend.backend.address, backend.backend.port or headers.dport),
    )
    for tried, source in enumerate(pool.walk(tables.flows.hash(key)), start=1):
        # Those before that a faster executor has tried too: a port may be free there that nobody told us of.
        if tried > PORT_TRIES and ports.is_exhausted(*place, tables.now):
            break
        verdict, flow = _insert_pair(headers, key, arm, source, backend, tables)
        if verdict != DROP_REPLY_KEY_TAKEN:
            return verdict, flow, Source(*source, tried, pool.size)
    else:
        ports.exhausted(*place)
    ports.refuse(backend.number)
    return DROP_SNAT_EXHAUSTED, -1, None
