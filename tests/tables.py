"""Tables by name, for vectors and tests: the addresses that tests/vectors/make.py uses."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from ipaddress import ip_address
from typing import Protocol, TypeVar

from l4raw.core.flows import FlowTable
from l4raw.core.hashing import HashKey, hash_key
from l4raw.core.limits import private
from l4raw.core.model import Acl, Backend, Limits, Mode, Scheduler, Service, Snat, Tunnel
from l4raw.core.next_hops import NextHops
from l4raw.core.tables import NO_FLOWS, Arm, Tables, compile_policy
from l4raw.engine.layout import Sizes
from l4raw.engine.memory import Allocate, anonymous
from l4raw.engine.shared import SharedTables
from l4raw.wire.abi import FLOW_FREE, MAGLEV_SLOTS, NEXT_HOPS
from l4raw.wire.ethernet import parse_mac
from l4raw.wire.ipv4 import TCP, UDP

CLIENT_MAC = parse_mac("02:00:00:00:00:01")
OUR_MACS = (parse_mac("02:00:00:00:00:02"), parse_mac("02:00:00:00:00:03"))
OUR_ADDRESSES = ("10.77.0.2", "10.78.0.2", "192.168.9.1", "2001:db8:77::2")
SEED = b"ring seed of the tests"
_T = TypeVar("_T")


def ip(text: str) -> bytes:
    """The bytes of an address."""
    return ip_address(text).packed


class _Sources(dict[bytes, bytes]):
    """Where tunnels to a backend come from: our address of its IP version."""

    def __missing__(self, address: bytes) -> bytes:
        return ip("10.78.0.2" if len(address) == 4 else "2001:db8:78::2")


SOURCES = _Sources()
DEFAULT_TUNNEL = Tunnel()
EVERYBODY, UNLIMITED = Acl(), Limits()
VIP = ip("10.77.0.100")
VIP_V6 = ip("2001:db8:77::100")


def backends(count: int = 3, port: int = 0) -> tuple[Backend, ...]:
    """b1, b2, ... at 10.78.0.11 and on."""
    return tuple(Backend(f"b{i}", ip(f"10.78.0.{10 + i}"), port) for i in range(1, count + 1))


def backends_v6(count: int = 3, port: int = 0) -> tuple[Backend, ...]:
    """b1, b2, ... at 2001:db8:78::b and on: the MAC addresses are those of the IPv4 ones."""
    return tuple(Backend(f"b{i}", ip(f"2001:db8:78::{10 + i:x}"), port) for i in range(1, count + 1))


def weighted(*weights: int, port: int = 0) -> tuple[Backend, ...]:
    """The same, one with each of these weights."""
    return tuple(replace(b, weight=w) for b, w in zip(backends(len(weights), port), weights, strict=True))


def service(
    mode: Mode = Mode.DSR_L2,
    scheduler: Scheduler = Scheduler.RR,
    *,
    name: str = "web",
    port: int = 80,
    protocol: int = TCP,
    members: tuple[Backend, ...] | None = None,
    vip: bytes = VIP,
    mss_clamp: int = 0,
    acl: Acl = EVERYBODY,
    snat: tuple[Snat, ...] = (),
    tunnel: Tunnel = DEFAULT_TUNNEL,
    limits: Limits = UNLIMITED,
    affinity: int = 0,
) -> Service:
    """A service on the VIP; fullnat has a pool if none is given."""
    if mode is Mode.FULLNAT and not snat:
        snat = (Snat(ip("10.78.0.201"), 1024, 65_535),)
    chosen = backends() if members is None else members
    what = (mss_clamp, acl, snat, tunnel, limits, affinity)
    return Service(name, vip, port, protocol, mode, scheduler, chosen, *what)


def fullnat(first: int, last: int, *, v6: bool = False, count: int = 2) -> list[Service]:
    """Two services, for TCP and UDP, with one pool."""
    address, make = ip("2001:db8:78::201" if v6 else "10.78.0.201"), backends_v6 if v6 else backends
    snat, vip = (Snat(address, first, last),), VIP_V6 if v6 else VIP
    web = service(Mode.FULLNAT, members=make(count, port=8080), vip=vip, snat=snat)
    return [web, replace(web, name="dns", port=53, protocol=UDP, backends=make(count, port=5300))]


SLOTS = 14 * MAGLEV_SLOTS
CLIENT_BUCKETS = 4
"""So few that clients who are counted take the places of others."""
allocate: Allocate = anonymous
"""Where shared tables get their memory."""


class New(Protocol):
    """Makes empty tables."""

    def __call__(self, arms: tuple[Arm, ...], key: HashKey, memory: int, hops: int) -> Tables: ...


def plain(arms: tuple[Arm, ...], key: HashKey, memory: int, hops: int) -> Tables:
    """The reference's."""
    return Tables(
        arms, FlowTable(bytearray(memory), key), NextHops(hops), counts=private(key, CLIENT_BUCKETS)
    )


def shared(arms: tuple[Arm, ...], key: HashKey, memory: int, hops: int) -> SharedTables:
    """The helper's."""
    sizes = Sizes(memory, queues=2, ring_slots=SLOTS, next_hops=hops, client_buckets=CLIENT_BUCKETS)
    return SharedTables(arms, key, sizes, allocate)


def make_tables(
    services: list[Service],
    arms: int = 1,
    *,
    memory: int = 1 << 16,
    hops: int = NEXT_HOPS,
    new: New = plain,
) -> Tables:
    """Tables with these services; a backend's MAC is 02:00:00:00:00 and the last byte of its address."""
    own = tuple(Arm(f"eth{i}", OUR_MACS[i]) for i in range(arms))
    # In the order of the configuration, so that numbers are the same in every run.
    addresses = dict.fromkeys(b.address for s in services for b in s.backends)
    tables = new(own, hash_key(b"table key of the tests"), memory, hops)
    where = {a: (tables.next_hops.pin(arms - 1, CLIENT_MAC[:5] + a[-1:]), arms - 1) for a in addresses}
    tables.local = frozenset(map(ip, OUR_ADDRESSES))
    tables.install(compile_policy(services, where, SEED, sources=SOURCES))
    return tables


def counted(tables: Tables) -> list[int]:
    """Flows in the table, by backend, counted one by one: only the reply's entry of a NAT flow has a hop."""
    counts, flows = [0] * len(tables.backends), tables.flows
    for index in range(flows.entries + flows.overflow):
        entry = flows.read(index)
        counts[entry.backend] += entry.state not in (FLOW_FREE, *NO_FLOWS) and not entry.next_hop
    return counts


def tables_named(name: str, new: New = plain) -> Tables:
    """The tables that a vector asks for."""
    dsr = [service(), service(name="dns", port=53, protocol=UDP)]
    nat = [
        service(Mode.NAT, members=backends(port=8080)),
        service(Mode.NAT, name="dns", port=53, protocol=UDP, members=backends(port=5300)),
    ]
    match name:
        case "dsr":
            return make_tables(dsr, new=new)
        case "dsr-two-arm":
            return make_tables(dsr, arms=2, new=new)
        case "dsr-port-0":
            return make_tables(
                [service(members=backends()[1:]), service(name="all", port=0, members=backends(1))], new=new
            )
        case "dsr-unknown-mac":
            tables = make_tables(dsr, new=new)
            for index in range(1, len(tables.next_hops.macs)):
                tables.next_hops.set_mac(index, None)
            return tables
        case "nat":
            return make_tables(nat, arms=2, new=new)
        case "dsr-narrow" | "nat-narrow":
            tables = make_tables(nat if name == "nat-narrow" else dsr, arms=2, new=new)
            tables.set_mtu(1, 576)
            return tables
        case "dsr-narrow-v6" | "nat-narrow-v6":
            tables = tables_named(name.replace("-narrow", ""), new)
            tables.set_mtu(len(tables.arms) - 1, 1280)
            return tables
        case "dsr-wrr":
            return make_tables([service(scheduler=Scheduler.WRR, members=weighted(2, 1, 0))], new=new)
        case "dsr-mss":
            return make_tables([service(mss_clamp=1400)], new=new)
        case "nat-mss":
            return make_tables(
                [service(Mode.NAT, members=backends(port=8080), mss_clamp=1400)], arms=2, new=new
            )
        case "nat-v6-mss":
            only = backends_v6(port=8080)
            return make_tables([service(Mode.NAT, members=only, vip=VIP_V6, mss_clamp=1220)], arms=2, new=new)
        case "dsr-acl":
            acl = Acl(((ip("10.0.0.0"), 8),), ((ip("10.66.0.0"), 16), (ip("10.66.7.0"), 24)))
            inner = Acl((*acl.allow, (ip("10.66.7.9"), 32)), acl.deny)
            return make_tables([service(acl=inner)], new=new)
        case "nat-limits":
            other = service(Mode.NAT, name="other", port=81, limits=Limits(new_per_s=2, client_new_per_s=1))
            return make_tables(
                [service(Mode.NAT, limits=Limits(3, 3, 2, 2)), other],
                arms=2,
                new=new,
            )
        case "dsr-affinity":
            other = service(name="other", port=81, affinity=5_000)
            return make_tables([service(affinity=5_000), other], new=new)
        case "dsr-sh":
            return make_tables([service(scheduler=Scheduler.SH)], new=new)
        case "dsr-hrw":
            return make_tables([service(scheduler=Scheduler.HRW)], new=new)
        case "nat-wlc":
            return make_tables(
                [service(Mode.NAT, Scheduler.WLC, members=weighted(1, 2, 0, port=8080))], arms=2, new=new
            )
        case "nat-one-arm":
            return make_tables(nat, new=new)
        case "dsr-v6" | "nat-v6":
            mode = Mode.NAT if name == "nat-v6" else Mode.DSR_L2
            tcp, udp = (8080, 5300) if mode is Mode.NAT else (0, 0)
            return make_tables(
                [
                    service(mode, members=backends_v6(port=tcp), vip=VIP_V6),
                    service(
                        mode, name="dns", port=53, protocol=UDP, members=backends_v6(port=udp), vip=VIP_V6
                    ),
                ],
                arms=2 if mode is Mode.NAT else 1,
                new=new,
            )
        case "fullnat":
            return make_tables(fullnat(5000, 5000), arms=2, new=new)
        case "fullnat-one-arm":
            return make_tables(fullnat(5000, 5000), new=new)
        case "fullnat-pool":
            return make_tables(fullnat(1024, 65535), arms=2, new=new)
        case "fullnat-v6":
            return make_tables(fullnat(5000, 5000, v6=True), arms=2, new=new)
        case "tunnels":
            return make_tables(_tunnelled(VIP, backends(1), backends_v6(1)), new=new)
        case "tunnels-narrow":
            tables = tables_named("tunnels", new)
            tables.set_mtu(0, 576)
            return tables
        case "tunnels-v6":
            return make_tables(_tunnelled(VIP_V6, backends(1), backends_v6(1)), new=new)
        case "nat-two-vips":
            one = backends(1, port=8080)
            return make_tables(
                [service(Mode.NAT, members=one), service(Mode.NAT, name="other", port=81, members=one)],
                arms=2,
                new=new,
            )
    raise ValueError(name)


def _tunnelled(vip: bytes, v4: tuple[Backend, ...], v6: tuple[Backend, ...]) -> list[Service]:
    """dsr-ipip at port 80 (4) and 81 (6), dsr-gue at 53, UDP, and 54."""
    far = Tunnel(ip("10.78.0.99"), 19523, 9)
    return [
        service(Mode.DSR_IPIP, name="ipip4", members=v4, vip=vip),
        service(Mode.DSR_IPIP, name="ipip6", members=v6, vip=vip, port=81, tunnel=Tunnel(ttl=3)),
        service(Mode.DSR_GUE, name="gue4", members=v4, vip=vip, port=53, protocol=UDP, tunnel=far),
        service(Mode.DSR_GUE, name="gue6", members=v6, vip=vip, port=54, protocol=UDP),
        service(Mode.DSR_GUE, name="gue6tcp", members=v6, vip=vip, port=54),
    ]


def done(steps: Generator[None, None, _T]) -> _T:
    """What a generator returns."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
