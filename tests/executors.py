"""What steers: the Python reference and the C helper, behind the same two calls.

Lives here: `run` a frame and compare what it left. Must not live here: the
kernel path, which needs root (kernel.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Self

from l4raw.core.admit import opens
from l4raw.core.decision import WAITS, Decision
from l4raw.core.flows import flow_key
from l4raw.core.rewrite import apply, enclosed
from l4raw.core.steer import steer
from l4raw.core.tables import ServiceEntry, Tables
from l4raw.engine import native
from l4raw.engine.base import count
from l4raw.engine.shared import SharedTables
from l4raw.wire import tcp
from l4raw.wire.abi import (
    BURST,
    CSUM_DETECT,
    FLOW_UDP_NEW,
    FORWARD,
    MISS,
    REPLY,
    RULE_LEAST,
    SENT,
    TUNNEL_ROOM,
    Verdict,
)
from l4raw.wire.headers import parse
from l4raw.wire.quoted import is_error
from tests.crafted import build, completed, tuple_of
from tests.tables import OUR_MACS, New, counted, plain, shared, tables_named

MARGIN = b"\xa5" * 64
"""Around every frame: whatever writes there is noticed."""


class Outcome(NamedTuple):
    """A frame's fate, with the bytes that it has afterwards."""

    verdict: int
    frame: bytes
    arm: int
    """-1: not sent."""
    made: tuple[bytes, ...] = ()
    """Frames sent in its place, or as an answer; on the decision's arm."""


class Executor(ABC):
    """Steers frames over tables of its own and counts them."""

    new: ClassVar[New]
    """Makes such tables."""
    name: ClassVar[str]

    def __init__(self, tables: Tables) -> None:
        self.tables = tables

    @classmethod
    def named(cls, name: str) -> Self:
        """One over the tables that a vector names."""
        return cls(tables_named(name, cls.new))

    @abstractmethod
    def run(self, frame: bytes, arm: int, csum_start: int, segment: int = 0) -> Outcome:
        """Steer one frame, rewrite it if it is sent, and count it."""

    def run_all(self, frames: Sequence[tuple[bytes, int, int]]) -> list[Outcome]:
        """Steer several, one after the other."""
        return [self.run(*each) for each in frames]


class Reference(Executor):
    """`l4raw.core.steer`."""

    new = staticmethod(plain)
    name = "the reference"

    def run(self, frame: bytes, arm: int, csum_start: int, segment: int = 0) -> Outcome:
        """As `forward` does, without an engine."""
        buffer = bytearray(MARGIN + frame + MARGIN)
        with memoryview(buffer)[len(MARGIN) : len(MARGIN) + len(frame)] as data:
            decision = steer(data, arm, csum_start, self.tables, segment)
            if decision.forwarded and not decision.made:
                apply(data, decision.edits)
            if decision.verdict != WAITS:
                count(self.tables, decision, decision.verdict, len(frame))
            for waited, its in decision.released:
                count(self.tables, its, its.verdict, len(waited))
            outcome = _outcome(decision.verdict, buffer, decision.arm, MARGIN, MARGIN)
            if decision.outer and not decision.made:
                outcome = outcome._replace(frame=enclosed(data, decision.outer))
        return outcome._replace(made=decision.made + sent_at_last(decision))


class OverShared(Reference):
    """The same over the helper's tables: what a miss meets."""

    new = staticmethod(shared)
    name = "the reference over shared tables"


class Helper(Executor):
    """`l4_steer`, and the reference for its misses."""

    new = staticmethod(shared)
    name = "l4_steer"

    def __init__(self, tables: Tables, module: Any = native, margin: bytes | None = None) -> None:
        """`module` has `ffi` and `lib`, if not those installed; `margin` is what is around a frame."""
        super().__init__(tables)
        assert isinstance(tables, SharedTables)
        self._ffi, self._lib = module.ffi, module.lib
        self._own = tables.view(1)
        self._view = self._ffi.cast("struct l4_tables *", self._own)
        self._results = self._ffi.new("struct l4_result[]", BURST)
        self._margin = MARGIN if margin is None else margin
        self._front = self._margin or MARGIN[:TUNNEL_ROOM]
        """In front: a tunnel's headers need room there."""

    def _buffer(self, frame: bytes) -> tuple[Any, Any]:
        """Memory that ends with the margin, and a pointer to the frame in it."""
        content = self._front + frame + self._margin
        buffer = self._ffi.new("uint8_t[]", len(content))
        self._ffi.memmove(buffer, content, len(content))
        return buffer, buffer + len(self._front)

    def _describe(self, descriptor: Any, frame: bytes, arm: int, csum_start: int) -> Any:
        """Fill a `struct l4_frame`; returns the memory."""
        buffer, descriptor.data = self._buffer(frame)
        descriptor.size, descriptor.arm, descriptor.csum_start = len(frame), arm, csum_start
        descriptor.room = len(self._front)
        return buffer

    def run(self, frame: bytes, arm: int, csum_start: int, segment: int = 0) -> Outcome:
        """One call, and the counters."""
        descriptor = self._ffi.new("struct l4_frame *")
        buffer = self._describe(descriptor, frame, arm, csum_start)
        self._lib.l4_steer(self._view, descriptor, self._results)
        return self._done(self._results[0], frame, buffer, arm, csum_start, segment)

    def _done(
        self, result: Any, frame: bytes, buffer: Any, arm: int, csum_start: int, segment: int = 0
    ) -> Outcome:
        self._lib.l4_count(self._view, self._ffi.addressof(result), len(frame))
        if result.verdict == MISS:
            left = bytes(self._ffi.buffer(buffer))
            assert left == self._front + frame + self._margin, "a miss is not edited"
            if csum_start == CSUM_DETECT:  # a queue completes what it hands over
                frame, csum_start = completed(frame), 0
            return Reference(self.tables).run(frame, arm, csum_start, segment)
        front = self._front[: len(self._front) - result.push]
        return _outcome(result.verdict, bytes(self._ffi.buffer(buffer)), result.arm, front, self._margin)


class Bursts(Helper):
    """`l4_steer_burst`."""

    name = "l4_steer_burst"

    def run_all(self, frames: Sequence[tuple[bytes, int, int]]) -> list[Outcome]:
        """All of them, at most BURST; with one call, if Python has none of them to decide."""
        outcomes: list[Outcome] = []
        while len(outcomes) < len(frames):
            outcomes += self._burst(self._until_a_miss(frames[len(outcomes) :]))
        return outcomes

    def _until_a_miss(self, frames: Sequence[tuple[bytes, int, int]]) -> Sequence[tuple[bytes, int, int]]:
        """Those up to the first that is left to Python and may change tables, which the next ones are to see,
        or reads what they may change."""
        policy, flows, opened = self.tables.policy, self.tables.flows, False
        for place, (frame, _, _) in enumerate(frames, start=1):
            headers = parse(frame)
            if isinstance(headers, int):
                continue
            if headers.fragment or is_error(headers):
                return frames[:place]
            if not headers.l4:
                continue
            paths = [mtu for mtu, _ in self.tables.paths.values()]
            if headers.length + TUNNEL_ROOM > min([arm.mtu for arm in self.tables.arms] + paths):
                return frames[:place]
            src, dst, protocol = headers.src, headers.dst, headers.protocol
            service = policy.find(dst, headers.dport, protocol)
            key = flow_key(src, headers.sport, dst, headers.dport, protocol)
            answered = service and service.service.mode.is_nat and not opens(headers)
            # A new flow may have evicted the one that is known, or begins in its place.
            known = flows.look_up(key)
            is_new = known is None or known.entry.state == FLOW_UDP_NEW
            opened = opened or is_new or bool(headers.flags & tcp.SYN)
            if service and (answered or self._may_miss(service)) and opened:
                return frames[:place]
        return frames

    def _may_miss(self, service: ServiceEntry) -> bool:
        """Whether a new flow of this service may be one that no look-up answers."""
        flows = self.tables.flows
        may_fill = flows.used + 2 * BURST > flows.capacity
        return bool(service.ring.rule == RULE_LEAST or service.pool or (flows.resting and may_fill))

    def _burst(self, frames: Sequence[tuple[bytes, int, int]]) -> list[Outcome]:
        descriptors = self._ffi.new("struct l4_frame[]", BURST)
        buffers = []
        for descriptor, (frame, arm, csum_start) in zip(descriptors, frames, strict=False):
            buffers.append(self._describe(descriptor, frame, arm, csum_start))
        self._lib.l4_steer_burst(self._view, descriptors, len(frames), self._results)
        return [
            self._done(result, frame, buffer, arm, csum_start)
            for result, buffer, (frame, arm, csum_start) in zip(self._results, buffers, frames, strict=False)
        ]

    def run(self, frame: bytes, arm: int, csum_start: int, segment: int = 0) -> Outcome:
        """A burst of one. No queue gets a super-frame."""
        return (
            super().run(frame, arm, csum_start, segment)
            if segment
            else self.run_all([(frame, arm, csum_start)])[0]
        )


def connect(executor: Executor, syn: bytes) -> Outcome:
    """What became of a SYN; if it was forwarded, the flow is established then."""
    outcome, asked = executor.run(syn, 0, 0), tuple_of(syn)
    if outcome.verdict == FORWARD:
        of = tuple_of(outcome.frame)
        assert of is not None and asked is not None
        if of.dst != asked.dst:  # the answer passes here
            answer = build(of.flipped(), (OUR_MACS[1], outcome.frame[:6]), tcp.SYN | tcp.ACK)
            assert executor.run(bytes(answer), 1, 0).verdict == REPLY
        assert executor.run(bytes(build(asked, (syn[:6], syn[6:12]))), 0, 0).verdict == FORWARD
    return outcome


def sent_at_last(decision: Decision) -> tuple[bytes, ...]:
    """What goes out of the frames that had waited for this one."""
    sent: list[bytes] = []
    for waited, its in decision.released:
        if its.forwarded and not its.made:
            apply(waited, its.edits)
            sent.append(enclosed(waited, its.outer))
        sent += its.made
    return tuple(sent)


def _outcome(verdict: int, buffer: bytes | bytearray, arm: int, front: bytes, back: bytes) -> Outcome:
    assert buffer.startswith(front) and buffer.endswith(back), "written beyond the frame"
    frame = bytes(buffer[len(front) : len(buffer) - len(back)])
    return Outcome(verdict, frame, arm if Verdict(verdict) < SENT else -1)


def state(tables: Tables) -> dict[str, object]:
    """Everything that frames and time have left in the tables."""
    hops = tables.next_hops
    numbers = range(len(hops.macs))
    if isinstance(tables, SharedTables):
        traffic = [tables.total_traffic(i) for i in range(len(tables.backends))]
        verdicts = tables.total_verdicts()
    else:
        traffic, verdicts = list(tables.backends), list(tables.verdicts)
    current = [tables.current_flows(i) for i in range(len(tables.backends))]
    assert current == counted(tables), "flows that lc and wlc would compare"
    for entry in filter(None, tables.policy.by_number):
        members = [each.number for each in tables.policy.backends if each and each.service == entry.number]
        assert tables.counts.flows(entry.number) == sum(current[each] for each in members), (
            "limits count them"
        )
    return {
        "flows": bytes(tables.flows.buffer),
        "used": len(tables.flows),
        "resting": tables.flows.resting,
        "hops": [(hops.macs[i], hops.arms[i], hops.references(i)) for i in numbers],
        "hops in use": len(hops),
        "usage": bytes(tables.counts.usage[: 16 * len(tables.policy.by_number)]),
        "clients": bytes(tables.counts.clients),
        "cursors": [tables.cursors[i] for i in range(len(tables.policy.by_number))],
        "verdicts": verdicts,
        "events": tables.total_events(),
        "traffic": traffic,
        "now": tables.now,
        "paths": dict(tables.paths),
    }
