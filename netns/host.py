"""One host of a test network: an anonymous network namespace and what runs in it.

Lives here: the namespace, commands inside it, its sysctls and counters. Must
not live here: addresses and cables (topology.py) or which programs are run
(servers.py).

A namespace has no name and no file. It exists as long as its holder, a `cat`
that waits on a pipe from this process. However this process ends, SIGKILL
included, the kernel closes the pipe, `cat` reads the end of it and leaves, and
the namespace goes with it, together with its interfaces.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

from .process import GRACE, Log, environment, setns, wait_or_kill

TIMEOUT = 60.0
"""Seconds after which a command that should have ended is killed."""


class NamespaceError(OSError):
    """A namespace could not be made. `said`: why, in the words of unshare(1)."""

    def __init__(self, text: str, said: str) -> None:
        super().__init__(text)
        self.said = said


class CommandError(RuntimeError):
    """A command inside a host failed. The text has the host, the command and its stderr."""


@dataclass(frozen=True)
class Link:
    """An interface of a host as it was configured; addresses in CIDR notation."""

    interface: str
    mac: str
    addresses: tuple[str, ...]


class Host:
    """A network namespace, held from construction until close().

    A half-made host cleans up after itself. Several can be started at once:
    construct all, then wait_ready() each. Raises NamespaceError when the user
    may not make namespaces.
    """

    def __init__(self, name: str, log: Log | None = None) -> None:
        self.name = name
        self.log = log if log is not None else Log()
        self.links: list[Link] = []
        self._started: list[subprocess.Popen[Any]] = []
        # A session of its own: Ctrl-C at the terminal is for us, who then take the network down in order.
        self._holder = subprocess.Popen(
            ["unshare", "--net", "cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            start_new_session=True,
        )

    def wait_ready(self) -> Host:
        """Return once the namespace exists. The holder echoes a byte only after unshare(2)."""
        stdin, stdout, stderr = self._pipes()
        with suppress(BrokenPipeError):  # it ended already: the read below finds out and says why
            stdin.write(b"\n")
            stdin.flush()
        if stdout.read(1) != b"\n":
            said = stderr.read().decode(errors="replace").strip() or "unshare ended"
            self.close()
            raise NamespaceError(
                f"cannot make a network namespace for {self.name}: {said}"
                " (run as root, or inside `unshare -Urnm`)",
                said,
            )
        return self

    @property
    def pid(self) -> int:
        """The holder's process id: /proc/PID/ns/net is the namespace."""
        return self._holder.pid

    @property
    def inode(self) -> int:
        """The namespace's number, as `lsns -t net` shows it."""
        return os.stat(f"/proc/{self.pid}/ns/net").st_ino

    @property
    def address(self) -> str:
        """The first address, without its prefix length."""
        return self.links[0].addresses[0].partition("/")[0]

    @property
    def mac(self) -> str:
        """The MAC address of the first interface."""
        return self.links[0].mac

    def run(
        self, argv: Sequence[str], *, check: bool = True, input: str | None = None, timeout: float = TIMEOUT
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and return it with its output as text.

        Raises CommandError when `check` and the exit code is not 0, or when it
        takes longer than `timeout` seconds; it is dead in each case.
        """
        text = f"{self.name}# {' '.join(argv)}"
        try:
            done = subprocess.run(
                self._inside(argv),
                capture_output=True,
                text=True,
                errors="replace",
                input=input,
                stdin=subprocess.DEVNULL if input is None else None,
                timeout=timeout,
                env=environment(),
            )
        except subprocess.TimeoutExpired as late:
            raise CommandError(f"{text}: no end after {timeout:g} s") from late
        if check and done.returncode:
            said = done.stderr.strip() or done.stdout.strip()
            raise CommandError(f"{text}: exit code {done.returncode}: {said}")
        return done

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program in the background; `options` are those of subprocess.Popen.

        Pipes are text unless `text=False`; stdin is empty unless `stdin` is given.
        close() ends it: SIGTERM, then SIGKILL after GRACE seconds. The kernel
        kills it when this process dies, or the *thread* that called popen():
        call from one that lives as long as the program should. What the
        program starts in turn is its own affair.
        """
        settings: dict[str, Any] = {
            "text": True,
            "stdin": subprocess.DEVNULL,
            "env": environment(),
            "start_new_session": True,
        }
        process: subprocess.Popen[Any] = subprocess.Popen(self._inside(argv), **(settings | options))
        self._started.append(process)
        return process

    def end(self, process: subprocess.Popen[Any]) -> int:
        """End one program of popen() and return its exit code, negative for a signal."""
        if process in self._started:
            self._started.remove(process)
        process.terminate()
        wait_or_kill(process, time.monotonic() + GRACE)
        return int(process.returncode)

    def ip(self, *commands: str) -> None:
        """Print and run `ip` commands, without the leading word, in one process.

        Stops at the first that fails and raises CommandError naming it.
        """
        for command in commands:
            self.log(self.name, f"ip {command}")
        done = self.run(["ip", "-batch", "-"], input="\n".join(commands) + "\n", check=False)
        if done.returncode:
            said = done.stderr.strip()
            number = said.rpartition("Command failed -:")[2]
            failed = commands[int(number) - 1] if number.isdecimal() else "; ".join(commands)
            raise CommandError(f"{self.name}# ip {failed}: {said}")

    def sysctl(self, key: str, value: int | str) -> None:
        """Print and set one sysctl of the namespace. Raises OSError when the kernel refuses."""
        self.sysctls({key: value})

    def sysctls(self, values: Mapping[str, int | str]) -> None:
        """Print and set several sysctls."""
        with self.enter():  # /proc/sys/net shows the namespace of the thread that looks
            for key, value in values.items():
                self.log(self.name, f"sysctl -w {key}={value}")
                Path("/proc/sys", *key.split(".")).write_text(f"{value}\n")

    def counters(self) -> dict[str, int]:
        """Checksum errors that the host's kernel counted, such as {"Tcp.InCsumErrors": 0}.

        IpExt, Icmp, Tcp, Udp and UdpLite, as far as the kernel has them; of IPv6, Icmp6, Udp6 and UdpLite6.
        """
        found: dict[str, int] = {}
        for file in ("snmp", "netstat"):
            lines = Path(f"/proc/{self.pid}/net/{file}").read_text().splitlines()
            for names, numbers in zip(lines[::2], lines[1::2], strict=True):
                group = names.partition(":")[0]
                for name, number in zip(names.split()[1:], numbers.split()[1:], strict=True):
                    if name == "InCsumErrors":
                        found[f"{group}.{name}"] = int(number)
        six = Path(f"/proc/{self.pid}/net/snmp6")
        for line in six.read_text().splitlines() if six.exists() else ():
            name, number = line.split()
            if name.endswith("InCsumErrors"):
                found[f"{name.removesuffix('InCsumErrors')}.InCsumErrors"] = int(number)
        return found

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Move this thread into the namespace; for opening sockets, which then stay there."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            there = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                setns(there, f"enter {self.name}'s namespace")
            finally:
                os.close(there)
            try:
                yield
            finally:
                setns(home, f"leave {self.name}'s namespace")
        finally:
            os.close(home)

    def close(self) -> None:
        """End everything that popen() started, then the namespace. May be called twice."""
        for process in self._started:
            process.terminate()
        deadline = time.monotonic() + GRACE
        for process in self._started:
            wait_or_kill(process, deadline)
        self._started.clear()
        stdin, stdout, stderr = self._pipes()
        with suppress(BrokenPipeError):  # the holder was killed from outside
            stdin.close()
        wait_or_kill(self._holder, deadline)
        stdout.close()
        stderr.close()

    def __enter__(self) -> Host:
        return self.wait_ready()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Host {self.name} pid {self.pid}>"

    def _pipes(self) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
        """The holder's stdin, stdout and stderr."""
        pipes = (self._holder.stdin, self._holder.stdout, self._holder.stderr)
        return cast("tuple[IO[bytes], IO[bytes], IO[bytes]]", pipes)

    def _inside(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs argv in the namespace and dies with this thread."""
        return [
            "setpriv",
            "--pdeathsig",
            "KILL",
            "--",
            "nsenter",
            f"--net=/proc/{self.pid}/ns/net",
            "--",
            *argv,
        ]
