"""The shape of a configuration file: which keys, which types, which values.

Lives here: the pydantic models, one class for each TOML table. A value that
only makes sense beside another one is judged in meaning.py. This is the only
module of l4raw that imports pydantic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from l4raw.control import values
from l4raw.core import tables
from l4raw.core.model import Mode, Scheduler
from l4raw.wire import abi

FLOW_MEMORY_RANGE = ("64KiB", "64GiB")
TIMEOUT_RANGE = ("100ms", "168h")
WEIGHT_RANGE = (0, 100)

DATAPLANES = ("auto", "af_xdp", "raw")
MODES = tuple(str(mode) for mode in Mode)
SCHEDULERS = tuple(str(scheduler) for scheduler in Scheduler)
NEXT_HOPS = ("learned",)

_DEFAULTS = tables.Timeouts()
_T = TypeVar("_T")


def _text(parse: Callable[[str], _T]) -> BeforeValidator:
    """A validator for a key whose value is text in the file and a `_T` in the model."""

    def validate(value: object) -> _T:
        if not isinstance(value, str):
            raise values.Refused("L4R-105", f"is {toml_type(value)}; a string is expected")
        return parse(value)

    return BeforeValidator(validate)


def _number(check: Callable[[int], int]) -> BeforeValidator:
    def validate(value: object) -> int:
        # bool is an int in Python, not in TOML.
        if not isinstance(value, int) or isinstance(value, bool):
            raise values.Refused("L4R-105", f"is {toml_type(value)}; a whole number is expected")
        return check(value)

    return BeforeValidator(validate)


def _words(known: tuple[str, ...], *later: str) -> BeforeValidator:
    return _text(lambda text: values.word(text, known, later))


def toml_type(value: object) -> str:
    """What TOML calls the type of a value, with its article."""
    if isinstance(value, bool):
        return "a boolean"
    names = {str: "a string", int: "a whole number", float: "a float", list: "a list", dict: "a table"}
    return names.get(type(value), "a date or time")


def _interfaces(value: object) -> object:
    if not isinstance(value, list):
        raise values.Refused("L4R-105", f"is {toml_type(value)}; a list of one or two names is expected")
    if len(value) not in (1, 2):
        raise values.Refused("L4R-106", f"has {len(value)} names; one or two are expected")
    return value


def _services(value: object) -> object:
    if isinstance(value, dict):
        fix = "write [[service]], with two brackets"
        raise values.Refused("L4R-105", "is one table; a list of tables is expected", fix)
    if not isinstance(value, list):
        what = f"is {toml_type(value)}; a list of tables is expected"
        raise values.Refused("L4R-105", what, "write [[service]]")
    # Index 0 of the table means "none".
    if len(value) >= abi.SERVICES:
        raise values.Refused(
            "L4R-107", f"is there {len(value)} times; at most {abi.SERVICES - 1} are possible"
        )
    return value


def _seed(text: str) -> str:
    if not text:
        raise values.Refused("L4R-107", "is empty", "remove the key, or write any text that the group shares")
    return text


_Name = Annotated[str, _text(values.service_name)]
_Timeout = Annotated[int, _text(lambda text: values.duration(text, *TIMEOUT_RANGE))]


class Table(BaseModel):
    """Any table of the file: strict, and no key that is not named."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    later: ClassVar[frozenset[str]] = frozenset()
    """Keys of the contract that this version cannot honour yet."""


class Backend(Table):
    """One of `backends`."""

    later = frozenset({"backup"})

    name: _Name
    address: Annotated[bytes, _text(values.address)]
    port: Annotated[int, _number(values.port)] = 0
    weight: Annotated[int, _number(lambda number: values.whole_number(number, *WEIGHT_RANGE))] = 1


class Timeouts(Table):
    """`timeouts`: how long a silent flow is kept, in milliseconds."""

    syn: _Timeout = _DEFAULTS.half_open
    established: _Timeout = _DEFAULTS.established
    fin: _Timeout = _DEFAULTS.closing
    udp: _Timeout = _DEFAULTS.udp


class Service(Table):
    """[[service]]."""

    later = frozenset({"flows", "full", "affinity", "all_down", "mss_clamp", "snat", "tunnel", "check"})

    name: _Name
    vip: Annotated[values.Vip, _text(values.vip)]
    mode: Annotated[str, _words(MODES, "dsr-ipip", "dsr-gue", "fullnat", "proxy")]
    scheduler: Annotated[str, _words(SCHEDULERS)] = "maglev"
    backends: list[Backend] = Field(default_factory=list)
    timeouts: Timeouts = Field(default_factory=Timeouts)


class Lb(Table):
    """[lb]."""

    interfaces: Annotated[list[Annotated[str, _text(values.interface_name)]], BeforeValidator(_interfaces)]
    dataplane: Annotated[str, _words(DATAPLANES, "xdp")] = "auto"
    flow_memory: Annotated[int, _text(lambda text: values.size(text, *FLOW_MEMORY_RANGE))] = 64 << 20
    ring_seed: Annotated[str | None, _text(_seed)] = None
    client_next_hop: Annotated[str, _words(NEXT_HOPS, "route")] = "learned"


class Root(Table):
    """The whole file."""

    lb: Lb
    service: Annotated[list[Service], BeforeValidator(_services)]


def table_at(loc: tuple[str | int, ...]) -> type[Table]:
    """The model of the table at `loc`, of which a key may be unknown."""
    words = tuple(part for part in loc if isinstance(part, str))
    models: dict[tuple[str, ...], type[Table]] = {
        (): Root,
        ("lb",): Lb,
        ("service",): Service,
        ("service", "timeouts"): Timeouts,
        ("service", "backends"): Backend,
    }
    return models.get(words, Table)
