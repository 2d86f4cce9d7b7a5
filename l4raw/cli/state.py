"""The global options, and where they are kept while a command runs.

Lives here: `State`, and the options that fill it. The group offers them, and
every subcommand takes them too, because people add a flag at the end of the
line they typed before.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click


@dataclass(slots=True)
class State:
    """What the global options say. A command gets it with `@pass_state`."""

    config: Path | None = None
    json: bool = False
    plain: bool = False
    no_color: bool = False
    verbose: int = 0
    quiet: bool = False
    debug: bool = False
    after_ready: str = ""
    """No option: what the demo has to say once frames are forwarded."""


pass_state = click.make_pass_decorator(State, ensure=True)


def add_global_options(command: click.Command, *, hidden: bool) -> None:
    """Let `command`, and the commands in it, take the global options. Those it has itself stay its own."""
    taken = {name for parameter in command.params for name in parameter.opts}
    for option in _options(hidden):
        if taken.isdisjoint(option.opts):
            command.params.append(option)
    if hidden and command.epilog is None:
        command.epilog = "Global options (see l4raw --help) work here too."
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            add_global_options(inner, hidden=True)


def _remember(context: click.Context, parameter: click.Parameter, value: object) -> None:
    """Keep what was given; a default must not undo what stood before the subcommand."""
    state = context.ensure_object(State)
    assert parameter.name is not None
    if context.get_parameter_source(parameter.name) is not click.core.ParameterSource.DEFAULT:
        setattr(state, parameter.name, value)


def _options(hidden: bool) -> list[click.Option]:
    def option(*names: str, text: str, **settings: object) -> click.Option:
        return click.Option(
            names,
            help=text,
            hidden=hidden,
            expose_value=False,
            callback=_remember,
            **settings,  # type: ignore[arg-type]
        )

    return [
        # $L4RAW_CONFIG is read in control/config.py, which also says that it was.
        option(
            "-c",
            "--config",
            text="The configuration file.",
            # Not click's to judge: a file that cannot be read is L4R-102, not wrong usage.
            type=click.Path(path_type=Path, readable=False),
            metavar="FILE",
            allow_from_autoenv=False,
        ),
        option("--json", text="Print data and errors as JSON.", is_flag=True),
        option("--plain", text="Print data as tab-separated lines.", is_flag=True),
        option("--no-color", text="No colours. NO_COLOR does the same.", is_flag=True),
        option("-v", "--verbose", text="Say more; twice: still more.", count=True),
        option("-q", "--quiet", text="Say less: no warnings.", is_flag=True),
        option("--debug", text="Show the traceback of an unexpected error.", is_flag=True),
    ]
