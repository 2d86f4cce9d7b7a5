"""`l4raw config`: a configuration to start from."""

from __future__ import annotations

from importlib.resources import files

import click


@click.group()
def command() -> None:
    """Print a configuration file to start from."""


@command.command()
def template() -> None:
    """Print a commented configuration with every key."""
    click.echo(files("l4raw.control").joinpath("template.toml").read_text("utf-8"), nl=False)
