"""`l4raw up`: run a balancer in the foreground until it is told to stop."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from l4raw.cli import output
from l4raw.cli.signals import StopFlag, Stopping, stop_flag
from l4raw.cli.state import State, pass_state
from l4raw.control.errors import L4Error

if TYPE_CHECKING:
    from l4raw.cli.foreground import Foreground
    from l4raw.control.balancer import Balancer
    from l4raw.control.netlink import Interface
    from l4raw.control.settings import Config
    from l4raw.core.decision import Decision
    from l4raw.engine.base import Steer


_DATAPLANES = ("auto", "xdp", "af_xdp", "raw")


@dataclass(frozen=True, slots=True)
class _Asked:
    """What `up` was asked for, beside the configuration."""

    origin: str | None
    """Where the configuration comes from, in words; None: there is nothing to say."""
    instance: str | None
    accept_ssh_loss: bool
    trace: int
    dry_run: bool
    keep_privileges: bool
    """The demo goes on to take its network down, for which it needs more than a balancer does."""


def _dataplane(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """The word of --dataplane."""
    if value not in (None, *_DATAPLANES):
        raise click.BadParameter(f'"{value}" is unknown; there are {", ".join(_DATAPLANES)}')
    return value


@click.command()
@click.option(
    "--dataplane", metavar="auto|xdp|af_xdp|raw", callback=_dataplane, help="Instead of what the file says."
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Change nothing, and print the plan. Needs root: it looks at the interfaces, and asks by ARP who has"
    " the VIPs. It does not look for the backends.",
)
@click.option(
    "--demo",
    type=click.Choice(["dsr", "nat"]),
    help="Make a network of namespaces and balance in it, over raw sockets unless --dataplane is given.",
)
@click.option(
    "--instance",
    metavar="NAME",
    help="Its name in the run folder. If not given: the first interface's name, in a network namespace"
    " NAME@INODE, for there may be an eth0 in each.",
)
@click.option(
    "--accept-risk", type=click.Choice(["lose-ssh"]), multiple=True, help="Go on in spite of this risk."
)
@click.option(
    "--trace",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    help="Show the first N frames that are forwarded, before and after.",
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
    --plain is for --dry-run: a record of kind and value a line. What runs speaks to programs by --json.
    """
    accept_ssh_loss = "lose-ssh" in accept_risk
    with stop_flag() as stopping:
        if demo:
            _refuse_beside_demo({"-c": state.config, "--accept-risk": accept_risk})
            asked = _Asked(None, instance, accept_ssh_loss, trace, dry_run, keep_privileges=True)
            from l4raw.cli.demo import run_demo

            run_demo(demo, lambda config: _up(state, _over(config, dataplane), asked, stopping), state)
            return
        from l4raw.control.config import load

        loaded = load(state.config, os.environ)
        config = _over(loaded.config, dataplane)
        origin = f"configuration: {loaded.path} ({loaded.found_by})"
        asked = _Asked(origin, instance, accept_ssh_loss, trace, dry_run, keep_privileges=False)
        _up(state, config, asked, stopping)


def _over(config: Config, dataplane: str | None) -> Config:
    """The configuration with the dataplane of the command line, if there is one."""
    return replace(config, lb=replace(config.lb, dataplane=dataplane)) if dataplane else config


def _refuse_beside_demo(options: dict[str, object]) -> None:
    """Raises click.UsageError for an option that would change nothing."""
    for name, value in options.items():
        if value:
            raise click.UsageError(f"{name} does not go with --demo, which brings its own configuration")


def _up(state: State, config: Config, asked: _Asked, stopping: StopFlag) -> None:
    """Inspect, plan, start, run, stop."""
    from l4raw.cli.foreground import Foreground
    from l4raw.control import plan
    from l4raw.control.balancer import Balancer
    from l4raw.control.inspection import inspect
    from l4raw.control.instance import default_name
    from l4raw.control.lock import default_run_dir
    from l4raw.control.privileges import TO_OPEN, TO_RUN, keep_only
    from l4raw.control.seed import ring_seed, state_dir

    foreground = Foreground(state)
    # Whatever `up` can be refused for comes before the first word: then the error is the first line.
    interfaces = inspect(config, asked.accept_ssh_loss)
    name = asked.instance or default_name(interfaces[0].name)
    run_dir, states = default_run_dir(), state_dir(os.environ)
    steps = list(plan.steps(config, interfaces, name, run_dir, states))
    lines = list(plan.describe(steps))
    if asked.dry_run:
        if asked.origin:
            foreground.say(asked.origin)
        _warn_one_arm_nat(config, interfaces, state)
        foreground.plan_only(["\t".join(step) for step in steps] if state.plain and not state.json else lines)
        foreground.say("dry run: nothing was changed")
        return
    seed = config.lb.ring_seed
    key = seed.encode() if seed is not None else lambda: ring_seed(states)
    try:
        balancer = Balancer(config, interfaces, name, run_dir, key, asked.accept_ssh_loss, asked.trace)
    except ValueError as error:
        raise click.UsageError(f"--instance: {error}") from error

    def locked(healed: Sequence[str]) -> None:
        if not asked.keep_privileges:
            keep_only(TO_OPEN)
        for text in (*filter(None, [asked.origin]), *(f"heal: {line}" for line in healed)):
            foreground.say(text)
        _warn_one_arm_nat(config, interfaces, state)
        foreground.say("\n".join(lines))

    def opened() -> None:
        if not asked.keep_privileges:
            keep_only(TO_RUN)

    _run(balancer, foreground, asked.trace, stopping, locked, opened)


def _run(
    balancer: Balancer,
    foreground: Foreground,
    trace: int,
    stopping: StopFlag,
    locked: Callable[[Sequence[str]], None],
    opened: Callable[[], None],
) -> None:
    """Forward until a signal comes, or until that is not possible any more: then it raises the error.

    `locked` is called when all locks are held, with what was healed; `opened` when the dataplane is there.
    """

    def step(text: str) -> None:
        foreground.say(f"  {text}")
        stopping.check()

    try:
        with balancer:
            locked(balancer.lock())
            balancer.open(step)
            opened()
            balancer.start(step)
            foreground.ready(balancer)
            try:
                balancer.run(stopping, lambda: foreground.each_second(balancer), _traced(trace, foreground))
            except L4Error:
                balancer.close()
                foreground.stopped(balancer)
                raise
    except Stopping:
        pass
    foreground.stopped(balancer)


def _warn_one_arm_nat(config: Config, interfaces: Sequence[Interface], state: State) -> None:
    from l4raw.control.config import one_arm_nat_warnings

    subnets = [subnet for interface in interfaces for subnet in interface.subnets]
    output.print_warnings(one_arm_nat_warnings(config, subnets), state)


def _traced(count: int, foreground: Foreground) -> Steer:
    """steer(), and the first `count` forwarded frames on stdout; plain steer() if there are none to show."""
    from l4raw.core.steer import steer

    if count <= 0:
        return steer
    seen = 0

    def decide(*arguments: Any) -> Decision:
        nonlocal seen
        decision = steer(*arguments)
        if seen < count and decision.forwarded:
            seen += 1
            foreground.frame(seen, decision)
        return decision

    return decide
