"""BPF_PROG_RUN through l4raw.xdp: a trial, and live frames. Needs no network."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from errno import E2BIG, EINVAL

import pytest

from l4raw.xdp import XdpError, XdpProgram
from l4raw.xdp.native import bpf_object
from tests.bench.histogram import BUCKETS, Histogram
from tests.bench.load_frame import MAGIC, load_frame
from tests.bench.xdp_generator import STATE, Order, pack
from tests.bench.xdp_sink import CLASS

pytestmark = [pytest.mark.root, pytest.mark.xdp]

DROP, PASS, REDIRECT = 1, 2, 4
"""enum xdp_action"""
KEY = bytes(4)
FRAME = load_frame(bytes(6), bytes(6), bytes((10, 77, 0, 100)))


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
    assert sink.run(FRAME.frame.replace(MAGIC, bytes(8))).action == PASS
    assert counted(sink) == 3


@pytest.mark.parametrize("delay", [9, 11, 13, 15])
def test_the_sink_knows_a_time_to_a_quarter(sink: XdpProgram, delay: int) -> None:
    """Seconds in the four buckets of one octave, 2^33 to 2^34 ns."""
    sent_at = time.monotonic_ns() - delay * 10**9
    sink.run(FRAME.frame[:44] + sent_at.to_bytes(8, sys.byteorder) + MAGIC)
    frames, _, _, *buckets = CLASS.unpack((sink.maps[".data.classes"].get(KEY) or b"")[: CLASS.size])
    assert frames == 1 and not any(buckets[:BUCKETS])
    assert delay * 10**9 <= Histogram(buckets[BUCKETS:]).percentile(0.99) <= delay * 1.25 * 10**9


def test_a_trial_returns_the_frame_as_it_was_left() -> None:
    with XdpProgram(bpf_object("generator"), "generate") as program:
        program.maps[".data.config"].put(KEY, pack(FRAME, 1, Order(1e9, 60, 1, 0, 1)))
        ran = program.run(bytes(60))
        _, attempts, *_, known, new, _, _, _ = STATE.unpack(program.maps[".data.state"].get(KEY) or b"")
    assert ran.action == REDIRECT
    assert ran.frame[:24] == FRAME.frame[:24] and ran.frame[26:30] == bytes((198, 18, 0, 0))
    assert (attempts, known, new) == (1, 1, 0)


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
