"""`l4raw explain`: what a thing means.

A small kind of thing has an explainer here. It looks at the text, returns
False when the text is not of its kind, and prints and returns True when it is.
What is left can only be frames: explain_frame.py.
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
@click.argument("what", nargs=-1)
@click.option("--count", metavar="N", type=click.IntRange(min=1), help="The first N frames of a capture.")
@pass_state
def command(state: State, what: tuple[str, ...], count: int | None) -> None:
    """Explain an error code, or what becomes of a frame. Without WHAT, list the error codes.

    \b
    WHAT is one of
      L4R-203                                   an error code
      "0200 0000 0002 0200 0000 0001 0800 ..."  a frame in hex
      FILE.pcap                                 each frame of a pcap or pcapng file
      "10.77.0.1:41022 -> 10.77.0.100:80/tcp"   the first frame of such a flow

    Frames are decided as a balancer would that has just been started with the configuration: that of
    -c, else $L4RAW_CONFIG, else ./l4raw.toml, else /etc/l4raw/l4raw.toml. Needs no root and no network.
    """
    text = " ".join(what)
    if not text:
        _list_codes(state)
    elif not any(explainer(text, state) for explainer in EXPLAINERS):
        from l4raw.cli.explain_frame import explain_frames

        explain_frames(text, count, state)


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
