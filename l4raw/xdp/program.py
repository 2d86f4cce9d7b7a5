"""XDP programs: opening and loading an object with libbpf, trying it, attaching it.

Must not live here: what the program does, the sockets it redirects to, and
its place on an interface (link.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from errno import EEXIST, EINTR, ENOENT, ENOEXEC
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from l4raw.xdp import host
from l4raw.xdp.errors import Operation, XdpError
from l4raw.xdp.link import DispatchedLink, Mode, XdpLink, text_of
from l4raw.xdp.maps import BpfMap, XskMap
from l4raw.xdp.native import require

TRIAL_ROOM = 256
"""Bytes by which a trial may make a frame longer."""


def wait_for_programs() -> None:
    """Return when no run of an XDP program that had begun before is still under way.

    What such a run may have read in a map can be written over then. It is an RCU grace period, some
    milliseconds (membarrier(2), MEMBARRIER_CMD_GLOBAL). Raises `OSError` where the kernel has none.
    """
    _, lib = require()
    if error := lib.lx_wait_for_programs():
        raise OSError(-error, f"membarrier: {os.strerror(-error)}")


class Ran(NamedTuple):
    """What a program did with a frame in a trial."""

    action: int
    """enum xdp_action: 0 aborted, 1 drop, 2 pass, 3 TX, 4 redirect."""
    frame: bytes
    """As the program left it."""
    ns: int
    """Nanoseconds a call, on average."""


class XdpProgram:
    """A BPF object with an XDP program in it. A context manager.

    `source`: a path, or the object file's bytes. `name`: of the program's
    function; the first of the object unless given. It is loaded when a map, the descriptor or
    attach() first needs it. Closing it closes its maps, not its links.
    `entries`: how many a map of that name has, other than its C says.

    Raises `XdpError`: ENOENT for a path or a name that is not there, ENOEXEC
    for bytes that are no BPF object, ENOSYS when the compiled part is missing;
    on loading EPERM naming the capability, EACCES or EINVAL with what the
    verifier said.
    """

    def __init__(
        self,
        source: bytes | str | os.PathLike[str],
        name: str | None = None,
        entries: Mapping[str, int] | None = None,
    ) -> None:
        self._object: Any = None
        self._ffi, self._lib = require()
        self._name = name
        self._loaded = False
        self._log = self._ffi.new("struct lx_log *")
        self._dispatched: list[DispatchedLink] = []
        content = source if isinstance(source, bytes) else _read(Path(source))
        found = self._ffi.new("struct bpf_object **")
        error = self._lib.lx_object_open(content, len(content), found, self._log)
        if error:
            # libbpf has numbers of its own from 4000 on (LIBBPF_ERRNO__FORMAT).
            number = ENOEXEC if -error >= 4000 else -error
            raise host.failure(number, Operation.OPEN, said=self._said())
        self._object = found[0]
        for each in self._each_map():
            wanted = (entries or {}).get(self._ffi.string(self._lib.bpf_map__name(each)).decode())
            if wanted and (error := self._lib.bpf_map__set_max_entries(each, wanted)):
                raise host.failure(-error, Operation.OPEN, said=self._said())

    @property
    def name(self) -> str:
        """Of the program's function, or "the first program"."""
        return self._name or "the first program"

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._object is None

    @cached_property
    def maps(self) -> dict[str, BpfMap]:
        """The maps by name; an XSKMAP is an `XskMap`. Loads the program. Raises `XdpError`."""
        self._load()
        found: dict[str, BpfMap] = {}
        for each in self._each_map():
            kind = XskMap if self._lib.lx_map_is_xskmap(each) else BpfMap
            one = kind(self, each)
            found[one.name] = one
        return found

    def _each_map(self) -> Iterator[Any]:
        each = self._lib.bpf_object__next_map(self._object, self._ffi.NULL)
        while each != self._ffi.NULL:
            yield each
            each = self._lib.bpf_object__next_map(self._object, each)

    def fileno(self) -> int:
        """The program's descriptor. Loads it. Raises `XdpError`."""
        self._load()
        name = self._ffi.NULL if self._name is None else self._ffi.new("char[]", self._name.encode())
        found = self._lib.lx_object_program(self._object, name)
        if found < 0:
            cause = f"the object has no program {self.name}"
            raise XdpError(-found, Operation.LOAD, cause=cause)
        return int(found)

    def attach(self, interface: str, mode: Mode = "native") -> XdpLink:
        """Attach by a BPF link (BPF_XDP), which ends with its descriptor.

        A program that someone else attached stays, and this fails. Native mode
        on a veth turns off TSO at its peer. Generic mode receives super-frames
        that are longer than a chunk; nothing falls back to it.

        Raises `XdpError`: EBUSY or EEXIST naming the program that is there,
        EOPNOTSUPP without native mode, ERANGE for an MTU that is too large,
        ENOSPC on a veth with fewer RX queues than its peer has TX queues, ENODEV.
        """
        index = host.index(interface)
        _check_mode(mode)
        link = self._lib.lx_link_create(self.fileno(), index, mode == "generic")
        if link < 0:
            raise host.failure(-link, Operation.ATTACH, interface)
        return XdpLink(self, interface, mode, link)

    def attach_with_dispatcher(self, interface: str, mode: Mode = "native") -> XdpLink:
        """Attach beside others through libxdp's dispatcher (libxdp, protocol.org).

        Needs a BPF file system, and a kernel that loads freplace programs; the
        program must not have been loaded before. It is pinned: it stays on the
        interface if this process is killed.

        Raises `XdpError`: ENOENT without a BPF file system, EOPNOTSUPP where
        only one program could be attached (it is detached again), EBUSY or
        EEXIST for a program that is no dispatcher's, and as attach() does.
        """
        index = host.index(interface)
        _check_mode(mode)
        self._check_open()
        if self._loaded:
            cause = "the program was loaded on its own, by `maps`, `fileno()` or `attach()`"
            raise XdpError(EEXIST, Operation.DISPATCH, interface=interface, cause=cause)
        if (place := host.bpf_file_system()) is not None:
            raise host.failure(ENOENT, Operation.DISPATCH, interface, said=place)
        found = self._ffi.new("struct xdp_program **")
        name = self._ffi.NULL if self._name is None else self._ffi.new("char[]", self._name.encode())
        error = self._lib.lx_dispatcher_attach(self._object, name, index, mode == "generic", found, self._log)
        if error:
            raise host.failure(-error, Operation.DISPATCH, interface, said=self._said())
        self._loaded = True
        link = DispatchedLink(self, interface, mode, index, found[0])
        self._dispatched.append(link)
        return link

    def run(self, frame: bytes, repeat: int = 1) -> Ran:
        """Try the program on a frame, which goes nowhere (BPF_PROG_RUN). Loads it. Raises `XdpError`."""
        out = self._ffi.new("char[]", len(frame) + TRIAL_ROOM)
        done = self._run(frame, repeat, out=out, out_size=len(out))
        if done is None:
            raise host.failure(EINTR, Operation.RUN)
        return Ran(done.action, bytes(self._ffi.buffer(out, done.out_size)), done.duration_ns)

    def run_live(self, frame: bytes, repeat: int, batch: int = 64) -> bool:
        """Do what the program says with `repeat` frames that begin as `frame`, for instance send them.

        Interfaces are those of this thread's network namespace. The program
        may find a frame as it left one before. They are flushed every
        `batch`, at most 256. False when a signal ended it. A call takes some
        20 ms more than its frames. Raises `XdpError`. Linux 5.18,
        BPF_F_TEST_XDP_LIVE_FRAMES.
        """
        return self._run(frame, repeat, batch=batch) is not None

    def _run(self, frame: bytes, repeat: int, **more: Any) -> Any:
        data = self._ffi.from_buffer(frame)
        run = self._ffi.new("struct lx_run *", {"frame": data, "size": len(frame), "repeat": repeat, **more})
        error = -self._lib.lx_program_run(self.fileno(), run)
        if error and error != EINTR:
            raise host.failure(error, Operation.RUN)
        return None if error else run

    def close(self) -> None:
        """Close the descriptors of program and maps. Links of attach() keep the program running."""
        if self._object is None:
            return
        for link in self._dispatched:
            link.close()
        self._lib.bpf_object__close(self._object)
        self._object = None

    def _load(self) -> None:
        self._check_open()
        if self._loaded:
            return
        error = self._lib.lx_object_load(self._object, self._log)
        if error:
            raise host.failure(-error, Operation.LOAD, said=self._said())
        self._loaded = True

    def _check_open(self) -> None:
        if self._object is None:
            raise ValueError("the program is closed")

    def _said(self) -> str:
        return text_of(self._ffi, self._log)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def _read(path: Path) -> bytes:
    """The file's bytes. Raises `XdpError`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise XdpError(error.errno or ENOENT, Operation.OPEN, cause=str(path)) from None


def _check_mode(mode: str) -> None:
    if mode not in ("native", "generic"):
        raise ValueError(f"mode {mode!r}: 'native' or 'generic'")
