// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Sends test frames: each frame of BPF_PROG_RUN is redirected to one interface.
 *
 * Run with live frames (Linux 5.18), and never attached to anything. What is in
 * a frame: l4raw/engine/egress.py; what follows from it: l4raw/control/egress.py.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

/* From l4raw/engine/egress.py, before each run. */
__u32 interface SEC(".data.interface");

SEC("xdp")
int l4raw_egress(struct xdp_md *context)
{
	(void)context;
	return bpf_redirect(interface, 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
