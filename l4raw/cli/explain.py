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
        severity = {"severity": "warning" if code.warning else "error"}
        record = {"code": code.name, "title": code.title, "why": code.why, "fix": code.fix, **severity}
        for name, value in {**record, "exit_code": code.exit_code}.items():
            click.echo(f"{name}\t{value}")
    else:
        kind = "warning" if code.warning else f"error, exit code {code.exit_code}"
        click.echo(f"{code.name}: {code.title} ({kind})\nwhy: {code.why}\nfix: {code.fix}")
    return True


EXPLAINERS: tuple[Callable[[str, State], bool], ...] = (explain_code,)


class _WithArrow(click.Command):
    """A command among whose words an arrow, `->`, is no option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, ["\N{RIGHTWARDS ARROW}" if word == "->" else word for word in args])


def _macs(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> list[bytes]:
    """The addresses of --mac. Raises click.BadParameter for what is none."""
    from l4raw.wire.ethernet import is_unicast, parse_mac

    macs = []
    for value in values:
        try:
            mac = parse_mac(value)
        except ValueError:
            raise click.BadParameter(f"{value!r} is no MAC address") from None
        if not is_unicast(mac):
            raise click.BadParameter(f"{value} is no address of one interface")
        macs.append(mac)
    return macs


@click.command(cls=_WithArrow)
@click.argument("what", nargs=-1)
@click.option("--count", metavar="N", type=click.IntRange(min=1), help="The first N frames of a capture.")
@click.option(
    "--mac",
    "macs",
    metavar="MAC",
    multiple=True,
    callback=_macs,
    help="The balancer's MAC address, which is else inferred from the frames. Once for each interface, in the"
    " order of [lb] interfaces.",
)
@click.option("--arm", metavar="INTERFACE", help="Where the capture was taken, if [lb] has two interfaces.")
@pass_state
def command(
    state: State, what: tuple[str, ...], count: int | None, macs: list[bytes], arm: str | None
) -> None:
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
        from l4raw.cli.explain_frame import Asked, explain_frames

        explain_frames(text, Asked(count, macs, arm), state)


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
