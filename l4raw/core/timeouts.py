"""How long a flow may be silent, and was. Must not live here: who expires (states.py)."""

from __future__ import annotations

from typing import Final, NamedTuple

from l4raw.wire.abi import (
    FLOW_AFFINITY,
    FLOW_CLOSING,
    FLOW_ESTABLISHED,
    FLOW_HALF_OPEN,
    FLOW_STATES,
    FLOW_UDP,
    FLOW_UDP_NEW,
)

_WRAP: Final = 0xFFFF_FFFF
_AHEAD: Final = 1 << 31


def elapsed(now: int, since: int) -> int:
    """Milliseconds from `since` to `now`, both modulo 2^32; 0 if another thread has read a later clock."""
    gone = now - since & _WRAP
    return gone if gone < _AHEAD else 0


class Timeouts(NamedTuple):
    """In ms."""

    half_open: int = 60_000
    established: int = 900_000
    closing: int = 120_000
    udp: int = 300_000

    def by_state(self, affinity: int) -> tuple[int, ...]:
        """The same by state of an entry; `affinity`: that of a client's choice, in ms."""
        limits = [0] * FLOW_STATES
        limits[FLOW_HALF_OPEN] = self.half_open
        limits[FLOW_ESTABLISHED] = self.established
        limits[FLOW_CLOSING] = self.closing
        limits[FLOW_UDP_NEW] = limits[FLOW_UDP] = self.udp
        limits[FLOW_AFFINITY] = affinity
        return tuple(limits)
