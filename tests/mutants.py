"""Mistakes that somebody could make in the helper, as changes of its text; a test makes each of them.

What only sums of certain numbers show is in tests/conformance/test_checksum.py.
"""

from __future__ import annotations

from tests.variants import Patch

STEER, ADMIT, REWRITE, CONTEXT = "src/steer.h", "src/admit.h", "src/rewrite.h", "src/context.h"
REUSE, KNOWN, TRAFFIC = "src/reuse.h", "src/known.h", "src/traffic.h"
LOOKUP = "src/lookup.h"
SCREEN = "src/screen.h"
ACL, MSS, COUNTS = "src/acl.h", "src/mss.h", "src/counts.h"
AFFINITY, FULL = "src/affinity.h", "src/full.h"
FLOWS, INSERT, PAIR, HOPS = "src/flows.h", "src/insert.h", "src/pair.h", "src/hops.h"
TOUCH, SHARE, TURNS, FREE = "src/touch.h", "src/share.h", "src/turns.h", "src/free.h"
PACKET, CHECKSUM, HELPER, TUNNEL = "src/packet.h", "src/checksum.h", "src/helper.c", "src/tunnel.h"

MUTANTS = {
    "short frames": Patch(PACKET, "room < sizeof(struct tcphdr) ||", "room + 1 < sizeof(struct tcphdr) ||"),
    "tag unread": Patch(PACKET, "if (l4_unlikely(type == l4_htons(ETH_P_8021Q)))", "if (0)"),
    "tag cut off": Patch(PACKET, "if (!l4_has(data, end, L4_TAGGED_LENGTH))", "if (0)"),
    "a provider's tag": Patch(
        PACKET,
        "type == l4_htons(ETH_P_8021Q)",
        "type == l4_htons(ETH_P_8021Q) || type == l4_htons(ETH_P_8021AD)",
    ),
    "tag lost in the tunnel": Patch(TUNNEL, "if (start == L4_TAGGED_LENGTH)", "if (0)"),
    "sum without the tag": Patch(TUNNEL, "!= headers->ip + length", "!= sizeof(struct ethhdr) + length"),
    "addresses before the tag": Patch(
        REWRITE,
        "context->data + l4_offset(headers->ip), *l4 =",
        "context->data + sizeof(struct ethhdr), *l4 =",
    ),
    "options unsummed": Patch(PACKET, "if (l4_unlikely(length > fixed))", "if (0)"),
    "total beyond the frame": Patch(PACKET, "total < length || total > room", "total < length"),
    "UDP length": Patch(PACKET, "length < sizeof(struct udphdr) || length > room", "length > room"),
    "data offset": Patch(
        PACKET, "length < sizeof(struct tcphdr) || length > room", "length < sizeof(struct tcphdr)"
    ),
    "fragment bits": Patch(PACKET, "L4_IS_FRAGMENT = 0x3fff", "L4_IS_FRAGMENT = 0x1fff"),
    "odd byte": Patch(CHECKSUM, "uint8_t last[2] = { *at, 0 };", "uint8_t last[2] = { 0, *at };"),
    "partial complemented": Patch(REWRITE, "check = l4_update_partial(", "check = l4_update("),
    "partial not completed": Patch(REWRITE, "if (context->csum_start == L4_CSUM_DETECT &&", "if (0 &&"),
    "UDP zero sent": Patch(
        REWRITE, "headers->key.protocol == IPPROTO_UDP ? 0xffff : check;", "0 ? 0xffff : check;"
    ),
    "UDP none filled in": Patch(
        REWRITE,
        "if (check == 0 && headers->key.protocol == IPPROTO_UDP)\n\t\treturn;\n\tif (context->csum_start > 0",
        "if (context->csum_start > 0",
    ),
    "long frames": Patch(TUNNEL, "length > l4_load(&control->mtus[arm & 1])", "length > 2000u"),
    "least MTU": Patch(TUNNEL, "length > l4_load(&control->least_mtu)", "length > 2000u"),
    "errors dropped": Patch(
        STEER,
        "if (headers->icmp && l4_is_icmp_error(headers->v6, type))",
        "if (0)",
    ),
    "errors from inside": Patch(
        STEER, "if (headers->icmp && l4_is_icmp_error(headers->v6, headers->icmp_type))", "if (0)"
    ),
    "TTL of DSR": Patch(
        KNOWN,
        "if (backend->mode != L4_DSR_L2 && context->headers.ttl <= 1)",
        "if (context->headers.ttl <= 1)",
    ),
    "TTL of replies": Patch(KNOWN, "if (context->headers.ttl <= 1) /*", "if (context->headers.ttl < 1) /*"),
    "martian class E": Patch(SCREEN, "first >= 224", "first >= 240"),
    "nothing is ours": Patch(LOOKUP, "& 63) & 1;", "& 63) & 0;"),
    "martian own address": Patch(SCREEN, "source, 0, L4_IS_OWN", "source, 0, L4_IS_VIP"),
    "SYN and FIN opens": Patch(KNOWN, "L4_TCP_ACK | L4_TCP_FIN | L4_TCP_RST", "L4_TCP_ACK | L4_TCP_RST"),
    "port 0 first": Patch(CONTEXT, "if (number >= 0)\n\t\treturn number;", ""),
    "ports not exchanged": Patch(
        KNOWN, "context->ports_be << 16 | context->ports_be >> 16", "context->ports_be"
    ),
    "backend's port": Patch(
        PAIR,
        "uint16_t port_be = backend->port_be ? backend->port_be : l4_second16(key->ports);",
        "uint16_t port_be = l4_second16(key->ports);",
    ),
    "source of fullnat": Patch(
        ADMIT,
        "&context->headers.key, backend, address, port_be);",
        "&context->headers.key, backend, context->headers.key.src, port_be);",
    ),
    "same port twice": Patch(ADMIT, "else if (index >= 0)\n\t\t\t\tindex = L4_REPLY_TAKEN;", ""),
    "step of the walk": Patch(
        ADMIT, "uint32_t step = 1 + l4_scale(value, service->snat_modulus - 1);", "uint32_t step = 1;"
    ),
    "first range only": Patch(ADMIT, "i < L4_SNAT_RANGES && i < service->snat_ranges", "i < 1"),
    "rest gives no way": Patch(ADMIT, "l4_load(&l4_control_of(context->tables)->resting))", "0)"),
    "known flow's headers in front": Patch(KNOWN, "overhead = l4_overhead(backend);", ""),
    "new flow's headers in front": Patch(SCREEN, "l4_overhead(backend), backend->arm", "0, backend->arm"),
    "path of a known flow": Patch(KNOWN, "if (l4_is_too_long_for_path(context, backend))", "if (0)"),
    "path of a new flow": Patch(SCREEN, "l4_is_too_long_for_path(context, backend)))", "0))"),
    "lost turn": Patch(
        SCREEN, "if (service->rule == L4_RULE_CURSOR)\n\t\tl4_exchange_if", "if (0)\n\t\tl4_exchange_if"
    ),
    "SNAT address as a client": Patch(
        SCREEN, "source, 0, L4_IS_SNAT) >= 0 ||", "source, 0, L4_IS_VIP) >= 0 ||"
    ),
    "stray to the kernel": Patch(STEER, "return L4_DROP_SNAT_NO_FLOW;", "return L4_PASS_NOT_OURS;"),
    "flow of the burst": Patch(STEER, "if (context->flow != L4_BUSY) {\n\t\t\tl4_look(context);", "if (0) {"),
    "state after FIN": Patch(
        TOUCH, "L4_TCP_RST) ? L4_FLOW_CLOSING : state", "L4_TCP_RST) ? L4_FLOW_CLOSING : L4_FLOW_ESTABLISHED"
    ),
    "share without a bound": Patch(
        TURNS, "l4_load(&control->half_open_used) >= control->half_open_limit", "0"
    ),
    "newest goes": Patch(
        SHARE,
        "l4_oldest_place(tables) :",
        "l4_place_at_turn(tables, l4_load(&control->turn) - 1) :",
    ),
    "half-open flows stay while the table is full": Patch(
        SHARE, "if (l4_evict_half_open(tables) == L4_NONE)", "if (1)"
    ),
    "lost choices not counted": Patch(
        AFFINITY,
        "l4_count_event(tables, L4_EVENT_NO_AFFINITY);",
        ";",
    ),
    "evictions not counted": Patch(SHARE, "l4_count_event(tables, L4_EVENT_EVICTED_HALF_OPEN);", ";"),
    "place kept": Patch(TOUCH, "\t\tl4_leave(tables, index, entry);\n", ""),
    "place of the ended": Patch(FREE, "l4_leave(tables, index, entry);\n\tl4_empty", "l4_empty"),
    "place of the refused": Patch(TURNS, "l4_free_place(tables, number, L4_PLACE_TAKEN);", "(void)number;"),
    "any ACK establishes": Patch(KNOWN, "if (!l4_acknowledges(", "if (0 && !l4_acknowledges("),
    "first ACK far ahead": Patch(KNOWN, "expected < L4_OPEN_WINDOW", "expected <= L4_OPEN_WINDOW"),
    "any RST ends": Patch(KNOWN, "- acknowledged >= L4_END_WINDOW) {", "- acknowledged >= ~0u) {"),
    "RST far ahead": Patch(KNOWN, "acknowledged >= L4_END_WINDOW", "acknowledged > L4_END_WINDOW"),
    "RST ends one side": Patch(KNOWN, "\t\t\tseen->of_peer = L4_FLOW_CLOSING;", "\t\t\t;"),
    "any RST ends both sides": Patch(KNOWN, "l4_ntohl(headers->sequence_be) == acknowledged)", "1)"),
    "backend's new SYN": Patch(KNOWN, "if (l4_unlikely(flags & L4_TCP_SYN) && values", "if (0 && values"),
    "client end stays": Patch(KNOWN, "seen->to = seen->of_peer = L4_FLOW_EST", "seen->to = L4_FLOW_EST"),
    "silent backend": Patch(KNOWN, "\t\t\tseen->of_peer = L4_FLOW_ESTABLISHED;", "\t\t\t;"),
    "SYN of an open flow": Patch(KNOWN, "return values->state == L4_FLOW_HALF_OPEN &&", "return "),
    "SYN of a half-closed flow": Patch(
        KNOWN, "return l4_load(&peer->state) == L4_FLOW_CLOSING;", "return 1;"
    ),
    "forged end and SYN": Patch(KNOWN, "stays = values->service == service", "stays = 0"),
    "SYN to a backend that drains": Patch(KNOWN, "backend && backend->takes_flows;", "backend;"),
    "SYN that nobody answers": Patch(KNOWN, "return l4_is_half_open(values->state) &&", "return 0 &&"),
    "SYN whose answer is on its way": Patch(KNOWN, "values->last_seen) >= L4_STREAM_MS", "0) >= 0"),
    "SYN to nobody": Patch(REUSE, "!service->ring_size || ", ""),
    "SYN of who is denied": Patch(REUSE, "!l4_may_open(context, service) ||\n", "\n"),
    "port without rest": Patch(REUSE, "of_flow->mode == L4_FULLNAT", "0"),
    "SYN that is not asked": Patch(STEER, "entry->state == L4_FLOW_CLOSING) && verdict", "0) && verdict"),
    "asks twice": Patch(KNOWN, "l4_elapsed(seen->now, l4_load(&peer->sequence)) >= L4_STREAM_MS", "1"),
    "answer in a full table": Patch(KNOWN, "&& l4_is_half_empty(tables))", ")"),
    "half of the table": Patch(
        TOUCH, "return 2 * l4_load(&control->used) <", "return 4 * l4_load(&control->used) <"
    ),
    "no answer seen": Patch(KNOWN, "(l4_load_acquire(&peer->state) == L4_FLOW_UDP &&", "(1 &&"),
    "asked and counted": Patch(REUSE, "context->headers.key.src, 0);", "context->headers.key.src, 1);"),
    "ports of a source hash": Patch(
        SCREEN, "key->src, key->src, 0, 0) >> 32", "key->src, key->src, key->ports, 0) >> 32"
    ),
    "source hash in mid-stream": Patch(SCREEN, " || rule == L4_RULE_SOURCE_HASH", ""),
    "half of an IPv6 source": Patch(SCREEN, "key->src, key->src, 0, 0)", "key->src, key->src + 1, 0, 0)"),
    "IPv6 hop limit": Patch(
        REWRITE,
        "l4_write_v6(context, ip, (uint8_t)(headers->ttl - 1))",
        "l4_write_v6(context, ip, headers->ttl)",
    ),
    "upper halves uncovered": Patch(
        REWRITE, "if (l4_unlikely(headers->v6))\n\t\tchange +=", "if (0)\n\t\tchange +="
    ),
    "seven extensions": Patch(PACKET, "L4_MOST_EXTENSIONS = 6", "L4_MOST_EXTENSIONS = 7"),
    "AH in units of 8": Patch(PACKET, "kind == IPPROTO_AH ? 4u : 8u", "8u"),
    "segments left": Patch(PACKET, "kind == IPPROTO_ROUTING && header[3]", "0"),
    "mapped on the wire": Patch(
        PACKET, "if (l4_is_v4(headers->key.src) || l4_is_v4(headers->key.dst))", "if (0)"
    ),
    "discovery unseen": Patch(
        STEER,
        "if (headers->v6 && headers->icmp && type >= L4_FIRST_DISCOVERY",
        "if (headers->icmp && type >= 255",
    ),
    "echo to a martian": Patch(STEER, "if (l4_is_martian(context) || ", "if ("),
    "echo of a reply": Patch(STEER, "!headers->icmp || type !=", "!headers->icmp || type =="),
    "echo's own TTL": Patch(
        REWRITE, "l4_write_v4(context, ip, L4_OWN_TTL, 0)", "l4_write_v4(context, ip, headers->ttl, 0)"
    ),
    "echo's checksum": Patch(
        REWRITE,
        "check = l4_update(headers->l4_check_be, l4_change8",
        "check = l4_update(headers->l4_check_be, 0 * l4_change8",
    ),
    "echo as traffic": Patch(TRAFFIC, "if (!traffic || !backend)", "if (!traffic)"),
    "link-local": Patch(SCREEN, "first >> 22 == 0xfe80 >> 6", "0"),
    "least by hash": Patch(ADMIT, "service->rule >= L4_RULE_LEAST", "service->rule > L4_RULE_LEAST"),
    "new flows uncounted": Patch(ADMIT, "l4_count_up(&traffic->flows, 1);", "(void)traffic;"),
    "first bucket first": Patch(INSERT, "of_second > of_first ? second", "of_second >= of_first ? second"),
    "no reset": Patch(SCREEN, "if (is_nat && !(context->headers.flags & L4_TCP_RST))", "if (0)"),
    "no overflow": Patch(
        FLOWS, "if (!l4_is_marked(tables, bucket.first) || !l4_is_marked(tables, bucket.second))", "if (1)"
    ),
    "one entry too many": Patch(
        INSERT, "used + entries > control->flow_capacity", "used > control->flow_capacity"
    ),
    "full is not seen": Patch(FULL, "return l4_reserve(tables, entries) ? 0 : L4_FULL;", "return 0;"),
    "flow uncounted": Patch(
        ADMIT, "\t\tl4_uncount(context, service_number, verdict == L4_MISS ? L4_LEVEL_OF_FLOW : 0);\n", ""
    ),
    "limit off by one": Patch(COUNTS, "flows >= service->flows ?", "flows > service->flows ?"),
    "client's limit off by one": Patch(
        COUNTS, "was.flows >= service->client_flows", "was.flows > service->client_flows"
    ),
    "brim": Patch(COUNTS, "(uint64_t)level + L4_LEVEL_OF_FLOW > ", "(uint64_t)level > "),
    "leaks for ever": Patch(COUNTS, "silent < L4_LEAK_MS ? silent : L4_LEAK_MS", "silent + 1"),
    "refused, and counted": Patch(
        COUNTS, "if (more && verdict != L4_UNDECIDED)\n\t\tl4_add(&usage->flows, -1u);", "(void)0;"
    ),
    "clients of all services": Patch(
        COUNTS, "l4_ports(0, l4_htons((uint16_t)service))", "l4_ports(0, (uint16_t)(0 * service))"
    ),
    "place of another": Patch(COUNTS, "!place->flows && silent >= L4_LEAK_MS", "!place->flows"),
    "choice not renewed": Patch(
        AFFINITY,
        "if (l4_load(&entry->backend) == backend) {\n\t\tl4_store(&entry->last_seen, now);",
        "if (l4_load(&entry->backend) == backend) {",
    ),
    "choice of who is gone": Patch(AFFINITY, " && backend->takes_flows", ""),
    "choice not changed": Patch(AFFINITY, "l4_store(&entry->backend, (uint16_t)backend);", ""),
    "choices fill the table": Patch(
        AFFINITY,
        "control->flow_capacity - control->flow_capacity / L4_FLOWS_ALONE",
        "control->flow_capacity",
    ),
    "choice of another service": Patch(
        AFFINITY, "l4_ports(l4_htons((uint16_t)context->service), 0)", "l4_ports(0, 0)"
    ),
    "a stranger goes": Patch(
        FULL, "return service && service->full == L4_FULL_EVICT_OLDEST;", "return service != NULL;"
    ),
    "one pair of buckets is near": Patch(FULL, "step < L4_NEAR && found", "step < 1 && found"),
    "the youngest goes": Patch(FULL, "silent > longest", "silent < longest"),
    "full is full": Patch(
        ADMIT, "verdict != L4_DROP_FLOWS_FULL || service->full != L4_FULL_STATELESS", "verdict != 0"
    ),
    "acl unread": Patch(SCREEN, "if (!l4_may_open(context, service))", "if (0)"),
    "acl low half only": Patch(
        ACL, "range->high > high || (range->high == high && range->low > low)", "range->low > low"
    ),
    "acl off by one": Patch(ACL, "range->low > low)", "range->low >= low)"),
    "MSS raised": Patch(
        MSS, "if (l4_ntohs(before) <= service->mss_clamp)", "if (l4_ntohs(before) == service->mss_clamp)"
    ),
    "MSS at odd places": Patch(MSS, "if (at & 1) {", "if (0) {"),
    "MSS of a partial sum": Patch(
        MSS, "if (context->csum_start > 0 && context->csum_start == headers->l4)", "if (0)"
    ),
    "MSS past the options": Patch(MSS, "|| at + option[1] > length)", "|| 0)"),
    "MSS of another length": Patch(MSS, "option[1] == L4_MSS_LENGTH ? at + 2 : 0", "at + 2"),
    "another free hop": Patch(
        HOPS, "if (index && hop) {\n\t\tl4_store(&control", "if (index && hop && 0) {\n\t\tl4_store(&control"
    ),
    "bytes of replies": Patch(
        TRAFFIC, "&traffic->bytes : &traffic->reply_bytes", "&traffic->bytes : &traffic->bytes"
    ),
}
