"""`l4raw version`: what a bug report needs."""

from __future__ import annotations

import platform

import click

from l4raw import __version__
from l4raw.cli import output
from l4raw.cli.state import State, pass_state


@click.command()
@pass_state
def command(state: State) -> None:
    """Print the versions of l4raw and of what it runs on."""
    facts = _facts()
    if state.json:
        output.print_json("l4raw.version/1", facts)
    elif state.plain:
        for name, value in facts.items():
            click.echo(f"{name}\t{value}")
    else:
        for name, value in facts.items():
            click.echo(f"{name:<8}{value}")


def _facts() -> dict[str, str | int]:
    from l4raw.engine import native
    from l4raw.wire import abi

    return {
        "l4raw": __version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "abi": abi.ABI_VERSION,
        "native": native.status(),
        **native.others(),
    }
