/* SPDX-License-Identifier: MIT */
/*
 * The helper as Python and other C files call it. cffi reads this file too.
 *
 * `tables` is one queue's view. Whoever calls l4_steer(), l4_steer_burst(),
 * l4_count() or l4_pass() with it is the one thread that this queue has, or
 * knows that this thread is not running; so does who calls l4_flow_free()
 * l4_half_open_evict(), l4_place_take() and l4_flow_put(), which count. All other functions may be called from any thread at any time.
 */
#ifndef L4RAW_SRC_HELPER_H
#define L4RAW_SRC_HELPER_H

#include "l4raw_abi.h"

/* A frame as it was received, from the destination MAC on. */
struct l4_frame {
	uint8_t *data;
	uint32_t size;
	uint32_t arm;
	int32_t csum_start;
	uint32_t room;             /* bytes in front of it that may be written */
};

/* What became of it. */
struct l4_result {
	int64_t flow;              /* index of its entry; negative: none */
	uint16_t verdict;          /* enum l4_verdict, or L4_MISS */
	uint16_t backend;          /* 0: none */
	uint8_t arm;               /* to send it on, if it is sent */
	uint8_t miss;              /* enum l4_miss, of an L4_MISS */
	uint16_t push;             /* it is so many bytes longer now, and begins so many earlier: a tunnel's headers */
};

/*
 * Decide what becomes of a frame and rewrite it. Returns result->verdict.
 * Only a frame that is to be sent (below L4_SENT) is changed. Counts nothing:
 * see l4_count(). One that has no room in front for the headers of a tunnel is a miss.
 *
 * `csum_start` is the offset of a TCP or UDP header whose checksum is
 * partial and stays so; 0: there is none; L4_CSUM_DETECT: unknown, a partial
 * one is completed if the frame is sent.
 */
unsigned l4_steer(const struct l4_tables *tables, const struct l4_frame *frame, struct l4_result *result);

/* The same for up to L4_BURST frames, as if one after the other. */
void l4_steer_burst(const struct l4_tables *tables, const struct l4_frame *frames, uint32_t count,
		    struct l4_result *results);

/*
 * Add a frame of `size` bytes, as it was received, to the counters of its verdict (or its miss)
 * and, if it was sent, its backend. Called when it is known whether the egress
 * took it: for one that it did not take, set result->verdict to L4_DROP_TX.
 */
void l4_count(const struct l4_tables *tables, const struct l4_result *result, uint32_t size);

/*
 * Which half of the policy a queue reads. l4_steer() and l4_steer_burst()
 * begin with l4_pass(): from then on the queue reads the half in force. A
 * queue that does nothing for longer than a burst calls l4_pass() itself,
 * or is offline meanwhile. l4_settled() tells whether every queue that is
 * online has passed since the last l4_switch(), so that the idle half can be
 * written; `tables` is the view of queue 0 for both.
 */
void l4_online(const struct l4_tables *tables);
void l4_offline(const struct l4_tables *tables);
void l4_pass(const struct l4_tables *tables);
int l4_settled(const struct l4_tables *tables);
void l4_switch(const struct l4_tables *tables);

/*
 * Flows. `key` is an entry of which only the key is read. These wait for a
 * lock, as nobody holds one for longer than a microsecond or so of running;
 * L4_BUSY says that it was in vain.
 *
 * l4_flow_find: index of an entry, L4_NONE or L4_BUSY.
 * l4_flow_read: copy an entry as it was at one moment. 0, or L4_BUSY.
 * l4_flow_put: make an entry, and for NAT one for each direction (`reply` is
 *     NULL for DSR), from key, state, service, backend, next_hop, last_seen,
 *     sequence and packets. Index of the first, L4_FULL, L4_TAKEN, L4_REPLY_TAKEN,
 *     L4_BUSY.
 * l4_flow_touch: from what an entry was read to be, `was`, to state, last_seen, sequence and packets of `is`.
 * l4_choice_renew: the entry of a client's choice says this backend and this
 *     time from now on. 1; or 0, if its lock word is not `generation`.
 * l4_flow_free: free the flow of an entry, both directions, if its lock word
 *     still is `generation`. 0, L4_NONE if it is not, or L4_BUSY.
 * l4_half_open_evict: the oldest half-open flow goes. 0, L4_NONE if there is none, or L4_BUSY.
 * l4_place_take: a place for a half-open flow, which l4_flow_put finds in `sequence`; the oldest of them
 *     makes room. 0: a lock or the place was held.
 * l4_place_drop: give back a place that no flow has got.
 */
int64_t l4_flow_find(const struct l4_tables *tables, const struct l4_flow *key);
int l4_choice_renew(const struct l4_tables *tables, uint32_t index, uint32_t generation, uint32_t backend,
		    uint32_t now);
int l4_flow_read(const struct l4_tables *tables, uint32_t index, struct l4_flow *copy);
int64_t l4_flow_put(const struct l4_tables *tables, const struct l4_flow *flow, const struct l4_flow *reply);
void l4_flow_touch(const struct l4_tables *tables, uint32_t index, const struct l4_flow *was,
		   const struct l4_flow *is);
int l4_flow_free(const struct l4_tables *tables, uint32_t index, uint32_t generation);
int l4_half_open_evict(const struct l4_tables *tables);
uint32_t l4_place_take(const struct l4_tables *tables);
void l4_place_drop(const struct l4_tables *tables, uint32_t place);

/*
 * Limits. `address` is 16 bytes, IPv4-mapped.
 *
 * l4_limit_take: count a new flow of a service. L4_FORWARD, the verdict that
 *     refuses it, or L4_MISS if a lock was held. `more`: 1; or 0, if it is
 *     counted already: then only the rates are asked.
 * l4_limit_end: it is gone. 0, or L4_BUSY.
 */
int l4_limit_take(const struct l4_tables *tables, uint32_t service, const uint8_t *address, uint32_t more);
int l4_limit_end(const struct l4_tables *tables, uint32_t service, const uint8_t *address);

/*
 * Next hops. `mac` is NULL where it is not known. A pinned hop stays, a
 * learned one goes with the last of its references.
 *
 * l4_hop_pin: index, 0 when all are in use, or L4_BUSY.
 * l4_hop_set: what is now known of a pinned hop.
 * l4_hop_learn: one reference more. Index, 0 when all are in use, or L4_BUSY.
 * l4_hop_release: one less. 0, or L4_BUSY.
 */
int64_t l4_hop_pin(const struct l4_tables *tables, uint32_t arm, const uint8_t *mac);
void l4_hop_set(const struct l4_tables *tables, uint32_t index, const uint8_t *mac);
int64_t l4_hop_learn(const struct l4_tables *tables, uint32_t arm, const uint8_t *mac);
int l4_hop_release(const struct l4_tables *tables, uint32_t index);

#endif
