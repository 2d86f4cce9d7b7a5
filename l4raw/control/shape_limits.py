"""The shape of what a service may be limited by: `acl`, `limits`, `mss_clamp`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from l4raw.control import values
from l4raw.control.shape_table import Table, number, text
from l4raw.wire.abi import MOST_PER_S

MSS_RANGE = (536, 65495)
"""RFC 9293, section 3.7.1: the default of IPv4; and what the longest IPv4 datagram holds."""

_Flows = Annotated[int, number(lambda value: values.whole_number(value, 1, 0x7FFF_FFFF))]
_PerSecond = Annotated[int, number(lambda value: values.whole_number(value, 1, MOST_PER_S))]
_Prefixes = list[Annotated[tuple[bytes, int], text(values.prefix)]]


class Acl(Table):
    """`acl`: which clients may open flows."""

    allow: _Prefixes = Field(default_factory=list)
    deny: _Prefixes = Field(default_factory=list)


class Limits(Table):
    """`limits`: how many flows, and how many new ones a second; 0, which cannot be written: any number."""

    flows: _Flows = 0
    new_per_s: _PerSecond = 0
    client_flows: _Flows = 0
    client_new_per_s: _PerSecond = 0
