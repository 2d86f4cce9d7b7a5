"""Real clients inside a host: curl, iperf3, a DNS question.

Lives here: one function for each thing a test or a demo asks of a server. Must
not live here: servers (servers.py), or what an answer should be.
"""

from __future__ import annotations

import hashlib
import json
import random
import socket
import struct
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from .host import CommandError, Host

CURL = ("curl", "-q", "--silent", "--show-error", "--noproxy", "*")
"""Neither ~/.curlrc nor the machine's proxy may change what is sent."""

CHUNK = 1 << 20


@dataclass(frozen=True)
class Transfer:
    """What arrived of a download, or was sent in an upload."""

    sha256: str
    size: int
    seconds: float


def curl(host: Host, url: str, *options: str, timeout: float = 10.0) -> str:
    """GET a page and return its body without the newline at its end.

    Raises CommandError when there is no answer within `timeout` seconds, or
    one with a status of 400 or more.
    """
    argv = [*CURL, "--fail", "--max-time", f"{timeout:g}", *options, url]
    return host.run(argv, timeout=timeout + 5).stdout.removesuffix("\n")


def many_requests(host: Host, url: str, n: int, *, timeout: float = 5.0) -> Counter[str]:
    """GET a page n times, one after the other, each on a TCP connection of its own.

    Returns how often each body came; a request without an answer counts as
    "curl exit CODE" (7: refused, 28: none within `timeout` seconds). Raises
    CommandError if curl opened fewer connections than it got answers.
    """
    # The fragment is not sent. It makes n URLs of one, so that one process does them all.
    argv = [
        *CURL,
        "--header",
        "Connection: close",
        "--max-time",
        f"{timeout:g}",
        "--write-out",
        "\n\t%{exitcode} %{num_connects}\n",
        f"{url}#[1-{n}]",
    ]
    done = host.run(argv, check=False, timeout=n * timeout + 5)
    bodies: Counter[str] = Counter()
    body: list[str] = []
    opened = 0
    for line in done.stdout.splitlines():
        if not line.startswith("\t"):
            body.append(line)
            continue
        code, connections = line.split()
        opened += int(connections)
        bodies["\n".join(body).strip() if code == "0" else f"curl exit {code}"] += 1
        body = []
    answered = sum(count for text, count in bodies.items() if not text.startswith("curl exit "))
    if bodies.total() != n or opened < answered:
        raise CommandError(
            f"{host.name}# curl {url}: {bodies.total()} of {n} requests, {opened} connections:"
            f" {done.stderr.strip()}"
        )
    return bodies


def download(host: Host, url: str, *, timeout: float = 60.0) -> Transfer:
    """GET a file, keeping only its SHA-256. Raises CommandError if curl fails."""
    begin = time.monotonic()
    argv = [*CURL, "--fail", "--max-time", f"{timeout:g}", url]
    process = host.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=False)
    digest, size = hashlib.sha256(), 0
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout as source, process.stderr as errors:
        while block := source.read(CHUNK):
            digest.update(block)
            size += len(block)
        said = errors.read()
    code = process.wait()
    if code:
        raise CommandError(f"{host.name}# curl {url}: exit code {code} after {size} bytes: {said!r}")
    return Transfer(digest.hexdigest(), size, time.monotonic() - begin)


def upload(host: Host, url: str, file: Path, *, timeout: float = 60.0) -> Transfer:
    """PUT a file, by a URL that ends in its new name. Raises CommandError if curl fails."""
    begin = time.monotonic()
    argv = [*CURL, "--fail", "--max-time", f"{timeout:g}", "--upload-file", str(file), url]
    host.run(argv, timeout=timeout + 5)
    return Transfer(sha256(file), file.stat().st_size, time.monotonic() - begin)


def sha256(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def make_file(file: Path, size: int, seed: int = 1) -> str:
    """Write `size` bytes that depend on `seed` alone; returns their SHA-256."""
    source = random.Random(seed)
    with file.open("wb") as target:
        for start in range(0, size, CHUNK):
            target.write(source.randbytes(min(CHUNK, size - start)))
    return sha256(file)


def dns_lookup(host: Host, server: str, name: str = "www.test", *, timeout: float = 5.0) -> str:
    """Ask `server` for the IPv4 address of a name, over UDP (RFC 1035 section 4.1).

    Returns the address of the first answer. Raises TimeoutError, or ValueError
    for an answer without one.
    """
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    question = struct.pack("!6H", 0x4C34, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!B2H", 0, 1, 1)
    with host.enter():
        asker = socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM)
    with asker:
        asker.settimeout(timeout)
        asker.connect((server, 53))
        asker.send(question)
        answer = asker.recv(512)
    if answer[:2] != question[:2] or struct.unpack_from("!H", answer, 6)[0] < 1:
        raise ValueError(f"{server} gave no address for {name}: {answer.hex()}")
    # The first record follows the question: a 2-byte pointer to the name; type, class, TTL and length in 10.
    start = len(question) + 12
    return socket.inet_ntoa(answer[start : start + 4])


def iperf3(
    host: Host, server: str, seconds: int = 2, *options: str, port: int = 5201, reverse: bool = False
) -> float:
    """Run iperf3 against an iperf3_server(); `reverse`: it sends. Returns received bits per second.

    Raises CommandError with what iperf3 said.
    """
    argv = ["iperf3", "-c", server, "-p", str(port), "-t", str(seconds), "--json", *options]
    argv += ["--reverse"] * reverse
    done = host.run(argv, check=False, timeout=seconds + 30)
    try:
        report = json.loads(done.stdout)
    except ValueError:
        report = {"error": done.stderr.strip() or "no report"}
    if "error" in report:
        raise CommandError(f"{host.name}# {' '.join(argv)}: {report['error']}")
    totals = report["end"].get("sum_received") or report["end"]["sum"]
    return float(totals["bits_per_second"])
