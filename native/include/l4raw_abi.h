/* SPDX-License-Identifier: MIT */
/*
 * The one definition that C, BPF and Python share: version, limits, the
 * verdict list and the layout of the tables. No function and no policy lives
 * here; timeouts, weights and health belong to Python and are passed in.
 *
 * Three compilers read this same text. The C helper and the BPF program
 * include it. cffi reads it through `cc -E -P -DL4RAW_CDEF`, which is why
 * constants are enums (a #define is gone after -E), why nothing is packed
 * (cffi cannot take the attribute) and why every struct is aligned by hand
 * and its size asserted. `make abi` writes l4raw/wire/abi.py from it.
 *
 * Byte order: fields named _be are in network order, all others in the order
 * of the host.
 */
#ifndef L4RAW_ABI_H
#define L4RAW_ABI_H

#if defined(L4RAW_CDEF)
#define L4_ASSERT(condition, text)
#elif defined(__bpf__)
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
#define L4_ASSERT(condition, text) _Static_assert(condition, text);
#else
#include <stdint.h>
#define L4_ASSERT(condition, text) _Static_assert(condition, text);
#endif

/* Raised whenever a struct, a limit or the verdict list changes. */
enum { L4_ABI_VERSION = 1 };

enum l4_limit {
	L4_BURST = 64,             /* frames taken from one arm before the next has its turn */
	L4_ARMS = 2,               /* client side, backend side */
	L4_SLOTS = 4,              /* flow entries in a bucket */
	L4_CAPACITY_PERCENT = 70,  /* flow entries, of those in buckets, that always find room */
	L4_OVERFLOW_SHARE = 16,    /* one overflow entry for so many entries in buckets */
	L4_OVERFLOW_SLOTS = 16,    /* overflow entries in a block */
	L4_SERVICES = 1024,
	L4_BACKENDS = 65535,       /* of all services together; index 0 is none */
	L4_NEXT_HOPS = 65535,      /* index 0 is none */
	L4_MAGLEV_SLOTS = 65537,   /* prime; Eisenbud et al., NSDI'16, section 5.3 */
	L4_HASH_WORDS = 10,        /* 32-bit words of a flow key; the last one is the protocol */
	L4_SENT = 2,               /* verdicts below it: the frame was sent */
};

/*
 * Every frame ends in exactly one verdict, and every verdict is a counter.
 * The sentence is what a person is told, in `explain`, in the counters that
 * `up` prints and in docs/verdicts.md. Those that send come first (L4_SENT of
 * them), so that "was it sent?" is one comparison; then what is left to the
 * kernel, then what is dropped.
 */
#define L4_VERDICTS(_) \
	_(FORWARD, "sent to the backend") \
	_(REPLY, "sent back to the client, as if the VIP had answered") \
	_(PASS_NOT_IPV4, "not IPv4: the kernel's business") \
	_(PASS_OTHER_MAC, "addressed to another machine's MAC") \
	_(PASS_NOT_OURS, "neither for a VIP nor a reply of a flow: the kernel's business") \
	_(DROP_SHORT, "ends before its headers do") \
	_(DROP_IP_VERSION, "EtherType says IPv4, the version field says otherwise (RFC 1812 5.2.2)") \
	_(DROP_IP_HEADER_LENGTH, "IHL below 5, or longer than the packet (RFC 791 3.1)") \
	_(DROP_IP_LENGTH, "total length shorter than its header or longer than the frame (RFC 1812 5.2.2)") \
	_(DROP_IP_CHECKSUM, "wrong IPv4 header checksum (RFC 1812 5.2.2)") \
	_(DROP_TCP_OFFSET, "TCP data offset below 5 or past the segment (RFC 9293 3.1)") \
	_(DROP_UDP_LENGTH, "UDP length below 8 or past the packet (RFC 768)") \
	_(DROP_FRAGMENT, "a fragment to a VIP: only the first one has ports (RFC 791 3.2)") \
	_(DROP_PROTOCOL, "to a VIP, but neither TCP nor UDP") \
	_(DROP_NO_SERVICE, "to a VIP, but no service has this port and protocol") \
	_(DROP_MARTIAN, "its source address or MAC is none that a client can have (RFC 1812 5.3.7, IEEE 802.3 3.2.3)") \
	_(DROP_NO_FLOW, "a TCP segment of no known flow, and the scheduler is no function of the flow") \
	_(DROP_NO_BACKEND, "the service has no backend that takes new flows") \
	_(DROP_NEXT_HOP_UNKNOWN, "the MAC address of the next hop is not known (yet)") \
	_(DROP_NEXT_HOPS_FULL, "no room to remember one more client next hop") \
	_(DROP_FLOWS_FULL, "the flow table is full") \
	_(DROP_REPLY_KEY_TAKEN, "its replies would look like those of another flow") \
	_(DROP_TTL, "TTL would reach zero (RFC 1812 5.3.1)") \
	_(DROP_TX, "the egress interface did not take it: its queue is full, it is down, or its MTU is too small")

#define L4_VERDICT_ENUM(name, sentence) L4_##name,
enum l4_verdict { L4_VERDICTS(L4_VERDICT_ENUM) L4_VERDICT_COUNT };

enum l4_mode { L4_DSR_L2, L4_NAT };

/* How a new flow picks a slot of its service's ring. */
enum l4_rule {
	L4_RULE_FLOW_HASH,         /* keyed hash of the 5-tuple, modulo the size */
	L4_RULE_CURSOR,            /* the next slot, one after the other */
};

/*
 * What was last seen of a flow, in the direction of its entry. It selects the
 * timeout. FREE must be 0: an unused table is zero bytes.
 */
enum l4_flow_state {
	L4_FLOW_FREE,
	L4_FLOW_HALF_OPEN,         /* TCP: one segment so far, or only SYNs */
	L4_FLOW_ESTABLISHED,       /* TCP: a second segment, without SYN */
	L4_FLOW_CLOSING,           /* TCP: a FIN or RST */
	L4_FLOW_UDP,
	L4_FLOW_STATES
};

/*
 * One direction of a flow in one cache line. IPv4 addresses are stored
 * IPv4-mapped (RFC 4291 2.5.5.2). A DSR flow has one entry. A NAT flow has
 * two, each naming the other as its peer: rewriting a frame of one means
 * writing the other's key with source and destination exchanged.
 *
 * The first 37 bytes are the key. Entries never move. How a key is hashed, and
 * to which entries, is written in l4raw/core/hashing.py and flows.py; in short,
 * with the key's ten words w in network order and eleven random 64-bit k:
 *
 *   s = k[0] + k[1] w[0] + ... + k[10] w[9]      modulo 2^64
 *   h = (s ^ s >> 32) * 0x9E3779B97F4A7C15       modulo 2^64
 *   buckets: (h >> 32) * n >> 32 and (h & 0xffffffff) * n >> 32, n buckets
 *
 *   0               16              32  34  36 37 38  40  42  44
 *   +---------------+---------------+---+---+--+--+---+---+---+----
 *   | src           | dst           |spo|dpo|pr|st|svc|bck|hop|peer
 *   +---------------+---------------+---+---+--+--+---+---+---+----
 */
struct l4_flow {
	uint8_t src[16];
	uint8_t dst[16];
	uint16_t sport_be;
	uint16_t dport_be;
	uint8_t protocol;
	uint8_t state;             /* enum l4_flow_state */
	uint16_t service;
	uint16_t backend;
	uint16_t next_hop;         /* where frames of this direction go; 0: the backend's */
	uint32_t peer;             /* entry of the other direction, plus 1; 0: none */
	uint32_t last_seen;        /* ms of the tables' clock, modulo 2^32 */
	uint32_t sequence;         /* for TCP sequence numbers; 0 as long as nobody follows them */
	uint32_t lock;             /* bit 0: taken by a writer; above: generation */
	uint32_t packets;
};
L4_ASSERT(sizeof(struct l4_flow) == 64, "a flow entry is one 64-byte line")

/* Where a frame is sent: a MAC address behind one arm. */
struct l4_next_hop {
	uint8_t mac[6];
	uint8_t arm;
	uint8_t known;             /* 0: not resolved */
	uint32_t references;       /* flows that learned it; 0 for a backend's, which stays */
};
L4_ASSERT(sizeof(struct l4_next_hop) == 12, "next hop")

struct l4_backend {
	uint8_t address[16];
	uint16_t port_be;          /* 0: the port the client asked for */
	uint16_t next_hop;
	uint16_t service;
	uint16_t reserved;
};
L4_ASSERT(sizeof(struct l4_backend) == 24, "backend")

struct l4_service {
	uint8_t vip[16];
	uint16_t port_be;          /* 0: every port */
	uint8_t protocol;
	uint8_t mode;              /* enum l4_mode */
	uint8_t rule;              /* enum l4_rule */
	uint8_t reserved[3];
	uint32_t ring_start;       /* first slot in the ring array */
	uint32_t ring_size;        /* slots; 0: no backend takes new flows */
};
L4_ASSERT(sizeof(struct l4_service) == 32, "service")

#endif
