// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* A load generator: small frames of many flows, each sent when it is due, or as fast as this CPU makes them.
 *
 * Run with BPF_PROG_RUN and live frames (Linux 5.18), in one call for the whole
 * load: it calls a program for one frame after the other, as fast as it can,
 * and a frame for which it is too early is dropped. The interface at the other
 * end of the veth needs NAPI, that is, an XDP program or GRO; without, veth
 * drops all and nobody counts them.
 *
 * Times in ticks are 2^-10 ns since the first call, so that a rate of millions a
 * second is exact. One call at a time: nothing here is locked.
 */
#include "load.h"

enum { TICK_SHIFT = 10 };

/* How often flood() looks at the clock, which takes longer than to make a frame. A power of two. */
enum { FRAMES_A_LOOK = 64 };

enum { FIRST, FURTHER, TEMPLATES };

/* A frame without source address, source port, time and checksums. */
struct template {
	__u64 frame[8]; /* its first 60 bytes */
	__u32 ip_sum;	/* of its 16-bit words: the IPv4 header */
	__u32 l4_sum;	/* and what follows, with its pseudo-header */
};

/* Flows, each with so many frames in turn. */
struct stream {
	struct template templates[TEMPLATES]; /* of a flow's first frame in its turn, and of its further ones */
	__u64 flows;		/* then again from the beginning */
	__u64 frames;		/* of each flow in its turn */
	__u64 interval;		/* ticks from frame to frame; 0: no frames */
	__u64 most_late;	/* ticks; what is later is left out */
	__u32 address;		/* the first source address */
	__u32 port;		/* likewise, and */
	__u32 port_bits;	/* 2^so many ports each */
	__u32 padding;
};

/* From l4raw/bench/generator.py, which packs the same fields. */
struct config {
	struct stream streams[CLASSES];
	__u64 duration; /* ticks */
	__u32 interface;
	__u32 flood; /* flood() sends this stream */
} config SEC(".data.config");

struct progress {
	__u64 due; /* ticks */
	__u64 sent;
	__u64 left_out;
	__u64 flow; /* whose turn it is */
	__u64 frames; /* it has had in this turn */
};

struct state {
	__u64 start; /* ns */
	__u64 now;   /* ns, when the clock was looked at last */
	__u64 attempts;
	struct progress streams[CLASSES];
} state SEC(".data.state");

/* After a pause, catch up only as far as most_late: a burst is another load than the one asked for. */
static __always_inline bool is_due(const struct stream *stream, struct progress *progress, __u64 elapsed)
{
	__u64 late;

	if (!stream->interval || elapsed < progress->due)
		return false;
	late = elapsed - progress->due;
	if (late > stream->most_late) {
		progress->left_out += late / stream->interval;
		progress->due = elapsed;
	}
	progress->due += stream->interval;
	return true;
}

static __always_inline __u64 words(__u64 value)
{
	return (value & 0xffff) + (value >> 16 & 0xffff) + (value >> 32);
}

/* Everything is written: a frame comes back as its last receiver left it. `now`: 48 bits, or 0. */
static __always_inline void write(void *frame, const struct template *template, __be32 source, __be16 port,
				  __u64 now)
{
	struct iphdr *ip = frame + IP_AT;
	struct udphdr *udp = frame + L4_AT;
	struct tcphdr *tcp = frame + L4_AT;
	__u64 sum = template->l4_sum + words(source) + port;

#pragma unroll
	for (int i = 0; i < FRAME_BYTES / 8; i++)
		((__u64 *)frame)[i] = template->frame[i];
	*(__u32 *)(frame + FRAME_BYTES - 4) = (__u32)template->frame[FRAME_BYTES / 8];
	if (now) {
		*(__u16 *)(frame + SENT_AT) = (__u16)now;
		*(__u32 *)(frame + SENT_AT + 2) = (__u32)(now >> 16);
		sum += words(now);
	}
	ip->saddr = source;
	ip->check = checksum(template->ip_sum + words(source));
	udp->source = port;
	if (ip->protocol == IPPROTO_TCP)
		tcp->check = checksum(sum);
	else
		udp->check = checksum(sum) ?: 0xffff; /* RFC 768: zero would say that there is none */
}

static __always_inline void make(void *frame, const struct stream *stream, struct progress *progress, __u64 now)
{
	__u64 flow = progress->flow;
	__u16 port = stream->port + (flow & ((1U << (stream->port_bits & 15)) - 1));
	__be32 source = bpf_htonl(stream->address + (__u32)(flow >> (stream->port_bits & 15)));

	write(frame, &stream->templates[progress->frames ? FURTHER : FIRST], source, bpf_htons(port), now);
	progress->sent++;
	if (++progress->frames < stream->frames)
		return;
	progress->frames = 0;
	progress->flow = flow + 1 < stream->flows ? flow + 1 : 0;
}

static __always_inline bool is_over(void)
{
	return (state.now - state.start) << TICK_SHIFT >= config.duration;
}

static __always_inline void look_at_clock(void)
{
	state.now = bpf_ktime_get_ns();
	if (!state.start)
		state.start = state.now;
}

/* Each frame when it is due, with the time. */
SEC("xdp")
int generate(struct xdp_md *context)
{
	void *frame = (void *)(long)context->data;
	__u64 elapsed, now;

	state.attempts++;
	look_at_clock();
	if (is_over() || frame + FRAME_BYTES > (void *)(long)context->data_end)
		return XDP_DROP;
	elapsed = (state.now - state.start) << TICK_SHIFT;
	now = state.now & 0xffffffffffffULL;
	if (is_due(&config.streams[NEW], &state.streams[NEW], elapsed))
		make(frame, &config.streams[NEW], &state.streams[NEW], now);
	else if (is_due(&config.streams[KNOWN], &state.streams[KNOWN], elapsed))
		make(frame, &config.streams[KNOWN], &state.streams[KNOWN], now);
	else
		return XDP_DROP;
	return bpf_redirect(config.interface, 0);
}

/* One frame after the other, of one stream, without the time: what is measured beside it has the CPU too. */
SEC("xdp")
int flood(struct xdp_md *context)
{
	void *frame = (void *)(long)context->data;
	__u32 which = config.flood & 1;

	if (!(state.attempts++ & (FRAMES_A_LOOK - 1)))
		look_at_clock();
	if (is_over() || frame + FRAME_BYTES > (void *)(long)context->data_end)
		return XDP_DROP;
	make(frame, &config.streams[which], &state.streams[which], 0);
	return bpf_redirect(config.interface, 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
