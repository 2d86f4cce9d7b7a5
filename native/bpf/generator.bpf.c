// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* A load generator: small UDP frames of many flows, each sent when it is due.
 *
 * Run with BPF_PROG_RUN and live frames (Linux 5.18), in one call for the whole
 * load: it calls this program for one frame after the other, as fast as it can,
 * and a frame for which it is too early is dropped. The interface at the other
 * end of the veth needs NAPI, that is, an XDP program or GRO; without, veth
 * drops all and nobody counts them.
 *
 * Times in ticks are 2^-10 ns since the first call, so that a rate of millions a
 * second is exact. One call at a time: nothing here is locked.
 */
#include "load.h"

enum { TICK_SHIFT = 10 };

/* From tests/bench/xdp_generator.py, which packs the same fields. */
struct config {
	__u64 frame[8]; /* its first 60 bytes, without source address, port and checksums */
	__u32 ip_sum;	/* of its 16-bit words: the IPv4 header */
	__u32 udp_sum;	/* and the UDP datagram with its pseudo-header */
	__u32 interface;
	__u32 flows;
	__u32 address; /* the first source address, and of the new flows */
	__u32 new_address;
	__u64 duration;		   /* ticks */
	__u64 interval[CLASSES];   /* ticks from frame to frame; 0: no frames */
	__u64 most_late[CLASSES]; /* ticks; what is later is left out */
	__u64 new_frames;	   /* of each new flow, one after the other */
} config SEC(".data.config");

struct state {
	__u64 start; /* ns */
	__u64 attempts;
	__u64 due[CLASSES]; /* ticks */
	__u64 sent[CLASSES];
	__u64 left_out[CLASSES];
	__u64 flow; /* the next known one */
} state SEC(".data.state");

/* After a pause, catch up only as far as config.most_late: a burst is another load than the one asked for. */
static __always_inline bool is_due(__u32 class, __u64 elapsed)
{
	__u64 interval = config.interval[class], late;

	if (!interval || elapsed < state.due[class])
		return false;
	late = elapsed - state.due[class];
	if (late > config.most_late[class]) {
		state.left_out[class] += late / interval;
		state.due[class] = elapsed;
	}
	state.due[class] += interval;
	return true;
}

/* RFC 1071: the one's complement of the one's complement sum. */
static __always_inline __u16 checksum(__u64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)~sum;
}

static __always_inline __u64 words(__u64 value)
{
	return (value & 0xffff) + (value >> 16 & 0xffff) + (value >> 32 & 0xffff) + (value >> 48);
}

/* Everything is written: a frame comes back as its last receiver left it. */
static __always_inline void write(void *frame, __be32 source, __be16 port, __u64 now)
{
	struct iphdr *ip = frame + IP_AT;
	struct udphdr *udp = frame + UDP_AT;

#pragma unroll
	for (int i = 0; i < FRAME_BYTES / 8; i++)
		((__u64 *)frame)[i] = config.frame[i];
	*(__u32 *)(frame + FRAME_BYTES - 4) = (__u32)config.frame[FRAME_BYTES / 8];
	*(__u64 *)(frame + SENT_AT) = now;
	ip->saddr = source;
	ip->check = checksum(config.ip_sum + words(source));
	udp->source = port;
	udp->check = checksum(config.udp_sum + words(source) + port + words(now));
	if (!udp->check)
		udp->check = 0xffff; /* RFC 768: zero would say that there is none */
}

/* Known flows have 2^14 ports from 1024, new ones 2^15; then the next address. */
static __always_inline void make(void *frame, __u32 class, __u64 now)
{
	__u64 flow = class == NEW ? state.sent[NEW] / config.new_frames : state.flow;
	__u32 bits = class == NEW ? 15 : 14;
	__u32 base = class == NEW ? config.new_address : config.address;
	__u16 port = (class == NEW ? NEW_PORTS : 1024) + (flow & ((1 << bits) - 1));

	write(frame, bpf_htonl(base + (__u32)(flow >> bits)), bpf_htons(port), now);
	if (class == KNOWN)
		state.flow = flow + 1 < config.flows ? flow + 1 : 0;
	state.sent[class]++;
}

SEC("xdp")
int generate(struct xdp_md *context)
{
	void *frame = (void *)(long)context->data;
	__u64 now = bpf_ktime_get_ns(), elapsed;

	state.attempts++;
	if (!state.start)
		state.start = now;
	elapsed = (now - state.start) << TICK_SHIFT;
	if (elapsed >= config.duration || frame + FRAME_BYTES > (void *)(long)context->data_end)
		return XDP_DROP;
	if (is_due(NEW, elapsed))
		make(frame, NEW, now);
	else if (is_due(KNOWN, elapsed))
		make(frame, KNOWN, now);
	else
		return XDP_DROP;
	return bpf_redirect(config.interface, 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
