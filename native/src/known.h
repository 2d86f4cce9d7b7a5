/* SPDX-License-Identifier: MIT */
/*
 * A frame of a known flow: where it goes, and how it is noted. The twin of
 * what l4raw/core/steer.py and states.py do with one. It changes the flow's
 * two entries and nothing else, so the kernel can do it too.
 *
 * Include memory.h first, or BPF's equivalent.
 */
#ifndef L4RAW_SRC_KNOWN_H
#define L4RAW_SRC_KNOWN_H

#include "tunnel.h"

/* Whether this frame may be the first of its flow: any but a TCP segment that is not simply a SYN. */
L4_INLINE bool l4_opens(const struct l4_headers *headers)
{
	return headers->key.protocol != IPPROTO_TCP ||
	       (headers->flags & (L4_TCP_SYN | L4_TCP_ACK | L4_TCP_FIN | L4_TCP_RST)) == L4_TCP_SYN;
}

/* Send it to the backend with this number by that hop. */
L4_INLINE int l4_to_backend(struct l4_context *context, const struct l4_backend *backend, uint32_t number,
			     struct l4_where hop)
{
	context->backend = number;
	context->hop = hop;
	context->out_arm = backend->arm;
	return L4_FORWARD;
}

/*
 * NAT: the rewrite of one direction is the other one's key, source and
 * destination exchanged. False: the peer is not, or no longer, the peer.
 */
L4_INLINE bool l4_flip(struct l4_context *context, const struct l4_values *entry)
{
	struct l4_flow *peer = l4_flow_at(context->tables, entry->peer - 1);
	uint32_t generation;
	uint64_t *words;

	if (!peer)
		return false;
	words = l4_words(peer);
	generation = l4_load_acquire(&peer->lock);
	context->nat = true;
	context->dst[0] = l4_load(&words[0]);
	context->dst[1] = l4_load(&words[1]);
	context->src[0] = l4_load(&words[2]);
	context->src[1] = l4_load(&words[3]);
	context->ports_be = l4_load((uint32_t *)(void *)&words[4]);
	/* Exchange the two 16-bit halves; their bytes stay in network order. */
	context->ports_be = context->ports_be << 16 | context->ports_be >> 16;
	if (l4_load(&peer->peer) != (uint32_t)context->flow + 1 || l4_load(&peer->state) == L4_FLOW_FREE ||
	    (generation & 1) || !l4_unchanged(peer, generation))
		return false;
	/* And this entry still names it: another pair may have been put into the same two places. */
	return l4_unchanged(context->entry, context->generation);
}

/* Read the entry that was found. False: it has changed since, or it is being written. */
L4_INLINE bool l4_recall(const struct l4_context *context, struct l4_values *values)
{
	uint64_t words[sizeof(*values) / 8], *from = l4_words(context->entry);

	/* No loop: it would not be unrolled. */
	words[0] = l4_load_acquire(&from[4]); /* the state before `sequence`: see l4_move() */
	words[1] = l4_load(&from[5]);
	words[2] = l4_load(&from[6]);
	words[3] = l4_load(&from[7]);
	l4_copy(values, words, sizeof(words));
	return l4_unchanged(context->entry, context->generation);
}

/* The other direction's entry; NULL: there is none. */
L4_INLINE struct l4_flow *l4_peer_of(const struct l4_context *context, const struct l4_values *values)
{
	return values->peer ? l4_flow_at(context->tables, values->peer - 1) : NULL;
}

/* Whether a client's segment acknowledges the backend's SYN: _acknowledges() in l4raw/core/states.py. */
L4_INLINE bool l4_acknowledges(const struct l4_headers *headers, uint32_t expected)
{
	if ((headers->flags & (L4_TCP_FIN | L4_TCP_SYN | L4_TCP_RST | L4_TCP_ACK)) != L4_TCP_ACK || !expected)
		return false;
	return l4_ntohl(headers->acknowledged_be) - expected < L4_OPEN_WINDOW;
}

/* Of a TCP flow both of whose sides are seen: _of_two() in l4raw/core/states.py. */
L4_INLINE void l4_follow(const struct l4_headers *headers, const struct l4_values *values, const struct l4_flow *peer,
			 struct l4_seen *seen)
{
	uint8_t flags = headers->flags;

	if (l4_unlikely(values->state == L4_FLOW_HALF_OPEN)) {
		if (!values->next_hop) {
			if (!l4_acknowledges(headers, l4_load(&peer->sequence)))
				return;
			seen->of_peer = L4_FLOW_ESTABLISHED;
		} else if (l4_is_half_open(l4_load(&peer->state))) {
			if ((flags & (L4_TCP_FIN | L4_TCP_SYN | L4_TCP_RST | L4_TCP_ACK)) != (L4_TCP_SYN | L4_TCP_ACK))
				return;
			seen->sequence = l4_ntohl(headers->sequence_be) + 1;
			if (!seen->sequence)
				seen->sequence = ~0u;
			return;
		}
		seen->to = L4_FLOW_ESTABLISHED;
	}
	if (l4_unlikely(flags & L4_TCP_SYN) && values->next_hop &&
	    (flags & (L4_TCP_FIN | L4_TCP_SYN | L4_TCP_RST | L4_TCP_ACK)) == (L4_TCP_SYN | L4_TCP_ACK)) {
		if (seen->to == L4_FLOW_CLOSING || l4_load(&peer->state) == L4_FLOW_CLOSING) {
			seen->to = seen->of_peer = L4_FLOW_ESTABLISHED;
			seen->sequence = l4_ntohl(headers->acknowledged_be);
		}
		return;
	}
	if (l4_unlikely(flags & (L4_TCP_FIN | L4_TCP_RST))) {
		uint32_t acknowledged = l4_load(&peer->sequence);

		seen->of_peer = L4_FLOW_FREE;
		if (l4_ntohl(headers->sequence_be) - acknowledged >= L4_END_WINDOW) {
			seen->to = values->state;
			return;
		}
		seen->to = L4_FLOW_CLOSING;
		if ((flags & L4_TCP_RST) && l4_ntohl(headers->sequence_be) == acknowledged)
			seen->of_peer = L4_FLOW_CLOSING;
	}
	if (flags & L4_TCP_ACK)
		seen->sequence = l4_ntohl(headers->acknowledged_be);
}

/* Of a UDP flow both of whose sides are seen: _of_datagram() in l4raw/core/states.py. */
L4_INLINE void l4_follow_datagram(const struct l4_tables *tables, const struct l4_values *values,
				  const struct l4_flow *peer, struct l4_seen *seen)
{
	if (values->next_hop) {
		seen->to = L4_FLOW_UDP;
		seen->sequence = values->state == L4_FLOW_UDP ? values->sequence : seen->now;
		if (l4_unlikely(l4_load(&peer->state) == L4_FLOW_UDP_NEW) && l4_is_half_empty(tables))
			seen->of_peer = L4_FLOW_UDP;
		return;
	}
	/* The state first: l4_move() writes it after `sequence`. */
	if (values->state == L4_FLOW_UDP || (l4_load_acquire(&peer->state) == L4_FLOW_UDP &&
					     l4_elapsed(seen->now, l4_load(&peer->sequence)) >= L4_STREAM_MS))
		seen->to = L4_FLOW_UDP;
}

/* Move the other direction's entry to a state, if it is in the one before it: _tell() in l4raw/core/states.py. */
L4_INLINE void l4_tell(const struct l4_context *context, uint32_t index, uint8_t state)
{
	struct l4_flow *entry = l4_flow_at(context->tables, index);
	struct l4_seen seen = { .to = state };
	uint8_t before = L4_FLOW_ESTABLISHED;

	if (!entry)
		return;
	seen.generation = l4_load_acquire(&entry->lock);
	seen.from = l4_load_acquire(&entry->state);
	seen.now = l4_load(&entry->last_seen);
	seen.packets = l4_load(&entry->packets);
	seen.sequence = l4_load(&entry->sequence);
	if (state == L4_FLOW_UDP) {
		before = L4_FLOW_UDP_NEW;
		seen.sequence = 0;
	} else if (state == L4_FLOW_ESTABLISHED) {
		before = l4_load(&entry->next_hop) ? L4_FLOW_HALF_OPEN : L4_FLOW_CLOSING;
		seen.sequence = l4_ntohl(context->headers.sequence_be);
	}
	if (seen.from != before)
		return;
	/* A pair is freed at once: the frame's entry is what it was, so this one is its peer. */
	if (l4_unchanged(context->entry, context->generation))
		l4_touch(context->tables, index, entry, &seen);
}

/* Note the frame in its flow's entry: note() in l4raw/core/states.py. */
L4_INLINE void l4_note(struct l4_context *context, const struct l4_values *values)
{
	const struct l4_flow *peer = l4_peer_of(context, values);
	const struct l4_headers *headers = &context->headers;
	struct l4_seen seen = {
		.generation = context->generation,
		.from = values->state,
		.to = values->state,
		.now = l4_load(&l4_control_of(context->tables)->now),
		.packets = values->packets + 1,
	};

	if (!peer) {
		seen.to = values->state == L4_FLOW_CLOSING && l4_opens(headers) ?
				  L4_FLOW_ESTABLISHED /* see reuse.h */ :
				  l4_state_after(values->state, headers->flags);
		l4_touch(context->tables, (uint32_t)context->flow, context->entry, &seen);
		return;
	}
	if (headers->key.protocol == IPPROTO_TCP) {
		seen.sequence = values->sequence;
		l4_follow(headers, values, peer, &seen);
	} else {
		l4_follow_datagram(context->tables, values, peer, &seen);
	}
	l4_touch(context->tables, (uint32_t)context->flow, context->entry, &seen);
	if (l4_unlikely(seen.of_peer))
		l4_tell(context, values->peer - 1, seen.of_peer);
}

/* _is_over(): whether the client's entry is that of a flow which ends here. */
L4_INLINE bool l4_is_over(const struct l4_context *context, const struct l4_values *values, uint32_t service)
{
	const struct l4_tables *tables = context->tables;
	const struct l4_backend *backend = l4_backend_at(tables, context->half, values->backend);
	struct l4_flow *peer = values->peer ? l4_flow_at(tables, values->peer - 1) : NULL;
	bool stays = values->service == service && backend && backend->takes_flows;
	uint32_t now = l4_load(&l4_control_of(tables)->now);

	if (peer && values->state == L4_FLOW_CLOSING)
		return l4_load(&peer->state) == L4_FLOW_CLOSING;
	if (stays)
		return false;
	if (peer)
		return l4_is_half_open(values->state) && l4_is_half_open(l4_load(&peer->state)) &&
		       !l4_load(&peer->sequence);
	return values->state == L4_FLOW_HALF_OPEN && l4_elapsed(now, values->last_seen) >= L4_STREAM_MS;
}

/* A client's frame of a known flow: on to its backend. */
L4_INLINE int l4_go_on(struct l4_context *context, const struct l4_values *entry)
{
	const struct l4_backend *backend = l4_backend_at(context->tables, context->half, entry->backend);
	struct l4_where hop;
	uint32_t overhead = 0;

	if (!backend)
		return l4_miss_as(context, L4_MISS_CHANGED);
	context->backend = entry->backend;
	if (backend->mode != L4_DSR_L2 && context->headers.ttl <= 1) /* RFC 1812 section 5.3.1 */
		return L4_DROP_TTL;
	hop = l4_where_is(context->tables, backend->next_hop);
	if (!hop.known)
		return L4_DROP_NEXT_HOP_UNKNOWN;
	if (l4_unlikely(l4_is_tunnel(backend->mode))) {
		if (context->room < L4_TUNNEL_ROOM)
			return l4_miss_as(context, L4_MISS_FRONT);
		context->tunnel = true;
		overhead = l4_overhead(backend);
		if (l4_is_too_long_for_path(context, backend))
			return l4_miss_as(context, L4_MISS_TOO_LONG);
	}
	if (l4_unlikely(l4_is_too_long(context, overhead, backend->arm)))
		return l4_miss_as(context, L4_MISS_TOO_LONG);
	if (entry->peer && !l4_flip(context, entry))
		return l4_miss_as(context, L4_MISS_CHANGED);
	return l4_to_backend(context, backend, entry->backend, hop);
}

/* Not to a VIP: the reply of a NAT flow, since its full key is known; it goes where the client's frame came from. */
L4_INLINE int l4_go_back(struct l4_context *context, const struct l4_values *entry)
{
	/* Before l4_flip(), which tells whether it still was the flow's: see hops.h. */
	struct l4_where hop = l4_where_is(context->tables, entry->next_hop);
	const struct l4_backend *backend = l4_backend_at(context->tables, context->half, entry->backend);

	/* A client's entry, whose VIP the policy has lost, or a port at rest; and nobody but backends sends replies. */
	if (!entry->next_hop || !hop.known || !backend || backend->arm != context->arm)
		return L4_UNDECIDED;
	context->backend = entry->backend;
	if (context->headers.ttl <= 1) /* RFC 1812 section 5.3.1 */
		return L4_DROP_TTL;
	if (l4_unlikely(l4_is_too_long(context, 0, hop.arm)))
		return l4_miss_as(context, L4_MISS_TOO_LONG);
	if (!l4_flip(context, entry))
		return l4_miss_as(context, L4_MISS_CHANGED);
	context->hop = hop;
	context->out_arm = hop.arm;
	return L4_REPLY;
}

/*
 * The verdict of a frame of a known flow, which is to be noted if it is sent; or L4_MISS; or L4_UNDECIDED, if the
 * frame is none of that flow's after all: the policy has changed, or a port rests.
 */
L4_INLINE int l4_known(struct l4_context *context, const struct l4_values *entry)
{
	context->service = entry->service;
	/* The entry tells where to look first, which is right unless the policy has changed since. */
	if (!entry->next_hop && l4_is_to(context, entry->service))
		return l4_go_on(context, entry);
	if (!l4_is_vip(context))
		return l4_go_back(context, entry);
	return l4_service_of(context) >= 0 ? l4_go_on(context, entry) : L4_UNDECIDED;
}

#endif
