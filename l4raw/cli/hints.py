"""What a decision does not say by itself: what it narrowly missed, and how its checksums came about.

Lives here: sentences and numbers made from a Decision that was taken. Must not
live here: a second opinion.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from typing import Any, Final

from l4raw.cli import fields, render
from l4raw.control.whatif import INFERRED, NONE, PARTIAL, STAND_IN, WRONG, Outcome
from l4raw.core import admit
from l4raw.core.decision import Decision
from l4raw.core.ring import HASHES
from l4raw.core.tables import Tables
from l4raw.wire import abi, ethernet, ipv4
from l4raw.wire.checksum import ONES
from l4raw.wire.ethernet import format_mac
from l4raw.wire.headers import Headers

_PROTOCOLS: Final = {ipv4.TCP: "tcp", ipv4.UDP: "udp"}
_MOST: Final = 8
"""So many of a kind are named in a sentence."""
ASSUMED_SEED: Final = "assumed ring seed"
SEED_NOTE: Final = (
    f"   (chosen with an {ASSUMED_SEED}: run as root where the balancer runs, or set ring_seed)"
)
_HOW: Final = {
    INFERRED: " (assumed from the capture; --mac states it)",
    STAND_IN: " (a stand-in; --mac states it)",
}
"""What is added to a MAC of ours that nobody has stated."""


def seed_matters(outcome: Outcome) -> bool:
    """Whether a running balancer, with another ring seed, may choose or have chosen another backend."""
    decision = outcome.decision
    if not outcome.seed_assumed or decision.service is None or decision.backend is None:
        return False
    # A reply's backend is the one that it comes from.
    return decision.verdict != abi.REPLY and decision.service.ring.rule in HASHES


def near(outcome: Outcome, tables: Tables) -> Iterator[str]:
    """Why not: the numbers of a malformed frame, or what there is instead of what the frame asked for."""
    decision, headers = outcome.decision, outcome.decision.headers
    detail = fields.detail(outcome.before, decision.verdict)
    if detail:
        yield f"malformed: {detail}"
    if headers is None:
        return
    sender = next((n for n, arm in enumerate(tables.arms) if arm.mac == headers.src_mac), None)
    if sender is not None and decision.verdict in (abi.PASS_OTHER_MAC, abi.PASS_NOT_OURS, abi.DROP_MARTIAN):
        yield _own_frame(outcome, sender, tables)
        return
    match decision.verdict:
        case abi.DROP_NO_SERVICE | abi.DROP_PROTOCOL:
            there = ", ".join(_services(headers.dst, tables))
            what = f"{headers.dport}/" if headers.l4 else "protocol "
            name = _PROTOCOLS.get(ipv4.IpProto(headers.protocol), str(headers.protocol))
            yield f"near miss: no service on {what}{name}; this VIP has {there}"
        case abi.DROP_NO_FLOW:
            yield _no_flow(decision, headers)
        case abi.PASS_OTHER_MAC:
            arm = tables.arms[outcome.arm]
            how = _HOW.get(outcome.macs_are[outcome.arm], "")
            yield f"near miss: {arm.name} has the MAC {format_mac(arm.mac)}{how}"
        case abi.PASS_NOT_OURS | abi.DROP_SNAT_NO_FLOW:
            yield _not_ours(outcome, headers, tables)
        case abi.DROP_MARTIAN:
            yield _martian(outcome, headers, tables)


def _own_frame(outcome: Outcome, sender: int, tables: Tables) -> str:
    arm = tables.arms[sender]
    mac = f"its source is {arm.name}'s MAC {format_mac(arm.mac)}{_HOW.get(outcome.macs_are[sender], '')}"
    return f"sent by the balancer itself: {mac}; tcpdump -Q in leaves such frames out"


def _martian(outcome: Outcome, headers: Headers, tables: Tables) -> str:
    why = admit.martian(headers, outcome.arm, tables)
    source = format_mac(headers.src_mac) if why == admit.MAC_OF_NONE else str(ip_address(headers.src))
    return f"near miss: no client can have this source: {source} {why}"


def _services(vip: bytes, tables: Tables) -> list[str]:
    """`80/tcp (web)` for each service of a VIP."""
    return _some(
        f"{service.port or 'every port'}/{_PROTOCOLS.get(ipv4.IpProto(service.protocol))} ({service.name})"
        for entry in tables.policy.services.values()
        if (service := entry.service).vip == vip
    )


def _no_flow(decision: Decision, headers: Headers) -> str:
    assert decision.service is not None, "only a service's frame lacks a flow"
    service = decision.service.service
    state = "its state" if service.mode.is_nat else f"the turn of {service.scheduler}"
    flags = render.flag_names(headers) or "none"
    text = f"flow: unknown; flags {flags} do not open one, and {state} cannot be guessed in mid-stream"
    return text + "; its client is told by a reset" * bool(decision.made)


def _not_ours(outcome: Outcome, headers: Headers, tables: Tables) -> str:
    backend = next((b for b in tables.policy.backends if b and b.backend.address == headers.src), None)
    if backend is not None:
        text = f"near miss: it comes from backend {backend.backend.name}, but is no reply of a flow that was"
        seed = f"; with an {ASSUMED_SEED}, its flow may have got another backend here"
        return f"{text} seen before{seed if outcome.seed_assumed else ''}"
    if headers.dst in tables.policy.snat:
        return f"near miss: {ip_address(headers.dst)} is a SNAT address, which only backends send to"
    known = ", ".join(_some(str(ip_address(vip)) for vip in sorted(tables.policy.vips)))
    return f"near miss: {ip_address(headers.dst)} is no VIP; there is {known}"


def _some(texts: Iterable[str]) -> list[str]:
    found = list(texts)
    return found if len(found) <= _MOST else [*found[:_MOST], f"and {len(found) - _MOST} more"]


_QUOTED: Final = ("src", "dst", "sport", "dport", "checksum", "l4_checksum")
_COVERED: Final[dict[str, tuple[str, ...]]] = {
    "ip.checksum": ("ip.src", "ip.dst", "ip.ttl", "ip.id"),
    "tcp.checksum": ("ip.src", "ip.dst", "tcp.sport", "tcp.dport", "tcp.mss"),
    "udp.checksum": ("ip.src", "ip.dst", "udp.sport", "udp.dport"),
    "icmp.checksum": ("icmp.type", *(f"quoted.{name}" for name in _QUOTED)),
}
"""Of what forwarding changes, what a checksum covers: RFC 791, 9293, 768, 792."""
_UPPER_HALF: Final = ("ip.ttl", "icmp.type")
"""Fields of one byte that are the upper half of their 16-bit word."""


def sums(outcome: Outcome) -> Iterator[dict[str, Any]]:
    """What was done to each checksum of a forwarded frame: a record each, with its `text`."""
    decision = outcome.decision
    if not decision.forwarded:
        return
    changed = {name: (old, new) for name, _, old, new in decision.edits}
    for name, offset, old, new in decision.edits:
        if name == "tcp.mss" and (offset - ethernet.LENGTH) % 2:
            changed[name] = old[::-1], new[::-1]  # across two of the words that are summed
    # In a tunnel what was partial is completed, which is no update.
    completed = decision.service is not None and decision.service.service.mode.is_tunnel
    for name in _COVERED:
        if name in changed and not (completed and name != "ip.checksum"):
            yield _updated(name, decision, changed, outcome.l4_sum == PARTIAL and name != "ip.checksum")
    untouched = not changed.keys() & _COVERED.keys()
    if untouched:
        yield _note("checksums: untouched, for nothing that they cover has changed")
    assert decision.headers is not None, "what was forwarded has headers"
    if not decision.headers.l4:
        return
    name = f"{_PROTOCOLS[ipv4.IpProto(decision.headers.protocol)]}.checksum"
    if outcome.l4_sum == NONE and not untouched:
        yield _note(f"{name}: 0, so the sender computed none, and it stays so (RFC 768)")
    elif outcome.l4_sum == WRONG:
        yield _note(f"{name}: wrong for these bytes as they came in, and so it stays: only an end may judge")
    elif outcome.l4_sum == PARTIAL:
        left = "holds the pseudo-header's sum; the sender left the rest to its network card"
        yield _note(
            f"{name}: {left}" + (", and nobody completes it inside of a tunnel: done here" * completed)
        )


def _note(text: str) -> dict[str, Any]:
    return {"field": None, "text": text}


def _updated(
    name: str, decision: Decision, changed: dict[str, tuple[bytes, bytes]], partial: bool
) -> dict[str, Any]:
    """RFC 1624, section 3, equation 3, with the numbers of this frame."""
    old, new = (int.from_bytes(data, "big") for data in changed[name])
    change = 0
    is_icmpv6 = name == "icmp.checksum" and decision.headers is not None and len(decision.headers.src) == 16
    for field in _COVERED[name] + ("ip.src", "ip.dst") * is_icmpv6:
        if field in changed and not (partial and field.startswith("tcp.")):
            was, now = (int.from_bytes(data, "big") for data in changed[field])
            change += (now - was) << (8 if field in _UPPER_HALF else 0)
    # One's complement addition is addition modulo 65,535.
    change %= ONES
    if partial:
        how = f"0x{old:04x} + 0x{change:04x} = 0x{new:04x} (partial: addresses only, no complement)"
    else:
        how = f"~(~0x{old:04x} + 0x{change:04x}) = 0x{new:04x} (RFC 1624)"
    return {
        "field": name,
        "old": f"{old:04x}",
        "change": f"{change:04x}",
        "new": f"{new:04x}",
        "partial": partial,
        "text": f"{name}: {how}; the words that it covers changed by 0x{change:04x}",
    }
