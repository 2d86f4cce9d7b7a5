"""Debian's kernels in guests: they boot, have what ours may lack, and stand in a network with the balancer.

client           balancer         b1               guest
10.77.0.1        10.77.0.2        10.77.0.11       10.77.0.50
   |                |                |                |
===+================+================+================+===  br-clients
                                  lo: 10.77.0.100  lo: 10.77.0.100
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from l4raw.netns import Log, Topology, dsr
from l4raw.netns.clients import curl
from l4raw.netns.dsr import VIP_UNANNOUNCED
from scapy.layers.inet import ICMP, IP

from tests.integration.running import running
from tests.long.inside_guest import REQUESTS
from tests.qemu import DEBIAN, Cable, Guest, GuestError

# The first run fetches the kernels.
pytestmark = [pytest.mark.root, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "10.77.0.50"
PAGE = "/srv/guest/index.html"


@dataclass(frozen=True)
class Lab:
    network: Topology
    guest: Guest


@pytest.fixture(scope="module", params=DEBIAN)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A guest on the segment of a DSR network, ready to be a backend."""
    log = Log(silent=True)
    with dsr(backends=1, log=log) as network:
        switch = next(host for host in network.hosts if host.name == "switch")
        cable = Cable(switch, "guest-eth0")
        with Guest(request.param, ["ipip", "fou"], {PAGE: "guest"}, [cable], cpus=2, log=log) as guest:
            switch.ip("link set guest-eth0 master br-clients up")
            guest.run(["sysctl", "-q", "-w", *(f"{key}={value}" for key, value in VIP_UNANNOUNCED.items())])
            guest.run(f"ip addr add {network.vip}/32 dev lo")
            guest.run(f"ip addr add {ADDRESS}/24 dev eth0; ip link set eth0 up")
            guest.run(
                f"python3 -m http.server 80 --directory {Path(PAGE).parent} >/dev/null 2>&1 &\n"
                "until ss -Hltn sport = 80 | grep -q LISTEN; do sleep 0.1; done"
            )
            yield Lab(network, guest)


def test_it_is_the_kernel_that_was_asked_for(
    lab: Lab, record_property: Callable[[str, object], None]
) -> None:
    guest = lab.guest
    release = guest.run("uname -r").stdout.strip()
    assert release == guest.kernel.release and release.startswith(f"{guest.kernel.version}.")
    record_property("figure", f"guest {guest.run('uname -rv').stdout.strip()}: {guest.boot_seconds:.1f} s")


def test_it_has_what_other_kernels_may_lack(lab: Lab) -> None:
    said = lab.guest.run(
        f"""set -e
        ip -d link show tunl0
        ip link add six type ip6tnl local fd00::1 remote fd00::2
        ip fou add port 5555 ipproto 4
        ip link add over type ipip local {ADDRESS} remote 10.77.0.1 encap fou encap-dport 5555
        ip -d link show six; ip -d link show over
        modprobe ip_vs_mh; cat /proc/net/ip_vs"""
    ).stdout
    for word in ("link/ipip", "link/tunnel6", "encap fou", "IP Virtual Server"):
        assert word in said


def test_frames_go_both_ways(lab: Lab) -> None:
    client = lab.network.client
    client.run(["ping", "-c", "1", "-W", "20", ADDRESS])
    lab.guest.run(["ping", "-c", "1", "-W", "20", client.address])
    assert curl(client, f"http://{ADDRESS}/") == "guest"


def test_a_tunnel_ends_in_it(lab: Lab) -> None:
    """As DSR by IPIP would have it: the inner packet is for the VIP, and the answer takes the short way."""
    client, vip = lab.network.client, lab.network.vip
    lab.guest.run("ip link set tunl0 up")
    inner = bytes(IP(src=client.address, dst=vip) / ICMP(id=0x6C34, seq=7))
    with (
        client.enter(),
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IPIP) as tunnel,
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as answers,
    ):
        answers.settimeout(20)
        tunnel.sendto(inner, (ADDRESS, 0))
        answer = IP(answers.recv(2048))
    assert answer.src == vip
    assert (answer[ICMP].type, answer[ICMP].id, answer[ICMP].seq) == (0, 0x6C34, 7)


def test_it_is_a_backend_of_the_balancer(lab: Lab) -> None:
    network = lab.network
    toml = network.config_toml().replace(network.backends[0].address, ADDRESS)
    with running(network, toml) as balancer:
        answers = [curl(network.client, f"http://{network.vip}/") for _ in range(10)]
    assert answers == ["guest"] * 10
    assert balancer.verdict("forward") >= 40 and balancer.dataplane == "raw"


LOAD = """
from l4raw.engine.layout import Sizes
from l4raw.engine.redirect import {program}, Redirect
redirect = Redirect(Sizes(flow_memory=1 << 20), {program})
redirect.attach("xdp0")
redirect.close()
"""


@pytest.mark.xdp
@pytest.mark.parametrize("program", ["REDIRECT", "FORWARD"])
def test_its_verifier_accepts_the_program(lab: Lab, program: str) -> None:
    lab.guest.run("ip link add xdp0 type veth peer xdp1; ip link set xdp0 up")
    lab.guest.run(["env", "-C", str(ROOT), sys.executable, "-c", LOAD.format(program=program)])
    lab.guest.run("ip link del xdp0")


@pytest.mark.xdp
@pytest.mark.parametrize("mode", ["dsr-l2", "nat"])
def test_af_xdp_forwards_on_its_kernel(lab: Lab, mode: str) -> None:
    """A balancer in the guest, in namespaces of the guest."""
    found = inside(lab, mode, "af_xdp")
    counters = found["counters"]["engine"]
    assert counters["received"] == counters["sent"] and not counters["receive_lost"]


@pytest.mark.xdp
@pytest.mark.parametrize("mode", ["dsr-l2", "nat"])
def test_the_kernel_path_forwards_on_its_kernel(lab: Lab, mode: str) -> None:
    """6.1 does not tell whether an interface sends what XDP redirects; test frames do."""
    found = inside(lab, mode, "xdp")
    assert [event["forwards"] for event in found["told"]] == [True]
    engine, verdicts = found["counters"]["engine"], found["counters"]["verdicts"]
    assert 0 < engine["kernel_forwarded"] <= verdicts["forward"] + verdicts["reply"]


def inside(lab: Lab, mode: str, dataplane: str) -> dict[str, Any]:
    """What came of a balancer there; its client was served."""
    argv = ["env", "-C", str(ROOT), sys.executable, "-m", "tests.long.inside_guest", mode, dataplane]
    found: dict[str, Any] = json.loads(lab.guest.run(argv, timeout=400).stdout)
    assert found["dataplane"] == dataplane and found["pages"] == ["b1"] * REQUESTS
    verdicts = found["counters"]["verdicts"]
    assert verdicts["forward"] >= 4 * REQUESTS and (verdicts["reply"] > 0) == (mode == "nat")
    return found


def test_commands_fail_and_end(lab: Lab) -> None:
    guest = lab.guest
    assert guest.run("echo out; echo err >&2; exit 3", check=False).returncode == 3
    with pytest.raises(GuestError, match="exit code 3: err"):
        guest.run("echo out; echo err >&2; exit 3")
    with pytest.raises(GuestError, match="no end after 1 s"):
        guest.run("sleep 600", timeout=1)
    assert guest.run("head -c 300000 /dev/zero | tr '\\0' x").stdout == "x" * 300_000


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(GuestError, match="no_such_module not found"), Guest("6.12", ["no_such_module"]):
        pass


def test_what_it_writes_stays_there(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("ours")
    script = f"cd {tmp_path}; cat file; echo theirs >file; echo theirs >other; cat file other"
    assert lab.guest.run(script).stdout == "ourstheirs\ntheirs\n"
    assert (tmp_path / "file").read_text() == "ours" and not (tmp_path / "other").exists()
