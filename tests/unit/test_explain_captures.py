"""`l4raw explain` of captures from a balancer: its own frames, its MACs, the interface, the ring seed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

from l4raw.cli import hints
from l4raw.control import seed, whatif
from l4raw.control.codes import REGISTRY
from tests.unit.test_explain import DSR, FLOW, NAT, OUR_MAC, Run, answer, explained, request, what_if
from tests.unit.test_explain import run as run  # the fixture

ROOT = Path(__file__).resolve().parents[2]
CLIENT_MAC, B1_MAC, B2_MAC = "02:00:00:00:00:01", "02:00:00:00:00:11", "02:00:00:00:00:12"
SENT = "sent by the balancer itself"


def there(sport: int) -> list[bytes]:
    """A request as a one-arm balancer receives it, and as it sends it on: both are on its wire."""
    received = request(sport)
    onward = bytes.fromhex((B1_MAC if sport % 2 else B2_MAC).replace(":", ""))
    return [received, onward + bytes.fromhex(OUR_MAC.replace(":", "")) + received[12:]]


def capture(*frames: bytes) -> str:
    wrpcap("c.pcap", [Ether(frame) for frame in frames])
    return "c.pcap"


def verdicts(data: dict[str, Any]) -> list[str]:
    return [frame["verdict"] for frame in data["frames"]]


def onward_first() -> str:
    """A capture that begins with what the balancer sent."""
    return capture(there(1)[1], *(frame for sport in range(2, 9) for frame in there(sport)))


@pytest.mark.parametrize("args", [(), ("--mac", OUR_MAC)])
def test_a_capture_that_begins_with_what_the_balancer_sent(run: Run, args: tuple[str, ...]) -> None:
    data = explained(run, onward_first(), *args)
    assert data["verdicts"] == {"forward": 7, "pass_other_mac": 8}
    sent = [frame for frame in data["frames"] if frame["verdict"] == "pass_other_mac"]
    assert all(SENT in frame["hints"][0] for frame in sent)
    assumed = ["assumed from the capture" in frame["hints"][0] for frame in sent]
    assert set(assumed) == {not args}


def test_the_mac_of_an_interface_of_this_host_is_ours_if_the_capture_has_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lab-none0").mkdir()
    (tmp_path / "lab-none0" / "address").write_text(f"{OUR_MAC}\n")
    monkeypatch.setattr(whatif, "_SYS", tmp_path)
    # Only frames that were sent to us, and before them one to a neighbour: no frame has our source.
    data = explained(run, capture(there(1)[1][:6] + request()[6:], request()))
    assert verdicts(data) == ["pass_other_mac", "forward"]


def test_an_inferred_mac_is_said_to_be_one(run: Run) -> None:
    stranger = bytes(Ether(src=CLIENT_MAC, dst=B1_MAC) / IP(src="10.77.0.1", dst="10.77.0.9") / TCP())
    name = capture(request(), stranger)
    (hint,) = explained(run, name)["frames"][1]["hints"]
    assert hint == f"near miss: lab-none0 has the MAC {OUR_MAC} (assumed from the capture; --mac states it)"
    (hint,) = explained(run, name, "--mac", OUR_MAC.upper())["frames"][1]["hints"]
    assert hint == f"near miss: lab-none0 has the MAC {OUR_MAC}"


def test_stated_macs_are_no_assumption(run: Run) -> None:
    text = run(FLOW, "--mac", "02:00:00:00:00:77").stdout
    assert "balancer's is the one that the frame is sent to" not in text
    assert re.search(r"^ +0  eth\.dst +02:00:00:00:00:77$", text, re.MULTILINE)
    both = ("--mac", OUR_MAC, "--mac", "02:00:00:00:00:78", "-c", "nat.toml")
    after = explained(run, request().hex(), *both)["frames"][0]["after"]
    assert after[12:24] == "020000000078", "in the order of the interfaces"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--mac", "02:00"), "is no MAC address"),
        (("--mac", "zz:00:00:00:00:00"), "is no MAC address"),
        (("--mac", "ff:ff:ff:ff:ff:ff"), "is no address of one interface"),
        (("--mac", OUR_MAC, "--mac", B1_MAC), "2 MAC addresses for 1 interface"),
        (("--arm", "eth9"), 'there is "lab-none0"'),
    ],
)
def test_a_wrong_mac_or_arm_is_wrong_usage(run: Run, args: tuple[str, ...], words: str) -> None:
    result = run(FLOW, *args)
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_capture_of_the_second_interface(run: Run) -> None:
    """Without the clients' frames there are no flows, so nothing is ours; that is said once."""
    first = explained(run, request().hex(), "-c", "nat.toml")["frames"][0]
    name = capture(bytes.fromhex(first["after"]), answer(first["backend"]["address"]))
    data = explained(run, name, "-c", "nat.toml")
    assert verdicts(data) == ["pass_not_ours", "pass_not_ours"]
    text = run(name, "-c", "nat.toml").stdout
    assert "--arm lab-none1" in text.splitlines()[-1]
    assert "mergecap" in text.splitlines()[-1]
    data = explained(run, name, "-c", "nat.toml", "--arm", "lab-none1")
    assert [frame["interface_in"] for frame in data["frames"]] == ["lab-none1"] * 2
    assert "--arm" not in run(name, "-c", "nat.toml", "--arm", "lab-none1").stdout
    assert "--arm" not in run(capture(request()), "-c", "nat.toml").stdout


def test_the_recipe_is_the_one_of_the_error() -> None:
    recipe = "tcpdump --immediate-mode -Q in -i FIRST_INTERFACE -w FILE dst host VIP"
    assert f"`{recipe}`" in REGISTRY["L4R-403"].fix
    text = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    assert f"sudo {recipe}\n" in text


# Martians.


@pytest.mark.parametrize(
    ("source", "mac", "words"),
    [
        ("127.0.0.1", CLIENT_MAC, "127.0.0.1 is a loopback address"),
        ("0.1.2.3", CLIENT_MAC, "0.1.2.3 is of 0.0.0.0/8"),
        ("224.0.0.9", CLIENT_MAC, "224.0.0.9 is a multicast"),
        ("10.77.0.100", CLIENT_MAC, "10.77.0.100 is a VIP"),
        ("10.77.0.1", "01:00:5e:00:00:01", "01:00:5e:00:00:01 is no address of one interface"),
        ("10.77.0.1", OUR_MAC, SENT),
    ],
)
def test_a_martian_has_its_reason(run: Run, source: str, mac: str, words: str) -> None:
    frame = bytes(Ether(src=mac, dst=OUR_MAC) / IP(src=source, dst="10.77.0.100") / UDP(sport=9, dport=53))
    (found,) = explained(run, frame.hex())["frames"]
    assert found["verdict"] == "drop_martian"
    assert words in found["hints"][0]


def test_an_address_of_the_host_is_a_martian_too() -> None:
    seen = what_if(DSR)
    seen.tables.local = frozenset({bytes([10, 77, 0, 1])})
    outcome = seen.see(request())
    assert list(hints.near(outcome, seen.tables)) == [
        "near miss: no client can have this source: 10.77.0.1 is an address of this host"
    ]


# The ring seed.

NO_SEED = DSR.replace('ring_seed = "demo"\n', "")
MARK = "assumed ring seed"


def test_an_answer_with_an_assumed_seed_says_so_itself(run: Run, tmp_path: Path) -> None:
    Path("l4raw.toml").write_text(NO_SEED)
    text = run(FLOW).stdout
    (line,) = re.findall(r"^backend: .*$", text, re.MULTILINE)
    assert MARK in line
    assert "run as root" in line
    assert "ring_seed" in line
    (frame,) = explained(run, FLOW)["frames"]
    assert frame["assumed_ring_seed"] is True
    assert run(FLOW, "--plain").stdout.endswith(f"\t{MARK}\n")
    (tmp_path / "seeds").mkdir()
    (tmp_path / "seeds" / "ring_seed").write_text("d3" * 32 + "\n")
    assert MARK not in run(FLOW).stdout
    assert explained(run, FLOW)["frames"][0]["assumed_ring_seed"] is False


def test_a_known_flow_has_the_mark_too(run: Run) -> None:
    Path("l4raw.toml").write_text(NO_SEED)
    data = explained(run, capture(request(), request(flags="A")))
    assert [frame["assumed_ring_seed"] for frame in data["frames"]] == [True, True]


@pytest.mark.parametrize(
    "sentence", ["10.77.0.1:9 -> 10.77.0.100:53/udp", "10.77.0.1:9 -> 10.77.0.100:99/tcp"]
)
def test_what_no_seed_decides_has_no_mark(run: Run, sentence: str) -> None:
    Path("l4raw.toml").write_text(NO_SEED)
    assert explained(run, sentence)["frames"][0]["assumed_ring_seed"] is False
    assert MARK not in "\n".join(run(sentence).stdout.splitlines()[5:])


def test_a_users_own_seed_is_not_that_of_roots_balancer(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who has run a balancer of his own has a seed, beside that of /var/lib/l4raw."""
    monkeypatch.delenv("L4RAW_STATE_DIR")
    monkeypatch.setattr("os.geteuid", lambda: 4_000_000)
    monkeypatch.setattr(seed, "SYSTEM", tmp_path / "system")
    Path("l4raw.toml").write_text(NO_SEED)
    (tmp_path / "state" / "l4raw").mkdir(parents=True)
    (tmp_path / "state" / "l4raw" / "ring_seed").write_text("d3" * 32 + "\n")
    assert MARK not in run(FLOW).stdout
    (tmp_path / "system").mkdir()
    assert MARK in run(FLOW).stdout
    assert any(str(tmp_path / "system") in sentence for sentence in explained(run, FLOW)["assumed"])


def test_a_reply_under_an_assumed_seed_may_miss_its_flow(run: Run) -> None:
    Path("nat.toml").write_text(NAT.replace('ring_seed = "demo"\n', ""))
    (found,) = explained(run, answer("10.77.0.11").hex(), "-c", "nat.toml")["frames"]
    assert MARK in found["hints"][0]
    assert json.loads(run(FLOW, "--json").stdout)["data"]["frames"][0]["assumed_ring_seed"] is False
