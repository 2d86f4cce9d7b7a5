"""`l4raw bench`: how fast is it here? In networks of its own; and two results beside each other."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from l4raw.cli import output
from l4raw.cli.state import State, pass_state
from l4raw.core.model import Mode

if TYPE_CHECKING:
    from rich.table import Table

    from l4raw.bench.result import Change

_DATAPLANES = ("xdp", "af_xdp", "raw")
_NOT_FOUND = (
    "no rate without loss was found, so there is no latency: at each rate frames were lost or late, or"
    " the generator did not keep it up, as when other jobs have its CPU"
)


@click.group(invoke_without_command=True)
@click.option("--mode", type=click.Choice([str(mode) for mode in Mode]), default="dsr-l2", show_default=True)
@click.option("--dataplane", type=click.Choice(_DATAPLANES), default="xdp", show_default=True)
@click.option("--protocol", type=click.Choice(["udp", "tcp"]), default="udp", show_default=True)
@click.option("--flows", type=click.IntRange(1, 4_000_000), default=1000, show_default=True)
@click.option(
    "--arms", type=click.IntRange(1, 2), help="Interfaces.  [default: 2 for nat and fullnat, else 1]"
)
@click.option("--changes", is_flag=True, help='TCP under DSR: flows = "track-changes".')
@click.option("--pairs", type=click.IntRange(2, 10_000), help="Turns of each.  [default: 50; raw: 10]")
@click.option(
    "--seconds", type=click.FloatRange(0.005, 60), help="Of a turn.  [default: xdp 0.02, af_xdp 0.1, raw 0.5]"
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write the result there."
)
@click.option(
    "--plot", "plot_file", type=click.Path(path_type=Path), metavar="FILE", help="Draw it; needs matplotlib."
)
@pass_state
def command(state: State, /, json_file: Path | None, plot_file: Path | None, **what: Any) -> None:
    """Measure the balancer beside a bare XDP program that only writes two MAC addresses.

    As root, with two CPUs; a minute or less. Nothing of this host is touched: client, balancer and backend
    are network namespaces of their own.
    """
    if click.get_current_context().invoked_subcommand:
        return
    from l4raw.bench import measure, plot, result
    from l4raw.bench.bed import ALL, CHANGES, MOST_FULLNAT, Setting

    mode = Mode(what["mode"])
    if what["changes"] and (what["protocol"] != "tcp" or mode.is_nat):
        raise click.UsageError("--changes is for TCP under DSR: --protocol tcp, and neither nat nor fullnat")
    setting = Setting(
        mode,
        what["dataplane"],
        what["protocol"],
        what["flows"],
        what["arms"] or (2 if mode.is_nat else 1),
        CHANGES if what["changes"] else ALL,
    )
    if mode is Mode.FULLNAT and setting.flows > MOST_FULLNAT:
        raise click.UsageError(f"--flows: {MOST_FULLNAT:,} at most with fullnat, whose ports they need")
    pairs = what["pairs"] or (10 if setting.dataplane == "raw" else 50)
    # What cannot be written is told before minutes of measuring.
    if plot_file:
        _write(lambda: plot.require(plot_file), plot_file)
    for file in filter(None, (json_file, plot_file)):
        if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
            raise click.ClickException(f"{output.visible(str(file))}: it cannot be written")
    measure.require()
    figures = _with_progress(state, lambda tell: measure.measure(setting, pairs, what["seconds"], tell))
    found = result.result(setting, pairs, figures)
    if found["no_loss"] is None:
        click.echo(f"warning: {_NOT_FOUND}", err=True)
    if state.json:
        output.print_json(result.SCHEMA, found)
    else:
        _print(state, _table(found))
    if json_file:
        _write(lambda: json_file.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8"), json_file)
    if plot_file:
        _write(lambda: plot.plot(found, plot_file), plot_file)


@command.command()
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@pass_state
def compare(state: State, before: Path, after: Path) -> None:
    """Tell what has changed between two results of the same machine, written by --json."""
    from l4raw.bench import result

    def both() -> tuple[list[Change], str]:
        one, other = result.read(before), result.read(after)
        kernels = one["kernel"], other["kernel"]
        note = f"kernels: {kernels[0]} and {kernels[1]}" if kernels[0] != kernels[1] else ""
        return result.compare(one, other), note

    changes, note = _plainly(both)
    if note:
        click.echo(note, err=True)
    if state.json:
        output.print_json("l4raw.bench.compare/1", [_as_dict(change) for change in changes])
    else:
        _print(state, _changes(changes))


def _plainly(step: Any) -> Any:
    """Run it; what a person did wrong is a line, and exit code 1."""
    from l4raw.bench.plot import NoMatplotlib
    from l4raw.bench.result import ResultError

    try:
        return step()
    except (ResultError, NoMatplotlib) as error:
        raise click.ClickException(output.visible(str(error))) from error


def _write(step: Any, path: Path) -> None:
    try:
        _plainly(step)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise click.ClickException(f"{path}: {output.visible(reason)}") from error


def _with_progress(state: State, run: Any) -> Mapping[str, Any]:
    """A bar on stderr, where that is a terminal; else a line for each step."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, no_color=output.color(state) is False)

    def run_plainly(tell: Any) -> Mapping[str, Any]:
        try:
            found: Mapping[str, Any] = run(tell)
        except RuntimeError as error:  # what a process of the benchmark said last
            raise click.ClickException(output.visible(str(error))) from error
        return found

    if not console.is_terminal or state.quiet:
        return run_plainly(lambda text, _: None if state.quiet else click.echo(f"{text} ...", err=True))
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=1.0)
        return run_plainly(lambda text, share: progress.update(task, description=text, completed=share))


def _print(state: State, table: Table) -> None:
    from rich.console import Console

    console = Console(no_color=output.color(state) is False)
    if not console.is_terminal:
        console.width = 120
    console.print(table)


def _table(found: Mapping[str, Any]) -> Table:
    from rich.table import Table

    setting, machine = found["setting"], found["machine"]
    title = f"{setting['mode']}, {setting['dataplane']}, {setting['protocol']}, {setting['flows']:,} flows"
    caption = f"{machine['cpus']} x {machine['cpu']}, Linux {found['kernel']}; {found['note']}"
    table = Table("", "l4raw", "bare XDP program", "", title=title, caption=caption)
    for column in table.columns[1:]:
        column.justify = "right"
    top = found["saturated"]
    rate, bare, ratio = top["rate"], top["bare"], top["ratio"]
    table.add_row("saturated, Mpps", _spread(rate, 1e6), _spread(bare, 1e6), f"ratio {_spread(ratio)}")
    table.add_row("ns a frame, load and sink included", f"{top['ns']:.0f}", f"{top['bare_ns']:.0f}")
    table.add_row("without loss, Mpps", f"{found['no_loss'] / 1e6:.2f}" if found["no_loss"] else "not found")
    for each in found["latency"]:
        for name, own in each["us"].items():
            what = f"latency at {each['load']:.0%} of that, {name}, us"
            added = f"added {each['added_us'][name]:.1f}"
            table.add_row(what, f"{own:.1f}", f"{each['bare_us'][name]:.1f}", added)
    table.add_row("frames that the kernel path sent", f"{top['by_kernel']:.1%}")
    table.add_row("CPU of the balancer's process", f"{top['cpu']:.0%}")
    drops = ", ".join(f"{reason} {count:,}" for reason, count in top["drops"].items()) or "none"
    table.add_row("drops while saturated", drops)
    return table


def _spread(spread: Mapping[str, float], by: float = 1.0) -> str:
    return f"{spread['median'] / by:.2f} ({spread['low'] / by:.2f} to {spread['high'] / by:.2f})"


def _changes(changes: list[Change]) -> Table:
    from rich.table import Table

    table = Table("", "before", "after", "change", "")
    for change in changes:
        percent = "-" if change.percent is None else f"{change.percent:+.1f} %"
        said = (
            ("beyond quartiles" if change.beyond_quartiles else "within quartiles")
            if change.quartiles
            else ""
        )
        name = f"{change.name}, {change.unit}" if change.unit else change.name
        table.add_row(name, _with_quartiles(change, 0), _with_quartiles(change, 1), percent, said)
    return table


def _with_quartiles(change: Change, which: int) -> str:
    value = (change.before, change.after)[which]
    if not change.quartiles:
        return f"{value:.2f}"
    low, high = change.quartiles[which]
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def _as_dict(change: Change) -> dict[str, Any]:
    return {**change._asdict(), "percent": change.percent}
