"""What a backend's answers mean: up or down, by so many alike in a row.

Lives here: counting. Pure: time is an argument. Must not live here: how an
answer is got (probes.py), what becomes of a backend that is down (health.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from l4raw.control.checks import Target


class State(StrEnum):
    """Of a backend."""

    UNKNOWN = "unknown"
    """No check has ended yet. It takes new flows."""
    UP = "up"
    DOWN = "down"
    """It takes no new flows; those that it has stay."""


class Result(NamedTuple):
    """What came of one check."""

    ok: bool | None
    """None: the check itself could not be made, which says nothing of the backend."""
    reason: str = ""
    """Why not, a clause such as "connection refused"."""


class Event(NamedTuple):
    """Something that a person should know."""

    service: str
    backend: str
    state: State
    reason: str
    """Of DOWN, and where the check could not be made."""
    in_row: int
    """Results alike; 0: the check could not be made."""
    needed: int

    def __str__(self) -> str:
        name = f"backend {self.service}/{self.backend}"
        if not self.in_row:
            return f"{name} cannot be checked, and stays {self.state}: {self.reason}"
        of = f"{self.in_row} of {self.needed}"
        return f"{name} {self.state}: {self.reason} ({of})" if self.reason else f"{name} {self.state} ({of})"


@dataclass(slots=True)
class Standing:
    """Where a backend stands. The first result decides alone: nothing is known against it."""

    target: Target
    since: float
    """When it got its state, on the monotonic clock."""
    state: State = State.UNKNOWN
    last: Result | None = None
    reason: str = ""
    """Of the state."""
    ok: bool | None = None
    """What the last check that could be made said, and how many said so one after the other:"""
    in_row: int = 0

    def take(self, result: Result, now: float) -> Event | None:
        """Count a result. What has changed, if something has."""
        last, self.last = self.last, result
        if result.ok is None:
            return self._event(result.reason, 0, 0) if last != result else None
        self.in_row = self.in_row + 1 if self.ok is result.ok else 1
        self.ok = result.ok
        check = self.target.check
        state, needed = (State.UP, check.rise) if result.ok else (State.DOWN, check.fall)
        if self.state is State.UNKNOWN:
            needed = 1
        if state is self.state or self.in_row < needed:
            return None
        was_unknown = self.state is State.UNKNOWN
        self.state, self.since, self.reason = state, now, result.reason
        return None if was_unknown and result.ok else self._event(result.reason, self.in_row, needed)

    def _event(self, reason: str, count: int, needed: int) -> Event:
        return Event(self.target.service, self.target.backend, self.state, reason, count, needed)
