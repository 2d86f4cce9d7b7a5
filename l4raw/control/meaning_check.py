"""What a table `check` means beside the rest of its service. The other rules are in meaning.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from l4raw.control import shape_check, values
from l4raw.control.checks import DEFAULT, HANDSHAKE, NONE, TYPES, duration, port_of
from l4raw.control.draft import Draft, DraftService
from l4raw.control.source import Finding
from l4raw.wire.ipv4 import TCP


def check(draft: Draft, service: DraftService) -> Iterator[Finding]:
    """What cannot be done, or would mean nothing. A value that is wrong already breaks no rule."""
    table = draft.get((*service.loc, "check"), None)
    if not isinstance(table, dict):
        return
    if table.get("type") == NONE:
        yield from _none(service, table)
    elif table.get("type", HANDSHAKE) in TYPES:
        yield from _nowhere(service, table)
        yield from _longer_than_the_interval(service, table)


def _none(service: DraftService, table: dict[str, Any]) -> Iterator[Finding]:
    for key in table:
        if key != "type" and key in shape_check.Check.model_fields:
            what = f'{service.head}check has type "{NONE}", so {key} means nothing'
            yield Finding("L4R-172", (*service.loc, "check", key), what, key=True)


def _nowhere(service: DraftService, table: dict[str, Any]) -> Iterator[Finding]:
    """A handshake needs a TCP port."""
    if service.vip is None or "port" in table:
        return
    loc = (*service.loc, "check")
    if service.vip.protocol != TCP:
        yield Finding("L4R-170", loc, f"{service.head}its protocol is UDP, which has no handshake")
        return
    for backend in service.backends:
        if backend.port is not None and not port_of(DEFAULT, service.vip.port, backend.port):
            what = f"{service.head}port 0 is every port: there is none to check"
            yield Finding("L4R-170", loc, what)
            return


def _longer_than_the_interval(service: DraftService, table: dict[str, Any]) -> Iterator[Finding]:
    if "timeout" not in table:
        return  # then it is the interval's, if that is shorter
    interval = _milliseconds(table.get("interval"), DEFAULT.interval, shape_check.INTERVAL_RANGE)
    timeout = _milliseconds(table["timeout"], None, shape_check.TIMEOUT_RANGE)
    if interval is not None and timeout is not None and timeout > interval:
        what = f"timeout {duration(timeout)} is longer than interval {duration(interval)}"
        yield Finding("L4R-171", (*service.loc, "check", "timeout"), f"{service.head}check: {what}")


def _milliseconds(text: object, default: int | None, bounds: tuple[str, str]) -> int | None:
    if text is None:
        return default
    try:
        return values.duration(text, *bounds) if isinstance(text, str) else None
    except values.Refused:
        return None
