"""Test networks made of network namespaces, for tests, demos and lessons.

Lives here: hosts (host.py), the networks (dsr.py, nat.py, fullnat.py), the servers and
clients that run in them (servers.py, clients.py). Must not live here: anything
that knows how the balancer works. Only the standard library is imported, so
that a network can be built by any Python 3.11.
"""

from __future__ import annotations

from .dsr import dsr
from .fullnat import fullnat
from .host import CommandError, Host, NamespaceError
from .nat import nat
from .process import Log
from .topology import NO_CHECK, Topology

__all__ = ["NO_CHECK", "CommandError", "Host", "Log", "NamespaceError", "Topology", "dsr", "fullnat", "nat"]
