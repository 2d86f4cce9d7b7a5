"""BPF_PROG_RUN through l4raw.xdp: a trial, and live frames. Needs no network."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from errno import E2BIG, EINVAL

import pytest

from l4raw.bench.frames import KNOWN, NEW, PORT, Ends, datagram, segment
from l4raw.bench.generator import STATE, Order, Stream, pack
from l4raw.bench.histogram import BUCKETS, Histogram
from l4raw.bench.sink import CLASS, CONFIG
from l4raw.wire import ipv4, tcp
from l4raw.wire.checksum import add, header_is_valid, pseudo_header
from l4raw.xdp import XdpError, XdpProgram
from l4raw.xdp.native import bpf_object

pytestmark = [pytest.mark.root, pytest.mark.xdp]

DROP, PASS, REDIRECT = 1, 2, 4
"""enum xdp_action"""
KEY = bytes(4)
ENDS = Ends(bytes(6), bytes(6), bytes((10, 77, 0, 100)))
FRAME = datagram(ENDS)


@pytest.fixture
def sink() -> Iterator[XdpProgram]:
    with XdpProgram(bpf_object("sink"), "sink") as program:
        yield program


def counted(sink: XdpProgram) -> int:
    """Frames of known flows."""
    return int.from_bytes((sink.maps[".data.classes"].get(KEY) or b"")[:8], sys.byteorder)


def test_a_trial_says_what_the_program_did_with_the_frame(sink: XdpProgram) -> None:
    ran = sink.run(FRAME.frame, repeat=3)
    assert (ran.action, ran.frame) == (DROP, FRAME.frame)
    assert counted(sink) == 3
    for other in (FRAME.frame[:18] + bytes(2) + FRAME.frame[20:], FRAME.frame[:59]):
        assert sink.run(other).action == PASS
    assert counted(sink) == 3


def test_the_sink_looks_behind_the_headers_of_a_tunnel(sink: XdpProgram) -> None:
    sink.maps[".data.config"].put(KEY, CONFIG.pack(20, False, False))
    assert sink.run(FRAME.frame[:14] + bytes(20) + FRAME.frame[14:]).action == DROP
    assert sink.run(FRAME.frame).action == PASS
    assert counted(sink) == 1


@pytest.mark.parametrize("delay", [9, 11, 13, 15])
def test_the_sink_knows_a_time_to_a_sixteenth(sink: XdpProgram, delay: int) -> None:
    """Seconds in one octave, 2^33 to 2^34 ns."""
    sink.maps[".data.config"].put(KEY, CONFIG.pack(0, True, False))
    sent_at = time.monotonic_ns() - delay * 10**9 & (1 << 48) - 1
    sink.run(FRAME.frame[:54] + sent_at.to_bytes(6, sys.byteorder))
    frames, _, _, *buckets = CLASS.unpack((sink.maps[".data.classes"].get(KEY) or b"")[: CLASS.size])
    assert frames == 1 and not any(buckets[:BUCKETS])
    assert delay * 10**9 <= Histogram(buckets[BUCKETS:]).percentile(0.99) <= delay * 1.0625 * 10**9


def is_right(frame: bytes) -> bool:
    """Both checksums, of UDP and TCP."""
    rest = frame[34:]
    pseudo = pseudo_header(frame[26:30], frame[30:34], frame[23], len(rest))  # type: ignore[arg-type]
    return header_is_valid(frame[14:34]) and (pseudo + add(rest)) % 0xFFFF == 0


def made(name: str, order: Order, count: int) -> list[bytes]:
    """The first frames of an order."""
    with XdpProgram(bpf_object("generator"), name) as program:
        program.maps[".data.config"].put(KEY, pack(ENDS, 1, order))
        ran = [program.run(bytes(60)) for _ in range(count)]
        found = STATE.unpack(program.maps[".data.state"].get(KEY) or b"")
    assert all(each.action == REDIRECT for each in ran)
    assert (found[2], found[4] + found[9]) == (count, count)
    return [each.frame for each in ran]


@pytest.mark.parametrize("name", ["generate", "flood"])
def test_a_trial_returns_the_frame_as_it_was_left(name: str) -> None:
    (frame,) = made(name, Order([Stream(rate=1e9, flows=1)], 60, name == "flood"), 1)
    assert frame[:24] == FRAME.frame[:24] and frame[26:30] == bytes((198, 18, 0, 0))
    assert is_right(frame)
    assert (frame[54:] == bytes(6)) == (name == "flood"), "a flood has no time stamps"


@pytest.mark.parametrize("kind", [KNOWN, NEW])
def test_flows_take_turns_in_a_flood(kind: int) -> None:
    """Of known flows, three; new ones never end."""
    order = Order([Stream(kind, flows=3, frames=2, opens=True)], 60, True, ipv4.TCP)
    frames = made("flood", order, 8)
    ports = [int.from_bytes(frame[34:36]) for frame in frames]
    first, last = ports[0], 0 if kind == KNOWN else 3
    assert [port - first for port in ports] == [0, 0, 1, 1, 2, 2, last, last]
    assert [frame[47] for frame in frames] == [tcp.SYN, tcp.ACK | tcp.PSH] * 4
    assert all(is_right(frame) for frame in frames)


@pytest.mark.parametrize("protocol", [ipv4.UDP, ipv4.TCP])
def test_the_sink_answers(sink: XdpProgram, protocol: int) -> None:
    """A SYN by a SYN-ACK, which the generator's next segment acknowledges."""
    ask, further = made("flood", Order([Stream(frames=2, opens=True)], 60, True, protocol), 2)
    sink.maps[".data.config"].put(KEY, CONFIG.pack(0, False, True))
    ran = sink.run(ask)
    assert ran.action == REDIRECT and is_right(ran.frame)
    assert ran.frame[:12] == ask[6:12] + ask[:6]
    assert ran.frame[26:34] == ask[30:34] + ask[26:30]
    assert ran.frame[34:38] == ask[36:38] + ask[34:36] == PORT.to_bytes(2, "big") + ask[34:36]
    if protocol == ipv4.TCP:
        assert ran.frame[47] == tcp.SYN | tcp.ACK
        server, client = int.from_bytes(ran.frame[38:42]), int.from_bytes(ran.frame[42:46])
        assert (int.from_bytes(further[38:42]), int.from_bytes(further[42:46])) == (client, server + 1)
        assert segment(ENDS, tcp.SYN).frame[38:42] == (client - 1).to_bytes(4, "big")


def test_live_frames_meet_the_program_one_by_one(sink: XdpProgram) -> None:
    assert sink.run_live(FRAME.frame, repeat=1000, batch=100)
    assert counted(sink) == 1000


def test_a_signal_ends_live_frames(sink: XdpProgram) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGUSR1))
    timer.start()
    try:
        assert not sink.run_live(FRAME.frame, repeat=(1 << 31) - 1)
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
    assert heard and counted(sink) > 0


def test_the_kernels_refusal_is_an_error(sink: XdpProgram) -> None:
    with pytest.raises(XdpError, match="running a BPF program") as caught:
        sink.run(b"short")
    assert caught.value.errno == EINVAL
    with pytest.raises(XdpError) as caught:
        sink.run_live(FRAME.frame, repeat=1, batch=257)
    assert caught.value.errno == E2BIG
