"""What the plan says of a service beside its backends."""

from __future__ import annotations

from pathlib import Path

import pytest

from l4raw.control.config import parse
from l4raw.control.netlink import Interface
from l4raw.control.plan import steps

TEXT = """\
[lb]
interfaces = ["eth0"]

[[service]]
name = "web"
vip = "10.77.0.100:80/tcp"
mode = "{mode}"
{keys}
backends = [{{ name = "b1", address = "10.77.0.11" }}]
"""


def besides(mode: str, keys: str, folder: Path) -> list[str]:
    """The parts of the service's line that follow its backends."""
    config = parse(TEXT.format(mode=mode, keys=keys), Path("l4raw.toml")).config
    arm = Interface("eth0", 1, bytes(6), True, 1500, ((bytes([10, 77, 0, 2]), 24),))
    (line,) = (what for kind, what in steps(config, [arm], "test", folder, folder) if kind == "service")
    first, *rest = line.split("; ")
    assert first == f"web 10.77.0.100:80/tcp {mode} maglev: b1 10.77.0.11"
    return rest


@pytest.mark.parametrize(
    ("mode", "keys", "said"),
    [
        ("dsr-l2", "", []),
        ("dsr-ipip", "", ["outer source the kernel's choice, TTL 64"]),
        (
            "dsr-gue",
            'tunnel = { source = "10.77.0.2", ttl = 3 }\nmss_clamp = 1400',
            ["outer source 10.77.0.2, UDP port 6080, TTL 3", "MSS 1400 at most"],
        ),
        ("fullnat", 'snat = [{ address = "10.77.0.5" }]', ["source 10.77.0.5:1024-65535"]),
        (
            "nat",
            'acl = { allow = ["10.0.0.0/8"], deny = ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.1", "10.4.0.1"] }',
            ["allowed 10.0.0.0/8", "denied 10.1.0.0/16, 10.2.0.0/16, 10.3.0.1/32 and 1 more"],
        ),
        (
            "nat",
            'limits = { flows = 10, client_new_per_s = 2 }\naffinity = "5m"\nfull = "evict-oldest"',
            ["limits flows 10, client_new_per_s 2", "affinity 300s", "full evict-oldest"],
        ),
    ],
)
def test_what_is_not_the_default_is_said(mode: str, keys: str, said: list[str], tmp_path: Path) -> None:
    assert besides(mode, keys, tmp_path) == said


@pytest.mark.parametrize(("dataplane", "tests"), [("auto", 1), ("xdp", 1), ("af_xdp", 0), ("raw", 0)])
def test_test_frames_are_planned_where_the_kernel_may_forward(
    dataplane: str, tests: int, tmp_path: Path
) -> None:
    text = TEXT.format(mode="nat", keys="").replace("[[", f'dataplane = "{dataplane}"\n[[', 1)
    config = parse(text, Path("l4raw.toml")).config
    arm = Interface("eth0", 1, bytes.fromhex("020000000002"), True, 1500, ())
    said = [what for kind, what in steps(config, [arm], "test", tmp_path, tmp_path) if kind == "test"]
    assert said == tests * [
        "4 frames out of eth0, from and to 02:00:00:00:00:02, EtherType 0x88b5:"
        " does it send what XDP redirects to it"
    ]
