"""A file of figures: what it says of the machine, and what two of them tell together.

Lives here: `l4raw.bench/1`, reading and comparing. Must not live here: measuring (measure.py).
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from l4raw import __version__
from l4raw.bench.bed import Setting

SCHEMA: Final = "l4raw.bench/1"
_OF_SETTING: Final = ("mode", "dataplane", "protocol", "flows", "arms", "remembers")


class ResultError(ValueError):
    """Files that cannot be read, or not be compared. The text says why."""


def machine() -> dict[str, Any]:
    """What must be the same for figures to be compared."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "cpu": cpu[1] if cpu else platform.processor(),
        "cpus": os.cpu_count() or 1,
        "architecture": platform.machine(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)),
        "host": platform.node(),
    }


def result(setting: Setting, pairs: int, figures: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a file."""
    return {
        "schema": SCHEMA,
        "generated": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "kernel": platform.release(),
        "versions": {"l4raw": __version__, "python": platform.python_version()},
        "setting": {name: _plain(getattr(setting, name)) for name in _OF_SETTING} | {"pairs": pairs},
        **figures,
    }


def _plain(value: object) -> object:
    return value if isinstance(value, int) else str(value)


def read(path: Path) -> dict[str, Any]:
    """A file of `l4raw bench --json FILE`, or what `l4raw --json bench` printed. Raises ResultError."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ResultError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ResultError(f"{path}: no JSON: {error}") from error
    if isinstance(found, dict) and isinstance(found.get("data"), dict):
        found = found["data"]
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise ResultError(f"{path}: no result of `l4raw bench --json` (its schema would be {SCHEMA})")
    missing = {"machine", "kernel", "setting", "saturated", "no_loss", "latency"} - set(found)
    if missing:
        raise ResultError(f"{path}: incomplete: no {', '.join(sorted(missing))}")
    for part in ("machine", "setting"):
        if not isinstance(found[part], dict):
            raise ResultError(f"{path}: incomplete: {part} has no fields")
    return found


class Change(NamedTuple):
    """A figure in both."""

    name: str
    unit: str
    before: float
    after: float
    quartiles: tuple[tuple[float, float], tuple[float, float]] | None = None
    """Of each."""

    @property
    def percent(self) -> float | None:
        """None where there was none before, or less: what is added can be."""
        return 100 * (self.after / self.before - 1) if self.before > 0 else None

    @property
    def beyond_quartiles(self) -> bool:
        """Whether the quartiles of one are beside those of the other."""
        if not self.quartiles:
            return False
        (low, high), (other_low, other_high) = self.quartiles
        return high < other_low or other_high < low


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """What has changed. Raises ResultError for different machines, or settings, naming the field."""
    for part in ("machine", "setting"):
        for field in sorted(set(before[part]) | set(after[part])):
            one, other = before[part].get(field), after[part].get(field)
            if one != other and field != "pairs":
                raise ResultError(f"not comparable: {part}, {field}: {one} and {other}")
    try:
        return list(_changes(before, after))
    except (KeyError, TypeError) as error:
        raise ResultError(f"a file is incomplete: {error}") from error


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    for name, key, unit, by in (
        ("saturated", "rate", "Mpps", 1e6),
        ("bare program", "bare", "Mpps", 1e6),
        ("of the bare program", "ratio", "", 1),
    ):
        one, other = before["saturated"][key], after["saturated"][key]
        quartiles = ((one["low"] / by, one["high"] / by), (other["low"] / by, other["high"] / by))
        yield Change(name, unit, one["median"] / by, other["median"] / by, quartiles)
    if before["no_loss"] and after["no_loss"]:
        yield Change("without loss", "Mpps", before["no_loss"] / 1e6, after["no_loss"] / 1e6)
    for one, other in zip(before["latency"], after["latency"], strict=False):
        for name in one["added_us"]:
            what = f"added latency at {one['load']:.0%} load, {name}"
            yield Change(what, "us", one["added_us"][name], other["added_us"][name])
