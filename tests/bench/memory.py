"""steer() and apply() on frames in memory: no socket, no system call."""

from __future__ import annotations

import timeit
from typing import NamedTuple

from l4raw.core.flows import FlowTable
from l4raw.core.hashing import hash_key
from l4raw.core.model import Mode, Scheduler
from l4raw.core.rewrite import apply
from l4raw.core.steer import steer
from l4raw.wire.ipv4 import UDP
from tests.bench.generator import FIRST_SPORT, PORT, make_frame
from tests.tables import CLIENT_MAC, OUR_MACS, VIP, backends, ip, make_tables, service

FLOWS = 20_000
REPETITIONS = 7
_MEMORY = 1 << 23
"""Bytes of the flow table: room for both directions of every flow."""


class Calls(NamedTuple):
    """ns a call, the best of `REPETITIONS`, each over `FLOWS` flows."""

    known: float
    new: float
    apply: float


def time_calls(mode: Mode) -> Calls:
    """Time the generator's frames, once with an empty flow table and once with their flows in it."""
    members = backends(port=8080 if mode is Mode.NAT else 0)
    discard = service(mode, Scheduler.MAGLEV, port=PORT, protocol=UDP, members=members)
    tables = make_tables([discard], arms=2)
    ends = CLIENT_MAC, OUR_MACS[0], ip("10.77.0.1"), VIP
    frames = [memoryview(bytearray(make_frame(*ends, FIRST_SPORT + i))) for i in range(FLOWS)]
    buffer, key = bytearray(_MEMORY), hash_key(b"bench")

    def forget() -> None:
        buffer[:] = bytes(_MEMORY)
        tables.flows = FlowTable(buffer, key)

    def best(statement: str, setup: str = "pass") -> float:
        times = timeit.repeat(statement, setup, repeat=REPETITIONS, number=1, globals=names)
        return min(times) / FLOWS * 1e9

    names = {"steer": steer, "apply": apply, "frames": frames, "tables": tables, "forget": forget}
    new = best("for frame in frames: steer(frame, 0, 0, tables)", "forget()")
    decision = steer(frames[0], 0, 0, tables)
    assert decision.forwarded and len(tables.flows) >= FLOWS, "every flow was admitted"
    known = best("for frame in frames: steer(frame, 0, 0, tables)")
    names["edits"] = decision.edits
    return Calls(known, new, best("for frame in frames: apply(frame, edits)"))
