"""The command `l4raw`: which subcommands there are, and the one place that catches errors.

A subcommand is a module with a click command named `command`. It is imported
when it is used, never for `l4raw --help`: that must be fast, and pydantic,
pyroute2, scapy and rich are not.
"""

from __future__ import annotations

import errno
import traceback
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

from l4raw import __version__
from l4raw.cli import output
from l4raw.cli.state import State, add_global_options
from l4raw.control.errors import L4Error

COMMANDS = {
    "up": ("l4raw.cli.up", "Start the balancer; Ctrl-C stops it and undoes everything."),
    "down": ("l4raw.cli.down", "Stop a balancer and undo what a killed one has left."),
    "check": ("l4raw.cli.check", "Tell whether a configuration file is right."),
    "config": ("l4raw.cli.config", "Print a configuration file to start from."),
    "explain": ("l4raw.cli.explain", "Explain an error code, or what becomes of a frame."),
    "bench": ("l4raw.cli.bench", "Measure how fast it is on this machine."),
    "version": ("l4raw.cli.version", "Print the versions of l4raw and of what it runs on."),
}
"""Name: the module, and the line that `l4raw --help` prints without importing it."""

INTERRUPTED = 128 + 2
"""The exit code after SIGINT, as shells count."""


class LazyGroup(click.Group):
    """A group that imports a subcommand when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = import_module(COMMANDS[cmd_name][0]).command
        assert isinstance(command, click.Command)
        add_global_options(command, hidden=True)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            close = get_close_matches(name, COMMANDS, n=1)
            hint = f' Did you mean "{close[0]}"?' if close else f" There are: {', '.join(COMMANDS)}."
            raise click.UsageError(f'No such command "{name}".{hint}', ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand; turn whatever it raises into words and an exit code."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except L4Error as error:
            output.print_error(error, ctx.ensure_object(State))
            ctx.exit(error.exit_code)
        except Exception as error:
            # The reader of a pipe has left: click ends quietly.
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise
            _crashed(error, ctx.ensure_object(State))
            ctx.exit(1)


def _crashed(error: Exception, state: State) -> None:
    from l4raw.cli import crash

    if state.debug:
        traceback.print_exception(error)
    try:
        traceback_is, fix = f"the traceback is in {crash.write(error)}", ""
    except (OSError, RuntimeError) as reason:
        why = getattr(reason, "strerror", None) or str(reason)
        traceback_is = f"no crash file could be written ({why}); run it again with --debug"
        fix = "run it again with --debug, and report what it prints"
    output.print_unexpected(error, traceback_is, state, fix)


@click.group(cls=LazyGroup, context_settings={"auto_envvar_prefix": "L4RAW"})
@click.version_option(__version__, prog_name="l4raw")
def cli() -> None:
    """A layer-4 load balancer that a person can read.

    Try it: sudo l4raw up --demo dsr
    """


add_global_options(cli, hidden=False)


def main() -> None:
    """The entry point of the command line; does not return."""
    cli(prog_name="l4raw")
