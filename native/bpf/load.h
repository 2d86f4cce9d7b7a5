// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The frame that generator.bpf.c sends and sink.bpf.c knows again, for benchmarks.
 *
 *     0 Ethernet   14 IPv4   34 UDP, zeros   54 when it was sent, ns: the lowest 48 bits   60
 *                            34 TCP
 *
 * IPv4's identification, in this machine's byte order, is MARK and the class,
 * which no mode of l4raw changes. Its flow is in source address and source
 * port. l4raw/bench/frames.py makes its constant part.
 */
#ifndef L4RAW_LOAD_H
#define L4RAW_LOAD_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum { IP_AT = 14, ID_AT = 18, L4_AT = 34, SENT_AT = 54, FRAME_BYTES = 60 };

/* Classes: known flows come again and again, a new flow has one frame, or a few. */
enum { KNOWN, NEW, CLASSES };

enum { MARK = 0x4c40 };

/* RFC 1071: the one's complement of the one's complement sum. */
static __always_inline __u16 checksum(__u64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)~sum;
}

#endif
