"""What is counted beside the verdicts.

Lives here: the counters of a backend, and the turns of a service. Must not live here: who counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


@dataclass(slots=True)
class Traffic:
    """Counters of one backend in one service. Bytes are those of frames, Ethernet header included."""

    flows: int = 0
    """New flows since the start."""
    packets: int = 0
    """Frames sent to it; a super-frame is one."""
    bytes: int = 0
    reply_packets: int = 0
    reply_bytes: int = 0
    dropped: int = 0
    """Frames that were for it, or from it, and were not sent on. Why: the verdicts say."""
    ended: int = 0
    """Flows that have gone; of the others, there are `flows` less these."""


class Cursors(Protocol):
    """Numbers by index: a list, or something that looks like one."""

    def __getitem__(self, index: int, /) -> int: ...
    def __setitem__(self, index: int, value: int, /) -> None: ...
    def __len__(self) -> int: ...
    def extend(self, values: Iterable[int], /) -> None: ...
