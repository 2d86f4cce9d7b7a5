// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The other end of generator.bpf.c: drops its frames and counts them; everything else passes.
 *
 * Per class of flows: how many, how far apart, and how long they were on
 * their way. The clock is one for the machine, so both ends agree. Only for
 * an interface with one RX queue: nothing here is locked.
 */
#include "load.h"

/* Four buckets an octave: of the values from 2^n to 2^(n+1), those that begin with the same three bits. */
enum { BUCKETS = 256 };

static const __u64 magic = 0x6e6567776172346cULL; /* "l4rawgen" */

struct class {
	__u64 frames;
	__u64 last; /* when the last one came, ns */
	__u64 largest_gap; /* ns */
	__u64 gaps[BUCKETS];
	__u64 delays[BUCKETS];
} classes[CLASSES] SEC(".data.classes");

static __always_inline __u32 bucket(__u64 value)
{
	__u64 rest = value;
	__u32 octave = 0;

#pragma unroll
	for (__u32 shift = 32; shift; shift >>= 1) {
		if (rest >> shift) {
			rest >>= shift;
			octave += shift;
		}
	}
	if (octave < 2)
		return (__u32)value & 3;
	return (octave * 4 + (__u32)(value >> (octave - 2) & 3)) & (BUCKETS - 1);
}

static __always_inline void count(struct class *class, __u64 sent_at)
{
	__u64 now = bpf_ktime_get_ns();
	__u64 gap = now - class->last;

	if (class->frames) {
		class->gaps[bucket(gap)]++;
		if (gap > class->largest_gap)
			class->largest_gap = gap;
	}
	class->last = now;
	class->frames++;
	class->delays[bucket(now > sent_at ? now - sent_at : 0)]++;
}

SEC("xdp")
int sink(struct xdp_md *context)
{
	const void *frame = (const void *)(long)context->data;
	const struct ethhdr *ethernet = frame;
	const struct iphdr *ip = frame + IP_AT;
	const struct udphdr *udp = frame + UDP_AT;

	if (frame + FRAME_BYTES > (const void *)(long)context->data_end)
		return XDP_PASS;
	if (ethernet->h_proto != bpf_htons(ETH_P_IP) || ip->protocol != IPPROTO_UDP || ip->ihl != 5)
		return XDP_PASS;
	if (*(const __u64 *)(frame + MAGIC_AT) != magic)
		return XDP_PASS;
	count(&classes[bpf_ntohs(udp->source) >= NEW_PORTS ? NEW : KNOWN], *(const __u64 *)(frame + SENT_AT));
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
