"""mss_clamp: the largest segment that either end asks for, lowered in the SYNs that pass.

An end says in its SYN how large a segment it can take (RFC 9293, section
3.7.1). Where the path behind the balancer is narrower than the ends know, and
no ICMP message tells them, a lower number there avoids packets that do not
fit. It is never raised, and a SYN without the option stays as it is: it asks
for the default. Under NAT both SYNs pass here, under DSR the client's.
"""

from __future__ import annotations

from l4raw.core.decision import Decision
from l4raw.core.rewrite import Edit
from l4raw.wire import tcp
from l4raw.wire.checksum import update
from l4raw.wire.headers import Frame, Headers


def clamp(frame: bytes | Frame, decision: Decision, partial: bool) -> Decision:
    """The decision about a frame with a SYN, with the edits that lower its MSS, if its service wants that.

    `partial`: its checksum covers the pseudo-header only, and stays.
    """
    headers, service = decision.headers, decision.service
    if not decision.forwarded or headers is None or service is None or not service.service.mss_clamp:
        return decision
    start, most = headers.l4, service.service.mss_clamp
    at = tcp.mss_at(frame[start : start + (frame[start + tcp.OFFSET] >> 4) * 4])
    old = bytes(frame[start + at : start + at + 2])
    if not at or int.from_bytes(old) <= most:
        return decision
    edits = [*decision.edits, ("tcp.mss", start + at, old, most.to_bytes(2))]
    if not partial:
        # In the second half of one word and the first of the next, if options before it are of odd length.
        change = (most - int.from_bytes(old)) << (at & 1) * 8
        edits = _summed(edits, headers, change)
    return decision._replace(edits=tuple(edits))


def _summed(edits: list[Edit], headers: Headers, change: int) -> list[Edit]:
    """The edits, in which the checksum accounts for `change` too: RFC 1624."""
    at, old, new = headers.l4 + tcp.CHECKSUM, headers.l4_checksum.to_bytes(2), headers.l4_checksum.to_bytes(2)
    for each in edits:
        if each[1] == at:
            new = each[3]
    others = [each for each in edits if each[1] != at]
    return [*others, ("tcp.checksum", at, old, update(int.from_bytes(new), change).to_bytes(2))]
