"""Where each key and value of a TOML text is.

tomllib gives values without positions, and an error message is worth little
without a line. This scanner reads the same text a second time and records only
places. It judges nothing: the text has already been accepted by tomllib. Where
it loses its way all the same, it keeps what it has, and `locate` answers with
the nearest parent that is known.

Lines and columns count characters from 1.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

Loc = tuple[str | int, ...]
"""The way to a value: keys of tables and indices of lists, as pydantic writes it."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_SCALAR = re.compile(r"[^,\]}#\r\n]+")
_STRINGS = (
    # A closing """ may be preceded by up to two quotes that belong to the text.
    re.compile(r'"""(?:\\[\s\S]|[^\\])*?"""(?:"{0,2})'),
    re.compile(r"'''[\s\S]*?'''(?:'{0,2})"),
    re.compile(r'"(?:\\.|[^"\\\n])*"'),
    re.compile(r"'[^'\n]*'"),
)


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the text, counted from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Mark:
    """Offsets of a key and of its value; the same offset for an item of a list and for a table's header."""

    key: int
    value: int


@dataclass(frozen=True, slots=True)
class Repeated:
    """A key or table that was there already."""

    loc: Loc
    offset: int
    is_table: bool


class _LostError(Exception):
    """The text is not what this scanner expects; never leaves this module."""


class TomlLines:
    """The places of one text.

    `locate(("service", 1, "backends", 0, "weight"))` is where that weight is written.
    """

    def __init__(self, text: str) -> None:
        """`text` is TOML. Never raises, whatever it is."""
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]
        scanner = _Scanner(text)
        with suppress(_LostError, RecursionError):
            scanner.document()
        self.marks = scanner.marks
        self.repeated = scanner.repeated
        """The first of them, if the scanner has seen one."""

    def locate(self, loc: Sequence[str | int], *, key: bool = False) -> Position:
        """The place of the value at `loc`, or of its key; of the nearest known parent if it is not there."""
        path = tuple(loc)
        while path and path not in self.marks:
            path = path[:-1]
        if not path:
            return Position(1, 1)
        mark = self.marks[path]
        return self.position(mark.key if key else mark.value)

    def position(self, offset: int) -> Position:
        """Line and column of the character at `offset`."""
        line = bisect_right(self._starts, offset)
        return Position(line, offset - self._starts[line - 1] + 1)


class _Scanner:
    """One pass over the text; `marks` grows as it goes."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.marks: dict[Loc, Mark] = {}
        self._items: dict[Loc, int] = {}
        """How many [[headers]] each array of tables has had."""
        self._defined: set[Loc] = set()
        """Keys with a value, and tables with a header of their own."""
        self.repeated: Repeated | None = None

    def document(self) -> None:
        table: Loc = ()
        while True:
            self._skip(_BLANK)
            if self.at >= len(self.text):
                return
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Loc:
        """[table] or [[array of tables]]; gives the way to the table that it opens."""
        start = self.at
        brackets = 2 if self.text.startswith("[[", start) else 1
        self.at += brackets
        *parents, last = self._key()
        self._expect("]" * brackets)
        path: Loc = ()
        for part, _ in parents:
            path = self._inside((*path, part))
            self._mark(path, start, start)
        path = (*path, last[0])
        self._define(path, start, path in self._defined or (brackets == 1 and path in self._items), True)
        self._mark(path, start, start)
        if brackets == 1:
            return path
        self._defined.discard(path)
        index = self._items.get(path, 0)
        self._items[path] = index + 1
        path = (*path, index)
        self._mark(path, start, start)
        return path

    def _inside(self, path: Loc) -> Loc:
        """A header below an array of tables speaks of the array's last table."""
        count = self._items.get(path)
        return path if count is None else (*path, count - 1)

    def _pair(self, table: Loc) -> None:
        """key = value, where the key may be dotted."""
        parts = self._key()
        self._expect("=")
        self._skip(_SPACE)
        value = self.at
        path = table
        for part, place in parts[:-1]:
            path = (*path, part)
            self._mark(path, place, value)
        last, place = parts[-1]
        path = (*path, last)
        self._define(path, place, path in self.marks, False)
        self._mark(path, place, value)
        self._value(path)

    def _define(self, path: Loc, offset: int, is_there: bool, is_table: bool) -> None:
        """What may be defined once is so here."""
        if is_there and self.repeated is None:
            self.repeated = Repeated(path, offset, is_table)
        self._defined.add(path)

    def _key(self) -> list[tuple[str, int]]:
        """A dotted key: each part and where it starts."""
        parts = []
        while True:
            self._skip(_SPACE)
            start = self.at
            parts.append((self._key_part(), start))
            self._skip(_SPACE)
            if not self.text.startswith(".", self.at):
                return parts
            self.at += 1

    def _key_part(self) -> str:
        start = self.at
        if self.text[start : start + 1] in ('"', "'"):
            self._string()
            try:
                return str(tomllib.loads("key = " + self.text[start : self.at])["key"])
            except tomllib.TOMLDecodeError:
                raise _LostError from None
        self._take(_BARE_KEY)
        return self.text[start : self.at]

    def _value(self, path: Loc) -> None:
        first = self.text[self.at : self.at + 1]
        if first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        elif first in ('"', "'"):
            self._string()
        else:
            self._take(_SCALAR)

    def _array(self, path: Loc) -> None:
        self.at += 1
        index = 0
        while True:
            self._skip(_BLANK)
            if self._accept("]"):
                return
            item = (*path, index)
            self._mark(item, self.at, self.at)
            self._value(item)
            index += 1
            self._skip(_BLANK)
            if not self._accept(","):
                self._expect("]")
                return

    def _inline_table(self, path: Loc) -> None:
        self.at += 1
        while True:
            self._skip(_BLANK)
            if self._accept("}"):
                return
            self._pair(path)
            self._skip(_BLANK)
            if not self._accept(","):
                self._expect("}")
                return

    def _string(self) -> None:
        for pattern in _STRINGS:
            match = pattern.match(self.text, self.at)
            if match:
                self.at = match.end()
                return
        raise _LostError

    def _mark(self, path: Loc, key: int, value: int) -> None:
        """The first place counts: a table may be opened, and then added to elsewhere."""
        self.marks.setdefault(path, Mark(key, value))

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.at)
        if match:
            self.at = match.end()

    def _take(self, pattern: re.Pattern[str]) -> None:
        start = self.at
        self._skip(pattern)
        if self.at == start:
            raise _LostError

    def _accept(self, text: str) -> bool:
        if not self.text.startswith(text, self.at):
            return False
        self.at += len(text)
        return True

    def _expect(self, text: str) -> None:
        self._skip(_SPACE)
        if not self._accept(text):
            raise _LostError
