// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Dataplane af_xdp: redirect what is the balancer's to its sockets. See redirect.h. Needs Linux 6.1. */
#include "redirect.h"

struct l4_control control SEC(".data.control");

SEC("xdp")
int l4raw_redirect(struct xdp_md *context)
{
	return redirect(context);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
