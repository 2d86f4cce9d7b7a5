/* The bare AF_XDP loop: see xdp_bare.h. */

#define _DEFAULT_SOURCE

#include "xdp_bare.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

enum { POLL_MS = 1, SENT_A_CALL = 32 };

static void reclaim(struct bare_loop *loop, struct bare_port *port)
{
	uint32_t at = 0;
	uint32_t count = xsk_ring_cons__peek(port->completion, loop->burst * 2, &at);

	for (uint32_t i = 0; i < count; i++)
		loop->free[loop->free_count++] = *xsk_ring_cons__comp_addr(port->completion, at + i);
	if (count)
		xsk_ring_cons__release(port->completion, count);
}

/* Frames go back to the port where they were received, so that each keeps its share. */
static void refill(struct bare_loop *loop, struct bare_port *port)
{
	uint32_t count = loop->free_count, at = 0;

	if (!count || xsk_ring_prod__reserve(port->fill, count, &at) != count)
		return;
	for (uint32_t i = 0; i < count; i++)
		*xsk_ring_prod__fill_addr(port->fill, at + i) =
			loop->free[--loop->free_count] & ~(uint64_t)(loop->frame_size - 1);
	xsk_ring_prod__submit(port->fill, count);
}

static uint32_t unsent(const struct bare_port *port)
{
	return __atomic_load_n(port->tx->producer, __ATOMIC_RELAXED) -
	       __atomic_load_n(port->tx->consumer, __ATOMIC_ACQUIRE);
}

/* As l4_xsk_wakeup in native/xdp/xsk.c. */
static int wake(struct bare_port *port)
{
	uint32_t calls = unsent(port) / SENT_A_CALL + 1;

	while (calls-- && unsent(port) && xsk_ring_prod__needs_wakeup(port->tx)) {
		port->wakeups++;
		if (sendto(port->fd, NULL, 0, MSG_DONTWAIT, NULL, 0) >= 0 || errno == EAGAIN || errno == EINTR)
			continue;
		return errno == EBUSY || errno == ENOBUFS || errno == ENETDOWN ? 0 : -errno;
	}
	return 0;
}

static uint32_t forward(struct bare_loop *loop, struct bare_port *from, struct bare_port *to)
{
	uint32_t at = 0, slot = 0;
	uint32_t count = xsk_ring_cons__peek(from->rx, loop->burst, &at);
	uint32_t fit = count && xsk_ring_prod__reserve(to->tx, count, &slot) ? count : 0;

	/* Without it this loop waits for one frame after the other to come from the cache of another CPU. */
	for (uint32_t i = 0; i < count; i++)
		__builtin_prefetch(loop->area + xsk_ring_cons__rx_desc(from->rx, at + i)->addr, 1);
	for (uint32_t i = 0; i < count; i++) {
		const struct xdp_desc *found = xsk_ring_cons__rx_desc(from->rx, at + i);

		if (!fit) {
			loop->free[loop->free_count++] = found->addr;
			continue;
		}
		memcpy(loop->area + found->addr, to->macs, sizeof to->macs);
		*xsk_ring_prod__tx_desc(to->tx, slot + i) =
			(struct xdp_desc){.addr = found->addr, .len = found->len};
	}
	if (!count)
		return 0;
	xsk_ring_cons__release(from->rx, count);
	if (fit)
		xsk_ring_prod__submit(to->tx, fit);
	from->received += count;
	to->sent += fit;
	to->tx_ring_full += count - fit;
	return count;
}

static void wait_for_frames(struct bare_loop *loop)
{
	struct pollfd both[2] = {
		{.fd = loop->ports[0].fd, .events = POLLIN},
		{.fd = loop->ports[1].fd, .events = POLLIN},
	};

	loop->polls++;
	(void)poll(both, 2, POLL_MS);
}

int bare_run(struct bare_loop *loop)
{
	uint32_t empty = 0;

	while (!__atomic_load_n(&loop->stop, __ATOMIC_RELAXED)) {
		uint32_t moved = 0;

		for (int i = 0; i < 2; i++) {
			struct bare_port *from = &loop->ports[i], *to = &loop->ports[!i];
			int error;

			moved += forward(loop, from, to);
			error = wake(to);
			if (error)
				return error;
			reclaim(loop, to);
			refill(loop, from);
		}
		empty = moved ? 0 : empty + 1;
		if (empty >= loop->spins)
			wait_for_frames(loop);
	}
	return 0;
}
