"""What l4_steer costs in memory: no socket, frames that are in the cache, 1,000 and 1,000,000 flows.

    .venv/bin/python -m tests.bench.helper

A shim in C, compiled here, calls the product's functions in a loop, so that
Python is not measured. Frames of known flows in random order; the same few
buffers, in which addresses and ports are written before each call, and what
the shim does for that is measured without the call and taken off. Rounds count
in which the core was not shared: see yardstick.py.
"""

from __future__ import annotations

import platform
import sys
import tempfile
from functools import partial
from mmap import MADV_NOHUGEPAGE, MAP_ANONYMOUS, MAP_PRIVATE, mmap
from pathlib import Path
from random import Random
from socket import htonl, htons
from struct import unpack
from typing import Any

from cffi import FFI

from l4raw.core.hashing import hash_key
from l4raw.core.model import Mode, Scheduler
from l4raw.core.room import bytes_for
from l4raw.core.tables import Arm, compile_policy
from l4raw.engine.layout import Sizes
from l4raw.engine.memory import Allocate, Memory, anonymous
from l4raw.engine.shared import SharedTables
from l4raw.wire import tcp
from tests.bench.yardstick import YARDSTICK, Rounds
from tests.crafted import TCP, Tuple5, build
from tests.tables import CLIENT_MAC, OUR_MACS, SEED, VIP, backends, ip, service
from tests.variants import COMPILE_ARGS, INCLUDE_DIRS, ROOT, load, sources

FLOWS = (1_000, 1_000_000)
CALLS = 1_000_000
MOST_NS = {
    (Mode.DSR_L2, 1_000): 30,
    (Mode.DSR_L2, 1_000_000): 60,
    (Mode.NAT, 1_000): 45,
    (Mode.NAT, 1_000_000): 90,
}
"""ns a frame in a burst, at most."""

CLOCK = r"""
#include <stdint.h>
#include <string.h>
#include <time.h>

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
"""

TURN_ROUND = r"""
/* The backend's SYN-ACK to the SYN that was forwarded to it, in its place: TCP without options. */
static void turn_round(uint8_t *frame, const uint8_t *mac)
{
	uint8_t addresses[8], ports[4];

	memcpy(addresses, frame + 26, 8);
	memcpy(ports, frame + 34, 4);
	memcpy(frame, mac, 6);
	memcpy(frame + 26, addresses + 4, 4);
	memcpy(frame + 30, addresses, 4);
	memcpy(frame + 34, ports + 2, 2);
	memcpy(frame + 36, ports, 2);
	frame[47] = 0x12;
}
"""

SHIM = (
    CLOCK
    + YARDSTICK
    + TURN_ROUND
    + r"""
#include "helper.h"

/* What differs between the frames of two flows. */
struct item { uint32_t saddr; uint16_t sport; uint16_t check; };

static void write_frame(uint8_t *to, const uint8_t *from, const struct item *item)
{
	memcpy(to, from, 64);
	memcpy(to + 24, &item->check, 2);
	memcpy(to + 26, &item->saddr, 4);
	memcpy(to + 34, &item->sport, 2);
}

static uint8_t buffers[L4_BURST][64] __attribute__((aligned(64)));

/* Nanoseconds of this thread for `count` frames; `how`: 0 writes them, 1 l4_steer, 2 l4_steer_burst. */
static uint64_t run(const struct l4_tables *tables, const uint8_t *from, uint32_t size,
	const struct item *items, uint32_t count, int how, uint64_t *sent)
{
	struct l4_frame frames[L4_BURST];
	struct l4_result results[L4_BURST];
	uint64_t start, forwarded = 0;
	uint32_t i, j;

	memset(results, 0, sizeof(results));
	for (j = 0; j < L4_BURST; j++)
		frames[j] = (struct l4_frame){ .data = buffers[j], .size = size };
	start = now_ns();
	for (i = 0; i + L4_BURST <= count; i += L4_BURST) {
		for (j = 0; j < L4_BURST; j++)
			write_frame(buffers[j], from, &items[i + j]);
		__asm__ __volatile__("" : : "r"(buffers) : "memory");
		for (j = 0; how == 1 && j < L4_BURST; j++)
			l4_steer(tables, &frames[j], &results[j]);
		if (how == 2)
			l4_steer_burst(tables, frames, L4_BURST, results);
		for (j = 0; j < L4_BURST; j++)
			forwarded += results[j].verdict == L4_FORWARD;
	}
	*sent = forwarded;
	return now_ns() - start;
}

/* Handshakes, one after the other; `mac`: of the arm that the backends answer on, NULL under DSR. */
static uint32_t establish(const struct l4_tables *tables, const uint8_t *syn, const uint8_t *ack,
	uint32_t size, const struct item *items, uint32_t count, const uint8_t *mac)
{
	struct l4_frame frame = { .data = buffers[0], .size = size };
	struct l4_result result;
	uint32_t i, sent = 0;

	for (i = 0; i < count; i++) {
		write_frame(frame.data, syn, &items[i]);
		l4_steer(tables, &frame, &result);
		if (mac) {
			turn_round(frame.data, mac);
			frame.arm = 1;
			l4_steer(tables, &frame, &result);
			frame.arm = 0;
		}
		write_frame(frame.data, ack, &items[i]);
		l4_steer(tables, &frame, &result);
		sent += result.verdict == L4_FORWARD;
	}
	return sent;
}
"""
)


def shim(folder: Path) -> Any:
    """The shim, with the helper compiled into it as setup.py does."""
    ffi = FFI()
    ffi.cdef("""
        struct item { uint32_t saddr; uint16_t sport; uint16_t check; };
        double yardstick(void);
        uint64_t run(const void *, const uint8_t *, uint32_t, const struct item *, uint32_t, int, uint64_t *);
        uint32_t establish(const void *, const uint8_t *, const uint8_t *, uint32_t, const struct item *,
                           uint32_t, const uint8_t *);
    """)
    ffi.set_source(
        "bench_shim",
        SHIM,
        sources=sources(ROOT),
        include_dirs=[str(ROOT / place) for place in INCLUDE_DIRS],
        extra_compile_args=[*COMPILE_ARGS, "-w"],
    )
    ffi.compile(tmpdir=str(folder))
    return load(next(folder.glob("bench_shim*.so")), "bench_shim")


def items(ffi: Any, template: bytearray, picks: list[int]) -> Any:
    """Addresses and ports of the flows with these numbers, and the IPv4 checksums that go with them."""
    array = ffi.new("struct item[]", len(picks))
    for item, number in zip(array, picks, strict=True):
        of = (10 << 24 | 1 << 16 | number >> 14, 1024 + (number & 0x3FFF))
        item.saddr, item.sport = htonl(of[0]), htons(of[1])
        total = sum(unpack("!10H", template[14:24] + b"\0\0" + of[0].to_bytes(4, "big") + template[30:34]))
        item.check = htons(~(total % 0xFFFF) & 0xFFFF)
    return array


def acknowledging(syn: bytearray) -> bytes:
    """What acknowledges the SYN-ACK that turn_round() makes, which has the sequence number of its SYN."""
    return (int.from_bytes(syn[38:42]) + 1).to_bytes(4)


def small_pages(name: str, size: int) -> Memory:
    """Memory in pages of 4 KiB, as the maps have that AF_XDP shares with its program."""
    memory = mmap(-1, size, flags=MAP_PRIVATE | MAP_ANONYMOUS)
    memory.madvise(MADV_NOHUGEPAGE)
    return memory


def tables_for(mode: Mode, flows: int, allocate: Allocate) -> SharedTables:
    """One service with three backends, and room for the flows."""
    arms = tuple(Arm(f"eth{i}", OUR_MACS[i]) for i in range(2))
    entries = flows * (2 if mode is Mode.NAT else 1)
    sizes = Sizes(bytes_for(entries * 100 // 70 // 4 + 256))
    tables = SharedTables(arms, hash_key(b"bench"), sizes, allocate)
    where = {b.address: (tables.next_hops.pin(1, CLIENT_MAC[:5] + b.address[3:]), 1) for b in backends()}
    tables.install(compile_policy([service(mode, Scheduler.MAGLEV)], where, SEED))
    return tables


def measure(
    module: Any, mode: Mode, flows: int, rounds: Rounds, allocate: Allocate = anonymous
) -> dict[str, float]:
    """Nanoseconds a frame, the median of rounds in which the three ways take turns."""
    ffi, lib = module.ffi, module.lib
    tables = tables_for(mode, flows, allocate)
    view = tables.view(0)
    of = Tuple5(ip("10.1.0.0"), 1024, VIP, 80, TCP)
    macs = (OUR_MACS[0], CLIENT_MAC)
    syn, ack = build(of, macs, tcp.SYN), build(of, macs, tcp.ACK, body=b"123456")
    size, sent = len(ack), ffi.new("uint64_t *")
    first, opened = items(ffi, syn, list(range(flows))), build(of, macs, tcp.ACK)
    opened[42:46] = acknowledging(syn)
    frames = (bytes(each).ljust(64, b"\0") for each in (syn, opened))
    answers = OUR_MACS[1] if mode is Mode.NAT else ffi.NULL
    made = lib.establish(view, *frames, len(syn), first, flows, answers)
    assert made == flows, f"{made} of {flows} flows were made"
    random = Random(1)
    again = items(ffi, ack, [random.randrange(flows) for _ in range(CALLS)])
    frame, ways = bytes(ack).ljust(64, b"\0"), (0, 1, 2)

    def run(how: int) -> float:
        ns: int = lib.run(view, frame, size, again, CALLS, how, sent)
        assert how == 0 or sent[0] == CALLS, "every frame is of a known flow"
        return ns / CALLS

    rounds.restart(ways)
    for _ in rounds.wanted():
        for how in ways:
            rounds.take(how, partial(run, how))
    base, one, burst = rounds.medians()
    return {"l4_steer": one - base, "l4_steer_burst": burst - base}


def bound(mode: Mode, flows: int, took: dict[str, float]) -> tuple[str, bool]:
    """What a burst may take at most, and whether it does."""
    ns, most = took["l4_steer_burst"], MOST_NS[mode, flows]
    return f"{mode}: l4_steer_burst, {flows:,} flows: {ns:.1f} ns a frame, at most {most}", ns <= most


def main() -> int:
    """Print a line for each mode and number of flows; 1 if a bound is missed."""
    met = True
    print(f"{platform.machine()}, rounds of {CALLS:,} frames, median, time of the thread")
    with tempfile.TemporaryDirectory(prefix="l4raw-bench.") as folder:
        module = shim(Path(folder))
        rounds = Rounds(module)
        for mode in (Mode.DSR_L2, Mode.NAT):
            for flows in FLOWS:
                took = measure(module, mode, flows, rounds)
                figures = ", ".join(f"{name} {ns:5.1f} ns" for name, ns in took.items())
                print(f"{mode:7} {flows:9,} flows: {figures} ({rounds})", flush=True)
                text, holds = bound(mode, flows, took)
                print(f"bound: {text}: {'met' if holds else 'missed'}", flush=True)
                met = met and holds
            burst = measure(module, mode, FLOWS[-1], rounds, small_pages)["l4_steer_burst"]
            print(f"{mode:7} {FLOWS[-1]:9,} flows: l4_steer_burst {burst:5.1f} ns in pages of 4 KiB")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
