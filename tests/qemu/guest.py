"""A running guest: qemu as a child of ours, commands through a socket, cables into namespaces.

Lives here: qemu's command line and the other end of agent.sh. Must not live
here: the kernel's files (kernels.py, initramfs.py), what a test does.

    namespace of a Host           |  guest
       interface of the cable (tap) ---- eth0        one cable is eth0, the next eth1, ...
    this process                  |
       socket ------------------------- virtual serial port: agent.sh
       console.txt ------------------- ttyS0: the kernel's words, quoted when something fails

A guest ends with the context, and with the thread that started it. Nothing of
it is on any disk, so it is killed, not shut down.
"""

from __future__ import annotations

import fcntl
import math
import os
import shlex
import socket
import struct
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from l4raw.netns import Host, Log
from l4raw.netns.process import environment, temporary_folder

from .initramfs import initramfs
from .kernels import kernel as find_kernel

BOOT_S: Final = 90.0
"""Seconds from qemu's start to the agent's first word; 4 to 10 are usual."""
TIMEOUT: Final = 120.0
"""Seconds that a command may take: programs are ten to thirty times slower than outside."""
_SLACK_S: Final = 30.0
"""After a command's time is up, for the agent to say so."""

_TUNSETIFF: Final = 0x400454CA  # linux/if_tun.h
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000

_KERNEL_LINE: Final = (
    "console=ttyS0 loglevel=5 printk.devkmsg=on panic=-1 net.ifnames=0 mitigations=off no_timer_check"
    " tsc=reliable cryptomgr.notests"
)


class GuestError(RuntimeError):
    """A guest did not start, or a command in it failed. The text has the console's end, or stderr."""


@dataclass(frozen=True)
class Cable:
    """A new interface of `host`; its other end is an interface of the guest. Both ends begin down."""

    host: Host
    interface: str
    mac: str = "02:00:00:00:01:01"
    """Of the guest's end."""


class Guest:
    """A virtual machine, from __enter__ to __exit__; see the package for what is in it.

    `kernel`: a key of DEBIAN. `modules` are loaded before the first command, and
    `modprobe` knows all the others. `files`: absolute path in the guest and contents,
    or a Path here. `log` takes each command before it runs (default: stderr).
    Raises GuestError, or KernelError when there is no kernel to be had.
    """

    def __init__(
        self,
        kernel: str,
        modules: Sequence[str] = (),
        files: Mapping[str, bytes | str | Path] | None = None,
        cables: Sequence[Cable] = (),
        *,
        memory: str = "768M",
        cpus: int = 1,
        log: Log | None = None,
    ) -> None:
        self.kernel = find_kernel(kernel)
        self.log = log if log is not None else Log()
        self.boot_seconds = 0.0
        self._options = (tuple(modules), dict(files or {}), tuple(cables), memory, cpus)
        self._stack = ExitStack()

    def run(
        self, command: str | Sequence[str], *, check: bool = True, timeout: float = TIMEOUT
    ) -> subprocess.CompletedProcess[str]:
        """Run a command, or a shell script, to its end and return it with its output as text.

        Raises GuestError when `check` and the exit code is not 0, when it takes
        longer than `timeout` seconds (it is dead then), or when the guest is gone.
        """
        script = command if isinstance(command, str) else shlex.join(command)
        self.log("guest", script)
        text, begin = f"guest# {script}", time.monotonic()
        payload = script.encode()
        self._socket.settimeout(timeout + _SLACK_S)
        try:
            self._socket.sendall(b"%d %d\n" % (math.ceil(timeout), len(payload)) + payload)
            code, *sizes = map(int, self._answers.readline().split())
            out, err = (self._answers.read(size).decode(errors="replace") for size in sizes)
        except (OSError, ValueError) as error:
            raise GuestError(f"{text}: the guest no longer answers; {self._last_words()}") from error
        if code == 128 + 9 and time.monotonic() - begin >= 0.9 * timeout:  # its clock is not quite ours
            raise GuestError(f"{text}: no end after {timeout:g} s")
        if check and code:
            raise GuestError(f"{text}: exit code {code}: {err.strip() or out.strip()}")
        return subprocess.CompletedProcess(script, code, out, err)

    def __enter__(self) -> Guest:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _start(self) -> None:
        """Start qemu; return when the agent answers."""
        modules, files, cables, memory, cpus = self._options
        begin = time.monotonic()
        folder = self._stack.enter_context(temporary_folder("l4raw-guest-"))
        (folder / "initramfs").write_bytes(initramfs(self.kernel, files, modules))
        self._console = folder / "console.txt"
        ours, theirs = socket.socketpair()
        self._stack.callback(ours.close)
        with ExitStack() as passed:
            passed.callback(theirs.close)
            taps = [plug(cable) for cable in cables]
            for tap in taps:
                passed.callback(os.close, tap)
            argv = [
                *("qemu-system-x86_64", "-accel", "tcg", "-machine", "q35", "-cpu", "max"),
                *("-m", memory, "-smp", str(cpus), "-nodefaults", "-no-user-config", "-no-reboot"),
                *("-display", "none", "-serial", f"file:{self._console}"),
                *("-kernel", str(self.kernel.image), "-initrd", str(folder / "initramfs")),
                *("-append", _KERNEL_LINE),
                *("-virtfs", "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap"),
                *("-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,fd={theirs.fileno()}"),
                *("-device", "virtserialport,chardev=agent"),
            ]
            for number, (cable, tap) in enumerate(zip(cables, taps, strict=True)):
                argv += ["-netdev", f"tap,id=cable{number},fd={tap}"]
                argv += ["-device", f"virtio-net-pci,netdev=cable{number},mac={cable.mac},romfile="]
            self._run_qemu(argv, (theirs.fileno(), *taps), folder / "qemu.txt")
        self._socket, self._answers = ours, ours.makefile("rb")
        self._stack.callback(self._answers.close)
        self._socket.settimeout(BOOT_S)
        try:
            said = self._answers.readline()
        except OSError:
            said = b""
        if said != b"ready\n":
            raise GuestError(f"a guest with kernel {self.kernel.release} did not start; {self._last_words()}")
        self.boot_seconds = time.monotonic() - begin

    def _run_qemu(self, argv: Sequence[str], passed: tuple[int, ...], words: Path) -> None:
        """Start qemu; it ends with the stack, and with this thread."""
        with words.open("wb") as stream:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *argv],
                pass_fds=passed,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=environment(),
                start_new_session=True,
            )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)

    def _last_words(self) -> str:
        """What qemu and the guest's kernel said last."""
        found = []
        for name in ("qemu.txt", "console.txt"):
            path = self._console.with_name(name)
            if path.exists() and (text := path.read_text(errors="replace").strip()):
                found.append(f"{name}:\n" + "\n".join(text.splitlines()[-20:]))
        return "\n".join(found) or "it said nothing"

    def __repr__(self) -> str:
        return f"<Guest {self.kernel.release}>"


def plug(cable: Cable) -> int:
    """Make the interface in the host's namespace, and return its descriptor: it goes when that is closed."""
    with cable.host.enter():
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
        # A tap belongs to the namespace in which /dev/net/tun was opened.
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", cable.interface.encode(), flags))
    except BaseException:
        os.close(tap)
        raise
    return tap
