"""What would the balancer do with these frames? The real tables and the real steer(), without a host.

Lives here: tables from a configuration, with stand-ins for what only a running
balancer knows, and a record of what became of a frame. Must not live here: a
decision, which is steer()'s, and how it reads, which is the command line's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final, NamedTuple

from l4raw.control.checks import check_of
from l4raw.control.seed import FILE, check, of_root, state_dir
from l4raw.control.settings import Config
from l4raw.core.decision import Decision
from l4raw.core.flows import FlowTable
from l4raw.core.hashing import hash_key
from l4raw.core.next_hops import NextHops
from l4raw.core.steer import steer
from l4raw.core.tables import Arm, Tables, compile_policy
from l4raw.engine.base import forward
from l4raw.engine.replay import ReplayEngine
from l4raw.wire import ethernet, ipv4, ipv6, tcp, udp
from l4raw.wire.checksum import add, checksum, fold, pseudo_header
from l4raw.wire.headers import Frame, Headers, parse

OWN_MACS: Final = (ethernet.parse_mac("02:ba:00:00:00:00"), ethernet.parse_mac("02:ba:00:00:00:01"))
BACKEND_MAC: Final = "02:be:00:00:{:02x}:{:02x}"
CLIENT_MAC: Final = ethernet.parse_mac("02:c1:00:00:00:01")
"""Stand-ins, locally administered (IEEE 802, clause 8.4), so that they are nobody's."""
TUNNEL_SOURCES: Final = {4: IPv4Address("192.0.2.2").packed, 16: IPv6Address("2001:db8::2").packed}
"""Likewise, by the bytes of an address: of the networks for documentation (RFC 5737, RFC 3849)."""

_ANY_LENGTH: Final = 1 << 17
"""An MTU: a capture holds super-frames, and does not say how they will be cut."""
_FLOW_MEMORY: Final = 64 << 20
"""Bytes at most: enough for 675,701 DSR flows of a capture."""
_SYS: Final = Path("/sys/class/net")

STATED, LOCAL, INFERRED, STAND_IN = "stated", "local", "inferred", "stand-in"
"""How a MAC of ours is known: by --mac, from an interface of this host, from frames, or not at all."""

RIGHT, WRONG, PARTIAL, NONE = "right", "wrong", "partial", "none"
"""What a TCP or UDP checksum is. PARTIAL: the pseudo-header's sum, the rest left to the network card."""


class Outcome(NamedTuple):
    """What became of a frame."""

    decision: Decision
    before: bytes
    after: bytes | None
    """None: it was not sent."""
    arm: int
    """Where it came in."""
    l4_sum: str | None
    """RIGHT, WRONG, PARTIAL or NONE (sent without one); None: there is no such field."""
    macs_are: tuple[str, ...]
    """For each arm, how its MAC is known: STATED, LOCAL, INFERRED or STAND_IN."""
    seed_assumed: bool
    """The ring seed is perhaps not that of the running balancer."""


@dataclass(slots=True)
class WhatIf:
    """Tables of a balancer that has just been started and sees one frame after the other."""

    tables: Tables
    assumptions: list[str]
    """What had to be assumed, a sentence each."""
    seed_assumed: bool
    """The ring seed is perhaps not that of the running balancer."""
    only_arm: int | None
    """Where all frames came in, if that was said."""
    _backends: frozenset[bytes]
    _macs_are: list[str]
    """For each arm, how its MAC is known."""
    _learned: dict[int, bytes] = field(default_factory=dict)

    def look_ahead(self, frames: Sequence[bytes]) -> None:
        """Learn our MAC from the beginning of a capture that may have frames that we sent.

        Whoever both received and sent frames to a VIP is the balancer; so is who received one and has the
        MAC of the interface of that name.
        """
        received, sent = set(), set()
        for frame in frames:
            headers = parse(frame)
            if not isinstance(headers, int) and headers.dst in self.tables.policy.vips:
                received.add(headers.dst_mac)
                sent.add(headers.src_mac)
        arm = self.only_arm or 0
        if self._macs_are[arm] == STATED:
            return
        local, both = _local_mac(self.tables.arms[arm].name), received & sent
        if local is not None and local in received:
            self._learn(arm, local, LOCAL)
        elif len(both) == 1:
            self._learn(arm, both.pop(), INFERRED)

    def see(self, frame: bytes) -> Outcome:
        """Decide, and apply what was decided. Flows are remembered until the next frame."""
        headers = parse(frame)
        arm, l4_sum, csum_start = self.only_arm or 0, None, 0
        if not isinstance(headers, int):
            arm, l4_sum = self._place(headers), state_of_sum(frame, headers)
            csum_start = headers.l4 if l4_sum == PARTIAL else 0
        engine = ReplayEngine([frame], arm, csum_start)
        seen: list[Decision] = []

        def decide(data: bytes | Frame, arm: int, csum_start: int, tables: Tables, segment: int) -> Decision:
            seen.append(steer(data, arm, csum_start, tables, segment))
            return seen[-1]

        forward(engine, self.tables, 0, decide)
        after = engine.sent[0].frame if engine.sent else None
        return Outcome(seen[0], frame, after, arm, l4_sum, tuple(self._macs_are), self.seed_assumed)

    def own_mac(self) -> bytes:
        """The MAC of the clients' arm as far as it is known now."""
        return self.tables.arms[0].mac

    def _place(self, headers: Headers) -> int:
        """The arm that the frame came in on; whose MAC is the one that it was sent to, unless that is stated.

        Only a frame to a VIP, or from a backend, tells our MAC: the first one of an arm does.
        """
        arms = self.tables.arms
        to_vip, from_backend = headers.dst in self.tables.policy.vips, headers.src in self._backends
        arm = len(arms) - 1 if from_backend and not to_vip else 0
        if self.only_arm is not None:
            arm = self.only_arm
        if self._macs_are[arm] == STATED or arm in self._learned:
            return arm
        if to_vip or from_backend:
            self._learn(arm, headers.dst_mac, INFERRED)
            return arm
        local, mac = _local_mac(arms[arm].name), headers.dst_mac
        if local:
            self._set(arm, local, LOCAL)
        elif ethernet.is_unicast(mac):
            self._set(arm, mac, INFERRED)
        return arm

    def _learn(self, arm: int, mac: bytes, how: str) -> None:
        self._learned[arm] = mac
        self._set(arm, mac, how)

    def _set(self, arm: int, mac: bytes, how: str) -> None:
        arms = self.tables.arms
        self.tables.arms = (*arms[:arm], arms[arm]._replace(mac=mac), *arms[arm + 1 :])
        self._macs_are[arm] = how


def build(
    config: Config, environ: Mapping[str, str], macs: Sequence[bytes] = (), only_arm: int | None = None
) -> WhatIf:
    """Tables for `config`, with stand-ins for every MAC address; nothing is made or changed.

    `macs`: ours, in the order of the interfaces, as far as stated; `only_arm`: where all frames came in.
    Reads the kept ring seed, if this user may, and the MACs of interfaces with the configured names.
    """
    hops = NextHops()
    where: dict[bytes, tuple[int, int]] = {}
    last = len(config.lb.interfaces) - 1
    for service in config.services:
        for backend in service.backends:
            if backend.address not in where:
                number = len(where) + 1
                mac = ethernet.parse_mac(BACKEND_MAC.format(number >> 8, number & 0xFF))
                where[backend.address] = hops.pin(last, mac), last
    known = [_known_mac(number, name, macs) for number, name in enumerate(config.lb.interfaces)]
    arms = tuple(
        Arm(name, mac, _ANY_LENGTH) for name, (mac, _) in zip(config.lb.interfaces, known, strict=True)
    )
    flows = FlowTable(bytearray(min(config.lb.flow_memory, _FLOW_MEMORY)), hash_key(b"what if"))
    seed, about_seed = _seed(config, environ)
    tables = Tables(arms, flows, hops)
    sources = {address: TUNNEL_SOURCES[len(address)] for address in where}
    tables.install(compile_policy(config.services, where, seed, config.timeouts, sources=sources))
    ours = "" if len(macs) == len(arms) else "the balancer's is the one that the frame is sent to; "
    assumptions = [
        f"MAC addresses: {ours}those that begin with 02:ba"
        " (balancer), 02:be (backends) and 02:c1 (client) stand for what only a running balancer knows",
        "flows, choices (affinity), and turns of rr and wrr: as of a balancer that has just been started;"
        " the frames of a capture come at one moment",
        *about_seed,
    ]
    if any(check_of(service, config.checks.get(service.name)) for service in config.services):
        assumptions.append("health: every backend is up; one that is down gets no new flow")
    if any(service.mode.is_tunnel and service.tunnel.source is None for service in config.services):
        stand_ins = " and ".join(str(ip_address(each)) for each in TUNNEL_SOURCES.values())
        assumptions.append(f"tunnels come from {stand_ins}, which stand for the balancer's own addresses")
    macs_are = [how for _, how in known]
    return WhatIf(tables, assumptions, bool(about_seed), only_arm, frozenset(where), macs_are)


def _known_mac(number: int, name: str, macs: Sequence[bytes]) -> tuple[bytes, str]:
    """The MAC of an arm before any frame has been seen, and how it is known."""
    if number < len(macs):
        return macs[number], STATED
    local = _local_mac(name)
    return (local, LOCAL) if local else (OWN_MACS[number], STAND_IN)


def _seed(config: Config, environ: Mapping[str, str]) -> tuple[bytes, list[str]]:
    """The ring seed, and a sentence if the running balancer may have another."""
    if config.lb.ring_seed is not None:
        return config.lb.ring_seed.encode(), []
    path = state_dir(environ) / FILE
    try:
        kept = check(path.read_bytes())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return b"what if", [f"ring seed: cannot read {path} ({reason}); another seed chooses otherwise"]
    roots = of_root(environ)
    return kept, [f"ring seed: yours, of {path}; a balancer of root has that of {roots}"] if roots else []


def _local_mac(interface: str) -> bytes | None:
    """The MAC of an interface of this host, if there is one of that name."""
    try:
        return ethernet.parse_mac((_SYS / interface / "address").read_text().strip())
    except (OSError, ValueError):
        return None


def state_of_sum(frame: bytes, headers: Headers) -> str | None:
    """Whether the TCP or UDP checksum is right; None: the frame has none."""
    if not headers.l4:
        return None
    if headers.protocol == ipv4.UDP and headers.l4_checksum == udp.NO_CHECKSUM:
        return NONE
    # TCP has the rest of the datagram; UDP says how long it is.
    ip = headers.ip
    if headers.protocol == ipv4.UDP:
        start, at = headers.l4, headers.l4 + udp.LENGTH
    elif len(headers.src) == 4:
        start, at = ip, ip + ipv4.TOTAL_LENGTH
    else:
        start, at = ip + ipv6.LENGTH, ip + ipv6.PAYLOAD_LENGTH
    segment = frame[headers.l4 : start + int.from_bytes(frame[at : at + 2], "big")]
    pseudo = pseudo_header(headers.src, headers.dst, ipv4.IpProto(headers.protocol), len(segment))
    # RFC 1071, section 1, step 3: with its checksum, the whole sums to "all ones".
    if fold(pseudo + add(segment)) == 0xFFFF:
        return RIGHT
    return PARTIAL if headers.l4_checksum == pseudo else WRONG


class FiveTuple(NamedTuple):
    """Who sends to whom."""

    src: IPv4Address | IPv6Address
    sport: int
    dst: IPv4Address | IPv6Address
    dport: int
    protocol: ipv4.IpProto


def first_frame(flow: FiveTuple, own_mac: bytes) -> bytes:
    """The frame that opens a flow: a TCP SYN, or a UDP datagram of no bytes. All checksums are right."""
    src, dst = flow.src.packed, flow.dst.packed
    if flow.protocol == ipv4.TCP:
        at, l4 = tcp.CHECKSUM, bytearray(tcp.LENGTH)
        tcp.HEADER.pack_into(l4, 0, flow.sport, flow.dport, tcp.LENGTH // 4 << 4, tcp.SYN, 0)
    else:
        at, l4 = udp.CHECKSUM, bytearray(udp.HEADER_LENGTH)
        udp.HEADER.pack_into(l4, 0, flow.sport, flow.dport, udp.HEADER_LENGTH, 0)
    l4_sum = checksum(l4, pseudo_header(src, dst, flow.protocol, len(l4)))
    if flow.protocol == ipv4.UDP and not l4_sum:
        l4_sum = udp.ZERO
    l4[at : at + 2] = l4_sum.to_bytes(2, "big")
    if len(src) == 16:
        ip = ipv6.HEADER.pack(6 << 4, len(l4), flow.protocol, 64, src, dst)
        return ethernet.HEADER.pack(own_mac, CLIENT_MAC, ethernet.IPV6) + ip + bytes(l4)
    header = bytearray(ipv4.LENGTH)
    total = ipv4.LENGTH + len(l4)
    ipv4.HEADER.pack_into(header, 0, ipv4.VERSION_4_NO_OPTIONS, total, 0, 64, flow.protocol, 0, src, dst)
    header[ipv4.CHECKSUM : ipv4.CHECKSUM + 2] = checksum(header).to_bytes(2, "big")
    return ethernet.HEADER.pack(own_mac, CLIENT_MAC, ethernet.IPV4) + bytes(header) + bytes(l4)
