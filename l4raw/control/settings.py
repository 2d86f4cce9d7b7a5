"""What an operator sets beside the services: plain values, frozen.

Lives here: `Config` and what it is made of, for those who run a balancer
without a file (a demo, a test). How a file becomes one is in config.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from l4raw.control.checks import Check
from l4raw.core.model import Service
from l4raw.core.timeouts import Timeouts


@dataclass(frozen=True, slots=True)
class LbConfig:
    """The table [lb]."""

    interfaces: tuple[str, ...]
    """One: one-arm. Two: clients on the first, backends on the second."""
    dataplane: str = "auto"
    """`auto` or `raw`."""
    flow_memory: int = 64 << 20
    """Bytes for the flow table."""
    ring_seed: str | None = None
    """Balancers with the same text choose alike; None: one is generated."""
    client_next_hop: str = "learned"


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that a balancer is asked to do."""

    lb: LbConfig
    services: tuple[Service, ...]
    timeouts: Mapping[str, Timeouts] = field(default_factory=dict)
    """By the name of the service; one that is absent has the defaults."""
    checks: Mapping[str, Check] = field(default_factory=dict)
    """Likewise; what the defaults are depends on the service: see checks.py."""
