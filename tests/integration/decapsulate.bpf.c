// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* At the ingress of a backend: has the kernel take off what is in front of a packet in a tunnel.
 *
 * IPv4 or IPv6 in either; or behind UDP to port 6080 and four bytes of GUE, whose second
 * names what follows. Nothing is shared with the code that puts it there, not even a name.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* BPF_F_ADJ_ROOM_DECAP_L3_IPV4 and _IPV6 of Linux 6.3, which older headers do not have. */
enum { TO_IPV4 = 1 << 7, TO_IPV6 = 1 << 8 };

SEC("tc")
int decapsulate(struct __sk_buff *skb)
{
	int v6 = skb->protocol == bpf_htons(ETH_P_IPV6), length = v6 ? 40 : 20;
	__u64 flags;
	__u16 port;
	__u8 next;

	if (skb->protocol != bpf_htons(ETH_P_IP) && !v6)
		return TC_ACT_OK;
	if (bpf_skb_load_bytes(skb, 14 + (v6 ? 6 : 9), &next, 1))
		return TC_ACT_OK;
	if (next == IPPROTO_UDP) {
		if (bpf_skb_load_bytes(skb, 14 + length + 2, &port, 2) || port != bpf_htons(6080) ||
		    bpf_skb_load_bytes(skb, 14 + length + 9, &next, 1))
			return TC_ACT_OK;
		length += 12;
	}
	if (next != IPPROTO_IPIP && next != IPPROTO_IPV6)
		return TC_ACT_OK;
	flags = next == IPPROTO_IPIP ? TO_IPV4 : TO_IPV6;
	return bpf_skb_adjust_room(skb, -length, BPF_ADJ_ROOM_MAC, flags) ? TC_ACT_SHOT : TC_ACT_OK;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
