"""The frames of any number of flows, made and steered in C: what flows.py measures with.

Lives here: the shim, and what it is called with. What is measured, and the bounds, are in flows.py.
"""

from __future__ import annotations

from pathlib import Path

from cffi import FFI

from l4raw.engine.shared import SharedTables
from tests.bench.helper import CLOCK, TURN_ROUND
from tests.bench.yardstick import YARDSTICK, Rounds
from tests.variants import COMPILE_ARGS, INCLUDE_DIRS, ROOT, load, sources

SHIM = f"""
{CLOCK}
{YARDSTICK}
{TURN_ROUND}
#include "helper.h"

static uint8_t buffers[L4_BURST][64] __attribute__((aligned(64)));

/* The frame of flow `number`: the template with another client, and the checksum of its header. */
static void write_frame(uint8_t *to, const uint8_t *from, uint32_t number)
{{
	uint32_t client = 0x0a010000u + (number >> 14), sum = (client >> 16) + (client & 0xffff), i;
	uint16_t port = __builtin_bswap16((uint16_t)(1024 + (number & 0x3fff)));

	for (i = 14; i < 34; i += 2)
		if (i != 24 && i != 26 && i != 28)
			sum += (uint32_t)from[i] << 8 | from[i + 1];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = ~((sum & 0xffff) + (sum >> 16));
	memcpy(to, from, 64);
	to[24] = (uint8_t)(sum >> 8);
	to[25] = (uint8_t)sum;
	client = __builtin_bswap32(client);
	memcpy(to + 26, &client, 4);
	memcpy(to + 34, &port, 2);
}}

/*
 * For each burst of flows from `first` on the frames of every template, one template
 * after the other; a template that begins with 0xff is the answer to the frame before it, and has the MAC
 * of its arm; what follows it comes STREAM_MS later. Nanoseconds of this thread; `verdicts` gets counts, the
 * last one is the misses'.
 */
uint64_t lives(const struct l4_tables *tables, const uint8_t *templates, uint32_t kinds, uint32_t size,
	uint32_t first, uint32_t count, int steer, uint64_t *verdicts)
{{
	struct l4_frame frames[L4_BURST];
	struct l4_result results[L4_BURST];
	uint64_t start;
	uint32_t i, j, kind, now;

	for (j = 0; j < L4_BURST; j++)
		frames[j] = (struct l4_frame){{ .data = buffers[j], .size = size }};
	start = now_ns();
	for (i = 0; i < count; i += L4_BURST) {{
		now = count - i < L4_BURST ? count - i : L4_BURST;
		for (kind = 0; kind < kinds; kind++) {{
			const uint8_t *template = templates + 64 * kind;
			uint32_t arm = template[0] == 0xff;

			for (j = 0; j < now; j++) {{
				frames[j].arm = arm;
				if (arm)
					turn_round(buffers[j], template + 1);
				else
					write_frame(buffers[j], template, first + i + j);
			}}
			__asm__ __volatile__("" : : "r"(buffers) : "memory");
			if (!steer)
				continue;
			l4_steer_burst(tables, frames, now, results);
			for (j = 0; j < now; j++) {{
				l4_count(tables, &results[j], size);
				verdicts[results[j].verdict]++;
			}}
			tables->control->now += arm * L4_STREAM_MS;
		}}
	}}
	return now_ns() - start;
}}
"""


class Shim:
    """The shim, compiled, with the frames of one protocol."""

    def __init__(self, folder: Path) -> None:
        ffi = FFI()
        ffi.cdef(
            "double yardstick(void);"
            "uint64_t lives(const void *, const uint8_t *, uint32_t, uint32_t, uint32_t, uint32_t, int,"
            " uint64_t *);"
        )
        ffi.set_source(
            "flows_shim",
            SHIM,
            sources=sources(ROOT),
            include_dirs=[str(ROOT / place) for place in INCLUDE_DIRS],
            extra_compile_args=[*COMPILE_ARGS, "-w"],
        )
        ffi.compile(tmpdir=str(folder))
        self._module = load(next(folder.glob("flows_shim*.so")), "flows_shim")
        self.rounds = Rounds(self._module)

    def run(
        self, tables: SharedTables, frames: list[bytes], count: int, first: int = 0, steer: bool = True
    ) -> tuple[int, dict[int, int]]:
        """`frames` of each of `count` flows: ns of the thread, and verdicts by number."""
        ffi = self._module.ffi
        verdicts = ffi.new("uint64_t[256]")
        templates = b"".join(frame.ljust(64, b"\0") for frame in frames)
        size = len(frames[0])
        view = tables.view(0)
        ns = self._module.lib.lives(view, templates, len(frames), size, first, count, steer, verdicts)
        return int(ns), {number: n for number, n in enumerate(verdicts) if n}
