"""`l4raw explain`: what a thing means.

Each kind of thing has an explainer. It looks at the text, returns False when
the text is not of its kind, and prints and returns True when it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import click

from l4raw.cli import output
from l4raw.cli.state import State, pass_state
from l4raw.control.codes import REGISTRY, Code


def explain_code(text: str, state: State) -> bool:
    """An error code, `L4R-203`. Raises click.UsageError if there is no such code."""
    match = re.fullmatch(r"L4R-?(\d+)", text.strip(), re.IGNORECASE)
    if match is None:
        return False
    code = REGISTRY.get(f"L4R-{match[1]}")
    if code is None:
        raise click.UsageError(f"there is no code {text}; `l4raw explain` lists them")
    if state.json:
        output.print_json("l4raw.explain/1", {"kind": "code", **_record(code)})
    elif state.plain:
        click.echo("\t".join(str(value) for value in _record(code).values()))
    else:
        kind = "warning" if code.warning else f"error, exit code {code.exit_code}"
        click.echo(f"{code.name}: {code.title} ({kind})\nwhy: {code.why}\nfix: {code.fix}")
    return True


EXPLAINERS: tuple[Callable[[str, State], bool], ...] = (explain_code,)


@click.command()
@click.argument("what", required=False)
@pass_state
def command(state: State, what: str | None) -> None:
    """Explain an error code such as L4R-203. Without one, list them."""
    if what is None:
        _list_codes(state)
    elif not any(explainer(what, state) for explainer in EXPLAINERS):
        raise click.UsageError(f'"{what}" is not an error code; `l4raw explain` lists them')


def _list_codes(state: State) -> None:
    if state.json:
        output.print_json(
            "l4raw.explain/1", {"kind": "codes", "codes": [_record(code) for code in REGISTRY.values()]}
        )
        return
    separator = "\t" if state.plain else "  "
    for code in REGISTRY.values():
        click.echo(f"{code.name}{separator}{code.title}")


def _record(code: Code) -> dict[str, Any]:
    record = asdict(code)
    del record["exits"]
    return {"code": record.pop("name"), **record, "exit_code": code.exit_code}
