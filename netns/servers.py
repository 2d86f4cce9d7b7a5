"""Real servers inside a host: nginx, dnsmasq, iperf3.

Each is a context manager that returns once the server answers inside its
host's namespace, and that has ended it, folder included, when it is left.
Lives here: how they are started. Must not live here: who talks to them
(clients.py).
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .host import Host
from .process import temporary_folder, tool

DEADLINE = 10.0
"""Seconds in which a server must answer."""

TCP_LISTEN = "0A"
"""State of a listening socket in /proc/net/tcp (include/net/tcp_states.h)."""


class ServerError(RuntimeError):
    """A server ended or did not answer; the text has what it said."""


@dataclass(frozen=True)
class Server:
    """A server that runs. `folder` is its own and goes with it."""

    host: Host
    port: int
    process: subprocess.Popen[Any]
    folder: Path

    @property
    def files(self) -> Path:
        """Web servers: what lies here is served as /files/NAME."""
        return self.folder / "files"

    @property
    def uploads(self) -> Path:
        """Web servers: what came in by PUT /upload/NAME."""
        return self.folder / "upload"


# `user root`: it would give its folders to nobody, whom a user namespace of one user does not have.
NGINX = """
user root root;
daemon off; master_process off; worker_processes 1;
pid {folder}/pid; lock_file {folder}/lock; error_log stderr warn;
events {{ worker_connections 1000; }}
http {{
  access_log off; server_tokens off; sendfile on; default_type text/plain; client_max_body_size 0;
  client_body_temp_path {folder}/temporary; proxy_temp_path {folder}/temporary;
  fastcgi_temp_path {folder}/temporary; uwsgi_temp_path {folder}/temporary; scgi_temp_path {folder}/temporary;
  server {{
    listen {listen} backlog=1024;
    add_header X-Backend {name}; add_header X-Connection $connection;
    location / {{ return 200 "{name}\\n"; }}
    location /files/ {{ alias {folder}/files/; }}
    {upload}
  }}
}}
"""
UPLOAD = "location /upload/ {{ alias {folder}/upload/; dav_methods PUT; }}"


@contextmanager
def nginx(host: Host, port: int = 80) -> Iterator[Server]:
    """Run nginx: the body of every page is the host's name.

    /files/X is served from Server.files, PUT /upload/X goes to Server.uploads
    if this nginx has the dav module. X-Connection tells connections apart.
    """
    with _folder(host, "nginx") as folder:
        upload = UPLOAD.format(folder=folder) if _nginx_has_dav() else ""
        listen = f"[::]:{port}" if ":" in host.address else str(port)
        text = NGINX.format(folder=folder, listen=listen, name=host.name, upload=upload)
        (folder / "nginx.conf").write_text(text)
        argv = ["nginx", "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]
        with _running(host, argv, port, folder, _connects) as server:
            yield server


@contextmanager
def python_web(host: Host, port: int = 80) -> Iterator[Server]:
    """The same answers from a small server in Python (httpd.py)."""
    with _folder(host, "web") as folder:
        script = Path(__file__).with_name("httpd.py")
        everywhere = "::" if ":" in host.address else "0.0.0.0"
        told = [host.name, str(port), f"{folder}/files", f"{folder}/upload", everywhere]
        argv = [sys.executable, "-I", str(script), *told]
        with _running(host, argv, port, folder, _connects) as server:
            yield server


@contextmanager
def web(host: Host, port: int = 80) -> Iterator[Server]:
    """nginx where it is installed and can take uploads, else python_web()."""
    chosen = nginx if tool("nginx") and _nginx_has_dav() else python_web
    with chosen(host, port) as server:
        yield server


@contextmanager
def dnsmasq(host: Host, port: int = 53) -> Iterator[Server]:
    """Run dnsmasq: every name under .test has the address dns_answer(host)."""
    with _folder(host, "dns") as folder:
        argv = [
            "dnsmasq",
            "--no-daemon",
            "--no-resolv",
            "--no-hosts",
            "--conf-file=/dev/null",
            "--pid-file=",
            f"--port={port}",
            f"--address=/test/{dns_answer(host)}",
            "--address=/test/2001:db8::53",
        ]
        with _running(host, argv, port, folder, _connects) as server:
            yield server


@contextmanager
def iperf3_server(host: Host, port: int = 5201) -> Iterator[Server]:
    """Run `iperf3 -s` for one test. It is two or more connections: they must reach the same server.

    One that serves several closes its listening socket after each, and resets a client that came before that.
    The check of a backend would be such a test: the service must have NO_CHECK.
    """
    argv = ["iperf3", "-s", "-1", "-4" if ":" not in host.address else "-6", "-p", str(port)]
    # A connection that says nothing is a failed test to it: only look whether its socket listens.
    with _folder(host, "iperf3") as folder, _running(host, argv, port, folder, _listens) as server:
        yield server


def dns_answer(host: Host) -> str:
    """The address that dnsmasq on this host gives: 192.0.2.x (RFC 5737), x as in the host's own."""
    return "192.0.2." + host.address.replace(":", ".").rpartition(".")[2]


@contextmanager
def _folder(host: Host, what: str) -> Iterator[Path]:
    """A temporary folder with the subfolders that web servers need."""
    with temporary_folder(f"l4raw-{what}-{host.name}-") as folder:
        for part in ("files", "upload", "temporary"):
            (folder / part).mkdir()
        yield folder


@contextmanager
def _running(
    host: Host, argv: Sequence[str], port: int, folder: Path, answers: Callable[[Host, int], bool]
) -> Iterator[Server]:
    """Start argv, wait until it answers, yield it, end it. Raises ServerError."""
    if not tool(argv[0]):
        raise ServerError(f"{argv[0]} is not installed")
    if answers(host, port):
        raise ServerError(f"{host.name}: port {port} is taken")
    said = folder / "output"
    with said.open("w") as output:
        process = host.popen(argv, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + DEADLINE
        while not answers(host, port):
            if process.poll() is not None or time.monotonic() > deadline:
                state = "ended" if process.poll() is not None else f"gives no answer on port {port}"
                text = said.read_text(errors="replace").strip()
                raise ServerError(f"{host.name}# {' '.join(argv)}: {state}: {text[-2000:]}")
            time.sleep(0.005)
        yield Server(host, port, process, folder)
    finally:
        host.end(process)


def _connects(host: Host, port: int) -> bool:
    """Whether a TCP connection from inside the host is accepted."""
    is_v6 = ":" in host.address
    with host.enter():
        probe = socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET)
    with probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("::1" if is_v6 else "127.0.0.1", port)) == 0


def _listens(host: Host, port: int) -> bool:
    """Whether some socket of the host listens on the port, by /proc/net/tcp."""
    tables = [Path(f"/proc/{host.pid}/net/{table}") for table in ("tcp", "tcp6")]
    rows = [row for table in tables if table.exists() for row in table.read_text().splitlines()[1:]]
    fields = [row.split() for row in rows]
    return any(f[1].endswith(f":{port:04X}") and f[3] == TCP_LISTEN for f in fields)


def _nginx_has_dav() -> bool:
    """Whether the installed nginx can take a PUT."""
    path = tool("nginx")
    if path is None:
        return False
    done = subprocess.run([path, "-V"], capture_output=True, text=True)
    return "http_dav_module" in done.stderr
