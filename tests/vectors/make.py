"""Write the vector files next to this one.

Both sides of a vector, the frame that comes in and the one that must go out,
are built by scapy from fields that a person wrote here; l4raw takes no part
in it. Run by hand when a story is added: `python tests/vectors/make.py`.
The files are what the tests read.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

CLIENT_MAC, OUR_MAC, OUR_MAC_1 = "02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03"
B1_MAC, B2_MAC = "02:00:00:00:00:0b", "02:00:00:00:00:0c"
B3_MAC = "02:00:00:00:00:0d"
SH_MAC, SH_MAC_9 = B1_MAC, B2_MAC
HRW_MACS = (B3_MAC, B3_MAC, B1_MAC, B2_MAC, B1_MAC, B2_MAC)
"""Where the ring seed of the tests sends 10.77.0.1, 10.77.0.9, and the six flows of a vector."""
CLIENT, VIP, B1, B2 = "10.77.0.1", "10.77.0.100", "10.78.0.11", "10.78.0.12"
OUR_ADDRESSES = ("10.77.0.2", "10.78.0.2", "192.168.9.1")
CLIENT_V6, VIP_V6, B1_V6, B2_V6 = "2001:db8:77::1", "2001:db8:77::100", "2001:db8:78::b", "2001:db8:78::c"
"""Of the arms and of another interface."""
SNAT, SNAT_V6, SNAT_PORT = "10.78.0.201", "2001:db8:78::201", 5000
POOL_PORTS = (40541, 19548, 19130)
"""Of the larger pool, in the order of the tests' table key: for three flows."""
L4 = 34
"""Offset of the TCP or UDP header where there are no IP options."""


def filled(given: dict[str, Any], **otherwise: Any) -> dict[str, Any]:
    """The fields that were given, and what the others are otherwise."""
    return otherwise | given


def to_vip(l4: Packet, **ip: Any) -> Packet:
    """A client's frame to the VIP."""
    return Ether(src=CLIENT_MAC, dst=OUR_MAC) / IP(**filled(ip, src=CLIENT, dst=VIP, id=7)) / l4


def syn(**tcp: Any) -> Packet:
    """A SYN as Linux sends it, options included."""
    options = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)]
    return TCP(**filled(tcp, sport=41022, dport=80, flags="S", seq=1000, options=options))


def dsr(frame: Packet, mac: str = B1_MAC, own: str = OUR_MAC) -> Packet:
    """What direct server return must make of it: two MAC addresses, nothing else."""
    out = frame.copy()
    out.src, out.dst = own, mac
    return Ether(bytes(out))


def nat(frame: Packet, dst: str = B1, dport: int = 8080, mac: str = B1_MAC, own: str = OUR_MAC_1) -> Packet:
    """What NAT must make of a request; every checksum computed anew."""
    out = frame.copy()
    out.src, out.dst = own, mac
    out[IP].dst, out[IP].ttl = dst, out[IP].ttl - 1
    l4 = out[TCP] if TCP in out else out[UDP]
    l4.dport = dport
    keep_zero = UDP in out and frame[UDP].chksum == 0
    del out[IP].chksum
    if not keep_zero:
        del l4.chksum
    return Ether(bytes(out))


def from_backend(l4: Packet, src: str = B1, mac: str = B1_MAC, own: str = OUR_MAC_1, **ip: Any) -> Packet:
    """A backend's reply on its way through the balancer."""
    return Ether(src=mac, dst=own) / IP(**filled(ip, src=src, dst=CLIENT, id=9)) / l4


def nat_reply_partial(frame: Packet) -> Packet:
    """The same for a partial frame."""
    return partial_sum(nat_reply(frame))


def nat_reply(frame: Packet, sport: int = 80, mac: str = CLIENT_MAC, own: str = OUR_MAC) -> Packet:
    """What NAT must make of a reply."""
    out = frame.copy()
    out.src, out.dst = own, mac
    out[IP].src, out[IP].ttl = VIP, out[IP].ttl - 1
    l4 = out[TCP] if TCP in out else out[UDP]
    l4.sport = sport
    del out[IP].chksum, l4.chksum
    return Ether(bytes(out))


def fullnat(frame: Packet, port: int = SNAT_PORT, **to: Any) -> Packet:
    """What fullnat must make of a request: nat, and the source is the balancer's."""
    out = nat(frame, **to)
    out[IP].src = SNAT
    l4 = out[TCP] if TCP in out else out[UDP]
    l4.sport = port
    del out[IP].chksum
    if not (UDP in out and frame[UDP].chksum == 0):
        del l4.chksum
    return Ether(bytes(out))


def fullnat_reply(frame: Packet, sport: int = 80, dport: int = 41022, own: str = OUR_MAC) -> Packet:
    """What fullnat must make of a reply."""
    out = nat_reply(frame, sport, own=own)
    out[IP].dst = CLIENT
    l4 = out[TCP] if TCP in out else out[UDP]
    l4.dport = dport
    del out[IP].chksum, l4.chksum
    return Ether(bytes(out))


def to_vip_v6(l4: Packet, *extensions: Packet, **ip: Any) -> Packet:
    """The same for IPv6."""
    packet = Ether(src=CLIENT_MAC, dst=OUR_MAC) / IPv6(**filled(ip, src=CLIENT_V6, dst=VIP_V6, fl=0x12345))
    for extension in extensions:
        packet /= extension
    return packet / l4


def nat_v6(frame: Packet, dst: str = B1_V6, dport: int = 8080, mac: str = B1_MAC) -> Packet:
    """What NAT must make of a request."""
    out = frame.copy()
    out.src, out.dst = OUR_MAC_1, mac
    out[IPv6].dst, out[IPv6].hlim = dst, out[IPv6].hlim - 1
    l4 = out[TCP] if TCP in out else out[UDP]
    l4.dport = dport
    del l4.chksum
    return Ether(bytes(out))


def from_backend_v6(l4: Packet, **ip: Any) -> Packet:
    """A backend's reply on its way through the balancer."""
    return Ether(src=B1_MAC, dst=OUR_MAC_1) / IPv6(**filled(ip, src=B1_V6, dst=CLIENT_V6)) / l4


def nat_reply_v6(frame: Packet, sport: int = 80) -> Packet:
    """What NAT must make of a reply."""
    out = frame.copy()
    out.src, out.dst = OUR_MAC, CLIENT_MAC
    out[IPv6].src, out[IPv6].hlim = VIP_V6, out[IPv6].hlim - 1
    l4 = out[TCP] if TCP in out else out[UDP]
    l4.sport = sport
    del l4.chksum
    return Ether(bytes(out))


class Story:
    """One vector file: a name, a reason, and frames in order."""

    def __init__(self, name: str, tables: str, why: str) -> None:
        self.name, self.tables, self.why = name, tables, why
        self.steps: list[str] = []
        self.given: list[dict[str, Any]] = []
        """What step() was told, for a story that tells the same again with a difference."""

    def step(
        self,
        frame: Packet | bytes,
        verdict: str,
        out: Packet | bytes | None = None,
        arm: int = 0,
        out_arm: int = 0,
        csum_start: int = 0,
        note: str = "",
        segment: int = 0,
        made: Sequence[Packet | bytes] = (),
        counted: Sequence[str] | None = None,
    ) -> Story:
        """Add a frame and what must become of it."""
        told = {"verdict": verdict, "arm": arm, "out_arm": out_arm, "note": note, "segment": segment}
        more = {"frame": frame, "out": out, "csum_start": csum_start, "made": made, "counted": counted}
        self.given.append(told | more)
        lines = ["[[step]]"]
        if note:
            lines.append(f"# {note}")
        lines += [f"arm = {arm}", f"frame = {_hex(bytes(frame))}", f'verdict = "{verdict}"']
        if csum_start:
            lines.append(f"csum_start = {csum_start}")
        if counted is not None:
            lines.append(f"counted = {json.dumps(list(counted))}")
        if made or out is not None:
            lines.append(f"out_arm = {out_arm}")
        if segment:
            lines.append(f"segment = {segment}")
        if made:
            lines.append(f"made = [{', '.join(_hex(bytes(each)) for each in made)}]")
        if out is not None:
            lines.append(f"out = {_hex(bytes(out))}")
        self.steps.append("\n".join(lines))
        return self

    def write(self) -> None:
        """Write `name.toml`."""
        head = f'name = "{self.name}"\ntables = "{self.tables}"\nwhy = """\n{self.why}"""\n'
        path = Path(__file__).with_name(self.name + ".toml")
        path.write_text("# Written by make.py.\n" + head + "\n" + "\n\n".join(self.steps) + "\n")


def _hex(data: bytes) -> str:
    rows = [data[i : i + 32].hex(" ", -2) for i in range(0, len(data), 32)]
    return '"""\n' + "\n".join(rows) + '"""'


def fixed(frame: Packet) -> Packet:
    """The frame with all computed fields filled in."""
    return Ether(bytes(frame))


def partial_sum(frame: Packet) -> Packet:
    """The frame as a sender with checksum offload leaves it: the field holds the pseudo-header's sum."""
    out = Ether(bytes(frame))
    l4 = out[TCP] if TCP in out else out[UDP]
    words = bytes.fromhex("".join(f"{int(b):02x}" for a in (out[IP].src, out[IP].dst) for b in a.split(".")))
    total = sum(int.from_bytes(words[i : i + 2], "big") for i in range(0, 8, 2)) + out[IP].proto + len(l4)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    l4.chksum = total
    return Ether(bytes(out))


def nat_partial(frame: Packet, **to: object) -> Packet:
    """NAT of a partial frame: the field holds the new pseudo-header's sum."""
    return partial_sum(nat(frame, **to))  # type: ignore[arg-type]


def _forwarding() -> list[Story]:
    first, ack = fixed(to_vip(syn())), fixed(to_vip(TCP(sport=41022, dport=80, flags="A", seq=1001, ack=1)))
    second = fixed(to_vip(syn(sport=41023)))
    dns = fixed(to_vip(UDP(sport=5353, dport=53) / Raw(b"query")))
    zero = fixed(to_vip(UDP(sport=5353, dport=53, chksum=0) / Raw(b"query")))
    tunnel = fixed(to_vip(UDP(sport=5353, dport=53) / Raw(b"\x08" * 8 + bytes(first))))
    tunnel_zero = fixed(to_vip(UDP(sport=5354, dport=53, chksum=0) / Raw(b"\x08" * 8 + bytes(first))))
    inner = L4 + 8 + 8 + L4
    large = fixed(to_vip(TCP(sport=41022, dport=80, flags="A", seq=1001, ack=1) / Raw(bytes(range(256)) * 7)))
    options = fixed(to_vip(syn(), options=b"\x94\x04\x00\x00"))
    padded = bytes(to_vip(UDP(sport=5353, dport=53) / Raw(b"q"))) + b"\xa5" * 17
    reply = fixed(from_backend(TCP(sport=8080, dport=41022, flags="SA", seq=5, ack=1001)))
    one_arm_reply = fixed(
        from_backend(TCP(sport=8080, dport=41022, flags="SA", seq=5, ack=1001), own=OUR_MAC)
    )
    reply_to_arm_0 = one_arm_reply
    answer = fixed(from_backend(UDP(sport=5300, dport=5353) / Raw(b"answer")))
    return [
        Story(
            "dsr_syn_and_ack", "dsr", "A flow keeps its backend while rr moves on. Only MAC addresses change."
        )
        .step(first, "forward", dsr(first))
        .step(second, "forward", dsr(second, B2_MAC))
        .step(ack, "forward", dsr(ack)),
        Story(
            "dsr_two_arms", "dsr-two-arm", "Out through the backends' arm, with that arm's MAC as source."
        ).step(first, "forward", dsr(first, own=OUR_MAC_1), out_arm=1),
        Story("dsr_udp", "dsr", "UDP needs no handshake: any first datagram makes the flow.").step(
            dns, "forward", dsr(dns)
        ),
        Story("dsr_ip_options", "dsr", "IHL 6: the ports are 4 bytes later (RFC 791 section 3.1).").step(
            options, "forward", dsr(options)
        ),
        Story("dsr_ttl_1", "dsr", "Direct server return does not route: a TTL of 1 is enough.").step(
            fixed(to_vip(syn(), ttl=1)), "forward", dsr(fixed(to_vip(syn(), ttl=1)))
        ),
        Story(
            "dsr_every_port", "dsr-port-0", "A VIP with port 0 takes every port that no other service names."
        )
        .step(fixed(to_vip(syn(dport=8443))), "forward", dsr(fixed(to_vip(syn(dport=8443)))))
        .step(first, "forward", dsr(first, B2_MAC), note="port 80 has a service of its own, with b2"),
        Story(
            "dsr_partial",
            "dsr",
            "A partial checksum stays as it is: whoever completes it sees the same addresses.",
        ).step(partial_sum(first), "forward", dsr(partial_sum(first)), csum_start=L4),
        Story(
            "nat_there_and_back", "nat", "Destination there, source back; both sums; TTL one less each way."
        )
        .step(first, "forward", nat(first), out_arm=1)
        .step(reply, "reply", nat_reply(reply), arm=1)
        .step(reply_to_arm_0, "pass_not_ours", note="no backend is on the clients' side"),
        Story("nat_udp", "nat", "The same for UDP, to another port of the backend.")
        .step(dns, "forward", nat(dns, dport=5300), out_arm=1)
        .step(answer, "reply", nat_reply(answer, sport=53), arm=1),
        Story(
            "nat_udp_no_checksum", "nat", "UDP checksum 0 means none was computed (RFC 768): it stays 0."
        ).step(zero, "forward", nat(zero, dport=5300), out_arm=1),
        Story("nat_padding", "nat", "Ethernet padding is no part of the datagram and stays as it is.").step(
            padded,
            "forward",
            _pad(nat(fixed(to_vip(UDP(sport=5353, dport=53) / Raw(b"q"))), dport=5300)),
            out_arm=1,
        ),
        Story("nat_partial", "nat", "A partial sum covers addresses but no ports (kernel: CHECKSUM_PARTIAL).")
        .step(partial_sum(first), "forward", nat_partial(first), out_arm=1, csum_start=L4)
        .step(partial_sum(reply), "reply", nat_reply_partial(reply), arm=1, csum_start=L4),
        Story(
            "nat_partial_inside",
            "nat",
            "A tunnel's datagram: partial is the checksum of what it carries, not its own.",
        )
        .step(tunnel, "forward", nat(tunnel, dport=5300), out_arm=1, csum_start=inner)
        .step(
            tunnel_zero,
            "forward",
            nat(tunnel_zero, dst=B2, dport=5300, mac=B2_MAC),
            out_arm=1,
            csum_start=inner,
            note="0 of its own: none",
        ),
        Story("nat_one_arm", "nat-one-arm", "In and out through the same interface.")
        .step(first, "forward", nat(first, own=OUR_MAC))
        .step(one_arm_reply, "reply", nat_reply(one_arm_reply)),
        Story(
            "nat_super_frame",
            "nat",
            "Larger than any Ethernet frame: whoever sends it on a wire cuts it.",
        )
        .step(first, "forward", nat(first), out_arm=1)
        .step(partial_sum(large), "forward", nat_partial(large), out_arm=1, csum_start=L4, segment=1448)
        .step(large, "forward", nat(large), out_arm=1, segment=1448),
        Story("nat_options", "nat", "IP options are kept; the header's sum covers them.").step(
            options, "forward", nat(options), out_arm=1
        ),
    ]


def _schedulers() -> list[Story]:
    """Which backend a new flow gets; where a hash decides, with the keys of the tests' ring seed."""
    opening = [fixed(to_vip(syn(sport=41022 + number))) for number in range(6)]
    turns = Story("wrr_turns", "dsr-wrr", "Weights 2, 1 and 0: twice b1 and once b2, spread, and never b3.")
    for frame, mac in zip(opening, (B1_MAC, B2_MAC, B1_MAC) * 2, strict=True):
        turns.step(frame, "forward", dsr(frame, mac))
    one = Story("sh_one_client", "dsr-sh", "Hash of the source: all flows of a client go to one backend.")
    for frame in opening:
        one.step(frame, "forward", dsr(frame, SH_MAC))
    another = fixed(to_vip(syn(), src="10.77.0.9"))
    one.step(another, "forward", dsr(another, SH_MAC_9), note="another client")
    late = fixed(to_vip(TCP(sport=9, dport=80, flags="A", seq=1001, ack=1)))
    one.step(late, "forward", dsr(late, SH_MAC), note="in mid-stream: found again, without an entry")
    rows = Story("hrw_rows", "dsr-hrw", "Highest random weight: each flow by itself, again by its hash.")
    for frame, mac in zip(opening, HRW_MACS, strict=True):
        rows.step(frame, "forward", dsr(frame, mac))
    why = "Weights 1, 2 and 0: the fewest flows for its weight; no look-up, so a miss in C."
    fewest = Story("wlc_fewest", "nat-wlc", why)
    for frame, to in zip(opening, ("b1", "b2", "b2", "b1", "b2", "b2"), strict=True):
        dst, mac = {"b1": (B1, B1_MAC), "b2": (B2, B2_MAC)}[to]
        fewest.step(frame, "forward", nat(frame, dst, mac=mac), out_arm=1)
    ack = fixed(to_vip(TCP(sport=41023, dport=80, flags="A", seq=1001, ack=1)))
    fewest.step(ack, "forward", nat(ack, B2, mac=B2_MAC), out_arm=1, note="a known flow: a look-up again")
    why = "Each client has a turn, and its further flows follow; each service by itself."
    kept = Story("affinity", "dsr-affinity", why)
    for src, sport, dport, mac in (
        ("10.77.0.1", 1, 80, B1_MAC),
        ("10.77.0.9", 1, 80, B2_MAC),
        ("10.77.0.1", 2, 80, B1_MAC),
        ("10.77.0.9", 2, 80, B2_MAC),
        ("10.77.0.9", 3, 81, B1_MAC),
        ("10.77.0.1", 3, 81, B2_MAC),
        ("10.77.0.8", 3, 80, B3_MAC),
        ("10.77.0.1", 4, 80, B1_MAC),
    ):
        frame = fixed(to_vip(syn(sport=sport, dport=dport), src=src))
        kept.step(frame, "forward", dsr(frame, mac), note=f"{src} to port {dport}")
    unknown = fixed(to_vip(TCP(sport=9, dport=80, flags="R")))
    fewest.step(unknown, "drop_no_flow", note="and nobody knows where this one went")
    return [turns, one, rows, fewest, kept]


def _fullnat() -> list[Story]:
    """One SNAT address with one port: what two backends share, and one has once only."""
    first, second, third = (fixed(to_vip(syn(sport=41022 + number))) for number in range(3))
    answer = TCP(sport=8080, dport=SNAT_PORT, flags="SA", seq=5, ack=1001)
    reply = fixed(from_backend(answer, dst=SNAT))
    reply_b2 = fixed(from_backend(answer, src=B2, mac=B2_MAC, dst=SNAT))
    one_arm = fixed(from_backend(answer, dst=SNAT, own=OUR_MAC))
    dns = fixed(to_vip(UDP(sport=5353, dport=53) / Raw(b"query")))
    zero = fixed(to_vip(UDP(sport=5354, dport=53, chksum=0) / Raw(b"query")))
    told = fixed(from_backend(UDP(sport=5300, dport=SNAT_PORT) / Raw(b"answer"), dst=SNAT))
    partial = partial_sum(fullnat(first))
    stray = Story(
        "fullnat_strays", "fullnat", "To a SNAT address, and of no flow: the kernel must not answer it."
    )
    stray.step(reply, "drop_snat_no_flow", arm=1, note="before there is a flow")
    stray.step(first, "forward", fullnat(first), out_arm=1)
    stray.step(reply_b2, "drop_snat_no_flow", arm=1, note="another backend")
    stray.step(
        fixed(from_backend(answer, dst=SNAT, own=OUR_MAC)), "drop_snat_no_flow", note="from the clients' side"
    )
    stray.step(fixed(from_backend(ICMP(), dst=SNAT)), "drop_snat_no_flow", arm=1, note="a ping")
    stray.step(fixed(to_vip(syn(), src=SNAT)), "drop_martian", note="no client has the address")
    stray.step(fixed(from_backend(answer, dst=SNAT, ttl=1)), "drop_ttl", arm=1)
    many = Story(
        "fullnat_pool", "fullnat-pool", "64,512 ports: each flow begins its walk where its hash says."
    )
    for frame, port in zip((first, second, third), POOL_PORTS, strict=True):
        to = {"dst": B2, "mac": B2_MAC} if frame is second else {}
        many.step(frame, "forward", fullnat(frame, port, **to), out_arm=1)
    return [
        Story(
            "fullnat_there_and_back",
            "fullnat",
            "Both ends are rewritten, both ways; one port for each backend.",
        )
        .step(first, "forward", fullnat(first), out_arm=1)
        .step(second, "forward", fullnat(second, dst=B2, mac=B2_MAC), out_arm=1, note="b2, and the same port")
        .step(reply, "reply", fullnat_reply(reply), arm=1)
        .step(reply_b2, "reply", fullnat_reply(reply_b2, dport=41023), arm=1)
        .step(third, "drop_snat_exhausted", note="b1 again")
        .step(first, "forward", fullnat(first), out_arm=1, note="a known flow goes on"),
        Story("fullnat_udp", "fullnat", "Of UDP the same port is another one.")
        .step(dns, "forward", fullnat(dns, dport=5300), out_arm=1)
        .step(zero, "forward", fullnat(zero, dst=B2, dport=5300, mac=B2_MAC), out_arm=1, note="no checksum")
        .step(told, "reply", fullnat_reply(told, sport=53, dport=5353), arm=1),
        Story("fullnat_one_arm", "fullnat-one-arm", "In and out through the same interface.")
        .step(first, "forward", fullnat(first, own=OUR_MAC))
        .step(one_arm, "reply", fullnat_reply(one_arm)),
        Story("fullnat_partial", "fullnat", "A partial sum covers the addresses, both of which change.")
        .step(partial_sum(first), "forward", partial, out_arm=1, csum_start=L4)
        .step(partial_sum(reply), "reply", partial_sum(fullnat_reply(reply)), arm=1, csum_start=L4),
        stray,
        many,
        *_fullnat_v6(),
    ]


def _fullnat_v6() -> list[Story]:
    first = fixed(to_vip_v6(syn()))
    out = nat_v6(first)
    out[IPv6].src, out[TCP].sport = SNAT_V6, SNAT_PORT
    del out[TCP].chksum
    reply = fixed(from_backend_v6(TCP(sport=8080, dport=SNAT_PORT, flags="SA", seq=5, ack=1001), dst=SNAT_V6))
    back = nat_reply_v6(reply)
    back[IPv6].dst, back[TCP].dport = CLIENT_V6, 41022
    del back[TCP].chksum
    asked = fixed(from_backend_v6(ICMPv6ND_NS(tgt=SNAT_V6), dst=SNAT_V6, hlim=255))
    return [
        Story("fullnat_v6", "fullnat-v6", "The same for IPv6; neighbour discovery is the responder's.")
        .step(first, "forward", Ether(bytes(out)), out_arm=1)
        .step(reply, "reply", Ether(bytes(back)), arm=1)
        .step(asked, "pass_nd", arm=1)
        .step(fixed(from_backend_v6(ICMPv6EchoRequest(), dst=SNAT_V6)), "drop_snat_no_flow", arm=1)
        .step(fixed(to_vip_v6(syn(), src=SNAT_V6)), "drop_martian"),
    ]


def _pad(frame: Packet) -> bytes:
    return bytes(frame) + b"\xa5" * 17


def _checksum_zero() -> list[Story]:
    """UDP datagrams whose checksum, computed, is 0 before or after translation."""

    # A 16-bit word that is 0 takes the value that the sum lacks to be 0: the checksum.
    def datagram(word: int) -> Packet:
        return fixed(to_vip(UDP(sport=5353, dport=53) / Raw(word.to_bytes(2, "big"))))

    def segment(word: int) -> Packet:
        return fixed(to_vip(syn(seq=word)))

    udp = datagram(nat(datagram(0), dport=5300)[UDP].chksum % 0xFFFF)
    tcp_before, tcp_after = segment(segment(0)[TCP].chksum), segment(nat(segment(0))[TCP].chksum)
    after = nat(udp, dport=5300)
    assert after[UDP].chksum == 0xFFFF and nat(tcp_after)[TCP].chksum == 0 == tcp_before[TCP].chksum
    becomes = "A computed UDP checksum of 0 is sent as 0xffff (RFC 768)."
    no_rule = "TCP has no such rule: 0x0000, which RFC 1624 equation 3 gives and equation 2 did not."
    was = "A TCP checksum of 0x0000 is a sum like any other; only UDP's 0 means that there is none."
    return [
        Story("nat_udp_sum_becomes_zero", "nat", becomes).step(udp, "forward", after, out_arm=1),
        Story("nat_tcp_sum_becomes_zero", "nat", no_rule).step(
            tcp_after, "forward", nat(tcp_after), out_arm=1
        ),
        Story("nat_tcp_sum_was_zero", "nat", was).step(tcp_before, "forward", nat(tcp_before), out_arm=1),
    ]


def _martians() -> Story:
    """Frames from where no client can be."""
    story = Story(
        "martians",
        "nat",
        "A source that no reply can reach (RFC 1812 section 5.3.7), or that is ourselves, opens no flow.",
    )
    for src in ("0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"):
        story.step(fixed(to_vip(syn(), src=src)), "drop_martian", note=src)
    story.step(fixed(to_vip(syn(sport=80), src=VIP)), "drop_martian", note="the VIP itself: a LAND attack")
    for src in OUR_ADDRESSES:
        story.step(fixed(to_vip(syn(), src=src)), "drop_martian", note=f"the balancer's own address {src}")
    for mac in ("ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "00:00:00:00:00:00", OUR_MAC):
        frame = fixed(to_vip(syn()))
        frame.src = mac
        story.step(Ether(bytes(frame)), "drop_martian", note=f"from {mac}")
    first = fixed(to_vip(syn(), src="223.255.255.255"))
    return story.step(first, "forward", nat(first), out_arm=1, note="the last address that may")


def _refused() -> list[Story]:
    first = fixed(to_vip(syn()))
    broken = bytearray(bytes(first))
    broken[24] ^= 1
    short_offset = fixed(to_vip(TCP(sport=1, dport=80, dataofs=4)))
    stories = [
        Story("refused_protocols", "dsr", "What cannot be steered by ports is counted by what it is.")
        .step(fixed(to_vip(ICMP(type="time-exceeded"))), "drop_icmp", note="quotes nothing")
        .step(fixed(to_vip(Raw(b"\x08\0\0\0\0\0\0"), proto=1)), "drop_protocol", note="seven bytes of ICMP")
        .step(fixed(to_vip(syn(dport=81))), "drop_no_service")
        .step(fixed(to_vip(Raw(b"x" * 16), proto=6, flags="MF")), "drop_short", note="tiny: RFC 1858"),
        Story(
            "refused_malformed",
            "dsr",
            "RFC 1812 section 5.2.2, RFC 9293 and RFC 768: what a header must fulfil.",
        )
        .step(bytes(first)[:13], "drop_short")
        .step(bytes(first)[:33], "drop_short")
        .step(bytes(broken), "drop_ip_checksum")
        .step(fixed(to_vip(syn(), version=6)), "drop_ip_version")
        .step(fixed(to_vip(syn(), ihl=4)), "drop_ip_header_length")
        .step(fixed(to_vip(syn(), len=19)), "drop_ip_length")
        .step(fixed(to_vip(syn(), len=200)), "drop_ip_length")
        .step(fixed(to_vip(Raw(b"\0" * 19), proto=6)), "drop_short")
        .step(fixed(to_vip(Raw(b"\0" * 7), proto=17)), "drop_short")
        .step(short_offset, "drop_tcp_offset")
        .step(fixed(to_vip(TCP(sport=1, dport=80, dataofs=15))), "drop_tcp_offset")
        .step(fixed(to_vip(UDP(sport=1, dport=53, len=7))), "drop_udp_length")
        .step(fixed(to_vip(UDP(sport=1, dport=53, len=9))), "drop_udp_length"),
        Story("not_ours", "nat", "Everything else is left to the kernel.")
        .step(Ether(src=CLIENT_MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(pdst=VIP), "pass_not_ip")
        .step(Ether(src=CLIENT_MAC, dst=B1_MAC) / IP(bytes(first[IP])), "pass_other_mac")
        .step(
            Ether(src=CLIENT_MAC, dst=OUR_MAC_1) / IP(bytes(first[IP])),
            "pass_other_mac",
            note="ours, but of the other arm",
        )
        .step(
            fixed(Ether(src=CLIENT_MAC, dst=OUR_MAC) / IP(src=CLIENT, dst="10.77.0.2") / syn()),
            "pass_not_ours",
        )
        .step(
            fixed(from_backend(TCP(sport=8080, dport=4000, flags="SA"))),
            "pass_not_ours",
            arm=1,
            note="no such flow",
        ),
        Story(
            "nat_ttl_1",
            "nat",
            "A router may not forward a datagram whose TTL reaches zero (RFC 1812 section 5.3.1).",
        )
        .step(fixed(to_vip(syn(), ttl=1)), "drop_ttl")
        .step(fixed(to_vip(syn(), ttl=0)), "drop_ttl")
        .step(first, "forward", nat(first), out_arm=1)
        .step(
            fixed(to_vip(TCP(sport=41022, dport=80, flags="A"), ttl=1)), "drop_ttl", note="a known flow too"
        )
        .step(fixed(from_backend(TCP(sport=8080, dport=41022, flags="SA"), ttl=1)), "drop_ttl", arm=1),
        _martians(),
        Story(
            "reply_key_taken", "nat-two-vips", "Two VIPs, one backend port: replies could not be told apart."
        )
        .step(first, "forward", nat(first), out_arm=1)
        .step(fixed(to_vip(syn(dport=81))), "drop_reply_key_taken"),
        Story(
            "next_hop_unknown", "dsr-unknown-mac", "Nothing is remembered of a flow that cannot be forwarded."
        ).step(first, "drop_next_hop_unknown"),
    ]
    return stories


def _v6() -> list[Story]:
    first, second = fixed(to_vip_v6(syn())), fixed(to_vip_v6(syn(sport=41023)))
    dns = fixed(to_vip_v6(UDP(sport=5353, dport=53) / Raw(b"query")))
    hops, options = IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt()
    chain = fixed(to_vip_v6(syn(sport=41024), hops, options, IPv6ExtHdrRouting(segleft=0)))
    whole = fixed(to_vip_v6(syn(sport=41025), IPv6ExtHdrFragment(offset=0, m=0)))
    reply = fixed(from_backend_v6(TCP(sport=8080, dport=41022, flags="SA", seq=5, ack=1001)))
    answer = fixed(from_backend_v6(UDP(sport=5300, dport=5353) / Raw(b"answer")))
    short = bytearray(bytes(chain))
    short[14 + 40 + 1] = 40  # the first extension header claims 328 bytes
    martians = Story("v6_martians", "nat-v6", "RFC 4291, section 2: addresses that no client can have.")
    for src in ("::", "::1", "fe80::1", "ff02::1", "::ffff:10.77.0.1", VIP_V6, "2001:db8:77::2"):
        martians.step(fixed(to_vip_v6(syn(), src=src)), "drop_martian", note=src)
    return [
        Story("v6_dsr", "dsr-v6", "IPv6, direct server return: two MAC addresses and nothing else.")
        .step(first, "forward", dsr(first))
        .step(second, "forward", dsr(second, B2_MAC))
        .step(dns, "forward", dsr(dns)),
        Story("v6_nat", "nat-v6", "Destination there, source back; the hop limit; one sum, no header's.")
        .step(first, "forward", nat_v6(first), out_arm=1)
        .step(reply, "reply", nat_reply_v6(reply), arm=1)
        .step(dns, "forward", nat_v6(dns, dport=5300), out_arm=1)
        .step(answer, "reply", nat_reply_v6(answer, sport=53), arm=1),
        Story(
            "v6_extensions", "nat-v6", "The headers between IPv6's and TCP's are kept (RFC 8200 section 4)."
        )
        .step(chain, "forward", nat_v6(chain), out_arm=1)
        .step(
            whole, "forward", nat_v6(whole, B2_V6, mac=B2_MAC), out_arm=1, note="an atomic fragment: RFC 6946"
        ),
        Story("v6_refused", "nat-v6", "What is no segment or datagram, or cannot be read.")
        .step(fixed(to_vip_v6(ICMPv6EchoReply())), "drop_protocol")
        .step(fixed(to_vip_v6(ICMPv6ND_NS(tgt=VIP_V6), hlim=255)), "pass_nd", note="the responder answers it")
        .step(
            fixed(to_vip_v6(syn(), IPv6ExtHdrRouting(addresses=["2001:db8::9"]))),
            "drop_protocol",
            note="its checksum is for another destination",
        )
        .step(fixed(to_vip_v6(syn(), *[options] * 7)), "drop_ip_extensions", note="more than six")
        .step(bytes(short), "drop_ip_extensions")
        .step(bytes(first)[:53], "drop_short")
        .step(fixed(to_vip_v6(syn(), version=4)), "drop_ip_version")
        .step(fixed(to_vip_v6(syn(), plen=200)), "drop_ip_length")
        .step(fixed(to_vip_v6(syn(), hlim=1)), "drop_ttl"),
        martians,
    ]


def _echo() -> list[Story]:
    body = Raw(bytes(range(57)))
    ping = fixed(to_vip(ICMP(id=7, seq=1) / body, ttl=3, options=b"\x94\x04\x00\x00"))
    pong = fixed(
        Ether(src=OUR_MAC, dst=CLIENT_MAC)
        / IP(src=VIP, dst=CLIENT, id=7, ttl=64, options=b"\x94\x04\x00\x00")
        / ICMP(type=0, id=7, seq=1)
        / body
    )
    zeros = fixed(to_vip(ICMP(id=0, seq=0) / Raw(bytes(56))))
    zeros_back = fixed(
        Ether(src=OUR_MAC, dst=CLIENT_MAC)
        / IP(src=VIP, dst=CLIENT, id=7, ttl=64)
        / ICMP(type=0, id=0, seq=0)
        / Raw(bytes(56))
    )
    ping_v6 = fixed(to_vip_v6(ICMPv6EchoRequest(id=7, seq=1, data=b"x" * 33), IPv6ExtHdrDestOpt(), hlim=3))
    pong_v6 = fixed(
        Ether(src=OUR_MAC, dst=CLIENT_MAC)
        / IPv6(src=VIP_V6, dst=CLIENT_V6, fl=0x12345, hlim=64)
        / IPv6ExtHdrDestOpt()
        / ICMPv6EchoReply(id=7, seq=1, data=b"x" * 33)
    )
    why = "A ping of the VIP is answered where it came from, with a TTL of its own (RFC 792)."
    return [
        Story("echo", "nat", why)
        .step(ping, "echo", pong)
        .step(zeros, "echo", zeros_back, note="of which the answer is all zeros, but for its checksum")
        .step(fixed(to_vip(ICMP() / body, src=VIP)), "drop_martian", note="in the VIP's own name")
        .step(fixed(to_vip(ICMP() / Raw(bytes(56)), flags="MF")), "drop_protocol"),
        Story("echo_v6", "dsr-v6", "The same for IPv6 (RFC 4443, section 4.2).")
        .step(ping_v6, "echo", pong_v6)
        .step(fixed(to_vip_v6(ICMPv6EchoRequest(), src="::")), "drop_martian"),
    ]


def _limits() -> list[Story]:
    def asks(mss: int, before: tuple[Any, ...] = (), **tcp: Any) -> Packet:
        options = [*before, ("MSS", mss), ("SAckOK", b""), ("WScale", 7)]
        return fixed(to_vip(syn(**filled(tcp, options=options))))

    def lowered(frame: Packet, mss: int, before: tuple[Any, ...] = ()) -> Packet:
        """With another MSS, and the TCP checksum computed anew."""
        out = frame.copy()
        out[TCP].options = [
            ("MSS", mss) if name == "MSS" else (name, value) for name, value in out[TCP].options
        ]
        del out[TCP].chksum
        return Ether(bytes(out))

    def answers(mss: int, **tcp: Any) -> Packet:
        options = [("MSS", mss), ("SAckOK", b"")]
        return fixed(from_backend(TCP(sport=8080, dport=41022, flags="SA", seq=5, ack=1001, options=options)))

    nothing = (("NOP", None),)
    large, odd = asks(1460), asks(1460, nothing)
    small = asks(1400, sport=41023)
    none = fixed(to_vip(syn(sport=41024, options=[("SAckOK", b"")])))
    ack = fixed(to_vip(TCP(sport=41022, dport=80, flags="A", seq=1001, options=[("MSS", 1460)])))
    broken = bytearray(bytes(asks(1460, (("SAckOK", b""),), sport=41025)))
    broken[L4 + 21] = 1  # an option of one byte, where two are the least
    v6 = fixed(to_vip_v6(syn(options=[("MSS", 1440)])))
    v6_answer = fixed(from_backend_v6(TCP(sport=8080, dport=41022, flags="SA", options=[("MSS", 1440)])))
    acl = Story("acl", "dsr-acl", "The longest prefix that covers the client decides; who is in none is out.")
    macs = iter((B1_MAC, B2_MAC, B3_MAC))
    for src, may in (
        ("10.77.0.1", True),
        ("10.66.0.1", False),
        ("10.66.255.255", False),
        ("10.67.0.0", True),
        ("10.66.7.8", False),
        ("10.66.7.9", True),
        ("10.66.7.10", False),
        ("11.0.0.0", False),
        ("9.255.255.255", False),
    ):
        frame = fixed(to_vip(syn(), src=src))
        out = dsr(frame, next(macs)) if may else None
        acl.step(frame, "forward" if may else "drop_acl", out, note=src)
    limits = Story(
        "limits", "nat-limits", "Two flows a client, three a service; what refuses one counts nowhere."
    )
    for src, sport, port, verdict in (
        ("10.77.0.1", 1, 80, "forward"),
        ("10.77.0.1", 2, 80, "forward"),
        ("10.77.0.1", 3, 80, "drop_client_flows"),
        ("10.77.0.2", 1, 80, "drop_martian"),
        ("10.77.0.3", 1, 80, "forward"),
        ("10.77.0.3", 2, 80, "drop_service_flows"),
        ("10.77.0.1", 3, 81, "forward"),
        ("10.77.0.1", 4, 81, "drop_client_rate"),
        ("10.77.0.3", 3, 81, "forward"),
        ("10.77.0.4", 1, 81, "drop_service_rate"),
    ):
        frame = fixed(to_vip(syn(sport=sport, dport=port), src=src))
        known = {("10.77.0.1", 1): B1_MAC, ("10.77.0.1", 2): B2_MAC, ("10.77.0.3", 3): B3_MAC}
        mac = known.get((src, sport), B1_MAC)
        to = {B1_MAC: B1, B2_MAC: B2, B3_MAC: "10.78.0.13"}
        # A refused flow is a turn too: the third turn was the one of the first that was refused.
        out = nat(frame, dst=to[mac], dport=port, mac=mac) if verdict == "forward" else None
        limits.step(frame, verdict, out, out_arm=1, note=f"{src} port {sport}")
    past = fixed(to_vip(TCP(sport=41030, dport=80, flags="S", dataofs=6) / Raw(b"\1\2\4\xffxx")))
    return [
        limits,
        Story("mss_dsr", "dsr-mss", "The MSS of a SYN is lowered, never raised, and its checksum follows.")
        .step(large, "forward", dsr(lowered(large, 1400)))
        .step(small, "forward", dsr(small, B2_MAC))
        .step(none, "forward", dsr(none, B3_MAC), note="no option: the default, which is smaller")
        .step(bytes(broken), "forward", dsr(Ether(bytes(broken))), note="a broken option ends the search")
        .step(ack, "forward", dsr(ack), note="no SYN: the option means nothing")
        .step(past, "forward", dsr(past, B2_MAC), note="an option that ends past the header ends the search"),
        Story("mss_nat", "nat-mss", "Both SYNs pass the balancer, and both are lowered (RFC 9293 3.7.1).")
        .step(large, "forward", nat(lowered(large, 1400)), out_arm=1)
        .step(answers(9000), "reply", nat_reply(lowered(answers(9000), 1400)), arm=1)
        .step(answers(536), "reply", nat_reply(answers(536)), arm=1),
        Story(
            "mss_odd", "nat-mss", "After one NOP the value lies across two words of the sum (RFC 1071)."
        ).step(odd, "forward", nat(lowered(odd, 1400)), out_arm=1),
        Story(
            "mss_partial", "nat-mss", "A partial checksum covers no option, so it does not change with one."
        ).step(partial_sum(large), "forward", nat_partial(lowered(large, 1400)), out_arm=1, csum_start=L4),
        Story("mss_v6", "nat-v6-mss", "The same for IPv6.")
        .step(v6, "forward", nat_v6(lowered(v6, 1220)), out_arm=1)
        .step(v6_answer, "reply", nat_reply_v6(lowered(v6_answer, 1220)), arm=1),
        acl,
    ]


def inside(frame: Packet) -> Packet:
    """What a tunnel carries: the client's packet with a TTL of one less."""
    packet: Packet = frame[IP].copy() if IP in frame else frame[IPv6].copy()
    if IP in frame:
        packet.ttl -= 1
        del packet.chksum
    else:
        packet.hlim -= 1
    return packet


def flow_number(packet: Packet) -> int:
    """The one's complement sum of addresses, IPv4 ones as ::ffff:a.b.c.d, and ports, if there are any."""
    words = b""
    for address in (packet.src, packet.dst):
        given = ip_address(address).packed
        words += given if len(given) == 16 else bytes(10) + b"\xff\xff" + given
    for l4 in (packet[kind] for kind in (TCP, UDP) if kind in packet):
        words += l4.sport.to_bytes(2, "big") + l4.dport.to_bytes(2, "big")
    total = sum(int.from_bytes(words[i : i + 2], "big") for i in range(0, len(words), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def in_front(
    frame: Packet, version: int, source: str = "", ttl: int = 64, l4: Packet | None = None, number_of: int = 0
) -> Packet:
    """The frame in a tunnel to b1; scapy computes every length and checksum. `l4`: UDP and GUE.

    `number_of`: of a fragment that routers may cut, how many the balancer has numbered, this one included.
    """
    packet, number = inside(frame), flow_number(frame.payload)
    is_v4 = isinstance(packet, IP)
    traffic_class = packet.tos if is_v4 else packet.tc
    if version == 4:
        df = not is_v4 or bool(packet.flags.DF)
        ident = 0 if df else (number_of * 0x9E37 if number_of else packet.id + number) & 0xFFFF
        src = source or "10.78.0.2"
        outer: Packet = IP(src=src, dst=B1, ttl=ttl, tos=traffic_class, id=ident, flags="DF" * df)
        outer.proto = 17 if l4 else 4 if is_v4 else 41
    else:
        outer = IPv6(src="2001:db8:78::2", dst=B1_V6, hlim=ttl, tc=traffic_class, fl=number)
        outer.nh = 17 if l4 else 4 if is_v4 else 41
    made = outer / l4 / Raw(bytes(packet)) if l4 else outer / Raw(bytes(packet))
    return Ether(src=OUR_MAC, dst=B1_MAC) / made


def gue(frame: Packet, version: int, dport: int = 6080, **more: Any) -> Packet:
    """The same with UDP, whose checksum is 0 over IPv4, and GUE: one word, the second byte the protocol."""
    protocol = 4 if IP in frame else 41
    sport = 49152 + flow_number(frame.payload) % 16384
    l4 = UDP(sport=sport, dport=dport, chksum=0) if version == 4 else UDP(sport=sport, dport=dport)
    return in_front(frame, version, l4=l4 / Raw(bytes([0, protocol, 0, 0])), **more)


def _tunnels() -> list[Story]:
    stories = []
    for name, to, tables in (("", to_vip, "tunnels"), ("_v6", to_vip_v6, "tunnels-v6")):
        marked = {"tos": 0xBA, "flags": "DF"} if not name else {"tc": 0xBB}
        first, second = fixed(to(syn())), fixed(to(syn(sport=41023), **marked))
        third, last = fixed(to(syn(dport=81))), fixed(to(syn(), **({"ttl": 2} if not name else {"hlim": 2})))
        over = {"ttl": 1} if not name else {"hlim": 1}
        why = "An IP header in front (RFC 2003, 2473, 4213); inside, a TTL of one less and nothing else."
        ipip = (
            Story("tunnel_ipip" + name, tables, why)
            .step(first, "forward", in_front(first, 4))
            .step(second, "forward", in_front(second, 4), note="DSCP, ECN and DF are copied outwards")
            .step(third, "forward", in_front(third, 6, ttl=3), note="in IPv6")
            .step(last, "forward", in_front(last, 4), note="the last TTL that goes on")
            .step(fixed(to(syn(), **over)), "drop_ttl")
        )
        dns, big = (fixed(to(UDP(sport=5353, dport=port) / Raw(b"query" * 9))) for port in (53, 54))
        tcp = fixed(to(syn(dport=54)))
        far = {"source": "10.78.0.99", "ttl": 9}
        gues = (
            Story("tunnel_gue" + name, tables, "UDP and GUE too; a checksum of the outer UDP only over IPv6.")
            .step(dns, "forward", gue(dns, 4, 19523, **far))
            .step(big, "forward", gue(big, 6))
            .step(tcp, "forward", gue(tcp, 6))
        )
        if not name:
            none = fixed(to(UDP(sport=5354, dport=54, chksum=0) / Raw(b"odd")))
            padded = bytes(Ether(bytes(tcp))) + b"\xa5" * 7
            gues.step(none, "forward", gue(none, 6), note="no checksum inside: all of it is added up")
            gues.step(padded, "forward", bytes(gue(tcp, 6)) + b"\xa5" * 7, note="padding stays padding")
            gues.step(partial_sum(tcp), "forward", gue(tcp, 6), csum_start=L4, note="completed")
            ipip.step(partial_sum(first), "forward", in_front(first, 4), csum_start=L4, note="completed")
            odd = bytearray(bytes(none) + b"xyz")  # the datagram ends before the packet does
            odd[16:18] = (len(odd) - 14).to_bytes(2, "big")
            odd[24:26] = bytes(2)
            cut = Ether(bytes(odd))
            cut[IP].chksum = None
            cut[UDP].chksum = 0x1234
            cut = Ether(bytes(cut))
            gues.step(cut, "forward", gue(cut, 6), note="bytes after the datagram: all of it is added up")
        stories += [ipip, gues]
    return stories


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.vectors import errors, paths, pieces, resets, sizes, tags

    made = [
        *_forwarding(),
        *_schedulers(),
        *_checksum_zero(),
        *_refused(),
        *_v6(),
        *_echo(),
        *_limits(),
        *_fullnat(),
        *_tunnels(),
    ]
    made += sizes.stories() + errors.stories() + pieces.stories() + resets.stories()
    made += paths.stories()
    for story in made + tags.stories(made):
        story.write()
        print(story.name)
