"""BPF maps of a loaded program: keys and values as bytes; the XSKMAP with sockets as values.

Lives here: update, lookup, delete (bpf(2)). Must not live here: what a
program's map means.
"""

from __future__ import annotations

import mmap
import sys
from errno import ENOENT
from typing import TYPE_CHECKING, Any, Protocol

from l4raw.xdp import host
from l4raw.xdp.errors import Operation
from l4raw.xdp.native import require

if TYPE_CHECKING:
    from l4raw.xdp.xsk import XskSocket


class Owner(Protocol):
    """The program that a map belongs to."""

    @property
    def closed(self) -> bool: ...


class BpfMap:
    """A map of a program; usable until the program is closed.

    Keys and values are in the byte order and layout of the program's C.
    """

    def __init__(self, owner: Owner, cdata: Any) -> None:
        self._ffi, self._lib = require()
        self._owner = owner
        self._fd = int(self._lib.bpf_map__fd(cdata))
        self.name: str = self._ffi.string(self._lib.bpf_map__name(cdata)).decode()
        self.key_size = int(self._lib.bpf_map__key_size(cdata))
        """In bytes, as `value_size`."""
        self.value_size = int(self._lib.bpf_map__value_size(cdata))
        self.max_entries = int(self._lib.bpf_map__max_entries(cdata))

    def fileno(self) -> int:
        """The map's descriptor; it belongs to the program. Raises ValueError when that is closed."""
        if self._owner.closed:
            raise ValueError(f"the program of map {self.name} is closed")
        return self._fd

    def put(self, key: bytes, value: bytes) -> None:
        """Write an entry, new or not. Raises `XdpError`, E2BIG when the map is full."""
        self._check("key", key, self.key_size)
        self._check("value", value, self.value_size)
        if self._lib.bpf_map_update_elem(self.fileno(), key, value, 0):
            raise self._failure()

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None. Raises `XdpError`."""
        self._check("key", key, self.key_size)
        value = self._ffi.new("char[]", self.value_size)
        if not self._lib.bpf_map_lookup_elem(self.fileno(), key, value):
            return bytes(self._ffi.buffer(value))
        if self._ffi.errno == ENOENT:
            return None
        raise self._failure(Operation.READ)

    def mapping(self, size: int) -> mmap.mmap:
        """The first `size` bytes of the values, as memory that the program reads too.

        For an array with BPF_F_MMAPABLE; a value begins every 8 bytes or a
        multiple. It stays valid when the program is closed. Raises `XdpError`.
        """
        try:
            return mmap.mmap(self.fileno(), -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)
        except OSError as error:
            raise self._failure(Operation.MAP, error.errno or 0) from error

    def discard(self, key: bytes) -> bool:
        """Remove an entry; whether it was there. Raises `XdpError`."""
        self._check("key", key, self.key_size)
        if not self._lib.bpf_map_delete_elem(self.fileno(), key):
            return True
        if self._ffi.errno == ENOENT:
            return False
        raise self._failure()

    def _check(self, what: str, given: bytes, size: int) -> None:
        if len(given) != size:
            raise ValueError(f"map {self.name}: a {what} has {size} bytes, not {len(given)}")

    def _failure(self, operation: Operation = Operation.UPDATE, number: int = 0) -> OSError:
        error = host.failure(number or self._ffi.errno, operation)
        error.operation = f"{operation} {self.name}"
        return error

    def __repr__(self) -> str:
        sizes = f"{self.key_size} -> {self.value_size} bytes"
        return f"<{type(self).__name__} {self.name}: {sizes}, {self.max_entries} entries>"


class XskMap(BpfMap):
    """BPF_MAP_TYPE_XSKMAP: which socket a queue's frames are redirected to (af_xdp.rst, "XSKMAP").

    The kernel removes an entry when its socket closes. A socket only gets
    frames of its own interface and queue, whatever its place in the map.
    """

    def update(self, queue: int, socket: XskSocket) -> None:
        """Redirect what arrives on `queue` to `socket`. Raises ValueError, `XdpError`."""
        if socket.closed:
            raise ValueError("the socket is closed")
        self.put(self._key(queue), _u32(socket.fileno()))

    def delete(self, queue: int) -> None:
        """Redirect `queue` no longer, if it was. Raises ValueError, `XdpError`."""
        self.discard(self._key(queue))

    def _key(self, queue: int) -> bytes:
        if not 0 <= queue < self.max_entries:
            raise ValueError(f"map {self.name}: queues 0 to {self.max_entries - 1}, not {queue}")
        return _u32(queue)


def _u32(number: int) -> bytes:
    return number.to_bytes(4, sys.byteorder)
