"""A configuration as far as its shape is right: what the rules of meaning.py read.

Lives here: the document without the values that a message exists about already.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from l4raw.control import values
from l4raw.control.findings import label
from l4raw.control.toml_lines import Loc


@dataclass(slots=True)
class DraftBackend:
    """A backend; None: absent or wrong."""

    loc: Loc
    head: str
    name: str | None
    address: bytes | None
    port: int | None
    weight: int | None


@dataclass(slots=True)
class DraftSnat:
    """A range of a SNAT pool; None: absent or wrong."""

    loc: Loc
    address: bytes | None
    ports: tuple[int, int] | None


@dataclass(slots=True)
class DraftService:
    """A service; None: absent or wrong."""

    loc: Loc
    head: str
    """How messages about it begin: `service "web": `."""
    name: str | None
    vip: values.Vip | None
    mode: str | None
    scheduler: str | None
    has_backends: bool | None
    has_snat: bool | None
    backends: list[DraftBackend] = field(default_factory=list)
    snat: list[DraftSnat] = field(default_factory=list)


class Draft:
    """The document as far as its shape is right."""

    def __init__(self, raw: dict[str, Any], wrong: frozenset[Loc]) -> None:
        """`wrong` are the places that a message exists about already."""
        self._raw = raw
        self._wrong = wrong
        self.interfaces: list[Any] = self._list(("lb", "interfaces")) or []
        count = len(self._list(("service",)) or [])
        self.services = [self._service(("service", index)) for index in range(count)]

    def get(self, loc: Loc, default: Any = None) -> Any:
        """The value at `loc`, `default` if there is none, None if it or what it is in is wrong."""
        value: Any = self._raw
        for depth, part in enumerate(loc):
            if loc[: depth + 1] in self._wrong:
                return None
            if isinstance(value, dict) and part not in value:
                return default
            value = value[part]
        return value

    def _list(self, loc: Loc) -> list[Any] | None:
        value = self.get(loc, [])
        return value if isinstance(value, list) else None

    def _service(self, loc: Loc) -> DraftService:
        vip = self.get((*loc, "vip"))
        backends, snat = self._list((*loc, "backends")), self._list((*loc, "snat"))
        return DraftService(
            loc,
            label((*loc, "name"), self._raw),
            self.get((*loc, "name")),
            None if vip is None else values.vip(vip),
            self.get((*loc, "mode")),
            self.get((*loc, "scheduler"), "maglev"),
            None if backends is None or self.get(loc) is None else bool(backends),
            None if snat is None or self.get(loc) is None else bool(snat),
            [self._backend((*loc, "backends", index)) for index in range(len(backends or []))],
            [self._snat((*loc, "snat", index)) for index in range(len(snat or []))],
        )

    def _snat(self, loc: Loc) -> DraftSnat:
        address, ports = self.get((*loc, "address")), self.get((*loc, "ports"), values.SNAT_PORTS)
        return DraftSnat(
            loc,
            None if address is None else values.address(address),
            None if ports is None else values.port_range(ports),
        )

    def _backend(self, loc: Loc) -> DraftBackend:
        address = self.get((*loc, "address"))
        return DraftBackend(
            loc,
            label((*loc, "name"), self._raw),
            self.get((*loc, "name")),
            None if address is None else values.address(address),
            self.get((*loc, "port"), 0),
            self.get((*loc, "weight"), 1),
        )
