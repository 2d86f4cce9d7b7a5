"""A small web server for machines without nginx; a script, run by servers.python_web().

    python3 httpd.py NAME PORT FILES UPLOADS ADDRESS

Every GET is answered with NAME, GET /files/X with that file, PUT /upload/X
stores one. The answers look like those of the nginx configuration in
servers.py. Lives here: that script. Must not live here: anything the package
imports; it may only use the standard library and runs on its own.
"""

from __future__ import annotations

import itertools
import shutil
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO

CHUNK = 1 << 20
connections = itertools.count(1)


class Handler(BaseHTTPRequestHandler):
    """One instance a connection, as BaseHTTPRequestHandler has it."""

    protocol_version = "HTTP/1.1"
    name = ""
    files = Path()
    uploads = Path()

    def setup(self) -> None:
        self.number = next(connections)
        super().setup()

    def do_GET(self) -> None:
        if not self.path.startswith("/files/"):
            self.answer(200, f"{self.name}\n".encode())
            return
        file = self.files / Path(self.path).name
        if not file.is_file():
            self.answer(404, b"no such file\n")
            return
        with file.open("rb") as source:
            self.head(200, file.stat().st_size)
            shutil.copyfileobj(source, self.wfile, CHUNK)

    def do_PUT(self) -> None:
        left = int(self.headers.get("Content-Length", 0))
        with (self.uploads / Path(self.path).name).open("wb") as target:
            self.receive(target, left)
        self.answer(201, b"")

    def receive(self, target: BinaryIO, left: int) -> None:
        """Copy `left` bytes of the request's body."""
        while left:
            block = self.rfile.read(min(CHUNK, left))
            if not block:
                raise ConnectionError("the upload ended early")
            target.write(block)
            left -= len(block)

    def answer(self, status: int, body: bytes) -> None:
        self.head(status, len(body))
        self.wfile.write(body)

    def head(self, status: int, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(length))
        self.send_header("X-Backend", self.name)
        self.send_header("X-Connection", str(self.number))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing: a line per request would fill the error file."""


def main() -> None:
    Handler.name = sys.argv[1]
    Handler.files, Handler.uploads = Path(sys.argv[3]), Path(sys.argv[4])
    ThreadingHTTPServer.request_queue_size = 1024
    if ":" in sys.argv[5]:
        ThreadingHTTPServer.address_family = socket.AF_INET6
    ThreadingHTTPServer((sys.argv[5], int(sys.argv[2])), Handler).serve_forever()


if __name__ == "__main__":
    main()
