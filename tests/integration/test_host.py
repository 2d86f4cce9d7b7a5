"""What control does to the host and learns from it, on a kernel of its own for each test.

              10.1.0.0/24                 10.2.0.0/24
     +--------+ c0   b0 +----------+ b1   s0 +--------+
     | client |---------| balancer |---------| server |
     +--------+ .1   .2 +----------+ .2   .1 +--------+

The client's route to the VIP, 10.77.0.100, leads to the balancer. No balancer runs here.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from l4raw.netns import Host, Log

from l4raw.control import guard as guard_module
from l4raw.control import neighbours as neighbours_module
from l4raw.control import responder as responder_module
from l4raw.control.arp import announcement, probe_frame
from l4raw.control.errors import L4Error
from l4raw.control.guard import Guard
from l4raw.control.instance import Instance, default_name
from l4raw.control.neighbours import Neighbours
from l4raw.control.netlink import Interface, NeighbourSocket, Netlink, require_up
from l4raw.control.responder import ARP, PROBE_INTERVAL_S, PROBES, Responder
from l4raw.control.ssh import established_ssh
from l4raw.core.model import Backend, Mode, Scheduler, Service
from l4raw.core.next_hops import NextHops
from l4raw.wire import ethernet

pytestmark = pytest.mark.root

DEADLINE = 10.0
VIP = socket.inet_aton("10.77.0.100")
CLIENT, SERVER, GATEWAY = "10.1.0.1", "10.2.0.1", "10.2.0.2"
UDP = 17
ETH_P_ALL = 3
# linux/if_tun.h, linux/if_arp.h
TUNSETIFF, TUNSETLINK, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x400454CD, 0x0001, 0x1000
ARPHRD_TUNNEL = 768
IP_RECVERR = 11
"""ip(7): report every ICMP error, also the transient ones."""

GUARDED = """
import sys
from l4raw.control.guard import Guard
from l4raw.core.model import Mode, Scheduler, Service
service = Service("dns", bytes([10, 77, 0, 100]), 53, 17, Mode.DSR_L2, Scheduler.RR, ())
print(Guard("x", ["b0", "b1"], [service]).ensure(), flush=True)
sys.stdin.read()
"""


@dataclass
class Net:
    """The three hosts, and the facts of the balancer's interfaces."""

    client: Host
    balancer: Host
    server: Host
    arms: list[Interface]

    @property
    def client_arm(self) -> Interface:
        return self.arms[0]


@pytest.fixture
def net() -> Iterator[Net]:
    """The picture above. The test itself runs in the balancer's namespace."""
    log = Log(silent=True)
    with contextlib.ExitStack() as stack:
        hosts = [stack.enter_context(Host(name, log)) for name in ("client", "balancer", "server")]
        client, balancer, server = hosts
        balancer.ip(
            f"link add b0 type veth peer name c0 netns {client.pid}",
            f"link add b1 type veth peer name s0 netns {server.pid}",
            "link set lo up", "link set b0 up", "link set b1 up",
            "address add 10.1.0.2/24 dev b0", "address add 10.2.0.2/24 dev b1",
        )  # fmt: skip
        client.ip("link set c0 up", "address add 10.1.0.1/24 dev c0", "route add default via 10.1.0.2")
        server.ip(
            "link set lo up", "link set s0 up", "address add 10.2.0.1/24 dev s0",
            "route add default via 10.2.0.2",
        )  # fmt: skip
        stack.enter_context(balancer.enter())
        with Netlink() as netlink:
            until(lambda: all(arm.up for arm in netlink.interfaces(["b0", "b1"])))
            arms = netlink.interfaces(["b0", "b1"])
        yield Net(client, balancer, server, arms)


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition; fail after DEADLINE."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def mac_of(host: Host, interface: str) -> str:
    text = host.run(["ip", "-j", "link", "show", "dev", interface]).stdout
    return str(json.loads(text)[0]["address"])


def neighbour_table(host: Host) -> str:
    return host.run(["ip", "neigh", "show"]).stdout


def service(mode: Mode, port: int = 53, backend_port: int = 0) -> Service:
    backend = Backend("b1", socket.inet_aton(SERVER), backend_port)
    return Service("dns", VIP, port, UDP, mode, Scheduler.RR, (backend,))


def udp(host: Host, address: str, port: int = 0) -> socket.socket:
    with host.enter():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    sock.bind((address, port))
    sock.settimeout(DEADLINE)
    return sock


def raw(host: Host, interface: str, protocol: int) -> socket.socket:
    with host.enter():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sock.bind((interface, protocol))
    sock.settimeout(DEADLINE)
    return sock


def tables() -> list[str]:
    """The nft tables of the balancer."""
    text = subprocess.run(["nft", "-j", "list", "tables"], check=True, capture_output=True).stdout
    return [entry["table"]["name"] for entry in json.loads(text)["nftables"] if "table" in entry]


# The guard.


@pytest.mark.parametrize("guarded", [False, True], ids=["bare", "guarded"])
def test_what_the_kernel_does_with_a_frame_to_the_vip(net: Net, guarded: bool) -> None:
    """Bare: it forwards a copy and answers ICMP errors. Guarded: neither, and a raw socket still sees it."""
    net.balancer.sysctl("net.ipv4.ip_forward", 1)
    net.balancer.ip("route add 10.77.0.100 via 10.2.0.1", "route add 10.77.0.101 via 10.2.0.1")
    net.server.ip("address add 10.77.0.100/32 dev lo", "address add 10.77.0.101/32 dev lo")
    guard = Guard("x", ["b0", "b1"], [service(Mode.DSR_L2)])
    with contextlib.closing(guard), contextlib.ExitStack() as stack:
        if guarded:
            assert guard.ensure()
        tap, arrived = raw(net.balancer, "b0", ETH_P_ALL), udp(net.server, "0.0.0.0", 53)
        sender, refused = udp(net.client, CLIENT), udp(net.client, CLIENT)
        for sock in (tap, arrived, sender, refused):
            stack.callback(sock.close)
        sender.sendto(b"to the VIP", ("10.77.0.100", 53))
        sender.sendto(b"a fence", ("10.77.0.101", 53))
        assert arrived.recv(100) == (b"a fence" if guarded else b"to the VIP")
        # No server listens on port 99; without a guard its ICMP error comes back to a connected socket.
        refused.connect(("10.77.0.100", 99))
        refused.send(b"to the VIP")
        net.client.run(["ping", "-c", "1", "-W", "5", "10.77.0.101"])
        refused.setblocking(False)
        with pytest.raises(BlockingIOError if guarded else ConnectionRefusedError):
            refused.recv(100)
        until(lambda: b"to the VIP" in tap.recv(2048))


def test_no_icmp_error_for_a_vip_without_a_route(net: Net) -> None:
    net.balancer.sysctl("net.ipv4.ip_forward", 1)
    with udp(net.client, CLIENT) as bare, udp(net.client, CLIENT) as guarded:
        bare.connect(("10.77.0.100", 53))
        bare.send(b"x")
        with pytest.raises(OSError, match="unreachable"):
            bare.recv(100)
        with contextlib.closing(Guard("x", ["b0"], [service(Mode.DSR_L2)])) as guard:
            assert guard.ensure()
            guarded.connect(("10.77.0.100", 53))
            guarded.send(b"x")
            net.client.run(["ping", "-c", "1", "-W", "5", "10.1.0.2"])
            guarded.setblocking(False)
            with pytest.raises(BlockingIOError):
                guarded.recv(100)


@pytest.mark.parametrize(
    ("port", "backend_port", "lost", "passes"),
    [(53, 0, 53, 5353), (53, 5353, 5353, 53), (0, 0, 40000, None)],
    ids=["port", "backend-port", "every-port"],
)
def test_nat_replies_are_not_forwarded_and_all_else_of_the_backend_is(
    net: Net, port: int, backend_port: int, lost: int, passes: int | None
) -> None:
    net.balancer.sysctl("net.ipv4.ip_forward", 1)
    with contextlib.ExitStack() as stack:
        guard = Guard("x", ["b0", "b1"], [service(Mode.NAT, port, backend_port)])
        stack.callback(guard.close)
        assert guard.ensure()
        client, own = udp(net.client, CLIENT, 7000), udp(net.balancer, GATEWAY, 7000)
        claimed = udp(net.server, SERVER, lost)
        for sock in (client, own, claimed):
            stack.callback(sock.close)
        claimed.sendto(b"a reply", (CLIENT, 7000))
        claimed.sendto(b"for the balancer", (GATEWAY, 7000))
        assert own.recv(100) == b"for the balancer"
        if passes:
            other = stack.enter_context(udp(net.server, SERVER, passes))
            other.sendto(b"a fence", (CLIENT, 7000))
            assert client.recv(100) == b"a fence"
        else:
            net.server.run(["ping", "-c", "1", "-W", "5", CLIENT])
            client.setblocking(False)
            with pytest.raises(BlockingIOError):
                client.recv(100)


def test_the_guard_comes_when_forwarding_does_and_goes_when_closed(net: Net, tmp_path: Path) -> None:
    guard = Guard("eth1@7", ["b0", "b1"], [service(Mode.DSR_L2)])
    assert not guard.ensure()
    assert tables() == []
    net.balancer.sysctl("net.ipv4.conf.b1.forwarding", 1)
    assert guard.ensure()
    assert tables() == ["l4raw-eth1.407"]
    assert not guard.ensure()
    assert guard._nft is not None
    assert os.getsid(guard._nft.pid) != os.getsid(0), "Ctrl-C would reach nft"
    guard._nft.kill()
    guard._nft.wait()
    assert guard.ensure(), "it is loaded again when nft was killed"
    guard.close()
    guard.close()
    assert tables() == []


def test_kill_9_takes_the_table_away(net: Net) -> None:
    net.balancer.sysctl("net.ipv4.ip_forward", 1)
    process = net.balancer.popen(
        [sys.executable, "-c", GUARDED],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    assert tables() == ["l4raw-x"]
    process.send_signal(signal.SIGKILL)
    # The next one of that name waits for it, and then has its own.
    with contextlib.closing(Guard("x", ["b0"], [service(Mode.DSR_L2)])) as guard:
        assert guard.ensure()
        process.wait(DEADLINE)
    until(lambda: tables() == [])


def test_a_foreign_table_of_our_name_is_refused_and_untouched(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard_module, "_VANISH_S", 0.05)
    net.balancer.sysctl("net.ipv4.ip_forward", 1)
    subprocess.run(["nft", "add table netdev l4raw-x; add chain netdev l4raw-x theirs"], check=True)
    before = subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True).stdout
    with pytest.raises(L4Error, match="this instance did not make") as caught:
        Guard("x", ["b0"], [service(Mode.DSR_L2)]).ensure()
    assert caught.value.code == "L4R-205"
    assert subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True).stdout == before


def test_without_nft_a_host_that_forwards_is_refused(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "_NFT", "nft-that-is-not-installed")
    guard = Guard("x", ["b0"], [service(Mode.DSR_L2)])
    assert not guard.ensure()
    net.balancer.sysctl("net.ipv4.ip_forward", 1)
    with pytest.raises(L4Error, match="No such file") as caught:
        guard.ensure()
    assert (caught.value.code, caught.value.exit_code) == ("L4R-206", 4)


def test_what_nft_complains_about_is_told(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    net.balancer.sysctl("net.ipv4.ip_forward", 1)
    monkeypatch.setattr(guard_module, "_NOT_FOR_US", "fib daddr tpye")
    with pytest.raises(L4Error, match=r"nftables cannot be used: Error: syntax error") as caught:
        Guard("x", ["b0"], [service(Mode.NAT)]).ensure()
    assert caught.value.code == "L4R-206"
    assert tables() == []


def test_a_guard_for_thousands_of_backends(net: Net) -> None:
    net.balancer.sysctl("net.ipv4.ip_forward", 1)
    backends = tuple(Backend(f"b{i}", bytes([10, 9, i >> 8, i & 255])) for i in range(4000))
    many = Service("web", VIP, 80, 6, Mode.NAT, Scheduler.RR, backends)
    with contextlib.closing(Guard("x", ["b0", "b1"], [many])) as guard:
        assert guard.ensure()
        text = subprocess.run(["nft", "list", "table", "netdev", "l4raw-x"], check=True, capture_output=True)
        assert text.stdout.count(b" . 80") == 4000


# ARP.


def responder(net: Net, conflict: Callable[[bytes, bytes], None] | None = None) -> Responder:
    return Responder(ARP, net.client_arm, [VIP], conflict)


def arping(net: Net) -> str:
    """The answer to one who-has from the client."""
    return net.client.run(["arping", "-c", "1", "-w", "5", "-I", "c0", "10.77.0.100"], check=False).stdout


def test_the_probe_finds_the_owner_and_names_a_backend(net: Net) -> None:
    net.client.ip("link set lo up", "address add 10.77.0.100/32 dev lo")
    owner = mac_of(net.client, "c0")
    with contextlib.closing(responder(net)) as arp:
        with pytest.raises(L4Error, match=rf"owned by the host {owner}") as caught:
            arp.probe()
        assert (caught.value.code, caught.value.exit_code) == ("L4R-201", 4)
        with pytest.raises(L4Error, match=rf"backend web-1 \({owner}\) answers ARP") as caught:
            arp.probe(lambda: {ethernet.parse_mac(owner): "web-1"})
        assert "arp_ignore=1" in caught.value.fix
        assert "arp_announce=2" in caught.value.fix
    net.client.sysctl("net.ipv4.conf.all.arp_ignore", 1)
    with contextlib.closing(responder(net)) as arp:
        started = time.monotonic()
        arp.probe()
        assert time.monotonic() - started < PROBES * PROBE_INTERVAL_S + 1.0


def test_two_that_probe_at_once_both_stop(net: Net) -> None:
    other = bytes.fromhex("020000000099")
    with contextlib.closing(responder(net)) as arp, raw(net.client, "c0", ethernet.ARP) as rival:
        rival.send(probe_frame(VIP, other))
        with pytest.raises(L4Error, match="02:00:00:00:00:99"):
            arp.probe()


def test_the_responder_answers_arping_also_after_the_link_was_down(net: Net) -> None:
    assert (
        "Unicast reply"
        not in net.client.run(["arping", "-c", "1", "-w", "1", "-I", "c0", "10.77.0.100"], check=False).stdout
    )
    with contextlib.closing(responder(net)) as arp:
        arp.start()
        expected = f"[{net.client_arm.mac.hex(':').upper()}]"
        assert expected in arping(net)
        net.balancer.ip("link set b0 down")
        net.balancer.ip("link set b0 up")
        assert expected in arping(net)
        probe = ["arping", "-D", "-c", "1", "-w", "5", "-I", "c0", "10.77.0.100"]
        probed = net.client.run(probe, check=False)
        assert "Received 1 response" in probed.stdout, "a probe is answered: the address is taken"
    arp.close()


def test_the_announcement_corrects_the_client(net: Net) -> None:
    net.client.ip("neigh add 10.77.0.100 lladdr 02:00:00:00:00:99 nud stale dev c0")
    with contextlib.closing(responder(net)) as arp:
        arp.start()
        until(lambda: net.client_arm.mac.hex(":") in neighbour_table(net.client))


def test_it_announces_twice_and_then_every_minute(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responder_module, "ANNOUNCE_INTERVAL_S", 0.05)
    monkeypatch.setattr(responder_module, "ANNOUNCE_EVERY_S", 0.05)
    with raw(net.client, "c0", ethernet.ARP) as wire, contextlib.closing(responder(net)) as arp:
        arp.start()
        for _ in range(5):
            assert wire.recv(100)[:42] == announcement(VIP, net.client_arm.mac)
        assert "Unicast reply" in arping(net), "and goes on"


def test_another_owner_later_is_told_once_and_answered_once(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responder_module, "ANNOUNCE_INTERVAL_S", 2 * DEADLINE)
    conflicts: list[tuple[bytes, bytes]] = []
    rival = bytes.fromhex("020000000099")
    with (
        raw(net.client, "c0", ethernet.ARP) as wire,
        contextlib.closing(responder(net, lambda vip, mac: conflicts.append((vip, mac)))) as arp,
    ):
        arp.start()
        assert wire.recv(100)[:42] == announcement(VIP, net.client_arm.mac)
        for _ in range(3):
            wire.send(announcement(VIP, rival))
        until(lambda: conflicts)
        assert "Unicast reply" in arping(net), "and the three were handled"
        assert conflicts == [(VIP, rival)]
        defences = 0
        while select.select([wire], [], [], 0)[0]:
            defences += wire.recv(100)[:42] == announcement(VIP, net.client_arm.mac)
        assert defences == 1


# Neighbours.


def watch(net: Net, *backends: tuple[str, str], mode: Mode = Mode.NAT) -> tuple[NextHops, Neighbours]:
    hops = NextHops()
    found = tuple(Backend(name, socket.inet_aton(address)) for name, address in backends)
    return hops, Neighbours(hops, net.arms, [Service("dns", VIP, 53, UDP, mode, Scheduler.RR, found)])


def server_mac(net: Net, mac: str | None = None) -> bytes:
    if mac:
        net.server.ip(f"link set s0 address {mac}")
    return ethernet.parse_mac(mac_of(net.server, "s0"))


def test_a_backend_is_resolved_and_followed_when_its_mac_changes(net: Net) -> None:
    hops, neighbours = watch(net, ("b1", SERVER))
    index = neighbours.next_hop(socket.inet_aton(SERVER))
    assert (hops.arms[index], hops.macs[index]) == (1, None)
    with contextlib.closing(neighbours):
        neighbours.start()
        assert neighbours.wait_resolved(DEADLINE) == []
        assert hops.macs[index] == server_mac(net)
        assert neighbours.owners() == {server_mac(net): "b1"}
        moved = server_mac(net, "02:00:00:00:00:77")
        net.server.run(["ping", "-c", "1", "-W", "5", GATEWAY])
        until(lambda: hops.macs[index] == moved)
        net.balancer.ip("link set b1 down")
        until(lambda: hops.macs[index] is None)
        net.balancer.ip("link set b1 up")
        until(lambda: hops.macs[index] == moved)
        entry = json.loads(net.balancer.run(["ip", "-d", "-j", "neigh", "show", SERVER]).stdout)[0]
        assert not {"managed", "extern_learn", "PERMANENT"} & {*entry, *entry["state"]}, "it would outlive us"
    neighbours.close()


def test_a_tunnels_neighbour_is_none_of_ours(net: Net) -> None:
    """It has an IP address where an Ethernet neighbour has a MAC."""
    hops, neighbours = watch(net, ("b1", SERVER))
    with contextlib.closing(neighbours), net.balancer.enter(), open("/dev/net/tun", "r+b", 0) as tun:
        fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH14x", b"tunnel", IFF_TUN | IFF_NO_PI))
        fcntl.ioctl(tun, TUNSETLINK, ARPHRD_TUNNEL)
        net.balancer.ip("link set tunnel up")
        neighbours.start()
        assert neighbours.wait_resolved(DEADLINE) == []
        net.balancer.ip("neigh add 10.9.9.9 lladdr 192.0.2.1 dev tunnel")
        moved = server_mac(net, "02:00:00:00:00:77")
        net.server.run(["ping", "-c", "1", "-W", "5", GATEWAY])
        until(lambda: moved in hops.macs)
        neighbours.check()


def test_what_ends_the_thread_is_not_lost(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: NeighbourSocket) -> list[object]:
        raise RuntimeError("not expected")

    monkeypatch.setattr(NeighbourSocket, "read", broken)
    _, neighbours = watch(net, ("b1", SERVER))
    with contextlib.closing(neighbours):
        neighbours.start()
        assert neighbours.wait_resolved(0.0) == ["b1"]
        with pytest.raises(RuntimeError, match="not expected"):
            until(neighbours.check)


def test_one_that_is_in_the_table_already_is_known_without_a_change(net: Net) -> None:
    net.balancer.run(["ping", "-c", "1", "-W", "5", SERVER])
    hops, neighbours = watch(net, ("b1", SERVER))
    with contextlib.closing(neighbours):
        neighbours.start()
        assert neighbours.wait_resolved(DEADLINE) == []
        assert server_mac(net) in hops.macs


def test_a_backend_that_falls_silent_is_unknown_and_comes_back(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours_module, "_FRESH_S", 0.05)
    monkeypatch.setattr(neighbours_module, "_AGAIN_S", 0.05)
    table = "net.ipv4.neigh.b1."
    net.balancer.sysctls({f"{table}base_reachable_time_ms": 50, f"{table}retrans_time_ms": 20})
    net.balancer.sysctl(f"{table}delay_first_probe_time", 0)
    hops, neighbours = watch(net, ("b1", SERVER))
    index = neighbours.next_hop(socket.inet_aton(SERVER))
    with contextlib.closing(neighbours):
        neighbours.start()
        assert neighbours.wait_resolved(DEADLINE) == []
        net.server.ip("link set s0 arp off")
        until(lambda: hops.macs[index] is None)
        net.server.ip("link set s0 arp on")
        until(lambda: hops.macs[index] == server_mac(net))


def test_unresolved_backends_are_named_and_gateways_are_shared(net: Net) -> None:
    net.balancer.ip("route add 10.3.0.0/24 via 10.2.0.1")
    hops, neighbours = watch(net, ("near", SERVER), ("far", "10.3.0.1"), ("absent", "10.2.0.9"))
    near, far = (neighbours.next_hop(socket.inet_aton(address)) for address in (SERVER, "10.3.0.1"))
    assert near == far
    with contextlib.closing(neighbours):
        neighbours.start()
        until(lambda: neighbours.wait_resolved(0.0) == ["absent"])
        assert neighbours.wait_resolved(0.05) == ["absent"]
        assert neighbours.owners() == {server_mac(net): "near, far"}
        assert hops.macs[near] == server_mac(net)


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("10.1.0.7", "backend b9 is reached through b0, not through b1"),
        ("192.0.2.1", "no route to backend b9"),
        ("198.51.100.1", "no route to backend b9"),
        ("10.2.0.2", "backend b9 has an address of this host"),
        ("10.2.0.255", "backend b9 has a broadcast address"),
    ],
)
def test_a_backend_that_the_backend_arm_does_not_reach_is_refused(net: Net, address: str, what: str) -> None:
    net.balancer.ip("route add unreachable 198.51.100.0/24")
    with pytest.raises(L4Error, match=what) as caught:
        watch(net, ("b9", address))
    assert (caught.value.code, caught.value.exit_code) == ("L4R-305", 5)
    assert address in str(caught.value.where)


def test_a_dsr_backend_must_be_on_the_link(net: Net) -> None:
    net.balancer.ip("route add 10.3.0.0/24 via 10.2.0.1")
    watch(net, ("near", SERVER), mode=Mode.DSR_L2)
    with pytest.raises(L4Error, match=r"backend far is behind the router 10\.2\.0\.1") as caught:
        watch(net, ("near", SERVER), ("far", "10.3.0.1"), mode=Mode.DSR_L2)
    assert (caught.value.code, caught.value.exit_code) == ("L4R-305", 5)
    assert "MAC" in caught.value.why


# Interfaces, locks, SSH.


def test_facts_about_interfaces(net: Net) -> None:
    first = net.arms[0]
    text = net.balancer.run(["ip", "-j", "link", "show", "dev", "b0"]).stdout
    expected = json.loads(text)[0]
    assert (first.index, first.mac.hex(":"), first.mtu) == (
        expected["ifindex"], expected["address"], expected["mtu"]
    )  # fmt: skip
    assert first.addresses == ((socket.inet_aton("10.1.0.2"), 24),)
    net.balancer.ip("link set b1 down")
    with Netlink() as netlink:
        assert netlink.local_addresses()[socket.inet_aton(GATEWAY)] == "b1"
        require_up(first)
        for name, code in {"nope": "L4R-302", "lo": "L4R-306", "b1": "L4R-303"}.items():
            with pytest.raises(L4Error, match=name) as caught:
                require_up(netlink.interfaces([name])[0])
            assert (caught.value.code, caught.value.exit_code) == (code, 5)


def test_the_same_interface_in_two_namespaces_is_not_the_same(net: Net, tmp_path: Path) -> None:
    here = default_name("b0")
    assert here.startswith("b0@")
    first, second = Instance(here, tmp_path / "run"), Instance("second", tmp_path / "run")
    first.acquire(net.arms)
    with pytest.raises(L4Error, match=f"instance {here}") as caught:
        second.acquire(net.arms[1:])
    assert (caught.value.code, caught.value.where) == ("L4R-204", "b1")
    with net.client.enter():
        assert default_name("b0") != here
        second.acquire(net.arms)
        second.release()
    first.release()
    assert not (tmp_path / "run").exists()


def test_ssh_connections_of_an_interface(net: Net) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("0.0.0.0", 22)))
        with net.client.enter():
            client = stack.enter_context(socket.socket())
        client.connect(("10.1.0.2", 22))
        stack.enter_context(server.accept()[0])
        assert established_ssh("b0") == [CLIENT]
        assert established_ssh("b1") == []
        with net.client.enter():
            assert established_ssh("c0") == [], "an outgoing connection is no way back in"
