"""Decisions and counters as text. Data in, lines out: nothing is printed here.

The comparison of a packet before and after is drawn from a Decision alone,
so that `explain`, `up --trace` and the demo show what the packet path did.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

from l4raw.core.changes import remembers
from l4raw.core.decision import Decision
from l4raw.core.model import Mode, end
from l4raw.core.ring import HASHES, Pick
from l4raw.core.snat import Source
from l4raw.core.tables import Tables, Traffic
from l4raw.wire import gue, ipv4, ipv6
from l4raw.wire.abi import (
    EVENT_NAMES,
    FORWARD,
    ICMP_ERROR,
    RULE_AFFINITY,
    RULE_FLOW_HASH,
    RULE_LEAST,
    VERDICT_NAMES,
)
from l4raw.wire.ethernet import format_mac
from l4raw.wire.headers import Headers
from l4raw.wire.ipv4 import TCP, UDP

_FLAGS = "FSRPAUEC"
_WIDTH = 22
_NO_FRAMES = ("bursts", "waits")
"""Counters of an engine that count something else; JSON has them."""
_ALSO_NONE = ("kernel_forwarded",)
"""Of which to have none says something."""


def headline(number: int, decision: Decision) -> str:
    """One line: who sends what to whom, and what became of it."""
    headers = decision.headers
    if headers is None:
        return f"#{number}  {decision.name}: {decision.reason}"
    protocol = {TCP: "tcp", UDP: "udp"}.get(headers.protocol)  # type: ignore[call-overload]
    source, destination = str(ip_address(headers.src)), str(ip_address(headers.dst))
    if headers.l4:
        source, destination = end(headers.src, headers.sport), end(headers.dst, headers.dport)
    what = protocol or f"protocol {headers.protocol}"
    flags = flag_names(headers) if protocol == "tcp" else ""
    return f"#{number}  {source} -> {destination}  {what} {flags}".rstrip() + f"  {decision.name}"


def flag_names(headers: Headers) -> str:
    """`SYN` and the like would be longer: the letters that tcpdump prints."""
    return flag_letters(headers.flags)


def flag_letters(flags: int) -> str:
    """The same for the byte of TCP's flags."""
    return "".join(letter for bit, letter in enumerate(_FLAGS) if flags >> bit & 1)


def comparison(decision: Decision) -> Iterator[str]:
    """The frame's fields before and after, one a line; those that change are marked with `*`."""
    headers = decision.headers
    if headers is None:
        return
    changed = {field: new for field, _, _, new in decision.edits}
    shown = dict(_fields(headers))
    shown |= {field: old for field, _, old, _ in decision.edits if field not in shown}
    indent = max(14, *(len(field) + 2 for field in shown))
    yield f"  {'':{indent}}{'before':{_WIDTH}}{'after' if decision.forwarded else ''}".rstrip()
    for field, old in shown.items():
        new = changed.get(field)
        after = _value(field, new) if new is not None else _value(field, old)
        mark = "  *" if new is not None else ""
        text = f"  {field:{indent}}{_value(field, old):{_WIDTH}}"
        yield (text + (f"{after:{_WIDTH}}{mark}" if decision.forwarded else "")).rstrip()


def in_front(decision: Decision) -> Iterator[str]:
    """The headers of a tunnel, from the outermost on, a line each; nothing where there is none."""
    outer = decision.outer
    if not outer:
        return
    yield f"in front of the packet: {len(outer)} bytes"
    if outer[0] >> 4 == 4:
        _, tos, length, ident, flags, ttl, protocol, total, src, dst = ipv4.WHOLE_HEADER.unpack_from(outer)
        rest = f"id {ident}, {'DF, ' if flags else ''}ttl {ttl}, checksum 0x{total:04x}"
        size = ipv4.LENGTH
    else:
        first, length, protocol, ttl, src, dst = ipv6.WHOLE_HEADER.unpack_from(outer)
        tos, rest = first >> 20 & 0xFF, f"flow label 0x{first & 0xFFFFF:05x}, hop limit {ttl}"
        size = ipv6.LENGTH
    ends = f"{ip_address(src)} -> {ip_address(dst)}"
    yield f"  IPv{outer[0] >> 4}   {ends}  protocol {protocol}, length {length}, class 0x{tos:02x}, {rest}"
    if len(outer) > size:
        sport, dport, length, total, protocol = gue.HEADER.unpack_from(outer, size)
        sent = f"checksum 0x{total:04x}" if total else "no checksum"
        yield f"  UDP    {sport} -> {dport}  length {length}, {sent}"
        yield f"  GUE    variant 0, protocol {protocol}"


def _fields(headers: Headers) -> Iterator[tuple[str, bytes]]:
    yield "eth.dst", headers.dst_mac
    yield "eth.src", headers.src_mac
    yield "ip.ttl", bytes([headers.ttl])
    if len(headers.src) == 4:
        yield "ip.checksum", headers.ip_checksum.to_bytes(2, "big")
    yield "ip.src", headers.src
    yield "ip.dst", headers.dst
    if headers.l4:
        name = "tcp" if headers.protocol == TCP else "udp"
        yield f"{name}.sport", headers.sport.to_bytes(2, "big")
        yield f"{name}.dport", headers.dport.to_bytes(2, "big")
        yield f"{name}.checksum", headers.l4_checksum.to_bytes(2, "big")


def _value(field: str, data: bytes) -> str:
    if field.startswith("eth."):
        return format_mac(data)
    if field in ("ip.src", "ip.dst", "quoted.src", "quoted.dst"):
        return str(ip_address(data))
    number = int.from_bytes(data, "big")
    return f"0x{number:04x}" if field.endswith("checksum") else str(number)


def story(decision: Decision) -> Iterator[str]:
    """Why: which service and backend, how it was chosen, and what became of the frame."""
    yield from choice(decision)
    yield from fate(decision)


def _why_no_entry(decision: Decision) -> str:
    if decision.service and decision.pick and not remembers(decision.service, decision.pick):
        return "no entry, the ring tells; "
    return "no entry, the flow table is full; "


def choice(decision: Decision, note: str = "") -> Iterator[str]:
    """Which service and backend, and how it was chosen; `note` follows the backend."""
    if decision.service is not None:
        service = decision.service.service
        yield f"service: {service.name} {service} {service.mode} {service.scheduler}"
    if decision.pick is not None:
        name = f" -> {decision.backend.backend.name}" if decision.backend else ""
        without = "" if decision.flow >= 0 or decision.verdict != FORWARD else _why_no_entry(decision)
        is_error = decision.verdict == ICMP_ERROR
        begin = "no entry; " if is_error else f"new; {without}"
        yield f"flow: {begin}{pick_text(decision.pick)}{name}"
    elif decision.flow >= 0:
        yield f"flow: known; entry {decision.flow}"
    if decision.source is not None:
        yield f"source: {source_text(decision.source)}"
    if decision.backend is not None:
        yield f"backend: {decision.backend.backend.name} {decision.backend.backend}{note}"


def fate(decision: Decision) -> Iterator[str]:
    """The verdict in words, and the way of the reply."""
    yield f"verdict: {decision.name}: {decision.reason}"
    if decision.verdict == FORWARD and decision.service is not None:
        if not decision.service.service.mode.is_nat:
            yield "reply: goes from the backend to the client; it will not pass through this balancer"
        else:
            yield "reply: must pass through this balancer, which puts the VIP back as its source"


def source_text(source: Source) -> str:
    """How fullnat chose the address and port that the backend sees."""
    which = "the first" if source.tried == 1 else f"number {source.tried}"
    return (
        f"{end(source.address, source.port)}, {which} of the {source.size} ports of the pool, in the order of"
        " the flow's hash (with the flow table's own key), that is free for this backend"
    )


def source_data(source: Source | None) -> dict[str, Any] | None:
    """The same for JSON."""
    if source is None:
        return None
    address, text = str(ip_address(source.address)), source_text(source)
    return {"address": address, "port": source.port, "tried": source.tried, "pool": source.size, "text": text}


def pick_text(pick: Pick) -> str:
    """The scheduler's arithmetic."""
    if pick.rule in HASHES:
        of = "" if pick.rule == RULE_FLOW_HASH else " of the client's address"
        return f"hash{of} 0x{pick.value:08x} mod {pick.size} = slot {pick.slot}"
    if pick.rule == RULE_AFFINITY:
        return f"affinity: the client's last new flow went there {pick.value / 1000:.1f} s ago"
    if pick.rule == RULE_LEAST:
        flows = f"{pick.value} flow{'' if pick.value == 1 else 's'}"
        return f"{flows} / weight {pick.weight} = {pick.value / pick.weight:.4g}, the least of {pick.size}"
    return f"turn {pick.slot + 1} of {pick.size}"


def counters(tables: Tables, engine: dict[str, Any]) -> dict[str, Any]:
    """All counters as plain data, for JSON."""
    policy = tables.policy
    return {
        "verdicts": dict(zip(VERDICT_NAMES, tables.total_verdicts(), strict=True)),
        "events": dict(zip(EVENT_NAMES, tables.total_events(), strict=True)),
        "engine": engine,
        "flow_entries": len(tables.flows),
        "flow_capacity": tables.flows.capacity,
        "half_open_flows": tables.flows.half_open,
        "half_open_limit": tables.flows.share.limit,
        "services": [
            {"name": entry.service.name, **_traffic(_of_service(tables, entry.number), entry.service.mode)}
            for entry in policy.by_number
            if entry
        ],
        "backends": [
            {
                "service": service.service.name,
                "name": entry.backend.name,
                **_traffic(tables.total_traffic(entry.number), service.service.mode),
            }
            for entry in policy.backends
            if entry and (service := policy.by_number[entry.service])
        ],
    }


def _of_service(tables: Tables, number: int) -> Traffic:
    """The sum over the service's backends."""
    total = Traffic()
    for entry in tables.policy.backends:
        if entry and entry.service == number:
            for name in Traffic.__slots__:
                setattr(total, name, getattr(total, name) + getattr(tables.total_traffic(entry.number), name))
    return total


def _traffic(traffic: Traffic, mode: Mode) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "flows": traffic.flows,
        "rx_packets": traffic.packets,
        "rx_bytes": traffic.bytes,
        "dropped": traffic.dropped,
    }
    if not mode.is_nat:
        return numbers | {"reply_packets": None, "reply_bytes": None, "reply_reason": "dsr"}
    return numbers | {"reply_packets": traffic.reply_packets, "reply_bytes": traffic.reply_bytes}


def summary(data: dict[str, Any]) -> Iterator[str]:
    """The counters for people; verdicts that never occurred are left out."""
    for backend in data["backends"]:
        replies = "n/a (DSR)" if backend["reply_packets"] is None else str(backend["reply_packets"])
        yield (
            f"  {backend['service']}/{backend['name']}: {backend['flows']} flows,"
            f" {backend['rx_packets']} frames to it, {backend['dropped']} dropped, replies seen {replies}"
        )
    engine = {k: v for k, v in data["engine"].items() if isinstance(v, int) and k not in _NO_FRAMES}
    counted = {**data["verdicts"], **engine}
    frames = [f"{name} {count}" for name, count in counted.items() if count or name in _ALSO_NONE]
    yield f"  frames: {', '.join(frames) or 'none'}"
    if events := [f"{name} {count}" for name, count in data["events"].items() if count]:
        yield f"  events: {', '.join(events)}"
    queues = data["engine"].get("queues", ())
    for queue, numbers in enumerate(queues if len(queues) > 1 else ()):
        shown = {name: count for name, count in numbers.items() if count and name not in _NO_FRAMES}
        yield f"  queue {queue}: " + ", ".join(f"{name} {count}" for name, count in shown.items())
