"""What steer() does beyond single frames: flows that stay, tables that fill, policies that change."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from random import Random

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether

from l4raw.core.decision import Decision
from l4raw.core.flows import flow_key
from l4raw.core.model import Backend, Mode, Scheduler
from l4raw.core.steer import steer
from l4raw.core.tables import Tables, compile_policy
from l4raw.wire.abi import END_WINDOW, FLOW_CLOSING, FLOW_ESTABLISHED, FLOW_HALF_OPEN, OPEN_WINDOW
from tests.tables import (
    OUR_MACS,
    SEED,
    SOURCES,
    VIP,
    backends,
    counted,
    ip,
    make_tables,
    service,
    tables_named,
    weighted,
)


def request(
    sport: int = 1000, flags: str = "S", src: str = "10.77.0.1", mac: str = "02:00:00:00:00:01"
) -> bytes:
    """Each side's SYN has the number 0, and neither has sent data."""
    segment = TCP(sport=sport, dport=80, flags=flags, seq="S" not in flags, ack="A" in flags)
    return bytes(Ether(src=mac, dst="02:00:00:00:00:02") / IP(src=src, dst="10.77.0.100") / segment)


def reply(dport: int = 1000, flags: str = "SA", src: str = "10.78.0.11") -> bytes:
    ether = Ether(src="02:00:00:00:00:0b", dst="02:00:00:00:00:03")
    segment = TCP(sport=80, dport=dport, flags=flags, seq="S" not in flags, ack="A" in flags)
    return bytes(ether / IP(src=src, dst="10.77.0.1") / segment)


def connect(tables: Tables, port: int = 1000) -> Decision:
    """The handshake of a client; what became of its SYN."""
    opened = decide(tables, request(port))
    if opened.flow >= 0 and (peer := tables.flows.read(opened.flow).peer):
        (src, sport), (dst, dport) = tables.flows.ends(peer - 1)
        segment = IP(src=IPv4Address(src), dst=IPv4Address(dst)) / TCP(sport=sport, dport=dport, flags="SA")
        ether = Ether(src="02:00:00:00:00:0b", dst=tables.arms[-1].mac.hex(":"))
        assert decide(tables, bytes(ether / segment), len(tables.arms) - 1).name == "reply"
    if opened.flow >= 0:
        decide(tables, request(port, "A"))
    return opened


def backend_of(decision: Decision) -> str:
    assert decision.forwarded and decision.backend is not None, decision.name
    return decision.backend.backend.name


def decide(tables: Tables, frame: bytes, arm: int = 0) -> Decision:
    return steer(frame, arm, 0, tables)


def test_rr_takes_each_backend_in_turn() -> None:
    tables = make_tables([service()])
    assert [backend_of(decide(tables, request(port))) for port in range(6)] == ["b1", "b2", "b3"] * 2


def test_known_flows_stay_when_rr_has_moved_on_and_when_the_ring_is_swapped() -> None:
    for mode in Mode:
        tables = make_tables([service(mode)], arms=2, memory=1 << 18)
        chosen = {port: backend_of(decide(tables, request(port))) for port in range(1000, 1100)}
        hops = {b.address: (i + 1, 1) for i, b in enumerate(sorted(backends(), key=lambda b: b.address))}
        hops |= {ip("10.78.0.14"): (tables.next_hops.pin(1, b"\x02\0\0\0\0\x0e"), 1)}
        other = service(mode, Scheduler.MAGLEV, members=(*backends()[1:], Backend("b4", ip("10.78.0.14"))))
        tables.install(compile_policy([other], hops, SEED, None, tables.policy, SOURCES))
        again = {port: backend_of(decide(tables, request(port, "A"))) for port in chosen}
        assert again == chosen
        assert all(decide(tables, request(port, "A")).pick is None for port in chosen)
        new = {backend_of(decide(tables, request(port))) for port in range(2000, 2100)}
        assert new == {"b2", "b3", "b4"}


def test_a_policy_without_the_vip_leaves_its_frames_to_the_kernel() -> None:
    tables = make_tables([service(Mode.NAT)], arms=2)
    decide(tables, request())
    tables.install(compile_policy([], {}, SEED, previous=tables.policy))
    assert decide(tables, request(flags="A")).name == "pass_not_ours"
    assert decide(tables, reply(), 1).name == "reply", "the flow lives on"


def test_a_service_that_changes_its_mode_keeps_the_old_one_for_known_flows() -> None:
    tables = make_tables([service(Mode.DSR_L2)])
    decide(tables, request())
    hops = {b.address: (i + 1, 0) for i, b in enumerate(sorted(backends(), key=lambda b: b.address))}
    tables.install(compile_policy([service(Mode.NAT)], hops, SEED, previous=tables.policy))
    assert [edit[0] for edit in decide(tables, request(flags="A")).edits] == ["eth.dst", "eth.src"]
    assert "ip.dst" in [edit[0] for edit in decide(tables, request(2000)).edits]


def test_replies_go_to_the_mac_that_the_first_frame_came_from() -> None:
    tables = make_tables([service(Mode.NAT)], arms=2)
    decide(tables, request(1000, mac="02:00:00:00:00:aa"))
    decide(tables, request(1000, "A", mac="02:00:00:00:00:bb"))
    answer = decide(tables, reply(1000), arm=1)
    assert answer.name == "reply" and answer.arm == 0
    assert answer.edits[0] == ("eth.dst", 0, b"\x02\0\0\0\0\x03", b"\x02\0\0\0\0\xaa")


def test_a_client_on_the_backends_side_gets_its_replies_there() -> None:
    tables = make_tables([service(Mode.NAT)], arms=2)
    frame = bytearray(request(1000, mac="02:00:00:00:00:aa"))
    frame[5] = OUR_MACS[1][5]
    assert decide(tables, bytes(frame), arm=1).arm == 1
    answer = decide(tables, reply(1000), arm=1)
    assert (answer.name, answer.arm) == ("reply", 1)
    assert [edit[3] for edit in answer.edits[:2]] == [b"\x02\0\0\0\0\xaa", OUR_MACS[1]]


def test_rr_keeps_its_place_when_the_policy_is_replaced_and_at_the_end_of_32_bits() -> None:
    tables = make_tables([service(), service(name="other", port=81)])
    decide(tables, request(1))
    hops = {b.address: (i + 1, 0) for i, b in enumerate(backends())}
    again = [service(name="other", port=81), service()]
    tables.install(compile_policy(again, hops, SEED, previous=tables.policy))
    assert backend_of(decide(tables, request(2))) == "b2"
    assert tables.cursors == [0, 2, 0]
    tables.cursors[1] = 0xFFFF_FFFF
    assert backend_of(decide(tables, request(3))) == "b1"
    assert tables.cursors[1] == 0


def test_no_backend_takes_new_flows() -> None:
    tables = make_tables([service(members=(Backend("b1", ip("10.78.0.11"), weight=0),))])
    assert decide(tables, request()).name == "drop_no_backend"


def test_a_refused_flow_names_the_backend_that_it_would_have_had() -> None:
    tables = tables_named("dsr-unknown-mac")
    decision = decide(tables, request())
    assert (decision.name, len(tables.flows)) == ("drop_next_hop_unknown", 0)
    assert decision.backend is not None and decision.backend.backend.name == "b1"


def test_a_full_flow_table_refuses_new_flows_and_keeps_the_old_ones() -> None:
    for mode, each in ((Mode.DSR_L2, 1), (Mode.NAT, 2)):
        tables = make_tables([service(mode)], arms=2, memory=(1 << 15) + 512)
        assert tables.flows.capacity % 2, "an odd one, so that the last pair has room for one of two"
        room = tables.flows.capacity // each
        names = {connect(tables, port).name for port in range(room)}
        assert names == {"forward"}
        assert {decide(tables, request(port)).name for port in range(room, room + 9)} == {"drop_flows_full"}
        assert len(tables.flows) == room * each
        assert decide(tables, request(5, "A")).name == "forward"
        assert len(tables.next_hops) == 3 + (1 if mode is Mode.NAT else 0)


def test_a_full_next_hop_table_refuses_new_nat_flows() -> None:
    tables = make_tables([service(Mode.NAT)], arms=2, hops=4)
    assert decide(tables, request(1)).name == "forward"
    assert decide(tables, request(2, mac="02:00:00:00:00:99")).name == "drop_next_hops_full"
    assert decide(tables, request(3)).name == "forward"
    assert len(tables.flows) == 4


def test_a_backend_whose_mac_is_lost_drops_known_flows_until_it_is_back() -> None:
    tables = make_tables([service(members=backends(1))])
    decide(tables, request())
    tables.next_hops.set_mac(1, None)
    assert decide(tables, request(flags="A")).name == "drop_next_hop_unknown"
    tables.next_hops.set_mac(1, b"\x02\0\0\0\0\x77")
    assert decide(tables, request(flags="A")).edits[0][3] == b"\x02\0\0\0\0\x77"


def test_maglev_finds_the_backend_of_an_unknown_flow_in_mid_stream() -> None:
    one, two = (make_tables([service(scheduler=Scheduler.MAGLEV)]) for _ in range(2))
    for port in range(50):
        assert backend_of(decide(one, request(port))) == backend_of(decide(two, request(port, "A")))


def test_sh_keeps_a_client_at_its_backend_also_in_mid_stream() -> None:
    one, two = (make_tables([service(scheduler=Scheduler.SH)]) for _ in range(2))
    names = set()
    for client in range(20):
        (name,) = {backend_of(decide(one, request(port, src=f"10.77.1.{client}"))) for port in range(5)}
        assert backend_of(decide(two, request(9, "A", src=f"10.77.1.{client}"))) == name
        names.add(name)
    assert names == {"b1", "b2", "b3"}


@pytest.mark.parametrize("scheduler", [Scheduler.RR, Scheduler.WRR, Scheduler.LC, Scheduler.WLC])
def test_what_is_no_function_of_the_flow_does_not_guess_in_mid_stream(scheduler: Scheduler) -> None:
    assert decide(make_tables([service(scheduler=scheduler)]), request(flags="A")).name == "drop_no_flow"


@pytest.mark.parametrize("scheduler", Scheduler)
def test_weight_zero_takes_no_new_flow_and_keeps_those_it_has(scheduler: Scheduler) -> None:
    tables = make_tables([service(scheduler=scheduler)], memory=1 << 18)
    began = {port: backend_of(decide(tables, request(port, src=f"10.77.1.{port}"))) for port in range(1, 31)}
    assert set(began.values()) == {"b1", "b2", "b3"}
    hops = {b.address: (i + 1, 0) for i, b in enumerate(backends())}
    for weights, left in (((1, 0, 1), {"b1", "b3"}), ((0, 0, 0), set())):
        members = weighted(*weights)
        again = [service(scheduler=scheduler, members=members)]
        tables.install(compile_policy(again, hops, SEED, previous=tables.policy))
        net = f"10.77.{2 + len(left)}"
        new = [decide(tables, request(99, src=f"{net}.{client}")) for client in range(100, 130)]
        if left:
            assert {backend_of(each) for each in new} == left
        else:
            assert {each.name for each in new} == {"drop_no_backend"}
        for port, name in began.items():
            assert backend_of(decide(tables, request(port, "A", src=f"10.77.1.{port}"))) == name


def test_lc_skips_a_backend_whose_mac_is_unknown() -> None:
    tables = make_tables([service(scheduler=Scheduler.LC)])
    tables.next_hops.set_mac(2, None)
    assert [backend_of(decide(tables, request(port))) for port in range(4)] == ["b1", "b3"] * 2
    for hop in (1, 3):
        tables.next_hops.set_mac(hop, None)
    refused = decide(tables, request(9))
    assert refused.name == "drop_next_hop_unknown"
    assert refused.backend is not None and refused.backend.backend.name == "b2"


def test_states_follow_what_is_seen() -> None:
    tables = make_tables([service()])
    flow = decide(tables, request()).flow
    assert tables.flows.read(flow).state == FLOW_HALF_OPEN
    steps = [("S", FLOW_HALF_OPEN), ("R", FLOW_HALF_OPEN), ("A", FLOW_ESTABLISHED), ("S", FLOW_ESTABLISHED)]
    for flags, state in [*steps, ("FA", FLOW_CLOSING), ("A", FLOW_CLOSING), ("SA", FLOW_CLOSING)]:
        decide(tables, request(flags=flags))
        assert tables.flows.read(flow).state == state, flags


ENDS = {"client resets": ["R>"], "backend resets": ["R<"], "both close": ["FA>", "FA<"]}


@pytest.mark.parametrize("ends", ENDS.values(), ids=ENDS)
def test_a_syn_of_a_closing_flow_begins_a_new_one(ends: list[str]) -> None:
    """It is counted, its state and packets begin again, and a backend that takes no new flows gets none."""
    tables = make_tables([service(Mode.NAT)], arms=2)
    first = connect(tables)
    for end in ends:
        flags = end[:-1]
        decide(tables, *((request(flags=flags), 0) if ">" in end else (reply(flags=flags), 1)))
    again = decide(tables, request())
    assert (backend_of(first), backend_of(again)) == ("b1", "b2") and again.pick is not None
    entry = tables.flows.read(again.flow)
    assert (entry.state, entry.packets, len(tables.flows)) == (FLOW_HALF_OPEN, 1, 2)
    assert [(t.flows, t.ended) for t in tables.backends[1:3]] == [(1, 1), (1, 0)]


@pytest.mark.parametrize("side", ["client", "backend"])
def test_a_syn_ends_no_half_closed_flow_whose_sides_are_seen(side: str) -> None:
    """RFC 9293, section 3.6: the other direction may stream for long; and anyone can send a SYN."""
    tables = make_tables([service(Mode.NAT)], arms=2)
    first = connect(tables)
    decide(tables, *((request(flags="FA"), 0) if side == "client" else (reply(flags="FA"), 1)))
    assert tables.flows.read(first.flow).state == (FLOW_CLOSING if side == "client" else FLOW_ESTABLISHED)
    again = decide(tables, request())
    assert (backend_of(again), again.flow, again.pick) == (backend_of(first), first.flow, None)
    assert decide(tables, reply(flags="A"), 1).name == "reply"


@pytest.mark.parametrize("number", [0xDEAD_BEEF, 0, 2])
def test_a_reset_is_not_believed_because_the_backend_was_silent(number: int) -> None:
    """The client's own number is known from the segment that made the flow an established one."""
    tables = make_tables([service(Mode.NAT)], arms=2)
    flow = connect(tables).flow
    mine = Ether(request(flags="A"))[TCP].seq
    assert decide(tables, with_numbers(request(flags="R"), mine + number & 0xFFFF_FFFF, 0)).name == "forward"
    believed = number < END_WINDOW
    assert tables.flows.read(flow).state == (FLOW_CLOSING if believed else FLOW_ESTABLISHED)


@pytest.mark.parametrize(
    ("ahead", "state"), [(0, FLOW_CLOSING), (-1, FLOW_ESTABLISHED), (1 << 22, FLOW_ESTABLISHED)]
)
def test_a_reset_counts_only_with_a_plausible_number_where_both_sides_are_seen(
    ahead: int, state: int
) -> None:
    """It is forwarded whatever its number: the end decides for itself."""
    tables = make_tables([service(Mode.NAT)], arms=2)
    flow = connect(tables).flow
    decide(tables, reply(flags="A"), 1)
    acknowledged = 0xFFFF_FFFF
    decide(tables, with_numbers(reply(flags="A"), 1, acknowledged), 1)
    forged = with_numbers(request(flags="R"), (acknowledged + ahead) % (1 << 32), 0)
    assert decide(tables, forged).name == "forward"
    assert tables.flows.read(flow).state == state


def with_numbers(frame: bytes, sequence: int, acknowledged: int) -> bytes:
    packet = Ether(frame)
    packet[TCP].seq, packet[TCP].ack = sequence, acknowledged
    return bytes(packet)


@pytest.mark.parametrize("mode", [Mode.DSR_L2, Mode.NAT])
def test_half_open_flows_have_a_share_and_the_oldest_makes_room(mode: Mode) -> None:
    """Established ones stay, and so do those before it that are one more than the share."""
    tables = make_tables([service(mode)], arms=2)
    for port in range(20):
        connect(tables, port)
    share = tables.flows.share.limit
    for port in range(1000, 1000 + share):
        decide(tables, request(port))
    assert len(tables.flows.share) == share and tables.events[0] == 0
    entries = len(tables.flows)
    for port in range(2000, 2003):
        assert decide(tables, request(port)).pick is not None
    assert tables.events[0] == 3 and len(tables.flows) == entries
    assert all(
        decide(tables, request(port, "A")).pick is None for port in [*range(20), *range(1003, 1000 + share)]
    )
    assert [tables.current_flows(i) for i in range(4)] == counted(tables)


@pytest.mark.parametrize("seed", range(3))
def test_it_is_always_the_oldest_that_goes(seed: int) -> None:
    """Whatever was established meanwhile, or was silent for too long."""
    tables, random = make_tables([service()], memory=1 << 17), Random(seed)
    share, waiting = tables.flows.share.limit, list[int]()
    for port in range(12 * share):
        evicted = tables.events[0]
        decide(tables, request(port))
        waiting.append(port)
        if len(waiting) > share:
            waiting.pop(0)
            assert tables.events[0] == evicted + 1
        if random.random() < 0.3:
            decide(tables, request(waiting.pop(random.randrange(len(waiting))), "A"))
        assert len(tables.flows.share) == tables.flows.share.used == len(waiting)
    states = {
        port: tables.flows.read(flow).state
        for port in range(12 * share)
        if (flow := found(tables, port)) >= 0
    }
    assert [port for port, state in states.items() if state == FLOW_HALF_OPEN] == waiting


def found(tables: Tables, port: int) -> int:
    return tables.flows.find(flow_key(ip("10.77.0.1"), port, VIP, 80, 6))


def test_who_sees_two_shares_begin_after_it_goes_too() -> None:
    """Although there is room: its place is needed."""
    tables = make_tables([service()], memory=1 << 18)
    decide(tables, request(0))
    for port in range(1, tables.flows.share.places):
        connect(tables, port)
    assert tables.events[0] == 0 and found(tables, 0) >= 0
    decide(tables, request(tables.flows.share.places))
    assert tables.events[0] == 1 and found(tables, 0) < 0 and len(tables.flows.share) == 1


def test_who_cannot_see_the_answer_does_not_establish_a_flow() -> None:
    """The backend's SYN, and no other number, is what a client acknowledges first; RFC 9293, section 3.5."""
    tables = make_tables([service(Mode.NAT)], arms=2)
    flow = decide(tables, request()).flow
    decide(tables, request(flags="A"))
    assert tables.flows.read(flow).state == FLOW_HALF_OPEN, "nobody has answered"
    decide(tables, with_numbers(reply(), 0xFFFF_FFF0, 1), 1)
    for number in (0xFFFF_FFF0, 0xFFFF_FFF1 + OPEN_WINDOW & 0xFFFF_FFFF, 1 << 31):
        assert decide(tables, with_numbers(request(flags="A"), 1, number)).name == "forward"
        assert tables.flows.read(flow).state == FLOW_HALF_OPEN, number
    decide(tables, reply(flags="A"), 1)
    assert tables.flows.read(tables.flows.read(flow).peer - 1).state == FLOW_HALF_OPEN
    decide(tables, with_numbers(request(flags="A"), 1, 0xFFFF_FFF1 + OPEN_WINDOW - 1 & 0xFFFF_FFFF))
    assert tables.flows.read(flow).state == FLOW_ESTABLISHED
    assert len(tables.flows.share) == 0


@pytest.mark.parametrize("scheduler", [Scheduler.RR, Scheduler.MAGLEV])
@pytest.mark.parametrize("end", ["R", "FA"])
def test_under_dsr_nobody_moves_a_connection_by_a_forged_end_and_a_syn(
    end: str, scheduler: Scheduler
) -> None:
    """Its state is not the half-open one either, where a flood could evict it."""
    tables = make_tables([service(scheduler=scheduler)])
    first = connect(tables)
    for flags, state in ((end, FLOW_CLOSING), ("S", FLOW_ESTABLISHED), ("A", FLOW_ESTABLISHED)):
        again = decide(tables, request(flags=flags))
        assert (backend_of(again), again.flow, again.pick) == (backend_of(first), first.flow, None)
        assert tables.flows.read(first.flow).state == state
    assert len(tables.flows) == 1 and tables.backends[1].ended == 0


def test_under_dsr_a_new_syn_stays_also_with_a_backend_that_takes_no_new_flows() -> None:
    """That the connection before it is over, anyone can have said."""
    tables = make_tables([service()])
    first = connect(tables)
    decide(tables, request(flags="R"))
    where = {b.address: (i + 1, 0) for i, b in enumerate(backends())}
    draining = tuple(replace(b, weight=0) if b.name == backend_of(first) else b for b in backends())
    tables.install(compile_policy([service(members=draining)], where, SEED, previous=tables.policy))
    assert backend_of(decide(tables, request(flags="A"))) == backend_of(first), "no SYN"
    again = decide(tables, request())
    assert backend_of(again) == backend_of(first) and again.pick is None
    assert [sum(t.flows for t in tables.backends), sum(t.ended for t in tables.backends)] == [1, 0]


def test_a_flood_of_datagrams_does_not_fill_the_table() -> None:
    tables = make_tables([service(Mode.NAT, protocol=17)], arms=2)
    ether = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    for port in range(2 * tables.flows.capacity):
        for _ in range(2):
            decide(tables, bytes(ether / IP(src="10.77.0.1", dst="10.77.0.100") / UDP(sport=port, dport=80)))
    assert len(tables.flows) == 2 * tables.flows.share.limit


def test_steer_notes_time_and_counts_packets() -> None:
    tables = make_tables([service()])
    tables.now = 5
    flow = decide(tables, request()).flow
    tables.now = 9
    decide(tables, request(flags="A"))
    entry = tables.flows.read(flow)
    assert (entry.last_seen, entry.packets) == (9, 2)
    tables.flows.touch(flow, entry, entry.state, 9, 0xFFFF_FFFF)
    decide(tables, request(flags="A"))
    assert tables.flows.read(flow).packets == 0


@pytest.mark.parametrize("flags", ["A", "FA", "R", "S"])
def test_one_segment_makes_no_connection(flags: str) -> None:
    """In mid-stream a hash still finds the backend; but a flood of ACKs gets no longer timeout than SYNs."""
    tables = make_tables([service(scheduler=Scheduler.MAGLEV)])
    flow = decide(tables, request(flags=flags)).flow
    assert tables.flows.read(flow).state == FLOW_HALF_OPEN


def test_udp_and_tcp_with_the_same_addresses_are_two_flows() -> None:
    tables = make_tables([service(), service(name="u", protocol=17)])
    decide(tables, request(7))
    ether = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    decide(tables, bytes(ether / IP(src="10.77.0.1", dst="10.77.0.100") / UDP(sport=7, dport=80)))
    assert len(tables.flows) == 2
    client = ip("10.77.0.1")
    assert tables.flows.find(flow_key(client, 7, VIP, 80, 6)) != tables.flows.find(
        flow_key(client, 7, VIP, 80, 17)
    )
