"""What the host says: interfaces, capabilities, limits; for error texts and for checks before a call.

Lives here: small questions to the kernel. Must not live here: what follows
from the answers (errors.py).
"""

from __future__ import annotations

import fcntl
import mmap
import os
import resource
import socket
import struct
import sys
from array import array
from errno import EBUSY, EEXIST, ENODEV
from pathlib import Path
from typing import Final

from l4raw.xdp.errors import Facts, Operation, XdpError, explain
from l4raw.xdp.native import ffi, lib

_SIOCGIFMTU: Final = 0x8921
_SIOCETHTOOL: Final = 0x8946
_ETHTOOL_GDRVINFO: Final = 0x03
_ETHTOOL_GCHANNELS: Final = 0x3C
_CHANNELS: Final = struct.Struct("=9I")
"""struct ethtool_channels: command; the most rx, tx, other, combined; then those that are set."""
_DRVINFO_SIZE: Final = 196
_IFREQ: Final = 40
_CAPABILITIES: Final = {
    "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13,
    "CAP_IPC_LOCK": 14,
    "CAP_SYS_ADMIN": 21,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}
_VETH_ROOM: Final = 256 + 320 + 14
"""Of a page on veth: XDP_PACKET_HEADROOM, struct skb_shared_info, Ethernet header (drivers/net/veth.c)."""


def index(interface: str) -> int:
    """The interface's index in this thread's network namespace. Raises `XdpError` (ENODEV)."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        cause, step = explain(ENODEV, Operation.BIND, Facts())
        error = XdpError(ENODEV, "looking for an interface", interface=interface, cause=cause, next_step=step)
        raise error from None


def namespace() -> int:
    """The inode number of this thread's network namespace."""
    return os.stat("/proc/thread-self/ns/net").st_ino


def capabilities() -> frozenset[str]:
    """The capabilities in effect for this thread, as far as this package needs any.

    For bpf(2), CAP_SYS_ADMIN stands for CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN.
    """
    status = Path("/proc/thread-self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    bits = int(line.split()[1], 16)
    found = {name for name, bit in _CAPABILITIES.items() if bits >> bit & 1}
    if "CAP_SYS_ADMIN" in found:
        found |= {"CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"}
    return frozenset(found)


def mtu(interface: str) -> int | None:
    """The interface's MTU in bytes, or None."""
    try:
        answer = _ioctl(_SIOCGIFMTU, interface, bytes(4))
    except OSError:
        return None
    return int.from_bytes(answer[16:20], sys.byteorder)


def rx_queues(interface: str) -> int | None:
    """How many RX queues the interface has now, or None."""
    request = array("B", _CHANNELS.pack(_ETHTOOL_GCHANNELS, *[0] * 8))
    if not _ethtool(interface, request):
        return None
    values = _CHANNELS.unpack(request)
    return int(values[5] + values[8]) or None


def is_veth(interface: str) -> bool:
    """Whether the interface is a veth."""
    request = array("B", struct.pack("=I", _ETHTOOL_GDRVINFO).ljust(_DRVINFO_SIZE, b"\0"))
    return _ethtool(interface, request) and request[4:36].tobytes().rstrip(b"\0") == b"veth"


def bpf_file_system() -> str | None:
    """Where libxdp looks for a BPF file system, when there is none; None when there is."""
    path = os.environ.get("LIBXDP_BPFFS", "/sys/fs/bpf")
    try:
        device = os.stat(path).st_dev
    except OSError:
        return path
    here = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, kind = line.partition(" - ")
        if mount.split()[2] == here and kind.split()[0] == "bpf":
            return None
    return path


def failure(
    number: int,
    operation: Operation,
    interface: str | None = None,
    queue: int | None = None,
    *,
    umem_bytes: int = 0,
    said: str = "",
) -> XdpError:
    """The error for a failed call, with the host's numbers in it."""
    known = interface is not None
    veth = known and is_veth(interface or "")
    facts = Facts(
        interface=interface,
        queue=queue,
        capabilities=capabilities(),
        umem_bytes=umem_bytes,
        memlock=resource.getrlimit(resource.RLIMIT_MEMLOCK)[0],
        mtu=mtu(interface or "") if known else None,
        largest_mtu=mmap.PAGESIZE - _VETH_ROOM if veth else None,
        rx_queues=rx_queues(interface or "") if known else None,
        attached=attached(interface or "") if known and number in (EBUSY, EEXIST) else "",
        said=said,
    )
    cause, step = explain(number, operation, facts)
    return XdpError(number, operation, interface=interface, queue=queue, cause=cause, next_step=step)


def attached(interface: str) -> str:
    """The XDP program on the interface in words, such as "program 17 'filter' (generic)"; "" for none."""
    found = ffi.new("struct lx_attached *")
    if lib.lx_attached(index(interface), found) or not found.id:
        return ""
    name = ffi.string(found.name).decode(errors="replace")
    named = f" '{name}'" if name else ""
    return f"program {found.id}{named}" + (" (generic)" if found.generic else "")


def _ioctl(number: int, interface: str, argument: bytes) -> bytes:
    """ioctl(2) with a struct ifreq (netdevice(7)). Raises OSError."""
    request = interface.encode()[:15].ljust(16, b"\0") + argument
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        return fcntl.ioctl(any_socket.fileno(), number, request.ljust(_IFREQ, b"\0"))


def _ethtool(interface: str, request: array[int]) -> bool:
    """Ask the driver; whether it answered. The answer is in `request`."""
    try:
        _ioctl(_SIOCETHTOOL, interface, struct.pack("@P", request.buffer_info()[0]))
    except OSError:
        return False
    return True
