"""New flows in the kernel path: which it makes, and that it leaves all as it was for the others.

That tables are the reference's, byte for byte, is in test_differential.py. Must not live here: what the
helper does with the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from l4raw.core.flows import flow_key
from l4raw.core.hashing import scale
from l4raw.core.model import Flows, Limits, Mode, Scheduler, Service
from l4raw.engine.layout import Sizes
from l4raw.engine.redirect import possible_cpus
from l4raw.engine.shared import SharedTables
from l4raw.wire import tcp
from l4raw.wire.abi import DROP_NEXT_HOPS_FULL, FLOW_UDP_NEW, FORWARD, NEXT_HOPS, SLOTS, STRIPES
from tests import churn
from tests.crafted import TCP, UDP, Tuple5, build
from tests.executors import Reference, state
from tests.kernel import LOOPBACK, NOWHERE, PASS, ROOT, Kernel, made_by_kernel, of_sizes
from tests.noise import KEY
from tests.tables import (
    CLIENT_MAC,
    OUR_MACS,
    VIP,
    VIP_V6,
    backends,
    backends_v6,
    ip,
    make_tables,
    service,
)

pytestmark = [pytest.mark.native, pytest.mark.skipif(not ROOT, reason="loads a program: root")]

COUNT = 50
IN_KERNEL = [mode for mode in Mode if mode is not Mode.FULLNAT]
PORT = 8080
"""Of backends under NAT."""
BY_TABLES = [scheduler for scheduler in Scheduler if scheduler not in (Scheduler.LC, Scheduler.WLC)]


def frame(client: int, protocol: int = UDP, flags: int = tcp.SYN, vip: bytes = VIP) -> bytes:
    """The first one of this client."""
    src = ip(f"10.79.{client >> 8}.{client & 255}" if vip == VIP else f"2001:db8:79::{client:x}")
    return bytes(build(Tuple5(src, 4000, vip, 80, protocol), (OUR_MACS[0], mac_of(client)), flags))


def mac_of(client: int) -> bytes:
    """Three of them are behind each router."""
    return CLIENT_MAC[:5] + bytes([100 + client // 3])


def kernel(*services: Service, memory: int = 1 << 20, hops: int = NEXT_HOPS) -> Kernel:
    """An executor over these."""
    return Kernel(make_tables(list(services), arms=2, memory=memory, hops=hops, new=Kernel.new))


@pytest.mark.parametrize("vip", [VIP, VIP_V6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("protocol", [UDP, TCP])
@pytest.mark.parametrize("scheduler", BY_TABLES)
@pytest.mark.parametrize("mode", IN_KERNEL)
def test_it_makes_the_flows_that_tables_answer(
    mode: Mode, scheduler: Scheduler, protocol: int, vip: bytes
) -> None:
    make = backends if vip == VIP else backends_v6
    members = make(port=PORT if mode is Mode.NAT else 0)
    one = service(mode, scheduler, protocol=protocol, vip=vip, members=members)
    executors = Reference(make_tables([one], arms=2, memory=1 << 20)), kernel(one)
    for client in range(COUNT):
        given = frame(client, protocol, vip=vip)
        expected, outcome = (each.run(given, 0, 0) for each in executors)
        assert outcome.verdict == expected.verdict == FORWARD and outcome.frame == expected.frame
    assert executors[1].forwarded == executors[1].admitted == COUNT
    before, after = (state(each.tables) for each in executors)
    assert [name for name in before if before[name] != after[name]] == []


@pytest.mark.parametrize(
    "one",
    [
        service(Mode.FULLNAT, members=backends(port=PORT), protocol=UDP),
        service(Mode.NAT, Scheduler.LC, members=backends(port=PORT), protocol=UDP),
        service(Mode.NAT, limits=Limits(flows=1000), protocol=UDP),
        service(scheduler=Scheduler.LC, protocol=UDP),
        service(scheduler=Scheduler.WLC, protocol=UDP),
        service(limits=Limits(flows=1000), protocol=UDP),
        service(limits=Limits(client_new_per_s=1000), protocol=UDP),
        service(affinity=60_000, protocol=UDP),
        service(mss_clamp=1400),
    ],
    ids=[
        *("fullnat", "nat and lc", "nat and limit"),
        *("lc", "wlc", "limit of flows", "limit of a client", "affinity", "MSS"),
    ],
)
def test_it_leaves_the_others_to_the_helper(one: Service) -> None:
    executor = kernel(one)
    for client in range(COUNT):
        assert executor.run(frame(client, one.protocol), 0, 0).verdict == FORWARD
    assert executor.forwarded == executor.admitted == 0 and len(executor.tables.flows) >= COUNT


@pytest.mark.parametrize("mode", [Mode.DSR_L2, Mode.NAT])
def test_it_leaves_them_to_the_helper_when_half_open_flows_fill_their_share(mode: Mode) -> None:
    executor = kernel(service(mode, protocol=UDP), memory=1 << 16)
    share = executor.tables.flows.share.limit
    for client in range(share + COUNT):
        assert executor.run(frame(client), 0, 0).verdict == FORWARD
    assert executor.admitted == share
    assert len(executor.tables.flows) == share * (2 if mode is Mode.NAT else 1)


def test_it_leaves_them_to_the_helper_when_all_next_hops_are_in_use() -> None:
    """That looks whether the client's is known; what is not, has the reference's verdict."""
    one, hops = service(Mode.NAT, protocol=UDP), len(backends()) + 2
    executors = Reference(make_tables([one], arms=2, memory=1 << 20, hops=hops)), kernel(one, hops=hops)
    verdicts = []
    for client in (0, 1, 3, 4, 2, 5, 6, 7):
        expected, outcome = (each.run(frame(client), 0, 0) for each in executors)
        verdicts.append(outcome.verdict)
        assert outcome == expected or outcome.verdict == expected.verdict == DROP_NEXT_HOPS_FULL
    assert verdicts == [FORWARD] * 6 + [DROP_NEXT_HOPS_FULL] * 2
    before, after = (state(each.tables) for each in executors)
    assert [name for name in before if before[name] != after[name]] == []
    assert executors[1].admitted == 3, "the first of its router that finds no free hop is the helper's"


def held(tables: SharedTables, what: str) -> None:
    """As if a thread were at work."""
    if what == "stripe":
        for stripe in range(STRIPES):
            tables.layout.at["stripes"][stripe] = 1
    elif what == "share":
        tables.layout.control.share_lock = 1
    elif what == "hops":
        tables.layout.control.hop_lock = 1
    else:
        flows = tables.flows
        value = flows.hash(flow_of(2))
        own = {scale(value >> 32, flows.buckets), scale(value & 0xFFFF_FFFF, flows.buckets)}
        for index in range(flows.entries):
            if what == "entry" or index // SLOTS not in own:
                tables.layout.at["flows"][index].lock |= 1


@pytest.mark.parametrize(
    ("mode", "what"),
    [
        *((Mode.DSR_L2, what) for what in ("stripe", "share", "entry")),
        *((Mode.NAT, what) for what in ("stripe", "share", "entry", "peer", "hops")),
    ],
)
def test_it_leaves_all_as_it_was_when_a_lock_is_held(mode: Mode, what: str) -> None:
    executor = kernel(service(mode, scheduler=Scheduler.RR, protocol=UDP))
    assert executor.run(frame(1), 0, 0).verdict == FORWARD and executor.admitted == 1
    tables: Any = executor.tables
    assert tables.flows.read(tables.flows.find(flow_of(1)) or 0).state == FLOW_UDP_NEW
    held(tables, what)
    before = whole(tables)
    ran = executor._loaded.redirect._program.run(frame(2))
    assert ran.action == PASS and ran.frame == frame(2)
    assert whole(tables) == before


def flow_of(client: int) -> Any:
    """The key of a client's flow."""
    return flow_key(ip(f"10.79.{client >> 8}.{client & 255}"), 4000, VIP, 80, UDP)


def whole(tables: SharedTables) -> dict[str, object]:
    """What an attempt could have left."""
    control, hops = tables.layout.control, tables.next_hops
    return {
        "flows": bytes(tables.flows.buffer),
        "used": (control.used, control.half_open_used),
        "usage": bytes(tables.counts.usage),
        "hops": [(hops.macs[i], hops.references(i)) for i in range(len(hops.macs))],
        "hops in use": (control.hop_count, control.hop_free, control.hop_freed),
        "cursor": tables.cursors[0],
        "traffic": [tables.total_traffic(number) for number in range(len(tables.backends))],
        "verdicts": tables.total_verdicts(),
    }


def test_owners_of_a_service_are_not_in_the_ring_of_the_next() -> None:
    """Both are in one array: see screen.h."""
    members = backends(4)
    first = replace(service(scheduler=Scheduler.MAGLEV, members=members), flows=Flows.TRACK_CHANGES)
    second = service(scheduler=Scheduler.MAGLEV, name="other", port=81, members=members[2:])
    executors = Reference(make_tables([first, second], arms=2)), kernel(first, second)
    for client in range(COUNT):
        for port in (80, 81):
            of = Tuple5(ip(f"10.79.0.{client}"), 4000, VIP, port, TCP)
            for flags in (tcp.ACK, tcp.SYN):
                given = bytes(build(of, (OUR_MACS[0], CLIENT_MAC), flags))
                expected, outcome = (each.run(given, 0, 0) for each in executors)
                assert outcome.frame == expected.frame and outcome.verdict == expected.verdict


@pytest.mark.parametrize("clients", [churn.CROWD, churn.FEW])
def test_the_kernel_queues_and_python_are_at_work_at_once(clients: int, tmp_path: Path) -> None:
    """What must hold meanwhile and afterwards: tests/churn.py. Queues and program see the same clients."""
    sizes = Sizes(churn.MEMORY, queues=churn.QUEUES, next_hops=churn.HOPS, cpus=possible_cpus())
    tables = of_sizes(churn.ARMS, KEY, sizes)
    tables.interfaces_are((LOOPBACK, NOWHERE))

    def steered(frames: bytes, is_over: Callable[[], bool]) -> None:
        program, number = tables.loaded.redirect._program, 0
        while not is_over():
            for at in (number * 192, number * 192 + 64):
                syn = frames[at : at + 54]
                program.run(syn)
                program.run(syn[:47] + bytes([tcp.ACK]) + syn[48:])
            number = (number + 7) % (len(frames) // 192)

    def least() -> int:
        """Of what the program does: frames of known flows, and flows begun of either kind."""
        made, under_nat = made_by_kernel(tables), made_by_kernel(tables, "nat")
        # Few clients' flows are there as a rule: a queue was faster.
        begun = [made - under_nat, under_nat] if clients == churn.CROWD else []
        return min([tables.by_kernel() - made, *begun])

    seen = churn.run(churn.shim(tmp_path), 2.0, clients, tables, steered, lambda: least() > 100)
    assert seen["sent"] > 10_000
    assert least() > 100
