"""`l4raw check`: is this configuration right? No root, no network, nothing changed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from l4raw.cli import output
from l4raw.cli.state import State, pass_state

if TYPE_CHECKING:
    from l4raw.control.config import Loaded


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, readable=False))
@pass_state
def command(state: State, file: Path | None) -> None:
    """Tell whether a configuration file is right.

    Without FILE: -c, $L4RAW_CONFIG, ./l4raw.toml, /etc/l4raw/l4raw.toml. Exit code 3 if it is not right.
    """
    from l4raw.control import config

    loaded = config.load(file or state.config, os.environ, "argument" if file else "-c")
    output.print_warnings(loaded.warnings, state)
    if state.json:
        output.print_json("l4raw.check/1", _data(loaded), loaded.warnings)
    elif state.plain:
        services = loaded.config.services
        click.echo(f"ok\t{loaded.path}\t{len(services)}\t{_backends(loaded)}")
    else:
        click.echo(_summary(loaded))


def _backends(loaded: Loaded) -> int:
    return sum(len(service.backends) for service in loaded.config.services)


def _summary(loaded: Loaded) -> str:
    arms = loaded.config.lb.interfaces
    counts = [_count(len(loaded.config.services), "service"), _count(_backends(loaded), "backend")]
    counts.append(
        f"one-arm on {arms[0]}" if len(arms) == 1 else f"clients on {arms[0]}, backends on {arms[1]}"
    )
    if loaded.warnings:
        counts.append(_count(len(loaded.warnings), "warning"))
    return f"{loaded.path} is right: {', '.join(counts)}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _data(loaded: Loaded) -> dict[str, Any]:
    from l4raw.control.checks import describe

    return {
        "file": str(loaded.path),
        "found_by": loaded.found_by,
        "interfaces": list(loaded.config.lb.interfaces),
        "dataplane": loaded.config.lb.dataplane,
        "services": [
            {
                "name": service.name,
                "vip": str(service),
                "mode": str(service.mode),
                "scheduler": str(service.scheduler),
                "check": describe(service, loaded.config.checks.get(service.name)),
                "backends": [
                    {"name": backend.name, "address": str(backend), "weight": backend.weight}
                    for backend in service.backends
                ],
            }
            for service in loaded.config.services
        ],
    }
