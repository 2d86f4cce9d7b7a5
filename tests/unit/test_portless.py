"""ICMP errors about a flow that has no entry: to whom a segment of it would go, if anything tells."""

from __future__ import annotations

from dataclasses import replace
from struct import pack

import pytest

from l4raw.cli.render import choice
from l4raw.core.model import Acl, Mode, Scheduler, Service
from l4raw.core.steer import steer
from l4raw.core.tables import Tables
from l4raw.wire import tcp
from l4raw.wire.abi import DROP_ICMP, DROP_NEXT_HOP_UNKNOWN, FORWARD, ICMP_ERROR, RULE_AFFINITY
from l4raw.wire.checksum import checksum
from tests.crafted import TCP, Tuple5, build, refix
from tests.tables import CLIENT_MAC, OUR_MACS, VIP, ip, make_tables, service

MACS = OUR_MACS[0], CLIENT_MAC
ROUTER = ip("198.51.100.9")
HASHED = [Scheduler.MAGLEV, Scheduler.HRW, Scheduler.MODULO, Scheduler.SH]


def of(client: int) -> Tuple5:
    return Tuple5(ip(f"10.77.9.{client}"), 4000 + client, VIP, 80, TCP)


def needed(flow: Tuple5) -> bytes:
    """Fragmentation needed (RFC 1191), about what the VIP sent to this client."""
    quoted = bytes(build(flow.flipped(), MACS, tcp.ACK))[14:]
    message = bytearray(pack("!BBHI", 3, 4, 0, 1300) + quoted)
    message[2:4] = checksum(message).to_bytes(2)
    start = pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(message), 9, 0, 64, 1, 0, ROUTER, VIP)
    frame = bytearray(OUR_MACS[0] + CLIENT_MAC + b"\x08\0") + start + message
    refix(frame)
    return bytes(frame)


def tables_of(*services: Service) -> Tables:
    return make_tables(list(services), arms=2)


@pytest.mark.parametrize("scheduler", HASHED)
@pytest.mark.parametrize("mode", [Mode.DSR_L2, Mode.DSR_IPIP])
def test_it_goes_where_a_segment_would(mode: Mode, scheduler: Scheduler) -> None:
    tables, seen = tables_of(service(mode, scheduler)), set()
    for client in range(1, 40):
        told = steer(needed(of(client)), 0, 0, tables)
        assert (told.verdict, told.flow, len(tables.flows)) == (ICMP_ERROR, -1, client - 1)
        segment = steer(bytes(build(of(client), MACS, tcp.ACK)), 0, 0, tables)
        assert segment.verdict == FORWARD
        assert told.backend is segment.backend and told.edits[:2] == segment.edits[:2]
        again = steer(needed(of(client)), 0, 0, tables)
        assert again.backend is told.backend and again.flow == segment.flow
        seen.add(told.backend)
    assert len(seen) == 3


def test_a_choice_of_the_client_comes_before_the_ring() -> None:
    tables = tables_of(service(scheduler=Scheduler.MAGLEV, affinity=5_000))
    alone = tables.policy.by_number[1]
    assert alone
    for client in range(1, 20):
        first = steer(bytes(build(of(client), MACS, tcp.SYN)), 0, 0, tables)
        other = replace(alone.ring, slots=alone.ring.slots[::-1])
        where = alone._replace(ring=other)
        tables.policy = replace(tables.policy, services={(VIP, 80, TCP): where}, by_number=(None, where))
        told = steer(needed(of(client)._replace(sport=9)), 0, 0, tables)
        assert told.pick and told.pick.rule == RULE_AFFINITY and told.backend is first.backend


@pytest.mark.parametrize(
    "only",
    [
        service(),
        service(Mode.NAT, Scheduler.MAGLEV),
        service(Mode.FULLNAT, Scheduler.MAGLEV),
        service(scheduler=Scheduler.MAGLEV, acl=Acl(deny=((ip("10.77.9.0"), 24),))),
        service(scheduler=Scheduler.MAGLEV, members=()),
    ],
    ids=["a cursor", "nat", "fullnat", "acl", "no backend"],
)
def test_nobody_is_told_where_nothing_tells(only: Service) -> None:
    tables = tables_of(only)
    assert steer(needed(of(1)), 0, 0, tables).verdict == DROP_ICMP
    assert tables.cursors == [0, 0] and not len(tables.flows)


def test_explain_says_that_there_is_no_entry() -> None:
    told = steer(needed(of(1)), 0, 0, tables_of(service(scheduler=Scheduler.MAGLEV)))
    (flow,) = [line for line in choice(told) if line.startswith("flow: ")]
    assert flow.startswith("flow: no entry; hash ")


def test_a_backend_whose_mac_is_not_known() -> None:
    tables = tables_of(service(scheduler=Scheduler.MAGLEV))
    for hop in range(1, len(tables.next_hops.macs)):
        tables.next_hops.set_mac(hop, None)
    assert steer(needed(of(1)), 0, 0, tables).verdict == DROP_NEXT_HOP_UNKNOWN
