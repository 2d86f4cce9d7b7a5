"""Up or down: so many alike in a row, and what is told of it."""

from __future__ import annotations

import pytest

from l4raw.control.checks import Check, Target
from l4raw.control.standing import Event, Result, Standing, State
from tests.tables import ip

GOOD, BAD, ODD = Result(True), Result(False, "connection refused"), Result(None, "too many open files")


def standing(rise: int = 2, fall: int = 3) -> Standing:
    address = ip("10.78.0.11")
    check = Check(rise=rise, fall=fall)
    return Standing(Target(1, "web", "b1", address, address, 80, check), since=0.0)


def states(results: str, of: Standing) -> str:
    """The state after each of the results: + good, - bad, o none could be got; as u, d or ?."""
    kinds = {"+": GOOD, "-": BAD, "o": ODD}
    letters = {State.UP: "u", State.DOWN: "d", State.UNKNOWN: "?"}
    found = ""
    for now, each in enumerate(results, start=1):
        of.take(kinds[each], float(now))
        found += letters[of.state]
    return found


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ("+", "u"),
        ("-", "d"),  # the first result decides
        ("+---", "uuud"),
        ("+--+---", "uuuuuud"),  # in a row
        ("-+-++", "ddddu"),
        ("+---++", "uuuddu"),
        ("oo-", "??d"),
        ("+--o-", "uuuud"),  # what could not be checked is neither
        ("+---+o+", "uuudddu"),
    ],
)
def test_results_in_a_row(results: str, expected: str) -> None:
    assert states(results, standing()) == expected


def test_one_is_enough_where_one_is_asked_for() -> None:
    assert states("+-+-", standing(rise=1, fall=1)) == "udud"


def test_the_time_and_the_reason_are_those_of_the_change() -> None:
    backend = standing(fall=2)
    states("++--", backend)
    assert (backend.state, backend.since, backend.reason) == (State.DOWN, 4.0, "connection refused")
    states("++", backend)
    assert (backend.state, backend.reason, backend.last) == (State.UP, "", GOOD)


def events(results: list[Result]) -> list[Event | None]:
    backend = standing()
    return [backend.take(result, 0.0) for result in results]


def test_changes_are_told_and_a_first_success_is_none() -> None:
    """It counted as up before, too."""
    assert events([GOOD, BAD, BAD])[-1] is None
    told = [str(event) for event in events([GOOD, BAD, BAD, BAD, BAD, GOOD, GOOD]) if event]
    assert told == ["backend web/b1 down: connection refused (3 of 3)", "backend web/b1 up (2 of 2)"]
    assert str(events([BAD])[0]) == "backend web/b1 down: connection refused (1 of 1)"


def test_a_check_that_cannot_be_made_is_told_once() -> None:
    told = [str(event) for event in events([GOOD, ODD, ODD]) if event]
    assert told == ["backend web/b1 cannot be checked, and stays up: too many open files"]
