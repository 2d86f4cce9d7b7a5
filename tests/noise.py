"""Frames from a seed: good ones, and every way we know to be bad, for services that exercise each verdict.

Lives here: the world (services, clients) and which frames come in it. How a
frame is made is in tests/crafted.py, what runs them in tests/differential.py.

    arm 0: clients at 10.77.0.x         arm 1: backends at 10.78.0.11 and on
"""

from __future__ import annotations

import functools
from collections import deque
from dataclasses import replace
from random import Random
from typing import NamedTuple, Protocol, TypeVar

from l4raw.core.hashing import HashKey, hash_key
from l4raw.core.model import Acl, Backend, Full, Limits, Mode, Scheduler, Service, Snat, Tunnel
from l4raw.core.mtu import fragments
from l4raw.core.outage import without
from l4raw.core.tables import NO_POLICY, Arm, Policy, Tables, compile_policy
from l4raw.core.timeouts import Timeouts
from l4raw.wire import ipv4, ipv6, tcp
from l4raw.wire.abi import END_WINDOW, FORWARD, OPEN_WINDOW
from tests.crafted import (
    SPOILERS,
    TCP,
    UDP,
    Tuple5,
    build,
    error_about,
    make_partial,
    refix,
    tagged,
    tcp_options,
    tuple_of,
    untagged,
)
from tests.executors import Outcome
from tests.tables import OUR_ADDRESSES, OUR_MACS, SEED, SOURCES, New, done, ip

MEMORY, TIGHT = 1 << 17, 28 << 10
"""About 1,300 flow entries: few flows are evicted; and about 280: it fills."""
HOPS = 17
"""Fewer than backends and clients' MACs together."""
KEY: HashKey = hash_key(b"noise")
_WRAP = 0xFFFF_FFFF
_Flow = TypeVar("_Flow")
RECENT = 10
"""Flows of which most frames are."""

VIPS = tuple(ip(f"10.77.0.{n}") for n in (100, 101, 102))
VIPS_V6 = tuple(ip(f"2001:db8:77::{n}") for n in (100, 101))
CLIENTS = tuple(ip(f"10.77.{n % 3}.{10 + n}") for n in range(24))
CLIENTS_V6 = tuple(ip(f"2001:db8:{77 + n % 3:x}:{n:x}::{10 + n:x}") for n in range(24))
CLIENT_MACS = tuple(bytes([2, 0, 0, 0, 1, n]) for n in range(14))
GOOD_MACS = 8
"""So many of the clients' MACs are used by most frames."""
SNAT = tuple(ip(f"10.78.0.{n}") for n in (201, 202))
SNAT_V6 = tuple(ip(f"2001:db8:78::{n}") for n in (201, 202))
MARTIANS = tuple(
    map(
        ip,
        ("0.1.2.3", "127.0.0.1", "224.0.0.9", "255.255.255.255", "10.77.0.100", "10.77.0.2", "10.78.0.201"),
    )
)
MARTIANS_V6 = (
    *map(ip, ("::", "::1", "ff02::1", "fe80::1", "febf::1", "::ffff:10.77.0.1")),
    ip("2001:db8:77::64"),
    ip("2001:db8:77::2"),
    SNAT_V6[0],
)
STRANGERS = (*map(ip, ("10.78.0.9", "192.0.2.1", "10.77.0.2")), *SNAT)
STRANGERS_V6 = (ip("2001:db8:78::9"), *SNAT_V6)

B = tuple(Backend(f"b{i}", ip(f"10.78.0.{10 + i}")) for i in range(1, 7))
B_V6 = tuple(Backend(f"s{i}", ip(f"2001:db8:78::{10 + i:x}")) for i in range(1, 5))
LOST = Backend("lost", ip("10.78.0.77"))
"""Nobody ever tells its MAC."""

DSR, NAT, FULLNAT = Mode.DSR_L2, Mode.NAT, Mode.FULLNAT
IPIP, GUE = Mode.DSR_IPIP, Mode.DSR_GUE
MAGLEV, RR, MODULO = Scheduler.MAGLEV, Scheduler.RR, Scheduler.MODULO
EVICT, STATELESS = Full.EVICT_OLDEST, Full.STATELESS
WRR, LC, WLC, SH, HRW = Scheduler.WRR, Scheduler.LC, Scheduler.WLC, Scheduler.SH, Scheduler.HRW
QUICK = Timeouts(half_open=3_000, established=60_000, closing=2_000, udp=40_000)
RARE = Limits(new_per_s=3)
BRIEF = QUICK._replace(established=4_000, closing=300, udp=2_500)
"""Whose ports are to rest."""


def at_port(port: int, *backends: Backend) -> tuple[Backend, ...]:
    """The same backends, behind another port."""
    return tuple(Backend(b.name, b.address, port) for b in backends)


def by_weight(*weights: int, port: int = 0) -> tuple[Backend, ...]:
    """The first backends, one with each of these weights."""
    return tuple(replace(b, port=port, weight=w) for b, w in zip(B, weights, strict=False))


OUTER = frozenset((ip("10.78.0.99"), SOURCES[bytes(4)], SOURCES[bytes(16)]))
"""Where tunnels come from."""
SOME = Acl(
    allow=((ip("10.77.0.0"), 16), (ip("10.77.1.16"), 28)),
    deny=((ip("10.77.1.0"), 24), (CLIENTS[12], 32), (ip("10.77.1.22"), 31)),
)
SOME_V6 = Acl(
    allow=((ip("2001:db8::"), 32), (CLIENTS_V6[4], 128)),
    deny=((ip("2001:db8:78::"), 48), (ip("2001:db8:77:6::"), 63)),
)
"""Lists that let some clients in and others not, at every depth."""
FEWER = Acl(deny=tuple((client, 32) for client in CLIENTS[::2]))
FEW = (Snat(SNAT[0], 1000, 1002),)
"""A pool that is exhausted often."""
MANY = (Snat(SNAT[1], 2000, 2000), Snat(SNAT[0], 1002, 1040), Snat(SNAT[1], 65_400, 65_535))
"""Ranges of three sizes, one of which has ports of the other pool."""
FEW_V6 = (Snat(SNAT_V6[0], 1, 2), Snat(SNAT_V6[1], 1, 1))

ODD_FLAGS = (tcp.ACK, tcp.SYN | tcp.ACK, tcp.SYN | tcp.FIN, tcp.SYN | tcp.RST, tcp.RST, tcp.FIN, 0, 0xFF)
"""Of a segment that begins no connection."""
SERVICES = (
    Service("web", VIPS[0], 80, TCP, DSR, MAGLEV, B[:4], mss_clamp=1400, full=STATELESS),
    Service("turns", VIPS[0], 81, TCP, DSR, RR, B[:3], full=EVICT),
    Service("dns", VIPS[0], 53, UDP, DSR, MODULO, B[1:4], full=EVICT),
    Service("idle", VIPS[0], 90, TCP, DSR, RR, (Backend("z", B[0].address, 0, 0),)),
    Service("away", VIPS[0], 91, UDP, DSR, RR, (LOST,)),
    Service("nat", VIPS[1], 80, TCP, NAT, MAGLEV, at_port(8080, *B[:4]), mss_clamp=1220, full=EVICT),
    Service("nat turns", VIPS[1], 81, TCP, NAT, RR, B[:3], full=EVICT),
    Service("nat dns", VIPS[1], 53, UDP, NAT, MODULO, at_port(5300, *B[2:]), full=EVICT),
    Service("one", VIPS[1], 82, TCP, NAT, RR, at_port(9000, B[5])),
    Service("other", VIPS[1], 83, TCP, NAT, RR, at_port(9000, B[5])),
    Service("all", VIPS[2], 0, TCP, NAT, RR, B[:2], full=EVICT),
    Service("all dns", VIPS[2], 0, UDP, DSR, MODULO, B[:2]),
    Service("named", VIPS[2], 8443, TCP, DSR, RR, B[4:]),
    Service("web6", VIPS_V6[0], 80, TCP, DSR, MAGLEV, B_V6[:3]),
    Service("dns6", VIPS_V6[0], 53, UDP, DSR, RR, B_V6),
    Service("nat6", VIPS_V6[1], 80, TCP, NAT, MODULO, at_port(8080, *B_V6[:3]), mss_clamp=536, full=EVICT),
    Service("nat dns6", VIPS_V6[1], 0, UDP, NAT, RR, B_V6[1:], full=EVICT),
    Service("often", VIPS[0], 84, TCP, DSR, WRR, by_weight(3, 0, 1, 2)),
    Service("fewest", VIPS[0], 85, UDP, DSR, LC, by_weight(1, 1, 0, 1, 1)),
    Service("client", VIPS[0], 86, TCP, DSR, SH, B[1:5]),
    Service("rows", VIPS[0], 87, UDP, DSR, HRW, by_weight(1, 2, 3)),
    Service("nat fewest", VIPS[1], 84, TCP, NAT, WLC, by_weight(1, 2, 3, port=8084)),
    Service("4in4", VIPS[0], 88, TCP, IPIP, MAGLEV, B[:4], mss_clamp=1400),
    Service("6in4", VIPS_V6[0], 88, UDP, IPIP, RR, B[1:3], tunnel=Tunnel(ip("10.78.0.99"), ttl=3)),
    Service("any of 4 and 6", VIPS[0], 89, UDP, IPIP, MODULO, (*B[:2], *B_V6[:2]), full=STATELESS),
    Service("6in6", VIPS_V6[0], 89, TCP, IPIP, MODULO, B_V6[:3]),
    Service("gue over 4", VIPS[0], 92, UDP, GUE, SH, B[:3], tunnel=Tunnel(port=19523)),
    Service("gue over 6", VIPS[0], 93, UDP, GUE, MAGLEV, B_V6, tunnel=Tunnel(ttl=255)),
    Service("gue fewest", VIPS[0], 94, TCP, GUE, LC, (*B[:2], *B_V6[1:3])),
    Service("6 in gue", VIPS_V6[0], 92, TCP, GUE, MODULO, (*B[:2], *B_V6[1:3]), mss_clamp=1300),
    Service("6 in gue dns", VIPS_V6[0], 93, UDP, GUE, MODULO, B_V6),
    Service("nat client", VIPS[1], 85, UDP, NAT, SH, by_weight(1, 0, 2, port=8085), full=EVICT),
    Service("list", VIPS[0], 92, UDP, DSR, MODULO, B[:3], acl=SOME),
    Service("nat list", VIPS[1], 86, TCP, NAT, RR, B[:2], mss_clamp=1400, acl=Acl(deny=SOME.deny)),
    Service("few", VIPS[0], 93, UDP, DSR, RR, B[:3], limits=Limits(new_per_s=8)),
    Service("nat few", VIPS[1], 87, TCP, NAT, WLC, B[:2], limits=Limits(client_flows=1, client_new_per_s=2)),
    Service("nat one each", VIPS[1], 88, TCP, NAT, RR, B[:2], limits=Limits(client_flows=1)),
    Service("few6", VIPS_V6[0], 82, UDP, DSR, RR, B_V6[:2], limits=Limits(12, 40, 3, 1)),
    Service("list6", VIPS_V6[0], 81, TCP, DSR, RR, B_V6[:2], mss_clamp=1220, acl=SOME_V6, limits=RARE),
    Service("stays", VIPS[0], 95, TCP, DSR, RR, B[:4], affinity=4_000),
    Service("nat stays", VIPS[1], 88, UDP, NAT, LC, B[:3], affinity=30_000),
    Service("full stays", VIPS[1], 93, TCP, FULLNAT, WRR, by_weight(1, 2, 3), snat=MANY, affinity=9_000),
    Service("stays6", VIPS_V6[0], 83, TCP, DSR, MODULO, B_V6[:3], affinity=6_000),
    Service("full", VIPS[1], 90, TCP, FULLNAT, MAGLEV, at_port(8090, *B[:3]), snat=FEW),
    Service("full too", VIPS[1], 91, TCP, FULLNAT, RR, at_port(8090, *B[1:4]), snat=MANY, full=EVICT),
    Service("full fewest", VIPS[1], 92, UDP, FULLNAT, WLC, by_weight(1, 2, 3, port=8092), snat=MANY),
    Service("full of ports", VIPS[0], 0, UDP, FULLNAT, SH, B[:2], snat=FEW),
    Service("full6", VIPS_V6[1], 90, TCP, FULLNAT, MODULO, at_port(8090, *B_V6[:3]), snat=FEW_V6),
)
_OFTEN = {"one": 9, "other": 9, "nat few": 7, "few6": 3} | {
    "full too": 18,
    "full fewest": 16,
    "full": 3,
    "full6": 3,
}
CHOSEN = tuple(s for s in SERVICES for _ in range(_OFTEN.get(s.name, 1)))
"""New flows go to these: more often to those whose refusals are rare, or whose ports rest."""
_OTHER = (
    {s.name: replace(s, scheduler=WLC) for s in SERVICES if s.name == "often"}
    | {s.name: replace(s, acl=FEWER) for s in SERVICES if s.name in ("other", "nat one each")}
    | {
        s.name: replace(s, backends=(replace(s.backends[0], weight=0), *s.backends[1:]))
        for s in SERVICES
        if s.affinity
    }
)
CHOICES = (
    SERVICES,
    tuple(s for s in SERVICES if s.vip != VIPS[1]),
    tuple(_OTHER.get(s.name, s) for s in SERVICES if s.name not in ("web", "one", "all dns", "full too")),
)
"""What reloads switch between: the second loses a VIP; the third some services, and changes
a scheduler, access lists and weights."""


def ports_for(service: Service) -> int:
    """How many ports each client uses: so few with two services that share a backend that replies collide."""
    return 2 if service.name in ("one", "other") else 400


def make_world(new: New, memory: int = MEMORY) -> Tables:
    """Tables with no policy yet, a flow table of `memory` bytes, and a hop for each backend."""
    arms = tuple(Arm(f"eth{i}", OUR_MACS[i], mtu) for i, mtu in enumerate((1500, 1300)))
    tables = new(arms, KEY, memory, HOPS)
    tables.local = frozenset(map(ip, OUR_ADDRESSES))
    for backend in (*B, LOST, *B_V6):
        tables.next_hops.pin(1, None if backend is LOST else bytes([2, 0, 0, 0, 0, backend.address[-1]]))
    return tables


@functools.cache
def make_policies() -> list[Policy]:
    """One after the other, each keeping the numbers of those before it. Made once: a ring takes a while."""
    hops = {backend.address: (index, 1) for index, backend in enumerate((*B, LOST, *B_V6), start=1)}
    timeouts = {each.name: BRIEF if each.mode is FULLNAT else QUICK for each in SERVICES}
    policies: list[Policy] = []
    for choice in CHOICES:
        before = policies[-1] if policies else NO_POLICY
        policies.append(compile_policy(choice, hops, SEED, timeouts, before, SOURCES))
    # The first once more: it must know the numbers of all.
    policies[0] = compile_policy(CHOICES[0], hops, SEED, timeouts, policies[-1], SOURCES)
    return [*policies, _outage(policies[0], 1), _outage(policies[2], 2)]


def _outage(policy: Policy, count: int) -> Policy:
    """The same without the first backends, which leaves some services none."""
    names = {backend.name for backend in B[:count]}
    down = {each.number for each in policy.backends if each and each.backend.name in names}
    return done(without(policy, down, SEED))


class Given(NamedTuple):
    """A frame, and what is known of it."""

    frame: bytes
    arm: int
    csum_start: int


def is_whole_v4(frame: bytearray) -> bool:
    """Whether it can be cut, and is not so long that nothing else would come for a while."""
    if frame[12:15] != b"\x08\0\x45" or not 60 < len(frame) < 600:
        return False
    return int.from_bytes(frame[16:18]) + 14 == len(frame) and not int.from_bytes(frame[20:22]) & 0x3FFF


def is_outer(frame: bytes) -> bool:
    """Whether a frame to a backend is one of a tunnel."""
    if frame[12:15] == b"\x08\0\x45":
        return frame[26:30] in OUTER
    return frame[12:14] == b"\x86\xdd" and frame[22:38] in OUTER


class Source(Protocol):
    """Where frames come from."""

    def frame(self) -> Given: ...
    def heard(self, outcome: Outcome) -> None: ...


class Tagging:
    """The frames of another source, some of them with an 802.1Q tag, or with what looks like one."""

    SHARE = 0.2
    ODD = 0.1
    """Of these: two tags, another kind, or cut off within the tag."""

    def __init__(self, source: Source, random: Random) -> None:
        self._source, self._random = source, random

    def frame(self) -> Given:
        """The next one."""
        random, given = self._random, self._source.frame()
        if random.random() >= self.SHARE or len(given.frame) < 14:
            return given
        tci = random.choice((0, 5, 0x6005, 0xFFFF))
        frame = tagged(given.frame, tci)
        if random.random() < self.ODD:
            odd = (frame[: random.randrange(12, 19)], tagged(frame, 7), tagged(given.frame, tci, 0x88A8))
            frame = random.choice((*odd, tagged(tagged(given.frame, 9, 0x88A8), tci)))
        return Given(frame, given.arm, given.csum_start and given.csum_start + 4)

    def heard(self, outcome: Outcome) -> None:
        """What became of the last one."""
        self._source.heard(outcome._replace(frame=untagged(outcome.frame)))


class Noise:
    """An endless source of frames; `heard` tells it what became of them."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self._known: deque[tuple[Tuple5, bytes]] = deque(maxlen=400)
        """Clients' flows that were forwarded, with the client's MAC."""
        self._answers: deque[Tuple5] = deque(maxlen=400)
        """What a backend would answer."""
        self._outer: deque[bytes] = deque(maxlen=50)
        """What went into a tunnel."""
        self._last: tuple[Tuple5, bytes] | None = None
        self._pieces: list[Given] = []

    def frame(self) -> Given:
        """The next one."""
        random = self.random
        self._last = None
        if self._pieces and random.random() < 0.5:
            return self._pieces.pop()
        kind = random.random()
        if kind < 0.04:
            return Given(random.randbytes(random.randrange(0, 80)), random.randrange(2), 0)
        if kind < 0.08 and self._answers and self._known:
            frame, arm = self._error()
        elif kind < 0.30 and self._answers:
            frame, arm = self._answer(), 1
        elif kind < 0.72 and self._known:
            frame, arm = self._again(), 0
        else:
            frame, arm = self._first(), 0
        if random.random() < 0.25:
            frame = tcp_options(random, frame)
        if random.random() < 0.5:
            frame = self._dont(frame)
        if random.random() < 0.3:
            frame = self._spoiled(frame)
        start = make_partial(frame) if random.random() < 0.25 else 0
        if random.random() < 0.02:
            start = random.choice((14, 33, 34, 84, 9_999))
        if not start and random.random() < 0.1 and is_whole_v4(frame):
            self._cut(frame, arm)
        return Given(bytes(frame), arm, start)

    def _cut(self, frame: bytearray, arm: int) -> None:
        """Have its datagram come in fragments, in any order; sometimes not all of them, or one twice."""
        frame[14 + ipv4.ID : 14 + ipv4.ID + 2] = self.random.randbytes(2)
        refix(frame)
        parts = [Given(each, arm, 0) for each in fragments(bytes(frame), self.random.choice((44, 68, 100)))]
        parts = parts[self.random.randrange(2) :]
        parts += self.random.sample(parts, min(len(parts), self.random.randrange(2)))
        self.random.shuffle(parts)
        self._pieces += parts

    def heard(self, outcome: Outcome) -> None:
        """What became of the last one."""
        if outcome.verdict != FORWARD or self._last is None:
            return
        self._known.append(self._last)
        if is_outer(outcome.frame):
            self._outer.append(outcome.frame)
        of = tuple_of(outcome.frame)
        if of is not None and of.dst not in VIPS + VIPS_V6:
            self._answers.append(Tuple5(of.dst, of.dport, of.src, of.sport, of.protocol))

    def _body(self) -> bytes:
        return self.random.randbytes(self.random.choice((0, 0, 1, 2, 7, 16, 33, 100, 520, 1200, 1220, 1400)))

    def _flags(self, *more: int) -> int:
        return self.random.choice(
            (tcp.ACK, tcp.ACK, tcp.ACK, 0x18, tcp.SYN, tcp.FIN | tcp.ACK, tcp.RST, *more)
        )

    def _numbers(self) -> dict[str, int]:
        """Most often those of a connection whose sides have said little; or such as are hardly believed."""
        seq, ack = 1, 2
        if self.random.random() < 0.3:
            seq = self.random.choice(
                (0, _WRAP, 2 + END_WINDOW - 1, 2 + END_WINDOW, self.random.getrandbits(32))
            )
        if self.random.random() < 0.2:
            ack = self.random.choice(
                (1, 0, 2 + OPEN_WINDOW - 1, 2 + OPEN_WINDOW, self.random.getrandbits(32))
            )
        return {"seq": seq, "ack": ack}

    def _first(self) -> bytearray:
        """Of a flow that may be new."""
        random = self.random
        service = random.choice(CHOSEN)
        port = service.port or random.randrange(1, 40)
        if random.random() < 0.04:
            port = random.randrange(200, 300)
        is_v4 = len(service.vip) == 4
        martians, clients = (MARTIANS, CLIENTS) if is_v4 else (MARTIANS_V6, CLIENTS_V6)
        src = random.choice(martians) if random.random() < 0.03 else random.choice(clients)
        strangers = STRANGERS if is_v4 else STRANGERS_V6
        dst = random.choice(strangers) if random.random() < 0.03 else service.vip
        of = Tuple5(src, random.randrange(1000, 1000 + ports_for(service)), dst, port, service.protocol)
        # Of those that are rare, more: their clients' MACs run out.
        mac = random.choice(CLIENT_MACS[: GOOD_MACS if random.random() < 0.9 else None])
        self._last = (of, mac)
        flags = tcp.SYN if random.random() < 0.85 else random.choice(ODD_FLAGS)
        frame = build(of, (OUR_MACS[0], mac), flags, body=self._body())
        if is_v4 and random.random() < 0.04:
            frame[14 + 9], frame[14 + 20] = ipv4.ICMP, random.choice((8, 8, 0, 3))
            frame[14 + 8] = random.choice((64, 3, 200))
            if random.random() < 0.2:
                frame[14 + 12 : 14 + 16] = random.choice(MARTIANS)
            refix(frame)
        if not is_v4 and random.random() < 0.09:
            frame[14 + 6], frame[14 + 40] = ipv6.ICMPV6, random.choice((128, 132, 133, 135, 136, 137, 138))
        return frame

    def _one_of(self, flows: deque[_Flow]) -> _Flow:
        """Often one of the last: the share of half-open flows is a small one."""
        last = min(len(flows), RECENT)
        return (
            flows[-1 - self.random.randrange(last)]
            if self.random.random() < 0.7
            else self.random.choice(flows)
        )

    def _again(self) -> bytearray:
        """Of a flow that was forwarded."""
        of, mac = self._one_of(self._known)
        ttl = self.random.choice((1, 2, 64, 64, 64, 64, 255))
        return build(of, (OUR_MACS[0], mac), self._flags(), ttl, self._body(), **self._numbers())

    def _answer(self) -> bytearray:
        of = self._one_of(self._answers)
        mac = bytes([2, 0, 0, 0, 0, of.src[-1]])
        ttl = self.random.choice((1, *(64,) * 7))
        flags = self._flags(*(tcp.SYN | tcp.ACK,) * 4)
        return build(of, (OUR_MACS[1], mac), flags, ttl, self._body(), **self._numbers())

    def _error(self) -> tuple[bytearray, int]:
        """An ICMP error about a packet that went to a client, or to a backend; and where it comes in."""
        random = self.random
        if self._outer and random.random() < 0.3:
            return self._too_big(), int(random.random() < 0.9)
        arm = random.randrange(2)
        if arm:
            to_backend = random.choice(self._answers)
            of, mac = to_backend.flipped(), bytes([2, 0, 0, 0, 0, to_backend.src[-1]])
        else:
            known, mac = random.choice(self._known)
            of = known.flipped()
        quoted = build(of, (bytes(6), bytes(6)), body=self._body())[14:]
        source = random.choice((of.dst, CLIENTS[1] if len(of.src) == 4 else CLIENTS_V6[1]))
        return error_about(random, quoted, (OUR_MACS[arm], mac), source, of.src), arm

    def _too_big(self) -> bytearray:
        """What a router says of a packet in a tunnel, which may be a longer one than was seen."""
        random = self.random
        outer = bytearray(random.choice(self._outer))
        ip, is_v4 = bytes(outer[14:]), outer[12:14] == b"\x08\0"
        if random.random() < 0.8:
            at = 14 + (ipv4.TOTAL_LENGTH if is_v4 else ipv6.PAYLOAD_LENGTH)
            longer = random.choice((1300, 1300, 1301))  # by one than its link takes
            outer[at : at + 2] = (longer if is_v4 else longer - ipv6.LENGTH).to_bytes(2)
            ip = bytes(outer[14:])
        src = ip[12:16] if is_v4 else ip[8:24]
        mtu = random.choice((0, 551, 600, 1000, 1279, 1280, 1290, 1299, 70_000))
        router = random.choice(CLIENTS if is_v4 else CLIENTS_V6)
        return error_about(random, ip, (OUR_MACS[1], bytes(outer[:6])), router, src, mtu)

    def _spoiled(self, frame: bytearray) -> bytearray:
        """The same with something odd about it."""
        return self.random.choice(SPOILERS)(self.random, frame)

    def _dont(self, frame: bytearray) -> bytearray:
        """The same, not to be fragmented."""
        if frame[12:14] == b"\x08\0":
            frame[14 + ipv4.FRAGMENT] |= 0x40
            refix(frame)
        return frame
