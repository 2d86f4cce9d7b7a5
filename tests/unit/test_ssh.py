"""Which TCP sockets are SSH sessions, from the text of /proc/net/tcp."""

from __future__ import annotations

import sys
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4raw.control import ssh
from l4raw.control.errors import L4Error
from l4raw.control.ssh import parse_sockets, require_ssh_safe, ssh_connections

HEADING = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
# The port is the one that sshd listens on (2222), a stranger's (8080), or 22.
LISTEN = (0, "0.0.0.0", 2222, "0.0.0.0", 0x0A, 100)
ON_2222 = (1, "192.0.2.1", 2222, "198.51.100.7", 0x01, 101)
ON_22 = (2, "192.0.2.1", 22, "198.51.100.8", 0x01, 102)
ON_8080 = (3, "192.0.2.1", 8080, "198.51.100.9", 0x01, 103)
CLOSING = (4, "192.0.2.1", 22, "198.51.100.10", 0x08, 104)
OUTGOING = (5, "192.0.2.1", 50000, "198.51.100.22", 0x01, 105)


def line(number: int, local: str, port: int, remote: str, state: int, inode: int) -> str:
    first, second = (
        f"{int.from_bytes(IPv4Address(address).packed, sys.byteorder):08X}" for address in (local, remote)
    )
    return (
        f"   {number}: {first}:{port:04X} {second}:C350 {state:02X} 00000000:00000000 00:00000000 00000000"
        f"     0        0 {inode} 1 0000000000000000 100 0 0 10 0\n"
    )


TEXT = HEADING + "".join(line(*row) for row in (LISTEN, ON_2222, ON_22, ON_8080, CLOSING, OUTGOING))


def clients(of_sshd: set[int]) -> list[str]:
    return [str(found.remote) for found in ssh_connections(parse_sockets(TEXT), of_sshd)]


def test_the_established_sessions_on_port_22_count_without_knowing_any_process() -> None:
    assert clients(set()) == ["198.51.100.8"]


def test_sessions_on_a_port_that_sshd_listens_on_count() -> None:
    assert clients({100}) == ["198.51.100.7", "198.51.100.8"]


def test_a_session_whose_socket_was_handed_to_sshd_counts() -> None:
    assert clients({103}) == ["198.51.100.8", "198.51.100.9"]


def test_ipv6_and_mapped_addresses() -> None:
    mapped, plain = "::ffff:192.0.2.1", "2001:db8::1"
    words = [
        "".join(
            f"{int.from_bytes(IPv6Address(address).packed[i : i + 4], sys.byteorder):08X}"
            for i in range(0, 16, 4)
        )
        for address in (mapped, plain)
    ]
    rest = "00000000:00000000 00:00000000 00000000 0 0 7 1 0"
    text = HEADING + "".join(f" 0: {word}:0016 {word}:C350 01 {rest}\n" for word in words)
    assert [found.local for found in parse_sockets(text)] == [IPv4Address("192.0.2.1"), IPv6Address(plain)]


@given(st.text())
def test_any_text_is_read_without_an_exception(text: str) -> None:
    assert parse_sockets(HEADING + text) is not None


def test_only_a_dataplane_that_takes_traffic_needs_the_risk_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "established_ssh", lambda _: ["198.51.100.8"])
    require_ssh_safe("eth0", dataplane_takes_traffic=False, accept=False)
    require_ssh_safe("eth0", dataplane_takes_traffic=True, accept=True)
    with pytest.raises(L4Error, match=r"eth0 carries the SSH connection from 198\.51\.100\.8") as caught:
        require_ssh_safe("eth0", dataplane_takes_traffic=True, accept=False)
    assert (caught.value.code, caught.value.exit_code) == ("L4R-203", 4)
    assert "--accept-risk=lose-ssh" in caught.value.fix
    monkeypatch.setattr(ssh, "established_ssh", lambda _: [])
    require_ssh_safe("eth0", dataplane_takes_traffic=True, accept=False)
