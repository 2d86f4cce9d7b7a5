"""How much memory a flow table takes, and how many flows it has room for.

See flows.py for what lies where.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from l4raw.core.entry import SIZE
from l4raw.core.share import PLACE, places_for
from l4raw.wire.abi import (
    CAPACITY_PERCENT,
    OVERFLOW_SHARE,
    OVERFLOW_SLOTS,
    SLOTS,
)

_LINE: Final = 64


def lines(size: int) -> int:
    """Bytes of the whole lines that so many bytes take."""
    return -(-size // _LINE) * _LINE


def places_at(buckets: int) -> int:
    """Bytes of the marks and the tags, which the places for half-open flows follow."""
    return lines(buckets) + lines(buckets * SLOTS)


def overflow_in(buckets: int) -> int:
    """Entries of the overflow area: two blocks or more."""
    blocks = max(2, -(-buckets * SLOTS // (OVERFLOW_SHARE * OVERFLOW_SLOTS)))
    return blocks * OVERFLOW_SLOTS


def capacity_of(buckets: int) -> int:
    """Entries that always find room, of a table with so many buckets."""
    return buckets * SLOTS * CAPACITY_PERCENT // 100


def bytes_for(buckets: int) -> int:
    """Memory of a table with so many buckets, in bytes."""
    entries = (buckets * SLOTS + overflow_in(buckets)) * SIZE
    return entries + places_at(buckets) + lines(places_for(capacity_of(buckets)) * PLACE.size)


def buckets_in(memory: int) -> int:
    """The most buckets that fit in `memory` bytes; raises `ValueError` if that is none."""
    # At most so many, as each has entries, a part of the overflow area, a mark and tags. Places are extra.
    most = memory // (SLOTS * SIZE + SLOTS * SIZE // OVERFLOW_SHARE + 1 + SLOTS) + 1
    buckets = bisect_right(range(most + 1), memory, lo=1, key=bytes_for) - 1
    if buckets <= 0:
        raise ValueError(f"{memory} bytes hold no flow table")
    return buckets
