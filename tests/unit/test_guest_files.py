"""What a guest starts with: modules, in order, and the archive that carries them. No QEMU here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.qemu.initramfs import archive
from tests.qemu.kernels import Kernel

DEPENDS = """\
kernel/net/ipv4/ipip.ko.xz: kernel/net/ipv4/tunnel4.ko.xz kernel/net/ipv4/ip_tunnel.ko.xz
kernel/net/ipv4/ip_tunnel.ko.xz:
kernel/net/ipv4/tunnel4.ko.xz:
kernel/drivers/char/hw_random/virtio-rng.ko.xz:
"""


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    found = Kernel("6.12", "6.12.1-amd64", tmp_path)
    found.modules.mkdir(parents=True)
    (found.modules / "modules.dep").write_text(DEPENDS)
    (found.modules / "modules.builtin").write_text("kernel/drivers/virtio/virtio_pci.ko\n")
    return found


def test_what_a_module_depends_on_comes_before_it_and_once(kernel: Kernel) -> None:
    order = kernel.load_order("virtio_pci", "ipip", "ip_tunnel", "virtio_rng")
    assert [path.name.partition(".")[0] for path in order] == ["ip_tunnel", "tunnel4", "ipip", "virtio-rng"]
    assert all(path.is_relative_to(kernel.modules) for path in order)


def test_a_module_that_is_not_there_is_named(kernel: Kernel) -> None:
    with pytest.raises(KeyError, match="sctp"):
        kernel.load_order("ipip", "sctp")


def test_an_archive_has_its_folders_first_and_all_is_aligned() -> None:
    files = {"init": b"#!/x", "files/etc/motd": b"12345", "files/etc/empty": b""}
    packed, at, found = archive(files), 0, {}
    while at < len(packed):
        assert at % 4 == 0 and packed[at : at + 6] == b"070701"
        fields = [int(packed[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        size, length = fields[6], fields[11]
        name = packed[at + 110 : at + 110 + length].removesuffix(b"\0").decode()
        begin = (at + 110 + length + 3) & ~3
        found[name] = (fields[1], packed[begin : begin + size])
        at = (begin + size + 3) & ~3
    folder = (0o040755, b"")
    assert list(found) == ["init", "files", "files/etc", "files/etc/motd", "files/etc/empty", "TRAILER!!!"]
    assert found["files"] == found["files/etc"] == folder
    assert {name: data for name, (mode, data) in found.items() if mode == 0o100755} == files
