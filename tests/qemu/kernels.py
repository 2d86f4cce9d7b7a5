"""Debian's kernels: fetched once by apt, verified by its signatures, unpacked into a cache.

Lives here: which release has which kernel, and what is kept of a package. Must
not live here: booting (guest.py).

apt runs with state folders of its own, so the machine's lists and installed
packages are neither asked nor changed, and a release other than the machine's
can be had. Of the images, -amd64 is taken: -cloud-amd64 has no 9p.

    CACHE/linux-6.1/image
    CACHE/linux-6.1/busybox                       for the initramfs; the machine's may need libraries
    CACHE/linux-6.1/lib/modules/6.1.0-56-amd64/   with modules.dep, by depmod

A kernel in the cache is never looked up again: remove its folder to have the newest.
"""

from __future__ import annotations

import lzma
import os
import platform
import struct
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from l4raw.netns.process import environment, temporary_folder

DEBIAN: Final = {"6.1": "bookworm", "6.12": "trixie"}
"""Kernel and the release that has it."""
MIRROR: Final = "http://deb.debian.org/debian"
KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
DOWNLOAD_S: Final = 900.0
"""apt fetches lists of 10 MB and a package of up to 110 MB."""

_DRIVERS: Final = ("block", "char", "net", "ptp", "virtio")
"""Of drivers/, what has devices that are no hardware. All of it would be 300 MB more."""
_XZ: Final = b"\xfd7zXZ\0"


class KernelError(RuntimeError):
    """A kernel could not be fetched. The text has what apt said."""


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel."""

    version: str
    """As in DEBIAN."""
    release: str
    """As `uname -r` prints it."""
    root: Path
    """What /lib/modules is in."""

    @property
    def image(self) -> Path:
        return self.root / "image"

    @property
    def busybox(self) -> Path:
        return self.root / "busybox"

    @property
    def modules(self) -> Path:
        return self.root / "lib" / "modules" / self.release

    def load_order(self, *names: str) -> list[Path]:
        """The files of these modules and of those they depend on, in the order to load them.

        What is compiled into the kernel has no file. Raises KeyError for what it has not at all.
        """
        needs: dict[str, list[Path]] = {}
        for line in (self.modules / "modules.dep").read_text().splitlines():
            file, _, rest = line.partition(":")
            needs[_name(file)] = [self.modules / each for each in [*reversed(rest.split()), file]]
        for line in (self.modules / "modules.builtin").read_text().splitlines():
            needs.setdefault(_name(line), [])
        return list(dict.fromkeys(path for name in names for path in needs[_name(name)]))


def kernel(version: str) -> Kernel:
    """The newest kernel of the release that has `version`; fetched if it is not in the cache.

    Raises KernelError when that fails, KeyError for a version that is not in DEBIAN.
    """
    suite, place = DEBIAN[version], cache() / f"linux-{version}"
    if not place.exists():
        if platform.machine() != "x86_64":
            raise KernelError(f"guests are x86-64 and share their root with this {platform.machine()}")
        place.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(f"{place}-") as folder:
            _fetch(suite, folder)
            try:
                (folder / "unpacked").rename(place)
            except OSError:
                if not place.exists():  # else another process was faster
                    raise
    (release,) = (path.name for path in (place / "lib" / "modules").iterdir())
    return Kernel(version, release, place)


def cache() -> Path:
    """Where kernels are kept: L4RAW_CACHE, or l4raw/ in the user's cache folder."""
    if place := os.environ.get("L4RAW_CACHE"):
        return Path(place).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "l4raw"


def module_contents(module: Path) -> bytes:
    """A module as the kernel loads it."""
    packed = module.read_bytes()
    return lzma.decompress(packed) if module.suffix == ".xz" else packed


def _fetch(suite: str, folder: Path) -> None:
    """Download, verify and unpack the kernel of `suite` into folder/unpacked."""
    for name in ("lists/partial", "archives/partial", "sources", "unpacked"):
        (folder / name).mkdir(parents=True)
    (folder / "sources" / "debian.sources").write_text(
        f"Types: deb\nURIs: {MIRROR}\nSuites: {suite}\nComponents: main\nSigned-By: {KEYRING}\n"
    )
    (folder / "status").touch()
    options = {
        "Dir::State": folder,
        "Dir::State::Lists": folder / "lists",
        "Dir::State::Status": folder / "status",
        "Dir::Cache": folder,
        "Dir::Cache::Archives": folder / "archives",
        "Dir::Etc::SourceList": "/dev/null",
        "Dir::Etc::SourceParts": folder / "sources",
        "APT::Architecture": "amd64",
        "APT::Architectures": "amd64",
        "APT::Sandbox::User": "root",  # the user _apt may not enter the folder
        "Acquire::Languages": "none",
    }
    settings = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    _run(folder, "apt-get", *settings, "-q", "update")
    depends = _run(folder, "apt-cache", *settings, "depends", "linux-image-amd64")
    package = next(line.split()[1] for line in depends.splitlines() if "Depends:" in line)
    _run(folder, "apt-get", *settings, "-q", "download", package, "busybox-static")
    release = package.removeprefix("linux-image-")
    for deb in folder.glob("*.deb"):
        _unpack(deb, release, folder / "unpacked")
    _run(folder, "depmod", "-b", str(folder / "unpacked"), release)


def _unpack(deb: Path, release: str, place: Path) -> None:
    """Write what a guest may need of the package: image, modules, busybox."""
    base = f"lib/modules/{release}/"
    fixed = {f"boot/vmlinuz-{release}": "image", "bin/busybox": "busybox"}
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as tar,
    ):
        for member in tar:
            # Since Debian 13 packages say usr/lib.
            name = member.name.removeprefix("./").removeprefix("usr/")
            if name not in fixed and not (name.startswith(base) and _wanted(name.removeprefix(base))):
                continue
            if member.isfile() and (file := tar.extractfile(member)):
                path = place / fixed.get(name, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(_image(file.read()) if path.name == "image" else file.read())
    if process.returncode:
        raise KernelError(f"dpkg-deb cannot read {deb.name}")


def _image(packed: bytes) -> bytes:
    """What qemu should start: the ELF file within, where we can unpack it.

    A guest takes 10 seconds to unpack the XZ of 6.1, this process less than one. The
    Zstandard of 6.12 costs a guest one second. Fields: Linux, Documentation/arch/x86/boot.rst.
    """
    begin, length = struct.unpack_from("<II", packed, 0x248)  # payload_offset, payload_length
    begin += (packed[0x1F1] + 1) * 512  # setup_sects
    payload = packed[begin : begin + length]
    if not payload.startswith(_XZ):
        return packed
    return lzma.LZMADecompressor().decompress(payload)  # which ignores the size that follows


def _wanted(name: str) -> bool:
    """Whether a file of lib/modules/RELEASE/ is kept."""
    parts = name.split("/")
    if parts[:2] == ["kernel", "drivers"]:
        # drivers/net/veth.ko, but not drivers/net/ethernet/
        return len(parts) == 4 and parts[2] in _DRIVERS
    return parts[:2] != ["kernel", "sound"]


def _run(folder: Path, *argv: str) -> str:
    """Run a command in the folder and return its output."""
    done = subprocess.run(
        argv, cwd=folder, capture_output=True, text=True, timeout=DOWNLOAD_S, env=environment()
    )
    if done.returncode:
        raise KernelError(f"{' '.join((argv[0], argv[-1]))}: {done.stderr.strip()}")
    return done.stdout


def _name(path: str) -> str:
    """kernel/net/ipv6/ip6_tunnel.ko.xz is ip6_tunnel; a module's name says - for _ as well."""
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")
