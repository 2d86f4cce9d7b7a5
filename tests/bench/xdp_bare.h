/* The bare AF_XDP loop: receive, write MAC addresses, send, recycle. The least that a forwarder does.
 *
 * For benchmarks, not a part of l4raw. Both directions, one thread, one UMEM.
 * xdp_bare.py opens the sockets and reads this text through `cc -E`.
 */
#ifndef XDP_BARE_H
#define XDP_BARE_H

#ifndef BARE_CDEF
#include <stdint.h>
#include <xdp/xsk.h>
#endif

struct xsk_ring_cons;
struct xsk_ring_prod;

struct bare_port {
	struct xsk_ring_cons *rx;
	struct xsk_ring_prod *tx;
	struct xsk_ring_prod *fill;
	struct xsk_ring_cons *completion;
	int fd;
	uint8_t macs[12]; /* destination and source of what leaves here */
	/* in frames, and calls of sendto() */
	uint64_t received;
	uint64_t sent;
	uint64_t tx_ring_full; /* dropped: the kernel had not sent what was there before */
	uint64_t wakeups;
};

struct bare_loop {
	struct bare_port ports[2];
	uint8_t *area;
	uint32_t frame_size; /* bytes: a power of two */
	uint32_t burst;
	uint32_t spins; /* empty rounds before poll() */
	uint32_t free_count;
	uint64_t *free; /* addresses of chunks in no ring; room for all */
	uint64_t polls;
	int stop; /* another thread sets it */
};

/* Forward until `stop`, looked at once a round or millisecond. 0, or an errno as a negative number. */
int bare_run(struct bare_loop *loop);

#endif
