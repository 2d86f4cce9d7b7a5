// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Dataplane xdp: frames of known flows, and of new ones where that is simple
 * (admit.h), are steered here, by the text that the helper is made of and over
 * the same tables; all others are redirected to the AF_XDP sockets, as with
 * dataplane af_xdp, and the helper or Python decides.
 *
 * Whatever this does with a frame is the last thing done with it: it sends it,
 * or it has changed neither frame nor tables, but for a turn that can be lost
 * (admit.h). So the helper can begin anew.
 *
 * Needs Linux 6.1.
 */
#include "redirect.h"
#include "admit.h"
#include "plain.h"
#include "../src/rewrite.h"
#include "../src/traffic.h"

struct l4_control control SEC(".data.control");

/* The sum of a part of the frame, folded: verified by itself, see subprograms.h. */
__attribute__((noinline)) uint32_t l4_sum_of_frame(struct xdp_md *context, uint32_t offset, uint32_t size)
{
	const uint8_t *start = (const uint8_t *)(long)context->data + l4_offset(offset);

	return l4_fold(l4_sum(start, (const void *)(long)context->data_end, size & 0xffff));
}

/* l4_see(). L4_UNDECIDED, or a verdict; for the verifier, L4_MISS for no `headers`. */
__attribute__((noinline)) int read_headers(struct xdp_md *context, struct l4_headers *headers, uint32_t arm)
{
	return headers ? l4_read_headers(NULL, arm, (const void *)(long)context->data,
					 (const void *)(long)context->data_end, headers) : L4_MISS;
}

/* XDP_PACKET_HEADROOM of the kernel: bytes in front of a frame. */
enum { XDP_HEADROOM = 256 };

/* A SYN may end a flow, or have its MSS lowered; a datagram may end one that nobody has answered: see reuse.h. */
static __always_inline bool is_beyond(const struct l4_context *context, const struct l4_values *entry)
{
	return (context->headers.flags & L4_TCP_SYN) ||
	       (entry->state == L4_FLOW_UDP_NEW && entry->peer && !entry->next_hop);
}

/*
 * A frame in mid-stream without an entry, of a service that remembers changes alone: L4_FORWARD, or L4_MISS.
 * L4_UNDECIDED: it may begin a flow.
 */
static __always_inline int to_owner(struct l4_context *context)
{
	int number = l4_service_of(context);
	const struct l4_service *service = number < 0 ? NULL : l4_service_at(NULL, context->half, (uint32_t)number);
	uint32_t owner;

	if (!service)
		return L4_MISS;
	context->nat = l4_is_nat(service->mode);
	/* A SYN may be the first frame of a flow that is remembered. */
	if (!service->owners || (context->headers.flags & L4_TCP_SYN))
		return is_for_tables(context, service) ? L4_UNDECIDED : L4_MISS;
	context->service = (uint32_t)number;
	if (l4_screen(context, service) != L4_UNDECIDED)
		return L4_MISS;
	owner = l4_owner_of(context, service);
	return owner && l4_reach(context, owner) == L4_FORWARD ? L4_FORWARD : L4_MISS;
}

/* A frame of the flow that was found. Its verdict if it is sent, or L4_MISS. */
static __always_inline int of_flow(struct l4_context *context)
{
	struct l4_values entry;
	int verdict;

	if (!l4_recall(context, &entry) || is_beyond(context, &entry))
		return L4_MISS;
	verdict = l4_known(context, &entry);
	if (verdict != L4_FORWARD && verdict != L4_REPLY)
		return L4_MISS;
	l4_note(context, &entry);
	return verdict;
}

/* Steer a frame of a known flow. Its verdict if it is sent; L4_UNDECIDED if it may be a new flow's; or L4_MISS. */
static __always_inline int steer(struct l4_context *context)
{
	struct l4_headers *headers = &context->headers;
	uint32_t generation = 0;

	if (read_headers(l4_program_of(context->tables), headers, context->arm) != L4_UNDECIDED || !headers->l4)
		return L4_MISS;
	context->flow = find_flow(&headers->key, &generation);
	context->generation = generation;
	if (context->flow == L4_NONE)
		return to_owner(context);
	context->entry = context->flow < 0 ? NULL : l4_flow_at(NULL, (uint32_t)context->flow);
	return context->entry ? of_flow(context) : L4_MISS;
}

static __always_inline struct l4_context context_of(struct xdp_md *xdp)
{
	return (struct l4_context){
		.tables = (const void *)xdp,
		.data = (void *)(long)xdp->data,
		.end = (void *)(long)xdp->data_end,
		.csum_start = L4_CSUM_DETECT,
		.arm = arm_of(xdp),
		.half = control.generation & 1,
		.room = XDP_HEADROOM,
		.flow = L4_NONE,
	};
}

/* Write what changes, count it and send it: an action of XDP. */
static __always_inline int send(struct l4_context *context)
{
	uint32_t size = context->end - context->data;

	l4_complete(context);
	if (context->tunnel) {
		l4_into_tunnel(context);
		/* Less headroom than XDP promises: it was noted, and is as good as lost on the way out. */
		if (!context->push) {
			l4_count_frame(NULL, L4_DROP_TX, context->backend, size);
			return XDP_DROP;
		}
	}
	l4_write_ends(context);
	l4_count_frame(NULL, context->verdict, context->backend, size);
	return bpf_redirect(control.interfaces[context->out_arm & 1], 0);
}

/* The same, and redirect(), with a part of the stack that is free again before and after. */
static __attribute__((noinline)) int send_apart(struct l4_context *context)
{
	return send(context);
}

static __attribute__((noinline)) int redirect_apart(struct xdp_md *xdp)
{
	return redirect(xdp);
}

static __always_inline int begin_flow(struct xdp_md *xdp, bool is_nat)
{
	struct l4_context context = context_of(xdp);

	if (read_headers(xdp, &context.headers, context.arm) == L4_UNDECIDED && context.headers.l4)
		context.verdict = admit(&context, is_nat);
	else
		context.verdict = L4_MISS;
	return context.verdict == L4_FORWARD ? send_apart(&context) : redirect_apart(xdp);
}

/* A frame that may begin a flow: a program of its own, as there is a stack of its own for it. */
SEC("xdp")
int l4raw_admit(struct xdp_md *xdp)
{
	return begin_flow(xdp, false);
}

/* The same under NAT. */
SEC("xdp")
int l4raw_admit_nat(struct xdp_md *xdp)
{
	return begin_flow(xdp, true);
}

int l4raw_any(struct xdp_md *xdp);

enum { ADMIT, ADMIT_NAT, ANY, PROGRAMS };

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, PROGRAMS);
	__type(key, __u32);
	__array(values, int(void *));
} programs SEC(".maps") = {
	.values = {
		[ADMIT] = (void *)&l4raw_admit,
		[ADMIT_NAT] = (void *)&l4raw_admit_nat,
		[ANY] = (void *)&l4raw_any,
	},
};

/* On to the program that begins flows. Comes back, with what says that the frame is not steered here, only if it cannot. */
static __always_inline int begin_elsewhere(struct xdp_md *xdp, bool is_nat)
{
	bpf_tail_call(xdp, &programs, is_nat ? ADMIT_NAT : ADMIT);
	return -1;
}

/* What steers a frame that is not plain, or whose flow is not found at once. An action of XDP; -1: it is not steered here. */
static __always_inline int any(struct xdp_md *xdp)
{
	struct l4_context context = context_of(xdp);

	context.verdict = steer(&context);
	if (context.verdict == L4_FORWARD || context.verdict == L4_REPLY)
		return send(&context);
	return context.verdict == L4_UNDECIDED ? begin_elsewhere(xdp, context.nat) : -1;
}

/* The same of a plain frame. Each way has its own end: where ways meet, all that one of them knows has to be kept. */
static __always_inline int plain(struct xdp_md *xdp)
{
	struct l4_context context = context_of(xdp);

	if (!read_plain(context.data, context.end, context.arm, &context.headers) || !find_plain(&context)) {
		bpf_tail_call(xdp, &programs, ANY);
		return -1;
	}
	if (context.flow != L4_NONE) {
		context.verdict = of_flow(&context);
		return context.verdict == L4_MISS ? -1 : send(&context);
	}
	context.verdict = to_owner(&context);
	if (context.verdict == L4_FORWARD)
		return send(&context);
	return context.verdict == L4_UNDECIDED ? begin_elsewhere(xdp, context.nat) : -1;
}

SEC("xdp")
int l4raw_any(struct xdp_md *xdp)
{
	int action = any(xdp);

	return action < 0 ? redirect(xdp) : action;
}

SEC("xdp")
int l4raw_forward(struct xdp_md *xdp)
{
	int action = control.forwards ? plain(xdp) : -1;

	return action < 0 ? redirect(xdp) : action;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
