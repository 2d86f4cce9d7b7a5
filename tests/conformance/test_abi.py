"""What is written twice is equal: the shared header in three readings, and wire offsets against the kernel's.

Compared: native/include/l4raw_abi.h, the generated l4raw/wire/abi.py, the
compiled l4raw._native, the formats of the flow table; and the textbook
offsets of l4raw/wire/ against the structs of the kernel's own headers.
"""

from __future__ import annotations

import importlib.util
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from l4raw.core import entry as flow_entry
from l4raw.core import hashing
from l4raw.engine import native
from l4raw.wire import abi, ethernet, ipv4, tcp, udp

ROOT = Path(__file__).resolve().parents[2]

KERNEL_INCLUDES = """
#include <stdint.h>
#include <string.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <linux/udp.h>
"""

KERNEL_FIELDS = """
struct ethhdr { unsigned char h_dest[6]; unsigned char h_source[6]; uint16_t h_proto; ...; };
struct iphdr { uint16_t tot_len; uint16_t frag_off; uint8_t ttl; uint8_t protocol; uint16_t check;
               uint32_t saddr; uint32_t daddr; ...; };
struct tcphdr { uint16_t source; uint16_t dest; uint32_t seq; uint16_t check; ...; };
struct udphdr { uint16_t source; uint16_t dest; uint16_t len; uint16_t check; ...; };
enum { ETH_P_IP = ..., ETH_P_ARP = ..., IPPROTO_ICMP = ..., IPPROTO_TCP = ..., IPPROTO_UDP = ... };
"""

# A bit field has no offset: the kernel's struct is filled in, and its bytes are looked at.
BIT_FIELDS = {
    "version": ("iphdr", "version", 4),
    "ihl": ("iphdr", "ihl", 5),
    "doff": ("tcphdr", "doff", 5),
    "fin": ("tcphdr", "fin", 1),
    "syn": ("tcphdr", "syn", 1),
    "rst": ("tcphdr", "rst", 1),
    "ack": ("tcphdr", "ack", 1),
}


def load_from(folder: Path, name: str) -> ModuleType:
    """Return the extension module `name` that was compiled into `folder`."""
    (found,) = folder.glob(f"{name}*.so")
    spec = importlib.util.spec_from_file_location(name, found)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A cffi module over the kernel's headers: its `ffi` and `lib`."""
    from cffi import FFI

    ffi = FFI()
    setters = ""
    for name, (header, field, value) in BIT_FIELDS.items():
        ffi.cdef(f"void set_{name}(unsigned char *);")
        setters += (
            f"static void set_{name}(unsigned char *to) {{ struct {header} h;"
            f"memset(&h, 0, sizeof h); h.{field} = {value}; memcpy(to, &h, sizeof h); }}\n"
        )
    ffi.cdef(KERNEL_FIELDS)
    ffi.set_source("kernel_headers", KERNEL_INCLUDES + setters)
    folder = tmp_path_factory.mktemp("kernel")
    ffi.compile(tmpdir=str(folder))
    return load_from(folder, "kernel_headers")


@pytest.mark.native
def test_generated_file_is_what_the_header_says() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "native" / "gen_abi.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.native
def test_constants_are_those_of_the_compiler() -> None:
    generated = {name: value for name, value in vars(abi).items() if name.isupper() and type(value) is int}
    names = [name for name in dir(native.lib) if name.isupper()]
    compiled = {name.removeprefix("L4_"): getattr(native.lib, name) for name in names}
    assert generated == compiled


@pytest.mark.native
def test_verdicts_have_the_names_and_sentences_of_the_compiled_module() -> None:
    def text(pointer: Any) -> str:
        return str(native.ffi.string(pointer).decode())

    numbers = range(abi.VERDICT_COUNT)
    assert tuple(text(native.lib.l4_verdict_name(n)).lower() for n in numbers) == abi.VERDICT_NAMES
    assert tuple(text(native.lib.l4_verdict_sentence(n)) for n in numbers) == abi.VERDICT_SENTENCES
    for beyond in (abi.VERDICT_COUNT, 0xFFFF_FFFF):
        assert text(native.lib.l4_verdict_name(beyond)) == "?"
        assert text(native.lib.l4_verdict_sentence(beyond)) == "?"


def test_verdicts_are_numbered_as_they_are_named() -> None:
    assert len(abi.VERDICT_NAMES) == len(abi.VERDICT_SENTENCES) == abi.VERDICT_COUNT
    for number, name in enumerate(abi.VERDICT_NAMES):
        assert getattr(abi, name.upper()) == number
    # "Was it sent?" is one comparison.
    assert {abi.FORWARD, abi.REPLY} == {0, 1}


@pytest.mark.native
def test_status_names_the_abi() -> None:
    assert native.status() == f"built, ABI {abi.ABI_VERSION}"


@pytest.mark.native
def test_flow_fields_are_where_c_has_them() -> None:
    compiled = tuple(
        (name, field.offset, native.ffi.sizeof(field.type))
        for name, field in native.ffi.typeof("struct l4_flow").fields
    )
    assert compiled == flow_entry.FIELDS
    assert native.ffi.sizeof("struct l4_flow") == flow_entry.ENTRY.size == flow_entry.SIZE == 64


@pytest.mark.native
def test_flow_format_reads_what_c_wrote() -> None:
    """Each field has another value, so that a format with two fields exchanged is noticed."""
    entry = native.ffi.new("struct l4_flow *")
    numbers = dict(zip(flow_entry.Entry._fields, range(0x11, 0xAA, 0x11), strict=True))
    for name, number in numbers.items():
        setattr(entry, name, number)
    entry.src, entry.dst = bytes(range(16)), bytes(range(16, 32))
    entry.sport_be, entry.dport_be, entry.protocol = 0x2120, 0x2322, 0x24

    key, *rest = flow_entry.ENTRY.unpack(bytes(native.ffi.buffer(entry)))

    written = bytes(range(32)) + struct.pack("=HHB", 0x2120, 0x2322, 0x24)
    assert key == written
    assert flow_entry.Entry(*rest)._asdict() == numbers


@pytest.mark.native
def test_flow_key_is_the_start_of_an_entry() -> None:
    packed = hashing.KEY.pack(
        hashing.mapped(bytes([10, 77, 0, 1])), hashing.mapped(bytes([10, 77, 0, 100])), 41022, 80, 6
    )
    entry = native.ffi.from_buffer("struct l4_flow *", bytearray(packed.ljust(64, b"\0")))
    # RFC 4291 2.5.5.2
    assert bytes(entry.src) == bytes(10) + b"\xff\xff" + bytes([10, 77, 0, 1])
    assert bytes(entry.dst) == bytes(10) + b"\xff\xff" + bytes([10, 77, 0, 100])
    assert entry.sport_be.to_bytes(2, sys.byteorder) == (41022).to_bytes(2, "big")
    assert entry.dport_be.to_bytes(2, sys.byteorder) == (80).to_bytes(2, "big")
    assert (entry.protocol, entry.state) == (6, abi.FLOW_FREE)
    assert len(packed) <= abi.HASH_WORDS * 4


@pytest.mark.native
@pytest.mark.parametrize(
    ("header", "field", "offset"),
    [
        ("ethhdr", "h_dest", ethernet.DST),
        ("ethhdr", "h_source", ethernet.SRC),
        ("ethhdr", "h_proto", ethernet.TYPE),
        ("iphdr", "tot_len", ipv4.TOTAL_LENGTH),
        ("iphdr", "frag_off", ipv4.FRAGMENT),
        ("iphdr", "ttl", ipv4.TTL),
        ("iphdr", "protocol", ipv4.PROTOCOL),
        ("iphdr", "check", ipv4.CHECKSUM),
        ("iphdr", "saddr", ipv4.SRC),
        ("iphdr", "daddr", ipv4.DST),
        ("tcphdr", "source", tcp.SPORT),
        ("tcphdr", "dest", tcp.DPORT),
        ("tcphdr", "check", tcp.CHECKSUM),
        ("udphdr", "source", udp.SPORT),
        ("udphdr", "dest", udp.DPORT),
        ("udphdr", "len", udp.LENGTH),
        ("udphdr", "check", udp.CHECKSUM),
    ],
)
def test_wire_offset_is_the_kernels(kernel: Any, header: str, field: str, offset: int) -> None:
    assert kernel.ffi.offsetof(f"struct {header}", field) == offset


@pytest.mark.native
@pytest.mark.parametrize(
    ("name", "offset", "byte"),
    [
        ("version", ipv4.VERSION_IHL, ipv4.VERSION_4_NO_OPTIONS & 0xF0),
        ("ihl", ipv4.VERSION_IHL, ipv4.VERSION_4_NO_OPTIONS & 0x0F),
        ("doff", tcp.OFFSET, tcp.LENGTH // 4 << 4),
        ("fin", tcp.FLAGS, tcp.FIN),
        ("syn", tcp.FLAGS, tcp.SYN),
        ("rst", tcp.FLAGS, tcp.RST),
        ("ack", tcp.FLAGS, tcp.ACK),
    ],
)
def test_wire_bits_are_the_kernels(kernel: Any, name: str, offset: int, byte: int) -> None:
    size = kernel.ffi.sizeof(f"struct {BIT_FIELDS[name][0]}")
    buffer = kernel.ffi.new("unsigned char[]", b"\xa5" * size)
    getattr(kernel.lib, f"set_{name}")(buffer)
    expected = bytearray(size)
    expected[offset] = byte
    assert bytes(kernel.ffi.buffer(buffer, size)) == bytes(expected)


@pytest.mark.native
def test_wire_sizes_and_numbers_are_the_kernels(kernel: Any) -> None:
    ffi, lib = kernel.ffi, kernel.lib
    assert ffi.sizeof("struct ethhdr") == ethernet.LENGTH == ethernet.HEADER.size
    assert ffi.sizeof("struct iphdr") == ipv4.LENGTH == ipv4.HEADER.size
    assert ffi.sizeof("struct tcphdr") == tcp.LENGTH
    assert ffi.sizeof("struct udphdr") == udp.HEADER_LENGTH == udp.HEADER.size
    assert (lib.ETH_P_IP, lib.ETH_P_ARP) == (ethernet.IPV4, ethernet.ARP)
    assert (lib.IPPROTO_ICMP, lib.IPPROTO_TCP, lib.IPPROTO_UDP) == (ipv4.ICMP, ipv4.TCP, ipv4.UDP)
