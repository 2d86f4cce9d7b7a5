"""Run the bare AF_XDP loop of xdp_bare.c between two interfaces, until SIGTERM.

    xdp_bare.py IN OUT DST_MAC_AT_IN DST_MAC_AT_OUT

Prints `ready`, and at the end as JSON: `ports`, of each its frames, the kernel's XDP_STATISTICS, copy or
zero-copy; `cpu_share` (cpu_share below). Sizes are those of l4raw's engine.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from cffi import FFI
from l4raw.netns.process import temporary_folder

from l4raw.engine.afxdp import CHUNK, FRAMES
from l4raw.wire.abi import BURST
from l4raw.wire.ethernet import parse_mac
from l4raw.xdp import PassToSocket, Umem, XskSocket

RING: Final = FRAMES // 4
"""Descriptors of RX and TX; each port also lets the kernel have as many frames for receiving."""
SPINS: Final = 2000
"""Empty rounds, some 50 us, before poll() waits for at most 1 ms."""
HERE: Final = Path(__file__).parent


def compile_loop(folder: Path) -> tuple[FFI, Any]:
    """cffi's ffi and the compiled library, which may be deleted then. Raises CalledProcessError."""
    header = ["cc", "-E", "-P", "-DBARE_CDEF", str(HERE / "xdp_bare.h")]
    text = subprocess.run(header, capture_output=True, text=True, check=True).stdout
    library = folder / "xdp_bare.so"
    source = ["-std=c11", "-O2", "-fno-strict-aliasing", "-shared", "-fPIC", str(HERE / "xdp_bare.c")]
    subprocess.run(["cc", *source, "-o", str(library)], check=True)
    ffi = FFI()
    ffi.cdef(text)
    return ffi, ffi.dlopen(str(library))


def own_mac(interface: str) -> bytes:
    """The MAC address of an interface."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((interface, 0))
        mac: bytes = sock.getsockname()[4]
        return mac


def describe(ffi: FFI, umem: Umem, sockets: list[XskSocket], macs: list[bytes]) -> Any:
    """A `struct bare_loop` over two sockets of one UMEM; what it points to lives as long as they do."""
    here = umem.ffi_lib[0]

    def moved(kind: str, pointer: Any) -> Any:
        return ffi.cast(kind, int(here.cast("uintptr_t", pointer)))

    loop: Any = ffi.new("struct bare_loop *")
    loop.area, loop.frame_size = moved("uint8_t *", umem.cdata.area), umem.frame_size
    loop.burst, loop.spins = BURST, SPINS
    for port, sock, mac in zip(loop.ports, sockets, macs, strict=True):
        rings = sock.rings
        port.rx, port.tx = moved("void *", rings.rx), moved("void *", rings.tx)
        port.fill, port.completion = moved("void *", rings.fill), moved("void *", rings.completion)
        port.fd, port.macs = sock.fileno(), mac
    return loop


def run(names: list[str], far_macs: list[bytes]) -> dict[str, Any]:
    """Forward until SIGTERM or SIGINT, then return the counters. Main thread only."""
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    with temporary_folder("l4raw-bare-") as folder:
        ffi, library = compile_loop(folder)
    with Umem(FRAMES, CHUNK) as umem, ExitStack() as stack:
        sockets = [XskSocket(umem, name, rx=RING, tx=RING) for name in names]
        macs = [far + own_mac(name) for far, name in zip(far_macs, names, strict=True)]
        loop, free = describe(ffi, umem, sockets, macs), ffi.new("uint64_t[]", FRAMES)
        loop.free = free
        for sock in sockets:
            redirect(stack, sock)
        thread = threading.Thread(target=library.bare_run, args=(loop,))
        thread.start()
        print("ready", flush=True)
        signal.sigwait(signals)
        share = cpu_share(thread)
        loop.stop = 1
        thread.join()
        ports = [counters(port, sock) for port, sock in zip(loop.ports, sockets, strict=True)]
        return {"ports": ports, "cpu_share": share}


def redirect(stack: ExitStack, sock: XskSocket) -> None:
    """All IPv4 to a socket. Each has queue 0 of its interface: so a program, and a map, for each."""
    program = stack.enter_context(PassToSocket())
    program.accept()
    program.sockets.update(sock.queue, sock)
    stack.enter_context(program.attach(sock.interface))


def cpu_share(thread: threading.Thread) -> float:
    """Of the time in which a thread could have run, that in which it did: 1.0 when it has a CPU to itself."""
    schedstat = Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text()
    ran, waited = (int(field) for field in schedstat.split()[:2])
    return ran / (ran + waited)


def counters(port: Any, sock: XskSocket) -> dict[str, Any]:
    """What a port did."""
    own = {name: getattr(port, name) for name in ("received", "sent", "tx_ring_full", "wakeups")}
    return {"interface": sock.interface, "mode": sock.mode, **own, **sock.statistics()._asdict()}


def main() -> None:
    """Forward between the interfaces of the command line."""
    *names, at_in, at_out = sys.argv[1:]
    print(json.dumps(run(names, [parse_mac(at_in), parse_mac(at_out)])))


if __name__ == "__main__":
    main()
