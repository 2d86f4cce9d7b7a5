"""`l4raw up` and `l4raw down` as a person uses them: what they say, what they leave, how they end."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from l4raw.netns import Host, Log, Topology, dsr, nat

from l4raw.wire.arp import REQUEST, Arp, build
from l4raw.wire.ethernet import BROADCAST, NO_MAC
from tests.integration.snapshot import assert_as_before, difference
from tests.integration.starting import DEADLINE, NOTHING_LEFT, Place, Up, echo, l4raw, run, toml

pytestmark = pytest.mark.root


@pytest.fixture
def network() -> Iterator[Topology]:
    with dsr(backends=1, log=Log(silent=True)) as built:
        yield built


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def up(network: Topology, place: Place, *args: str, **lb: object) -> Up:
    return Up(network.balancer, place, "-c", place.config(toml(network, **lb)), *args)


def instance_of(network: Topology) -> str:
    return f"eth0@{network.balancer.inode}"


# Stopping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda n: n.name)
def test_a_signal_stops_it_and_nothing_is_left(network: Topology, place: Place, number: int) -> None:
    before = place.look(network.balancer)
    with echo(network) as servers:
        balancer = up(network, place).wait_ready()
        assert servers.ask()
        balancer.stop(number)
        assert_as_before(before, lambda: place.look(network.balancer), 0.0)
        assert not servers.ask(0.3)


def test_more_signals_do_not_cut_the_undoing_short(network: Topology, place: Place) -> None:
    network.balancer.sysctl("net.ipv4.ip_forward", 1)
    before = place.look(network.balancer)
    balancer = up(network, place).wait_ready()
    stop = time.monotonic() + DEADLINE
    while balancer.process.poll() is None and time.monotonic() < stop:
        balancer.send(signal.SIGINT)
        balancer.send(signal.SIGTERM)
        time.sleep(0.001)
    assert balancer.end() == 0, balancer.err
    assert balancer.err.splitlines()[-1] == NOTHING_LEFT
    assert_as_before(before, lambda: place.look(network.balancer), 0.0)


def test_a_signal_during_the_start_ends_it_before_it_is_ready(network: Topology, place: Place) -> None:
    before = place.look(network.balancer)
    balancer = up(network, place)
    balancer.wait_for(lambda: "lock: instance" in balancer.err, "it has begun")
    balancer.stop(signal.SIGINT)
    assert balancer.out == ""
    assert_as_before(before, lambda: place.look(network.balancer), 0.0)


def test_nohup_keeps_it_running(network: Topology, place: Place) -> None:
    config = place.config(toml(network))
    argv = ["env", "--ignore-signal=HUP", *l4raw("up", "-c", config)]
    argv.remove("--default-signal=INT,HUP,TERM")
    with (place.root / "out").open("wb") as out:
        process = network.balancer.popen(argv, stdout=out, env=place.environment())
    with echo(network) as servers:
        assert servers.ask()
        process.send_signal(signal.SIGHUP)
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert int(re.findall(r"SigIgn:\s*(\w+)", status)[0], 16) & 1 << signal.SIGHUP - 1
        assert servers.ask()
        assert process.poll() is None


# What it tells about the host while it runs


def test_another_owner_of_the_vip_is_told_once(network: Topology, place: Place) -> None:
    balancer = up(network, place, "--json").wait_ready()
    mac = bytes.fromhex("0200000000aa")
    with network.client.enter():
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with sender, echo(network) as servers:
        sender.bind(("eth0", 0))
        vip = socket.inet_aton(network.vip)
        claim = build(Arp(REQUEST, mac, vip, NO_MAC, vip), src=mac, dst=BROADCAST)
        sender.send(claim)
        balancer.wait_for(lambda: "L4R-207" in balancer.out, "the warning")
        sender.send(claim)
        assert servers.ask()
    balancer.stop()
    warnings = [json.loads(line) for line in balancer.out.splitlines() if '"warning"' in line]
    assert len(warnings) == 1
    assert "02:00:00:00:00:aa claims the VIP 10.77.0.100" in warnings[0]["what"]


def test_an_interface_that_goes_down_comes_back(network: Topology, place: Place) -> None:
    balancer = up(network, place).wait_ready()
    with echo(network) as servers:
        assert servers.ask()
        network.balancer.ip("link set eth0 down")
        assert not servers.ask(0.2)
        network.balancer.ip("link set eth0 up")
        assert servers.ask()
    balancer.stop()


def test_a_deleted_interface_ends_it(network: Topology, place: Place) -> None:
    balancer = up(network, place, "--json").wait_ready()
    network.balancer.ip("link delete eth0")
    assert balancer.end() == 5
    error = json.loads(balancer.err.splitlines()[-1])["errors"][0]
    assert (error["code"], error["what"]) == ("L4R-306", "eth0 was deleted while the balancer ran")
    assert json.loads(balancer.out.splitlines()[-1])["event"] == "stopped"
    assert not any(place.run.iterdir())


@pytest.mark.parametrize(
    ("change", "code", "what", "where"),
    [
        ("addr add {vip}/32 dev lo", "L4R-202", "the VIP {vip} is an address of this host", "lo"),
        ("addr add {vip}/24 dev eth0", "L4R-202", "the VIP {vip} is an address of this host", "eth0"),
        ("route add local {vip} dev lo", "L4R-202", "the VIP {vip} is an address of this host", "lo"),
        ("link set eth0 address {mac}", "L4R-306", "eth0 got another MAC address: {mac}", "eth0"),
    ],
)
def test_what_may_not_change_while_it_runs_ends_it(
    network: Topology, place: Place, change: str, code: str, what: str, where: str
) -> None:
    """Else the kernel would answer the clients, or ARP would go on with a MAC that nobody has."""
    mac, places = network.balancer.mac, {"vip": network.vip, "mac": "02:00:00:00:00:aa"}
    balancer = up(network, place, "--json").wait_ready()
    network.balancer.ip(change.format(**places))
    assert balancer.end() in (4, 5)
    undo = change.replace(" add ", " del ") if " add " in change else "link set eth0 address {mac}"
    network.balancer.ip(undo.format(**places | {"mac": mac}))
    error = json.loads(balancer.err.splitlines()[-1])["errors"][0]
    assert (error["code"], error["what"], error["where"]) == (code, what.format(**places), where)
    assert not any(place.run.iterdir())


def test_forwarding_switched_on_later_is_told(network: Topology, place: Place) -> None:
    before = place.look(network.balancer)
    balancer = up(network, place).wait_ready()
    network.balancer.sysctl("net.ipv4.ip_forward", 1)
    balancer.wait_for(lambda: "nft: table netdev l4raw-" in balancer.err, "the table is told")
    balancer.stop()
    changed = difference(before, place.look(network.balancer))
    assert "nft" not in changed


# The plan


@pytest.mark.parametrize(("build", "forward"), [(dsr, False), (dsr, True), (nat, True)])
def test_dry_run_changes_nothing_and_its_plan_is_complete(build: object, forward: bool, place: Place) -> None:
    with build(backends=1, ip_forward=forward, log=Log(silent=True)) as network:  # type: ignore[operator]
        host = network.balancer
        config = place.config(network.config_toml("53/udp"))  # without a ring seed
        before = place.look(host)
        done = run(host, place, "up", "-c", config, "--dry-run")
        assert done.returncode == 0, done.stderr
        assert difference(before, place.look(host)) == ""
        balancer = Up(host, place, "-c", config).wait_ready()
        missing = unplanned(difference(before, place.look(host)), done.stdout, network.interfaces, place)
        balancer.stop()
        assert not missing
        kept = difference(before, place.look(host)).splitlines()
        assert [line.split()[3] for line in kept if line[0] == " "] == [
            f"{place.state}",
            f"{place.state}/ring_seed",
        ]


def test_the_plan_in_plain_is_tab_separated(network: Topology, place: Place) -> None:
    done = run(network.balancer, place, "up", "-c", place.config(toml(network)), "--dry-run", "--plain")
    assert done.returncode == 0, done.stderr
    records = [line.split("\t") for line in done.stdout.splitlines()]
    assert {len(record) for record in records} == {2}
    assert records[:2] == [["instance", instance_of(network)], ["dataplane", "raw"]]
    kinds = [kind for kind, _ in records]
    assert kinds == ["instance", "dataplane", "service", "check", "lock", "lock", "listen", "ARP"]
    assert "plan for instance" not in done.stdout


def unplanned(changes: str, plan: str, interfaces: list[str], place: Place) -> list[str]:
    """The changes that the plan has no line for."""
    missing, part = [], ""
    for line in changes.splitlines():
        if not line.startswith(" "):
            part = line.rstrip(":")
            continue
        path = next((word for word in line.split() if word.startswith("/")), "")
        planned = {
            "packet sockets": all(f"+ listen   packet socket on {name};" in plan for name in interfaces)
            and f"+ ARP      10.77.0.100 is at 02:00:00:00:00:02, on {interfaces[0]}" in plan,
            "nft": (name := re.search(r"l4raw-eth0\.40\d+", line))
            and f"+ nft      table netdev {name[0]}:" in plan,
            "processes": line.split()[-1] in ("l4raw", "python", "python3", "nft"),
            str(place.run): path in plan or Path(path).name in ("lock", "run", "interfaces"),
            str(place.state): path in (str(place.state), f"{place.state}/ring_seed")
            and f"+ file     {place.state}/ring_seed" in plan,
        }
        if not planned.get(part):
            missing.append(f"{part}: {line}")
    return missing


# down


def test_down_stops_the_only_one_and_then_has_nothing_to_do(network: Topology, place: Place) -> None:
    before = place.look(network.balancer)
    balancer = up(network, place).wait_ready()
    with Host("elsewhere", Log(silent=True)) as elsewhere:  # the lock is enough, also from another namespace
        done = run(elsewhere, place, "down")
        assert (done.returncode, done.stderr) == (0, f"stopped: instance {instance_of(network)}\n")
        assert balancer.end() == 0
        done = run(elsewhere, place, "down")
        assert (done.returncode, done.stderr) == (0, "no instance is running; nothing to undo\n")
    assert_as_before(before, lambda: place.look(network.balancer), 0.0)


def test_down_by_name(network: Topology, place: Place) -> None:
    with dsr(backends=1, log=Log(silent=True)) as second:
        one, other = up(network, place).wait_ready(), up(second, place, "--instance", "other").wait_ready()
        done = run(network.balancer, place, "down")
        assert done.returncode == 2
        assert f"several instances run: {instance_of(network)}, other; name one" in done.stderr
        done = run(network.balancer, place, "down", "nobody")
        assert done.returncode == 6
        assert done.stderr.startswith("error L4R-401: no instance nobody is running")
        done = run(network.balancer, place, "down", "other")
        assert (done.returncode, other.end(), one.process.poll()) == (0, 0, None)
        one.stop()
    assert not any(place.run.iterdir())


@pytest.mark.parametrize("named", [True, False])
def test_down_cleans_up_after_a_killed_one(network: Topology, place: Place, named: bool) -> None:
    before = place.look(network.balancer)
    balancer = up(network, place).wait_ready()
    balancer.kill()
    assert any(place.run.iterdir())
    name = instance_of(network)
    done = run(network.balancer, place, "down", *([name] if named else []))
    assert done.returncode == 0
    pid = balancer.process.pid
    assert f"instance {name} (process {pid}, on eth0) ended without cleaning up; done now" in done.stderr
    assert_as_before(before, lambda: place.look(network.balancer))
