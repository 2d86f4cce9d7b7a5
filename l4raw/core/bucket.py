"""A token bucket: how often something may be done.

Lives here: the bucket, in the time that the tables are told. Must not live
here: what is limited.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_WRAP: Final = 0xFFFF_FFFF


@dataclass(slots=True)
class Bucket:
    """One token comes back each millisecond, up to `size`; it begins full."""

    size: int = 50
    tokens: int = 50
    last: int = 0
    """When tokens were added, in ms modulo 2^32."""

    def take(self, now: int) -> bool:
        """Take a token at the time `now`, in ms modulo 2^32; False: there is none."""
        self.tokens = min(self.size, self.tokens + (now - self.last & _WRAP))
        self.last = now
        if not self.tokens:
            return False
        self.tokens -= 1
        return True
