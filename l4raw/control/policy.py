"""The configuration, and what this host knows of its backends, as the tables' policy.

Must not live here: what a policy is and how it is compiled (core/tables.py).
"""

from __future__ import annotations

from l4raw.control.errors import L4Error
from l4raw.control.neighbours import Neighbours
from l4raw.control.netlink import Netlink
from l4raw.control.settings import Config
from l4raw.control.tunnels import sources
from l4raw.core.tables import Policy, Tables, compile_policy


def install(config: Config, neighbours: Neighbours, seed: bytes, tables: Tables) -> Policy:
    """Put in force what `config` says, with all backends up; returns it. Raises L4R-307, L4R-308."""
    with Netlink() as netlink:
        tables.local = frozenset(netlink.local_addresses())
        tunnels = sources(netlink, config.services)
    try:
        hops = neighbours.hops()
        policy = compile_policy(config.services, hops, seed, config.timeouts, sources=tunnels)
        tables.install(policy)
    except OverflowError as error:
        raise L4Error("L4R-307", what=str(error), where="[lb]") from error
    return policy
