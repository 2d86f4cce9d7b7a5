"""What becomes of a frame: `l4raw explain` of bytes, of a capture, of a 5-tuple.

Lives here: reading the argument, and an outcome as text and as JSON from the
same data. Must not live here: a decision (core/steer.py), nor what is assumed
of a balancer that does not run (control/whatif.py).
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

import click

from l4raw.cli import fields, hints, output, render
from l4raw.cli.state import State
from l4raw.control import whatif
from l4raw.control.config import Loaded, load
from l4raw.control.errors import L4Error
from l4raw.control.whatif import FiveTuple, Outcome, WhatIf
from l4raw.engine.replay import LinkTypeError, read_capture
from l4raw.wire import ipv4
from l4raw.wire.abi import PASS_NOT_IP, PASS_NOT_OURS, VERDICT_NAMES

SCHEMA: Final = "l4raw.explain/1"
FORMS: Final = """\
explain takes one of
  an error code    L4R-203                                    (`l4raw explain` lists them)
  a frame in hex   "0200 0000 0002 0200 0000 0001 0800 ..."   (spaces, colons and 0x do not matter)
  a capture        FILE.pcap, FILE.pcapng                     (every frame in order; --count N: the first N)
  a 5-tuple        "10.77.0.1:41022 -> 10.77.0.100:80/tcp"    (>, -> or a space; tcp unless /udp follows)"""

_FLOW: Final = re.compile(
    r"(?P<src>[0-9.]+|\[[0-9a-fA-F:.]+\]):(?P<sport>[0-9]+)\s*(?:->|>|\N{RIGHTWARDS ARROW}|\s)\s*"
    r"(?P<dst>[0-9.]+|\[[0-9a-fA-F:.]+\]):(?P<dport>[0-9]+)(?:\s*/\s*(?P<protocol>\w+))?"
)
_ARROW: Final = re.compile("->|\N{RIGHTWARDS ARROW}")
_FIVE_TUPLE: Final = "ADDRESS:PORT -> ADDRESS:PORT, then /udp or /tcp or nothing"
_LINE_OFFSET: Final = re.compile(r"(?m)^\s*0x[0-9a-fA-F]{4}:\s")
"""At the start of a line that `tcpdump -xx` prints."""
_SEPARATORS: Final = re.compile(r"[\s:]|0[xX]")
_HEX: Final = re.compile(r"[0-9a-fA-F]+")
_CAPTURES: Final = (".pcap", ".pcapng", ".cap")
_LARGEST_PORT: Final = 65535
_LOOK_AHEAD: Final = 1000
"""Frames of a capture that are looked at before the first is decided."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was said beside the frames."""

    count: int | None
    """At most so many."""
    macs: Sequence[bytes]
    """The balancer's, in the order of its interfaces."""
    arm: str | None
    """The interface that all frames came in on."""


_NOT_ANY: Final = (
    "`tcpdump -i any` writes such files: name one interface,"
    " `tcpdump --immediate-mode -Q in -i FIRST_INTERFACE -w FILE dst host VIP`"
)


def explain_frames(what: str, asked: Asked, state: State) -> None:
    """Print what becomes of each frame that `what` means.

    Raises click.UsageError for what means none, L4Error for a capture (L4R-403) or a configuration
    that cannot be read.
    """
    meant = _meaning(what.strip())
    loaded = load(state.config, os.environ)
    what_if = whatif.build(loaded.config, os.environ, *_arms(asked, loaded.config.lb.interfaces))
    rest = islice(_frames(meant, what_if), asked.count)
    # The first ones now: a file that is no capture is told before anything is printed.
    first = list(islice(rest, _LOOK_AHEAD))
    what_if.look_ahead(first)
    frames = chain(first, rest)
    outcomes = ((number, what_if.see(frame)) for number, frame in enumerate(frames, 1))
    output.print_warnings(loaded.warnings, state)
    if state.json:
        output.print_json(SCHEMA, _data(outcomes, what_if, loaded), loaded.warnings)
    elif state.plain:
        for number, outcome in outcomes:
            click.echo("\t".join(_plain(number, outcome)))
    else:
        _print(outcomes, what_if, loaded, isinstance(meant, Path))


def _arms(asked: Asked, interfaces: Sequence[str]) -> tuple[Sequence[bytes], int | None]:
    """The stated MACs, and the number of the stated interface. Raises click.UsageError."""
    if len(asked.macs) > len(interfaces):
        count = f"{len(interfaces)} interface{'s' if len(interfaces) > 1 else ''}"
        raise click.UsageError(f"--mac: {len(asked.macs)} MAC addresses for {count}")
    if asked.arm is None:
        return asked.macs, None
    if asked.arm not in interfaces:
        there = " and ".join(f'"{name}"' for name in interfaces)
        raise click.UsageError(f"--arm: {output.visible(repr(asked.arm))} is not in [lb]; there is {there}")
    return asked.macs, interfaces.index(asked.arm)


def _meaning(what: str) -> FiveTuple | Path | bytes:
    """A 5-tuple, the path of a capture, or a frame. Raises click.UsageError."""
    flow = _FLOW.fullmatch(what)
    if flow:
        return _five_tuple(flow)
    path = Path(what)
    if _exists(path):
        return path
    if _ARROW.search(what):
        raise click.UsageError(f"{output.visible(repr(what))} is no 5-tuple: {_FIVE_TUPLE}\n{FORMS}")
    digits = _SEPARATORS.sub("", _LINE_OFFSET.sub("", what))
    if _HEX.fullmatch(digits):
        if len(digits) % 2:
            raise click.UsageError(f"{len(digits)} hex digits are no whole number of bytes\n{FORMS}")
        return bytes.fromhex(digits)
    if "/" in what or path.suffix in _CAPTURES:
        return path
    raise click.UsageError(f"{output.visible(repr(what))} is nothing that can be explained\n{FORMS}")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a hex frame can be too long for a name
        return False


def _five_tuple(match: re.Match[str]) -> FiveTuple:
    ends: list[IPv4Address | IPv6Address] = []
    for name in ("src", "dst"):
        try:
            ends.append(ip_address(match[name].strip("[]")))
        except ValueError as error:
            raise click.UsageError(f"{match[name]} is not an IP address\n{FORMS}") from error
    if ends[0].version != ends[1].version:
        raise click.UsageError(f"{match['src']} and {match['dst']} are of two IP versions\n{FORMS}")
    for name in ("sport", "dport"):
        if len(match[name]) > len(str(_LARGEST_PORT)) or int(match[name]) > _LARGEST_PORT:
            raise click.UsageError(f"port {match[name]} is above {_LARGEST_PORT}\n{FORMS}")
    protocol = {"tcp": ipv4.TCP, "udp": ipv4.UDP}.get((match["protocol"] or "tcp").lower())
    if protocol is None:
        raise click.UsageError(f"protocol {match['protocol']} is neither tcp nor udp\n{FORMS}")
    return FiveTuple(ends[0], int(match["sport"]), ends[1], int(match["dport"]), protocol)


def _frames(meant: FiveTuple | Path | bytes, what_if: WhatIf) -> Iterable[bytes]:
    if isinstance(meant, FiveTuple):
        return [whatif.first_frame(meant, what_if.own_mac())]
    return _captured(meant) if isinstance(meant, Path) else [meant]


def _captured(path: Path) -> Iterator[bytes]:
    """Raises L4R-403, also in the middle."""
    logging.getLogger("scapy").setLevel(logging.ERROR)  # what it warns of is in the exception, or harmless
    try:
        yield from read_capture(path)
    except OSError as error:
        what = f"cannot read the capture: {(error.strerror or str(error)).lower()}"
        raise L4Error("L4R-403", what=what, where=str(path)) from error
    except LinkTypeError as error:
        raise L4Error("L4R-403", what=str(error), where=str(path), fix=_NOT_ANY) from error
    except ValueError as error:
        raise L4Error("L4R-403", what=str(error), where=str(path)) from error


def _print(
    outcomes: Iterable[tuple[int, Outcome]], what_if: WhatIf, loaded: Loaded, is_capture: bool
) -> None:
    click.echo(f"configuration: {loaded.path} ({loaded.found_by})")
    for sentence in what_if.assumptions:
        click.echo(f"assumed: {sentence}")
    for number, outcome in outcomes:
        click.echo("\n" + "\n".join(text(number, outcome, what_if)))
    if is_capture:
        click.echo("\n" + _total(what_if.tables.verdicts))
        if advice := _advice(what_if):
            click.echo(advice)


def _total(verdicts: Sequence[int]) -> str:
    """How many frames a capture had, and what became of them."""
    counted = zip(VERDICT_NAMES, verdicts, strict=True)
    each = ", ".join(f"{name} {times}" for name, times in counted if times)
    frames = sum(verdicts)
    if not frames:
        return "0 frames: the capture is empty"
    none = ", none of them IPv4" if verdicts[PASS_NOT_IP] == frames else ""
    return f"{frames} frames{none}: {each}"


def _advice(what_if: WhatIf) -> str | None:
    """What to do with a capture of the backends' interface alone; None if it is none."""
    verdicts, arms = what_if.tables.verdicts, what_if.tables.arms
    if len(arms) < 2 or what_if.only_arm is not None or not 0 < verdicts[PASS_NOT_OURS] == sum(verdicts):
        return None
    first, second = arms[0].name, arms[1].name
    return (
        f"nothing in it is ours: was it taken on {second}? Then say --arm {second}; and replies are known"
        f" by the clients' frames, so capture {first} too, and merge the two files (mergecap)"
    )


def text(number: int, outcome: Outcome, what_if: WhatIf) -> Iterator[str]:
    """One frame, line by line."""
    decision = outcome.decision
    yield render.headline(number, decision)
    yield from fields.table(outcome.before)
    yield from render.choice(decision, hints.SEED_NOTE if hints.seed_matters(outcome) else "")
    yield from hints.near(outcome, what_if.tables)
    if decision.forwarded:
        yield from render.comparison(decision)
        yield from render.in_front(decision)
    for each in hints.sums(outcome):
        yield each["text"]
    yield from render.fate(decision)


def _plain(number: int, outcome: Outcome) -> Iterator[str]:
    decision = outcome.decision
    yield str(number)
    yield decision.name
    yield decision.service.service.name if decision.service else ""
    yield decision.backend.backend.name if decision.backend else ""
    yield decision.reason
    yield hints.ASSUMED_SEED if hints.seed_matters(outcome) else ""


def _data(outcomes: Iterable[tuple[int, Outcome]], what_if: WhatIf, loaded: Loaded) -> dict[str, Any]:
    frames = [record(number, outcome, what_if) for number, outcome in outcomes]
    verdicts = zip(VERDICT_NAMES, what_if.tables.verdicts, strict=True)
    return {
        "kind": "frames",
        "configuration": str(loaded.path),
        "assumed": what_if.assumptions,
        "frames": frames,
        "verdicts": {name: times for name, times in verdicts if times},
        "advice": _advice(what_if),
    }


def record(number: int, outcome: Outcome, what_if: WhatIf) -> dict[str, Any]:
    """One frame as JSON: the data that `text` prints."""
    decision = outcome.decision
    service, backend, pick = decision.service, decision.backend, decision.pick
    arms = what_if.tables.arms
    return {
        "number": number,
        "length_bytes": len(outcome.before),
        "verdict": decision.name,
        "reason": decision.reason,
        "forwarded": decision.forwarded,
        "hints": list(hints.near(outcome, what_if.tables)),
        "interface_in": arms[outcome.arm].name,
        "interface_out": arms[decision.arm].name if decision.forwarded else None,
        "fields": [
            {"offset": offset, "field": name, "bytes": data.hex(), "value": value}
            for offset, name, data, value in fields.fields(outcome.before)
        ],
        "service": {"name": service.service.name, "vip": str(service.service)} if service else None,
        "mode": str(service.service.mode) if service else None,
        "backend": {"name": backend.backend.name, "address": str(backend.backend)} if backend else None,
        "assumed_ring_seed": hints.seed_matters(outcome),
        "flow": None if decision.flow < 0 else {"entry": decision.flow, "known": pick is None},
        "pick": {**pick._asdict(), "text": render.pick_text(pick)} if pick else None,
        "source": render.source_data(decision.source),
        "edits": [
            {"field": name, "offset": offset, "old": old.hex(), "new": new.hex()}
            for name, offset, old, new in decision.edits
        ],
        "outer": {"bytes": decision.outer.hex(), "text": list(render.in_front(decision))}
        if decision.outer
        else None,
        "checksums": list(hints.sums(outcome)),
        "before": outcome.before.hex(),
        "after": outcome.after.hex() if outcome.after is not None else None,
    }
