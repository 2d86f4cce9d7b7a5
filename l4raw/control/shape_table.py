"""What the shapes of all tables of a configuration file have in common.

Lives here: the strict model, and validators for text and numbers. With
shape.py and the other shape_*.py this is all of l4raw that imports pydantic's models.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict

from l4raw.control import values

_T = TypeVar("_T")


def text(parse: Callable[[str], _T]) -> BeforeValidator:
    """A validator for a key whose value is text in the file and a `_T` in the model."""

    def validate(value: object) -> _T:
        if not isinstance(value, str):
            raise values.Refused("L4R-105", f"is {toml_type(value)}; a string is expected")
        return parse(value)

    return BeforeValidator(validate)


def number(check: Callable[[int], int]) -> BeforeValidator:
    def validate(value: object) -> int:
        # bool is an int in Python, not in TOML.
        if not isinstance(value, int) or isinstance(value, bool):
            raise values.Refused("L4R-105", f"is {toml_type(value)}; a whole number is expected")
        return check(value)

    return BeforeValidator(validate)


def toml_type(value: object) -> str:
    """What TOML calls the type of a value, with its article."""
    if isinstance(value, bool):
        return "a boolean"
    names = {str: "a string", int: "a whole number", float: "a float", list: "a list", dict: "a table"}
    return names.get(type(value), "a date or time")


class Table(BaseModel):
    """Any table of the file: strict, and no key that is not named."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    later: ClassVar[frozenset[str]] = frozenset()
    """Keys of the contract that this version cannot honour yet."""
