"""The registry of codes, and the shape in which an error is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from l4raw.cli.output import format_problem, visible
from l4raw.control.codes import ALL, REGISTRY
from l4raw.control.errors import ConfigErrors, L4Error, Problem

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [path for path in (ROOT / "l4raw").rglob("*.py") if "__pycache__" not in path.parts]
PROSE = [
    path
    for folder in ("docs", "netns")
    for path in (ROOT / folder).rglob("*.*")
    if path.suffix in (".md", ".py")
]

NOT_RAISED_YET: set[str] = set()
"""Codes whose place is known, and not built."""


def codes_in(paths: list[Path], pattern: str) -> set[str]:
    return {code for path in paths for code in re.findall(pattern, path.read_text("utf-8"))}


def test_every_code_in_the_tree_is_registered() -> None:
    used = codes_in(SOURCES + PROSE, r"\bL4R-\d+\b")
    assert len(used) > 20
    assert used <= REGISTRY.keys()


def test_no_code_has_two_meanings() -> None:
    names = [code.name for code in ALL]
    assert names == list(dict.fromkeys(names))


def test_every_registered_code_is_raised_somewhere() -> None:
    places = [path for path in SOURCES if not path.name.startswith("codes")]
    assert REGISTRY.keys() - codes_in(places, r'"(L4R-\d+)"') - NOT_RAISED_YET == set()


@pytest.mark.parametrize("name", REGISTRY)
def test_a_code_is_complete_and_fits_a_terminal(name: str) -> None:
    code = REGISTRY[name]
    assert re.fullmatch(r"L4R-[1-4]\d\d", name)
    assert code.title
    assert code.why.endswith(".")
    assert code.fix
    assert not code.fix.endswith(".")
    assert code.title[0].islower() or not code.title[0].isalpha() or code.title.startswith("VIP")


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [("L4R-108", 3), ("L4R-203", 4), ("L4R-301", 5), ("L4R-402", 1), ("L4R-401", 6), ("L4R-141", 0)],
)
def test_the_hundred_gives_the_exit_code(code: str, exit_code: int) -> None:
    assert L4Error(code, what="x").exit_code == exit_code


def test_an_unregistered_code_is_a_mistake_in_l4raw() -> None:
    with pytest.raises(KeyError):
        L4Error("L4R-999", what="x")


def test_why_and_fix_come_from_the_registry_unless_said() -> None:
    plain = L4Error("L4R-303", what="eth1 is down", where="eth1")
    assert (plain.why, plain.fix) == (REGISTRY["L4R-303"].why, REGISTRY["L4R-303"].fix)
    own = L4Error("L4R-303", what="eth1 is down", fix="ip link set dev eth1 up")
    assert own.fix == "ip link set dev eth1 up"
    assert own.why == plain.why


def test_the_fields_of_an_error() -> None:
    error = L4Error("L4R-303", what="eth1 is down", where="eth1", excerpt="1 | x")
    assert (error.code, error.what, error.where, error.excerpt) == (
        "L4R-303",
        "eth1 is down",
        "eth1",
        "1 | x",
    )
    assert str(error) == "L4R-303: eth1 is down"


def test_config_errors_carry_all_problems() -> None:
    errors = ConfigErrors([Problem("L4R-108", "one"), Problem("L4R-131", "two")])
    assert isinstance(errors, L4Error)
    assert [problem.what for problem in errors.problems] == ["one", "two"]
    assert errors.exit_code == 3
    assert "one" in str(errors)
    assert "two" in str(errors)


def test_the_shape_of_an_error() -> None:
    problem = Problem(
        "L4R-112", "mode is unknown", "a.toml:1:8", "   1 | mode\n     | ^", "because", "do this"
    )
    assert plain(format_problem(problem)).split("\n") == [
        "error L4R-112: mode is unknown (a.toml:1:8)",
        "   1 | mode",
        "     | ^",
        "why: because",
        "fix: do this",
        "more: l4raw explain L4R-112",
    ]


def test_a_warning_says_that_it_is_one() -> None:
    assert plain(format_problem(Problem("L4R-141", "x"))).startswith("warning L4R-141: x\n")


def test_a_file_cannot_steer_the_terminal() -> None:
    assert visible("a\x1b[2Jb\n\u202e") == r"a\x1b[2Jb\n\u202e"
    assert visible("näme") == "näme"
    assert "\x1b[2J" not in format_problem(
        Problem("L4R-108", "\x1b[2J", "\x1b[2J", "\x1b[2J", "\x1b[2J", "\x1b[2J")
    )


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
