// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Redirect chosen IPv4 traffic to AF_XDP sockets; everything else goes on to the kernel.
 *
 * `wanted` says what is chosen; it is empty at first, so attaching this program
 * cuts nobody off. `xsks` has the socket of each RX queue. A queue without one
 * passes to the kernel too: the action for a miss is in the low bits of the
 * flags of bpf_redirect_map (Linux 5.3).
 *
 * Needs Linux 6.1. ARP, IPv6 and VLAN tags that the card left in the frame
 * always pass. A later fragment has no ports and matches port 0 only.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum { QUEUES = 256, RULES = 1024, FRAGMENT_OFFSET = 0x1fff };

struct rule {
	__u8 protocol; /* 0: every one */
	__u8 zero;
	__be16 port; /* the destination's; 0: every one */
};

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, QUEUES);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, RULES);
	__type(key, struct rule);
	__type(value, __u8);
} wanted SEC(".maps");

static __always_inline bool is_wanted(__u8 protocol, __be16 port)
{
	struct rule rule = {.protocol = protocol, .port = port};

	return bpf_map_lookup_elem(&wanted, &rule) != NULL;
}

static __always_inline __be16 destination_port(const struct iphdr *ip, const void *end)
{
	const __be16 *ports = (const void *)ip + ip->ihl * 4;

	if (ip->protocol != IPPROTO_TCP && ip->protocol != IPPROTO_UDP)
		return 0;
	if (ip->frag_off & bpf_htons(FRAGMENT_OFFSET) || ip->ihl < 5)
		return 0;
	if ((const void *)(ports + 2) > end)
		return 0;
	return ports[1];
}

SEC("xdp")
int pass_to_socket(struct xdp_md *context)
{
	const void *start = (const void *)(long)context->data;
	const void *end = (const void *)(long)context->data_end;
	const struct ethhdr *ethernet = start;
	const struct iphdr *ip = (const void *)(ethernet + 1);
	__be16 port;

	if ((const void *)(ip + 1) > end || ethernet->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	port = destination_port(ip, end);
	if (!is_wanted(0, 0) && !is_wanted(ip->protocol, 0) && !(port && is_wanted(ip->protocol, port)))
		return XDP_PASS;
	return bpf_redirect_map(&xsks, context->rx_queue_index, XDP_PASS);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
