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
 * of the host. Every struct that is an element of a table is a multiple of
 * 8 bytes, because that is the stride of a BPF array map.
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
typedef int int32_t;
typedef long long int64_t;
#define L4_ASSERT(condition, text) _Static_assert(condition, text);
#else
#include <stdint.h>
#define L4_ASSERT(condition, text) _Static_assert(condition, text);
#endif

/* Raised whenever a struct, a limit or the verdict list changes. */
enum { L4_ABI_VERSION = 24 };

enum l4_limit {
	L4_BURST = 64,             /* frames taken from one arm before the next has its turn */
	L4_ARMS = 2,               /* client side, backend side */
	L4_SLOTS = 4,              /* flow entries in a bucket */
	L4_NEAR = 8,               /* pairs of buckets that are looked through for a flow that may go */
	L4_CAPACITY_PERCENT = 70,  /* flow entries, of those in buckets, that always find room */
	L4_OVERFLOW_SHARE = 16,    /* one overflow entry for so many entries in buckets */
	L4_OVERFLOW_SLOTS = 16,    /* overflow entries in a block */
	L4_HALF_OPEN_SHARE = 16,   /* one half-open flow for so many entries of the capacity */
	L4_PLACES_EACH = 2,        /* places for each of them, at most; their number is a power of two */
	L4_LOOK = 256,             /* places that are looked at for the oldest flow, before Python looks on */
	L4_OPEN_WINDOW = 65536,    /* bytes by which a client's first ACK may be ahead of the backend's SYN */
	L4_END_WINDOW = 4194304,   /* bytes by which a FIN or RST may be ahead of what was acknowledged */
	L4_STREAM_MS = 2000,       /* from a first answer on: then UDP is a stream; DSR's SYNs: then nobody answers */
	L4_SERVICES = 1024,
	L4_BACKENDS = 65535,       /* of all services together; index 0 is none */
	L4_NEXT_HOPS = 65535,      /* index 0 is none */
	L4_MAGLEV_SLOTS = 65537,   /* prime; Eisenbud et al., NSDI'16, section 5.3 */
	L4_HASH_WORDS = 10,        /* 32-bit words of a flow key; the last one is the protocol */
	L4_SENT = 5,               /* verdicts below it: the frame was sent */
	L4_HALVES = 2,             /* of what a policy replaces: one is read, one is written */
	L4_PROBES = 4,             /* places of the lookup that can hold a key, one after the other */
	L4_SNAT_RANGES = 16,       /* of one service: an address and ports that follow each other */
	L4_PORT_TRIES = 16,        /* places in a walk through a pool; then it is a miss */
	L4_CLIENT_PLACES = 7,      /* clients that a bucket of theirs has room for */
	L4_MOST_PER_S = 4000000,   /* new flows: 1000 times as many fit in 32 bits */
	L4_SLOTS_EACH = 4,         /* slots of a ring in an element of a BPF map, which has 8 bytes at least */
	L4_WORDS_EACH = 2,         /* likewise words of 32 bits */
	L4_STRIPES = 1024,         /* locks for the insertion of a flow, by the hash of its key */
	L4_VERDICT_ROOM = 48,      /* counters of verdicts in struct l4_queue */
	L4_MISS_ROOM = 16,         /* and of misses */
	L4_FLOWS_ALONE = 4,        /* one in so many entries of the capacity is for flows, and for no client's choice */
	L4_TUNNEL_ROOM = 52,       /* bytes that the headers in front of a packet need at most */
	L4_EVENT_ROOM = 6,         /* and of events */
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
	_(ECHO, "a ping of a VIP, answered in its name (RFC 792, RFC 4443)") \
	_(FRAGMENTED, "too long for the next link, and sent on in fragments (RFC 791 3.2)") \
	_(ICMP_ERROR, "an ICMP error that quotes a flow, sent where that flow's packet came from (RFC 5508 4)") \
	_(PASS_NOT_IP, "neither IPv4 nor IPv6: the kernel's business") \
	_(PASS_OTHER_MAC, "addressed to another machine's MAC") \
	_(PASS_NOT_OURS, "neither for a VIP nor a reply of a flow: the kernel's business") \
	_(PASS_ND, "to a VIP or a SNAT address: neighbour discovery, which the responder answers (RFC 4861)") \
	_(PASS_PATH_MTU, "an ICMP error about a tunnel's packet: the MTU of the path to its backend is noted (RFC 1191, RFC 8201)") \
	_(DROP_SHORT, "ends before its headers do") \
	_(DROP_IP_VERSION, "EtherType and version field say different things (RFC 1812 5.2.2)") \
	_(DROP_IP_HEADER_LENGTH, "IHL below 5, or longer than the packet (RFC 791 3.1)") \
	_(DROP_IP_LENGTH, "total or payload length shorter than the headers or longer than the frame (RFC 1812 5.2.2)") \
	_(DROP_IP_CHECKSUM, "wrong IPv4 header checksum (RFC 1812 5.2.2)") \
	_(DROP_IP_EXTENSIONS, "an IPv6 extension header ends past the packet, or there are too many (RFC 8200 4)") \
	_(DROP_TCP_OFFSET, "TCP data offset below 5 or past the segment (RFC 9293 3.1)") \
	_(DROP_UDP_LENGTH, "UDP length below 8 or past the packet (RFC 768)") \
	_(DROP_FRAGMENT, "a fragment whose first one, which has the ports, did not come within 5 s (RFC 791 3.2)") \
	_(DROP_FRAGMENT_OVERLAP, "a fragment that overlaps another one, or fits into no datagram (RFC 5722, RFC 1858)") \
	_(DROP_FRAGMENT_TWICE, "a fragment that came before, with the same start and end (RFC 8200 4.5)") \
	_(DROP_FRAGMENTS_FULL, "a fragment that found no room to wait for the first one, or gave way to later datagrams") \
	_(DROP_PROTOCOL, "to a VIP, but neither TCP nor UDP nor a ping nor an ICMP error") \
	_(DROP_ICMP, "an ICMP error to a VIP that quotes no packet of a known flow") \
	_(DROP_NO_SERVICE, "to a VIP, but no service has this port and protocol") \
	_(DROP_MARTIAN, "its source address or MAC is none that a client can have (RFC 1812 5.3.7, RFC 4291 2, IEEE 802.3 3.2.3)") \
	_(DROP_ACL, "a new flow of a client that the service's acl does not let in") \
	_(DROP_CLIENT_FLOWS, "a new flow of a client that has as many as the service's limits allow") \
	_(DROP_CLIENT_RATE, "a new flow of a client that opens more a second than the service's limits allow") \
	_(DROP_SERVICE_FLOWS, "a new flow of a service that has as many as its limits allow") \
	_(DROP_SERVICE_RATE, "a new flow of a service that gets more a second than its limits allow") \
	_(DROP_NO_FLOW, "a TCP segment of no known flow, and nothing tells which backend had it; NAT answers with a reset") \
	_(DROP_NO_BACKEND, "the service has no backend that takes new flows") \
	_(DROP_NEXT_HOP_UNKNOWN, "the MAC address of the next hop is not known (yet)") \
	_(DROP_NEXT_HOPS_FULL, "no room to remember one more client next hop") \
	_(DROP_FLOWS_FULL, "the flow table is full") \
	_(DROP_REPLY_KEY_TAKEN, "its replies would look like those of another flow") \
	_(DROP_SNAT_EXHAUSTED, "no address and port of the service's SNAT pool is free for this backend") \
	_(DROP_SNAT_NO_FLOW, "to a SNAT address, but no reply of a known flow") \
	_(DROP_TTL, "TTL would reach zero (RFC 1812 5.3.1)") \
	_(DROP_TOO_BIG, "too long for the next link and not to be fragmented: its sender is told (RFC 1191, RFC 8201)") \
	_(DROP_OVERFLOW, "left to Python, for which as many were waiting as may") \
	_(DROP_TX, "the egress interface did not take it: its queue is full, or it is down")

#define L4_VERDICT_ENUM(name, sentence) L4_##name,
enum l4_verdict { L4_VERDICTS(L4_VERDICT_ENUM) L4_VERDICT_COUNT };

/*
 * A miss is no verdict: it says why a fast executor leaves the frame to the
 * next one, which gives the verdict. L4_MISS stands where a verdict would.
 */
#define L4_MISSES(_) \
	_(BUSY, "another thread held what it has to write") \
	_(CHANGED, "the flow's entry, or its peer, changed while it was read") \
	_(RULE, "how its service picks a backend is no look-up here") \
	_(TOO_LONG, "longer than what its way out takes, or the path of its tunnel: it is refused or cut") \
	_(PORTS, "the first ports that its flow tries are taken, but its pool has others") \
	_(REST, "a port of a SNAT pool is to rest; or the flow table is full, and ports that rest can give way") \
	_(ICMP_ERROR, "an ICMP error, which follows the flow that it quotes") \
	_(FRONT, "no room in front of the frame for a tunnel's headers") \
	_(FRAGMENT, "a fragment, which follows the first one of its datagram") \
	_(RESET, "a TCP segment of no known flow under NAT, which gets a reset") \
	_(SAMPLE, "a person asked to see the next frames")

#define L4_MISS_ENUM(name, sentence) L4_MISS_##name,
enum l4_miss { L4_MISSES(L4_MISS_ENUM) L4_MISS_COUNT };
enum { L4_MISS = 255 };

/* What happens on the way to a verdict, and is counted beside it. */
#define L4_EVENTS(_) \
	_(EVICTED_HALF_OPEN, "a half-open flow made room for a newer one: their share of the flow table, or all of it, was full") \
	_(EVICTED_OLDEST, "a flow made room for a new one, as its service evicts the oldest: the flow table was full") \
	_(STATELESS, "a frame went where the ring says, without an entry: the flow table was full") \
	_(NO_AFFINITY, "where a client's new flow went was not remembered for its next ones: the flow table was too full")

#define L4_EVENT_ENUM(name, sentence) L4_EVENT_##name,
enum l4_event { L4_EVENTS(L4_EVENT_ENUM) L4_EVENT_COUNT };

/* A place among half-open flows that somebody is about to fill. */
enum { L4_PLACE_TAKEN = 0x7fffffff };

/* What a caller knows of a frame's checksum, where others give an offset. */
enum { L4_CSUM_DETECT = -1 };      /* nothing: a partial one is recognised, and completed */

/* Why there is no index. */
enum l4_none {
	L4_NONE = -1,              /* not found */
	L4_FULL = -2,              /* no room */
	L4_BUSY = -3,              /* another thread holds the lock; nothing was changed */
	L4_TAKEN = -4,             /* the key is in the table */
	L4_REPLY_TAKEN = -5,       /* that of the other direction is */
	L4_NO_HOP = -6,            /* no room for one more next hop of a client */
};

enum l4_mode { L4_DSR_L2, L4_NAT, L4_FULLNAT, L4_DSR_IPIP, L4_DSR_GUE };

/* How a new flow picks a slot of its service's ring. */
enum l4_rule {
	L4_RULE_FLOW_HASH,         /* keyed hash of the 5-tuple, modulo the size */
	L4_RULE_CURSOR,            /* the next slot, one after the other */
	L4_RULE_SOURCE_HASH,       /* keyed hash of the client's address, modulo the size */
	L4_RULE_LEAST,             /* no look-up: Python compares the backends' current flows */
	L4_RULE_AFFINITY,          /* of no ring: where the client's last flow went, see l4raw/core/affinity.py */
};

/* What becomes of a new flow while the flow table is full. */
enum l4_full {
	L4_FULL_REFUSE_NEW,
	L4_FULL_EVICT_OLDEST,      /* the one near it that was silent longest goes */
	L4_FULL_STATELESS,         /* it goes where the ring says, without an entry */
};

/*
 * What was last seen of a flow, in the direction of its entry. It selects the
 * timeout. FREE must be 0: an unused table is zero bytes.
 */
enum l4_flow_state {
	L4_FLOW_FREE,
	L4_FLOW_HALF_OPEN,         /* TCP: one segment so far, or only such as prove nothing */
	L4_FLOW_UDP_NEW,           /* UDP: one datagram so far; where both sides are seen, no stream */
	L4_FLOW_ESTABLISHED,       /* TCP: it has proved something: see l4raw/core/states.py */
	L4_FLOW_CLOSING,           /* TCP: a FIN or RST after that */
	L4_FLOW_UDP,
	L4_FLOW_RESTING,           /* no flow: the reply key of one that has ended, so that its port is not used yet */
	L4_FLOW_AFFINITY,          /* no flow: which backend a client's new flows go to, see l4raw/core/affinity.py */
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
 *   tag: h >> 32 & 0xff, or 1 for 0
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
	uint32_t sequence;         /* of a half-open client: its place among such, from 1, or 0; else: see touch.h */
	uint32_t lock;             /* bit 0: taken by a writer; above: generation */
	uint32_t packets;
};
L4_ASSERT(sizeof(struct l4_flow) == 64, "a flow entry is one 64-byte line")

/*
 * Where a frame is sent: a MAC address behind one arm. The first 8 bytes are
 * one word, read and written at once. Hops learned from clients are found by
 * (arm, MAC), in a list for each hash value; free ones are a list too.
 */
struct l4_next_hop {
	uint8_t mac[6];
	uint8_t arm;
	uint8_t known;             /* 0: not resolved, or free */
	uint32_t references;       /* flows that learned it; 0 for a backend's, which stays */
	uint32_t next;             /* next hop of the same list; 0: none */
};
L4_ASSERT(sizeof(struct l4_next_hop) == 16, "next hop")

struct l4_backend {
	uint8_t address[16];
	uint16_t port_be;          /* 0: the port the client asked for */
	uint16_t next_hop;
	uint16_t service;
	uint8_t arm;
	uint8_t mode;              /* enum l4_mode, of its service; and of a tunnel: */
	uint8_t source[16];        /* of the address's IP version */
	uint16_t tunnel_port_be;
	uint8_t tunnel_ttl;
	uint8_t takes_flows;       /* it is in its service's ring */
	uint16_t path_mtu;         /* that a router on the way has told, any moment; 0: none has */
	uint8_t reserved[2];
};
L4_ASSERT(sizeof(struct l4_backend) == 48, "backend")

struct l4_service {
	uint8_t vip[16];
	uint16_t port_be;          /* 0: every port */
	uint8_t protocol;          /* 0: the policy has lost it, nothing is for it any more */
	uint8_t mode;              /* enum l4_mode */
	uint8_t rule;              /* enum l4_rule */
	uint8_t full;              /* enum l4_full */
	uint16_t mss_clamp;        /* TCP: the largest MSS that passes; 0: any */
	uint32_t ring_start;       /* first slot in the ring array of its half */
	uint32_t ring_size;        /* slots; 0: no backend takes new flows */
	uint32_t acl_start;        /* first range in the array of its half */
	uint32_t acl_size;         /* ranges; 0: everybody may open flows */
	uint32_t snat_start;       /* fullnat: first range in the SNAT array of its half */
	uint32_t snat_ranges;      /* of the pool */
	uint32_t snat_ports;       /* of all ranges */
	uint32_t snat_modulus;     /* the least prime that is not below snat_ports */
	uint32_t flows;            /* limits, 0: none. Current flows; new ones a second; and those of one client */
	uint32_t new_per_s;
	uint32_t client_flows;
	uint32_t client_new_per_s;
	uint32_t affinity;         /* ms for which a client's choice is kept after its last new flow; 0: no choice is */
	uint32_t owners;           /* slots that have an owner, in the array after the ring's: see l4raw/core/changes.py */
};
L4_ASSERT(sizeof(struct l4_service) == 80, "service")

/*
 * What limits of a service count, by its number. The level of new flows and
 * the time of it, in ms modulo 2^32, are one word. See l4raw/core/limits.py.
 */
struct l4_usage {
	uint32_t level;
	uint32_t stamp;
	uint32_t flows;            /* current ones */
	uint32_t tracked;          /* of them, those that are counted for their client too */
};
L4_ASSERT(sizeof(struct l4_usage) == 16, "usage of a service")

/* The same of a client, in a bucket of a few; written by who has the bucket's lock. */
struct l4_client {
	uint32_t tag;              /* of the hash of service and address; 0: nobody */
	uint32_t flows;
	uint32_t stamp;
	uint32_t level;
};

struct l4_clients {
	uint32_t lock;
	uint32_t reserved[3];
	struct l4_client places[L4_CLIENT_PLACES];
};
L4_ASSERT(sizeof(struct l4_clients) == 128, "clients of a bucket are two lines")

/*
 * A range of clients' addresses, from here to where the next one begins, in
 * the order of the addresses: see l4raw/core/acl.py. Numbers in the order of the
 * host; an IPv4 address is an IPv4-mapped one. The first range begins at 0.
 */
struct l4_range {
	uint64_t high;
	uint64_t low;
	uint32_t allowed;
	uint32_t reserved;
};
L4_ASSERT(sizeof(struct l4_range) == 24, "range of an access list")

/* A range of a pool: see l4raw/core/snat.py. */
struct l4_snat {
	uint8_t address[16];
	uint32_t start;            /* ports in the ranges before it */
	uint16_t port;             /* the first one */
	uint16_t reserved;
};
L4_ASSERT(sizeof(struct l4_snat) == 24, "range of a SNAT pool")

/* The multipliers of l4raw/core/hashing.py; and what the words that all IPv4 keys share add up to, k[0] included. */
struct l4_hash_key {
	uint64_t k[11];
	uint64_t base;
};
L4_ASSERT(sizeof(struct l4_hash_key) == 96, "hash key")
L4_ASSERT(sizeof(((struct l4_hash_key *)0)->k) == 8 * (L4_HASH_WORDS + 1), "a multiplier for each word")

/*
 * What an address is to us: one place of the lookup. A service is found by
 * its VIP, port and protocol; a VIP by itself by port 0 and L4_IS_VIP; an
 * address of our own by port 0 and L4_IS_OWN; a SNAT address by port 0 and
 * L4_IS_SNAT; a backend that answers through us by port 0 and L4_IS_BACKEND;
 * the end of a tunnel by its UDP port, or 0 where it has none, and L4_IS_TUNNEL.
 * No service can have those protocols (0: IPv6's hop-by-hop options; 252:
 * nobody's; 253 to 255: for experiments, and reserved).
 *
 * Python chooses the key of the hash so that each of them is found in one of
 * the L4_PROBES places from its hash on; the first unused one ends a search.
 */
enum l4_address_use { L4_IS_VIP = 0, L4_IS_TUNNEL = 252, L4_IS_BACKEND = 253, L4_IS_SNAT = 254, L4_IS_OWN = 255 };

struct l4_place {
	uint8_t address[16];
	uint16_t port_be;
	uint8_t protocol;
	uint8_t used;
	uint16_t service;
	uint16_t reserved;
};
L4_ASSERT(sizeof(struct l4_place) == 24, "place of the lookup")

/* One half of what a policy replaces: the part that is no array. */
struct l4_policy {
	struct l4_hash_key ring_key;
	struct l4_hash_key lookup_key;
	uint32_t places;           /* a hash is scaled to this; L4_PROBES - 1 more follow */
	uint32_t services;         /* numbers below it are used */
	uint32_t backends;         /* likewise */
	uint32_t reserved;
	uint64_t ours[4];          /* a bit for each VIP, SNAT address and address of our own: see l4_may_be_ours() */
	uint64_t reserved2[2];
};
L4_ASSERT(sizeof(struct l4_policy) == 256, "policy")

/*
 * What is there once. Grouped into 64-byte lines by who writes them, so that
 * what every frame reads is not in a line that new flows write.
 */
struct l4_control {
	/* Lines 0 to 2: written at the start. */
	struct l4_hash_key key;    /* of the flow table */
	uint32_t buckets;
	uint32_t flow_entries;     /* those of the overflow area included */
	uint32_t flow_capacity;
	uint32_t service_limit;    /* elements in one half of an array, or in all of it */
	uint32_t backend_limit;
	uint32_t place_limit;
	uint32_t ring_limit;
	uint32_t hop_limit;        /* indices of next hops up to and including it */
	uint32_t head_limit;
	uint32_t queue_limit;
	uint8_t arms[2][8];        /* MAC addresses of our own; the last two bytes are 0 */
	uint32_t range_limit;
	uint32_t snat_limit;
	uint32_t client_limit;     /* buckets of clients */
	uint32_t place_count;      /* for half-open flows: a power of two */
	uint32_t half_open_limit;  /* how many there may be */
	uint32_t first_cpu;        /* counters of the kernel path: the first CPU's in the array of struct l4_queue */
	uint32_t interfaces[2];    /* of the arms, for XDP programs: their numbers; 0: there is none */
	uint32_t reserved0[2];
	/* Line 3: written by the one who owns the clock, by a reload, and when nothing overflows any more. */
	uint32_t now;              /* ms, modulo 2^32 */
	uint32_t generation;       /* of the policy; its last bit is the half in force */
	uint32_t mtus[2];          /* bytes of an IP packet that each arm takes; looked at each second */
	uint32_t least_mtu;        /* the smaller one */
	uint32_t forwards;         /* 1: the kernel path does; 0: all frames of ours go to the sockets */
	uint8_t mark;              /* a bucket whose mark is this has overflowed; another one when all have not */
	uint8_t reserved2[39];
	/* Line 4: written with each new flow. */
	uint32_t used;             /* flow entries in use, or about to be */
	uint32_t resting;          /* how many of them rest; written by Python alone */
	uint32_t share_lock;       /* of the places for half-open flows, and the next two */
	uint32_t turn;             /* of the next half-open flow, modulo 2^32; its place follows from it */
	uint32_t oldest;           /* the first turn whose flow may still be half-open */
	uint32_t half_open_used;   /* places that are not free */
	uint32_t reserved3[10];
	/* Line 5: written with each flow of the overflow area. */
	uint32_t overflow_lock;
	uint32_t overflowed;       /* its entries in use */
	uint32_t reserved4[14];
	/* Line 6: written with each new NAT flow. */
	uint32_t hop_lock;
	uint32_t hop_count;        /* indices that were ever used; 0 does not count */
	uint32_t hop_free;         /* the first free one below; 0: none */
	uint32_t hop_freed;        /* how many are free */
	uint32_t reserved5[12];
};
L4_ASSERT(sizeof(struct l4_control) == 7 * 64, "control")
L4_ASSERT(__builtin_offsetof(struct l4_control, now) == 3 * 64, "clock and generation have a line")
L4_ASSERT(__builtin_offsetof(struct l4_control, used) == 4 * 64, "new flows have a line")
L4_ASSERT(__builtin_offsetof(struct l4_control, overflow_lock) == 5 * 64, "overflow has a line")
L4_ASSERT(__builtin_offsetof(struct l4_control, hop_lock) == 6 * 64, "next hops have a line")

/* Counters of one backend in one queue. See Traffic in l4raw/core/tables.py. */
struct l4_traffic {
	uint64_t flows;            /* those of the kernel path in the first CPU's, by all CPUs */
	uint64_t packets;
	uint64_t bytes;
	uint64_t reply_packets;
	uint64_t reply_bytes;
	uint64_t dropped;
	uint64_t ended;            /* flows that were freed */
	uint64_t reserved[1];
};
L4_ASSERT(sizeof(struct l4_traffic) == 64, "counters of a backend are one line")

/*
 * What one queue's thread writes and nobody else does; others read it, and
 * add up over the queues. After them come Python's, which has no queue, and
 * those of each CPU, which the kernel path counts in. `generation` is that of
 * the policy which the queue works with; see l4_pass() in native/src/helper.h.
 */
struct l4_queue {
	uint64_t verdicts[L4_VERDICT_ROOM];
	uint64_t misses[L4_MISS_ROOM];
	uint64_t events[L4_EVENT_ROOM];
	uint32_t online;
	uint32_t generation;
	uint64_t reserved[1];
};
L4_ASSERT(sizeof(struct l4_queue) == 9 * 64, "a queue's counters share no line")
L4_ASSERT((int)L4_VERDICT_COUNT <= (int)L4_VERDICT_ROOM, "a counter for each verdict")
L4_ASSERT((int)L4_MISS_COUNT <= (int)L4_MISS_ROOM, "a counter for each miss")
L4_ASSERT((int)L4_EVENT_COUNT <= (int)L4_EVENT_ROOM, "a counter for each event")

/*
 * All tables, as one queue's thread sees them: where each of them is. The
 * last two are the queue's own. Each is a mapping by itself, so any of them
 * can be a BPF array map. BPF names its maps instead.
 */
struct l4_tables {
	struct l4_control *control;
	struct l4_flow *flows;
	uint8_t *marks;            /* a byte a bucket, after the flows: control->mark, or no mark */
	uint32_t *tags;            /* four bytes a bucket, after the marks: see l4_tag_of() */
	uint32_t *half_open;       /* control->place_count places of such flows, after the tags */
	uint32_t *stripes;         /* L4_STRIPES of them */
	struct l4_next_hop *next_hops;
	uint32_t *heads;           /* of the lists of learned next hops */
	uint32_t *cursors;         /* by number of the service */
	struct l4_usage *usage;    /* likewise */
	struct l4_clients *clients;
	/* Two halves each. */
	struct l4_policy *policies;
	struct l4_place *places;
	struct l4_service *services;
	struct l4_backend *backends;
	uint16_t *rings;
	struct l4_range *ranges;
	struct l4_snat *snats;
	/* This queue's. */
	struct l4_queue *queue;
	struct l4_traffic *traffic; /* by number of the backend */
};

#endif
