// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The frame that generator.bpf.c sends and sink.bpf.c knows again, for benchmarks.
 *
 *     0 Ethernet   14 IPv4   34 UDP   42 zero   44 when it was sent, ns   52 "l4rawgen"   60
 *
 * Its flow is in source address and source port, which no mode of l4raw
 * changes. tests/bench/load_frame.py makes its constant part.
 */
#ifndef L4RAW_LOAD_H
#define L4RAW_LOAD_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum { IP_AT = 14, UDP_AT = 34, SENT_AT = 44, MAGIC_AT = 52, FRAME_BYTES = 60 };

/* Classes: known flows come again and again, a new flow has one frame, or a few. */
enum { KNOWN, NEW, CLASSES };

/* A source port below is a known flow's, any other a new one's. */
enum { NEW_PORTS = 32768 };

#endif
