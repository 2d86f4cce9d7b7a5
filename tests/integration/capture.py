"""What was on the wire: tcpdump on a host's interface, and when the wire is at rest.

Lives here: captures that are complete from the first frame to the last. Must
not live here: what a test expects of them.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from l4raw.netns import Host, Topology
from l4raw.netns.process import temporary_folder
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.utils import RawPcapReader

DEADLINE = 10.0
DISCARD = 9
"""Port: RFC 863."""
SNAP = 2048
MARKER = b"l4raw: end of a capture "
AT_REST = {"06", "0A"}
"""TIME_WAIT and LISTEN in /proc/net/tcp (include/net/tcp_states.h): these send nothing by themselves."""


@dataclass
class Capture:
    """The IP frames of one version that an interface received and sent, in order; complete after `capturing`.

    Of a frame longer than SNAP, a super-frame, the first SNAP bytes.
    """

    mac: str
    """Of the host's interface."""
    frames: list[bytes] = field(default_factory=list)
    _dissected: list[Ether] = field(default_factory=list)

    def packets(self) -> list[Ether]:
        """All frames, dissected; the same objects each time, as that takes a while: not to be changed."""
        if len(self._dissected) != len(self.frames):
            self._dissected = [Ether(frame) for frame in self.frames]
        return list(self._dissected)

    def between(self, source: str, destination: str) -> list[Ether]:
        """Frames from one address to another."""
        layer = IPv6 if ":" in source else IP
        found = [packet for packet in self.packets() if layer in packet]
        return [p for p in found if (p[layer].src, p[layer].dst) == (source, destination)]

    def received(self) -> list[Ether]:
        """Frames for this host's MAC address."""
        return [p for p in self.packets() if p.dst == self.mac]


@contextmanager
def capturing(host: Host, interface: str = "eth0", version: int = 4) -> Iterator[Capture]:
    """Capture all IP of one version on an interface of `host` for as long as the context lasts.

    Without a gap: it has begun when the context is entered. At its end, a broadcast is sent
    and waited for in the file: whatever was on the wire before it is there too.
    """
    link = next(link for link in host.links if link.interface == interface)
    found = Capture(link.mac)
    with temporary_folder("l4raw-capture-") as folder:
        file, said = folder / "pcap", folder / "stderr"
        argv = ["tcpdump", "-i", interface, "-n", "-U", "--immediate-mode"]
        # Each slot of the buffer, here of 16 MiB, is as large as the longest frame.
        argv += ["-s", str(SNAP), "-B", "16384"]
        with said.open("w") as errors:
            # Debian's tcpdump would write as a user who may not write here.
            process = host.popen(
                [*argv, "-Z", "root", "-w", str(file), "ip" if version == 4 else "ip6"], stderr=errors
            )
        wait_for(lambda: "listening on" in said.read_text(), "tcpdump listens", process)
        yield found
        marker = MARKER + os.urandom(16)
        (_broadcast if version == 4 else _to_all_nodes)(host, interface, marker)
        wait_for(lambda: marker in file.read_bytes(), "the marker is in the capture", process)
        host.end(process)
        summary = said.read_text()
        assert re.search(r"^0 packets dropped by kernel", summary, re.MULTILINE), summary
        found.frames = [frame for frame, _ in RawPcapReader(str(file)) if MARKER not in frame]


def _broadcast(host: Host, interface: str, payload: bytes) -> None:
    """To a port on which nobody listens; nobody answers a broadcast with an error (RFC 1122 3.2.2)."""
    with host.enter():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        sender.sendto(payload, ("255.255.255.255", DISCARD))


def _to_all_nodes(host: Host, interface: str, payload: bytes) -> None:
    """The same for IPv6 (RFC 4443 2.4 (e))."""
    with host.enter():
        sender = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        index = socket.if_nametoindex(interface)
    with sender:
        sender.sendto(payload, ("ff02::1", DISCARD, 0, index))


def wait_for(
    condition: Callable[[], object], what: str, process: subprocess.Popen[str] | None = None
) -> None:
    """Return once the condition holds; fail after DEADLINE, or when `process` has ended."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert process is None or process.poll() is None, f"ended before: {what}"
        assert time.monotonic() < deadline, f"not within {DEADLINE:g} s: {what}"
        time.sleep(0.01)


def wait_until_quiet(network: Topology) -> None:
    """Return when no TCP connection has anything left to say and the balancer has read every frame."""

    def quiet() -> bool:
        ends = [network.client, *network.backends]
        states = {row.split()[3] for host in ends for table in ("tcp", "tcp6") for row in _rows(host, table)}
        # packet(7) sockets; field 6 is Rmem, the bytes that wait to be read.
        waiting = sum(int(row.split()[6]) for row in _rows(network.balancer, "packet"))
        return states <= AT_REST and not waiting

    wait_for(quiet, "all connections are closed and all frames read")


def _rows(host: Host, table: str) -> list[str]:
    return Path(f"/proc/{host.pid}/net/{table}").read_text().splitlines()[1:]


def kernel_counter(host: Host, group: str, name: str) -> int:
    """A counter of /proc/net/snmp, such as Ip, ForwDatagrams."""
    names, values = (
        line.split() for line in Path(f"/proc/{host.pid}/net/snmp").read_text().splitlines()
        if line.startswith(f"{group}:")
    )  # fmt: skip
    return int(values[names.index(name)])


def checksums_are_right(frame: Ether) -> bool:
    """Whether the IPv4 checksum, if there is one, and that of TCP or UDP are what scapy computes anew."""
    again = frame.copy()
    for layer in (IP, TCP, UDP):
        if layer in again:
            del again[layer].chksum
    made = bytes(again)
    # Zero has two forms (RFC 1071 section 1), and Linux writes this one also for TCP when it finishes a sum.
    if TCP in frame and frame[TCP].chksum == 0xFFFF and Ether(made)[TCP].chksum == 0:
        again[TCP].chksum = 0xFFFF
        made = bytes(again)
    return made == bytes(frame)
