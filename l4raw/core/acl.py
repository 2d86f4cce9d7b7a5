"""An access list as a table: sorted ranges of addresses, so that the longest prefix is one binary search.

Prefixes lie in each other or apart, never across. So each address from one
range's start to the next one's has the same longest prefix, and what is left
of the list are the places where the answer changes: at most two a prefix.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from l4raw.core.hashing import mapped
from l4raw.core.model import Acl

_MAPPED_BITS = 96
"""An IPv4 prefix is so much longer as one of IPv4-mapped addresses."""


class Ranges(NamedTuple):
    """Where a range begins, as a 16-byte address, and whether who is in it may open a flow."""

    starts: tuple[bytes, ...]
    allowed: tuple[bool, ...]

    def allow(self, address: bytes) -> bool:
        """Whether this address, of 4 or 16 bytes, may open a flow."""
        return not self.starts or self.allowed[bisect_right(self.starts, mapped(address)) - 1]


EVERYBODY = Ranges((), ())
"""No list: no look-up."""


def compile_acl(acl: Acl) -> Ranges:
    """The ranges of a list; of a prefix that is both allowed and denied the second counts."""
    if not acl.allow and not acl.deny:
        return EVERYBODY
    rules = {_numbers(prefix): True for prefix in acl.allow}
    rules |= {_numbers(prefix): False for prefix in acl.deny}
    default, end = not acl.allow, 1 << 128
    changes: list[tuple[int, bool]] = [(0, default)]
    inside = [(end, default)]

    def leave(until: int) -> None:
        while inside[-1][0] <= until:
            last, _ = inside.pop()
            _change(changes, last, inside[-1][1])

    # Outer prefixes come before those in them, as they begin no later and are longer.
    for (start, size), verdict in sorted(rules.items(), key=lambda rule: (rule[0][0], -rule[0][1])):
        leave(start)
        _change(changes, start, verdict)
        inside.append((start + size, verdict))
    leave(end - 1)
    merged = [each for i, each in enumerate(changes) if not i or each[1] != changes[i - 1][1]]
    return Ranges(tuple(start.to_bytes(16) for start, _ in merged), tuple(verdict for _, verdict in merged))


def _numbers(prefix: tuple[bytes, int]) -> tuple[int, int]:
    """First address and size of a prefix, of IPv4 or IPv6."""
    address, length = prefix
    bits = length + (_MAPPED_BITS if len(address) == 4 else 0)
    size = 1 << 128 - bits
    return int.from_bytes(mapped(address)) // size * size, size


def _change(changes: list[tuple[int, bool]], start: int, verdict: bool) -> None:
    """From `start` on it is `verdict`, whatever was said of the same place before."""
    if changes[-1][0] == start:
        changes.pop()
    changes.append((start, verdict))
