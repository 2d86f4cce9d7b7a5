"""The kernel's own NAT as a candidate: nftables DNAT, with connection tracking.

Lives here: its rules, and what is changed of the whole machine meanwhile. Only the machine's own network
namespace may raise the number of tracked connections; a process of its own puts that back, whatever becomes
of this one.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from l4raw.netns import Topology

from l4raw.bench.frames import PORT
from l4raw.bench.wires import BACKEND, BACKENDS, INNER

MOST_FLOWS: Final = 4_000_000
BUCKETS: Final = 1 << 20
"""Of its hash table: chains are short."""
TIMEOUT_S: Final = 600
_CONNTRACK: Final = Path("/proc/sys/net/netfilter")
MAX: Final = _CONNTRACK / "nf_conntrack_max"
_RULES: Final = """table ip bench {{
  chain in {{
    type nat hook prerouting priority dstnat; ip daddr {vip} {protocol} dport {port} dnat to {to};
  }}
}}"""
_PUT_BACK: Final = 'old=$(cat "$1") && echo "$2" > "$1" && echo raised && { read -r _; echo "$old" > "$1"; }'


@contextmanager
def raised(file: Path = MAX, value: int = MOST_FLOWS) -> Iterator[None]:
    """The file has the value, and what it had when this process has ended, in whatever way."""
    argv = ["sh", "-c", _PUT_BACK, "sh", str(file), str(value)]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, text=True, start_new_session=True, stdin=pipe, stdout=pipe) as keeper:
        assert keeper.stdout is not None and keeper.stdin is not None
        if keeper.stdout.readline() != "raised\n":
            raise OSError(f"{file} could not be written")
        yield
        keeper.stdin.close()


@contextmanager
def translating(network: Topology, protocol: str) -> Iterator[None]:
    """The balancer's kernel forwards and translates, of the VIP's port, until the network ends."""
    balancer, backend = network.balancer, BACKENDS[0]
    balancer.sysctl("net.ipv4.ip_forward", 1)
    # The rules first: they are what loads connection tracking.
    balancer.run(["nft", _RULES.format(vip=network.vip, protocol=protocol, port=PORT, to=backend)])
    with raised(), raised(_CONNTRACK / "nf_conntrack_buckets", BUCKETS):
        if protocol == "udp":
            balancer.sysctl("net.netfilter.nf_conntrack_udp_timeout", TIMEOUT_S)
        else:  # segments in mid-stream begin a connection too
            balancer.sysctl("net.netfilter.nf_conntrack_tcp_loose", 1)
        balancer.ip(f"neigh replace {backend} lladdr {BACKEND.mac} dev {INNER.interface}")
        yield


def tracked(network: Topology) -> int:
    """How many connections the balancer's kernel tracks."""
    return int(network.balancer.run(["cat", str(_CONNTRACK / "nf_conntrack_count")]).stdout)
