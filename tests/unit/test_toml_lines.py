"""Where things are in a TOML text: known places, then generated documents."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l4raw.control.toml_lines import Loc, Position, TomlLines

TEXT = '''\
# a comment with = and [brackets]
title = "x" # after a value
[lb]
interfaces = [
  "eth1", # the first
  'eth2',
]
"quoted key".'lit' . bare = { a = 1, b.c = [ {d = 2}, {} ] }
words = """
[not.a.table]
key = "no" \\""" still inside"""""
other = \'\'\'
]]]\'\'\' \n\
when = 1979-05-27 07:32:00Z

[[service]]
name = "web"
backends = [ { name = "b1", weight = 2 }, { name = "b2" } ]
  [service.timeouts]
  syn = "60s"
[[service]]
name = "dns"
[[service.check]]
type = "a"
[[service.check]]
type = "b"
'''


@pytest.mark.parametrize(
    ("loc", "key", "value"),
    [
        (("title",), (2, 1), (2, 9)),
        (("lb",), (3, 1), (3, 1)),
        (("lb", "interfaces"), (4, 1), (4, 14)),
        (("lb", "interfaces", 0), (5, 3), (5, 3)),
        (("lb", "interfaces", 1), (6, 3), (6, 3)),
        (("lb", "quoted key"), (8, 1), (8, 29)),
        (("lb", "quoted key", "lit"), (8, 14), (8, 29)),
        (("lb", "quoted key", "lit", "bare", "a"), (8, 31), (8, 35)),
        (("lb", "quoted key", "lit", "bare", "b", "c", 0, "d"), (8, 47), (8, 51)),
        (("lb", "quoted key", "lit", "bare", "b", "c", 1), (8, 55), (8, 55)),
        (("lb", "words"), (9, 1), (9, 9)),
        (("lb", "other"), (12, 1), (12, 9)),
        (("lb", "when"), (14, 1), (14, 8)),
        (("service",), (16, 1), (16, 1)),
        (("service", 0), (16, 1), (16, 1)),
        (("service", 0, "backends", 0, "weight"), (18, 29), (18, 38)),
        (("service", 0, "backends", 1), (18, 43), (18, 43)),
        (("service", 0, "timeouts", "syn"), (20, 3), (20, 9)),
        (("service", 1, "name"), (22, 1), (22, 8)),
        (("service", 1, "check", 1, "type"), (26, 1), (26, 8)),
    ],
)
def test_places(loc: Loc, key: tuple[int, int], value: tuple[int, int]) -> None:
    tomllib.loads(TEXT)
    lines = TomlLines(TEXT)
    assert lines.locate(loc, key=True) == Position(*key)
    assert lines.locate(loc) == Position(*value)


@pytest.mark.parametrize(
    ("loc", "expected"),
    [
        (("service", 1, "vip"), (21, 1)),
        (("service", 0, "backends", 1, "address"), (18, 43)),
        (("service", 7, "vip"), (16, 1)),
        (("lb", "interfaces", 5), (4, 14)),
        (("nothing", "here"), (1, 1)),
        ((), (1, 1)),
    ],
)
def test_what_is_not_there_is_at_its_nearest_parent(loc: Loc, expected: tuple[int, int]) -> None:
    assert TomlLines(TEXT).locate(loc) == Position(*expected)


def test_windows_line_ends_and_tabs_count_as_characters() -> None:
    lines = TomlLines("a = 1\r\n\tb = [ # c\r\n\t\t2,\r\n]\r\n")
    assert lines.locate(("b",), key=True) == Position(2, 2)
    assert lines.locate(("b", 0)) == Position(3, 3)


def test_a_text_that_breaks_off_keeps_what_came_before() -> None:
    lines = TomlLines('a = 1\n[t]\nb = 2\nc = """open\nd = 3\n')
    assert lines.locate(("t", "b"), key=True) == Position(3, 1)
    assert lines.locate(("t", "d")) == Position(2, 1)


@settings(deadline=None)
@given(st.text(alphabet="ab.=[]{}\"'\\#,\n \t1é", max_size=60))
def test_any_text_is_survived(text: str) -> None:
    lines = TomlLines(text)
    assert lines.locate(("a", "b", 0)).line >= 1


def test_deep_nesting_is_survived() -> None:
    assert TomlLines("a = " + "[" * 100_000).locate(("a",), key=True) == Position(1, 1)


# Generated documents. A value is written in some spelling, and each scalar in it is a number that occurs
# nowhere else in the text: so the place of a number is found by looking for it.

BARE = st.text("abcXYZ019_-", min_size=1, max_size=4)
ANY_KEY = st.one_of(BARE, st.text("ab .\"'#=[]\\é", min_size=1, max_size=4))
BLANK = st.sampled_from(["", " ", "\t", "  "])
BREAK = st.sampled_from(["", " ", "\n", "\n  ", ' # ] } , = "\n', "\r\n"])
STRINGS = st.sampled_from(
    [
        '"a # b"',
        '"\\"]"',
        "'\\'",
        '"""\n[x]\ny = 1 """',
        "'''\n\"''\n'''",
        '""',
        '""""a"""""',
        "''''a'''''",
        "1979-05-27 07:32:00",
        "-0.5e+3",
        "true",
    ]
)


class Writer:
    """Builds a text, and the places of the numbers in it."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.numbers: dict[Loc, int] = {}

    def key(self, name: str) -> str:
        """One of the ways to write a key."""
        spellings = ['"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"']
        if "'" not in name:
            spellings.append(f"'{name}'")
        if all(char in "abcXYZ019_-" for char in name):
            spellings.append(name)
        return self.draw(st.sampled_from(spellings))

    def number(self, loc: Loc) -> str:
        number = 7_000_000 + len(self.numbers)
        self.numbers[loc] = number
        return str(number)

    def value(self, loc: Loc, depth: int = 0) -> str:
        kind = self.draw(st.integers(0, 3 if depth < 2 else 1))
        if kind == 0:
            return self.number(loc)
        if kind == 1:
            return self.draw(STRINGS)

        def gap() -> str:
            return self.draw(BREAK if kind == 2 else BLANK)

        if kind == 2:
            items = [self.value((*loc, index), depth + 1) for index in range(self.draw(st.integers(0, 3)))]
        else:
            names = self.draw(st.lists(ANY_KEY, max_size=3, unique=True))
            items = [self.pair(loc, name, depth + 1) for name in names]
        body = ",".join(f"{gap()}{item}{gap()}" for item in items)
        return f"[{body}{gap()}]" if kind == 2 else f"{{{body}}}"

    def pair(self, loc: Loc, name: str, depth: int = 0) -> str:
        parts = [name, *self.draw(st.lists(BARE, max_size=2))]
        dot = f"{self.draw(BLANK)}.{self.draw(BLANK)}"
        key = dot.join(self.key(part) for part in parts)
        value = self.value((*loc, *parts), depth)
        return f"{key}{self.draw(BLANK)}={self.draw(BLANK)}{value}"

    def table(self, loc: Loc) -> str:
        names = self.draw(st.lists(ANY_KEY, max_size=4, unique=True))
        end = self.draw(st.sampled_from(["\n", " # = [\n", "\n\n", "\r\n"]))
        return "".join(f"{self.draw(BLANK)}{self.pair(loc, name)}{end}" for name in names)

    def document(self) -> str:
        text = self.table(())
        for name in self.draw(st.lists(st.sampled_from(["t1", "t 2", "t.3"]), max_size=2, unique=True)):
            count = self.draw(st.integers(0, 3))
            if count == 0:
                text += f"[{self.key(name)}]\n" + self.table((name,))
            for index in range(count):
                text += f"[[ {self.key(name)} ]] # ]\n" + self.table((name, index))
                if self.draw(st.booleans()):
                    text += f"[{self.key(name)}.{self.key('sub')}]\n" + self.table((name, index, "sub"))
        return text


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[Loc, int]]:
    writer = Writer(draw)
    return writer.document(), writer.numbers


def value_at(document: Any, loc: Loc) -> Any:
    for part in loc:
        document = document[part]
    return document


@settings(deadline=None)
@given(documents())
def test_generated_documents(case: tuple[str, dict[Loc, int]]) -> None:
    text, numbers = case
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # two random keys were one and the same
    lines = TomlLines(text)
    for loc, number in numbers.items():
        assert value_at(document, loc) == number
        offset = text.index(str(number))
        before = text[:offset]
        assert lines.locate(loc) == Position(before.count("\n") + 1, offset - before.rfind("\n"))
