"""What people and programs see of a balancer that runs in the foreground.

stdout has the data: one line that starts with `ready` and the frames that were
asked for; with --json, JSON Lines. stderr has all else. Nobody who stops
reading stops the balancer. Must not live here: what is done (up.py), and how
counters and frames read (render.py).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

import click

from l4raw.cli import output, render
from l4raw.cli.state import State
from l4raw.control.errors import Problem
from l4raw.wire.abi import DROP_FLOWS_FULL, EVENT_EVICTED_HALF_OPEN, EVENT_NO_AFFINITY
from l4raw.wire.ethernet import format_mac

if TYPE_CHECKING:
    from l4raw.control.balancer import Balancer
    from l4raw.control.standing import Event
    from l4raw.core.decision import Decision

SCHEMA: Final = "l4raw.up/1"
_REMIND_S: Final = 600.0
"""A conflict that lasts is told again after this time, and so is a flood."""
_SHORT: Final = {
    "evicted_half_open": "half-open flows make room for newer ones, {count}",
    "no_affinity": "clients' choices find no room, {count}",
    "drop_flows_full": "new flows are refused, {count}",
}
"""What the flow table has no room for, by its counter."""
_WHY: Final = (
    "a flood, a scan, or clients that send one datagram in a while",
    "the flow table is full: raise flow_memory",
)
"""Of a table that has room, and of one that has little."""
_ERASE_LINE: Final = "\r\x1b[K"


class Foreground:
    """Prints. No method raises OSError: who read has gone, and the clients are still there."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._line_shown = False
        self._frames_before = 0
        self._told: dict[tuple[bytes, bytes], float] = {}
        self._short = Counter[str]()
        self._told_short: dict[str, float] = {}
        self._unresolved: list[str] = []
        """Backends that were told to have no MAC."""

    def say(self, text: str) -> None:
        """A message, unless --quiet."""
        if not self._state.quiet:
            self._echo(text, err=True)

    def plan_only(self, lines: list[str]) -> None:
        """The plan as data: that of a dry run."""
        if self._state.json:
            self._event("plan", lines=lines)
        else:
            self._echo("\n".join(lines))

    def ready(self, balancer: Balancer) -> None:
        """The one line that says that frames are forwarded now."""
        services = [
            {"name": s.name, "vip": str(s), "mode": s.mode.value, "backends": len(s.backends)}
            for s in balancer.config.services
        ]
        arms = [arm.name for arm in balancer.arms]
        self._unresolved = balancer.unresolved
        if self._state.json:
            self._event(
                "ready",
                instance=balancer.name,
                dataplane=balancer.dataplane,
                dataplane_note=balancer.dataplane_note,
                interfaces=arms,
                services=services,
                unresolved=balancer.unresolved,
            )
        else:
            names = ", ".join(f"{s['name']} {s['vip']} {s['mode']}" for s in services)
            note = f" ({balancer.dataplane_note})" if balancer.dataplane_note else ""
            where = f"{balancer.dataplane}{note} on {', '.join(arms)}"
            self._echo(f"ready: {names} over {where} (instance {balancer.name})")
            if balancer.unresolved:
                self.say(f"warning: nobody answers ARP for {', '.join(balancer.unresolved)} yet")
        for problem in balancer.warnings:
            self._warning(problem)
        self._kernel_path(balancer)
        if self._state.after_ready and not self._state.json:
            self.say(self._state.after_ready)

    def each_second(self, balancer: Balancer) -> None:
        """What is new, and the line that is redrawn, on a terminal only."""
        while balancer.conflicts:
            self._conflict(balancer, *balancer.conflicts.popleft())
        self._exhausted(balancer)
        self._short_of_room(balancer)
        while balancer.health_events:
            self._health(balancer.health_events.popleft())
        self._kernel_path(balancer)
        if balancer.unresolved != self._unresolved:
            self._backends(self._unresolved, balancer.unresolved)
            self._unresolved = balancer.unresolved
        if not (self._state.json or self._state.quiet) and _is_terminal():
            self._draw(balancer)

    def _backends(self, before: list[str], now: list[str]) -> None:
        """Who has lost its MAC and who has one again. A name may be there twice, of two services."""
        lost = list((Counter(now) - Counter(before)).elements())
        found = list((Counter(before) - Counter(now)).elements())
        if self._state.json:
            self._event("backends", lost=lost, found=found, unresolved=now)
            return
        if lost:
            self.say(
                f"warning: nobody answers ARP for {', '.join(lost)} any more: frames to there are dropped"
            )
        if found:
            self.say(f"ARP for {', '.join(found)} is answered now: frames to there are sent")

    def _kernel_path(self, balancer: Balancer) -> None:
        while balancer.kernel_path:
            state = balancer.kernel_path.popleft()
            if self._state.json:
                self._event("kernel_path", forwards=state.forwards, reasons=list(state.reasons))
            else:
                self.say(f"xdp: {state}" if state.forwards else f"warning: xdp: {state}")

    def _health(self, event: Event) -> None:
        if self._state.json:
            self._event("health", **event._asdict())
        else:
            self.say(str(event))

    def _exhausted(self, balancer: Balancer) -> None:
        """New flows that got no address and port, by pool and backend. Once a second, and at the end."""
        tables = balancer.tables
        for number, refused in tables.ports.take_refused().items():
            backend = tables.policy.backends[number]
            service = tables.policy.by_number[backend.service] if backend else None
            if backend is None or service is None or service.pool is None:
                continue
            name, pool = service.service.name, str(service.pool)
            to = f"{backend.backend.name} {backend.backend}"
            if self._state.json:
                self._event(
                    "snat_exhausted", service=name, pool=pool, backend=backend.backend.name, refused=refused
                )
            else:
                flows = f"{refused} new flow{'' if refused == 1 else 's'}"
                none = f"the SNAT pool {pool} has no port left for {to}"
                self.say(f"warning: service {name}: {none}: {flows} refused")

    def _short_of_room(self, balancer: Balancer) -> None:
        """What the flow table had no room for in this second; people are told now and then."""
        tables, table = balancer.tables, balancer.tables.flows
        events, total = tables.total_events(), Counter[str]()
        total["evicted_half_open"] = events[EVENT_EVICTED_HALF_OPEN]
        total["no_affinity"] = events[EVENT_NO_AFFINITY]
        total["drop_flows_full"] = tables.total_verdicts()[DROP_FLOWS_FULL]
        new, self._short = total - self._short, total
        if self._state.json:
            if new:
                self._event("flow_table", entries=table.used, capacity=table.capacity, **new)
            return
        for name, count in new.items():
            if self._told_short.get(name, 0.0) <= time.monotonic():
                self._told_short[name] = time.monotonic() + _REMIND_S
                near = table.used >= table.capacity - table.share.limit
                self.say(f"warning: {_SHORT[name].format(count=f'{count:,}')} in this second: {_WHY[near]}")

    def _conflict(self, balancer: Balancer, vip: bytes, mac: bytes) -> None:
        now = time.monotonic()
        if self._told.get((vip, mac), now) > now:
            return
        self._told[vip, mac] = now + _REMIND_S
        is_snat = vip in balancer.tables.policy.snat
        interface, kind = balancer.arms[-1 if is_snat else 0].name, "SNAT address" if is_snat else "VIP"
        problem = Problem(
            "L4R-207",
            f"the host {format_mac(mac)} claims the {kind} {ip_address(vip)} too",
            where=f"{interface}, {format_mac(mac)}",
        )
        self._warning(problem)

    def _warning(self, problem: Problem) -> None:
        if self._state.json:
            self._event("warning", **problem.as_dict())
        else:
            self.say(output.format_problem(problem))

    def _draw(self, balancer: Balancer) -> None:
        tables = balancer.tables
        total = sum(tables.total_verdicts())
        flows = sum(tables.total_traffic(i).flows for i in range(len(tables.backends)))
        text = (
            f"{total - self._frames_before:,} frames/s   {total:,} frames   {flows:,} flows since start"
            f"   {len(tables.flows):,} entries   Ctrl-C stops"
        )
        self._frames_before = total
        try:
            # One column less: a full line would make the terminal begin another. 0: it does not know.
            width = (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1
            sys.stderr.write(_ERASE_LINE + text[:width])
            sys.stderr.flush()
            self._line_shown = True
        except OSError:
            _to_nowhere(sys.stderr.fileno())

    def frame(self, number: int, decision: Decision) -> None:
        """A frame that was forwarded, before and after."""
        shown = (*render.comparison(decision), *render.in_front(decision))
        text = [render.headline(number, decision), *shown, *render.story(decision)]
        if not self._state.json:
            self._echo("\n".join(text))
            return
        edits = [
            {"field": f, "offset": o, "old": old.hex(), "new": new.hex()} for f, o, old, new in decision.edits
        ]
        self._event("frame", number=number, verdict=decision.name, edits=edits, text=text)

    def stopped(self, balancer: Balancer) -> None:
        """The counters, and what could not be undone."""
        self._exhausted(balancer)
        left = balancer.left
        data = render.counters(balancer.tables, balancer.final_statistics)
        if self._state.json:
            self._event("stopped", instance=balancer.name, left=len(left), counters=data)
            return
        self.say("\n".join(["stopped.", *render.summary(data), *left]))
        self.say(f"host is not as it was; {len(left)} items left" if left else "host is as it was")

    def _event(self, event: str, **facts: object) -> None:
        self._echo(json.dumps({"schema": SCHEMA, "event": event, **facts}))

    def _echo(self, text: str, err: bool = False) -> None:
        color = output.color(self._state)
        try:
            if self._line_shown:
                self._line_shown = False
                sys.stderr.write(_ERASE_LINE)
                sys.stderr.flush()
            click.echo(text, err=err, color=color)
        except OSError:
            _to_nowhere(2 if err else 1)


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _to_nowhere(descriptor: int) -> None:
    """So that the next words, and what is still in Python's buffer, do not fail again."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
