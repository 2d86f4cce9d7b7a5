"""The parts of the documents that are computed: bytes, decisions, the list of codes.

A block between `<!-- computed: NAME -->` and `<!-- end -->` is what the
function NAME of `COMPUTED` returns; tests/unit/test_docs.py compares them. After
a change of the code,

    .venv/bin/python -m tests.computed

writes all of them anew; read the diff before you commit it.

The SYN is the one that docs/packet-walk.md follows: it has the addresses, MACs
and ring seed of `l4raw up --demo`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path

from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from l4raw.cli import render
from l4raw.control.codes import REGISTRY
from l4raw.core import model
from l4raw.core.decision import Decision
from l4raw.core.entry import FIELDS
from l4raw.core.flows import FlowTable
from l4raw.core.hashing import hash_key
from l4raw.core.next_hops import NextHops
from l4raw.core.rewrite import apply
from l4raw.core.room import bytes_for
from l4raw.core.steer import steer
from l4raw.core.tables import Arm, Tables, compile_policy
from l4raw.wire.checksum import pseudo_header
from l4raw.wire.ethernet import parse_mac
from l4raw.wire.ipv4 import TCP as TCP_NUMBER
from tests.tables import ip

DOCS = sorted((Path(__file__).resolve().parents[1] / "docs").rglob("*.md"))

L4 = 34
"""Offset of the SYN's TCP header."""

FIELDS_OF_SYN = (
    (0, 6, "eth.dst", "the balancer's eth0"),
    (6, 6, "eth.src", "the client"),
    (12, 2, "eth.type", "IPv4"),
    (14, 1, "ip.version, IHL", "4; 5 words, so no options"),
    (15, 1, "ip.tos", ""),
    (16, 2, "ip.length", "60"),
    (18, 2, "ip.id", ""),
    (20, 2, "ip.flags, offset", "don't fragment; offset 0"),
    (22, 1, "ip.ttl", "64"),
    (23, 1, "ip.protocol", "6, TCP"),
    (24, 2, "ip.checksum", ""),
    (26, 4, "ip.src", "10.77.0.1, the client"),
    (30, 4, "ip.dst", "10.77.0.100, the VIP"),
    (34, 2, "tcp.sport", "41022"),
    (36, 2, "tcp.dport", "80"),
    (38, 4, "tcp.seq", "1000"),
    (42, 4, "tcp.ack", ""),
    (46, 2, "tcp.offset, flags", "10 words; SYN"),
    (48, 2, "tcp.window", ""),
    (50, 2, "tcp.checksum", ""),
    (52, 2, "tcp.urgent", ""),
)


def syn() -> bytes:
    """The client's SYN with every checksum complete, as it comes off a wire."""
    options = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)]
    tcp = TCP(sport=41022, dport=80, flags="S", seq=1000, window=64240, options=options)
    ether = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    return bytes(ether / IP(src="10.77.0.1", dst="10.77.0.100", id=7, flags="DF") / tcp)


def partial_syn() -> bytes:
    """The same as a veth hands it over: the TCP checksum is the pseudo-header's sum."""
    frame = bytearray(syn())
    total = pseudo_header(bytes(frame[26:30]), bytes(frame[30:34]), TCP_NUMBER, len(frame) - 34)
    frame[50:52] = total.to_bytes(2, "big")
    return bytes(frame)


def syn_ack(port: int) -> bytes:
    """The backend's answer, under NAT."""
    tcp = TCP(sport=80, dport=port, flags="SA", seq=5000, ack=1001, window=65160)
    ether = Ether(src="02:00:00:00:00:11", dst="02:00:00:00:00:03")
    return bytes(ether / IP(src="10.78.0.11", dst="10.77.0.1", id=0, flags="DF") / tcp)


def walk_tables(mode: model.Mode) -> Tables:
    """The demo's tables, one-arm for dsr-l2, two-arm for nat; but its flow table has a random key."""
    both = (Arm("eth0", parse_mac("02:00:00:00:00:02")), Arm("eth1", parse_mac("02:00:00:00:00:03")))
    arms = both[: 1 if mode is model.Mode.DSR_L2 else 2]
    net = "10.77.0" if mode is model.Mode.DSR_L2 else "10.78.0"
    backends = tuple(model.Backend(f"b{i}", ip(f"{net}.{10 + i}")) for i in (1, 2, 3))
    hops, last = NextHops(), len(arms) - 1
    where = {b.address: (hops.pin(last, parse_mac(f"02:00:00:00:00:1{b.name[1]}")), last) for b in backends}
    service = model.Service("port-80-tcp", ip("10.77.0.100"), 80, 6, mode, model.Scheduler.MAGLEV, backends)
    tables = Tables(arms, FlowTable(bytearray(bytes_for(1024)), hash_key(b"packet walk")), hops)
    tables.install(compile_policy([service], where, b"demo"))
    return tables


@functools.cache
def walk(mode: model.Mode) -> tuple[Tables, Decision, Decision | None]:
    """Tables, the SYN's decision, and under NAT that of the reply."""
    tables = walk_tables(mode)
    first = steer(syn(), 0, 0, tables)
    second = steer(syn_ack(41022), 1, 0, tables) if mode is model.Mode.NAT else None
    return tables, first, second


def spaced(data: bytes | bytearray) -> str:
    return data.hex(" ")


def frame_by_field() -> str:
    frame = syn()
    lines = [
        f"{at:3}  {spaced(frame[at : at + size]):18} {name:18} {text}"
        for at, size, name, text in FIELDS_OF_SYN
    ]
    lines += [
        f" 54  {spaced(frame[54:64])}",
        f" 64  {spaced(frame[64:74])}  tcp options: MSS, SACK, time, scale",
    ]
    return "\n".join(line.rstrip() for line in lines)


def key_by_field(tables: Tables, index: int) -> str:
    key = tables.flows.key(index)
    parts = (("src", 0, 16), ("dst", 16, 16), ("sport", 32, 2), ("dport", 34, 2), ("protocol", 36, 1))
    return "\n".join(f"{name:9} {spaced(key[at : at + size])}" for name, at, size in parts)


def entry_by_field(tables: Tables, index: int) -> str:
    data = tables.flows.buffer[index * 64 : index * 64 + 64]
    return "\n".join(f"{at:3}  {name:10} {spaced(data[at : at + size])}" for name, at, size in FIELDS)


def edits(decision: Decision) -> str:
    rows = [f"{at:3}  {name:14} {spaced(old):18} -> {spaced(new)}" for name, at, old, new in decision.edits]
    return "\n".join(rows)


def shown(decision: Decision, number: int = 1) -> str:
    return "\n".join(
        [render.headline(number, decision), *render.comparison(decision), *render.story(decision)]
    )


def changed_bytes(decision: Decision, frame: bytes) -> str:
    """The frame that is sent, 16 bytes a line, and a mark below each byte that changed."""
    after = bytearray(frame)
    apply(after, decision.edits)
    lines = []
    for at in range(0, len(after), 16):
        lines.append(f"{at:3}  {spaced(after[at : at + 16])}")
        marks = " ".join(
            "^^" if a != b else "  " for a, b in zip(frame[at : at + 16], after[at : at + 16], strict=True)
        )
        if marks.strip():
            lines.append(f"     {marks}".rstrip())
    return "\n".join(lines)


def one_sum(name: str, old: int, covered: str, before: bytes, after: bytes) -> list[str]:
    """RFC 1624, equation 3, with numbers: `before` and `after` are the words that changed."""
    words = [
        [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)] for data in (before, after)
    ]
    total = ~old & 0xFFFF
    total = (total - sum(words[0]) + sum(words[1])) % 0xFFFF
    return [
        f"{name} 0x{old:04x}; its complement 0x{~old & 0xFFFF:04x}",
        f"  minus {spaced_words(before)}   ({covered}, before)",
        f"  plus  {spaced_words(after)}   (and after)",
        f"  is 0x{total:04x}; its complement 0x{~total & 0xFFFF:04x}",
    ]


def spaced_words(data: bytes) -> str:
    return data.hex(" ", 2)


def sums() -> str:
    """How the two checksums of the SYN come about under NAT."""
    _, first, _ = walk(model.Mode.NAT)
    assert first.headers is not None
    edit = {name: (old, new) for name, _, old, new in first.edits}
    old_dst, new_dst = edit["ip.dst"]
    ttl = [value + bytes([first.headers.protocol]) for value in edit["ip.ttl"]]
    ip_sum = one_sum(
        "ip.checksum ",
        first.headers.ip_checksum,
        "destination, TTL and protocol",
        old_dst + ttl[0],
        new_dst + ttl[1],
    )
    tcp_sum = one_sum("tcp.checksum", first.headers.l4_checksum, "destination", old_dst, new_dst)
    for text, field in ((ip_sum, "ip.checksum"), (tcp_sum, "tcp.checksum")):
        assert text[-1].endswith(f"0x{edit[field][1].hex()}"), field
    return "\n".join(ip_sum + tcp_sum)


def of_partial() -> str:
    """The one edit that differs when the checksum is partial."""
    decision = steer(partial_syn(), 0, L4, walk_tables(model.Mode.NAT))
    return edits(decision._replace(edits=tuple(e for e in decision.edits if e[0] == "tcp.checksum")))


def pick() -> str:
    _, first, _ = walk(model.Mode.DSR_L2)
    assert first.pick is not None and first.backend is not None
    return f"{render.pick_text(first.pick)} -> {first.backend.backend.name}"


def dsr(what: Callable[[Tables, Decision], str]) -> str:
    tables, first, _ = walk(model.Mode.DSR_L2)
    return what(tables, first)


def nat(what: Callable[[Tables, Decision], str]) -> str:
    tables, first, _ = walk(model.Mode.NAT)
    return what(tables, first)


def nat_reply(what: Callable[[Tables, Decision], str]) -> str:
    tables, _, second = walk(model.Mode.NAT)
    assert second is not None
    return what(tables, second)


def codes() -> str:
    """The registry as a Markdown table."""
    rows = ["| code | what | exit | what helps |", "| --- | --- | --- | --- |"]
    for code in REGISTRY.values():
        exits = "warning" if code.warning else str(code.exit_code)
        rows.append(f"| {code.name} | {code.title} | {exits} | {code.fix} |")
    return "\n".join(rows)


COMPUTED: dict[str, Callable[[], str]] = {
    "syn": frame_by_field,
    "key": lambda: dsr(lambda tables, first: key_by_field(tables, first.flow)),
    "pick": pick,
    "dsr entry": lambda: dsr(lambda tables, first: entry_by_field(tables, first.flow)),
    "dsr edits": lambda: dsr(lambda _, first: edits(first)),
    "dsr frame": lambda: dsr(lambda _, first: changed_bytes(first, syn())),
    "dsr decision": lambda: dsr(lambda _, first: shown(first)),
    "nat edits": lambda: nat(lambda _, first: edits(first)),
    "nat sums": sums,
    "nat partial": of_partial,
    "nat frame": lambda: nat(lambda _, first: changed_bytes(first, syn())),
    "nat reply key": lambda: nat_reply(lambda tables, second: key_by_field(tables, second.flow)),
    "nat reply edits": lambda: nat_reply(lambda _, second: edits(second)),
    "nat reply decision": lambda: nat_reply(lambda _, second: shown(second, 2)),
    "codes": codes,
}

BLOCK = re.compile(
    r"(<!-- computed: (?P<name>[a-z -]+) -->\n)(?P<body>(?:(?!<!--).)*?)(<!-- end -->)", re.DOTALL
)


def filled(text: str) -> str:
    """`text` with every computed block as the code has it now."""

    def compute(match: re.Match[str]) -> str:
        body = COMPUTED[match["name"]]()
        fenced = body if body.startswith("|") else f"```text\n{body}\n```"
        return f"{match[1]}{fenced}\n{match[4]}"

    return BLOCK.sub(compute, text)


if __name__ == "__main__":
    for each in DOCS:
        before = each.read_text("utf-8")
        if (after := filled(before)) != before:
            each.write_text(after, "utf-8")
            print(each)
