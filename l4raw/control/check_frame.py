"""The frame in which a segment of a check leaves: as a client's one would leave for that backend.

dsr-l2 sends it at the backend's MAC address. Where a service has tunnels, it is enclosed by the code that
encloses clients' packets, so that a backend which does not take those out does not answer a check either.
Lives here: that. Pure. Must not live here: when a segment is sent, and what its answer means (vip_probe.py).
"""

from __future__ import annotations

from l4raw.control.checks import Target
from l4raw.core import rewrite
from l4raw.core.decision import Decision
from l4raw.core.tunnel import through
from l4raw.wire.abi import FORWARD
from l4raw.wire.headers import Headers, parse
from l4raw.wire.segment import Segment, build


def frame_of(segment: Segment, target: Target, *, src: bytes, dst: bytes) -> bytes:
    """The whole frame; `src` and `dst` are MAC addresses."""
    frame = build(segment, src=src, dst=dst)
    if target.tunnel is None:
        return frame
    headers = parse(frame)
    assert isinstance(headers, Headers), "a segment of our own making"
    decision = through(frame, Decision(FORWARD, headers, *target.tunnel), False, 0)
    inside = bytearray(frame)
    rewrite.apply(inside, decision.edits)
    return rewrite.enclosed(inside, decision.outer)
