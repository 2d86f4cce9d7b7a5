"""XDP programs: attached once, nobody else's touched, gone with the process, and refused for a reason."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from errno import EACCES, EBUSY, EEXIST, EINVAL, ENODEV, ENOENT, ENOEXEC, ENOSPC, EOPNOTSUPP, ERANGE
from pathlib import Path

import pytest
from l4raw.netns import Host

from l4raw.xdp import BpfMap, PassToSocket, Umem, XdpError, XdpProgram, XskMap, XskSocket
from l4raw.xdp.native import bpf_object
from tests.integration.capture import wait_for
from tests.integration.xdp_lab import cable, xdp_on

pytestmark = [pytest.mark.root, pytest.mark.xdp]

ROOT = Path(__file__).resolve().parents[2]

OWN_BPF_FS = ["unshare", "--mount", "sh", "-c", 'mount -t bpf bpf /sys/fs/bpf && exec "$@"', "sh"]
"""In front of a command."""

HOLDER = """
import sys
from l4raw.xdp import PassToSocket, Umem, XskSocket
umem = Umem(64)
xsk = XskSocket(umem, "eth0")
program = PassToSocket()
program.sockets.update(0, xsk)
link = program.attach("eth0")
print("attached", flush=True)
sys.stdin.read()
"""

DISPATCH = """
from l4raw.xdp import PassToSocket, XdpError
with PassToSocket() as program:
    try:
        with program.attach_with_dispatcher("eth0") as link:
            program.accept()
            print("dispatched")
    except XdpError as error:
        print(error.errno, error)
"""


def python(end: Host, code: str, *before: str) -> str:
    """What a Python program prints in a host; it must end with 0."""
    argv = [*before, "env", f"PYTHONPATH={ROOT}", sys.executable, "-P", "-c", code]
    return end.run(argv).stdout


@pytest.fixture(scope="module")
def right() -> Iterator[Host]:
    with cable() as (_, end):
        yield end


def test_the_program_is_on_as_long_as_its_link(right: Host) -> None:
    for mode in ("native", "generic"):
        with right.enter(), PassToSocket() as program:
            link = program.attach("eth0", mode)
            assert xdp_on(right)
            assert link.fileno() > 2
            program.close()
            assert xdp_on(right), "a link keeps the program"
            link.close()
            link.close()
        assert not xdp_on(right)


def test_another_program_takes_its_place(right: Host) -> None:
    with right.enter(), PassToSocket() as first, XdpProgram(bpf_object("sink")) as second:
        with first.attach("eth0") as link:
            before = xdp_on(right)
            link.replace(second)
            assert xdp_on(right) not in (0, before) and link.program is second
            link.replace(first)
            assert xdp_on(right) == before
        assert not xdp_on(right)
        with pytest.raises(ValueError, match="no link"):
            link.replace(second)


def test_a_program_that_cannot_take_its_place_leaves_it(right: Host) -> None:
    with right.enter(), PassToSocket() as first, first.attach("eth0") as link:
        before = xdp_on(right)
        second = PassToSocket()
        second.close()
        with pytest.raises(ValueError, match="closed"):
            link.replace(second)
        assert xdp_on(right) == before and link.program is first


def test_maps_by_name(right: Host) -> None:
    with PassToSocket() as program:
        assert set(program.maps) == {"xsks", "wanted"}
        assert isinstance(program.maps["xsks"], XskMap)
        wanted = program.maps["wanted"]
        assert type(wanted) is BpfMap
        assert (wanted.key_size, wanted.value_size, wanted.max_entries) == (4, 1, 1024)
        program.accept(17, 0x1234)
        assert wanted.get(bytes([17, 0, 0x12, 0x34])) == b"\1"
        assert wanted.get(bytes(4)) is None
        with pytest.raises(ValueError, match="a key has 4 bytes, not 3"):
            wanted.put(bytes(3), b"\1")
        for protocol, port in [(256, 0), (6, 65536), (0, 80), (-1, 0)]:
            with pytest.raises(ValueError, match=f"port {port}"):
                program.accept(protocol, port)
    with pytest.raises(ValueError, match="closed"):
        wanted.get(bytes(4))
    with pytest.raises(ValueError, match="closed"):
        program.attach("lo")


def test_a_map_has_no_place_for_every_queue(right: Host) -> None:
    with right.enter(), Umem(16) as umem, XskSocket(umem, "eth0") as xsk, PassToSocket() as program:
        with pytest.raises(ValueError, match="queues 0 to 255, not 256"):
            program.sockets.update(256, xsk)
        xsk.close()
        with pytest.raises(ValueError, match="socket is closed"):
            program.sockets.update(0, xsk)


def test_what_is_full_says_so() -> None:
    with PassToSocket() as program:
        for port in range(1, 1025):
            program.accept(6, port)
        with pytest.raises(XdpError, match="updating a BPF map wanted"):
            program.accept(6, 2000)


def foreign(end: Host, mode: str) -> int:
    """A program that `ip` attaches, over netlink; its id."""
    source = ["obj", str(bpf_object("pass_to_socket")), "sec", "xdp"]
    # `ip` mounts a BPF file system on /sys/fs/bpf and makes folders in it: not on this machine's.
    end.run([*OWN_BPF_FS, "ip", "link", "set", "dev", "eth0", mode, *source])
    return xdp_on(end)


@pytest.mark.parametrize(("theirs", "number"), [("xdpdrv", EBUSY), ("xdpgeneric", EEXIST)])
def test_a_foreign_program_is_left_alone(theirs: str, number: int) -> None:
    with cable() as (_, end):
        there = foreign(end, theirs)
        assert there
        with end.enter(), PassToSocket() as program:
            with pytest.raises(XdpError, match=f"program {there} 'pass_to_socket'.*left as it") as caught:
                program.attach("eth0")
            assert caught.value.errno == number
        assert xdp_on(end) == there
        end.ip(f"link set dev eth0 {theirs} off")
        with end.enter(), PassToSocket() as program, program.attach("eth0"):
            assert xdp_on(end) not in (0, there)


def test_our_link_cannot_be_replaced_by_ip(right: Host) -> None:
    with right.enter(), PassToSocket() as program, program.attach("eth0"):
        there = xdp_on(right)
        done = right.run(["ip", "link", "set", "dev", "eth0", "xdpdrv", "off"], check=False)
        assert done.returncode
        assert xdp_on(right) == there


def test_kill_9_leaves_no_program(right: Host) -> None:
    argv = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-P", "-c", HOLDER]
    holder = right.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout
    assert holder.stdout.readline() == "attached\n"
    assert xdp_on(right)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    wait_for(lambda: not xdp_on(right), "no program on eth0")
    with right.enter(), Umem(64) as umem, XskSocket(umem, "eth0"), PassToSocket() as program:
        program.attach("eth0").close()


def test_an_mtu_that_is_too_large() -> None:
    with cable() as (left, end):
        left.ip("link set eth0 mtu 9000")
        with end.enter(), PassToSocket() as program:
            with pytest.raises(XdpError, match="peer is above 3506.*eth0 itself has MTU 1500") as caught:
                program.attach("eth0")
            assert caught.value.errno == ERANGE
            left.ip("link set eth0 mtu 3506")
            program.attach("eth0").close()


def test_too_few_rx_queues() -> None:
    with cable(queues=2) as (_, end):
        end.run(["ethtool", "-L", "eth0", "rx", "1"])
        with end.enter(), PassToSocket() as program:
            with pytest.raises(XdpError, match="eth0 has 1 RX queues and its veth peer more TX") as caught:
                program.attach("eth0")
            assert caught.value.errno == ENOSPC


def test_no_native_mode(right: Host) -> None:
    with right.enter(), PassToSocket() as program:
        with pytest.raises(XdpError, match="attaching an XDP program on lo: .*mode='generic'") as caught:
            program.attach("lo")
        assert caught.value.errno == EOPNOTSUPP
        with pytest.raises(XdpError, match="nowhere0") as caught:
            program.attach("nowhere0")
        assert caught.value.errno == ENODEV
        with pytest.raises(ValueError, match="mode 'fast'"):
            program.attach("lo", "fast")  # type: ignore[arg-type]


def test_what_is_no_object() -> None:
    with pytest.raises(XdpError, match="opening a BPF object: Exec format error") as caught:
        XdpProgram(b"not an ELF file")
    assert caught.value.errno == ENOEXEC
    with pytest.raises(XdpError, match="/nonexistent") as caught:
        XdpProgram("/nonexistent")
    assert caught.value.errno == ENOENT
    with XdpProgram(bpf_object("pass_to_socket").read_bytes(), "another") as program:
        with pytest.raises(XdpError, match="no program another"):
            program.fileno()


BAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int bad(struct xdp_md *context) { return *(int *)(long)context->data; }
char LICENSE[] SEC("license") = "GPL";
"""


def test_the_verifier_is_quoted(tmp_path: Path) -> None:
    source, target = tmp_path / "bad.bpf.c", tmp_path / "bad.o"
    source.write_text(BAD)
    include = [f"-I{folder}" for folder in Path("/usr/include").glob("*-linux-gnu")]
    subprocess.run(["clang", "-O2", "-g", "-target", "bpf", *include, "-c", source, "-o", target], check=True)
    with XdpProgram(target) as program:
        with pytest.raises(XdpError, match=r"(?s)verifier refused it:.*invalid access to packet") as caught:
            program.fileno()
        assert caught.value.errno in (EACCES, EINVAL)


def test_without_a_bpf_file_system_there_is_no_dispatcher(right: Host) -> None:
    hidden = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /sys && exec "$@"', "sh"]
    said = python(right, DISPATCH, *hidden)
    assert said.startswith(f"{ENOENT} ")
    assert "there is none at /sys/fs/bpf" in said
    assert "use attach()" in said
    assert not xdp_on(right)


def test_the_dispatcher_works_or_says_why_not(right: Host) -> None:
    """Whether a host can load it is not ours to decide; nothing may stay behind when it cannot."""
    said = python(right, DISPATCH, *OWN_BPF_FS)
    refused = said.startswith(f"{EOPNOTSUPP} ") and "the program would exclude others; use attach()" in said
    assert said == "dispatched\n" or refused, said
    assert not xdp_on(right)


def test_a_loaded_program_is_not_for_the_dispatcher(right: Host) -> None:
    with right.enter(), PassToSocket() as program:
        program.accept()
        with pytest.raises(XdpError, match="loaded on its own"):
            program.attach_with_dispatcher("eth0")
