/* AF_XDP sockets and the frames of a UMEM, over libxdp (its xsk.h).
 *
 * Lives here: opening and closing, and one function a burst for each of the
 * four rings. Must not live here: which frame goes where (l4raw/xdp/), or the
 * program that redirects to a socket (program.h).
 *
 * cffi reads this text too, with L4RAW_CDEF defined. What a ring is and who
 * owns a frame: Documentation/networking/af_xdp.rst of the kernel.
 */
#ifndef LX_XSK_H
#define LX_XSK_H

#ifndef L4RAW_CDEF
#include <stdint.h>
#include <xdp/xsk.h>
#endif

struct xsk_ring_cons;
struct xsk_ring_prod;
struct xsk_socket;
struct xsk_umem;

/* Where a frame is. The completion ring is a part of TX until it is read. */
enum lx_frame_state { LX_FRAME_FREE, LX_FRAME_HELD, LX_FRAME_FILL, LX_FRAME_TX };

enum lx_bind_flag { LX_BIND_COPY = 2, LX_BIND_ZEROCOPY = 4, LX_BIND_NEED_WAKEUP = 8 };

/*
 * The memory is the caller's; one byte a frame in `state` and in `owner`. Several threads may use it at once, each
 * with sockets and frames of its own: these bytes are of different frames then, and all else is only read.
 */
struct lx_umem {
	void *area;
	uint32_t frames;
	uint32_t frame_size;
	uint32_t headroom;
	uint32_t ring_size; /* of each fill and completion ring: a power of two */
	uint8_t *state;     /* enum lx_frame_state */
	uint8_t *owner;     /* number of the socket that has it in FILL or TX */
	struct xsk_umem *handle; /* NULL while not registered */
};

struct lx_rings {
	struct xsk_ring_cons *rx;
	struct xsk_ring_prod *tx;
	struct xsk_ring_prod *fill;
	struct xsk_ring_cons *completion;
};

/* Stays where it is from registration or opening until it is closed: libxdp keeps pointers into it. */
struct lx_xsk {
	struct lx_umem *umem;
	struct xsk_socket *handle; /* NULL while not open */
	struct lx_rings rings;
	int fd;
	uint8_t number;
	uint32_t fill_level; /* frames given to the fill ring and not received yet */
	uint32_t tx_level;   /* frames given to the TX ring and not reclaimed yet */
	uint32_t stray;      /* frames the kernel handed out that were not with it */
#ifdef L4RAW_CDEF
	...;
#else
	struct xsk_ring_cons rx;
	struct xsk_ring_prod tx;
	struct xsk_ring_prod fill;
	struct xsk_ring_cons completion;
#endif
};

struct lx_frame {
	uint64_t address; /* of the first byte, relative to the UMEM */
	uint32_t length;
	uint32_t options;
};

struct lx_xsk_statistics {
	uint64_t rx_dropped;
	uint64_t rx_invalid_descs;
	uint64_t tx_invalid_descs;
	uint64_t rx_ring_full;
	uint64_t rx_fill_ring_empty_descs;
	uint64_t tx_ring_empty_descs;
};

/* All that return int: 0 or more, or an errno as a negative number. */

/* `first`: its fill and completion ring are made now, and used by the first socket. */
int lx_umem_register(struct lx_umem *umem, struct lx_xsk *first);
int lx_umem_unregister(struct lx_umem *umem);

int lx_xsk_open(struct lx_umem *umem, struct lx_xsk *xsk, const char *interface, uint32_t queue,
		uint32_t rx, uint32_t tx, uint16_t bind_flags);
void lx_xsk_close(struct lx_xsk *xsk);

/* FILL -> HELD */
uint32_t lx_xsk_receive(struct lx_xsk *xsk, struct lx_frame *frames, uint32_t most);
/* HELD -> TX. How many fit, or -1 - i when frame i may not be sent; then none is. */
int lx_xsk_send(struct lx_xsk *xsk, const struct lx_frame *frames, uint32_t count);
/* TX -> FREE */
uint32_t lx_xsk_reclaim(struct lx_xsk *xsk, uint32_t *indices, uint32_t most);
/* FREE -> FILL */
uint32_t lx_xsk_refill(struct lx_xsk *xsk, const uint32_t *indices, uint32_t count);

/* Has the kernel send what is in the TX ring. How many frames the driver refused: they are lost, and complete. */
int lx_xsk_wakeup(struct lx_xsk *xsk);
uint32_t lx_xsk_completed(const struct lx_xsk *xsk);
int lx_xsk_statistics(const struct lx_xsk *xsk, struct lx_xsk_statistics *statistics);
int lx_xsk_is_zero_copy(const struct lx_xsk *xsk);
int lx_xsk_error(const struct lx_xsk *xsk);

#endif
