"""The list of error and warning codes: what each means, why, what helps.

Lives here (1xx in codes_config.py and codes_keys.py): what is true whenever the code occurs;
`l4raw explain CODE` prints it. What happened is said where it is raised.
A code keeps its meaning for ever; a code that is gone is not given away again.

The hundred is the kind, and selects the exit code: 1xx configuration, 2xx
refused for safety, 3xx this host cannot do it, 4xx everything else.
"""

from __future__ import annotations

from l4raw.control.codes_config import CONFIG
from l4raw.control.codes_entry import Code as Code
from l4raw.control.codes_keys import KEYS

_SAFETY = (
    Code(
        "L4R-201",
        "the VIP is owned by another host",
        "two machines would answer ARP for it, and clients would reach one of them by chance (RFC 5227).",
        "remove the address from the other host, or choose a VIP that nobody uses."
        " Backends under DSR: arp_ignore=1 and arp_announce=2",
    ),
    Code(
        "L4R-202",
        "the VIP is an address of this host",
        "the kernel would answer the clients itself, beside the balancer.",
        "remove the address from the interface; l4raw answers ARP for the VIP itself",
    ),
    Code(
        "L4R-203",
        "the interface carries an established SSH connection",
        "if the dataplane takes a frame of that connection, you lose the session and the way back in.",
        "use another interface, or say `--accept-risk=lose-ssh` if you have another way in",
    ),
    Code(
        "L4R-204",
        "another instance uses this interface",
        "both would answer the same frames.",
        "stop it with `l4raw down`, or use another interface",
    ),
    Code(
        "L4R-205",
        "a foreign object has our name",
        "l4raw changes and deletes only what its own journal says it created.",
        "remove or rename the object yourself if nothing needs it, or start with another instance name",
    ),
    Code(
        "L4R-206",
        "the kernel's copies of frames must be dropped, and nftables cannot be used",
        "with ip_forward on, the kernel routes its own copy of every frame that l4raw has claimed; and it"
        " answers a packet to an IPv6 VIP, which is nobody's address, with an error."
        " A netdev ingress rule of nftables would drop that copy.",
        "install nftables; or, without an IPv6 VIP, turn forwarding off: sysctl -w net.ipv4.ip_forward=0",
    ),
    Code(
        "L4R-207",
        "another host claims a VIP while the balancer runs",
        "clients that believe it send their frames there. l4raw has announced the VIP again (RFC 5227 2.4).",
        "find that host by its MAC address and take the VIP from it, or stop this balancer: l4raw down",
        warning=True,
    ),
)

_HOST = (
    Code(
        "L4R-301",
        "missing privileges",
        "raw sockets need CAP_NET_RAW and changes of the network CAP_NET_ADMIN.",
        "run it with sudo, or in a namespace of your own: unshare -Urnm",
    ),
    Code(
        "L4R-302",
        "the interface does not exist",
        "the network namespace of this process has no interface of that name.",
        "list the interfaces with `ip -br link` and correct [lb] interfaces",
    ),
    Code(
        "L4R-303",
        "the interface is down",
        "a link that is down neither receives nor sends.",
        "bring it up: ip link set dev NAME up",
    ),
    Code(
        "L4R-304",
        "this dataplane is not available",
        "the dataplane that was asked for is not part of this build or not possible on this host.",
        'use dataplane = "auto", or --dataplane raw, which needs nothing but Linux',
    ),
    Code(
        "L4R-305",
        "no route to a backend through the expected interface",
        "backends are reached through the last of the interfaces in [lb]; the kernel's route goes elsewhere.",
        "look at `ip route get ADDRESS`; correct the address, the route or [lb] interfaces",
    ),
    Code(
        "L4R-306",
        "an operation on an interface failed",
        "the kernel refused a call that l4raw needs.",
        "the message has the kernel's reason; `ip -d link show dev NAME` shows the state of the interface",
    ),
    Code(
        "L4R-307",
        "not enough memory",
        "all memory for flows is reserved at the start, so that it cannot run out under load.",
        "lower flow_memory in [lb]: 64MiB hold 675,701 DSR flows",
    ),
    Code(
        "L4R-308",
        "no address for a tunnel to come from",
        "a tunnel's packets need a source address of the backend's IP version, and this host has none to send"
        " from to that backend.",
        'give the interface of the backends one, or write tunnel = { source = "ADDRESS" }',
    ),
)

_RUNTIME = (
    Code(
        "L4R-401",
        "no running instance",
        "no process holds the lock in the run folder.",
        "look at the name, and use the run folder that it was started with (L4RAW_RUN_DIR)",
        exits=6,
    ),
    Code(
        "L4R-402",
        "an unexpected error inside l4raw",
        "this is a mistake in l4raw, not in what you did.",
        "report it with the crash file that it names, which has the traceback and the versions",
    ),
    Code(
        "L4R-403",
        "the capture cannot be read",
        "it does not exist, may not be read by this user, or is no pcap or pcapng file of Ethernet frames.",
        "check the path; `tcpdump --immediate-mode -Q in -i FIRST_INTERFACE -w FILE dst host VIP` writes one",
    ),
)

ALL = CONFIG + KEYS + _SAFETY + _HOST + _RUNTIME

REGISTRY: dict[str, Code] = {code.name: code for code in ALL}
