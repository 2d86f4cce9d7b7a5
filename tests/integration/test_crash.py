"""`kill -9` leaves nothing on the host, and what it leaves in the run folder is no obstacle.

Kernel state goes by itself, within moments. The run folder still has the lock
files of the dead; the next `up`, or `down`, removes them and says so.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from l4raw.netns import Host, Log, Topology, dsr, nat

from tests.integration.snapshot import DEADLINE, Snapshot, assert_as_before, residents, snapshot
from tests.integration.starting import Place, Up, echo, run, toml

pytestmark = pytest.mark.root

Build = Callable[..., AbstractContextManager[Topology]]
KINDS = [(dsr, False), (nat, False), (dsr, True), (nat, True)]
KIND_NAMES = ["dsr", "nat", "dsr-forwarding", "nat-forwarding"]
ROUNDS = 13
"""For each kind, so that they are 52."""

START = """
import os, signal, sys
from pathlib import Path
from l4raw.control.balancer import Balancer
from l4raw.control.inspection import inspect
from l4raw.control.config import load

last = int(sys.argv[3])

def step(text):
    global last
    last -= 1
    print(text, flush=True)
    if not last:
        os.kill(os.getpid(), signal.SIGKILL)

config = load(Path(sys.argv[1]), {}).config
Balancer(config, inspect(config), sys.argv[4], Path(sys.argv[2]), b"seed").start(step)
print("started")
"""

LOCKS = """
import os, signal, sys
from pathlib import Path
from l4raw.control.instance import Instance, heal
from l4raw.control.journal import set_sysctl
from l4raw.control.netlink import Interface

SYSCTL = "net/ipv4/conf/lo/rp_filter"
value, folder = Path("/proc/sys", SYSCTL), Path(sys.argv[1])
lo = Interface("lo", 1, bytes(6), True, 1500, ())
old = value.read_text()

def live():
    instance = Instance("victim", folder)
    instance.acquire([lo])
    set_sysctl(instance.journal, SYSCTL, "2")
    instance.release()

def die_at(last):
    def profile(frame, event, argument):
        nonlocal last
        if event in ("call", "c_call") and "/l4raw/control/" in frame.f_code.co_filename:
            last -= 1
            if not last:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.setprofile(profile)

changed, number = 0, 1
while True:
    child = os.fork()
    if not child:
        die_at(number)
        live()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    changed += value.read_text() != old
    if number % 2:
        heal(folder)
    else:
        live()
    assert value.read_text() == old, number
    assert os.listdir(folder) == [], (number, os.listdir(folder))
    if not status:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
    number += 1
print(number, changed)
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def kernel(found: Snapshot, place: Place) -> Snapshot:
    """Without the run folder."""
    return {part: lines for part, lines in found.items() if part != str(place.run)}


def up(network: Topology, place: Place) -> Up:
    return Up(network.balancer, place, "-c", place.config(toml(network)))


def ended(victim: str, up: Up) -> str:
    return f"instance {victim} (process {up.process.pid}, on "


@pytest.mark.parametrize(("build", "forward"), KINDS, ids=KIND_NAMES)
def test_killed_while_forwarding(build: Build, forward: bool, place: Place) -> None:
    with build(backends=1, ip_forward=forward, log=Log(silent=True)) as network, echo(network) as servers:
        machine = snapshot(None)
        before = place.look(network.balancer)
        victim = up(network, place).wait_ready()
        with servers.flood():
            victim.kill()
        assert_as_before(kernel(before, place), lambda: kernel(place.look(network.balancer), place))
        assert_as_before(machine, lambda: snapshot(None))
        assert any(place.run.iterdir())
        assert not servers.ask(0.3)

        heir = up(network, place).wait_ready()
        assert f"heal: {ended(f'eth0@{network.balancer.inode}', victim)}" in heir.err
        assert servers.ask()
        heir.stop()
        assert_as_before(before, lambda: place.look(network.balancer), 0.0)


def test_50_rounds_leak_nothing(tmp_path: Path) -> None:
    machine = snapshot(None)
    with ThreadPoolExecutor(len(KINDS)) as threads:
        kinds = zip(KIND_NAMES, KINDS, strict=True)
        for done in [threads.submit(rounds, tmp_path / name, *kind) for name, kind in kinds]:
            done.result()
    assert_as_before(machine, lambda: snapshot(None))


def rounds(folder: Path, build: Build, forward: bool) -> None:
    """Up, then again and again kill -9 and at once the next one; the last is stopped in peace."""
    folder.mkdir()
    place = Place(folder)
    with build(backends=1, ip_forward=forward, log=Log(silent=True)) as network:
        before = place.look(network.balancer)
        running = up(network, place).wait_ready()
        for _ in range(ROUNDS):
            victim = running
            victim.kill()
            running = up(network, place).wait_ready()
            assert ended(f"eth0@{network.balancer.inode}", victim) in running.err
        running.stop()
        assert_as_before(before, lambda: place.look(network.balancer))


def test_killed_at_each_step_of_the_start(place: Place) -> None:
    with nat(backends=1, ip_forward=True, log=Log(silent=True)) as network:
        config = place.config(toml(network))
        before = place.look(network.balancer)
        for number in range(1, 10):
            argv = [sys.executable, "-c", START, str(config), str(place.run), str(number), "victim"]
            done = network.balancer.run(argv, check=False)
            steps = done.stdout.splitlines()
            if steps[-1] == "started":
                break
            assert (done.returncode, len(steps)) == (-9, number), done.stderr
            assert_as_before(kernel(before, place), lambda: kernel(place.look(network.balancer), place))
            heir = up(network, place).wait_ready()
            assert "heal: instance victim (process " in heir.err
            heir.stop()
            assert_as_before(before, lambda: place.look(network.balancer), 0.0)
        assert [step.partition(":")[0] for step in steps] == [
            "lock", "neighbours", "nft", "listen", "ARP", "started"
        ]  # fmt: skip


def test_killed_at_any_call_while_it_takes_or_gives_back_its_locks(place: Place) -> None:
    """A journaled change of the host is undone as well, by `down` and by the next `up` in turn."""
    with Host("host", Log(silent=True)) as host:
        host.sysctl("net.ipv4.conf.lo.rp_filter", 0)
        done = host.run([sys.executable, "-c", LOCKS, str(place.run)])
    deaths, while_changed = map(int, done.stdout.split())
    assert deaths > 150
    assert 10 < while_changed < deaths - 100


@pytest.mark.parametrize("mode", ["dsr", "nat"])
@pytest.mark.parametrize("ending", ["SIGKILL", "SIGTERM"])
def test_the_demo_leaves_no_namespace_process_or_folder(mode: str, ending: str, place: Place) -> None:
    with Host("host", Log(silent=True)) as host:
        machine, before = snapshot(None), place.look(host)
        demo = Up(host, place, "--demo", mode).wait_ready()
        family = descendants(demo.process.pid)
        held = [os.open(f"/proc/{pid}/ns/net", os.O_RDONLY) for pid in family if namespace(pid)]
        # While they are held, no other test's namespace gets one of these numbers.
        namespaces = {os.fstat(each).st_ino for each in held} - {host.inode}
        assert len(namespaces) == 6  # client, balancer, three backends, switch
        assert list(place.temporary.iterdir())
        demo.wait_for(lambda: "in another terminal" in demo.err, "what to try")
        client = re.findall(r"nsenter -t (\d+) -n curl (\S+)", demo.err)[0]
        answer = subprocess.run(
            ["nsenter", "-t", client[0], "-n", "curl", "-sS", client[1]], capture_output=True
        )
        assert answer.stdout in (b"b1\n", b"b2\n", b"b3\n"), answer

        if ending == "SIGKILL":
            demo.kill()
            until = time.monotonic() + DEADLINE
            while left := {**residents(namespaces), **{pid: "ours" for pid in family if alive(pid)}}:
                assert time.monotonic() < until, f"processes are left: {left}"
                time.sleep(0.01)
            release(held)
            assert_as_before(kernel(before, place), lambda: kernel(place.look(host), place))
            assert "ended without cleaning up; done now" in run(host, place, "down").stderr
        else:
            demo.stop()
            assert residents(namespaces) == {}
            release(held)
        assert_as_before(before, lambda: place.look(host), 0.0)
        assert_as_before(machine, lambda: snapshot(None))


def release(held: list[int]) -> None:
    for each in held:
        os.close(each)


def descendants(pid: int) -> list[int]:
    """Children, theirs, and so on."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found += [child, *descendants(child)]
    return found


def namespace(pid: int) -> int | None:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None


def alive(pid: int) -> bool:
    return namespace(pid) is not None
