/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Which frames are the balancer's, and so go to its AF_XDP sockets. Everything
 * else goes on to the kernel.
 *
 * The balancer's is: what is addressed to a VIP or a SNAT address, fragments
 * and other protocols included, because the helper counts what it drops; a
 * frame whose full key is that of a NAT flow's reply; an ICMP error about a
 * packet whose reply would have such a key; and one that tells the MTU of the
 * path of a tunnel of ours. So ARP, neighbour discovery, SSH and this
 * host's own connections are the kernel's, also one to the port of a backend's
 * service.
 *
 * It reads the tables that the helper reads, and writes nothing. Replies come
 * in on the backends' arm, which is the last one.
 */
#ifndef L4RAW_BPF_REDIRECT_H
#define L4RAW_BPF_REDIRECT_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "subprograms.h"

enum { QUEUES = 64, TAG = 4 };

/* ICMPv6's type of Packet Too Big; ICMP's type and code of Fragmentation Needed. */
enum { TOO_BIG = 2, UNREACHABLE = 3, NEEDS_FRAGMENTS = 4 };

/* The socket of each arm's queue, at arm * QUEUES + queue. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, L4_ARMS * QUEUES);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

static __always_inline bool is_own_mac(const uint8_t *mac, uint32_t arm)
{
	const uint8_t *own = control.arms[arm & 1];

	return l4_read32(mac) == l4_read32(own) && l4_read16(mac + 4) == l4_read16(own + 4);
}

/* What the look-ups need of a packet. `ports` is NULL where there are none. */
struct packet {
	uint64_t src[2];
	uint64_t dst[2];
	const uint8_t *ports;      /* of ICMP: its header */
	uint8_t protocol;
	bool discovery;
	bool later;                /* a fragment that is not the first: it has no ports */
	bool v6;
};

/* `from` and `to` and ports, as a reply has them, belong to a NAT flow. */
static __always_inline bool is_reply_key(const uint64_t *from, const uint64_t *to, uint32_t ports, uint8_t protocol)
{
	struct l4_key key = l4_make_key(&control.key, from, to, ports, protocol);
	struct l4_flow *entry;
	uint32_t generation = 0;
	int64_t index = find_flow(&key, &generation);

	/* The key was there and somebody writes the entry: its state, most often. The helper looks again. */
	if (index == L4_BUSY)
		return true;
	if (index < 0)
		return false;
	entry = l4_flow_at(NULL, (uint32_t)index);
	/* The client's direction has none: its frames go to a VIP, and one that does not is no frame of ours. */
	return entry && entry->next_hop;
}

/* False: too short to be ours. */
static __always_inline bool read_v4(const struct iphdr *ip, const uint8_t *end, struct packet *packet)
{
	if ((const uint8_t *)(ip + 1) > end)
		return false;
	packet->src[0] = packet->dst[0] = 0;
	packet->src[1] = l4_v4_mapped(ip->saddr);
	packet->dst[1] = l4_v4_mapped(ip->daddr);
	packet->protocol = ip->protocol;
	packet->discovery = packet->v6 = false;
	packet->ports = NULL;
	packet->later = ip->frag_off & l4_htons(0x1fff);
	if (!packet->later && ip->ihl >= 5)
		packet->ports = (const uint8_t *)ip + ip->ihl * 4;
	return true;
}

static __always_inline bool read_v6(struct xdp_md *context, const struct ipv6hdr *ip, const uint8_t *end,
				    struct packet *packet)
{
	const uint8_t *at = (const uint8_t *)(ip + 1);
	uint32_t found;

	if (at > end)
		return false;
	packet->src[0] = l4_read64(&ip->saddr);
	packet->src[1] = l4_read64((const uint8_t *)&ip->saddr + 8);
	packet->dst[0] = l4_read64(&ip->daddr);
	packet->dst[1] = l4_read64((const uint8_t *)&ip->daddr + 8);
	packet->protocol = ip->nexthdr;
	packet->v6 = true;
	packet->ports = at;
	packet->later = false;
	if (l4_is_extension(ip->nexthdr)) {
		found = past_extensions(context, (uint32_t)(at - (const uint8_t *)(long)context->data),
					l4_ntohs(ip->payload_len), ip->nexthdr);
		packet->protocol = found >> PROTOCOL_SHIFT;
		packet->later = found & LATER;
		packet->ports = packet->later ? NULL : at + (found & L4_PAST);
	}
	at = packet->ports;
	packet->discovery = packet->protocol == IPPROTO_ICMPV6 && at && at + 1 <= end && at[0] >= 133 && at[0] <= 137;
	return true;
}

static __always_inline bool has_ports(const struct packet *packet, const uint8_t *end)
{
	return (packet->protocol == IPPROTO_TCP || packet->protocol == IPPROTO_UDP) && packet->ports &&
	       packet->ports + 4 <= end;
}

/* An ICMP error about a packet that went to a backend: what would have answered it is a reply. */
static __always_inline bool is_error_of_flow(struct xdp_md *context, const struct packet *error,
					     const uint8_t *end)
{
	const uint8_t *message = error->ports;
	struct packet quoted;
	uint32_t ports;

	if (error->protocol != (error->v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP) || !message || message + 8 > end ||
	    !l4_is_icmp_error(error->v6, message[0]))
		return false;
	if (!(error->v6 ? read_v6(context, (const void *)(message + 8), end, &quoted) :
			  read_v4((const void *)(message + 8), end, &quoted)) ||
	    !has_ports(&quoted, end))
		return false;
	ports = l4_read32(quoted.ports);
	return is_reply_key(quoted.dst, quoted.src, ports << 16 | ports >> 16, quoted.protocol);
}

/* It says that a packet which we sent into a tunnel was too long: carried() in l4raw/wire/quoted.py. */
static __always_inline bool is_of_tunnel(struct xdp_md *context, const struct packet *error, const uint8_t *end)
{
	const uint8_t *message = error->ports;
	uint16_t port_be = 0;
	struct packet quoted;

	if (error->protocol != (error->v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP) || !message || message + 8 > end)
		return false;
	if (error->v6 ? message[0] != TOO_BIG : message[0] != UNREACHABLE || message[1] != NEEDS_FRAGMENTS)
		return false;
	if (!(error->v6 ? read_v6(context, (const void *)(message + 8), end, &quoted) :
			  read_v4((const void *)(message + 8), end, &quoted)))
		return false;
	if (quoted.protocol == IPPROTO_UDP) {
		if (!has_ports(&quoted, end))
			return false;
		port_be = l4_read16(quoted.ports + 2);
	} else if (quoted.protocol != IPPROTO_IPIP && quoted.protocol != IPPROTO_IPV6) {
		return false;
	}
	return quoted.src[0] == error->dst[0] && quoted.src[1] == error->dst[1] &&
	       l4_address_is(NULL, control.generation & 1, quoted.dst, port_be, L4_IS_TUNNEL) >= 0;
}

static __always_inline bool is_of_flow(struct xdp_md *context, const struct packet *packet, const uint8_t *end)
{
	/* Of a reply, perhaps, if it is from a backend and for nobody here. Python knows the first fragment. */
	if (packet->later)
		return l4_address_is(NULL, control.generation & 1, packet->src, 0, L4_IS_BACKEND) >= 0 &&
		       l4_address_is(NULL, control.generation & 1, packet->dst, 0, L4_IS_OWN) < 0;
	if (has_ports(packet, end))
		return is_reply_key(packet->src, packet->dst, l4_read32(packet->ports), packet->protocol);
	return is_error_of_flow(context, packet, end) || is_of_tunnel(context, packet, end);
}

/* The arm that a frame came in by. */
static __always_inline uint32_t arm_of(const struct xdp_md *context)
{
	return control.interfaces[1] == context->ingress_ifindex;
}

/* An action of XDP: to the queue's socket, or on to the kernel. */
static __always_inline int redirect(struct xdp_md *context)
{
	const uint8_t *start = (const void *)(long)context->data;
	const uint8_t *end = (const void *)(long)context->data_end;
	const struct ethhdr *ethernet = (const void *)start;
	const uint8_t *ip = (const void *)(ethernet + 1);
	uint32_t arm = arm_of(context);
	struct packet packet;
	uint16_t type;
	bool read;

	if (ip > end)
		return XDP_PASS;
	if (!is_own_mac(ethernet->h_dest, arm))
		return XDP_PASS;
	type = ethernet->h_proto;
	/* One tag, IEEE 802.1Q, which the frame keeps. What has two is the kernel's. */
	if (type == l4_htons(ETH_P_8021Q)) {
		if (ip + TAG > end)
			return XDP_PASS;
		type = l4_read16(ip + TAG - sizeof(type));
		ip += TAG;
	}
	if (type == l4_htons(ETH_P_IP))
		read = read_v4((const void *)ip, end, &packet);
	else if (type == l4_htons(ETH_P_IPV6))
		read = read_v6(context, (const void *)ip, end, &packet);
	else
		return XDP_PASS;
	/* Neighbour discovery for an address of ours is the responder's, which has a packet socket. */
	if (!read || packet.discovery)
		return XDP_PASS;
	if (l4_address_is(NULL, control.generation & 1, packet.dst, 0, L4_IS_VIP) < 0 &&
	    ((!arm && control.interfaces[1]) || !is_of_flow(context, &packet, end)) &&
	    l4_address_is(NULL, control.generation & 1, packet.dst, 0, L4_IS_SNAT) < 0)
		return XDP_PASS;
	if (context->rx_queue_index >= QUEUES)
		return XDP_PASS;
	return bpf_redirect_map(&xsks, arm * QUEUES + context->rx_queue_index, XDP_PASS);
}

#endif
