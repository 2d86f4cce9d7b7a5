"""A program's place on an interface: a BPF link, or one in libxdp's dispatcher.

A link is not pinned: it is an open descriptor, so the program is off the
interface when this process ends, SIGKILL included. Must not live here: how a
program is loaded and attached (program.py).
"""

from __future__ import annotations

import os
import warnings
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from l4raw.xdp import host
from l4raw.xdp.errors import Operation
from l4raw.xdp.native import require

if TYPE_CHECKING:
    from l4raw.xdp.program import XdpProgram

Mode = Literal["native", "generic"]
"""In the driver, or in the stack behind it (XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE)."""


class XdpLink:
    """A program on an interface. A context manager; close() takes the program off."""

    def __init__(self, program: XdpProgram, interface: str, mode: Mode, descriptor: int) -> None:
        self.program = program
        self.interface = interface
        self.mode = mode
        self._descriptor = descriptor

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._descriptor < 0

    def fileno(self) -> int:
        """The link's descriptor (BPF_LINK_CREATE); -1 when closed, and for libxdp's dispatcher."""
        return self._descriptor

    def replace(self, program: XdpProgram) -> None:
        """Run `program` instead, from one frame to the next (BPF_LINK_UPDATE); it is loaded for that.

        Raises ValueError when closed, and for libxdp's dispatcher; `XdpError`, and then the old one stays.
        """
        if self._descriptor < 0:
            raise ValueError(f"{self!r} has no link whose program could be replaced")
        _, lib = require()
        if error := lib.lx_link_update(self._descriptor, program.fileno()):
            raise host.failure(-error, Operation.REPLACE, self.interface)
        self.program = program

    def close(self) -> None:
        """Take the program off the interface. May be called twice."""
        if not self.closed:
            os.close(self._descriptor)
        self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not self.closed:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            self.close()

    def __repr__(self) -> str:
        return f"<XdpLink {self.program.name} on {self.interface}, {'closed' if self.closed else self.mode}>"


class DispatchedLink(XdpLink):
    """A program in libxdp's dispatcher, beside others. It outlives this process if close() is not called."""

    def __init__(self, program: XdpProgram, interface: str, mode: Mode, index: int, cdata: Any) -> None:
        super().__init__(program, interface, mode, -1)
        self._ffi, self._lib = require()
        self._index = index
        self._cdata = cdata

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._cdata is None

    def close(self) -> None:
        """Take the program out of the dispatcher. Raises `XdpError` where libxdp cannot."""
        if self._cdata is None:
            return
        cdata, self._cdata = self._cdata, None
        log = self._ffi.new("struct lx_log *")
        error = self._lib.lx_dispatcher_detach(cdata, self._index, self.mode == "generic", log)
        if error:
            raise host.failure(-error, Operation.DETACH, self.interface, said=text_of(self._ffi, log))


def text_of(ffi: Any, log: Any) -> str:
    """What libbpf and libxdp said."""
    return str(ffi.string(log.text).decode(errors="replace"))
