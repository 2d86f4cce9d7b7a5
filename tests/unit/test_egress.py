"""Test frames, and what drivers' counters say of them; no interface is used."""

from __future__ import annotations

from typing import Any

import pytest

from l4raw.control import egress
from l4raw.control.egress import FRAMES, Counts, DriverCounters, Egress, Outcome
from l4raw.control.netlink import Interface
from l4raw.engine.egress import SIZE, frame

MAC = bytes.fromhex("020000000002")
ARM = Interface("eth0", 7, MAC, True, 1500, ())


def test_a_test_frame_is_from_and_to_its_interface_and_for_nobody() -> None:
    made = frame(MAC)
    assert len(made) == SIZE == 60
    assert made[:14] == MAC + MAC + b"\x88\xb5"
    assert b"l4raw" in made


VETH = {
    "peer_ifindex": 8,
    "rx_queue_0_xdp_packets": 1,
    "rx_queue_0_drops": 2,
    "rx_queue_0_xdp_redirect": 4,
    "rx_queue_0_xdp_tx": 8,
    "rx_queue_0_xdp_tx_errors": 16,
    "tx_queue_0_xdp_xmit": 100,
    "tx_queue_1_xdp_xmit": 1000,
    "tx_queue_0_xdp_xmit_errors": 30,
    "tx_queue_1_xdp_xmit_errors": 300,
}
VIRTIO = {"rx_queue_0_xdp_tx": 1, "tx_queue_0_xdp_tx": 7, "tx_queue_0_xdp_tx_drops": 5}
MLX5 = {
    "rx_xdp_tx_xmit": 1,
    "tx_xdp_xmit": 9,
    "tx_xdp_full": 3,
    "tx_xdp_err": 1,
    "tx_xdp_cqes": 50,
    "tx0_xdp_xmit": 4,
    "tx1_xdp_xmit": 5,
    "tx0_xdp_full": 3,
    "tx1_xdp_err": 1,
}
OTHERS = {"tx_packets": 5, "rx_xdp_drop": 6}


@pytest.mark.parametrize(
    ("statistics", "counts"),
    [
        (VETH, Counts(1100, 330, True)),
        (VIRTIO, Counts(7, 5, True)),
        (MLX5, Counts(9, 4, True)),
        (OTHERS, Counts(4321, 0, False)),
        (None, Counts(4321, 0, False)),
    ],
    ids=["veth", "virtio_net", "mlx5", "others", "none"],
)
def test_counters_of_redirected_frames_are_found_by_name(
    statistics: dict[str, int] | None, counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ethtool:
        def __init__(self, name: str) -> None:
            assert name == "eth0"

        def get_statistics(self) -> list[tuple[str, int]]:
            if statistics is None:
                raise OSError(95, "Operation not supported")
            return list(statistics.items())

    monkeypatch.setattr("pyroute2.ethtool.ioctl.IoctlEthtool", Ethtool)
    monkeypatch.setattr(egress, "_sent", lambda name: 4321)
    assert DriverCounters("eth0").read() == counts


class Driver:
    """What a test finds: the counters of its driver, and frames that reach it or not."""

    def __init__(self, own: bool, takes: int, refuses: int = 0, noise: int = 0) -> None:
        self.own, self.takes, self.refuses, self.noise = own, takes, refuses, noise
        self.taken = self.refused = self.sent = 0

    def read(self) -> Counts:
        self.taken += self.noise
        return Counts(self.taken, self.refused, self.own)

    def send(self, interface: int, mac: bytes, count: int) -> bool:
        assert (interface, mac, count) == (7, MAC, FRAMES)
        self.sent += count
        self.taken += self.takes
        self.refused += self.refuses
        return True

    def close(self) -> None:
        pass


def trial_of(driver: Any, monkeypatch: pytest.MonkeyPatch) -> egress.Trial:
    monkeypatch.setattr(egress, "DriverCounters", lambda name: driver)
    monkeypatch.setattr("l4raw.engine.egress.TrialFrames", lambda: driver)
    monkeypatch.setattr(egress, "_COUNTED_S", 0.002)
    made = Egress([ARM])
    made.close()
    assert driver.sent == FRAMES
    assert str(made) == f"eth0 {made.tested[0]}"
    return made.tested[0]


@pytest.mark.parametrize(
    ("driver", "outcome", "why"),
    [
        (Driver(True, FRAMES), Outcome.SENT, ""),
        (Driver(True, 0), Outcome.DROPPED, "test frames have vanished"),
        (Driver(True, 0, refuses=FRAMES), Outcome.UNKNOWN, "no room"),
        (Driver(False, FRAMES), Outcome.SENT, ""),
        (Driver(False, 0), Outcome.UNKNOWN, "has not counted"),
        (Driver(False, FRAMES, noise=FRAMES), Outcome.UNKNOWN, "sends much else"),
    ],
    ids=["sent", "dropped", "full", "sent, by the one counter", "not counted", "noise"],
)
def test_what_counters_say(
    driver: Driver, outcome: Outcome, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = trial_of(driver, monkeypatch)
    assert found.outcome is outcome and why in found.why and bool(found.why) == bool(why)


def test_what_cannot_be_sent_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise OSError(1, "Operation not permitted\nand more")

    monkeypatch.setattr(egress, "DriverCounters", lambda name: Driver(True, 0))
    monkeypatch.setattr("l4raw.engine.egress.TrialFrames", refused)
    (found,) = Egress([ARM]).tested
    assert found == (Outcome.UNKNOWN, "no test frame can be sent: Operation not permitted")


def test_an_interface_that_has_gone_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(Driver):
        def read(self) -> Counts:
            raise OSError(19, "no such interface", "eth0")

    monkeypatch.setattr(egress, "DriverCounters", lambda name: Gone(True, 0))
    monkeypatch.setattr("l4raw.engine.egress.TrialFrames", lambda: Gone(True, 0))
    assert Egress([ARM]).tested == [(Outcome.UNKNOWN, "a test frame: no such interface")]


def test_what_an_interface_has_sent_is_read() -> None:
    assert egress._sent("lo") >= 0
    with pytest.raises(OSError, match="no such interface"):
        egress._sent("none0")
