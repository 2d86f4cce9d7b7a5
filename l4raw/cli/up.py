"""`l4raw up`: run a balancer in the foreground until it is told to stop."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from l4raw.cli import output
from l4raw.cli.state import State, pass_state

if TYPE_CHECKING:
    from l4raw.control.balancer import Balancer
    from l4raw.control.netlink import Interface
    from l4raw.control.settings import Config
    from l4raw.core.decision import Decision
    from l4raw.engine.base import Steer


@click.command()
@click.option("--dataplane", type=click.Choice(["auto", "raw"]), help="Instead of what the file says.")
@click.option("--dry-run", is_flag=True, help="Print what would be done to the host, and do nothing.")
@click.option(
    "--demo", type=click.Choice(["dsr", "nat"]), help="Make a network of namespaces and balance in it."
)
@click.option(
    "--instance", metavar="NAME", help="Its name in /run/l4raw; the first interface's if not given."
)
@click.option(
    "--accept-risk", type=click.Choice(["lose-ssh"]), multiple=True, help="Go on in spite of this risk."
)
@click.option(
    "--trace", metavar="N", default=0, help="Show the first N frames that are forwarded, before and after."
)
@pass_state
def command(
    state: State,
    dataplane: str | None,
    dry_run: bool,
    demo: str | None,
    instance: str | None,
    accept_risk: tuple[str, ...],
    trace: int,
) -> None:
    """Start the balancer. Ctrl-C stops it and undoes everything.

    The configuration is the file of -c, else $L4RAW_CONFIG, else ./l4raw.toml, else /etc/l4raw/l4raw.toml.
    """
    if demo:
        from l4raw.cli.demo import run_demo

        run_demo(demo, lambda config: _up(state, config, "", instance, False, trace, dry_run), state)
        return
    from l4raw.control.config import load

    loaded = load(state.config, os.environ)
    config = loaded.config
    if dataplane:
        config = replace(config, lb=replace(config.lb, dataplane=dataplane))
    output.print_warnings([w for w in loaded.warnings if w.code != "L4R-141"], state)
    origin = f"configuration: {loaded.path} ({loaded.found_by})"
    _up(state, config, origin, instance, "lose-ssh" in accept_risk, trace, dry_run)


def _up(
    state: State,
    config: Config,
    origin: str,
    instance: str | None,
    accept_ssh: bool,
    trace: int,
    dry_run: bool,
) -> None:
    """Inspect, plan, start, run, stop."""
    from l4raw.control import plan
    from l4raw.control.balancer import Balancer, inspect
    from l4raw.control.instance import default_name
    from l4raw.control.lock import default_run_dir
    from l4raw.control.seed import ring_seed, state_dir

    say = _speaker(state)
    if origin:
        say(origin)
    interfaces = inspect(config, accept_ssh)
    name = instance or default_name(interfaces[0].name)
    run_dir = default_run_dir()
    _warn_one_arm_nat(config, interfaces, state)
    for line in plan.describe(config, interfaces, name, run_dir, state_dir(os.environ)):
        say(line)
    if dry_run:
        say("dry run: nothing was changed")
        return
    seed = config.lb.ring_seed
    key = seed.encode() if seed is not None else ring_seed(state_dir(os.environ))
    try:
        balancer = Balancer(config, interfaces, name, run_dir, key)
    except ValueError as error:
        raise click.UsageError(f"--instance: {error}") from error
    with _stop_signals() as stopping:
        with balancer.start(lambda text: say(f"  {text}")):
            _ready(balancer, state)
            with _live(balancer, state) as each_second:
                balancer.run(stopping, each_second, _traced(trace, state))
        _stopped(balancer, state)


def _speaker(state: State) -> Callable[[str], None]:
    """Messages go to stderr; none with --quiet."""
    return lambda text: None if state.quiet else click.echo(text, err=True, color=output.color(state))


def _warn_one_arm_nat(config: Config, interfaces: Sequence[Interface], state: State) -> None:
    from ipaddress import IPv4Network

    from l4raw.control.config import one_arm_nat_warnings

    subnets = [
        IPv4Network((address, prefix), strict=False)
        for address, prefix in (pair for interface in interfaces for pair in interface.addresses)
    ]
    output.print_warnings(one_arm_nat_warnings(config, subnets), state)


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """A function that tells whether SIGINT, SIGTERM or SIGHUP has come. The first one stops, the second is deadly."""
    received: list[int] = []

    def remember(number: int, frame: object) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, remember) for number in wanted}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ready(balancer: Balancer, state: State) -> None:
    """The one line that says that frames are forwarded now."""
    services = [
        {"name": s.name, "vip": str(s), "mode": s.mode.value, "backends": len(s.backends)}
        for s in balancer.config.services
    ]
    arms = [arm.name for arm in balancer.arms]
    if state.json:
        _event("ready", instance=balancer.name, dataplane="raw", interfaces=arms, services=services)
    else:
        names = ", ".join(f"{s['name']} {s['vip']} {s['mode']}" for s in services)
        click.echo(f"ready: {names} over raw on {', '.join(arms)} (instance {balancer.name})")
    sys.stdout.flush()
    if balancer.unresolved and not (state.quiet or state.json):
        click.echo(f"warning: nobody answers ARP for {', '.join(balancer.unresolved)} yet", err=True)


@contextmanager
def _live(balancer: Balancer, state: State) -> Iterator[Callable[[], None] | None]:
    """A line that is redrawn each second, on a terminal only."""
    if state.json or state.quiet or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield None
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    tables = balancer.tables
    last = [sum(tables.verdicts)]
    with Live(
        console=Console(stderr=True, no_color=output.color(state) is False), auto_refresh=False
    ) as live:

        def redraw() -> None:
            total = sum(tables.verdicts)
            flows = sum(traffic.flows for traffic in tables.services)
            text = (
                f"{total - last[0]:,} frames/s   {total:,} frames   {flows:,} flows since start"
                f"   {len(tables.flows):,} entries   Ctrl-C stops"
            )
            last[0] = total
            live.update(Text(text), refresh=True)

        yield redraw


def _traced(count: int, state: State) -> Steer:
    """steer(), and the first `count` forwarded frames on stdout; afterwards nothing but steer()'s own time."""
    from l4raw.core.steer import steer

    if count <= 0:
        return steer
    seen = 0

    def decide(*arguments: Any) -> Decision:
        nonlocal seen
        decision = steer(*arguments)
        if seen < count and decision.forwarded:
            seen += 1
            _show(seen, decision, state)
        return decision

    return decide


def _show(number: int, decision: Decision, state: State) -> None:
    from l4raw.cli import render

    if state.json:
        edits = [
            {"field": f, "offset": o, "old": old.hex(), "new": new.hex()} for f, o, old, new in decision.edits
        ]
        _event(
            "frame", number=number, verdict=decision.name, edits=edits, text=render.headline(number, decision)
        )
    else:
        lines = [render.headline(number, decision), *render.comparison(decision), *render.story(decision)]
        click.echo("\n".join(lines))
    sys.stdout.flush()


def _stopped(balancer: Balancer, state: State) -> None:
    from l4raw.cli import render

    data = render.counters(balancer.tables, balancer.final_statistics)
    if state.json:
        _event("stopped", instance=balancer.name, left=len(balancer.left), counters=data)
    elif not state.quiet:
        click.echo("\n".join(["stopped.", *render.summary(data), *balancer.left]), err=True)
        click.echo(f"host is as it was; {len(balancer.left)} items left", err=True)


def _event(event: str, **facts: object) -> None:
    click.echo(json.dumps({"schema": "l4raw.up/1", "event": event, **facts}))
