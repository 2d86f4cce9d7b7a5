// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The other end of generator.bpf.c: counts its frames and drops or answers them; everything else passes.
 *
 * Per class of flows: how many; and, if asked, how far apart, and how long they were on
 * their way. The clock is one for the machine, so both ends agree. Only for
 * an interface with one RX queue: nothing here is locked.
 */
#include "load.h"

/* Sixteen buckets an octave: of the values from 2^n to 2^(n+1), those that begin with the same five bits. */
enum { BITS = 4, EACH = 1 << BITS, BUCKETS = 64 * EACH, MOST_SHIFT = 63 };

/* Of a server that answers a SYN: l4raw/bench/frames.py has the client's acknowledgment of it. */
enum { SERVER_SEQUENCE = 0x10000000 };

/* From l4raw/bench/sink.py, which packs the same fields. */
struct config {
	__u32 shift;   /* bytes of a tunnel's headers in front of the frame, MOST_SHIFT at most */
	__u32 timed;   /* look at the clock */
	__u32 answers; /* send each frame back, its ends exchanged, and a SYN-ACK for a SYN */
} config SEC(".data.config");

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
	if (octave < BITS)
		return (__u32)value & (EACH - 1);
	return (octave * EACH + (__u32)(value >> (octave - BITS) & (EACH - 1))) & (BUCKETS - 1);
}

static __always_inline void time(struct class *class, const void *frame)
{
	__u64 now = bpf_ktime_get_ns();
	__u64 sent = *(const __u16 *)(frame + SENT_AT) | (__u64)*(const __u32 *)(frame + SENT_AT + 2) << 16;
	__u64 gap = now - class->last;

	if (class->frames) {
		class->gaps[bucket(gap)]++;
		if (gap > class->largest_gap)
			class->largest_gap = gap;
	}
	class->last = now;
	class->delays[bucket((now - sent) & 0xffffffffffffULL)]++;
}

/* Exchanging the ends changes no sum; the acknowledgment of a SYN does (RFC 1624). */
static __always_inline int answer(struct xdp_md *context, void *frame)
{
	struct iphdr *ip = frame + IP_AT;
	struct tcphdr *tcp = frame + L4_AT;
	__u16 *mac = frame, half, port = tcp->source;
	__be32 address = ip->saddr;
	__u64 sum;

#pragma unroll
	for (int i = 0; i < ETH_ALEN / 2; i++) {
		half = mac[i];
		mac[i] = mac[ETH_ALEN / 2 + i];
		mac[ETH_ALEN / 2 + i] = half;
	}
	ip->saddr = ip->daddr;
	ip->daddr = address;
	tcp->source = tcp->dest;
	tcp->dest = port;
	if (ip->protocol == IPPROTO_TCP && tcp->syn) {
		__be32 sequence = bpf_htonl(SERVER_SEQUENCE), next = bpf_htonl(bpf_ntohl(tcp->seq) + 1);

		sum = (__u64)(__u16)~tcp->check + (__u32)~tcp->seq + (__u32)~tcp->ack_seq + sequence + next;
		sum += bpf_htons(1 << 4); /* the flag ACK, which is not set */
		sum = (sum & 0xffffffff) + (sum >> 32);
		tcp->seq = sequence;
		tcp->ack_seq = next;
		tcp->ack = 1;
		tcp->check = checksum(sum);
	}
	return bpf_redirect(context->ingress_ifindex, 0);
}

SEC("xdp")
int sink(struct xdp_md *context)
{
	void *frame = (void *)(long)context->data + (config.shift & MOST_SHIFT);
	__u32 class;

	if (frame + FRAME_BYTES > (void *)(long)context->data_end)
		return XDP_PASS;
	class = (__u32)*(const __u16 *)(frame + ID_AT) - MARK;
	if (class >= CLASSES || *(const __u8 *)(frame + IP_AT) != 0x45)
		return XDP_PASS;
	if (config.timed)
		time(&classes[class], frame);
	classes[class].frames++;
	return config.answers ? answer(context, frame) : XDP_DROP;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
