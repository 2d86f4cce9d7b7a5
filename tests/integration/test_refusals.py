"""Bad input: a clear first line with its code, the exit code of its kind, and nothing changed on the host."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from l4raw.netns import Host, Log, Topology, dsr, nat

from l4raw.control.balancer import Balancer
from l4raw.control.config import parse
from l4raw.control.errors import L4Error
from l4raw.control.inspection import inspect
from tests.integration.snapshot import Snapshot, assert_as_before, difference, snapshot
from tests.integration.starting import DEADLINE, Place, Up, l4raw, toml

pytestmark = pytest.mark.root

CONFIG, SAFETY, HOST, USAGE = 3, 4, 5, 2
"""Exit codes."""

NOBODY = [
    "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
    # To read the program and the configuration, wherever they are; it gives no right to change anything.
    "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search",
]  # fmt: skip
MACHINE = ("links", "addresses", "routes", "rules", "nft")
"""What is compared of the machine's own namespace, in which no test has any business."""


def _without(capability: str) -> list[str]:
    """Words in front of a command: root, but for this capability."""
    return ["setpriv", f"--bounding-set=-{capability}", f"--inh-caps=-{capability}"]


@pytest.fixture(scope="module", autouse=True)
def machine() -> Iterator[None]:
    """The machine's own namespace stays as it is, whatever these tests do."""

    def look() -> Snapshot:
        return {part: lines for part, lines in snapshot(None).items() if part in MACHINE}

    before = look()
    yield
    assert_as_before(before, look)


@pytest.fixture(scope="module")
def network() -> Iterator[Topology]:
    """One network for all: a test that changes it changes it back."""
    with dsr(log=Log(silent=True)) as built:
        yield built


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def start(
    host: Host, place: Place, *args: str | Path, before: list[str] | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """`l4raw ARGS` in a host to its end; `before`: words in front of the command."""
    changed = {**place.environment(), **variables}
    pairs = [f"{key}={value}" for key, value in changed.items() if os.environ.get(key) != value]
    argv = l4raw(*args)
    return host.run([*(before or []), argv[0], *pairs, *argv[1:]], check=False, timeout=DEADLINE)


def refused(
    host: Host,
    place: Place,
    text: str,
    *,
    code: str,
    exit_code: int,
    command: str = "up",
    args: tuple[str, ...] = (),
    before: list[str] | None = None,
    **variables: str,
) -> str:
    """Start it with this configuration; it must be refused with `code` and change nothing. Its stderr."""
    config = place.config(text)
    line: list[str | Path] = (
        [command, *args, config] if command == "check" else [command, *args, "-c", config]
    )
    was = place.look(host)
    done = start(host, place, *line, before=before, **variables)
    assert done.returncode == exit_code, done.stderr
    assert done.stdout == ""
    assert re.match(rf"(\S+:\d+:\d+: )?error {code}: \S", done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert f"\nmore: l4raw explain {code}" in done.stderr
    for part in ("why", "fix"):
        assert re.search(rf"^{part}: \S", done.stderr, re.MULTILINE)
    assert difference(was, place.look(host)) == ""
    assert not place.state.exists()
    return done.stderr


# The file.


def good(network: Topology) -> str:
    return network.config_toml("80/tcp", lb={"ring_seed": "test"})


MISTAKES = {
    "unknown key": ("[lb]", '[lb]\nflow_memroy = "1MiB"', "L4R-108", 'did you mean "flow_memory"?'),
    "bad address": ("10.77.0.11", "10.77.0.256", "L4R-109", '"10.77.0.256" is not an address'),
    "port 70000": (":80/tcp", ":70000/tcp", "L4R-111", "port 70000 is above 65535"),
    "unknown mode": ('"dsr-l2"', '"drs-l2"', "L4R-112", 'did you mean "dsr-l2"?'),
    "unknown dataplane": ('"raw"', '"dpdk"', "L4R-112", '"dpdk"'),
    "not TOML": ("[lb]", "[lb", "L4R-103", "not TOML"),
    "rr with weights": ('"maglev"', '"rr"', "L4R-136", "wrr"),
}


@pytest.mark.parametrize("command", ["up", "check"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_file(network: Topology, place: Place, command: str, mistake: str) -> None:
    old, new, code, words = MISTAKES[mistake]
    text = network.config_toml("80/tcp", weights=(1, 1, 2))
    assert old in text
    said = refused(
        network.balancer, place, text.replace(old, new, 1), code=code, exit_code=CONFIG, command=command
    )
    assert words in said
    assert re.search(r"l4raw\.toml:\d+:\d+", said.splitlines()[0])
    assert said.endswith("\n1 problem. Nothing was changed.\n")


@pytest.mark.parametrize("command", ["up", "check"])
def test_a_vip_twice_and_a_service_without_backends(network: Topology, place: Place, command: str) -> None:
    twice = network.config_toml("80/tcp", "81/tcp").replace(":81/tcp", ":80/tcp")
    host = network.balancer
    said = refused(host, place, twice, code="L4R-131", exit_code=CONFIG, command=command)
    assert "10.77.0.100:80/tcp" in said
    none = re.sub(r"backends = \[.*?\n\]", "backends = []", good(network), flags=re.DOTALL)
    refused(host, place, none, code="L4R-134", exit_code=CONFIG, command=command)


@pytest.mark.parametrize("command", ["up", "check"])
def test_five_mistakes_are_told_together(network: Topology, place: Place, command: str) -> None:
    text = network.config_toml("80/tcp", "81/tcp").replace(":81/tcp", ":80/tcp")
    for key in ("unknown key", "bad address", "unknown mode", "unknown dataplane"):
        old, new, _, _ = MISTAKES[key]
        text = text.replace(old, new, 1)
    said = refused(network.balancer, place, text, code="L4R-108", exit_code=CONFIG, command=command)
    told = re.findall(r"^error (L4R-\d+): .* \(\S+/l4raw\.toml:(\d+):\d+\)$", said, re.MULTILINE)
    assert sorted(code for code, _ in told) == ["L4R-108", "L4R-109", "L4R-112", "L4R-112", "L4R-131"]
    lines = [int(line) for _, line in told]
    assert lines == sorted(lines), "in the order of the file"
    assert said.endswith("\n5 problems. Nothing was changed.\n")


@pytest.mark.parametrize("command", ["up", "check"])
@pytest.mark.parametrize("path", ["missing.toml", "/", "binary", "forbidden"])
def test_a_file_that_cannot_be_read(network: Topology, place: Place, command: str, path: str) -> None:
    (place.root / "binary").write_bytes(b"\xff\xfe\x00")
    (place.root / "forbidden").write_text(good(network))
    (place.root / "forbidden").chmod(0o600)
    os.chown(place.root / "forbidden", 65534, 65534)
    file = place.root / path
    args = ("check", file) if command == "check" else ("up", "-c", file)
    was = place.look(network.balancer)
    done = start(network.balancer, place, *args, before=_without("dac_override,-dac_read_search"))
    assert (done.returncode, done.stdout) == (CONFIG, "")
    assert re.match(rf"error L4R-102: .* \({file}\)\n", done.stderr), done.stderr
    assert difference(was, place.look(network.balancer)) == ""


def test_no_file_at_all_says_where_it_looked_and_offers_a_demo(network: Topology, place: Place) -> None:
    if Path("/etc/l4raw/l4raw.toml").exists():
        pytest.fail("this machine has a configuration of its own, which `up` would use")
    was = place.look(network.balancer)
    done = start(network.balancer, place, "up", before=["env", "-C", str(place.root), "-u", "L4RAW_CONFIG"])
    assert (done.returncode, done.stdout) == (CONFIG, "")
    first, *rest = done.stderr.splitlines()
    assert first.startswith("error L4R-101: ")
    for place_name in ("-c", "$L4RAW_CONFIG", "./l4raw.toml", "/etc/l4raw/l4raw.toml"):
        assert place_name in first
    assert "l4raw up --demo dsr" in "\n".join(rest)
    assert "l4raw config template" in "\n".join(rest)
    assert difference(was, place.look(network.balancer)) == ""


# The VIP.


@contextmanager
def changed(host: Host, do: str, undo: str) -> Iterator[None]:
    """An `ip` command and, afterwards, its opposite."""
    host.ip(do)
    try:
        yield
    finally:
        host.ip(undo)


def test_the_vip_is_an_address_of_the_balancer(network: Topology, place: Place) -> None:
    host = network.balancer
    with changed(host, "addr add 10.77.0.100/32 dev lo", "addr del 10.77.0.100/32 dev lo"):
        said = refused(host, place, good(network), code="L4R-202", exit_code=SAFETY)
    assert "the VIP 10.77.0.100 is an address of this host (lo)" in said.splitlines()[0]
    assert "ip address del 10.77.0.100 dev lo" in said


@pytest.mark.parametrize("args", [(), ("--dry-run",)], ids=["up", "dry-run"])
def test_the_vip_is_owned_by_another_host(network: Topology, place: Place, args: tuple[str, ...]) -> None:
    with changed(network.client, "addr add 10.77.0.100/32 dev eth0", "addr del 10.77.0.100/32 dev eth0"):
        said = refused(network.balancer, place, good(network), code="L4R-201", exit_code=SAFETY, args=args)
    assert f"owned by the host {network.client.mac}" in said.splitlines()[0]


def test_a_backend_announces_the_vip(network: Topology, place: Place) -> None:
    backend = network.backends[1]
    backend.sysctl("net.ipv4.conf.all.arp_ignore", 0)
    try:
        said = refused(network.balancer, place, good(network), code="L4R-201", exit_code=SAFETY)
    finally:
        backend.sysctl("net.ipv4.conf.all.arp_ignore", 1)
    assert f"backend b2 ({backend.mac}) answers ARP for the VIP" in said.splitlines()[0]
    assert "arp_ignore=1" in said


# Interfaces and routes.


def test_an_interface_is_missing(network: Topology, place: Place) -> None:
    text = good(network).replace('["eth0"]', '["eth0", "eth9"]')
    said = refused(network.balancer, place, text, code="L4R-302", exit_code=HOST)
    assert "no interface is named eth9" in said.splitlines()[0]


def test_an_interface_is_down(place: Place) -> None:
    with Host("alone", Log(silent=True)) as host:
        host.ip("link add eth0 type veth peer name eth1", "addr add 10.77.0.2/24 dev eth0")
        said = refused(host, place, ONE, code="L4R-303", exit_code=HOST)
    assert "eth0 is down" in said.splitlines()[0]
    assert "ip link set dev eth0 up" in said


ONE = """\
[lb]
interfaces = ["eth0"]
[[service]]
name = "web"
vip = "10.77.0.100:80/tcp"
mode = "dsr-l2"
backends = [{ name = "b1", address = "10.77.0.11" }]
"""


def test_an_interface_that_is_no_ethernet(network: Topology, place: Place) -> None:
    text = good(network).replace('["eth0"]', '["lo"]')
    refused(network.balancer, place, text, code="L4R-306", exit_code=HOST)


@pytest.mark.parametrize(
    ("address", "words"),
    [("192.0.2.1", "no route to backend b1"), ("10.77.0.2", "backend b1 has an address of this host")],
)
def test_a_backend_out_of_reach(network: Topology, place: Place, address: str, words: str) -> None:
    said = refused(
        network.balancer, place, good(network).replace("10.77.0.11", address), code="L4R-305", exit_code=HOST
    )
    assert words in said.splitlines()[0]


def test_a_dsr_backend_behind_a_router(network: Topology, place: Place) -> None:
    network.balancer.ip("route add 10.79.0.0/24 via 10.77.0.1")
    try:
        text = good(network).replace("10.77.0.11", "10.79.0.11")
        said = refused(network.balancer, place, text, code="L4R-305", exit_code=HOST)
    finally:
        network.balancer.ip("route del 10.79.0.0/24 via 10.77.0.1")
    assert "backend b1 is behind the router 10.77.0.1" in said.splitlines()[0]
    assert "dsr-l2 rewrites only MAC addresses" in said


def test_a_backend_behind_the_wrong_interface(place: Place) -> None:
    with nat(backends=1, log=Log(silent=True)) as network:
        swapped = good(network).replace('["eth0", "eth1"]', '["eth1", "eth0"]')
        said = refused(network.balancer, place, swapped, code="L4R-305", exit_code=HOST)
    assert "backend b1 is reached through eth1, not through eth0" in said.splitlines()[0]


def test_a_host_that_takes_the_vip_after_the_look(network: Topology, place: Place) -> None:
    config = parse(good(network), place.temporary / "l4raw.toml", "-c").config
    steps: list[str] = []
    before = place.files()
    with network.balancer.enter():
        interfaces = inspect(config)
        network.client.ip(f"addr add {network.vip}/32 dev eth0")
        try:
            with pytest.raises(L4Error, match=f"the VIP {network.vip} is owned by the host") as caught:
                Balancer(config, interfaces, "test", place.run, b"seed").start(steps.append)
        finally:
            network.client.ip(f"addr del {network.vip}/32 dev eth0")
    assert caught.value.code == "L4R-201"
    assert not [step for step in steps if step.startswith("ARP: ")]
    assert difference(before, place.files()) == ""


# The host.


@contextmanager
def forwarding(host: Host) -> Iterator[None]:
    host.sysctl("net.ipv4.ip_forward", 1)
    try:
        yield
    finally:
        host.sysctl("net.ipv4.ip_forward", 0)


@pytest.mark.parametrize("args", [(), ("--dry-run",)], ids=["up", "dry-run"])
def test_it_forwards_and_nft_is_missing(network: Topology, place: Place, args: tuple[str, ...]) -> None:
    """In a mount namespace of its own there is no /usr/sbin; nor is nft anywhere else."""
    hidden = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /usr/sbin && exec "$@"', "sh"]
    with forwarding(network.balancer):
        said = refused(
            network.balancer, place, good(network), code="L4R-206", exit_code=SAFETY, before=hidden, args=args
        )
    assert "cannot run nft" in said.splitlines()[0]
    assert "No such file" in said.splitlines()[0]


def test_it_forwards_and_nft_does_not_work(network: Topology, place: Place) -> None:
    folder = place.root / "bin"
    folder.mkdir()
    (folder / "nft").write_text("#!/bin/sh\necho 'Error: Operation not supported' >&2\nexit 1\n")
    (folder / "nft").chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    with forwarding(network.balancer):
        said = refused(network.balancer, place, good(network), code="L4R-206", exit_code=SAFETY, PATH=path)
    assert "Operation not supported" in said.splitlines()[0]


@pytest.mark.parametrize(
    "before",
    [NOBODY, _without("net_raw"), _without("net_admin")],
    ids=["nobody", "no-net-raw", "no-net-admin"],
)
def test_no_privileges(network: Topology, place: Place, before: list[str]) -> None:
    # A place where nobody could write, so that what is not written was not tried.
    for folder in (place.root, place.run):
        os.chown(folder, 65534, 65534)
    said = refused(network.balancer, place, good(network), code="L4R-301", exit_code=HOST, before=before)
    assert "sudo" in said
    assert "CAP_NET" in said


def test_no_privileges_for_a_demo(network: Topology, place: Place) -> None:
    was = place.look(network.balancer)
    done = start(network.balancer, place, "up", "--demo", "dsr", before=NOBODY)
    assert (done.returncode, done.stdout) == (HOST, "")
    assert done.stderr.startswith("error L4R-301: cannot make a network namespace"), done.stderr
    assert difference(was, place.look(network.balancer)) == ""


def test_a_dataplane_that_there_is_not(network: Topology, place: Place) -> None:
    done = start(network.balancer, place, "up", "--dataplane", "rwa")
    assert done.returncode == USAGE
    assert '"rwa" is unknown' in done.stderr


def test_more_memory_than_there_is(network: Topology, place: Place) -> None:
    text = network.config_toml("80/tcp", lb={"flow_memory": "8GiB"})
    limit = ["prlimit", f"--as={2 << 30}"]
    said = refused(network.balancer, place, text, code="L4R-307", exit_code=HOST, before=limit)
    assert "8192 MiB" in said.splitlines()[0]


# What is running, or is not.


def test_a_second_instance_is_told_first_that_it_cannot(network: Topology, place: Place) -> None:
    up = Up(network.balancer, place, "-c", place.config(toml(network))).wait_ready()
    was = place.look(network.balancer)
    done = start(network.balancer, place, "up", "-c", place.root / "l4raw.toml")
    assert (done.returncode, done.stdout) == (SAFETY, "")
    assert re.match(r"error L4R-204: instance \S+ is running already: .*process \d+", done.stderr)
    assert difference(was, place.look(network.balancer)) == ""
    up.stop()


def test_down_of_what_does_not_run(network: Topology, place: Place) -> None:
    was = place.look(network.balancer)
    done = start(network.balancer, place, "down", "nobody-knows")
    assert (done.returncode, done.stdout) == (6, "")
    assert done.stderr.startswith("error L4R-401: no instance nobody-knows is running")
    assert difference(was, place.look(network.balancer)) == ""


@pytest.mark.parametrize("name", [(), ("eth0",)], ids=["no-name", "named"])
def test_down_by_somebody_else(network: Topology, place: Place, name: tuple[str, ...]) -> None:
    """The run folder is root's, and root's balancer is in it."""
    up = Up(network.balancer, place, "-c", place.config(toml(network)), "--instance", "eth0").wait_ready()
    was = place.look(network.balancer)
    done = start(network.balancer, place, "down", *name, before=NOBODY)
    assert (done.returncode, done.stdout) == (HOST, "")
    assert done.stderr.startswith(f"error L4R-301: needs root: {place.run} belongs to root"), done.stderr
    assert difference(was, place.look(network.balancer)) == ""
    up.stop()


# As JSON.


@pytest.mark.parametrize(
    ("spoil", "codes", "exit_code"),
    [
        (lambda text: text.replace("[lb]", "[lb]\na = 1\nb = 2"), ["L4R-108", "L4R-108"], CONFIG),
        (lambda text: text.replace('"eth0"', '"eth9"'), ["L4R-302"], HOST),
    ],
    ids=["file", "host"],
)
def test_errors_as_json(
    network: Topology, place: Place, spoil: Callable[[str], str], codes: list[str], exit_code: int
) -> None:
    done = start(network.balancer, place, "up", "--json", "-c", place.config(spoil(good(network))))
    assert (done.returncode, done.stdout) == (exit_code, "")
    record = json.loads(done.stderr)
    assert record["schema"] == "l4raw.error/1"
    assert record["exit_code"] == exit_code
    assert [error["code"] for error in record["errors"]] == codes
    assert all(error["why"] and error["fix"] for error in record["errors"])
