"""AF_XDP sockets against the kernel's own traffic over veth, without a balancer."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import time
from collections.abc import AsyncGenerator, Iterator
from errno import EBUSY, EINVAL, ENODEV, EOPNOTSUPP
from pathlib import Path

import pytest
from l4raw.netns import Host
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from l4raw.xdp import Accounting, Frame, FrameError, PassToSocket, Umem, XdpError, XskSocket, aframes
from tests.integration.xdp_lab import (
    DEADLINE,
    ECHO,
    LEFT,
    LEFT_MAC,
    RIGHT,
    RIGHT_MAC,
    cable,
    opened,
    received,
    udp,
)  # fmt: skip

pytestmark = [pytest.mark.root, pytest.mark.xdp]

FRAMES = 256


@pytest.fixture(scope="module")
def ends() -> Iterator[tuple[Host, Host]]:
    with cable() as both:
        yield both


@pytest.fixture
def umem() -> Iterator[Umem]:
    with Umem(FRAMES) as made:
        yield made


def datagram(content: bytes, sport: int = 4000, dport: int = 4001) -> bytes:
    """From right to left, with all checksums."""
    packet = Ether(src=RIGHT_MAC, dst=LEFT_MAC) / IP(src=RIGHT, dst=LEFT)
    return bytes(packet / UDP(sport=sport, dport=dport) / content)


async def first(stream: AsyncGenerator[Frame, None]) -> Frame:
    return await anext(stream)


def test_what_a_kernel_sends_is_received_in_order(ends: tuple[Host, Host], umem: Umem) -> None:
    left, right = ends
    with opened(right, "eth0", umem=umem, accept=(socket.IPPROTO_UDP, ECHO)) as (xsk,), udp(left) as sender:
        for number in range(100):
            sender.sendto(b"number %d" % number, (RIGHT, ECHO))
        frames = received(xsk, 100)
        packets = [Ether(bytes(frame)) for frame in frames]
        assert [bytes(packet[UDP].payload) for packet in packets] == [b"number %d" % n for n in range(100)]
        assert {(packet.src, packet[IP].dst) for packet in packets} == {(LEFT_MAC, RIGHT)}
        assert umem.check() == Accounting(free=FRAMES - 228, fill=128, rx=100, tx=0, completion=0)
        umem.free(frames)
        xsk.refill()
        assert umem.check() == Accounting(free=128, fill=128, rx=0, tx=0, completion=0)
        assert not xsk.statistics().rx_dropped


def test_what_is_not_asked_for_goes_to_the_kernel(ends: tuple[Host, Host], umem: Umem) -> None:
    left, right = ends
    with opened(right, "eth0", umem=umem, accept=(socket.IPPROTO_UDP, ECHO)) as (xsk,):
        with udp(left) as sender, udp(right, 5000) as listener:
            sender.sendto(b"for the kernel", (RIGHT, 5000))
            assert listener.recv(100) == b"for the kernel"
            left.run(["ping", "-c1", "-W5", RIGHT])
            sender.sendto(b"for the socket", (RIGHT, ECHO))
            (frame,) = received(xsk, 1)
            assert bytes(frame).endswith(b"for the socket")
            assert not xsk.wait(0)


def test_a_rule_that_is_taken_back_no_longer_counts(ends: tuple[Host, Host], umem: Umem) -> None:
    left, right = ends
    with right.enter(), PassToSocket() as program, XskSocket(umem, "eth0") as xsk:
        program.sockets.update(0, xsk)
        program.accept(socket.IPPROTO_UDP)
        program.accept(socket.IPPROTO_TCP, 80)
        assert program.refuse(socket.IPPROTO_UDP)
        assert not program.refuse(socket.IPPROTO_UDP)
        with program.attach("eth0"), udp(left) as sender, udp(right, 5001) as listener:
            sender.sendto(b"x", (RIGHT, 5001))
            assert listener.recv(10) == b"x"
            assert not xsk.wait(0)


def test_a_queue_without_a_socket_passes_to_the_kernel(ends: tuple[Host, Host], umem: Umem) -> None:
    left, right = ends
    with right.enter(), PassToSocket() as program, XskSocket(umem, "eth0") as xsk:
        program.accept()
        program.sockets.update(0, xsk)
        program.sockets.delete(0)
        program.sockets.delete(0)
        with program.attach("eth0"):
            left.run(["ping", "-c1", "-W5", RIGHT])
        assert not xsk.wait(0)


def test_what_is_sent_reaches_a_kernel(ends: tuple[Host, Host], umem: Umem) -> None:
    left, right = ends
    with right.enter():
        xsk = XskSocket(umem, "eth0", fill=64)
    with xsk, udp(left, 4001) as listener:
        for start in range(0, 400, 100):
            frames = umem.alloc(100)
            for number, frame in enumerate(frames, start):
                frame.write(datagram(b"%d" % number))
            assert xsk.send(frames) == 100
            assert [int(listener.recv(100)) for _ in frames] == list(range(start, start + 100))
            assert umem.check().rx == 0
        while umem.check().completion + umem.check().tx:
            xsk.reclaim()
        assert umem.check() == Accounting(free=FRAMES - 64, fill=64, rx=0, tx=0, completion=0)


def test_more_than_the_ring_holds_stays_with_the_caller(ends: tuple[Host, Host], umem: Umem) -> None:
    with ends[1].enter(), XskSocket(umem, "eth0", rx=0, tx=16) as xsk:
        frames = umem.alloc(40)
        for frame in frames:
            frame.write(datagram(b"x"))
        assert xsk.send(frames) == 16
        assert umem.check().rx == 24
        umem.free(frames[16:])
        with pytest.raises(FrameError, match="sent or released"):
            umem.free(frames[:1])


def test_a_frame_in_two_places_is_refused(ends: tuple[Host, Host], umem: Umem) -> None:
    with ends[1].enter(), XskSocket(umem, "eth0", fill=16) as xsk, Umem(16) as foreign:
        one, two, three = umem.alloc(3)
        for frame in (one, two, three):
            frame.write(datagram(b"x"))
        before = umem.check()
        with pytest.raises(FrameError, match="not held, or there twice"):
            xsk.send([two, one, one])
        assert umem.check() == before
        again = Frame(umem, one.address, len(one))
        assert xsk.send([one]) == 1
        with pytest.raises(FrameError, match="was sent or released"):
            xsk.send([one])
        while umem.check().tx + umem.check().completion:
            xsk.reclaim()
        with pytest.raises(FrameError, match="not held, or there twice"):
            xsk.send([two, again])  # its chunk is free
        filled = next(index for index, state in enumerate(umem.pool.state) if state == 2)
        with pytest.raises(FrameError, match="not held, or there twice"):
            xsk.send([Frame(umem, filled * umem.frame_size + 256, 60)])
        (stranger,) = foreign.alloc(1)
        with pytest.raises(FrameError, match="another UMEM"):
            xsk.send([stranger])
        with pytest.raises(FrameError, match="another UMEM"):
            umem.free([stranger])
        assert umem.check().rx == 2
        assert xsk.send([two, three]) == 2


def test_a_frame_that_vanishes_is_noticed(umem: Umem) -> None:
    umem.check()
    umem.pool.pop(1)
    with pytest.raises(FrameError, match="255 of 256 frames are accounted for"):
        umem.check()


def test_mode_and_rings(ends: tuple[Host, Host], umem: Umem) -> None:
    with ends[1].enter(), XskSocket(umem, "eth0", copy=True, tx=0) as xsk:
        assert (xsk.mode, xsk.zero_copy) == ("copy", False)
        assert xsk.rings.rx
        assert not xsk.rings.tx
        assert xsk.fileno() > 2
        with pytest.raises(ValueError, match="no TX ring"):
            xsk.send([])


def test_zero_copy_that_is_not_there_is_refused(ends: tuple[Host, Host], umem: Umem) -> None:
    with ends[1].enter():
        with pytest.raises(XdpError, match="eth0, queue 0: .*no zero-copy mode.*copy=True") as caught:
            XskSocket(umem, "eth0", copy=False)
        assert caught.value.errno == EOPNOTSUPP
        # The refusal left nothing behind, such as an RX ring of another size.
        with XskSocket(umem, "eth0", rx=32, fill=64) as xsk, PassToSocket() as program:
            assert xsk.mode == "copy"
            program.sockets.update(0, xsk)
            program.accept(socket.IPPROTO_UDP, ECHO)
            with program.attach("eth0"), udp(ends[0]) as sender:
                for number in range(100):
                    sender.sendto(b"%d" % number, (RIGHT, ECHO))
                    (frame,) = received(xsk, 1)
                    assert bytes(frame).endswith(b"%d" % number)
                    frame.release()


def test_two_queues_get_each_its_own(umem: Umem) -> None:
    with cable(queues=2) as (left, right), right.enter(), PassToSocket() as program:
        with XskSocket(umem, "eth0", 0, fill=64) as first, XskSocket(umem, "eth0", 1, fill=64) as second:
            for queue, xsk in enumerate((first, second)):
                program.sockets.update(queue, xsk)
            program.accept(socket.IPPROTO_UDP, ECHO)
            with program.attach("eth0"):
                for _ in range(64):  # a source port each, so that they spread
                    with udp(left) as sender:
                        sender.sendto(b"x", (RIGHT, ECHO))
                counts = [0, 0]
                deadline = time.monotonic() + DEADLINE
                while sum(counts) < 64:
                    assert time.monotonic() < deadline, counts
                    for queue, xsk in enumerate((first, second)):
                        frames = xsk.receive()
                        counts[queue] += len(frames)
                        umem.free(frames)
                assert sum(counts) == 64
                assert min(counts) > 0
                assert sum(umem.check()) == FRAMES
            with pytest.raises(XdpError, match="RX queues: 2, numbered from 0") as caught:
                XskSocket(umem, "eth0", 2)
            assert caught.value.errno == EINVAL


def test_close_and_rebind_at_once(ends: tuple[Host, Host], umem: Umem) -> None:
    with ends[1].enter():
        busy = 0
        for _ in range(5):
            with XskSocket(umem, "eth0"):
                pass
            try:
                XskSocket(umem, "eth0", timeout=0).close()
            except XdpError as error:
                busy += error.errno == EBUSY
            with XskSocket(umem, "eth0") as xsk:  # waits
                assert xsk.mode == "copy"
            assert umem.check().free == FRAMES
        assert busy, "the kernel was never slow to free the queue: this test proves nothing"


def test_an_owned_queue_stays_owned(ends: tuple[Host, Host], umem: Umem) -> None:
    with ends[1].enter(), XskSocket(umem, "eth0"), Umem(16) as other:
        begin = time.monotonic()
        with pytest.raises(XdpError, match="eth0, queue 0.*another AF_XDP socket has this queue") as caught:
            XskSocket(other, "eth0", timeout=0.1)
        assert caught.value.errno == EBUSY
        assert 0.1 <= time.monotonic() - begin < 1
        with pytest.raises(XdpError, match="this UMEM has a socket on this queue already"):
            XskSocket(umem, "eth0")


def test_no_such_interface(umem: Umem) -> None:
    with pytest.raises(XdpError, match="nowhere0: .*in this network namespace") as caught:
        XskSocket(umem, "nowhere0")
    assert caught.value.errno == ENODEV


def test_closing_in_any_order(umem: Umem) -> None:
    with cable(queues=2) as (left, right), right.enter(), PassToSocket() as program:
        first, second = XskSocket(umem, "eth0", 0, fill=64), XskSocket(umem, "eth0", 1, fill=64)
        for queue, xsk in enumerate((first, second)):
            program.sockets.update(queue, xsk)
        program.accept()
        first.close()
        first.close()
        # Its descriptor is the UMEM's: it keeps the queue and its frames until the last one closes.
        assert umem.check().fill == 128
        assert first.fileno() == -1
        with pytest.raises(ValueError, match="closed"):
            first.receive()
        with program.attach("eth0"):
            while not second.wait(0):
                with udp(left) as sender:
                    sender.sendto(b"x", (RIGHT, ECHO))
            umem.free(second.receive())
        second.close()
        assert umem.check().free == FRAMES
        with XskSocket(umem, "eth0", 0), XskSocket(umem, "eth0", 1):
            assert sum(umem.check()) == FRAMES
            umem.close()
        umem.close()


def test_frames_outlive_their_umem(ends: tuple[Host, Host]) -> None:
    with ends[1].enter(), Umem(16) as umem, XskSocket(umem, "eth0", fill=4):
        (frame,) = umem.alloc(1)
        frame.write(b"still here")
    assert bytes(frame.data) == b"still here"
    with pytest.raises(ValueError, match="closed"):
        umem.alloc(1)


def test_what_is_forgotten_is_closed(ends: tuple[Host, Host]) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    gc.collect()
    before = descriptors()
    with ends[1].enter():
        program = PassToSocket()
        forgotten = [Umem(64), program.attach("eth0"), program]
        forgotten.append(XskSocket(forgotten[0], "eth0"))  # type: ignore[arg-type]
    assert descriptors() > before
    with pytest.warns(ResourceWarning, match="unclosed"):
        del forgotten, program
        gc.collect()
    assert descriptors() == before


def test_asyncio(ends: tuple[Host, Host], umem: Umem) -> None:
    left, right = ends

    async def take(xsk: XskSocket, count: int) -> list[bytes]:
        found = []
        stream = aframes(xsk)
        async for frame in stream:
            found.append(bytes(frame)[42:])
            frame.release()
            if len(found) == count:
                break
        await stream.aclose()
        return found

    async def run(xsk: XskSocket) -> list[bytes]:
        waiting = asyncio.create_task(take(xsk, 50))
        await asyncio.sleep(0)  # it waits now, and the loop goes on
        sender = udp(left)
        with sender:
            for number in range(60):
                sender.sendto(b"%02d" % number, (RIGHT, ECHO))
        return await asyncio.wait_for(waiting, DEADLINE)

    with opened(right, "eth0", umem=umem, accept=(socket.IPPROTO_UDP, ECHO)) as (xsk,):
        assert asyncio.run(run(xsk)) == [b"%02d" % number for number in range(50)]
        assert umem.check().rx == 0


def test_an_interface_that_goes_is_an_error(umem: Umem) -> None:
    with cable() as (_, right), right.enter(), XskSocket(umem, "eth0") as xsk:
        assert not xsk.wait(0)
        right.ip("link del eth0")
        for _ in range(2):
            with pytest.raises(XdpError, match="waiting on eth0, queue 0: Network is down"):
                xsk.wait(0)
        with pytest.raises(XdpError, match="waiting on eth0, queue 0: Network is down"):
            asyncio.run(first(aframes(xsk)))
        (frame,) = umem.alloc(1)
        frame.write(datagram(b"x"))
        with pytest.raises(XdpError, match="sending on eth0"):
            xsk.send([frame])


def test_descriptors_do_not_leak_into_children(umem: Umem, ends: tuple[Host, Host]) -> None:
    with opened(ends[1], "eth0", umem=umem) as (xsk,):
        assert not os.get_inheritable(xsk.fileno())
