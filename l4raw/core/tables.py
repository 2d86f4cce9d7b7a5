"""What steer() may read and change, in one place.

A policy (policy.py) is replaced as a whole. Flows, next hops, cursors and
counters live beside it and stay then.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from l4raw.core.bucket import Bucket
from l4raw.core.changes import carried
from l4raw.core.flows import FlowTable
from l4raw.core.hashing import hash_key
from l4raw.core.limits import Counts, private
from l4raw.core.next_hops import NextHops
from l4raw.core.policy import NO_POLICY as NO_POLICY
from l4raw.core.policy import BackendEntry as BackendEntry
from l4raw.core.policy import Ends as Ends
from l4raw.core.policy import Policy as Policy
from l4raw.core.policy import ServiceEntry as ServiceEntry
from l4raw.core.policy import compile_policy as compile_policy
from l4raw.core.snat import Ports
from l4raw.core.traffic import Cursors as Cursors
from l4raw.core.traffic import Traffic as Traffic
from l4raw.core.waiting import Datagram, Key
from l4raw.wire.abi import (
    EVENT_COUNT,
    EVENT_EVICTED_HALF_OPEN,
    FLOW_AFFINITY,
    FLOW_FREE,
    FLOW_RESTING,
    PLACE_TAKEN,
    VERDICT_COUNT,
)


class Arm(NamedTuple):
    """One of the balancer's interfaces: 0 the clients' side, the last the backends' side."""

    name: str
    mac: bytes
    mtu: int = 1500
    """Bytes of an IP packet."""


NO_FLOWS: Final = (FLOW_RESTING, FLOW_AFFINITY)
"""States of entries that no counter of flows counts."""


@dataclass(slots=True)
class Tables:
    """All state of the packet path."""

    arms: tuple[Arm, ...]
    flows: FlowTable
    next_hops: NextHops
    policy: Policy = NO_POLICY
    local: frozenset[bytes] = frozenset()
    """This host's own addresses, IPv4 and IPv6, of all interfaces, as they were at the start."""
    now: int = 0
    """Milliseconds modulo 2^32, advanced by whoever owns the clock."""
    verdicts: list[int] = field(default_factory=lambda: [0] * VERDICT_COUNT)
    events: list[int] = field(default_factory=lambda: [0] * EVENT_COUNT)
    """What happened on the way to verdicts; see `EVENT_NAMES`."""
    backends: list[Traffic] = field(default_factory=lambda: [Traffic()])
    """By number of the backend; a service's traffic is that of its backends."""
    counts: Counts = field(default_factory=lambda: private(hash_key(b"")))
    """What limits of services and clients count."""
    cursors: Cursors = field(default_factory=lambda: [0])
    """By number of the service: turns taken so far, modulo 2^32; lc, wlc: the slot after the last one."""
    fragments: dict[Key, Datagram] = field(default_factory=dict)
    """Datagrams of which fragments have come, the oldest first; see fragments.py."""
    fragment_bytes: int = 0
    """Of memory that they take; see waiting.py."""
    idents: int = 0
    """Datagrams that were given an identification so far."""
    errors: Bucket = field(default_factory=Bucket)
    """How many ICMP errors of our own may be sent."""
    resets: Bucket = field(default_factory=Bucket)
    """How many resets of our own, to clients whose connection is not known; see answers.py."""
    ports: Ports = field(default_factory=Ports)
    """Of the pools of fullnat services."""
    paths: dict[Ends, tuple[int, int]] = field(default_factory=dict)
    """Of tunnels: the MTU that a router on the way told, and when; see path_mtu.py."""

    def total_verdicts(self) -> list[int]:
        """Frames by verdict, of everybody who decides."""
        return self.verdicts

    def total_events(self) -> list[int]:
        """Events by number, likewise."""
        return self.events

    def total_traffic(self, backend: int) -> Traffic:
        """The counters of one backend, likewise."""
        return self.backends[backend]

    def current_flows(self, backend: int) -> int:
        """Flows in the table that go to this backend; a NAT flow is one, though it has two entries."""
        traffic = self.backends[backend]
        return traffic.flows - traffic.ended

    def load(self, backend: int) -> tuple[bool, int]:
        """What lc and wlc compare: whether the MAC of the next hop is unknown, and the current flows."""
        entry = self.policy.backends[backend]
        assert entry is not None, "a ring names backends of its policy"
        return self.next_hops.macs[entry.next_hop] is None, self.current_flows(backend)

    def take_place(self) -> int:
        """A place for a new flow among the half-open ones, from 1 on; the oldest goes if there is none.

        It is the flow's that `insert` is told it is of; or `drop_place` gives it back.
        """
        place, oldest = self.flows.share.take()
        while not place:
            self._evict(oldest)
            place, oldest = self.flows.share.take()
        return place

    def evict_half_open(self) -> bool:
        """Have the oldest half-open flow go; whether there was one."""
        oldest = self.flows.share.oldest()
        if oldest >= 0:
            self._evict(oldest)
        return oldest >= 0

    def _evict(self, index: int) -> None:
        self.free(index, self.flows.read(index).lock)
        self.events[EVENT_EVICTED_HALF_OPEN] += 1

    def drop_place(self, place: int) -> None:
        """Give back a place that no flow has got, unless the attempt to insert it has."""
        if place and self.flows.share.index(place) == PLACE_TAKEN:
            self.flows.share.give_back(place)

    def free(self, index: int, lock: int) -> bool:
        """End the flow of this entry, or its port's rest, if `lock` still is its lock word; whether it did.

        Both entries go before the hop does: who finds one of them meanwhile must not find another's hop.
        """
        flows = self.flows
        entry = flows.read(index)
        if entry.state == FLOW_FREE or entry.lock != lock:
            return False
        pair = (index, entry.peer - 1) if entry.peer else (index,)
        # The client is the source where frames go to the backend: of the entry without a hop of its own.
        (client, _), _ = flows.ends(entry.peer - 1 if entry.next_hop and entry.peer else index)
        hops = [flows.read(each).next_hop for each in pair]
        for each in pair:
            flows.delete(each)
        for hop in filter(None, hops):
            self.next_hops.release(hop)
        if entry.state not in NO_FLOWS:
            self.backends[entry.backend].ended += 1
            self.counts.end(entry.service, client)
        return True

    def may_reply(self, src: bytes, dst: bytes, arm: int) -> bool:
        """Whether a fragment without ports may be of a reply: from a backend that answers through us."""
        policy = self.policy
        return (src, arm) in policy.repliers and (dst in policy.snat or dst not in self.local)

    def set_mtu(self, arm: int, mtu: int) -> None:
        """The interface of `arm` takes IP packets of up to `mtu` bytes from now on."""
        arms = list(self.arms)
        arms[arm] = arms[arm]._replace(mtu=mtu)
        self.arms = tuple(arms)

    def path_is(self, ends: Ends, mtu: int) -> None:
        """`paths` has another MTU for a tunnel; 0: none. For who else looks there: here nobody."""

    def install(self, policy: Policy) -> None:
        """Make `policy` the one in force, from the next frame on."""
        self._put(carried(self.policy, policy))

    def _put(self, policy: Policy) -> None:
        """The same of one that knows what its slots have been through."""
        self.backends.extend(Traffic() for _ in range(len(policy.backends) - len(self.backends)))
        self.cursors.extend(0 for _ in range(len(policy.by_number) - len(self.cursors)))
        self.policy = policy
        self.ports.forget()
