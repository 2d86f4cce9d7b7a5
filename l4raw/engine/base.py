"""What an engine is, and the loop that every one of them serves.

An engine that needs a fifth verb shows that the core leaks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, Self

from l4raw.core.decision import WAITS, Decision
from l4raw.core.rewrite import apply, enclosed
from l4raw.core.steer import steer
from l4raw.core.tables import Tables
from l4raw.wire.abi import DROP_TX, FORWARD, REPLY, SENT, Verdict
from l4raw.wire.headers import Frame


class Received(NamedTuple):
    """A frame as an engine hands it out; valid until the next one is taken."""

    frame: Frame
    """From the destination MAC on; edited in place."""
    arm: int
    csum_start: int
    """Offset in the frame of a transport header whose checksum is partial (CHECKSUM_PARTIAL); 0: none."""
    packet: Frame
    """What the engine itself needs to send it on: the frame and whatever it keeps in front."""
    segment: int = 0
    """Payload bytes of each segment that a super-frame will be cut into; 0: it is an ordinary frame."""


class Engine(Protocol):
    """Moves frames. `open` is the constructor's work done late: it may raise `OSError`."""

    def open(self) -> Self:
        """Start receiving on every arm. Raises `OSError` that names the operation and the interface."""

    def poll(self, timeout: float) -> Iterator[Received]:
        """Frames that have arrived, a burst an arm at most; waits up to `timeout` seconds for the first."""

    def send(self, received: Received, arm: int, made: bytes | None = None) -> bool:
        """Send a received frame, as it is now, on `arm`, or `made`, a whole frame that it led to.

        False: no room, the frame is dropped.

        Never waits: a queue that is full stays full for microseconds, and
        waiting would turn one slow egress into latency for all.
        """

    def close(self) -> None:
        """Stop and give everything back; may be called twice."""

    def statistics(self) -> dict[str, Any]:
        """Counters that only the engine knows, such as frames lost before it could read them."""


Steer = Callable[[Frame, int, int, Tables, int], Decision]


def forward(engine: Engine, tables: Tables, timeout: float, decide: Steer = steer) -> None:
    """Take the frames that have arrived, and for each: decide, edit, send, count.

    An answer that could not be sent changes no verdict.

    `decide` is `steer`, or something that calls it and looks at the result.
    """
    for received in engine.poll(timeout):
        frame, arm, csum_start, _, segment = received
        decision = decide(frame, arm, csum_start, tables, segment)
        if decision.verdict != WAITS:
            count(tables, decision, _carry_out(engine, received, frame, decision), len(frame))
        for waited, its in decision.released:
            count(tables, its, _carry_out(engine, received, waited, its), len(waited))


def _carry_out(engine: Engine, received: Received, frame: Frame, decision: Decision) -> Verdict:
    """Edit and send `frame`, which has been received or had waited. Its verdict, now that it is known."""
    verdict = decision.verdict
    if decision.made:
        sent = [engine.send(received, decision.arm, made) for made in decision.made]
        if verdict < SENT and not all(sent):
            return DROP_TX
    elif verdict < SENT:
        apply(frame, decision.edits)
        is_own = decision.outer or frame is not received.frame
        if not engine.send(received, decision.arm, enclosed(frame, decision.outer) if is_own else None):
            return DROP_TX
    return verdict


def count(tables: Tables, decision: Decision, verdict: Verdict, size: int) -> None:
    """Add one frame of `size` bytes to the counters of its verdict and of its backend, if it has one."""
    tables.verdicts[verdict] += 1
    if verdict >= SENT:
        if decision.backend is not None:
            tables.backends[decision.backend.number].dropped += 1
        return
    if decision.backend is None:  # an answer of our own
        return
    traffic = tables.backends[decision.backend.number]
    if verdict == FORWARD or (verdict != REPLY and decision.to_vip(tables.policy.vips)):
        traffic.packets += 1
        traffic.bytes += size
    else:
        traffic.reply_packets += 1
        traffic.reply_bytes += size
