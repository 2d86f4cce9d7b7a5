/* AF_XDP sockets: see xsk.h. */

#define _DEFAULT_SOURCE

#include "xsk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

#ifndef SOL_XDP
#define SOL_XDP 283
#endif

/* In copy mode one sendto() takes this many from the TX ring (TX_BATCH_SIZE in net/xdp/xsk.c). */
enum { SENT_A_CALL = 32 };

/* Frames that the kernel copied wait for the receiver in the socket's send buffer. */
enum { SEND_BUFFER = 4 << 20 };

_Static_assert(LX_BIND_COPY == XDP_COPY, "as in linux/if_xdp.h");
_Static_assert(LX_BIND_ZEROCOPY == XDP_ZEROCOPY, "as in linux/if_xdp.h");
_Static_assert(LX_BIND_NEED_WAKEUP == XDP_USE_NEED_WAKEUP, "as in linux/if_xdp.h");
_Static_assert(sizeof(struct lx_xsk_statistics) == sizeof(struct xdp_statistics), "as in linux/if_xdp.h");

int lx_umem_register(struct lx_umem *umem, struct lx_xsk *first)
{
	const struct xsk_umem_config config = {
		.fill_size = umem->ring_size,
		.comp_size = umem->ring_size,
		.frame_size = umem->frame_size,
		.frame_headroom = umem->headroom,
	};
	uint64_t size = (uint64_t)umem->frames * umem->frame_size;

	int error =
		xsk_umem__create(&umem->handle, umem->area, size, &first->fill, &first->completion, &config);

	/* libxdp 1.3 leaves this one open in programs that we start. */
	if (!error)
		(void)fcntl(xsk_umem__fd(umem->handle), F_SETFD, FD_CLOEXEC);
	return error;
}

int lx_umem_unregister(struct lx_umem *umem)
{
	int error = xsk_umem__delete(umem->handle);

	if (!error)
		umem->handle = NULL;
	return error;
}

static void raise_send_buffer(int fd)
{
	int size = SEND_BUFFER;

	/* The first is for CAP_NET_ADMIN and the second bounded; with neither it is only smaller. */
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size))
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
}

int lx_xsk_open(struct lx_umem *umem, struct lx_xsk *xsk, const char *interface, uint32_t queue,
		uint32_t rx, uint32_t tx, uint16_t bind_flags)
{
	const struct xsk_socket_config config = {
		.rx_size = rx,
		.tx_size = tx,
		.libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD,
		.bind_flags = bind_flags,
	};
	int error = xsk_socket__create_shared(&xsk->handle, interface, queue, umem->handle,
					      rx ? &xsk->rx : NULL, tx ? &xsk->tx : NULL, &xsk->fill,
					      &xsk->completion, &config);

	if (error) {
		xsk->handle = NULL;
		return error;
	}
	xsk->umem = umem;
	xsk->fd = xsk_socket__fd(xsk->handle);
	xsk->rings.rx = rx ? &xsk->rx : NULL;
	xsk->rings.tx = tx ? &xsk->tx : NULL;
	xsk->rings.fill = &xsk->fill;
	xsk->rings.completion = &xsk->completion;
	raise_send_buffer(xsk->fd);
	return 0;
}

void lx_xsk_close(struct lx_xsk *xsk)
{
	if (xsk->handle)
		xsk_socket__delete(xsk->handle);
	xsk->handle = NULL;
	xsk->fd = -1;
	memset(&xsk->rings, 0, sizeof xsk->rings);
	xsk->fill_level = 0;
	xsk->tx_level = 0;
}

/* The index of the frame at an address, or the number of frames when there is none. */
static uint32_t index_at(const struct lx_umem *umem, uint64_t address)
{
	uint64_t index = address / umem->frame_size;

	return index < umem->frames ? (uint32_t)index : umem->frames;
}

/* False: the kernel did not have it from this socket, so it is nobody's to give away. */
static bool take(struct lx_xsk *xsk, uint32_t index, enum lx_frame_state from, enum lx_frame_state to)
{
	struct lx_umem *umem = xsk->umem;

	if (index == umem->frames || umem->state[index] != from || umem->owner[index] != xsk->number) {
		xsk->stray++;
		return false;
	}
	umem->state[index] = (uint8_t)to;
	return true;
}

static void give(struct lx_xsk *xsk, uint32_t index, enum lx_frame_state to)
{
	xsk->umem->state[index] = (uint8_t)to;
	xsk->umem->owner[index] = xsk->number;
}

uint32_t lx_xsk_receive(struct lx_xsk *xsk, struct lx_frame *frames, uint32_t most)
{
	uint32_t at = 0, good = 0;
	uint32_t count = xsk_ring_cons__peek(&xsk->rx, most, &at);

	for (uint32_t i = 0; i < count; i++) {
		const struct xdp_desc *found = xsk_ring_cons__rx_desc(&xsk->rx, at + i);

		if (take(xsk, index_at(xsk->umem, found->addr), LX_FRAME_FILL, LX_FRAME_HELD))
			frames[good++] = (struct lx_frame){ found->addr, found->len, found->options };
	}
	if (count)
		xsk_ring_cons__release(&xsk->rx, count);
	xsk->fill_level -= good;
	return good;
}

static bool may_be_sent(const struct lx_umem *umem, const struct lx_frame *frame)
{
	uint32_t index = index_at(umem, frame->address);
	uint64_t offset = frame->address % umem->frame_size;

	return index < umem->frames && umem->state[index] == LX_FRAME_HELD && frame->length &&
	       offset + frame->length <= umem->frame_size;
}

int lx_xsk_send(struct lx_xsk *xsk, const struct lx_frame *frames, uint32_t count)
{
	struct lx_umem *umem = xsk->umem;
	uint32_t fit = xsk_prod_nb_free(&xsk->tx, count);
	uint32_t at = 0, checked = 0;

	/* A frame that is marked on the way is refused when it comes a second time. */
	while (checked < count && may_be_sent(umem, &frames[checked]))
		give(xsk, index_at(umem, frames[checked++].address), LX_FRAME_TX);
	if (fit > count)
		fit = count;
	for (uint32_t i = checked < count ? 0 : fit; i < checked; i++)
		umem->state[index_at(umem, frames[i].address)] = LX_FRAME_HELD;
	if (checked < count)
		return -1 - (int)checked;
	if (!fit || !xsk_ring_prod__reserve(&xsk->tx, fit, &at))
		return 0;
	for (uint32_t i = 0; i < fit; i++) {
		struct xdp_desc *to = xsk_ring_prod__tx_desc(&xsk->tx, at + i);

		to->addr = frames[i].address;
		to->len = frames[i].length;
		to->options = 0;
	}
	xsk_ring_prod__submit(&xsk->tx, fit);
	xsk->tx_level += fit;
	return (int)fit;
}

uint32_t lx_xsk_reclaim(struct lx_xsk *xsk, uint32_t *indices, uint32_t most)
{
	uint32_t at = 0, good = 0;
	uint32_t count = xsk_ring_cons__peek(&xsk->completion, most, &at);

	for (uint32_t i = 0; i < count; i++) {
		uint32_t index = index_at(xsk->umem, *xsk_ring_cons__comp_addr(&xsk->completion, at + i));

		if (take(xsk, index, LX_FRAME_TX, LX_FRAME_FREE))
			indices[good++] = index;
	}
	if (count)
		xsk_ring_cons__release(&xsk->completion, count);
	xsk->tx_level -= good;
	return good;
}

uint32_t lx_xsk_refill(struct lx_xsk *xsk, const uint32_t *indices, uint32_t count)
{
	uint32_t fit = xsk_prod_nb_free(&xsk->fill, count);
	uint32_t at = 0;

	if (fit > count)
		fit = count;
	if (!fit || !xsk_ring_prod__reserve(&xsk->fill, fit, &at))
		return 0;
	for (uint32_t i = 0; i < fit; i++) {
		*xsk_ring_prod__fill_addr(&xsk->fill, at + i) = (uint64_t)indices[i] * xsk->umem->frame_size;
		give(xsk, indices[i], LX_FRAME_FILL);
	}
	xsk_ring_prod__submit(&xsk->fill, fit);
	xsk->fill_level += fit;
	if (xsk_ring_prod__needs_wakeup(&xsk->fill))
		(void)recvfrom(xsk->fd, NULL, 0, MSG_DONTWAIT, NULL, NULL);
	return fit;
}

static uint32_t waiting_to_be_sent(const struct lx_xsk *xsk)
{
	return __atomic_load_n(xsk->tx.producer, __ATOMIC_RELAXED) -
	       __atomic_load_n(xsk->tx.consumer, __ATOMIC_ACQUIRE);
}

int lx_xsk_wakeup(struct lx_xsk *xsk)
{
	/* Bounded: before Linux 6.17 the consumer's pointer does not tell progress call by call. */
	uint32_t most = waiting_to_be_sent(xsk), calls = most / SENT_A_CALL + 1, refused = 0;

	while (calls && refused < most && waiting_to_be_sent(xsk) && xsk_ring_prod__needs_wakeup(&xsk->tx)) {
		if (sendto(xsk->fd, NULL, 0, MSG_DONTWAIT, NULL, 0) >= 0 || errno == EAGAIN || errno == EINTR) {
			calls--;
			continue;
		}
		/* In copy mode: one frame was taken, the driver dropped it (no carrier, a full peer), and the call ended. */
		if (errno == EBUSY) {
			refused++;
			continue;
		}
		/* No room now, or down: the frames stay in the ring for the next call. */
		if (errno == ENOBUFS || errno == ENETDOWN)
			break;
		return -errno;
	}
	return (int)refused;
}

uint32_t lx_xsk_completed(const struct lx_xsk *xsk)
{
	return __atomic_load_n(xsk->completion.producer, __ATOMIC_ACQUIRE) -
	       __atomic_load_n(xsk->completion.consumer, __ATOMIC_RELAXED);
}

int lx_xsk_statistics(const struct lx_xsk *xsk, struct lx_xsk_statistics *statistics)
{
	socklen_t size = sizeof *statistics;

	return getsockopt(xsk->fd, SOL_XDP, XDP_STATISTICS, statistics, &size) ? -errno : 0;
}

int lx_xsk_is_zero_copy(const struct lx_xsk *xsk)
{
	struct xdp_options options = {0};
	socklen_t size = sizeof options;

	if (getsockopt(xsk->fd, SOL_XDP, XDP_OPTIONS, &options, &size))
		return -errno;
	return (options.flags & XDP_OPTIONS_ZEROCOPY) != 0;
}

int lx_xsk_error(const struct lx_xsk *xsk)
{
	int error = 0;
	socklen_t size = sizeof error;

	return getsockopt(xsk->fd, SOL_SOCKET, SO_ERROR, &error, &size) ? -errno : -error;
}
