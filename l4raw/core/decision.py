"""Decision: everything that steer() found out about a frame.

The engine obeys it; `explain` and the demo print the same object. Nobody
else parses or schedules.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final, NamedTuple

from l4raw.core.rewrite import Edit
from l4raw.core.ring import Pick
from l4raw.core.snat import Source
from l4raw.core.tables import BackendEntry, ServiceEntry
from l4raw.wire.abi import SENT, VERDICT_NAMES, VERDICT_SENTENCES, Verdict
from l4raw.wire.headers import Headers

WAITS: Final = Verdict(254)
"""Stands where a verdict would: a fragment waits for the first one, and has its verdict then, or when it is
dropped. See fragments.py."""


_WAITS_FOR: Final = "a fragment that waits for the first one, which has the ports"


class Released(NamedTuple):
    """A frame that had waited, and what becomes of it now."""

    frame: bytearray
    decision: Decision


class Decision(NamedTuple):
    """A frame's fate. Only `verdict` is always there."""

    verdict: Verdict
    headers: Headers | None = None
    service: ServiceEntry | None = None
    backend: BackendEntry | None = None
    flow: int = -1
    """Index of the entry in the flow table; -1: none."""
    pick: Pick | None = None
    """How the backend was chosen; None: the flow was known, or there is none."""
    edits: tuple[Edit, ...] = ()
    arm: int = 0
    """The arm to send on, if something is sent."""
    outer: bytes = b""
    """Of a tunnel: headers that go between the Ethernet header and what follows it, after the edits."""
    made: tuple[bytes, ...] = ()
    """Frames of our own making. Those of a frame that is sent go out in its place, as its fragments do;
    those of one that is dropped are an answer to it, as a reset or an ICMP error is."""
    source: Source | None = None
    """How a new fullnat flow got its source; None: it is no such flow."""

    released: tuple[Released, ...] = ()
    """Frames that came earlier and waited for this one; each is carried out and counted by itself."""

    @property
    def forwarded(self) -> bool:
        """Whether the frame goes on, with its edits applied."""
        return self.verdict < SENT

    def to_vip(self, vips: Container[bytes]) -> bool:
        """Whether it was a client's frame: each other one that has a backend came from there."""
        return self.headers is not None and self.headers.dst in vips

    @property
    def name(self) -> str:
        """The verdict's name, as counters and metrics have it."""
        return "waits" if self.verdict == WAITS else VERDICT_NAMES[self.verdict]

    @property
    def reason(self) -> str:
        """The verdict's sentence, from the shared header."""
        return _WAITS_FOR if self.verdict == WAITS else VERDICT_SENTENCES[self.verdict]
