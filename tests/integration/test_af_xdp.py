"""The AF_XDP engine on a host that others use too: what is not its own passes, and nothing of it stays.

That it forwards right is in test_traffic.py, beside the raw engine.
"""

from __future__ import annotations

import gc
import socket
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from l4raw.netns import Host, Log, Topology, nat
from l4raw.netns.clients import curl, many_requests
from l4raw.netns.servers import web

from l4raw.core.hashing import hash_key
from l4raw.core.tables import Arm
from l4raw.engine.afxdp import AfXdpEngine
from l4raw.engine.layout import Sizes
from l4raw.xdp import PassToSocket, XdpLink
from tests.integration.networks import nat_with_web
from tests.integration.running import running
from tests.integration.snapshot import difference
from tests.integration.starting import Place, Up, l4raw, run
from tests.integration.xdp_lab import cable

pytestmark = [pytest.mark.root, pytest.mark.xdp]

ROUNDS = 50


@pytest.fixture
def network() -> Iterator[Topology]:
    with nat_with_web() as made:
        yield made


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def config(network: Topology, place: Place, dataplane: str = "af_xdp") -> Path:
    return place.config(network.config_toml(dataplane=dataplane, lb={"ring_seed": "a"}))


@contextmanager
def conversation(client: Host, server: Host) -> Iterator[Callable[[str], str]]:
    """A TCP connection to a host's own address; what is asked comes back by way of the server."""
    with ExitStack() as stack:
        with server.enter():
            listener = stack.enter_context(socket.create_server(("", 2200)))
        with client.enter():
            ours = stack.enter_context(socket.create_connection((server.address, 2200), 5))
        theirs = stack.enter_context(listener.accept()[0])
        ours.settimeout(5)
        theirs.settimeout(5)

        def ask(text: str) -> str:
            ours.sendall(text.encode())
            theirs.sendall(theirs.recv(1000))
            return ours.recv(1000).decode()

        yield ask


def attached(host: Host) -> int:
    """How many interfaces have an XDP program."""
    return host.run(["ip", "-d", "link"]).stdout.count("prog/xdp")


def someone_elses(host: Host, interface: str) -> tuple[PassToSocket, XdpLink]:
    """A program that is not the balancer's, held by this test."""
    program = PassToSocket()
    with host.enter():
        return program, program.attach(interface)


@pytest.mark.parametrize("arms", [1, 2])
def test_what_is_not_the_balancers_passes_to_the_kernel(arms: int) -> None:
    """Ping, ARP, TCP to the balancer's own address, and its own TCP to a backend's service port.

    One of these connections stays open all the time, as SSH does, and talks both ways again and again.
    """
    with nat(arms, log=Log(silent=True)) as network, ExitStack() as stack:
        for backend in network.backends:
            stack.enter_context(web(backend))
        balancer, backend = network.balancer, network.backends[0]
        stack.enter_context(web(balancer, 2222))
        ask = stack.enter_context(conversation(network.client, balancer))
        with running(network, network.config_toml(dataplane="af_xdp")) as up:
            network.client.ip("neigh flush dev eth0")
            for number in range(3):
                assert ask(f"question {number}") == f"question {number}"
                network.client.run(["ping", "-c", "1", "-W", "5", balancer.address])
                assert curl(network.client, f"http://{balancer.address}:2222/") == balancer.name
                assert curl(balancer, f"http://{backend.address}/") == backend.name
                assert many_requests(network.client, f"http://{network.vip}/", 10).total() == 10
        assert ask("afterwards") == "afterwards"
    assert up.counters["engine"]["passed"] == 0
    assert up.counters["engine"]["received"] == up.verdict("forward") + up.verdict("reply")


def test_after_kill_9_nothing_is_attached_and_the_next_one_works_at_once(
    network: Topology, place: Place
) -> None:
    before = place.look(network.balancer)
    for _ in range(ROUNDS):
        up = Up(network.balancer, place, "-c", config(network, place)).wait_ready()
        assert attached(network.balancer) == 2
        assert many_requests(network.client, f"http://{network.vip}/", 3).total() == 3
        up.kill()
        assert attached(network.balancer) == 0
    run(network.balancer, place, "down")
    assert "links" not in difference(before, place.look(network.balancer))


def test_another_program_on_the_interface_is_refused_and_untouched(network: Topology, place: Place) -> None:
    program, link = someone_elses(network.balancer, "eth1")
    with program, link:
        before = network.balancer.run(["ip", "-d", "-j", "link"]).stdout
        done = run(network.balancer, place, "up", "-c", config(network, place))
        assert done.returncode == 4
        error = next(line for line in done.stderr.splitlines() if line.startswith("error"))
        assert error.startswith("error L4R-205: ") and "is attached already and was left as it is" in error
        assert network.balancer.run(["ip", "-d", "-j", "link"]).stdout == before

        auto = Up(network.balancer, place, "-c", config(network, place, "auto")).wait_ready()
        assert "dataplane: raw; not af_xdp: " in auto.err and "is attached already" in auto.err
        assert many_requests(network.client, f"http://{network.vip}/", 10).total() == 10
        auto.stop()
        assert network.balancer.run(["ip", "-d", "-j", "link"]).stdout == before


def test_an_mtu_above_the_chunk_is_refused_with_the_numbers(network: Topology, place: Place) -> None:
    network.balancer.ip("link set eth1 mtu 3000")
    done = run(network.balancer, place, "up", "-c", config(network, place))
    assert done.returncode == 5
    assert "L4R-304" in done.stderr and "an MTU of 3000; AF_XDP takes up to 1774 here" in done.stderr
    auto = Up(network.balancer, place, "-c", config(network, place, "auto")).wait_ready()
    assert "not af_xdp: an MTU of 3000" in auto.err
    auto.stop()


def test_a_host_with_many_addresses(network: Topology, place: Place) -> None:
    network.balancer.ip(*(f"addr add 10.99.{n // 250}.{n % 250}/32 dev lo" for n in range(600)))
    Up(network.balancer, place, "-c", config(network, place)).wait_ready().stop()


def test_another_number_of_queues_is_refused_with_the_numbers(place: Place) -> None:
    with nat(queues=2, log=Log(silent=True)) as network:
        network.balancer.run(["ethtool", "-L", "eth1", "rx", "1", "tx", "1"])
        done = run(network.balancer, place, "up", "-c", config(network, place))
        assert done.returncode == 5
        assert "L4R-304" in done.stderr and "RX queues: 2 on eth0 and 1 on eth1" in done.stderr, done.stderr
        assert "rx 1 tx 1" in done.stderr
        network.balancer.run(["ethtool", "-L", "eth1", "rx", "2", "tx", "2"])
        Up(network.balancer, place, "-c", config(network, place)).wait_ready().stop()


def test_an_engine_that_nobody_holds_any_more_keeps_its_memory_while_it_runs() -> None:
    with cable() as (_, end), end.enter():
        arm = Arm("eth0", bytes.fromhex("020000009902"))
        engine = AfXdpEngine([arm], hash_key(b"any"), Sizes(1 << 20)).open()
        assert not list(engine.poll(0))
        found = weakref.ref(engine)
        del engine
        gc.collect()
        again = found()
        assert again is not None, "its thread still reads rings and tables that are free now"
        again.close()
        del again
        gc.collect()
        assert found() is None


@pytest.mark.parametrize(
    ("before", "word"),
    [
        (["setpriv", "--bounding-set=-bpf,-sys_admin"], "CAP_BPF"),
        (["setpriv", "--bounding-set=-net_admin,-sys_admin"], "CAP_NET_ADMIN"),
        (["setpriv", "--bounding-set=-perfmon,-sys_admin"], "CAP_PERFMON is missing"),
        (["setpriv", "--bounding-set=-ipc_lock", "prlimit", "--memlock=1048576"], "ulimit -l"),
    ],
    ids=["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON", "memlock"],
)
def test_what_is_missing_is_named(network: Topology, place: Place, before: list[str], word: str) -> None:
    environment = [f"{key}={value}" for key, value in place.environment().items()]
    command = l4raw("up", "-c", config(network, place))[1:]
    done = network.balancer.run([*before, "env", *environment, *command], check=False)
    assert done.returncode == 5, done.stderr
    assert word in done.stderr, done.stderr
    assert attached(network.balancer) == 0


def test_the_first_frames_can_be_seen(network: Topology, place: Place) -> None:
    up = Up(network.balancer, place, "-c", config(network, place), "--trace", "2").wait_ready()
    # Come first, and are not forwarded.
    network.client.run(["bash", "-c", f"for i in 1 2 3; do echo > /dev/udp/{network.vip}/9; done"])
    assert many_requests(network.client, f"http://{network.vip}/", 10).total() == 10
    up.wait_for(lambda: up.out.count("verdict: ") >= 2, "two decisions")
    up.stop()
    assert up.out.count("verdict: ") == 2
