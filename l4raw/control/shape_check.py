"""The shape of `check`: how backends are asked whether they are there."""

from __future__ import annotations

from typing import Annotated

from l4raw.control import values
from l4raw.control.checks import DEFAULT, HANDSHAKE, NONE, TYPES
from l4raw.control.shape_table import Table, number, text, toml_type

INTERVAL_RANGE = ("100ms", "1h")
TIMEOUT_RANGE = ("10ms", "1m")
IN_A_ROW_RANGE = (1, 100)

_InARow = Annotated[int, number(lambda value: values.whole_number(value, *IN_A_ROW_RANGE))]


class Check(Table):
    """`check`; durations in milliseconds."""

    type: Annotated[str, text(lambda word: values.word(word, TYPES))] = HANDSHAKE
    port: Annotated[int, number(values.port)] = 0
    interval: Annotated[int, text(lambda word: values.duration(word, *INTERVAL_RANGE))] = DEFAULT.interval
    timeout: Annotated[int, text(lambda word: values.duration(word, *TIMEOUT_RANGE))] = DEFAULT.timeout
    rise: _InARow = DEFAULT.rise
    fall: _InARow = DEFAULT.fall


def is_table(value: object) -> object:
    """A validator: raises Refused with advice for who writes `check = false`."""
    if not isinstance(value, dict):
        fix = f'for no check: check = {{ type = "{NONE}" }}'
        raise values.Refused("L4R-105", f"is {toml_type(value)}; a table is expected", fix)
    return value
