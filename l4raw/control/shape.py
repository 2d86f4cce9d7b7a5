"""The shape of a configuration file: which keys, which types, which values.

Lives here: the pydantic models, one class for each TOML table. A value that
only makes sense beside another one is judged in meaning.py. Only
this and shape_*.py define pydantic models.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from l4raw.control import values
from l4raw.control.shape_check import Check, is_table
from l4raw.control.shape_limits import MSS_RANGE, Acl, Limits
from l4raw.control.shape_table import Table, number, text, toml_type
from l4raw.core import model, timeouts
from l4raw.core.model import Mode, Scheduler
from l4raw.wire import abi

FLOW_MEMORY_RANGE = ("64KiB", "64GiB")
TIMEOUT_RANGE = ("100ms", "168h")
WEIGHT_RANGE = (0, 100)
TTL_RANGE = (1, 255)

DATAPLANES = ("auto", "xdp", "af_xdp", "raw")
MODES = tuple(str(mode) for mode in Mode)
SCHEDULERS = tuple(str(scheduler) for scheduler in Scheduler)
NEXT_HOPS = ("learned",)
FULL = tuple(str(full) for full in model.Full)
FLOWS = tuple(str(flows) for flows in model.Flows)

_DEFAULTS = timeouts.Timeouts()


def _words(known: tuple[str, ...], *later: str) -> BeforeValidator:
    return text(lambda text: values.word(text, known, later))


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


_Name = Annotated[str, text(values.service_name)]
_Timeout = Annotated[int, text(lambda text: values.duration(text, *TIMEOUT_RANGE))]


class Backend(Table):
    """One of `backends`."""

    later = frozenset({"backup"})

    name: _Name
    address: Annotated[bytes, text(values.address)]
    port: Annotated[int, number(values.port)] = 0
    weight: Annotated[int, number(lambda number: values.whole_number(number, *WEIGHT_RANGE))] = 1


class Timeouts(Table):
    """`timeouts`: how long a silent flow is kept, in milliseconds."""

    syn: _Timeout = _DEFAULTS.half_open
    established: _Timeout = _DEFAULTS.established
    fin: _Timeout = _DEFAULTS.closing
    udp: _Timeout = _DEFAULTS.udp


class Snat(Table):
    """One of `snat`: an address, and which of its ports."""

    address: Annotated[bytes, text(values.address)]
    ports: Annotated[tuple[int, int], text(values.port_range)] = values.port_range(values.SNAT_PORTS)


class Tunnel(Table):
    """`tunnel`: what the headers in front of a packet say."""

    source: Annotated[bytes | None, text(values.address)] = None
    port: Annotated[int, number(values.port)] = model.GUE_PORT
    ttl: Annotated[int, number(lambda value: values.whole_number(value, *TTL_RANGE))] = 64


class Service(Table):
    """[[service]]."""

    later = frozenset({"all_down"})

    name: _Name
    vip: Annotated[values.Vip, text(values.vip)]
    mode: Annotated[str, _words(MODES, "proxy")]
    scheduler: Annotated[str, _words(SCHEDULERS)] = "maglev"
    backends: list[Backend] = Field(default_factory=list)
    timeouts: Timeouts = Field(default_factory=Timeouts)
    mss_clamp: Annotated[int, number(lambda value: values.whole_number(value, *MSS_RANGE))] = 0
    acl: Acl = Field(default_factory=Acl)
    snat: list[Snat] = Field(default_factory=list)
    check: Annotated[Check | None, BeforeValidator(is_table)] = None
    tunnel: Tunnel = Field(default_factory=Tunnel)
    limits: Limits = Field(default_factory=Limits)
    affinity: _Timeout = 0
    full: Annotated[str, _words(FULL)] = "refuse-new"
    flows: Annotated[str, _words(FLOWS)] = "track"


class Lb(Table):
    """[lb]."""

    interfaces: Annotated[list[Annotated[str, text(values.interface_name)]], BeforeValidator(_interfaces)]
    dataplane: Annotated[str, _words(DATAPLANES)] = "auto"
    flow_memory: Annotated[int, text(lambda text: values.size(text, *FLOW_MEMORY_RANGE))] = 64 << 20
    ring_seed: Annotated[str | None, text(_seed)] = None
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
        ("service", "tunnel"): Tunnel,
        ("service", "backends"): Backend,
        ("service", "acl"): Acl,
        ("service", "snat"): Snat,
        ("service", "check"): Check,
        ("service", "limits"): Limits,
    }
    return models.get(words, Table)
