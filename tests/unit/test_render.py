"""Decisions and counters as text."""

from __future__ import annotations

import re

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from l4raw.cli import render
from l4raw.core.decision import Decision
from l4raw.core.model import Mode, Scheduler
from l4raw.core.steer import steer
from l4raw.core.tables import Tables
from l4raw.engine.base import count
from l4raw.wire.abi import DROP_TX, EVENT_EVICTED_HALF_OPEN, VERDICT_NAMES
from tests.tables import backends, make_tables, service, weighted


def nat() -> Tables:
    """Port 80/tcp to three backends' port 8080, each in turn; arms eth0 and eth1."""
    return make_tables([service(Mode.NAT, members=backends(port=8080))], arms=2)


def decide(
    tables: Tables, layer: Packet, arm: int = 0, src: str = "10.77.0.1", dst: str = "10.77.0.100"
) -> Decision:
    ether = Ether(src="02:00:00:00:00:01", dst=("02:00:00:00:00:02", "02:00:00:00:00:03")[arm])
    frame = bytes(ether / IP(src=src, dst=dst) / layer)
    decision = steer(frame, arm, False, tables)
    count(tables, decision, decision.verdict, len(frame))
    return decision


@pytest.mark.parametrize(
    ("layer", "line"),
    [
        (TCP(sport=7, dport=80, flags="SEC"), "#3  10.77.0.1:7 -> 10.77.0.100:80  tcp SEC  forward"),
        (TCP(sport=7, dport=80, flags=0), "#3  10.77.0.1:7 -> 10.77.0.100:80  tcp  drop_no_flow"),
        (UDP(sport=7, dport=80), "#3  10.77.0.1:7 -> 10.77.0.100:80  udp  drop_no_service"),
        (ICMP(type=3), "#3  10.77.0.1 -> 10.77.0.100  protocol 1  drop_icmp"),
        (ICMP(), "#3  10.77.0.1 -> 10.77.0.100  protocol 1  echo"),
    ],
)
def test_headline(layer: Packet, line: str) -> None:
    assert render.headline(3, decide(nat(), layer)) == line


def test_the_headline_of_what_has_no_headers_is_its_verdict() -> None:
    assert render.headline(1, steer(b"", 0, False, nat())) == "#1  drop_short: ends before its headers do"
    assert not list(render.comparison(steer(b"", 0, False, nat())))


def test_before_and_after_of_nat() -> None:
    lines = list(render.comparison(decide(nat(), TCP(sport=41022, dport=80, flags="S"))))
    assert [line.split() for line in lines] == [
        ["before", "after"],
        ["eth.dst", "02:00:00:00:00:02", "02:00:00:00:00:0b", "*"],
        ["eth.src", "02:00:00:00:00:01", "02:00:00:00:00:03", "*"],
        ["ip.ttl", "64", "63", "*"],
        ["ip.checksum", "0x65d1", "0x6729", "*"],
        ["ip.src", "10.77.0.1", "10.77.0.1"],
        ["ip.dst", "10.77.0.100", "10.78.0.11", "*"],
        ["tcp.sport", "41022", "41022"],
        ["tcp.dport", "80", "8080", "*"],
        ["tcp.checksum", "0xda55", "0xbb6d", "*"],
    ]
    starts = {line.rindex(line.split()[2]) for line in lines[1:]}
    assert len(starts) == 1, "one column below the other"
    assert len({line.rindex("*") for line in lines if "*" in line}) == 1


def test_before_and_after_of_dsr_marks_two_fields() -> None:
    decision = decide(make_tables([service()]), TCP(sport=1, dport=80, flags="S"))
    marked = [line.split()[0] for line in render.comparison(decision) if line.endswith("*")]
    assert marked == ["eth.dst", "eth.src"]


def test_what_is_not_forwarded_has_no_after() -> None:
    lines = list(render.comparison(decide(nat(), UDP(sport=7, dport=80))))
    assert lines[0].split() == ["before"]
    assert all(len(line.split()) == 2 for line in lines[1:])


def test_the_story_of_a_new_flow_of_a_known_one_and_of_a_reply() -> None:
    tables = nat()
    first = list(render.story(decide(tables, TCP(sport=9, dport=80, flags="S"))))
    assert first == [
        "service: web 10.77.0.100:80/tcp nat rr",
        "flow: new; turn 1 of 3 -> b1",
        "backend: b1 10.78.0.11:8080",
        "verdict: forward: sent to the backend",
        "reply: must pass through this balancer, which puts the VIP back as its source",
    ]
    known = list(render.story(decide(tables, TCP(sport=9, dport=80, flags="A"))))
    assert known[1].startswith("flow: known; entry ")
    assert known[:1] + known[2:] == first[:1] + first[2:]
    answer = TCP(sport=8080, dport=9, flags="SA")
    reply = list(render.story(decide(tables, answer, arm=1, src="10.78.0.11", dst="10.77.0.1")))
    assert reply[1].startswith("flow: known; entry ")
    assert reply[-1] == "verdict: reply: sent back to the client, as if the VIP had answered"


def test_the_story_is_the_choice_and_the_fate() -> None:
    decision = decide(nat(), TCP(sport=9, dport=80, flags="S"))
    assert [*render.choice(decision), *render.fate(decision)] == list(render.story(decision))


def test_under_dsr_the_reply_does_not_come_back() -> None:
    story = list(render.story(decide(make_tables([service()]), TCP(sport=1, dport=80, flags="S"))))
    assert story[-1] == "reply: goes from the backend to the client; it will not pass through this balancer"


@pytest.mark.parametrize("scheduler", [Scheduler.MAGLEV, Scheduler.HRW, Scheduler.MODULO])
def test_the_arithmetic_of_a_hash(scheduler: Scheduler) -> None:
    pick = decide(make_tables([service(scheduler=scheduler)]), TCP(sport=1, dport=80, flags="S")).pick
    assert pick is not None
    assert (
        render.pick_text(pick) == f"hash 0x{pick.value:08x} mod {pick.size} = slot {pick.value % pick.size}"
    )
    assert pick.size == (3 if scheduler is Scheduler.MODULO else 65537)


def test_the_arithmetic_of_the_other_schedulers() -> None:
    def texts(scheduler: Scheduler, count: int = 1) -> list[str]:
        tables = make_tables([service(scheduler=scheduler, members=weighted(1, 2, 0))])
        picks = [decide(tables, TCP(sport=port, dport=80, flags="S")).pick for port in range(count)]
        return [render.pick_text(pick) for pick in picks if pick]

    assert texts(Scheduler.RR, 3) == ["turn 1 of 2", "turn 2 of 2", "turn 1 of 2"]
    assert texts(Scheduler.WRR, 4) == ["turn 1 of 3", "turn 2 of 3", "turn 3 of 3", "turn 1 of 3"]
    assert texts(Scheduler.LC, 3)[1:] == [
        "0 flows / weight 1 = 0, the least of 2",
        "1 flow / weight 1 = 1, the least of 2",
    ]
    assert texts(Scheduler.WLC, 3)[2] == "1 flow / weight 2 = 0.5, the least of 2"
    (text,) = texts(Scheduler.SH)
    assert re.fullmatch(r"hash of the client's address 0x[0-9a-f]{8} mod 65537 = slot \d+", text)


def test_flag_letters() -> None:
    assert render.flag_letters(0x12) == "SA"
    assert render.flag_letters(0xFF) == "FSRPAUEC"


def test_counters_and_their_summary() -> None:
    dns = service(Mode.NAT, name="dns", port=53, protocol=17, members=backends(1))
    tables = make_tables([service(Mode.NAT, members=backends(port=8080)), dns], arms=2)
    decide(tables, UDP(sport=9, dport=53))
    decide(tables, TCP(sport=9, dport=80, flags="S"))
    decide(tables, TCP(sport=9, dport=80, flags="A") / (b"x" * 46))
    decide(tables, TCP(sport=8080, dport=9, flags="SA"), arm=1, src="10.78.0.11", dst="10.77.0.1")
    decide(tables, UDP(sport=9, dport=80))
    tables.verdicts[DROP_TX] += 2
    tables.backends[2].dropped += 4
    tables.events[EVENT_EVICTED_HALF_OPEN] += 3
    data = render.counters(tables, {"receive_lost": 5})
    assert tuple(data["verdicts"]) == VERDICT_NAMES
    assert sum(data["verdicts"].values()) == 7
    assert (data["flow_entries"], data["flow_capacity"]) == (4, tables.flows.capacity)
    share = tables.flows.share
    assert (data["half_open_flows"], data["half_open_limit"]) == (share.used, share.limit)
    first, second, _, of_dns = data["backends"]
    numbers = {
        "flows": 1,
        "rx_packets": 2,
        "rx_bytes": 54 + 100,
        "dropped": 0,
        "reply_packets": 1,
        "reply_bytes": 54,
    }
    assert first == {"service": "web", "name": "b1", **numbers}
    assert second["flows"] == 0
    other = {"flows": 1, "rx_packets": 1, "rx_bytes": 42, "dropped": 0, "reply_packets": 0, "reply_bytes": 0}
    assert of_dns == {"service": "dns", "name": "b1", **other}
    assert data["services"] == [{"name": "web", **numbers, "dropped": 4}, {"name": "dns", **other}]
    assert list(render.summary(data)) == [
        "  web/b1: 1 flows, 2 frames to it, 0 dropped, replies seen 1",
        "  web/b2: 0 flows, 0 frames to it, 4 dropped, replies seen 0",
        "  web/b3: 0 flows, 0 frames to it, 0 dropped, replies seen 0",
        "  dns/b1: 1 flows, 1 frames to it, 0 dropped, replies seen 0",
        "  frames: forward 3, reply 1, drop_no_service 1, drop_tx 2, receive_lost 5",
        "  events: evicted_half_open 3",
    ]


def test_under_dsr_replies_are_not_zero_but_unseen() -> None:
    tables = make_tables([service(members=backends(1))])
    data = render.counters(tables, {})
    assert data["backends"][0]["reply_packets"] is None
    assert data["backends"][0]["reply_reason"] == "dsr"
    assert list(render.summary(data)) == [
        "  web/b1: 0 flows, 0 frames to it, 0 dropped, replies seen n/a (DSR)",
        "  frames: none",
    ]
