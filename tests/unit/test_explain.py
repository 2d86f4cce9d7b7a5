"""`l4raw explain` of frames: the four forms of its argument, what it says, and what it says as JSON."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet
from scapy.utils import PcapNgWriter, wrpcap

from l4raw.cli import fields, hints, main, render
from l4raw.control import whatif
from l4raw.control.config import parse
from l4raw.control.whatif import NONE, PARTIAL, RIGHT, WRONG, WhatIf, state_of_sum
from l4raw.wire import abi, ipv4
from l4raw.wire.checksum import checksum, pseudo_header, update, update_partial
from l4raw.wire.headers import Headers
from l4raw.wire.headers import parse as parse_headers

ROOT = Path(__file__).resolve().parents[2]
OUR_MAC, INNER_MAC = "02:00:00:00:00:02", "02:00:00:00:00:03"
FLOW = "10.77.0.1:41022 -> 10.77.0.100:80/tcp"

DSR = """\
[lb]
interfaces = ["lab-none0"]
ring_seed = "demo"
[[service]]
name = "web"
vip = "10.77.0.100:80/tcp"
mode = "dsr-l2"
backends = [{ name = "b1", address = "10.77.0.11" }, { name = "b2", address = "10.77.0.12" }]
[[service]]
name = "dns"
vip = "10.77.0.100:53/udp"
mode = "dsr-l2"
scheduler = "rr"
backends = [{ name = "b1", address = "10.77.0.11" }]
"""
NAT = DSR.replace("dsr-l2", "nat").replace('["lab-none0"]', '["lab-none0", "lab-none1"]')

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `l4raw explain` in a folder with dsr.toml, nat.toml and an l4raw.toml like dsr.toml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("L4RAW_STATE_DIR", str(tmp_path / "seeds"))
    monkeypatch.delenv("L4RAW_CONFIG", raising=False)
    for name, text in (("dsr", DSR), ("nat", NAT), ("l4raw", DSR)):
        Path(f"{name}.toml").write_text(text)

    def run(*args: str) -> Result:
        result = CliRunner().invoke(main.cli, ("explain", *args))
        assert "Traceback" not in result.output
        return result

    return run


def explained(run: Run, *args: str) -> dict[str, Any]:
    """The data of the JSON twin."""
    result = run(*args, "--json")
    assert result.exit_code == 0, result.stderr
    record = json.loads(result.stdout)
    assert record["schema"] == "l4raw.explain/1"
    data: dict[str, Any] = record["data"]
    assert data["kind"] == "frames"
    return data


def request(sport: int = 41022, dport: int = 80, flags: str = "S", layer: Packet | None = None) -> bytes:
    ether = Ether(src="02:00:00:00:00:01", dst=OUR_MAC)
    inner = TCP(sport=sport, dport=dport, flags=flags) if layer is None else layer
    return bytes(ether / IP(src="10.77.0.1", dst="10.77.0.100") / inner)


def answer(source: str, dport: int = 41022) -> bytes:
    ether = Ether(src="02:00:00:00:00:0b", dst=INNER_MAC)
    return bytes(ether / IP(src=source, dst="10.77.0.1") / TCP(sport=80, dport=dport, flags="SA"))


def what_if(text: str = NAT) -> WhatIf:
    return whatif.build(parse(text, Path("x.toml")).config, {"L4RAW_STATE_DIR": "/nonexistent"})


SHARED = what_if(NAT.replace('" }', '", port = 8080 }'))
"""For property tests: a ring takes 50 ms to build."""


# The four forms.


@pytest.mark.parametrize("arrow", [" -> ", "->", " > ", ">", " → ", "→", " ", "   "])
@pytest.mark.parametrize("end", ["", "/tcp", "/TCP"])
def test_a_5_tuple(run: Run, arrow: str, end: str) -> None:
    (frame,) = explained(run, f"10.77.0.1:41022{arrow}10.77.0.100:80{end}")["frames"]
    assert frame["verdict"] == "forward"
    parsed = Ether(bytes.fromhex(frame["before"]))
    assert (parsed[IP].src, parsed[IP].dst, parsed[TCP].sport, parsed[TCP].dport) == (
        "10.77.0.1", "10.77.0.100", 41022, 80,
    )  # fmt: skip
    assert parsed[TCP].flags == "S"


def test_a_5_tuple_of_two_words_needs_no_quotes(run: Run) -> None:
    assert explained(run, "10.77.0.1:1", "10.77.0.100:53/udp")["frames"][0]["service"]["name"] == "dns"


def test_a_5_tuple_of_three_words_needs_no_quotes(run: Run) -> None:
    """An arrow begins with a dash, as options do."""
    words = ("10.77.0.1:1", "->", "10.77.0.100:53/udp")
    assert explained(run, *words)["frames"][0]["service"]["name"] == "dns"
    assert explained(run, "-c", "dsr.toml", *words, "--count", "1")["frames"][0]["service"]["name"] == "dns"
    result = run("10.77.0.1:1", "--cuont", "1")
    assert result.exit_code == 2
    assert re.search(r"No such option:? '?--cuont", result.stderr)


@given(
    st.tuples(*[st.integers(0, 0xFFFF_FFFF)] * 2),
    st.tuples(*[st.integers(0, 65535)] * 2),
    st.sampled_from((6, 17)),
)
def test_the_frame_of_a_5_tuple_is_what_scapy_would_send(
    addresses: tuple[int, int], ports: tuple[int, int], protocol: int
) -> None:
    ends = [IPv4Address(address) for address in addresses]
    flow = whatif.FiveTuple(ends[0], ports[0], ends[1], ports[1], ipv4.IpProto(protocol))
    frame = whatif.first_frame(flow, b"\2\0\0\0\0\2")
    again = Ether(frame)
    for layer in (IP, TCP, UDP):
        if layer in again:
            del again[layer].chksum
    assert bytes(again) == frame


def test_a_computed_checksum_of_zero_is_sent_as_ones() -> None:
    """RFC 768. The source port that makes the sum of a datagram "all ones" is what is missing to it."""
    client, vip = IPv4Address("10.77.0.1"), IPv4Address("10.77.0.100")

    def sum_of(sport: int) -> int:
        frame = whatif.first_frame(whatif.FiveTuple(client, sport, vip, 53, ipv4.UDP), bytes(6))
        return int.from_bytes(frame[40:42], "big")

    assert sum_of(sum_of(0)) == 0xFFFF


@pytest.mark.parametrize(
    "write",
    [
        lambda frame: frame.hex(),
        lambda frame: frame.hex(" "),
        lambda frame: frame.hex(":").upper(),
        lambda frame: "0x" + frame.hex(),
        lambda frame: " ".join(f"0x{byte:02x}" for byte in frame),
        lambda frame: "\n".join(
            f"\t0x{at:04x}:  {frame[at : at + 16].hex(' ', 2)}" for at in range(0, len(frame), 16)
        ),
    ],
    ids=["bare", "spaces", "colons", "0x", "0x-bytes", "tcpdump-xx"],
)
def test_a_frame_in_hex(run: Run, write: Callable[[bytes], str]) -> None:
    (frame,) = explained(run, write(request()))["frames"]
    assert bytes.fromhex(frame["before"]) == request()
    assert frame["verdict"] == "forward"


def test_hex_that_is_no_name_of_a_file(run: Run) -> None:
    """Longer than a file name may be."""
    frame = request() + bytes(3000)
    assert explained(run, frame.hex())["frames"][0]["length_bytes"] == len(frame)


@pytest.mark.parametrize("name", ["x.pcap", "x.pcapng", "no-suffix"])
def test_a_capture_remembers_flows(run: Run, name: str) -> None:
    frames = [request(), request(flags="A"), bytes(Ether() / ARP())]
    if name.endswith("ng"):
        with PcapNgWriter(name) as writer:
            for each in frames:
                writer.write(Ether(each))
    else:
        wrpcap(name, [Ether(each) for each in frames])
    data = explained(run, name)
    assert [(f["number"], f["verdict"]) for f in data["frames"]] == [
        (1, "forward"), (2, "forward"), (3, "pass_not_ip"),
    ]  # fmt: skip
    assert [f["flow"] and f["flow"]["known"] for f in data["frames"]] == [False, True, None]
    assert data["verdicts"] == {"forward": 2, "pass_not_ip": 1}
    assert len(explained(run, name, "--count", "2")["frames"]) == 2
    assert run(name).stdout.endswith("\n3 frames: forward 2, pass_not_ip 1\n")


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([bytes(Ether() / ARP())] * 2, "2 frames, none of them IPv4: pass_not_ip 2"),
        ([], "0 frames: the capture is empty"),
    ],
)
def test_a_capture_without_a_frame_of_ours_says_so(run: Run, frames: list[bytes], words: str) -> None:
    wrpcap("c.pcap", [Ether(each) for each in frames], linktype=1)
    assert run("c.pcap").stdout.endswith(f"\n{words}\n")


def test_a_capture_of_both_sides_of_nat(run: Run) -> None:
    """Reply frames come in on the other interface; copies that the balancer sent are nobody's."""
    first = explained(run, request().hex(), "-c", "nat.toml")["frames"][0]
    assert (first["interface_in"], first["interface_out"]) == ("lab-none0", "lab-none1")
    backend = first["backend"]["address"]
    frames = [request(), bytes.fromhex(first["after"]), answer(backend), request(flags="A")]
    wrpcap("both.pcap", [Ether(frame) for frame in frames])
    data = explained(run, "both.pcap", "-c", "nat.toml")["frames"]
    assert [frame["verdict"] for frame in data] == ["forward", "pass_other_mac", "reply", "forward"]
    assert (data[2]["interface_in"], data[2]["interface_out"]) == ("lab-none1", "lab-none0")
    assert data[2]["edits"][0]["new"] == "020000000001", "to the MAC that the client sent from"
    assert Ether(bytes.fromhex(data[2]["after"]))[IP].src == "10.77.0.100"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("zz", "'zz' is nothing that can be explained"),
        ("10.77.0.1:1 -> 10.77.0.100", "10.77.0.100' is no 5-tuple: ADDRESS:PORT -> ADDRESS:PORT"),
        ("10.99.0.1 -> 10.99.0.100:80/tcp", "is no 5-tuple: ADDRESS:PORT -> ADDRESS:PORT, then /udp or"),
        ("b1 → b2.pcap", "is no 5-tuple"),
        ("abc", "3 hex digits are no whole number of bytes"),
        ("10.77.0.1:1 -> 10.77.0.100:70000/tcp", "port 70000 is above 65535"),
        ("10.77.0.1:1 -> 10.77.0.100:" + "9" * 5000, "is above 65535"),
        ("10.77.0.256:1 -> 10.77.0.100:80", "10.77.0.256 is not an IP address"),
        ("10.77.0.1:1 -> 10.77.0.100:80/sctp", "protocol sctp is neither tcp nor udp"),
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
    ],
)
def test_wrong_usage_names_the_four_forms(run: Run, text: str, words: str) -> None:
    result = run(text)
    assert result.exit_code == 2
    assert words in result.stderr
    for form in ("L4R-203", "in hex", ".pcap", "10.77.0.1:41022 -> 10.77.0.100:80/tcp"):
        assert form in result.stderr
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read the capture: no such file or directory (bad.pcap)"),
        (b"", "this is no pcap or pcapng file: "),
        (b"[lb]\n" * 100, "this is no pcap or pcapng file: "),
        (
            bytes.fromhex("d4c3b2a1020004000000000000000000ffff000071000000") + bytes(16) + bytes(4),
            "this capture has frames that are not Ethernet (bad.pcap)",
        ),
    ],
    ids=["missing", "empty", "text", "linux-cooked"],
)
def test_a_capture_that_cannot_be_read(run: Run, content: bytes | None, words: str) -> None:
    path = Path("bad.pcap")
    if content is not None:
        path.write_bytes(content)
    result = run("bad.pcap")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error L4R-403: ")
    assert words in result.stderr.splitlines()[0]
    assert result.stderr.splitlines()[0].count("bad.pcap") == 1
    assert ("`tcpdump -i any` writes such files" in result.stderr) == ("Ethernet (" in words)


def test_no_configuration_is_the_error_that_up_has(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("l4raw.control.config.SYSTEM", tmp_path / "etc.toml")
    Path("l4raw.toml").unlink()
    result = run(FLOW)
    assert result.exit_code == 3
    assert result.stderr.startswith("error L4R-101: ")


# What it says.


def test_what_is_said_of_a_forwarded_frame(run: Run) -> None:
    lines = run(FLOW).stdout.splitlines()
    assert lines[0] == "configuration: l4raw.toml (default place)"
    assert lines[1].startswith("assumed: MAC addresses: ")
    text = "\n".join(lines)
    assert "#1  10.77.0.1:41022 -> 10.77.0.100:80  tcp S  forward" in lines
    assert re.search(r"^      30  ip\.dst +10\.77\.0\.100$", text, re.MULTILINE)
    assert re.search(r"^      34  tcp\.sport +41022$", text, re.MULTILINE)
    assert re.search(r"^      47  tcp\.flags +0x02 \(S\)$", text, re.MULTILINE)
    assert "service: web 10.77.0.100:80/tcp dsr-l2 maglev" in lines
    assert re.search(r"^flow: new; hash 0x[0-9a-f]{8} mod 65537 = slot \d+ -> b[12]$", text, re.MULTILINE)
    assert re.search(r"^  eth\.dst  .*\*$", text, re.MULTILINE)
    assert "checksums: untouched, for nothing that they cover has changed" in lines
    assert lines[-2] == "verdict: forward: sent to the backend"
    assert lines[-1].startswith("reply: ")


def test_plain_is_one_line_a_frame(run: Run) -> None:
    result = run(FLOW, "--plain", "-c", "dsr.toml")
    assert re.fullmatch(r"1\tforward\tweb\tb[12]\tsent to the backend\t\n", result.stdout)


def test_warnings_of_the_configuration_are_told(run: Run) -> None:
    Path("one.toml").write_text(DSR.replace("dsr-l2", "nat"))
    assert "warning L4R-141" in run(FLOW, "-c", "one.toml").stderr
    assert json.loads(run(FLOW, "-c", "one.toml", "--json").stdout)["warnings"][0]["code"] == "L4R-141"


@pytest.mark.parametrize(
    ("frame", "verdict", "hint"),
    [
        (
            request(dport=81),
            "drop_no_service",
            "no service on 81/tcp; this VIP has 80/tcp (web), 53/udp (dns)",
        ),
        (
            request(layer=UDP(sport=1, dport=80)),
            "drop_no_service",
            "no service on 80/udp; this VIP has 80/tcp",
        ),
        (request(layer=ICMP(type=5)), "drop_protocol", "no service on protocol 1; this VIP has 80/tcp"),
        (request(flags="A"), "drop_no_flow", "be guessed in mid-stream; its client is told by a reset"),
        (answer("10.77.0.11"), "pass_not_ours", "comes from backend b1, but is no reply of a flow"),
        (
            bytes(Ether(dst=OUR_MAC, src=INNER_MAC) / IP(src="10.77.0.1", dst="10.77.0.101") / TCP()),
            "pass_not_ours",
            "10.77.0.101 is no VIP; there is 10.77.0.100",
        ),
        (
            bytes(
                Ether(dst="ff:ff:ff:ff:ff:ff", src=INNER_MAC) / IP(src="10.77.0.1", dst="10.77.0.255") / UDP()
            ),
            "pass_other_mac",
            "lab-none0 has the MAC 02:ba:00:00:00:00",
        ),
    ],
)
def test_near_misses(run: Run, frame: bytes, verdict: str, hint: str) -> None:
    (found,) = explained(run, frame.hex(), "-c", "nat.toml")["frames"]
    assert found["verdict"] == verdict
    assert hint in found["hints"][0]
    assert hint in run(frame.hex(), "-c", "nat.toml").stdout


def patched(offset: int, *data: int) -> bytes:
    """The request with other bytes at an offset, and its IPv4 checksum made right again."""
    frame = bytearray(request())
    frame[offset : offset + len(data)] = data
    if offset != 24:
        frame[24:26] = b"\0\0"
        length = (frame[14] & 15) * 4
        frame[24:26] = checksum(frame[14 : 14 + length]).to_bytes(2, "big")
    return bytes(frame)


@pytest.mark.parametrize(
    ("frame", "verdict", "detail"),
    [
        (b"\xff", "drop_short", "the frame has 1 bytes; an Ethernet header has 14"),
        (request()[:30], "drop_short", "16 bytes follow the Ethernet header; an IPv4 header has 20 or more"),
        (patched(16, 0, 39), "drop_short", "19 bytes follow the IPv4 header; a TCP header has 20 or more"),
        (patched(14, 0x65), "drop_ip_version", "the upper half of byte 14 is 6; IPv4 has 4 there"),
        (
            patched(14, 0x44), "drop_ip_header_length",
            "says 4 words, 16 bytes; 20 is the least, and 40 are there",
        ),
        (
            patched(16, 1, 0), "drop_ip_length",
            "bytes 16 and on say 256; the header alone has 20, and 40 bytes follow",
        ),
        (
            patched(24, 0xDE, 0xAD), "drop_ip_checksum",
            f"0xdead at offset 24; these bytes ask for 0x{request()[24:26].hex()}",
        ),
        (
            patched(46, 0x40), "drop_tcp_offset",
            "the upper half of byte 46 says 4 words, 16 bytes; 20 is the least, and the segment has 20",
        ),
        (
            request(layer=UDP(sport=1, dport=53, len=7)), "drop_udp_length",
            "bytes 38 and on say 7; 8 is the least, and the datagram has room for 8",
        ),
    ],
)  # fmt: skip
def test_malformed_frames_explain_their_verdict(run: Run, frame: bytes, verdict: str, detail: str) -> None:
    (found,) = explained(run, frame.hex())["frames"]
    assert found["verdict"] == verdict
    assert detail in found["hints"][0]
    assert found["hints"][0].startswith("malformed: ")
    assert (found["flow"], found["edits"], found["after"]) == (None, [], None)
    assert f"verdict: {verdict}: {found['reason']}" in run(frame.hex()).stdout


def test_a_field_that_is_cut_off_is_not_shown() -> None:
    whole = list(fields.fields(request()))
    for size in range(len(request())):
        here = [field for field in whole if field.offset + len(field.data) <= size]
        assert list(fields.fields(request()[:size])) == here


def test_every_verdict_of_a_malformed_frame_has_its_numbers() -> None:
    bad = {verdict for name, verdict in vars(abi).items() if re.match("DROP_(SHORT|IP_|TCP_|UDP_)", name)}
    assert fields._DETAILS.keys() == bad


@given(st.binary(max_size=80), st.booleans())
def test_any_bytes_are_explained(data: bytes, behind_a_good_start: bool) -> None:
    frame = request()[: len(data) % 55] + data if behind_a_good_start else data
    outcome = SHARED.see(frame)
    listed = list(fields.fields(frame))
    assert all(frame[f.offset : f.offset + len(f.data)] == f.data for f in listed)
    assert list(hints.near(outcome, SHARED.tables)) or outcome.decision.verdict not in fields._DETAILS
    assert isinstance(list(hints.sums(outcome)), list)


# The arithmetic of the checksums.


def sum_lines(frame: bytes, text: str = NAT) -> list[dict[str, Any]]:
    return list(hints.sums(what_if(text).see(frame)))


@given(st.integers(0, 65535), st.integers(2, 255), st.binary(max_size=9), st.booleans())
def test_the_sums_that_are_shown_are_those_that_were_made(
    sport: int, ttl: int, data: bytes, is_udp: bool
) -> None:
    layer = UDP(sport=sport, dport=53) if is_udp else TCP(sport=sport, dport=80)
    ether = Ether(src="02:00:00:00:00:01", dst=OUR_MAC)
    frame = bytes(ether / IP(src="10.77.0.1", dst="10.77.0.100", ttl=ttl) / layer / data)
    shown = list(hints.sums(SHARED.see(frame)))
    assert [each["field"] for each in shown] == ["ip.checksum", "udp.checksum" if is_udp else "tcp.checksum"]
    for each in shown:
        old, change, new = (int(each[key], 16) for key in ("old", "change", "new"))
        made = update(old, change)
        assert new == (0xFFFF if is_udp and each["field"] == "udp.checksum" and not made else made)
        assert f"~(~0x{old:04x} + 0x{change:04x}) = 0x{new:04x} (RFC 1624)" in each["text"]


@pytest.mark.parametrize("before", range(4))
def test_the_sum_of_a_clamped_syn_covers_its_mss(before: int) -> None:
    layer = TCP(sport=9, dport=80, flags="S", options=[("NOP", None)] * before + [("MSS", 1460)])
    ether = Ether(src="02:00:00:00:00:01", dst=OUR_MAC)
    frame = bytes(ether / IP(src="10.77.0.1", dst="10.77.0.100") / layer)
    outcome = what_if(NAT.replace('mode = "nat"', 'mode = "nat"\nmss_clamp = 1000', 1)).see(frame)
    lines = [line.split() for line in render.comparison(outcome.decision)]
    assert ["tcp.mss", "1460", "1000", "*"] in lines
    shown = {each["field"]: each for each in hints.sums(outcome)}["tcp.checksum"]
    old, change, new = (int(shown[key], 16) for key in ("old", "change", "new"))
    assert new == update(old, change)


def test_a_partial_sum_is_seen_and_updated_as_one() -> None:
    frame = bytearray(request())
    headers = parse_headers(bytes(frame))
    assert isinstance(headers, Headers)
    pseudo = pseudo_header(headers.src, headers.dst, ipv4.TCP, 20)
    frame[50:52] = pseudo.to_bytes(2, "big")
    outcome = SHARED.see(bytes(frame))
    assert outcome.l4_sum == PARTIAL
    assert "tcp.dport" in [edit[0] for edit in outcome.decision.edits], "which a partial sum does not cover"
    shown = list(hints.sums(outcome))
    assert shown[1]["partial"]
    old, change, new = (int(shown[1][key], 16) for key in ("old", "change", "new"))
    assert (old, new) == (pseudo, update_partial(old, change))
    assert "the sender left the rest to its network card" in shown[-1]["text"]
    assert "network card" in sum_lines(bytes(frame), DSR)[-1]["text"]


def test_what_a_checksum_is() -> None:
    wrong = request()[:50] + b"\xde\xad" + request()[52:]
    none = request(layer=UDP(sport=1, dport=53, chksum=0))
    padded = request(layer=UDP(sport=1, dport=53)) + b"\xff" * 18
    for frame, kind in ((request(), RIGHT), (wrong, WRONG), (none, NONE), (padded, RIGHT)):
        headers = parse_headers(frame)
        assert isinstance(headers, Headers)
        assert state_of_sum(frame, headers) == kind
    assert "wrong for these bytes" in sum_lines(wrong)[-1]["text"]
    assert "it stays so (RFC 768)" in sum_lines(none)[-1]["text"]


# What is assumed.


def test_the_balancers_mac_is_learned_from_the_first_frame_to_a_vip() -> None:
    other = bytes(
        Ether(dst="02:00:00:00:00:77", src=INNER_MAC) / IP(src="10.77.0.1", dst="10.77.0.9") / TCP()
    )
    seen = what_if()
    assert seen.see(other).decision.name == "pass_not_ours", "nothing says yet that it is not us"
    assert seen.see(request()).decision.name == "forward"
    assert seen.see(other).decision.name == "pass_other_mac"
    assert seen.own_mac() == bytes.fromhex("020000000002")


def test_an_interface_of_that_name_has_its_own_mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lab-none0").mkdir()
    (tmp_path / "lab-none0" / "address").write_text("02:00:00:00:00:55\n")
    monkeypatch.setattr(whatif, "_SYS", tmp_path)
    seen = what_if(DSR)
    assert seen.own_mac() == bytes.fromhex("020000000055")
    stranger = bytes(Ether(dst="02:00:00:00:00:77") / IP(src="10.77.0.1", dst="10.77.0.9") / TCP())
    assert seen.see(stranger).decision.name == "pass_other_mac"
    assert seen.see(request()).decision.edits[1][3] == bytes.fromhex("020000000002"), "the frame knows better"


def test_the_kept_ring_seed_is_used_and_none_is_made(run: Run, tmp_path: Path) -> None:
    Path("l4raw.toml").write_text(DSR.replace('ring_seed = "demo"\n', ""))
    assert "ring seed: cannot read" in run(FLOW).stdout
    assert not (tmp_path / "seeds").exists()
    (tmp_path / "seeds").mkdir()
    kept = tmp_path / "seeds" / "ring_seed"
    kept.write_text("demo\n")
    assert "ring seed: cannot read" in run(FLOW).stdout
    kept.write_text("d3" * 32 + "\n")
    Path("named.toml").write_text(DSR.replace('"demo"', f'"{"d3" * 32}"'))
    with_kept = explained(run, FLOW)
    assert with_kept["frames"][0]["pick"] == explained(run, FLOW, "-c", "named.toml")["frames"][0]["pick"]
    assert not any("ring seed" in sentence for sentence in with_kept["assumed"])
    assert any("every backend is up" in sentence for sentence in with_kept["assumed"])


def test_text_and_json_say_the_same(run: Run) -> None:
    (frame,) = explained(run, FLOW, "-c", "nat.toml")["frames"]
    text = run(FLOW, "-c", "nat.toml").stdout
    for field in frame["fields"]:
        assert re.search(
            rf"^ +{field['offset']}  {re.escape(field['field'])} +{re.escape(field['value'])}$", text, re.M
        )
    assert f"{frame['pick']['text']} -> {frame['backend']['name']}" in text
    for each in frame["checksums"]:
        assert each["text"] in text
    marked = re.findall(r"^  ([a-z.]+) .*\*$", text, re.MULTILINE)
    assert sorted(marked) == sorted(edit["field"] for edit in frame["edits"])


def test_a_5_tuple_needs_no_scapy_and_no_netlink() -> None:
    code = (
        "import sys\nfrom l4raw.cli.main import cli\n"
        f"try: cli(['explain', '-c', {str(ROOT / 'l4raw/control/template.toml')!r}, {FLOW!r}])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert not {'scapy', 'pyroute2', 'rich'} & {name.split('.')[0] for name in sys.modules}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
