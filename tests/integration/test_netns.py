"""The test networks themselves, without a balancer in them.

Each is what its picture says: who reaches whom, who answers for the VIP. Each
is gone afterwards, also after kill -9. Nothing here tests l4raw.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest
from l4raw.netns import CommandError, Host, Log, Topology, dsr, nat
from l4raw.netns.clients import curl
from l4raw.netns.servers import python_web
from l4raw.netns.topology import VIPS

pytestmark = pytest.mark.root

NETWORKS = [(dsr, 1), (dsr, 2), (nat, 1), (nat, 2)]
each_network = pytest.mark.parametrize(
    ("build", "arms"), NETWORKS, ids=[f"{build.__name__}-{arms}" for build, arms in NETWORKS]
)
both_arms = pytest.mark.parametrize("arms", [1, 2])

Build = Callable[..., AbstractContextManager[Topology]]

DEADLINE = 10.0
ETH_P_ARP = 0x0806
ARP_REPLY = 2
ARP = struct.Struct("!HHBBH6s4s6s4s")
"""RFC 826: hardware, protocol, their lengths, operation, sender's two addresses, target's two."""

DEAF = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
signal.pause()
"""

BUILDER = """
import sys
from l4raw.netns import dsr, nat
from l4raw.netns.servers import python_web
build, arms = {"dsr": dsr, "nat": nat}[sys.argv[1]], int(sys.argv[2])
with build(arms) as network, python_web(network.backends[0]) as server:
    print(server.folder, *(host.inode for host in network.hosts), flush=True)
    sys.stdin.read()
"""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Return once the condition holds; fail after DEADLINE."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE:g} s: {what}"
        time.sleep(0.01)


def residents(inodes: set[int]) -> dict[int, str]:
    """Who is in these network namespaces: process id to start time, which tells two users of an id apart."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended while we looked, or is a zombie
            if (process / "ns/net").stat().st_ino in inodes:
                found[int(process.name)] = stat(process)["start"]
    return found


def stat(process: Path) -> dict[str, str]:
    """Some fields of /proc/PID/stat (proc(5)): state, parent, start time."""
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return {"state": fields[0], "parent": fields[1], "start": fields[19]}


def alive(processes: dict[int, str]) -> set[int]:
    """Those of residents() that still run. With the last, the namespace goes, and its number is free."""
    found = set()
    for pid, started in processes.items():
        with suppress(OSError):
            now = stat(Path("/proc", str(pid)))
            # A zombie holds nothing; when it is collected is up to the machine's first process.
            if now["start"] == started and now["state"] != "Z":
                found.add(pid)
    return found


def children() -> set[int]:
    """Process ids of this process's children."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if stat(process)["parent"] == str(os.getpid()):
                found.add(int(process.name))
    return found


def arp_answers(asker: Host, addresses: list[str]) -> dict[str, set[str]]:
    """Who answers ARP (RFC 826) for each address: MACs.

    Asks in order and ends at the answer for the last, which someone must own:
    every host of the segment has seen the other requests by then.
    """
    with asker.enter():
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ARP))
        wire.bind(("eth0", ETH_P_ARP))
    mac = bytes.fromhex(asker.mac.replace(":", ""))
    answers: dict[str, set[str]] = {address: set() for address in addresses}
    with wire:
        wire.settimeout(DEADLINE)
        for address in addresses:
            ethernet = b"\xff" * 6 + mac + struct.pack("!H", ETH_P_ARP)
            asked = (bytes(6), socket.inet_aton(address))
            wire.send(ethernet + ARP.pack(1, 0x0800, 6, 4, 1, mac, socket.inet_aton(asker.address), *asked))
        while not answers[addresses[-1]]:
            *_, operation, source, owner, _, _ = ARP.unpack_from(wire.recv(2048), len(ethernet))
            if operation == ARP_REPLY:
                answers[socket.inet_ntoa(owner)].add(source.hex(":"))
    return answers


def answers_ping(host: Host, address: str) -> bool:
    """Whether one echo request is answered within a second."""
    return host.run(["ping", "-c1", "-W1", address], check=False).returncode == 0


@each_network
def test_it_is_built_in_less_than_a_second(build: Build, arms: int) -> None:
    """Other jobs may have the CPUs: in one of five times."""
    taken: list[float] = []
    while not taken or (min(taken) >= 1 and len(taken) < 5):
        with build(arms) as network:
            taken.append(network.build_seconds)
    assert min(taken) < 1, taken


@each_network
def test_addresses_and_macs_are_those_of_the_picture(build: Build, arms: int) -> None:
    with build(arms) as network:
        assert network.arms == arms
        assert [host.name for host in network.backends] == ["b1", "b2", "b3"]
        for host in network.hosts[1:]:
            shown = {link["ifname"]: link for link in json.loads(host.run(["ip", "-j", "addr"]).stdout)}
            for link in host.links:
                found = shown[link.interface]
                assert found["address"] == link.mac
                assert found["operstate"] == "UP"
                inets = [f"{a['local']}/{a['prefixlen']}" for a in found["addr_info"]]
                assert inets == list(link.addresses)  # and no IPv6 among them
        assert [link.interface for link in network.balancer.links] == network.interfaces
        assert network.balancer.mac == "02:00:00:00:00:02"


@each_network
def test_offloads_are_at_the_defaults_of_veth(build: Build, arms: int) -> None:
    with Host("plain", Log(silent=True)) as plain, build(arms) as network:
        plain.ip("link add eth0 type veth peer name eth1")
        expected = plain.run(["ethtool", "-k", "eth0"]).stdout
        for host in network.hosts[1:]:
            for link in host.links:
                found = host.run(["ethtool", "-k", link.interface]).stdout
                assert found == expected.replace("eth0", link.interface)


@both_arms
def test_dsr_client_reaches_everyone_and_nobody_answers_for_the_vip(arms: int) -> None:
    with dsr(arms) as network:
        for host in [network.balancer, *network.backends]:
            assert answers_ping(network.client, host.address), host
        b1, _, b3 = network.backends
        for asker, neighbour in [(network.client, network.balancer), (b1, b3)]:
            answers = arp_answers(asker, [network.vip, neighbour.address])
            assert answers == {network.vip: set(), neighbour.address: {neighbour.mac}}
        for backend in network.backends:
            assert answers_ping(backend, network.vip)  # its own, on lo


def test_dsr_without_arp_ignore_every_backend_would_answer() -> None:
    """The counter-check of the test above: it sees an answer where there is one."""
    with dsr(1) as network:
        network.backends[1].sysctl("net.ipv4.conf.all.arp_ignore", 0)
        answers = arp_answers(network.client, [network.vip, "10.77.0.13"])
        assert answers[network.vip] == {"02:00:00:00:00:12"}


def test_dsr_two_arm_replies_pass_the_router() -> None:
    """What is for the VIP and reaches b2 is answered in the VIP's name, and only through the router."""
    with dsr(2) as network, python_web(network.backends[1]):
        assert network.router is not None
        # In the balancer's place: its kernel routes what is for the VIP to b2.
        network.balancer.sysctl("net.ipv4.ip_forward", 1)
        network.balancer.ip(f"route add {network.vip}/32 via {network.backends[1].address}")
        network.client.ip(f"route add {network.vip}/32 via {network.balancer.address}")
        assert curl(network.client, f"http://{network.vip}/") == "b2"
        network.router.sysctl("net.ipv4.ip_forward", 0)
        with pytest.raises(CommandError, match="exit code 28"):
            curl(network.client, f"http://{network.vip}/", timeout=0.5)


@both_arms
def test_nat_backends_get_out_through_the_balancer_only(arms: int) -> None:
    with nat(arms) as network:
        answers = arp_answers(network.client, [network.vip, "10.77.0.2"])
        assert answers == {network.vip: set(), "10.77.0.2": {"02:00:00:00:00:02"}}
        network.client.ip("route add 10.78.0.0/24 via 10.77.0.2")  # so that the echo could come back
        for backend in network.backends:
            assert answers_ping(backend, "10.78.0.2")
            assert "via 10.78.0.2" in backend.run(["ip", "route", "get", network.client.address]).stdout
        assert not answers_ping(network.backends[0], network.client.address)
        network.balancer.sysctl("net.ipv4.ip_forward", 1)
        assert answers_ping(network.backends[0], network.client.address)


@each_network
def test_ip_forward_is_the_balancers_alone(build: Build, arms: int) -> None:
    for wanted in (False, True):
        with build(arms, ip_forward=wanted) as network:
            ask = ["cat", "/proc/sys/net/ipv4/ip_forward"]
            on = {host.name for host in network.hosts if host.run(ask).stdout == "1\n"}
            assert on - {"router"} == ({"balancer"} if wanted else set())
            assert ("router" in on) == (network.router is not None)


@each_network
def test_all_is_gone_afterwards(build: Build, arms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("l4raw.netns.host.GRACE", 0.2)
    with pytest.raises(KeyError), build(arms) as network:
        inodes = {host.inode for host in network.hosts}
        assert len(inodes) == len(network.hosts)
        child = network.client.popen(["sleep", "1000"])
        deaf = network.backends[0].popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE)
        assert deaf.stdout is not None
        assert deaf.stdout.readline() == "ready\n"
        processes = residents(inodes)
        assert len(processes) == len(network.hosts) + 2  # the holders and these
        raise KeyError("whatever happens")
    assert child.returncode == -signal.SIGTERM
    assert deaf.returncode == -signal.SIGKILL
    assert alive(processes) == set()


def test_half_a_network_is_taken_down(monkeypatch: pytest.MonkeyPatch) -> None:
    before = children()
    with pytest.raises(ValueError, match="arms = 3"), dsr(3):
        pass
    with pytest.raises(ValueError, match="81 backends"), nat(backends=81):
        pass
    monkeypatch.setitem(VIPS, 4, "nonsense")
    with pytest.raises(CommandError, match=r"b1# ip addr add nonsense dev lo: .*nonsense"), dsr(1):
        pass
    assert children() == before


@each_network
def test_kill_9_of_the_builder_leaves_nothing(build: Build, arms: int) -> None:
    # A namespace takes the place of the machine, so that what others do there meanwhile is not seen.
    with Host("machine", Log(silent=True)) as machine:
        before = machine.run(["ip", "-j", "link"]).stdout
        # -P and our own path: the builder imports the l4raw that is tested here, whatever the current folder.
        argv = [sys.executable, "-P", "-c", BUILDER, build.__name__, str(arms)]
        path = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        builder = machine.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=path)
        assert builder.stdout is not None
        folder, *numbers = builder.stdout.readline().split()
        inodes = {int(number) for number in numbers}
        processes = residents(inodes)
        assert len(processes) == len(inodes) + 1 > 1  # the holders and the web server
        assert Path(folder).is_dir()
        assert machine.run(["ip", "-j", "link"]).stdout == before
        os.kill(builder.pid, signal.SIGKILL)
        builder.wait()
        wait_for(lambda: not alive(processes), "the namespaces' processes end")
        wait_for(lambda: not Path(folder).exists(), "the server's folder goes")
        assert machine.run(["ip", "-j", "link"]).stdout == before


@each_network
def test_config_text_is_toml_that_names_the_network(build: Build, arms: int) -> None:
    with build(arms) as network:
        text = network.config_toml(
            "80/tcp", "0/udp", scheduler="rr", backend_port=8080, weights=(1, 2, 3), lb={"ring_seed": 'a"b'}
        )
        read = tomllib.loads(text)
        assert read["lb"] == {"interfaces": network.interfaces, "dataplane": "raw", "ring_seed": 'a"b'}
        web, every = read["service"]
        assert web["vip"] == "10.77.0.100:80/tcp"
        assert every["vip"] == "10.77.0.100:0/udp"
        assert web["mode"] == network.mode
        assert web["scheduler"] == "rr"
        assert web["backends"][2] == {
            "name": "b3",
            "address": network.backends[2].address,
            "port": 8080,
            "weight": 3,
        }
        assert tomllib.loads(network.config_toml())["service"][0]["backends"][0] == {
            "name": "b1",
            "address": network.backends[0].address,
        }
