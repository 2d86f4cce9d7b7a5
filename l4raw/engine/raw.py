"""The raw engine: AF_PACKET sockets in plain Python (packet(7)).

A packet socket is a tap: it gets a copy of each frame, and the kernel keeps
its own. So this engine takes nothing away from the host; that the kernel
does not act on its copy too is the business of control/guard.py.

Frames come and go with a virtio-net header in front (PACKET_VNET_HDR). It
says what a sender on this machine left undone: a checksum to be completed,
a super-frame of up to 64 KiB to be cut into segments. Sending it along
unchanged passes that work on to whoever can do it. Without it, a veth at its
defaults would hand us frames with wrong sums and none that is longer than
the MTU could be sent.

     0      1         2         4         6           8             10
     +------+---------+---------+---------+-----------+-------------+-------
     |flags |gso_type | hdr_len |gso_size |csum_start |csum_offset  | frame
     +------+---------+---------+---------+-----------+-------------+-------
     (struct virtio_net_hdr of <linux/virtio_net.h>, host byte order)

A frame's 802.1Q tag is not in it: the kernel has taken it out and keeps it
beside the frame (PACKET_AUXDATA). It is put back before anybody sees the
frame, so that it leaves as it came. Frames that still have a tag after that had
two, and are not let in.
"""

from __future__ import annotations

import errno
import select
import socket
import sys
from collections.abc import Iterator, Sequence
from ctypes import addressof, create_string_buffer
from struct import Struct
from typing import Final, Self

from l4raw.core.tables import Arm
from l4raw.engine.base import Received
from l4raw.wire import ethernet
from l4raw.wire.abi import BURST

# <linux/if_packet.h>; the socket module has none of these.
SOL_PACKET: Final = 263
_PACKET_STATISTICS: Final = 6
_PACKET_AUXDATA: Final = 8
_PACKET_VNET_HDR: Final = 15
PACKET_IGNORE_OUTGOING: Final = 23
_ETH_P_ALL: Final = 3

_VNET_HEADER: Final = 10
_NEEDS_CSUM: Final = 1
_WHOLE: Final = bytes(_VNET_HEADER)
"""The header of a frame of which nothing is left undone."""
_U16: Final = Struct("=H")
_HEADERS_LENGTH: Final = 2
_GSO_SIZE: Final = 4
_CSUM_START: Final = 6
"""Where in the header it says where in the frame the sum begins, which is its transport header."""
_GONE: Final = frozenset({errno.EBADF, errno.ENODEV, errno.ENXIO})
_BUFFER: Final = 1 << 17
"""A super-frame has up to 65,535 bytes of IPv4 datagram."""
_SOCKET_BUFFER: Final = 8 << 20
"""Bytes, for a burst of super-frames while Python is elsewhere."""

# <asm-generic/socket.h>
_SO_ATTACH_FILTER: Final = 26
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33

# Classic BPF, as <linux/filter.h> has it: (code, jump if true, jump if false, operand).
# Frames for other machines, frames with another tag than that of 802.1Q and
# what is not IP never wake us.
_LOAD_BYTE: Final = 0x30
_LOAD_HALF: Final = 0x28
_JUMP_IF_EQUAL: Final = 0x15
_RETURN: Final = 0x06
_EXTRA: Final = 0x1_0000_0000 - 0x1000  # SKF_AD_OFF
_FILTER: Final = (
    (_LOAD_BYTE, 0, 0, _EXTRA + 4),  # SKF_AD_PKTTYPE
    (_JUMP_IF_EQUAL, 0, 8, socket.PACKET_HOST),
    (_LOAD_BYTE, 0, 0, _EXTRA + 48),  # SKF_AD_VLAN_TAG_PRESENT
    (_JUMP_IF_EQUAL, 2, 0, 0),
    (_LOAD_HALF, 0, 0, _EXTRA + 60),  # SKF_AD_VLAN_TPID
    (_JUMP_IF_EQUAL, 0, 4, ethernet.VLAN),
    (_LOAD_HALF, 0, 0, ethernet.TYPE),
    (_JUMP_IF_EQUAL, 1, 0, ethernet.IPV4),
    (_JUMP_IF_EQUAL, 0, 1, ethernet.IPV6),
    (_RETURN, 0, 0, 0xFFFF_FFFF),
    (_RETURN, 0, 0, 0),
)
# struct tpacket_auxdata of <linux/if_packet.h>, in a control message.
_AUXDATA: Final = Struct("=I12xHH")
_AUXDATA_ROOM: Final = socket.CMSG_SPACE(_AUXDATA.size)
_TAG_IS_VALID: Final = 1 << 4
_TAG: Final = Struct("!HH")

_INSTRUCTION: Final = Struct("=HBBI")
_PROGRAM: Final = Struct("@HP")


class RawEngine:
    """Receives on and sends from packet sockets, one for each arm.

    Needs CAP_NET_RAW in the network namespace, and nothing else of the host.
    """

    def __init__(self, arms: Sequence[Arm]) -> None:
        self._arms = tuple(arms)
        self._sockets: list[socket.socket] = []
        self._epoll: select.epoll | None = None
        self._by_fd: dict[int, tuple[int, socket.socket]] = {}
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._lost = 0
        self._unreadable = 0

    def open(self) -> Self:
        """Open a socket for each arm; raises `OSError` with the interface's name and the operation."""
        self._epoll = select.epoll()
        for number, arm in enumerate(self._arms):
            try:
                sock = _packet_socket(arm.name)
            except OSError as error:
                self.close()
                raise OSError(error.errno, f"opening a packet socket: {error.strerror}", arm.name) from error
            self._sockets.append(sock)
            self._by_fd[sock.fileno()] = number, sock
            self._epoll.register(sock.fileno(), select.EPOLLIN)
        return self

    def poll(self, timeout: float) -> Iterator[Received]:
        """Frames that have arrived; each is valid until the next is taken, since all share one buffer."""
        buffer, view = self._buffer, self._view
        into = [view[ethernet.TAG_LENGTH :]]
        assert self._epoll is not None, "open() comes first"
        for fd, _ in self._epoll.poll(timeout):
            arm, sock = self._by_fd[fd]
            receive = sock.recvmsg_into
            for _ in range(BURST):
                try:
                    size, beside, _, _ = receive(into, _AUXDATA_ROOM)
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno in _GONE:
                        what = f"receiving: {error.strerror}"
                        raise OSError(error.errno, what, self._arms[arm].name) from error
                    # ENETDOWN comes once and frames again when it is up. EINVAL: the kernel has thrown
                    # away a super-frame of a kind that it cannot describe. No sender may stop us.
                    self._unreadable += 1
                    break
                start = ethernet.TAG_LENGTH
                if (tci := _tag_beside(beside)) is not None:
                    put_back(buffer, tci)
                    start = 0
                packet = view[start : ethernet.TAG_LENGTH + size]
                csum_start = _U16.unpack_from(packet, _CSUM_START)[0] if packet[0] & _NEEDS_CSUM else 0
                segment = _U16.unpack_from(packet, _GSO_SIZE)[0] if packet[1] else 0
                yield Received(packet[_VNET_HEADER:], arm, csum_start, packet, segment)

    def send(self, received: Received, arm: int, made: bytes | None = None) -> bool:
        """Send with the virtio-net header that the frame came with, or a frame of our own, which is whole."""
        try:
            self._sockets[arm].send(received.packet if made is None else _WHOLE + made)
        except OSError:
            # EAGAIN, ENOBUFS: no room. ENETDOWN. EMSGSIZE, EINVAL: this frame does not fit this
            # interface. None of them may stop a balancer, least of all one that a sender can cause.
            return False
        return True

    def close(self) -> None:
        """Close the sockets."""
        self._by_fd.clear()
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None
        while self._sockets:
            self._sockets.pop().close()

    def statistics(self) -> dict[str, int]:
        """`receive_lost`: dropped by the kernel because we did not read fast enough. `receive_unreadable`:
        errors of the socket, such as a link that went down or a super-frame it cannot describe.
        """
        for sock in self._sockets:
            # struct tpacket_stats: frames, drops; reading resets them.
            self._lost += int.from_bytes(
                sock.getsockopt(SOL_PACKET, _PACKET_STATISTICS, 8)[4:8], sys.byteorder
            )
        return {"receive_lost": self._lost, "receive_unreadable": self._unreadable}


def _tag_beside(messages: Sequence[tuple[int, int, bytes]]) -> int | None:
    """The TCI of the tag that the kernel has taken out of a frame, by its control messages; None: of none."""
    for _, _, data in messages:
        status, tci, _ = _AUXDATA.unpack(data)
        if status & _TAG_IS_VALID:
            return int(tci)
    return None


def put_back(buffer: bytearray, tci: int) -> None:
    """Give a frame its 802.1Q tag again; `buffer` has room for one, a virtio-net header, and the frame."""
    macs = _VNET_HEADER + ethernet.TYPE
    buffer[:macs] = buffer[ethernet.TAG_LENGTH : ethernet.TAG_LENGTH + macs]
    _TAG.pack_into(buffer, macs, ethernet.VLAN, tci)
    for at, is_there in ((_CSUM_START, buffer[0] & _NEEDS_CSUM), (_HEADERS_LENGTH, buffer[1])):
        if is_there:
            _U16.pack_into(buffer, at, _U16.unpack_from(buffer, at)[0] + ethernet.TAG_LENGTH)


def attach_filter(sock: socket.socket, filter: Sequence[tuple[int, int, int, int]]) -> None:
    """Let in only frames for which a classic BPF program returns more than 0 (socket(7)). Raises OSError."""
    code = create_string_buffer(b"".join(_INSTRUCTION.pack(*line) for line in filter))
    program = _PROGRAM.pack(len(filter), addressof(code))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _packet_socket(interface: str) -> socket.socket:
    """A packet socket that receives frames of `interface` for this machine. Raises `OSError`."""
    # Protocol 0: nothing is received before the filter and the options are in place.
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        sock.setsockopt(SOL_PACKET, _PACKET_VNET_HDR, 1)
        sock.setsockopt(SOL_PACKET, _PACKET_AUXDATA, 1)
        sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        attach_filter(sock, _FILTER)
        for force, option in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
            try:
                sock.setsockopt(socket.SOL_SOCKET, force, _SOCKET_BUFFER)
            except PermissionError:  # CAP_NET_ADMIN of the host, which a user namespace does not give
                sock.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER)
        sock.bind((interface, _ETH_P_ALL))
    except OSError:
        sock.close()
        raise
    return sock
