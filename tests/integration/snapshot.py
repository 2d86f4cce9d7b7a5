"""What a host is like, as text, so that two moments can be compared.

Lives here: how to look. Must not live here: what a test does in between. What
changes by itself is left out: counters, timers, what ARP has learned.
"""

from __future__ import annotations

import difflib
import json
import re
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from l4raw.netns import Host
from l4raw.netns.process import environment

DEADLINE = 5.0
"""Seconds that the kernel and the helpers of a killed process have to go away."""

Snapshot = dict[str, list[str]]
"""By what was looked at: its lines."""

IP = {
    "links": ["-d", "link"],
    "addresses": ["addr"],
    "groups": ["maddr"],
    "routes": ["route", "show", "table", "all"],
    "routes6": ["-6", "route", "show", "table", "all"],
    "rules": ["rule"],
    "rules6": ["-6", "rule"],
    "neighbours": ["neigh", "show", "nud", "all"],
    "proxies": ["neigh", "show", "proxy"],
}
BY_ITSELF = re.compile(r"_timer$|^(valid|preferred)_life_time$|^expires$|^(packets|bytes)$")
"""JSON keys whose values change although nobody does anything."""
OURS_IN_ARP = {"managed", "extern_learn", "proxy", "offload"}

BPF_FILE_SYSTEM = Path("/sys/fs/bpf")


def snapshot(host: Host | None, *folders: Path) -> Snapshot:
    """All that `l4raw up` could change in a host (None: in this machine's namespace), and these folders."""
    found = {name: _records(_run(host, ["ip", "-j", *words])) for name, words in IP.items()}
    found["neighbours"] = [line for line in found["neighbours"] if _stays(json.loads(line))]
    found["queueing"] = _records(_run(host, ["tc", "-j", "qdisc", "show"]))
    found["sysctls"] = [line for line in _run(host, ["sysctl", "-a"]).splitlines() if _is_setting(line)]
    for link in json.loads(_run(host, ["ip", "-j", "link"])):
        found[f"offloads of {link['ifname']}"] = _run(host, ["ethtool", "-k", link["ifname"]]).splitlines()
    found["nft"] = _records(json.dumps(json.loads(_run(host, ["nft", "-j", "list", "ruleset"]))["nftables"]))
    found["packet sockets"] = packet_sockets(host)
    found["bpf"] = list(kept_bpf())
    if host:
        found["processes"] = [f"{pid} {name}" for pid, name in residents({host.inode}).items()]
    for folder in folders:
        found[str(folder)] = list(tree(folder))
    return found


def difference(before: Snapshot, after: Snapshot) -> str:
    """The lines that are only in one of the two, below the name of what they are about; empty: none."""
    text = []
    for part in sorted(before.keys() | after.keys()):
        lines = difflib.ndiff(before.get(part, []), after.get(part, []))
        changed = [line.rstrip() for line in lines if line[0] in "+-"]
        if changed:
            text += [f"{part}:", *(f"  {line}" for line in changed)]
    return "\n".join(text)


def assert_as_before(before: Snapshot, look: Callable[[], Snapshot], deadline: float = DEADLINE) -> None:
    """Fail with the difference unless `look()` finds the host as it was, at the latest after `deadline`."""
    until = time.monotonic() + deadline
    while changed := difference(before, look()):
        assert time.monotonic() < until, f"the host is not as it was:\n{changed}"
        time.sleep(0.02)


def packet_sockets(host: Host | None) -> list[str]:
    """Protocol and interface index of each packet socket of the namespace."""
    rows = _run(host, ["cat", "/proc/net/packet"]).splitlines()[1:]
    return sorted(f"protocol {row.split()[3]} interface {row.split()[4]}" for row in rows)


def residents(namespaces: set[int]) -> dict[int, str]:
    """Processes in one of these network namespaces (by inode), zombies left out: pid to name."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "ns/net").stat().st_ino in namespaces:
                found[int(process.name)] = (process / "comm").read_text().strip()
        except OSError:
            continue
    return found


def kept_bpf() -> Iterator[str]:
    """What keeps a BPF object of this machine alive after its process: a pin, or a place on an interface.

    The latter is in `ip link` too, but for other namespaces. An object that has neither goes with the last
    process that holds it, and that one is looked for among the processes.
    """
    yield from sorted(str(path) for path in BPF_FILE_SYSTEM.rglob("*"))


def _run(host: Host | None, argv: list[str]) -> str:
    if host:
        return host.run(argv).stdout
    return subprocess.run(argv, capture_output=True, text=True, check=True, env=environment()).stdout


def _records(text: str) -> list[str]:
    """A line of JSON for each element of a list."""
    return [json.dumps(_steady(entry), sort_keys=True) for entry in json.loads(text or "[]")]


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _steady(inner) for key, inner in value.items() if not BY_ITSELF.search(key)}
    return [_steady(inner) for inner in value] if isinstance(value, list) else value


def _stays(neighbour: dict[str, Any]) -> bool:
    """Is this an entry that the kernel would not forget by itself?"""
    return "PERMANENT" in neighbour.get("state", []) or not OURS_IN_ARP.isdisjoint(neighbour)


def _is_setting(line: str) -> bool:
    return line.startswith("net.") and not line.startswith("net.netfilter.nf_conntrack_count")


def tree(folder: Path) -> Iterator[str]:
    """Every file below and with `folder`: type and rights, owner, name, content."""
    for path in sorted([folder, *folder.rglob("*")]):
        try:
            facts = path.lstat()
        except FileNotFoundError:
            continue
        text = f"{stat.filemode(facts.st_mode)} {facts.st_uid} {path}"
        if path.is_symlink():
            text += f" -> {path.readlink()}"
        elif path.is_file():
            text += f" {path.read_bytes()[:200]!r}"
        yield text
