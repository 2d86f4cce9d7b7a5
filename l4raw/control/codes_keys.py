"""The codes of keys that only some services have: tunnel, snat, acl, limits, check; from L4R-144 on.

The rules for codes are in codes.py; those of all other keys in codes_config.py.
"""

from __future__ import annotations

from l4raw.control.codes_entry import Code

KEYS = (
    Code(
        "L4R-144",
        "a tunnel setting that the mode has no use for",
        "only dsr-ipip and dsr-gue put headers in front of a packet, and only those of dsr-gue have a port.",
        'remove the key, or use mode = "dsr-gue" or "dsr-ipip"',
    ),
    Code(
        "L4R-145",
        "not an address that a tunnel can come from",
        "the source of the outer header is of the backend's IP version, and is told when such a packet cannot"
        " be delivered: so it is an address of this host, and neither a VIP nor a backend's.",
        "remove source: then it is the address that the kernel would send from",
    ),
    Code(
        "L4R-150",
        "fullnat without a SNAT pool",
        "fullnat gives each flow a source address and port of the balancer's own, so it must know which.",
        'add snat = [{ address = "10.77.1.5" }], an address that nobody has, in the segment of the backends',
    ),
    Code(
        "L4R-151",
        "a SNAT pool in a mode that has none",
        "the other modes leave the client's address and port as they are.",
        'remove snat, or use mode = "fullnat"',
    ),
    Code(
        "L4R-152",
        "a SNAT address is also a VIP or a backend",
        "l4raw answers ARP for it, so two machines would claim the address; and what comes to a VIP is a"
        " client's, what comes to a SNAT address a backend's.",
        "choose an address that nobody has",
    ),
    Code(
        "L4R-153",
        "two ranges of a SNAT pool overlap",
        "a port that is there twice is one port: the pool would be smaller than it looks.",
        "make one range of them, or separate them. Pools of two services may have the same ports",
    ),
    Code(
        "L4R-154",
        "a SNAT address of another IP version than the VIP",
        "a frame keeps its IP version, and has one for source and destination.",
        "use an address of the VIP's version, which is the backends' version too",
    ),
    Code(
        "L4R-155",
        "a SNAT address in no subnet of the backends' interface",
        "l4raw answers ARP for a SNAT address, but only who is in its subnet asks for it there. Backends"
        " elsewhere need a route that leads here.",
        "correct the address if it is a typo; else give the backends' router a route to it, by an address of"
        " this host",
        warning=True,
    ),
    Code(
        "L4R-160",
        "not a network",
        "an access list has addresses and networks: an address, a slash and the length of the prefix, with no"
        " bit set after that.",
        'write it like "10.0.0.0/8", "2001:db8::/32", or "10.1.2.3" for one client',
    ),
    Code(
        "L4R-161",
        "mss_clamp on a udp service",
        "the maximum segment size is an option of TCP's SYN; a datagram has nothing like it.",
        "remove mss_clamp, or name the service with /tcp",
    ),
    Code(
        "L4R-162",
        "a network of another IP version than the VIP",
        "clients of a VIP have addresses of its version, so this entry would never match.",
        "remove it, or put it into the service of that version",
    ),
    Code(
        "L4R-163",
        "a network twice in an access list",
        "the longest prefix decides, and of two that are alike none is longer.",
        "keep one of them, in allow or in deny",
    ),
    Code(
        "L4R-164",
        "one client's limit above that of all clients",
        "a client can have no more than the whole service has, so this limit would never be reached.",
        "make it smaller, or remove it",
    ),
    Code(
        "L4R-165",
        "a flow without an entry could not be carried on",
        "without an entry only the ring tells a flow's backend: not with a scheduler that goes by turns or"
        " counts flows, not with affinity, not under NAT, whose replies need an entry, and not with limits,"
        " to which each of its frames would be a new flow.",
        'use a DSR mode with maglev, sh, hrw or modulo, no affinity and no limits; or full = "evict-oldest"',
    ),
    Code(
        "L4R-166",
        "a living flow's port would be given to another",
        "the backend still sends to the port of a flow that was evicted, and a new flow may have it at once.",
        'use full = "refuse-new" with fullnat, and more flow_memory',
    ),
    Code(
        "L4R-167",
        "an access list that allows nobody",
        "an empty `allow` would let everybody in, which is what no list does; whoever wrote it may have meant"
        " nobody.",
        'name the networks; remove `allow` for everybody; for nobody, write deny = ["0.0.0.0/0"], or "::/0"',
    ),
    Code(
        "L4R-168",
        "which flows need an entry could not be told",
        "a flow without an entry is found by its slot of a ring that keeps its size, and a SYN must tell"
        " which frame is its first; replies under NAT, limits and affinity need an entry for each flow;"
        " and a flow that has one must not lose it to another (full).",
        'use TCP in a DSR mode with maglev, sh or hrw, without limits, affinity and full; or flows = "track"',
    ),
    Code(
        "L4R-170",
        "a check without a port to ask",
        "a check is a TCP handshake. A UDP port has none, and port 0 stands for every port.",
        "name a TCP port at which the same server listens: check = { port = 53 }; or remove check",
    ),
    Code(
        "L4R-171",
        "a check may take longer than its interval",
        "the next check of a backend would be due before the last one has ended.",
        "make timeout shorter or interval longer",
    ),
    Code(
        "L4R-172",
        "a key of a check that is not made",
        'type = "none" says that backends are not checked, so nothing else of it is used.',
        'remove the key, or use type = "tcp"',
    ),
)
