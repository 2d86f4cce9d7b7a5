"""How errors, warnings and data are printed.

Data goes to stdout, messages go to stderr. With --json both are JSON. Colour
never carries a meaning that the words do not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from l4raw.cli.state import State
from l4raw.control.errors import ConfigErrors, L4Error, Problem

_COLORS = {"error": "red", "warning": "yellow"}


def format_problem(problem: Problem) -> str:
    """The lines of an error or a warning, with ANSI colours."""
    kind = click.style(f"{problem.severity} {problem.code}:", fg=_COLORS[problem.severity], bold=True)
    where = f" ({visible(problem.where)})" if problem.where else ""
    lines = [f"{kind} {visible(problem.what)}{where}"]
    if problem.excerpt:
        lines += [visible(line) for line in problem.excerpt.split("\n")]
    lines += [f"why: {visible(problem.why)}", f"fix: {visible(problem.fix)}"]
    lines.append(f"more: l4raw explain {problem.code}")
    return "\n".join(lines)


def visible(text: str) -> str:
    """`text` on one line, with control characters written out: a file must not steer the terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def print_error(error: L4Error, state: State) -> None:
    """An error on stderr: all of its problems, then how many there were."""
    if state.json:
        _print_json_error(error.problems, error.exit_code)
        return
    _message("\n\n".join(format_problem(problem) for problem in error.problems), state)
    if isinstance(error, ConfigErrors):
        count = len(error.problems)
        _message(f"\n{count} problem{'s' if count > 1 else ''}. Nothing was changed.", state)


def print_unexpected(error: Exception, traceback_is: str, state: State, fix: str = "") -> None:
    """One line about an error that nobody foresaw, and where its traceback is, or why it is nowhere."""
    problem = Problem("L4R-402", f"unexpected {type(error).__name__}: {error}; {traceback_is}", fix=fix)
    if state.json:
        _print_json_error([problem], problem.entry.exit_code)
    else:
        _message(format_problem(problem).split("\n")[0], state)


def print_warnings(warnings: Sequence[Problem], state: State) -> None:
    """Warnings on stderr; none with --quiet, nor with --json, where they belong to the data."""
    if state.quiet or state.json:
        return
    for warning in warnings:
        _message(format_problem(warning), state)


def print_json(schema: str, data: Any, warnings: Sequence[Problem] = ()) -> None:
    """One object on stdout. `schema` is a name and a version, as in `l4raw.check/1`."""
    record = {
        "schema": schema,
        "generated": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": data,
        "warnings": [warning.as_dict() for warning in warnings],
    }
    click.echo(json.dumps(record))


def color(state: State) -> bool | None:
    """What click's `color` should be: False for never, None for on a terminal only."""
    # https://no-color.org: the variable counts when it is not empty.
    if state.no_color or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return None


def _print_json_error(problems: Sequence[Problem], exit_code: int) -> None:
    record = {
        "schema": "l4raw.error/1",
        "exit_code": exit_code,
        "errors": [problem.as_dict() for problem in problems],
    }
    click.echo(json.dumps(record), err=True)


def _message(text: str, state: State) -> None:
    click.echo(text, err=True, color=color(state))
