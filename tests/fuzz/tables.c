/* SPDX-License-Identifier: MIT */
/* What Python does with tables between frames: through the helper, and with arguments that Python could give. */
#include <arpa/inet.h>
#include <string.h>

#include "fuzz.h"

/* Index of the n-th entry in use; L4_NONE: there is none. */
static int64_t used_entry(const struct l4_tables *tables, uint32_t n)
{
	uint32_t used = tables->control->used, entries = tables->control->flow_entries;

	if (!used)
		return L4_NONE;
	n %= used;
	for (uint32_t i = 0; i < entries; i++)
		if (tables->flows[i].state != L4_FLOW_FREE && !n--)
			return i;
	return L4_NONE;
}

/* As rest() in l4raw/core/resting.py: the port of a flow that has ended is not used again at once. */
static void rest(const struct l4_tables *tables, const struct l4_flow *reply)
{
	struct l4_flow resting = *reply;

	resting.state = L4_FLOW_RESTING;
	resting.next_hop = 0;
	resting.last_seen = tables->control->now;
	resting.packets = 0;
	tables->control->resting += l4_flow_put(tables, &resting, NULL) >= 0;
}

static void free_flow(const struct l4_tables *tables, uint32_t index)
{
	uint32_t used = tables->control->used, half = tables->control->generation & 1;
	struct l4_flow entry, peer = { 0 };
	const struct l4_service *service;

	if (l4_flow_read(tables, index, &entry) || (entry.peer && l4_flow_read(tables, entry.peer - 1, &peer)))
		finding("an entry that nobody writes cannot be read");
	if (l4_flow_free(tables, index, entry.lock + 2) != L4_NONE || tables->control->used != used)
		finding("a flow was freed that somebody saw in another life");
	if (l4_flow_free(tables, index, entry.lock) || tables->control->used != used - (entry.peer ? 2 : 1))
		finding("a flow that nobody writes was not freed, or not both of its entries");
	service = &tables->services[half * tables->control->service_limit + entry.service];
	if (entry.state == L4_FLOW_RESTING)
		tables->control->resting--;
	else if (service->mode == L4_FULLNAT && entry.peer)
		rest(tables, entry.next_hop ? &entry : &peer);
}

void table_free(const struct l4_tables *tables, uint32_t n)
{
	int64_t index = used_entry(tables, n);

	if (index >= 0)
		free_flow(tables, (uint32_t)index);
}

void table_expire(const struct l4_tables *tables, uint32_t limit)
{
	uint32_t now = tables->control->now;

	for (uint32_t i = 0; i < tables->control->flow_entries; i++) {
		const struct l4_flow *entry = &tables->flows[i];

		if (entry->state != L4_FLOW_FREE && now - entry->last_seen > limit)
			free_flow(tables, i);
	}
}

enum { KEY_SIZE = 37, ONE_MORE = 255 };

static bool is_v4(const uint8_t *address)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

	return !memcmp(address, mapped, sizeof(mapped));
}

/* As admit() in l4raw/core/admit.py does. */
static void count_flow(const struct l4_tables *tables, uint32_t backend, int64_t index)
{
	tables->traffic[backend].flows += index >= 0;
}

/* The n-th of the service's pool is where the backend's replies go. */
static void choose_port(const struct l4_tables *tables, const struct l4_service *service, uint32_t n,
			struct l4_flow *reply)
{
	const struct l4_snat *ranges = &tables->snats[(tables->control->generation & 1) * tables->control->snat_limit +
						      service->snat_start];
	uint32_t i = 0;

	n %= service->snat_ports;
	while (i + 1 < service->snat_ranges && ranges[i + 1].start <= n)
		i++;
	memcpy(reply->dst, ranges[i].address, sizeof(reply->dst));
	reply->dport_be = htons((uint16_t)(ranges[i].port + n - ranges[i].start));
}

/* As after a miss: the flow of a frame that was given, to some backend. */
void table_put(const struct l4_tables *tables, const uint8_t *frame, uint32_t size, const uint8_t *choices)
{
	uint32_t number = choices[0], state = choices[1], mac = choices[2];
	uint32_t half = tables->control->generation & 1, limit = tables->policies[half].backends;
	const uint8_t of_client[6] = { 2, 0, 0, 0, 1, (uint8_t)mac };
	const struct l4_backend *backend;
	const struct l4_service *service;
	struct l4_flow flow, reply;
	int64_t hop, index;

	if (!frame_key(frame, size, &flow) || limit < 2)
		return;
	number = 1 + number % (limit - 1);
	backend = &tables->backends[half * tables->control->backend_limit + number];
	service = &tables->services[half * tables->control->service_limit + backend->service];
	flow.state = (uint8_t)(flow.protocol == 17 ? L4_FLOW_UDP : L4_FLOW_ESTABLISHED + state % 2);
	flow.service = backend->service;
	flow.backend = (uint16_t)number;
	flow.last_seen = tables->control->now;
	if (service->mode != L4_NAT && service->mode != L4_FULLNAT) {
		count_flow(tables, number, l4_flow_put(tables, &flow, NULL));
		return;
	}
	reply = flow;
	memcpy(reply.src, backend->address, 16);
	memcpy(reply.dst, flow.src, 16);
	reply.dport_be = flow.sport_be;
	reply.sport_be = backend->port_be ? backend->port_be : flow.dport_be;
	if (service->mode == L4_FULLNAT && !service->snat_ports)
		return; /* the policy in force has no such service any more */
	if (service->mode == L4_FULLNAT)
		choose_port(tables, service, number + mac, &reply);
	/* Python has no such service, and asks for both before it puts them. */
	if (is_v4(flow.src) != is_v4(backend->address) || !memcmp(&flow, &reply, KEY_SIZE) ||
	    l4_flow_find(tables, &reply) >= 0)
		return;
	hop = l4_hop_learn(tables, 0, of_client);
	if (hop <= 0)
		return;
	reply.next_hop = (uint16_t)hop;
	index = l4_flow_put(tables, &flow, &reply);
	count_flow(tables, number, index);
	if (index == L4_BUSY || (index < 0 && l4_hop_release(tables, (uint32_t)hop)))
		finding("a lock is held, and nobody is here to hold it");
}

void table_touch(const struct l4_tables *tables, uint32_t n, uint32_t state, uint32_t packets)
{
	int64_t index = used_entry(tables, n);
	struct l4_flow was, is;

	if (index < 0 || tables->flows[index].state == L4_FLOW_RESTING ||
	    tables->flows[index].state == L4_FLOW_AFFINITY)
		return;
	if (l4_flow_read(tables, (uint32_t)index, &was))
		finding("an entry that nobody writes cannot be read");
	/* On, never back: a flow that is half-open has been so from the first. */
	is = was;
	is.state = was.protocol == 17 ? L4_FLOW_UDP : state % 2 ? L4_FLOW_ESTABLISHED : L4_FLOW_CLOSING;
	is.last_seen = tables->control->now;
	is.sequence = packets;
	is.packets = packets;
	l4_flow_touch(tables, (uint32_t)index, &was, &is);
}

void table_set_hop(const struct l4_tables *tables, uint32_t pinned, uint32_t n, uint32_t known)
{
	const uint8_t mac[6] = { 2, 0, 0, 0, 0, (uint8_t)known };

	/* A backend more, as a reload brings them. */
	if (n == ONE_MORE) {
		if (l4_hop_pin(tables, known % L4_ARMS, known % 4 ? mac : NULL) == L4_BUSY)
			finding("a lock is held, and nobody is here to hold it");
		return;
	}
	l4_hop_set(tables, 1 + n % pinned, known % 4 ? mac : NULL);
}
