"""What a known flow becomes when its client begins anew: the same addresses and ports for another connection.

A SYN ends the flow, and begins another one in its place, where that hurts nobody (RFC 6191, for the same
question to a host in TIME-WAIT):

    closing, NAT        both directions are: whoever said so knew their numbers.
    half-open           its backend takes no new flows, and nobody has answered: the client would be asked
                        to wait for a backend that is down. Under NAT an answer is seen, or not; so a
                        datagram does likewise. Under DSR it is not: the client has asked STREAM_MS ago.

Else it goes on to the same backend, which knows what the SYN is to it (RFC 5961, section 4), and tells by its
answer. Under DSR anyone can have said that a connection is over which lives; so there it is the backend's
too, and to which one it goes is all that a new flow would decide. But of a closing flow it is asked what a
new one is asked: else one flow would be any number of connections for one of `limits`.
"""

from __future__ import annotations

from l4raw.core.admit import martian, opens
from l4raw.core.entry import Entry, Known
from l4raw.core.resting import end
from l4raw.core.states import is_half_open
from l4raw.core.tables import ServiceEntry, Tables
from l4raw.core.timeouts import elapsed
from l4raw.wire.abi import DROP_ACL, FLOW_CLOSING, FLOW_HALF_OPEN, STREAM_MS, Verdict
from l4raw.wire.headers import Headers


def reuse(known: Known, headers: Headers, arm: int, service: ServiceEntry, tables: Tables) -> Known | None:
    """The flow, if it goes on; None: it was freed, and a new one begins.

    `headers` are those of a client's frame to `service`. One that may open none, or for which there is no
    backend, ends none; what `limits` say is asked of the new flow.
    """
    if not opens(headers) or not _is_over(tables, known.entry, service):
        return known
    if not service.ring.members or not service.acl.allow(headers.src) or martian(headers, arm, tables):
        return known
    if service.service.mode.routes and headers.ttl <= 1:
        return known
    return None if end(tables, known.flow, known.entry) else known


def _is_over(tables: Tables, entry: Entry, service: ServiceEntry) -> bool:
    """Whether the client's entry is that of a flow which ends here."""
    stays = entry.service == service.number and entry.backend in service.ring.members
    if not entry.peer:
        waits = entry.state == FLOW_HALF_OPEN and elapsed(tables.now, entry.last_seen) >= STREAM_MS
        return waits and not stays
    peer = tables.flows.read(entry.peer - 1)
    if entry.state == FLOW_CLOSING:
        return peer.state == FLOW_CLOSING
    # In its entry a backend has left a state if it has answered a datagram, and a number if it was a SYN.
    return not stays and is_half_open(entry.state) and is_half_open(peer.state) and not peer.sequence


def ask(tables: Tables, headers: Headers, service: ServiceEntry) -> Verdict:
    """What a SYN is asked that goes on on a closing flow: what a new one is, but for how many there are.

    FORWARD, or the verdict that refuses it.
    """
    if not service.acl.allow(headers.src):
        return DROP_ACL
    return tables.counts.ask(service.number, service.service.limits, headers.src, tables.now)
