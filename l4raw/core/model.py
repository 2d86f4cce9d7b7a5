"""What an operator configures: services and their backends.

Lives here: the values, frozen. Must not live here: how a file is read
(control/config.py), how a backend is picked (ring.py), what a frame does
with them (steer.py).

Addresses are 4 or 16 bytes in network order; ports and indices are host integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import Final


def end(address: bytes, port: int) -> str:
    """`10.77.0.100:80`, or `[2001:db8::100]:80` (RFC 3986, section 3.2.2)."""
    text = str(ip_address(address))
    return f"{text}:{port}" if len(address) == 4 else f"[{text}]:{port}"


class Mode(StrEnum):
    """How a frame reaches the backend."""

    DSR_L2 = "dsr-l2"
    """Rewrite the two MAC addresses; the backend owns the VIP and answers the client itself."""
    DSR_IPIP = "dsr-ipip"
    """Put an IP header in front: RFC 2003, 2473, 4213. The backend takes it off and answers itself."""
    DSR_GUE = "dsr-gue"
    """Put IP, UDP and GUE headers in front (Generic UDP Encapsulation); the rest likewise."""
    NAT = "nat"
    """Rewrite the destination; the backend routes its replies back through the balancer."""
    FULLNAT = "fullnat"
    """Rewrite the source too: the backend answers an address of the balancer, wherever it is."""

    @property
    def is_nat(self) -> bool:
        """Whether both directions pass the balancer, each with an entry of its own."""
        return self in (Mode.NAT, Mode.FULLNAT)

    @property
    def is_tunnel(self) -> bool:
        """Whether the client's packet travels to the backend inside of another one."""
        return self in (Mode.DSR_IPIP, Mode.DSR_GUE)

    @property
    def routes(self) -> bool:
        """Whether a packet is routed on, and so has a TTL of one less: RFC 1812, section 5.3.1."""
        return self is not Mode.DSR_L2


class Scheduler(StrEnum):
    """How a new flow picks its backend."""

    MAGLEV = "maglev"
    """Consistent hash: Eisenbud et al., "Maglev", NSDI'16, section 3.4."""
    RR = "rr"
    """Each in turn."""
    WRR = "wrr"
    """Each in turn, as often as its weight, spread evenly."""
    LC = "lc"
    """The one with the fewest current flows."""
    WLC = "wlc"
    """The one with the fewest current flows for its weight."""
    SH = "sh"
    """Hash of the client's address: a client stays with one backend."""
    HRW = "hrw"
    """Highest random weight: Thaler and Ravishankar, IEEE/ACM Transactions on Networking 6(1), 1998."""
    MODULO = "modulo"
    """Hash modulo the number of backends. For teaching: one backend less moves nearly every flow."""


class Full(StrEnum):
    """What becomes of a new flow while the flow table is full: see full.py."""

    REFUSE_NEW = "refuse-new"
    """It is refused."""
    EVICT_OLDEST = "evict-oldest"
    """One that was silent for long makes room for it."""
    STATELESS = "stateless"
    """It goes where the ring says, and has no entry."""


class Flows(StrEnum):
    """Which flows have an entry: see changes.py."""

    TRACK = "track"
    """Every one."""
    TRACK_CHANGES = "track-changes"
    """Those that began where the ring has changed."""


@dataclass(frozen=True, slots=True)
class Backend:
    """A server behind a service."""

    name: str
    address: bytes
    port: int = 0
    """0: the port that the client asked for."""
    weight: int = 1
    """Share of new flows, relative to the others; 0: none."""

    def __str__(self) -> str:
        return end(self.address, self.port) if self.port else str(ip_address(self.address))


Prefix = tuple[bytes, int]
"""The first address of a network, and the length of its prefix in bits."""


@dataclass(frozen=True, slots=True)
class Acl:
    """Which clients may open flows: of the prefixes that cover an address, the longest one decides."""

    allow: tuple[Prefix, ...] = ()
    """If there are any, others may not."""
    deny: tuple[Prefix, ...] = ()


GUE_PORT: Final = 6080
"""UDP port of Generic UDP Encapsulation (IANA)."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """What the headers in front of a packet say, where the mode has any."""

    source: bytes | None = None
    """The address that they come from; None: the one that the kernel would send from."""
    port: int = GUE_PORT
    """UDP port that the backend takes them off at."""
    ttl: int = 64
    """Of the outermost header; IPv6 calls it the hop limit."""


@dataclass(frozen=True, slots=True)
class Snat:
    """An address and some of its ports, for the source of what fullnat sends to a backend."""

    address: bytes
    first: int
    last: int
    """Both ports included."""

    def __str__(self) -> str:
        return f"{end(self.address, self.first)}-{self.last}"


@dataclass(frozen=True, slots=True)
class Limits:
    """How many flows there may be, and how many new ones a second; 0: any number."""

    flows: int = 0
    new_per_s: int = 0
    client_flows: int = 0
    """Of one client address; likewise the next one."""
    client_new_per_s: int = 0


@dataclass(frozen=True, slots=True)
class Service:
    """A VIP, a port and a protocol, and who answers there."""

    name: str
    vip: bytes
    port: int
    """0: every port of the VIP that no other service names."""
    protocol: int
    """IANA number: 6 TCP, 17 UDP."""
    mode: Mode
    scheduler: Scheduler
    backends: tuple[Backend, ...]
    mss_clamp: int = 0
    """TCP: the largest MSS that passes, in bytes; 0: any."""
    acl: Acl = Acl()
    snat: tuple[Snat, ...] = ()
    """The pool of a fullnat service; no port is in two of them."""
    tunnel: Tunnel = Tunnel()
    limits: Limits = Limits()
    affinity: int = 0
    """For how many ms after its last new flow a client's next one goes to the same backend; 0: none."""
    full: Full = Full.REFUSE_NEW
    flows: Flows = Flows.TRACK

    def __str__(self) -> str:
        protocol = {6: "tcp", 17: "udp"}.get(self.protocol, str(self.protocol))
        return f"{end(self.vip, self.port)}/{protocol}"
