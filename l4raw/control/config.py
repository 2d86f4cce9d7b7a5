"""A configuration: found, read, checked, and turned into the model of core.

    loaded = load(None, os.environ)
    loaded.config.services[0].vip

Lives here: the values that the rest of control reads, and the order of the
steps. The shape of the file is in shape.py, the rules in meaning.py, single
values in values.py. Nothing here touches a network.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from l4raw.control import meaning, shape, shape_check
from l4raw.control.advice import one_arm_nat_warnings as one_arm_nat_warnings
from l4raw.control.checks import Check
from l4raw.control.draft import Draft
from l4raw.control.errors import ConfigErrors, L4Error, Problem
from l4raw.control.findings import from_pydantic
from l4raw.control.settings import Config, LbConfig
from l4raw.control.source import Source
from l4raw.core.model import Acl, Backend, Flows, Full, Limits, Mode, Scheduler, Service, Snat, Tunnel
from l4raw.core.timeouts import Timeouts

LOCAL = Path("l4raw.toml")
SYSTEM = Path("/etc/l4raw/l4raw.toml")
VARIABLE = "L4RAW_CONFIG"

_TWICE = re.compile("overwrite|twice|[Dd]uplicate|redefine|mutate")
"""What tomllib says of a key or table that is there already, without its name."""

_LARGEST_FILE = 16 << 20
"""Bytes. The largest table of backends fits; /dev/zero does not."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that was accepted."""

    config: Config
    path: Path
    found_by: str
    """Why this file: `-c`, `argument`, `$L4RAW_CONFIG`, or a default place."""
    source: Source
    """For messages about it that come later: `source.where("service", 0, "vip")`."""
    warnings: tuple[Problem, ...] = ()


def load(path: Path | None, environ: Mapping[str, str], named_by: str = "-c") -> Loaded:
    """Read the file at `path`, which `named_by` named, or the first that exists in the documented order.

    Raises L4Error (101 none found, 102 not readable) or ConfigErrors with everything that is wrong in it.
    """
    chosen, found_by = find(path, environ, named_by)
    return parse(_read(chosen, found_by), chosen, found_by)


def find(path: Path | None, environ: Mapping[str, str], named_by: str = "-c") -> tuple[Path, str]:
    """Which file, and why that one. A file that was named is not looked for: it need not exist.

    Raises L4Error L4R-101.
    """
    if path is not None:
        return path, named_by
    if environ.get(VARIABLE):
        return Path(environ[VARIABLE]), f"${VARIABLE}"
    for candidate in (LOCAL, SYSTEM):
        if candidate.exists():
            return candidate, "default place"
    raise L4Error(
        "L4R-101",
        what=f"no configuration: no -c, ${VARIABLE} is not set, and neither ./{LOCAL} nor {SYSTEM} exists",
    )


def _read(path: Path, found_by: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        hint = f" (named by {found_by})" if found_by.startswith("$") else ""
        reason = (error.strerror or str(error)).lower()
        raise L4Error("L4R-102", what=f"cannot read the file{hint}: {reason}", where=str(path)) from None
    except ValueError as error:
        # A NUL in the path.
        raise L4Error("L4R-102", what=str(error), where=repr(str(path))) from None
    if len(content) > _LARGEST_FILE:
        raise L4Error("L4R-102", what=f"the file has more than {_LARGEST_FILE >> 20} MiB", where=str(path))
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise L4Error("L4R-102", what=f"byte {error.start} is not UTF-8 text", where=str(path)) from None


def parse(text: str, path: Path, found_by: str = "-c") -> Loaded:
    """The configuration in `text`; `path` is for messages only. Raises ConfigErrors."""
    source = Source(str(path), text)
    raw = _toml(text, source)
    findings = []
    root = None
    try:
        root = shape.Root.model_validate(raw)
    except ValidationError as error:
        findings = [from_pydantic(item, raw) for item in error.errors(include_url=False)]
    wrong = frozenset(finding.loc for finding in findings)
    findings += meaning.check(Draft(raw, wrong))
    if findings or root is None:
        raise ConfigErrors(source.problems(findings))
    config = _config(root)
    return Loaded(config, path, found_by, source, tuple(one_arm_nat_warnings(config, None, source)))


def _toml(text: str, source: Source) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        message = str(error) or "nested too deeply"
    place = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    reason = re.sub(r" \(at .*\)$", "", message)
    line, column = (int(place[1]), int(place[2])) if place else (None, None)
    if _TWICE.search(reason) and (repeated := source.repeated(line)):
        raise ConfigErrors([repeated])
    raise ConfigErrors([source.syntax_problem(f"not TOML: {reason[:1].lower()}{reason[1:]}", line, column)])


def _config(root: shape.Root) -> Config:
    lb = root.lb
    return Config(
        LbConfig(tuple(lb.interfaces), lb.dataplane, lb.flow_memory, lb.ring_seed, lb.client_next_hop),
        tuple(_service(service) for service in root.service),
        {service.name: _timeouts(service.timeouts) for service in root.service},
        {service.name: _check(service.check) for service in root.service if service.check},
    )


def _timeouts(table: shape.Timeouts) -> Timeouts:
    return Timeouts(table.syn, table.established, table.fin, table.udp)


def _check(table: shape_check.Check) -> Check:
    timeout = table.timeout
    if "timeout" not in table.model_fields_set:
        timeout = min(timeout, table.interval)
    return Check(table.type, table.port, table.interval, timeout, table.rise, table.fall)


def _service(service: shape.Service) -> Service:
    return Service(
        service.name,
        service.vip.address,
        service.vip.port,
        service.vip.protocol,
        Mode(service.mode),
        Scheduler(service.scheduler),
        tuple(Backend(item.name, item.address, item.port, item.weight) for item in service.backends),
        service.mss_clamp,
        Acl(tuple(service.acl.allow), tuple(service.acl.deny)),
        tuple(Snat(item.address, *item.ports) for item in service.snat),
        Tunnel(service.tunnel.source, service.tunnel.port, service.tunnel.ttl),
        Limits(**service.limits.model_dump()),
        service.affinity,
        Full(service.full),
        Flows(service.flows),
    )
