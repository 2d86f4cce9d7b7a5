"""The shape of what a service may be limited by: `acl`, `mss_clamp`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from l4raw.control import values
from l4raw.control.shape_table import Table, text

MSS_RANGE = (536, 65495)
"""RFC 9293, section 3.7.1: the default of IPv4; and what the longest IPv4 datagram holds."""

_Prefixes = list[Annotated[tuple[bytes, int], text(values.prefix)]]


class Acl(Table):
    """`acl`: which clients may open flows."""

    allow: _Prefixes = Field(default_factory=list)
    deny: _Prefixes = Field(default_factory=list)
