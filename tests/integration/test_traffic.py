"""Real traffic through every engine: each mode, one-arm and two-arm, offloads as veth has them.

nginx, dnsmasq and iperf3 are the servers, `l4raw up` runs as it would for a
user. Nothing here knows how it decides; see tests/vectors for that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from l4raw.netns import NO_CHECK, CommandError, Host, Log, Topology, dsr, nat
from l4raw.netns.clients import curl, dns_lookup, download, iperf3, make_file, many_requests, sha256, upload
from l4raw.netns.servers import Server, dnsmasq, iperf3_server, nginx

from tests.cells import halved
from tests.integration.capture import Capture, capturing, checksums_are_right, wait_until_quiet
from tests.integration.running import Running, running

pytestmark = pytest.mark.root

Build = Callable[..., AbstractContextManager[Topology]]
Serve = Callable[[Host], AbstractContextManager[Server]]

PLANES = (("raw", 1), ("af_xdp", 1), ("af_xdp", 2))
"""Dataplane, and queues of the balancer's interfaces. The raw engine does not see queues."""


def _cell(mode: Any, arms: int, plane: tuple[str, int], marks: Any) -> Any:
    dataplane, queues = plane
    name = f"{mode.__name__}-{arms}-arm-{dataplane}{f'-{queues}-queues' * (queues > 1)}"
    return pytest.param(partial(mode, queues=queues), arms, dataplane, marks=marks, id=name)


each_cell = pytest.mark.parametrize(
    ("build", "arms", "dataplane"), halved((dsr, nat), (1, 2), PLANES, make=_cell)
)

MB = 1_000_000
BIG = 100 * MB
REQUESTS = 200
QUERIES, RATE, SOURCES = 10_000, 1_000, 100
TURNED_ON = ("tx-checksumming", "tcp-segmentation-offload", "generic-segmentation-offload")


@contextmanager
def network_with(serve: Serve, build: Build, arms: int, backends: int = 3) -> Iterator[Topology]:
    """A network with a server on each backend. No host may see a wrong checksum in it."""
    with build(arms, backends, log=Log(silent=True)) as network, ExitStack() as stack:
        for backend in network.backends:
            stack.enter_context(serve(backend))
        before = network.counters()
        assert len(before) >= 3 * len(network.hosts)
        yield network
        assert network.counters() == before


def require_default_offloads(network: Topology) -> None:
    """Veth's defaults: senders leave checksums and segmentation to the card."""
    for host in (network.client, network.balancer, *network.backends):
        for link in host.links:
            settings = host.run(["ethtool", "-k", link.interface]).stdout
            for feature in TURNED_ON:
                assert re.search(rf"^{feature}: on$", settings, re.MULTILINE), (host, link, feature)


@each_cell
def test_100_mb_arrive_unharmed_in_both_directions(
    build: Build, arms: int, dataplane: str, record_property: Callable[[str, object], None]
) -> None:
    with build(arms, log=Log(silent=True)) as network, ExitStack() as stack:
        servers = [stack.enter_context(nginx(backend)) for backend in network.backends]
        require_default_offloads(network)
        digest = make_file(servers[0].files / "big", BIG)
        for server in servers[1:]:
            (server.files / "big").hardlink_to(servers[0].files / "big")
        # The two connections of an iperf3 must reach the same server.
        one = replace(network, backends=network.backends[:1])
        single = one.config_toml("5201/tcp", check=NO_CHECK)
        toml = network.config_toml(dataplane=dataplane) + single[single.index("[[service]]") :]
        before = network.counters()
        with running(network, toml) as balancer:
            got = download(network.client, f"http://{network.vip}/files/big")
            assert (got.sha256, got.size) == (digest, BIG)
            upload(network.client, f"http://{network.vip}/upload/copy", servers[0].files / "big")
            with iperf3_server(network.backends[0]):
                there = iperf3(network.client, network.vip, 1)
            with iperf3_server(network.backends[0]):
                back = iperf3(network.client, network.vip, 1, reverse=True)
        copies = [file for server in servers for file in server.uploads.iterdir()]
        assert [sha256(file) for file in copies] == [digest]
        assert network.counters() == before
        cell = f"{network.mode} {arms}-arm over {dataplane}"
        rates = f"iperf3 {there / 1e9:.2f} Gbit/s to the VIP, {back / 1e9:.2f} Gbit/s from it"
        record_property("figure", f"{cell}: {rates}; {balancer.lost} frames lost")
        assert balancer.verdict("forward") > BIG / 65536


@each_cell
def test_10000_dns_queries_lose_none(build: Build, arms: int, dataplane: str) -> None:
    with network_with(dnsmasq, build, arms) as network:
        require_default_offloads(network)
        questions = "".join(f"host{number}.test A\n" for number in range(QUERIES))
        with running(network, network.config_toml("53/udp", dataplane=dataplane)) as balancer:
            argv = ["dnsperf", "-s", network.vip, "-n", "1", "-Q", str(RATE), "-c", str(SOURCES)]
            said = network.client.run(argv, input=questions).stdout
            wait_until_quiet(network)
        print(said)
        assert re.search(rf"Queries sent: +{QUERIES}$", said, re.MULTILINE)
        assert re.search(rf"Queries completed: +{QUERIES} \(100.00%\)$", said, re.MULTILINE)
        assert re.search(r"Queries lost: +0 \(0.00%\)$", said, re.MULTILINE)
        assert re.search(rf"Response codes: +NOERROR {QUERIES} \(100.00%\)$", said, re.MULTILINE)
        rate = re.search(r"Queries per second: +([0-9.]+)", said)
        assert rate
        assert float(rate[1]) > 0.95 * RATE
        assert balancer.verdict("forward") == QUERIES
        assert balancer.verdict("reply") == (QUERIES if network.mode == "nat" else 0)
        assert balancer.lost == 0
        flows = balancer.backends()
        assert sum(flows.values()) == SOURCES
        assert min(flows.values()) > SOURCES / 10
        assert min(balancer.backends("rx_packets").values()) > QUERIES / 10
        assert_every_queue_worked(network, balancer, frames=(QUERIES + balancer.verdict("reply")) / 10)


@each_cell
def test_counters_equal_the_frames_at_the_client(build: Build, arms: int, dataplane: str) -> None:
    with network_with(nginx, build, arms) as network:
        with capturing(network.client) as seen:
            with running(network, network.config_toml(dataplane=dataplane)) as balancer:
                answers = many_requests(network.client, f"http://{network.vip}/", REQUESTS)
                wait_until_quiet(network)
        assert answers.keys() == {"b1", "b2", "b3"}
        assert answers.total() == REQUESTS
        there = seen.between(network.client.address, network.vip)
        back = seen.between(network.vip, network.client.address)
        assert len(there) + len(back) == len(seen.frames), "nobody else talks to the client"
        assert min(len(there), len(back)) >= 4 * REQUESTS
        assert balancer.verdict("forward") == len(there)
        assert balancer.verdict("reply") == (len(back) if network.mode == "nat" else 0)
        assert balancer.lost == 0
        assert balancer.backends() == answers
        assert sum(balancer.backends("rx_packets").values()) == len(there)
        # A frame in a capture has no FCS, nor does the balancer count it.
        assert sum(balancer.backends("rx_bytes").values()) == sum(map(len, there))
        assert {packet.dst for packet in there} == {network.balancer.mac}
        assert {packet.src for packet in back} == senders_of_replies(network)
        assert_every_queue_worked(network, balancer, frames=len(there) / 10)


def assert_every_queue_worked(network: Topology, balancer: Running, frames: float) -> None:
    """Each received and sent at least so many, which were steered in C. Their sum is all there were."""
    if balancer.dataplane != "af_xdp":
        return
    engine = balancer.counters["engine"]
    assert len(engine["queues"]) == network.queues
    for name in ("received", "sent"):
        counts = [queue[name] for queue in engine["queues"]]
        assert min(counts) >= frames, counts
        assert sum(counts) == engine[name] == balancer.verdict("forward") + balancer.verdict("reply")


def senders_of_replies(network: Topology) -> set[str]:
    """MAC addresses from which the client gets its answers. DSR: never the balancer's."""
    if network.mode == "nat":
        return {network.balancer.mac}
    return {network.router.mac} if network.router else {backend.mac for backend in network.backends}


@pytest.mark.parametrize("without", ["ends", "balancer"])
@each_cell
def test_every_frame_has_right_checksums_where_no_card_helps(
    build: Build, arms: int, dataplane: str, without: str
) -> None:
    """With offloads on, sums are left unfinished, and no receiver on this machine ever looks at them.

    "ends": the senders finish them, so all that arrives must be right. "balancer":
    they don't, so its kernel must, from what the balancer has made of them; and cut super-frames.
    """
    with build(arms, log=Log(silent=True)) as network, ExitStack() as stack:
        servers = [stack.enter_context(nginx(backend)) for backend in network.backends]
        for backend in network.backends:
            stack.enter_context(dnsmasq(backend))
        ends = [network.client, *network.backends]
        for host in ends if without == "ends" else [network.balancer]:
            for link in host.links:
                host.run(["ethtool", "-K", link.interface, "tx", "off"])
        size = MB // 2
        digest = make_file(servers[0].files / "half", size)
        for server in servers[1:]:
            (server.files / "half").hardlink_to(servers[0].files / "half")
        before = network.counters()
        with ExitStack() as taps:
            captures = [taps.enter_context(capturing(host)) for host in ends]
            toml = network.config_toml("80/tcp", "53/udp", dataplane=dataplane, check=NO_CHECK)
            with running(network, toml) as balancer:
                assert download(network.client, f"http://{network.vip}/files/half").sha256 == digest
                upload(network.client, f"http://{network.vip}/upload/copy", servers[0].files / "half")
                many_requests(network.client, f"http://{network.vip}/", 50)
                for number in range(50):
                    assert dns_lookup(network.client, network.vip, f"n{number}.test").startswith("192.0.2.")
                wait_until_quiet(network)
        assert network.counters() == before
        to_client, *to_backends = (seen.received() for seen in captures)
        assert_addressed_to_backends(network, captures[1:])
        # A super-frame counts once before it is cut, several times after. Native XDP has it cut before.
        arrived, forwarded = sum(map(len, to_backends)), balancer.verdict("forward")
        cut_after = without == "balancer" and dataplane == "raw"
        assert arrived > forwarded if cut_after else arrived == forwarded
        assert arrived > size / 1500
        if network.mode == "nat" or without == "ends":
            assert len(to_client) > size / 1500
            to_backends.append(to_client)
        packets = [packet for received in to_backends for packet in received]
        assert max(map(len, packets)) <= 1514
        wrong = [packet for packet in packets if not checksums_are_right(packet)]
        assert not wrong, f"{len(wrong)} of {len(packets)} frames, the first: {wrong[0].show(dump=True)}"


def assert_addressed_to_backends(network: Topology, captures: list[Capture]) -> None:
    """DSR leaves the VIP as the destination, NAT writes the backend's address."""
    for backend, seen in zip(network.backends, captures, strict=True):
        address = network.vip if network.mode == "dsr-l2" else backend.address
        assert len(seen.between(network.client.address, address)) == len(seen.received()) > 0


@pytest.mark.parametrize("dataplane", ["raw", "af_xdp"])
@pytest.mark.parametrize("arms", [1, 2])
def test_nat_to_another_port(arms: int, dataplane: str) -> None:
    def serve(host: Host) -> AbstractContextManager[Server]:
        return nginx(host, 8080)

    with network_with(serve, nat, arms) as network:
        with running(network, network.config_toml(backend_port=8080, dataplane=dataplane)) as balancer:
            answers = many_requests(network.client, f"http://{network.vip}/", 60)
            with pytest.raises(CommandError, match="exit code 28"):  # 8080 is the backends' business
                curl(network.client, f"http://{network.vip}:8080/", timeout=0.5)
        assert answers == balancer.backends()
        assert answers.total() == 60
        assert balancer.verdict("drop_no_service") > 0


@each_cell
def test_port_0_is_every_port(build: Build, arms: int, dataplane: str) -> None:
    with network_with(nginx, build, arms, backends=1) as network, nginx(network.backends[0], 8081):
        with (
            dnsmasq(network.backends[0]),
            running(network, network.config_toml("0/tcp", "53/udp", dataplane=dataplane)) as balancer,
        ):
            assert curl(network.client, f"http://{network.vip}/") == "b1"
            assert curl(network.client, f"http://{network.vip}:8081/") == "b1"
            assert dns_lookup(network.client, network.vip) == "192.0.2.11"
            with pytest.raises(CommandError, match="exit code 7"):  # the backend itself refuses
                curl(network.client, f"http://{network.vip}:8082/")
        flows = {service["name"]: service["flows"] for service in balancer.counters["services"]}
        assert flows == {"every-port-tcp": 3, "port-53-udp": 1}


@pytest.mark.parametrize("dataplane", ["raw", "af_xdp"])
@pytest.mark.parametrize("build", [dsr, nat])
def test_maglev_follows_the_weights(build: Build, dataplane: str) -> None:
    with network_with(nginx, build, 1) as network:
        toml = network.config_toml(weights=(1, 2, 3), dataplane=dataplane, lb={"ring_seed": "weights"})
        with running(network, toml) as balancer:
            answers = many_requests(network.client, f"http://{network.vip}/", 600)
        assert answers == balancer.backends()
        # Six standard deviations of a binomial distribution: 9.1, 11.5 and 12.2.
        assert answers.total() == 600
        for name, share, margin in (("b1", 100, 55), ("b2", 200, 70), ("b3", 300, 75)):
            assert abs(answers[name] - share) < margin, answers
