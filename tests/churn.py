"""Several queues and Python at work on one table at once: what must hold meanwhile, and afterwards.

Queues are C threads that steer bursts of a few thousand frames, over and
over: SYNs to a DSR and a NAT service, and the backends' replies. Python
expires flows as fast as it can, and inserts some itself. The table is small,
so that it is full at times and its overflow area is used.

    .venv/bin/python -m tests.churn SECONDS [COMPILER FLAG ...]
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from cffi import FFI

from l4raw.core.entry import SIZE
from l4raw.core.flows import FlowTable
from l4raw.core.model import Mode, Scheduler
from l4raw.core.states import expire
from l4raw.core.steer import steer
from l4raw.core.tables import Arm, compile_policy
from l4raw.core.timeouts import Timeouts
from l4raw.engine import native
from l4raw.engine.layout import Sizes
from l4raw.engine.shared import SharedTables
from l4raw.wire import tcp
from l4raw.wire.abi import FLOW_HALF_OPEN, FLOW_UDP_NEW, STRIPES
from tests.crafted import TCP, Tuple5
from tests.crafted import build as make_frame
from tests.noise import KEY
from tests.tables import CLIENT_MAC, OUR_MACS, SEED, VIP, backends, counted, ip, service
from tests.variants import COMPILE_ARGS, INCLUDE_DIRS, ROOT, build, load

QUEUES = 3
MOST_S = 60.0
MEMORY = 1 << 17
HOPS = 40
ARMS = tuple(Arm(f"eth{i}", OUR_MACS[i]) for i in range(2))
CROWD, FEW = 1500, 25
"""Clients: so many that the table is full; so few that queues want the same flow at the same moment."""
PORT = 8080
_STRAYED = 3
"""Places that are nobody's until their turn: see l4_touch()."""

Beside = Callable[[bytes, Callable[[], bool]], None]
"""Is given the frames, of 64 bytes, and who tells that it is to end."""

SHIM = r"""
#include <string.h>
#include <linux/ip.h>
#include "memory.h"
#include "share.h"
#include "helper.h"

/* Those of the helper that is tested. */
static __typeof__(l4_steer_burst) *steer_burst;
static __typeof__(l4_count) *count_frame;
static __typeof__(l4_online) *online;
static __typeof__(l4_offline) *offline;

static void use(void *burst, void *count, void *on, void *off)
{
	steer_burst = burst;
	count_frame = count;
	online = on;
	offline = off;
}

/* As who has seen the flow half-open, at this place, a moment ago. */
int evict(const struct l4_tables *tables, uint32_t index, uint32_t generation, uint32_t place)
{
	return l4_free_flow_at(tables, index, generation, place, L4_HOPS_IN_LIST);
}

enum { SIZE = 54, FRAMES = 3 };    /* for each client: to DSR, to NAT, from the backends */

/* What a queue saw. `wrong`: frames that were sent, and not as they must be. */
struct seen { uint64_t sent, missed, other, wrong; };

static int is_right(const uint8_t *before, const uint8_t *after, unsigned verdict)
{
	uint32_t backend, vip = 0, sum = 0;
	int i;

	memcpy(&backend, after + 30, 4);
	memcpy(&vip, (uint8_t[]){ 10, 77, 0, 100 }, 4);
	for (i = 14; i < 34; i += 2)
		sum += (uint32_t)after[i] << 8 | after[i + 1];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	if (sum != 0xffff)
		return 0;
	if (verdict == L4_REPLY) /* as if the VIP had answered, at port 81 */
		return !memcmp(after + 26, &vip, 4) && !memcmp(after + 30, before + 30, 4) &&
			after[34] == 0 && after[35] == 81 && !memcmp(after + 36, before + 36, 2);
	if (memcmp(after + 26, before + 26, 4) || memcmp(after + 34, before + 34, 2))
		return 0;
	if (before[37] == 80) /* DSR: the VIP stays */
		return backend == vip && after[37] == 80;
	return after[30] == 10 && after[31] == 78 && after[36] == 0x1f && after[37] == 0x90;
}

static void churn(const struct l4_tables *tables, const uint8_t *frames, uint32_t count, uint32_t step,
	const volatile int *stop, struct seen *seen)
{
	static __thread uint8_t buffers[L4_BURST][64];
	const uint8_t *from[L4_BURST];
	struct l4_frame burst[L4_BURST];
	struct l4_result results[L4_BURST];
	uint32_t at = step, j;

	online(tables);
	while (!__atomic_load_n(stop, __ATOMIC_RELAXED)) {
		for (j = 0; j < L4_BURST; j++) {
			at = (at + step) % count;
			from[j] = frames + (size_t)at * 64;
			memcpy(buffers[j], from[j], 64);
			burst[j] = (struct l4_frame){ .data = buffers[j], .size = SIZE, .arm = at % FRAMES == 2 };
		}
		steer_burst(tables, burst, L4_BURST, results);
		for (j = 0; j < L4_BURST; j++) {
			count_frame(tables, &results[j], SIZE);
			if (results[j].verdict >= L4_SENT) {
				seen->missed += results[j].verdict == L4_MISS;
				seen->other += results[j].verdict != L4_MISS;
				continue;
			}
			seen->sent++;
			seen->wrong += !is_right(from[j], buffers[j], results[j].verdict);
		}
	}
	offline(tables);
}
"""
USED = ("l4_steer_burst", "l4_count", "l4_online", "l4_offline")
"""As use() takes them."""
DECLARED = """
    void use(void *, void *, void *, void *);
    int evict(const void *, uint32_t, uint32_t, uint32_t);
    struct seen { uint64_t sent, missed, other, wrong; };
    void churn(const void *, const uint8_t *, uint32_t, uint32_t, const int *, struct seen *);
"""


def shim(folder: Path, helper: Any = native, flags: tuple[str, ...] = ()) -> Any:
    """The shim, whose queues are steered by this helper: the installed one, or another build of it."""
    ffi = FFI()
    ffi.cdef(DECLARED)
    ffi.set_source(
        "churn_shim",
        SHIM,
        include_dirs=[str(ROOT / place) for place in INCLUDE_DIRS],
        extra_compile_args=[*COMPILE_ARGS, "-w", *flags],
        extra_link_args=list(flags),
    )
    ffi.compile(tmpdir=str(folder))
    module = load(next(folder.glob("churn_shim*.so")), "churn_shim")
    functions = (helper.ffi.addressof(helper.lib, name) for name in USED)
    module.lib.use(*(ffi.cast("void *", int(helper.ffi.cast("uintptr_t", each))) for each in functions))
    return module


def fresh() -> SharedTables:
    """Empty tables of this process alone."""
    return SharedTables(ARMS, KEY, Sizes(MEMORY, queues=QUEUES, next_hops=HOPS))


def fill(tables: SharedTables) -> None:
    """A DSR service at port 80, a NAT service at port 81."""
    where = {b.address: (tables.next_hops.pin(1, CLIENT_MAC[:5] + b.address[3:]), 1) for b in backends()}
    services = [
        service(scheduler=Scheduler.MAGLEV),
        service(Mode.NAT, Scheduler.MODULO, name="nat", port=81, members=backends(port=PORT)),
    ]
    short = Timeouts(40, 40, 40, 40)
    tables.install(compile_policy(services, where, SEED, {each.name: short for each in services}))


def make_frames(clients: int) -> bytes:
    """Three for each client, 64 bytes each."""
    random, frames = Random(1), []
    for number in range(clients):
        src, sport = ip(f"10.77.{1 + number // 200}.{1 + number % 200}"), 1000 + number
        mac = bytes([2, 0, 0, 0, 7, number % 24])
        there, back = (OUR_MACS[0], mac), (OUR_MACS[1], CLIENT_MAC)
        backend = random.choice(backends()).address
        frames.append(make_frame(Tuple5(src, sport, VIP, 80, TCP), there, tcp.SYN))
        frames.append(make_frame(Tuple5(src, sport, VIP, 81, TCP), there, tcp.SYN))
        frames.append(make_frame(Tuple5(backend, PORT, src, sport, TCP), back, tcp.ACK))
    return b"".join(bytes(frame).ljust(64, b"\0") for frame in frames)


def run(
    module: Any,
    seconds: float,
    clients: int,
    tables: SharedTables | None = None,
    beside: Beside | None = None,
    enough: Callable[[], bool] = lambda: True,
) -> Counter[str]:
    """Let them all work. What the queues saw, and Python; raises `AssertionError` for what must not be.

    `tables`: empty ones, if it is not this process alone that has them; `beside`: who else is at work on
    them, in a thread of its own. After `seconds` it goes on until it is `enough`, for MOST_S at most.
    """
    ffi, lib = module.ffi, module.lib
    tables, frames, stop = tables or fresh(), make_frames(clients), ffi.new("int *")
    fill(tables)
    seen = [ffi.new("struct seen *") for _ in range(QUEUES)]
    views = [tables.view(queue) for queue in range(QUEUES)]
    # A prime step, so that all frames come; the same two of them, so that two queues meet.
    threads = [
        threading.Thread(target=lib.churn, args=(view, frames, len(frames) // 64, step, stop, each))
        for view, step, each in zip(views, (7, 7, 1009), seen, strict=True)
    ]
    if beside:
        threads.append(threading.Thread(target=beside, args=(frames, lambda: bool(stop[0]))))
    for thread in threads:
        thread.start()
    total: Counter[str] = Counter()
    started = time.monotonic()
    try:
        while (spent := time.monotonic() - started) < seconds or (spent < MOST_S and not enough()):
            # Much faster than it is, as every flow is seen each few ms, or each few us.
            tables.now = int(spent * (100_000 if clients == CROWD else 20_000_000)) & 0xFFFF_FFFF
            total["expired"] += expire(tables, 400)
            at = Random(total["rounds"]).randrange(clients) * 192 + 64
            total["by python"] += steer(frames[at : at + 54], 0, 0, tables).forwarded
            if total["rounds"] % 50 == 0:
                tables.install(tables.policy)
                total["twice"] += len(twice(tables))
            total["rounds"] += 1
    finally:
        stop[0] = 1
        for thread in threads:
            thread.join()
    for each in seen:
        total.update(sent=each.sent, missed=each.missed, other=each.other, wrong=each.wrong)
    assert not total["wrong"], f"{total['wrong']} frames were sent, and not as they must be"
    assert not total["twice"], f"{total['twice']} keys were in the table twice"
    check(tables)
    tables.now += 1000
    for _ in range(2):
        expire(tables, tables.flows.entries + tables.flows.overflow)
    assert len(tables.flows) == 0 and len(tables.next_hops) == len(backends())
    check(tables)
    return total


def twice(tables: SharedTables) -> list[bytes]:
    """Keys that two entries have at the same moment."""
    flows = tables.flows
    seen: dict[bytes, tuple[int, int]] = {}
    found = []
    for index in [i for i in range(flows.entries + flows.overflow) if flows.buffer[i * SIZE + 37]]:
        key, lock = flows.key(index), flows.read(index).lock
        if key in seen and not any(stale(flows, *each) for each in (seen[key], (index, lock))):
            found.append(key)
        seen[key] = index, lock
    return found


def stale(flows: FlowTable, index: int, lock: int) -> bool:
    """Whether the entry is another than it was."""
    entry = flows.read(index)
    return not entry.state or entry.lock != lock


def check(tables: SharedTables) -> None:
    """What holds for a table that nobody is writing."""
    flows, control, at = tables.flows, tables.layout.control, tables.layout.at
    entries = {i: flows.read(i) for i in range(flows.entries + flows.overflow) if flows.read(i).state}
    assert not any(entry.lock & 1 for entry in entries.values()), "an entry is locked"
    assert not control.hop_lock and not control.overflow_lock and not control.share_lock
    assert not any(at["stripes"][i] for i in range(STRIPES))
    assert control.used == len(entries), (control.used, len(entries))
    current = [tables.current_flows(backend) for backend in range(len(tables.backends))]
    assert current == counted(tables), "flows that lc and wlc would compare"
    assert not twice(tables)
    for index, entry in entries.items():
        assert flows.find(flows.key(index)) == index, "an entry is not found"
        if entry.peer:
            assert entries[entry.peer - 1].peer == index + 1, "a peer does not know its peer"
    share, taken = flows.share, Counter[int]()
    for index, entry in entries.items():
        if not entry.next_hop and entry.state in (FLOW_HALF_OPEN, FLOW_UDP_NEW):
            taken[share.index(entry.sequence)] += entry.sequence and share.index(entry.sequence) == index + 1
    assert len(share) - sum(taken.values()) <= _STRAYED, "places that no flow has"
    assert control.half_open_used == len(share) <= share.limit
    beyond = [index for index in entries if index >= flows.entries]
    assert control.overflowed == len(beyond), (control.overflowed, len(beyond))
    named = Counter(entry.next_hop for entry in entries.values() if entry.next_hop)
    hops = tables.next_hops
    references = {i: hops.references(i) for i in range(1, len(hops.macs)) if hops.references(i)}
    assert named == references, "references of next hops"


def main() -> None:
    """Run, and print what was seen."""
    seconds, flags = float(sys.argv[1]), tuple(sys.argv[2:])
    with tempfile.TemporaryDirectory(prefix="l4raw-churn.") as folder:
        helper = load(build(Path(folder), (), ("-O2", *flags))) if flags else native
        module = shim(Path(folder), helper, flags)
        for clients in (CROWD, FEW):
            print(clients, dict(run(module, seconds, clients)))


if __name__ == "__main__":
    main()
