"""What a known flow becomes when its client begins anew: the same addresses and ports for another connection.

A SYN ends the flow, and begins another one in its place, where that hurts nobody (RFC 6191, for the same
question to a host in TIME-WAIT):

    half-open           its backend takes no new flows. The client asks again, so nobody has answered, and
                        it would be asked to wait for a backend that is down. Likewise a datagram, under
                        NAT, where it is seen that there was no answer.
    closing, NAT        both directions are: whoever said so knew their numbers. Or the client's is, and its
                        backend takes no new flows and is silent: it will not say that it is over.
    closing, DSR        its backend takes no new flows of this service.

Else it goes on to the same backend, which knows what the SYN is to it (RFC 5961, section 4), and tells by its
answer. Under DSR anyone can have said that a connection is over which lives; so there it is the backend's
too, and to which one it goes is all that a new flow would decide. But of a closing flow it is asked what a
new one is asked: else one flow would be any number of connections for one of `limits`.
"""

from __future__ import annotations

from l4raw.core.admit import martian, opens
from l4raw.core.entry import Entry, Known
from l4raw.core.states import is_half_open
from l4raw.core.tables import ServiceEntry, Tables
from l4raw.core.timeouts import elapsed
from l4raw.wire import ipv4
from l4raw.wire.abi import DROP_ACL, FLOW_CLOSING, FORWARD, STREAM_MS, Verdict
from l4raw.wire.headers import Headers


def reuse(
    known: Known, headers: Headers, arm: int, service: ServiceEntry, tables: Tables
) -> Known | Verdict | None:
    """The flow, if it goes on; None: it was freed, and a new one begins; or the verdict that refuses this.

    `headers` are those of a client's frame to `service`. One that would be refused as a new flow ends none.
    """
    if not opens(headers):
        return known
    refused = martian(headers, arm, tables) or (service.service.mode.routes and headers.ttl <= 1)
    if not refused and _is_over(tables, known.entry, headers, service):
        return None if tables.free(known.flow, known.entry.lock) else known
    if known.entry.state != FLOW_CLOSING:
        return known
    verdict = _asked(tables, headers, service)
    return known if verdict == FORWARD else verdict


def _is_over(tables: Tables, entry: Entry, headers: Headers, service: ServiceEntry) -> bool:
    """Whether the client's entry is that of a flow which ends here."""
    stays = entry.service == service.number and entry.backend in service.ring.members
    if not entry.peer:
        return not stays and (entry.state == FLOW_CLOSING or _waits(entry, headers))
    peer = tables.flows.read(entry.peer - 1)
    if entry.state == FLOW_CLOSING:
        if peer.state == FLOW_CLOSING:
            return True
        return not stays and elapsed(tables.now, peer.last_seen) >= STREAM_MS
    return not stays and is_half_open(entry.state) and is_half_open(peer.state)


def _waits(entry: Entry, headers: Headers) -> bool:
    """Whether a client, of whom alone is seen, asks again. A further datagram need not be the same one."""
    return is_half_open(entry.state) and headers.protocol == ipv4.TCP


def _asked(tables: Tables, headers: Headers, service: ServiceEntry) -> Verdict:
    """What a new flow is asked, but for how many there are: this one is counted."""
    if not service.acl.allow(headers.src):
        return DROP_ACL
    return tables.counts.ask(service.number, service.service.limits, headers.src, tables.now)
