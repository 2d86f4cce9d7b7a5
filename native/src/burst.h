/* SPDX-License-Identifier: MIT */
/*
 * The loop of one queue: frames of every arm's socket through the helper and
 * out again, in one thread that never needs Python. cffi reads this file too.
 *
 * Lives here: what moves where, and the rings between a queue and Python.
 * Must not live here: a decision about a frame (steer.h), how a socket is
 * opened (native/xdp/xsk.h and l4raw/xdp).
 *
 * A frame is in one place at any time, and its byte in umem->state says which:
 * on the free list of its queue, with the kernel (fill ring, TX ring), or held:
 * by this thread within a burst, or by Python from the ring of misses until it
 * comes back through the ring of returns.
 */
#ifndef L4RAW_SRC_BURST_H
#define L4RAW_SRC_BURST_H

#include "l4raw_abi.h"
#ifndef L4RAW_CDEF
#include "xsk.h"
#endif

/* A frame on its way to Python or back. */
struct l4_passed {
	uint64_t address;          /* of its first byte, relative to the UMEM */
	uint32_t length;
	uint16_t arm;              /* to Python: where it came in; back: where it goes out */
	uint16_t sent;             /* back: 0 if it goes nowhere */
};

/* From one thread to one other, bounded. Head and tail count up for ever, modulo 2^32. */
struct l4_ring {
	struct l4_passed *slots;
	uint32_t size;             /* a power of two */
	uint32_t reserved[13];
	uint32_t head;             /* written by the producer */
	uint32_t reserved_head[15];
	uint32_t tail;             /* written by the consumer */
	uint32_t reserved_tail[15];
};

/* Frames, counted by the worker's thread; others read them. */
struct l4_worker_counters {
	uint64_t received;
	uint64_t sent;
	uint64_t passed;           /* redirected to us, and the kernel's business after all: lost */
	uint64_t misses;           /* left to Python */
	uint64_t miss_overflow;    /* lost, because the ring of misses was full: L4_DROP_OVERFLOW */
	uint64_t return_dropped;   /* sent by Python, and the TX ring was full */
	uint64_t bursts;
	uint64_t waits;            /* times it slept, because nothing came */
};

struct l4_worker {
	const struct l4_tables *tables;
	struct lx_umem *umem;
	struct lx_xsk *sockets[L4_ARMS];
	uint32_t arms;
	uint32_t most[L4_ARMS];    /* bytes of a frame without a tag that each arm's interface takes */
	uint32_t fill;             /* frames the kernel should have of each socket, for receiving */
	uint32_t *free;            /* room for all frames of this queue */
	uint32_t free_count;
	uint32_t sample;           /* not 0: all frames are left to Python, which shows some, and clears it */
	struct l4_ring misses;
	struct l4_ring returns;
	struct l4_worker_counters counters;
	int wake_python;           /* eventfd(2): written when Python waits and a miss has come */
	int wake_worker;           /* eventfd(2): written to end a sleep of the worker */
	uint32_t python_waits;
	uint32_t worker_waits;
	uint32_t stop;
	int error;                 /* an errno that ended l4_run(): the first one */
	uint32_t error_arm;        /* whose socket had it */
};

/* One turn: up to L4_BURST frames of one arm, and what is due for the rings. How many came in. */
uint32_t l4_burst(struct l4_worker *worker, uint32_t arm);

/* Bursts of all arms until `stop` is set. 0, or an errno of a socket: its interface is gone. */
int l4_run(struct l4_worker *worker);

/* Ask l4_run() to return. From any thread. */
void l4_stop(struct l4_worker *worker);

/*
 * Python's ends of the rings, of one thread.
 *
 * l4_take_misses: up to `most` frames; how many.
 * l4_will_wait: say that a wake-up is wanted. 0: it may wait; 1: something has come meanwhile.
 * l4_give_back: frames to be sent, or to be forgotten. How many fit, which is all of them as long as
 *     the ring of returns has a place for every frame of the queue.
 */
uint32_t l4_take_misses(struct l4_worker *worker, struct l4_passed *frames, uint32_t most);
int l4_will_wait(struct l4_worker *worker);
uint32_t l4_give_back(struct l4_worker *worker, const struct l4_passed *frames, uint32_t count);

#endif
