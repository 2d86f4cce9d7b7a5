"""A configuration file as text: what a message about it points at.

Lives here: the text, the places in it, and how a place becomes `file:line:column`
and an excerpt with a caret. What is wrong there is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from l4raw.control.errors import Problem
from l4raw.control.toml_lines import Loc, Position, TomlLines

_WIDTH = 100
"""Characters of a line that an excerpt shows."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to tell about a place: what a check gives, before the file is looked at."""

    code: str
    loc: Loc
    what: str
    fix: str = ""
    key: bool = False
    """Point at the key, not at its value."""
    other: Loc = ()
    """A second place that the message is about; its line is added."""


class Source:
    """The text of one file."""

    def __init__(self, name: str, text: str) -> None:
        """`name` is the path as the user wrote it."""
        self.name = name
        self._lines = text.split("\n")
        self._places = TomlLines(text)

    def where(self, *loc: str | int) -> str:
        """`file:line:column` of the value at `loc`, for instance `where("service", 0, "vip")`."""
        return self._where(self._places.locate(loc))

    def problem(self, finding: Finding) -> Problem:
        """The finding with its place in the file."""
        place = self._places.locate(finding.loc, key=finding.key)
        what = finding.what
        if finding.other:
            what += f"; see line {self._places.locate(finding.other).line}"
        # Nothing is written where a missing table would be, so there is nothing to show.
        excerpt = None if len(finding.loc) < 2 and place == Position(1, 1) else self._excerpt(place)
        return Problem(finding.code, what, self._where(place), excerpt, fix=finding.fix)

    def problems(self, findings: Sequence[Finding]) -> list[Problem]:
        """Several, in the order of the file."""

        def order(finding: Finding) -> tuple[int, int]:
            place = self._places.locate(finding.loc, key=finding.key)
            return place.line, place.column

        return [self.problem(finding) for finding in sorted(findings, key=order)]

    def syntax_problem(self, what: str, line: int | None, column: int | None) -> Problem:
        """The place where the text stops being TOML; None: at its end."""
        if line is None:
            place = Position(len(self._lines), len(self._lines[-1]) + 1)
        else:
            place = Position(line, column or 1)
        return Problem("L4R-103", what, self._where(place), self._excerpt(place))

    def repeated(self, line: int | None) -> Problem | None:
        """The first key or table that is there already, up to this line; None: none that can be seen."""
        again = self._places.repeated
        if again is None:
            return None
        place, first = self._places.position(again.offset), self._places.locate(again.loc, key=True)
        if line is not None and place.line > line:
            return None
        names = [part for part in again.loc if isinstance(part, str)]
        what = f"the table [{'.'.join(names)}]" if again.is_table else f'the key "{names[-1]}"'
        text = f"not TOML: {what} is there twice; see line {first.line}"
        return Problem("L4R-103", text, self._where(place), self._excerpt(place))

    def _where(self, place: Position) -> str:
        return f"{self.name}:{place.line}:{place.column}"

    def _excerpt(self, place: Position) -> str:
        """The line with its number, and a caret below the column."""
        text = self._lines[place.line - 1].rstrip("\r").replace("\t", " ")
        column = place.column - 1
        if len(text) > _WIDTH:
            start = max(0, min(column - _WIDTH // 2, len(text) - _WIDTH))
            text = ("..." if start else "") + text[start : start + _WIDTH]
            column += (3 if start else 0) - start
        number = f"{place.line:>4} | "
        return f"{number}{text}\n{' ' * (len(number) - 2)}| {' ' * column}^"
