// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The least that a forwarder in XDP can do: two MAC addresses, and out. What
 * forward.bpf.c is measured beside (l4raw/bench).
 *
 * Only the generator's frames, which have a length of their own; the rest passes.
 */
#include "load.h"

/* From l4raw/bench/bare.py, which packs the same fields. */
struct config {
	__u8 destination[8]; /* the first six count; likewise: */
	__u8 source[8];
	__u32 interface; /* to redirect to; 0: XDP_TX */
} config SEC(".data.config");

SEC("xdp")
int bare(struct xdp_md *context)
{
	void *frame = (void *)(long)context->data, *end = (void *)(long)context->data_end;

	if (frame + FRAME_BYTES > end || frame + FRAME_BYTES + 1 <= end)
		return XDP_PASS;
	*(__u32 *)frame = *(__u32 *)config.destination;
	*(__u16 *)(frame + 4) = *(__u16 *)(config.destination + 4);
	*(__u16 *)(frame + 6) = *(__u16 *)config.source;
	*(__u32 *)(frame + 8) = *(__u32 *)(config.source + 2);
	return config.interface ? bpf_redirect(config.interface, 0) : XDP_TX;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
