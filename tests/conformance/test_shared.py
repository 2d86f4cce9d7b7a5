"""Tables that the helper and Python share: the same from either side, in any memory, under contention."""

from __future__ import annotations

import time
from collections import Counter
from mmap import mmap
from pathlib import Path
from random import Random
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet import TCP as TCP_LAYER
from scapy.packet import Raw

from l4raw.core.flows import flow_key
from l4raw.core.model import Limits, Mode, Scheduler
from l4raw.core.rewrite import apply
from l4raw.core.room import bytes_for
from l4raw.core.states import expire
from l4raw.core.steer import steer
from l4raw.core.tables import compile_policy
from l4raw.engine import native
from l4raw.engine.layout import Sizes
from l4raw.engine.memory import given
from l4raw.engine.shared import SharedFlows, SharedTables
from l4raw.wire import tcp
from l4raw.wire.abi import (
    DROP_NO_SERVICE,
    DROP_SERVICE_RATE,
    FLOW_ESTABLISHED,
    FLOW_FREE,
    FLOW_UDP,
    FORWARD,
    MISS,
    MISS_NAMES,
    MISS_RULE,
    NONE,
    PASS_NOT_OURS,
    REPLY_TAKEN,
    TAKEN,
)
from tests.churn import CROWD, FEW, check, run, shim
from tests.crafted import TCP, Tuple5, build
from tests.executors import Helper, OverShared, Reference, state
from tests.noise import KEY
from tests.tables import (
    CLIENT_BUCKETS,
    CLIENT_MAC,
    OUR_MACS,
    SEED,
    SOURCES,
    VIP,
    New,
    backends,
    counted,
    ip,
    make_tables,
    plain,
    service,
    shared,
)
from tests.variants import NOT_INLINED, Patch, load
from tests.variants import build as compiled

pytestmark = pytest.mark.native


def syn(port: int, dport: int = 80) -> bytes:
    return bytes(build(Tuple5(ip("10.77.0.1"), port, VIP, dport, TCP), (OUR_MACS[0], CLIENT_MAC), 2))


def test_flows_are_put_found_touched_and_deleted_as_in_the_reference() -> None:
    """Filled beyond its buckets, emptied, and filled again: also the overflow area and its marks."""
    memory, random = bytes_for(64), Random(5)
    worlds = [make_tables([service(Mode.NAT)], 2, memory=memory, new=new) for new in (plain, shared)]
    one_table, both = (world.flows for world in worlds)
    (hop,) = {world.next_hops.learn(0, CLIENT_MAC) for world in worlds}
    live: list[int] = []
    for step in range(4000):
        if live and random.random() < 0.45:
            index = live.pop(random.randrange(len(live)))
            peer, lock = one_table.read(index).peer, one_table.read(index).lock
            for world in worlds:
                assert [world.free(index, each) for each in (lock + 2, lock, lock)] == [False, True, False]
            live = [each for each in live if each != peer - 1]
        elif len(live) % 97 < 90:
            key, full = flow_key(random.randbytes(4), step, VIP, 80, TCP), len(both) >= both.capacity
            (index,) = {table.insert(key, FLOW_UDP, 1, 2, 0, step) for table in (one_table, both)}
            assert (index < 0) == full
            live += [index] if index >= 0 else []
        else:
            one, other = (flow_key(random.randbytes(4), step, VIP, port, TCP) for port in (1, 2))
            assert {world.next_hops.learn(0, CLIENT_MAC) for world in worlds} == {hop}
            (index,) = {t.insert_pair(one, other, FLOW_UDP, 1, 2, hop, step) for t in (one_table, both)}
            live += [index, one_table.read(index).peer - 1] if index >= 0 else []
            if index < 0:
                for world in worlds:
                    world.next_hops.release(hop)
        if live:
            chosen = random.choice(live)
            for table in (one_table, both):
                table.touch(chosen, table.read(chosen), FLOW_ESTABLISHED, step, step, 7)
            assert {table.find(one_table.key(chosen)) for table in (one_table, both)} == {chosen}
            assert one_table.read(chosen) == both.read(chosen)
        assert len(one_table) == len(both)
    assert bytes(one_table.buffer) == bytes(both.buffer)
    ended = [world.total_traffic(2).ended for world in worlds]
    assert ended[0] == ended[1] > 1000
    assert worlds[0].next_hops.references(hop) == worlds[1].next_hops.references(hop)


def test_a_key_is_put_once() -> None:
    tables = make_tables([service(Mode.NAT)], arms=2, new=shared)
    key, reply = flow_key(VIP, 1, VIP, 80, TCP), flow_key(VIP, 80, VIP, 1, TCP)
    hop = tables.next_hops.learn(0, CLIENT_MAC)
    index = tables.flows.insert_pair(key, reply, FLOW_UDP, 1, 1, hop, 0)
    assert tables.flows.insert_pair(key, reply, FLOW_UDP, 1, 1, hop, 0) == TAKEN
    assert tables.flows.insert(key, FLOW_UDP, 1, 1, 0, 0) == TAKEN
    other = flow_key(VIP, 2, VIP, 80, TCP)
    assert tables.flows.insert_pair(other, reply, FLOW_UDP, 1, 1, 0, 0) == REPLY_TAKEN
    assert tables.flows.find(key) == index and len(tables.flows) == 2


@pytest.mark.parametrize("mode", Mode)
def test_a_flow_that_a_queue_has_made_meanwhile_is_one_flow(
    mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python has looked, and found no entry; when it puts its own, another's is there."""
    tables = make_tables([service(mode, Scheduler.RR)], arms=2, new=shared)
    assert isinstance(tables.flows, SharedFlows)
    helper, put = Helper(tables), tables.flows._put

    def late(flow: Any, reply: Any) -> int:
        assert helper.run(syn(7), 0, 0).verdict == FORWARD
        return put(flow, reply)

    monkeypatch.setattr(tables.flows, "_put", late)
    decision = steer(syn(7), 0, 0, tables)
    assert decision.forwarded and decision.backend is not None and decision.backend.backend.name == "b2"
    assert [tables.current_flows(i) for i in range(4)] == counted(tables) == [0, 0, 1, 0]
    assert sum(tables.total_traffic(i).flows for i in range(4)) == 1
    assert len(tables.flows) == (2 if mode.is_nat else 1)
    assert sum(map(tables.next_hops.references, range(len(tables.next_hops.macs)))) == mode.is_nat


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("frame", ["a segment", "a reply", "an error of the client", "an error inside"])
def test_a_flow_that_a_queue_frees_while_python_looks_it_up(
    frame: str, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its key stays in its entry, which says nothing more: it is no flow, and nothing is known of it."""
    tables = make_tables([service(mode)], arms=2, new=shared)
    sent, arm = bytearray(syn(7)), int(frame in ("a reply", "an error inside"))
    decision = steer(sent, 0, 0, tables)
    apply(sent, decision.edits)
    mine = IP(syn(7)[14:] if not arm else bytes(sent[14:]))
    back = IP(src=mine.dst, dst=mine.src) / TCP_LAYER(sport=80, dport=mine.sport, flags="A")
    given = {
        "a segment": IP(syn(7)[14:]),
        "a reply": back,
        "an error of the client": IP(src="10.9.9.9", dst=mine.dst) / ICMP(type=3, code=4) / Raw(bytes(back)),
        "an error inside": IP(src="10.78.0.1", dst=mine.src) / ICMP(type=3, code=4) / Raw(bytes(mine)),
    }[frame]
    find, freed = tables.flows.find, list[bool]()

    def late(key: bytes) -> int:
        index = find(key)
        if index >= 0 and not freed:
            freed.append(tables.free(index, tables.flows.read(index).lock))
        return index

    monkeypatch.setattr(tables.flows, "find", late)
    macs = bytes(OUR_MACS[arm]), bytes(CLIENT_MAC)
    decision = steer(b"".join(macs) + b"\x08\0" + bytes(given), arm, 0, tables)
    assert decision.name in ("forward", "pass_not_ours", "drop_snat_no_flow", "drop_icmp")
    assert decision.flow < 0 or frame == "a segment"


@pytest.mark.parametrize("mode", Mode)
def test_lc_counts_the_flows_that_queues_have_made(mode: Mode) -> None:
    """As after a reload that changes the scheduler: those of rr, of C and of Python, are there already."""
    tables = make_tables([service(mode, Scheduler.RR)], arms=2, new=shared)
    helper, reference = Helper(tables), OverShared(tables)
    for port in range(7):
        assert (helper if port % 2 else reference).run(syn(port), 0, 0).verdict == FORWARD
    hops = {b.address: (index, 1) for index, b in enumerate(backends(), start=1)}
    fewest = [service(mode, Scheduler.LC)]
    tables.install(compile_policy(fewest, hops, SEED, None, tables.policy, SOURCES))
    assert [tables.current_flows(i) for i in range(4)] == counted(tables) == [0, 3, 2, 2]
    before = [counted(tables)[i] for i in range(4)]
    for port in (10, 11):
        assert helper.run(syn(port), 0, 0).verdict == FORWARD
    assert counted(tables) == [0, before[1], before[2] + 1, before[3] + 1]
    tables.now = 60_001
    assert expire(tables, tables.flows.entries + tables.flows.overflow) == 9
    assert [tables.current_flows(i) for i in range(4)] == counted(tables) == [0] * 4


@pytest.mark.parametrize("new", [plain, shared])
@pytest.mark.parametrize("limits", [Limits(new_per_s=3), Limits(client_new_per_s=3)])
def test_a_level_is_not_emptied_by_who_has_read_the_clock_before_it_ticked(limits: Limits, new: New) -> None:
    """Of two queues at once the second may find the stamp of the first to be later than its own time."""
    tables = make_tables([service(limits=limits)], new=new)

    def taken(now: int) -> int:
        tables.now = now & 0xFFFF_FFFF
        return sum(tables.counts.take(1, limits, VIP, tables.now) == FORWARD for _ in range(5))

    assert [taken(now) for now in (0, 10, 0, 10, 0)] == [3, 0, 0, 0, 0]
    assert [taken(now) for now in (340, 330, 340, 330)] == [1, 0, 0, 0], "nor does it begin again"
    for client in map(bytes, ([10, 0, 0, i] for i in range(50))):
        assert tables.counts.take(1, limits, client, tables.now) in (FORWARD, DROP_SERVICE_RATE)
        tables.counts.end(1, client)
    tables.now = 329
    assert tables.counts.take(1, limits, VIP, tables.now) != FORWARD, "nor is its place another's"


def test_memory_that_was_given_is_used_like_any_other() -> None:
    """As a map of the kernel would be: each table in a mapping that somebody else has made."""
    made: dict[str, mmap] = {}

    def remember(name: str, size: int) -> mmap:
        made[name] = mmap(-1, size + 4096)
        return made[name]

    room = {"services": 4, "backends": 8, "addresses": 16, "next_hops": 20, "client_buckets": CLIENT_BUCKETS}
    sizes = Sizes(1 << 16, queues=2, **room)
    SharedTables((), KEY, sizes, remember)
    made = {name: mmap(-1, len(memory)) for name, memory in made.items()}

    def new(arms: Any, key: Any, memory: int, hops: int) -> SharedTables:
        return SharedTables(arms, key, sizes, given(made))

    services = [service(Mode.NAT, Scheduler.MODULO)]
    helper = Helper(make_tables(services, 2, hops=20, new=new))
    reference = Reference(make_tables(services, 2, hops=20))
    for port in range(100):
        assert helper.run(syn(port), 0, 0) == reference.run(syn(port), 0, 0)
    left, expected = state(helper.tables), state(reference.tables)
    # The mapping is larger than was asked for, as pages are.
    assert bytes(made["flows"])[: 1 << 16] == expected.pop("flows")
    assert {name: left[name] for name in expected} == expected
    made.pop("rings")
    with pytest.raises(ValueError, match=r"table rings needs a mapping of \d+ bytes, there is none"):
        SharedTables((), KEY, sizes, given(made))


def test_what_no_look_up_answers_is_a_miss_and_python_decides() -> None:
    tables = make_tables([service()], new=shared)
    assert isinstance(tables, SharedTables)
    helper = Helper(tables)
    for half in (0, 1):
        tables.layout.at["services"][half * tables.layout.sizes.services + 1].rule = 9
    before = state(tables)
    view, result = tables.view(0), native.ffi.new("struct l4_result *")
    frame = bytearray(syn(1))
    given = native.ffi.new("struct l4_frame *", {"size": len(frame)})
    given.data = native.ffi.from_buffer("uint8_t[]", frame)
    assert native.lib.l4_steer(view, given, result) == MISS
    assert (result.miss, bytes(frame), state(tables)) == (MISS_RULE, syn(1), before)
    assert helper.run(syn(1), 0, 0).verdict == FORWARD
    assert tables.misses() == {name: int(name == "rule") for name in MISS_NAMES}
    assert tables.verdicts[FORWARD] == 1, "Python counts what it decides"
    # And the next one of the flow is a look-up.
    assert helper.run(syn(1), 0, 0).verdict == FORWARD
    assert tables.misses()["rule"] == 1 and tables.total_verdicts()[FORWARD] == 2


@pytest.mark.parametrize("mode", [Mode.DSR_L2, Mode.NAT])
def test_frames_of_a_flow_whose_service_the_policy_has_lost(mode: Mode) -> None:
    """And finds again; in both halves, since each may have the row of a service that was there before."""
    both, other = [service(mode), service(mode, name="other", port=81)], service(mode, name="other", port=81)
    hops = {b.address: (index, 1) for index, b in enumerate(backends(), start=1)}
    executors = [executor(make_tables(both, arms=2, new=executor.new)) for executor in (Reference, Helper)]
    ack = bytes(build(Tuple5(ip("10.77.0.1"), 7, VIP, 80, TCP), (OUR_MACS[0], CLIENT_MAC), tcp.ACK))
    for each in executors:
        seen = [each.run(syn(7), 0, 0).verdict]
        for services in (both, both, [other], [other], both, [], []):
            each.tables.install(compile_policy(services, hops, SEED, previous=each.tables.policy))
            seen.append(each.run(ack, 0, 0).verdict)
        assert seen == [FORWARD] * 3 + [DROP_NO_SERVICE] * 2 + [FORWARD] + [PASS_NOT_OURS] * 2
        assert not isinstance(each.tables, SharedTables) or not sum(each.tables.misses().values())


def test_a_half_is_not_written_while_a_queue_may_read_it() -> None:
    tables = make_tables([service()], new=shared)
    assert isinstance(tables, SharedTables)
    view = tables.view(1)
    native.lib.l4_online(view)
    tables.install(tables.policy)
    assert not native.lib.l4_settled(tables.view(0))
    with pytest.raises(RuntimeError, match="a queue has not finished a burst"):
        tables.install(tables.policy)
    native.lib.l4_pass(view)
    tables.install(tables.policy)
    native.lib.l4_offline(view)
    tables.install(tables.policy)


def test_a_policy_that_does_not_fit_says_what_is_too_many_and_changes_nothing() -> None:
    tables = SharedTables((), KEY, Sizes(1 << 16, ring_slots=10, services=3, backends=8))
    hops = {backend.address: (1, 0) for backend in backends(9)}
    for wrong, text in (
        ([service(scheduler=Scheduler.MAGLEV)], "room for 10 ring slots, the configuration needs 65537"),
        ([service(members=backends(9))], "room for 8 backends, the configuration needs 10"),
        ([service(name=f"{i}", port=i) for i in range(1, 5)], "room for 3 services, .* needs 5"),
    ):
        before = tables.layout.control.generation
        with pytest.raises(OverflowError, match=text):
            tables.install(compile_policy(wrong, hops, SEED))
        assert tables.layout.control.generation == before and tables.policy.find(VIP, 80, TCP) is None


ENOUGH_S = 60.0
"""On a machine that does much else, the threads meet less often."""


@pytest.mark.parametrize("clients", [CROWD, FEW])
def test_queues_and_python_at_once(clients: int, tmp_path: Path, record_property: Any) -> None:
    module, seen, latest = shim(tmp_path), Counter[str](), time.monotonic() + ENOUGH_S
    while not (seen["sent"] > 10_000 and seen["expired"] > 100 and seen["by python"] > 10):
        assert time.monotonic() < latest, f"they hardly met: {dict(seen)}"
        seen += run(module, 1.5, clients)
    record_property("figure", f"three queues and Python, {clients} clients: {dict(seen)}")


@pytest.mark.parametrize("mode", [Mode.DSR_L2, Mode.NAT])
def test_a_flow_that_was_established_meanwhile_is_not_evicted(mode: Mode, tmp_path: Path) -> None:
    """Its state is not a part of the generation: it is looked at again when the entry is taken."""
    module, tables = shim(tmp_path), make_tables([service(mode)], arms=2, new=shared)
    assert isinstance(tables, SharedTables)
    own = tables.view(0)  # a cast keeps nothing alive
    view = module.ffi.cast("void *", own)
    first, second = (steer(syn(port), 0, 0, tables).flow for port in (7, 8))
    seen = [tables.flows.read(flow) for flow in (first, second)]
    tables.flows.touch(first, seen[0], FLOW_ESTABLISHED, 5, 2, 99)
    results = [
        module.lib.evict(view, flow, e.lock, e.sequence)
        for flow, e in zip((first, second), seen, strict=True)
    ]
    assert results == [NONE, 0]
    states = [tables.flows.read(flow).state for flow in (first, second)]
    assert states == [FLOW_ESTABLISHED, FLOW_FREE]
    assert tables.flows.read(first).sequence == 99 and len(tables.flows) == 1 + mode.is_nat
    check(tables)
    assert tables.free(first, seen[0].lock), "its entries are not locked"


FLOWS, INSERT = "src/flows.h", "src/insert.h"
WITHOUT = {
    "stripes": [
        Patch(INSERT, "if (!first || !second || !l4_try_lock(first))", "if (!first || !second)"),
        Patch(INSERT, "if (second != first && !l4_try_lock(second)) {", "if (0) {"),
    ],
    "second look": [Patch(FLOWS, "return l4_load(&entry->lock) == generation;", "return true;")],
}


@pytest.mark.parametrize("what", WITHOUT)
def test_the_race_is_noticed_without(what: str, tmp_path: Path) -> None:
    module = shim(tmp_path, load(compiled(tmp_path, (NOT_INLINED, *WITHOUT[what]), ("-O2",))))
    with pytest.raises((AssertionError, RuntimeError)):
        for _ in range(20):
            for clients in (CROWD, FEW):
                run(module, 1.5, clients)
