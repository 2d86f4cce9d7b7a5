/* SPDX-License-Identifier: MIT */
/* The loop of one queue: see burst.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <unistd.h>

#include "memory.h"
#include "steer.h"
#include "helper.h"
#include "burst.h"

/* Rounds without a frame before it sleeps, and for how long at most, in ms; sleeps between two looks at the sockets. */
enum { L4_SPINS = 256, L4_SLEEP_MS = 1, L4_LOOK_EVERY = 256 };

/* Frames of one burst that go out of one arm. */
struct outgoing {
	struct lx_frame frames[L4_BURST];
	uint32_t from[L4_BURST];   /* place in the burst */
	uint32_t count;
};

static uint32_t index_of(const struct l4_worker *worker, uint64_t address)
{
	return (uint32_t)(address / worker->umem->frame_size);
}

static void set_free(struct l4_worker *worker, uint64_t address)
{
	uint32_t index = index_of(worker, address);

	worker->umem->state[index] = LX_FRAME_FREE;
	worker->free[worker->free_count++] = index;
}

static uint32_t ring_used(const struct l4_ring *ring)
{
	return l4_load_acquire(&ring->head) - l4_load_acquire(&ring->tail);
}

static bool ring_push(struct l4_ring *ring, const struct l4_passed *frame)
{
	uint32_t head = l4_load(&ring->head);

	if (head - l4_load_acquire(&ring->tail) >= ring->size)
		return false;
	ring->slots[head & (ring->size - 1)] = *frame;
	l4_store_release(&ring->head, head + 1);
	return true;
}

static bool ring_pop(struct l4_ring *ring, struct l4_passed *frame)
{
	uint32_t tail = l4_load(&ring->tail);

	if (tail == l4_load_acquire(&ring->head))
		return false;
	*frame = ring->slots[tail & (ring->size - 1)];
	l4_store_release(&ring->tail, tail + 1);
	return true;
}

/* Ends a sleep, of whoever said that it sleeps. */
static void wake(uint32_t *waits, int event)
{
	uint64_t one = 1;

	/* With the fence of the sleeper, between saying that it sleeps and looking once more. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (l4_load(waits) && __atomic_exchange_n(waits, 0u, __ATOMIC_ACQ_REL))
		(void)!write(event, &one, sizeof(one));
}

/* Keep the first errno of a socket; `result` is 0, or one as a negative number. */
static void note_error(struct l4_worker *worker, uint32_t arm, int result)
{
	if (result >= 0 || worker->error)
		return;
	worker->error_arm = arm;
	l4_store_release(&worker->error, -result);
}

/* Have the kernel send. How many frames the driver refused. */
static uint32_t kick(struct l4_worker *worker, uint32_t arm)
{
	int refused = lx_xsk_wakeup(worker->sockets[arm]);

	note_error(worker, arm, refused);
	return refused > 0 ? (uint32_t)refused : 0;
}

/* Take back what the kernel has sent, and give it frames to receive into. */
static void tend_rings(struct l4_worker *worker, uint32_t arm)
{
	struct lx_xsk *xsk = worker->sockets[arm];
	uint32_t wanted;

	if (xsk->tx_level)
		worker->free_count += lx_xsk_reclaim(xsk, worker->free + worker->free_count, xsk->tx_level);
	wanted = worker->fill - xsk->fill_level;
	if (wanted < L4_BURST / 4)
		return;
	if (wanted > worker->free_count)
		wanted = worker->free_count;
	worker->free_count -= lx_xsk_refill(xsk, worker->free + worker->free_count - wanted, wanted);
}

/* A partial checksum that Python cannot know of, completed before it sees the frame. */
static void complete(const struct l4_tables *tables, uint8_t *data, uint32_t size)
{
	struct l4_context context = { .tables = tables, .data = data, .end = data + size };

	if (l4_parse(data, data + size, &context.headers) == L4_UNDECIDED && context.headers.l4)
		l4_complete(&context);
}

/* Leave a frame to Python; false: the ring is full. */
static bool hand_over(struct l4_worker *worker, const struct lx_frame *frame, const struct l4_frame *seen)
{
	const struct l4_passed passed = { frame->address, frame->length, (uint16_t)seen->arm, 0 };

	complete(worker->tables, seen->data, seen->size);
	return ring_push(&worker->misses, &passed);
}

/* How many of them the TX ring took; all others are still held. */
static uint32_t send_out(struct l4_worker *worker, uint32_t arm, const struct lx_frame *frames, uint32_t count)
{
	struct lx_xsk *xsk = worker->sockets[arm];
	int taken = lx_xsk_send(xsk, frames, count);

	if (taken >= 0 && (uint32_t)taken < count) {
		int rest;

		kick(worker, arm);
		worker->free_count += lx_xsk_reclaim(xsk, worker->free + worker->free_count, xsk->tx_level);
		rest = lx_xsk_send(xsk, frames + taken, count - (uint32_t)taken);
		taken += rest > 0 ? rest : 0;
	}
	if (taken > 0)
		l4_count_up(&worker->counters.sent, (uint32_t)taken);
	return taken > 0 ? (uint32_t)taken : 0;
}

/* Send what goes out of one arm; what its ring did not take is dropped, and counted as that. */
static void flush(struct l4_worker *worker, uint32_t arm, struct outgoing *out, struct l4_result *results)
{
	uint32_t taken, refused, i;

	if (!out->count)
		return;
	taken = send_out(worker, arm, out->frames, out->count);
	for (i = taken; i < out->count; i++) {
		results[out->from[i]].verdict = L4_DROP_TX;
		set_free(worker, out->frames[i].address);
	}
	/* As a rule nothing else waited in the ring, so what the driver refused is of this burst. */
	refused = kick(worker, arm);
	for (i = 0; i < taken && i < refused; i++)
		results[out->from[i]].verdict = L4_DROP_TX;
}

/* Leave all frames of a burst to Python, undecided. */
static void leave_undecided(struct l4_result *results, uint32_t count)
{
	uint32_t i;

	for (i = 0; i < count; i++)
		results[i] = (struct l4_result){ .flow = L4_NONE, .verdict = L4_MISS, .miss = L4_MISS_SAMPLE };
}

/* Whether an interface that takes frames of `most` bytes takes this one: a tag comes on top. */
static bool fits(const uint8_t *frame, uint32_t length, uint32_t most)
{
	uint16_t type;

	if (length <= most)
		return true;
	l4_copy(&type, frame + offsetof(struct ethhdr, h_proto), sizeof(type));
	return type == l4_htons(ETH_P_8021Q) && length <= most + L4_TAG_LENGTH;
}

/* Where each frame of a burst goes: out, to Python, or back to the free list. */
static bool sort_out(struct l4_worker *worker, const struct lx_frame *frames, const struct l4_frame *seen,
		     struct l4_result *results, uint32_t count, struct outgoing *out)
{
	bool missed = false;
	uint32_t i;

	for (i = 0; i < count; i++) {
		struct outgoing *to = &out[results[i].arm & 1];

		/* The kernel would refuse it without a word that reaches us. */
		if (results[i].verdict < L4_SENT &&
		    !fits(seen[i].data - results[i].push, frames[i].length + results[i].push,
			  worker->most[results[i].arm & 1]))
			results[i].verdict = L4_DROP_TX;
		if (results[i].verdict < L4_SENT) {
			to->from[to->count] = i;
			to->frames[to->count] = frames[i];
			to->frames[to->count].address -= results[i].push;
			to->frames[to->count++].length += results[i].push;
			continue;
		}
		if (results[i].verdict == L4_MISS && hand_over(worker, &frames[i], &seen[i])) {
			l4_count_up(&worker->counters.misses, 1);
			missed = true;
			continue;
		}
		if (results[i].verdict == L4_MISS) {
			l4_count_up(&worker->counters.miss_overflow, 1);
			results[i].verdict = L4_DROP_OVERFLOW;
		} else if (results[i].verdict < L4_DROP_SHORT) {
			l4_count_up(&worker->counters.passed, 1);
		}
		set_free(worker, frames[i].address);
	}
	return missed;
}

/* Frames that come back from Python. */
static void take_returns(struct l4_worker *worker)
{
	struct l4_passed passed;
	uint32_t i;

	for (i = 0; i < L4_BURST && ring_pop(&worker->returns, &passed); i++) {
		struct lx_frame frame = { passed.address, passed.length, 0 };
		const uint8_t *data = (uint8_t *)worker->umem->area + passed.address;

		if (passed.sent && fits(data, passed.length, worker->most[passed.arm & 1]) &&
		    send_out(worker, passed.arm & 1, &frame, 1)) {
			l4_count_up(&worker->counters.return_dropped, kick(worker, passed.arm & 1));
			continue;
		}
		if (passed.sent)
			l4_count_up(&worker->counters.return_dropped, 1);
		set_free(worker, passed.address);
	}
}

uint32_t l4_burst(struct l4_worker *worker, uint32_t arm)
{
	struct lx_frame frames[L4_BURST];
	struct l4_frame seen[L4_BURST];
	struct l4_result results[L4_BURST];
	struct outgoing out[L4_ARMS];
	uint32_t count, i;

	if (l4_unlikely(ring_used(&worker->returns)))
		take_returns(worker);
	tend_rings(worker, arm);
	count = lx_xsk_receive(worker->sockets[arm], frames, L4_BURST);
	if (!count)
		return 0;
	l4_count_up(&worker->counters.received, count);
	l4_count_up(&worker->counters.bursts, 1);
	for (i = 0; i < count; i++) {
		seen[i] = (struct l4_frame){
			.data = (uint8_t *)worker->umem->area + frames[i].address,
			.size = frames[i].length,
			.arm = arm,
			.csum_start = L4_CSUM_DETECT,
			.room = (uint32_t)(frames[i].address % worker->umem->frame_size),
		};
		__builtin_prefetch(seen[i].data);
	}
	if (l4_unlikely(l4_load(&worker->sample))) {
		leave_undecided(results, count);
		l4_pass(worker->tables);
	} else {
		l4_steer_burst(worker->tables, seen, count, results);
	}
	for (i = 0; i < L4_ARMS; i++)
		out[i].count = 0;
	if (sort_out(worker, frames, seen, results, count, out))
		wake(&worker->python_waits, worker->wake_python);
	for (i = 0; i < worker->arms; i++)
		flush(worker, i, &out[i], results);
	for (i = 0; i < count; i++)
		l4_count(worker->tables, &results[i], seen[i].size);
	return count;
}

/* Until a frame comes, Python wakes us, or L4_SLEEP_MS have passed. */
static void sleep_a_little(struct l4_worker *worker)
{
	struct pollfd fds[L4_ARMS + 1];
	uint64_t ignored;
	uint32_t i;

	for (i = 0; i < worker->arms; i++)
		fds[i] = (struct pollfd){ .fd = worker->sockets[i]->fd, .events = POLLIN };
	fds[worker->arms] = (struct pollfd){ .fd = worker->wake_worker, .events = POLLIN };
	l4_store(&worker->worker_waits, 1u);
	l4_offline(worker->tables);
	/* With the fence of wake(): whoever fills a ring sees us wait, or we see that it is not empty. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!ring_used(&worker->returns) && !l4_load_acquire(&worker->stop))
		(void)poll(fds, worker->arms + 1, L4_SLEEP_MS);
	l4_online(worker->tables);
	l4_store_release(&worker->worker_waits, 0u);
	if (fds[worker->arms].revents & POLLIN)
		(void)!read(worker->wake_worker, &ignored, sizeof(ignored));
	/* A socket whose interface was deleted says so nowhere else. */
	for (i = 0; i < worker->arms && worker->counters.waits % L4_LOOK_EVERY == 0; i++)
		note_error(worker, i, lx_xsk_error(worker->sockets[i]));
	l4_count_up(&worker->counters.waits, 1);
}

int l4_run(struct l4_worker *worker)
{
	uint32_t idle = 0, arm;

	l4_online(worker->tables);
	while (!l4_load_acquire(&worker->stop) && !l4_load(&worker->error)) {
		uint32_t count = 0;

		for (arm = 0; arm < worker->arms; arm++)
			count += l4_burst(worker, arm);
		idle = count ? 0 : idle + 1;
		if (!count)
			l4_pass(worker->tables);
		if (idle > L4_SPINS)
			sleep_a_little(worker);
	}
	l4_offline(worker->tables);
	return worker->error;
}

void l4_stop(struct l4_worker *worker)
{
	uint64_t one = 1;

	l4_store_release(&worker->stop, 1u);
	if (worker->wake_worker >= 0)
		(void)!write(worker->wake_worker, &one, sizeof(one));
}

uint32_t l4_take_misses(struct l4_worker *worker, struct l4_passed *frames, uint32_t most)
{
	uint32_t count = 0;

	while (count < most && ring_pop(&worker->misses, &frames[count]))
		count++;
	return count;
}

int l4_will_wait(struct l4_worker *worker)
{
	l4_store(&worker->python_waits, 1u);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!ring_used(&worker->misses))
		return 0;
	l4_store(&worker->python_waits, 0u);
	return 1;
}

uint32_t l4_give_back(struct l4_worker *worker, const struct l4_passed *frames, uint32_t count)
{
	uint32_t given = 0;

	while (given < count && ring_push(&worker->returns, &frames[given]))
		given++;
	wake(&worker->worker_waits, worker->wake_worker);
	return given;
}
