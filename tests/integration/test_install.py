"""`pip install .` on a machine without a compiler: it succeeds, says what is missing, and forwards.

No network is needed: the build uses the packages that these tests run with.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from l4raw.netns import Log, Topology, dsr
from l4raw.netns.clients import curl
from l4raw.netns.servers import web

from tests.integration.capture import wait_for

pytestmark = pytest.mark.root

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("l4raw", "netns", "native", "setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "README.md")
BUILT = shutil.ignore_patterns("*.so", "*.bpf.o", "__pycache__", "*_not_built.txt")
PACKAGES = sysconfig.get_path("purelib")
"""Of the tests' own environment: what l4raw and its build depend on."""


@dataclass(frozen=True)
class Installed:
    """An installation of l4raw in an environment of its own."""

    folder: Path
    said: str
    """By `pip install -v`."""

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "PYTHONPATH": PACKAGES, "HOME": str(self.folder)}

    def run(self, *argv: str) -> str:
        """A program of the environment to its end; what it prints."""
        done = subprocess.run(
            [str(self.folder / "bin" / argv[0]), *argv[1:]],
            capture_output=True, text=True, env=self.environment, cwd="/", check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def install(folder: Path, *before: str, path: str) -> Installed:
    """Install a copy of this tree with pip; `before`: words in front of the command, `path`: its PATH."""
    tree, target = folder / "tree", folder / "environment"
    tree.mkdir()
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=BUILT)
        elif source.exists():
            shutil.copy(source, tree)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(target)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(target / "bin/python"), "install", "-v"]
    offline = ["--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check", "."]
    done = subprocess.run(
        [*before, *pip, *offline],
        capture_output=True, text=True, cwd=tree, check=False,
        env={"PATH": path, "PYTHONPATH": PACKAGES, "HOME": str(folder), "CC": "cc"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return Installed(target, done.stdout + done.stderr)


@pytest.fixture(scope="module")
def without_compiler(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Installed with a PATH on which there is nothing, so no `cc` either."""
    return install(tmp_path_factory.mktemp("no-compiler"), path="/nonexistent")


def test_it_says_what_is_missing(without_compiler: Installed) -> None:
    assert "the native part was NOT built: no C compiler: " in without_compiler.said
    assert "The raw engine is plain Python and complete" in without_compiler.said
    assert "the AF_XDP part was NOT built: no C compiler: " in without_compiler.said
    assert "the BPF program was NOT built: clang was not found" in without_compiler.said
    assert "no C compiler: " in without_compiler.run("l4raw", "version")
    status = without_compiler.run("python", "-m", "l4raw.engine.native")
    assert status.startswith("native part: not built: no C compiler: ")


def test_without_headers_it_says_so(tmp_path: Path) -> None:
    """In a mount namespace of its own there is no /usr/include."""
    hidden = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /usr/include && exec "$@"', "sh"]
    installed = install(tmp_path, *hidden, path=os.environ["PATH"])
    assert "Python's C headers are missing" in installed.run("l4raw", "version")


def versions(installed: Installed) -> dict[str, str]:
    lines = installed.run("l4raw", "version").splitlines()
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}


def tools(folder: Path, missing: str = "") -> str:
    """A PATH that has everything of /usr/bin but this, and a compiler that does not optimise.

    What is looked at is which parts are there. Optimised, which takes four times as long, `make build`
    has compiled them.
    """
    path = folder / "bin"
    path.mkdir()
    for program in Path("/usr/bin").iterdir():
        if program.name not in (missing, "cc"):
            (path / program.name).symlink_to(program)
    (path / "cc").write_text('#!/bin/sh\nexec /usr/bin/cc "$@" -O0\n')
    (path / "cc").chmod(0o755)
    return str(path)


def test_without_libxdp_it_says_so(tmp_path: Path) -> None:
    """And the native part, which does not need it, is built; and so is the BPF program."""
    installed = install(tmp_path, "env", "PKG_CONFIG_LIBDIR=/nonexistent", path=tools(tmp_path))
    assert "the AF_XDP part was NOT built: the headers of libxdp or libbpf are missing" in installed.said
    found = versions(installed)
    assert found["xdp"].startswith("not built: the headers of libxdp or libbpf are missing (Debian")
    assert found["native"].startswith("built")
    assert found["bpf"] == "built"
    said = installed.run("python", "-c", UMEM)
    assert said.startswith("loading l4raw._xdp: Function not implemented: not built: the headers of libxdp")


UMEM = """
from l4raw.xdp import Umem, XdpError
try:
    Umem()
except XdpError as error:
    print(error)
"""

PROGRAM = """
from l4raw.xdp import PassToSocket, XdpError
try:
    PassToSocket()
except XdpError as error:
    print(error)
"""


@pytest.mark.parametrize("missing", ["pkg-config", "clang", "llvm-strip"])
def test_without_a_tool_it_says_so(tmp_path: Path, missing: str) -> None:
    installed = install(tmp_path, path=tools(tmp_path, missing))
    found = versions(installed)
    part, other = ("xdp", "bpf") if missing == "pkg-config" else ("bpf", "xdp")
    assert found[part].startswith(f"not built: {missing} was not found (Debian, Ubuntu: apt install ")
    assert found[other].startswith("built")
    if part == "bpf":
        assert f"opening the BPF program pass_to_socket: No such file or directory: {missing} was not" in (
            installed.run("python", "-c", PROGRAM)
        )


def test_with_everything_all_is_in_the_wheel(tmp_path: Path) -> None:
    installed = install(tmp_path, path=tools(tmp_path))
    assert "NOT built" not in installed.said
    assert {versions(installed)[part].split(",")[0] for part in ("native", "xdp", "bpf")} == {"built"}
    assert installed.run("python", "-c", PROGRAM) == ""


def test_the_installed_one_is_complete(without_compiler: Installed) -> None:
    """Nothing of the checkout is used, and nothing that is needed was left behind."""
    place = without_compiler.run(
        "python", "-P", "-c", "import l4raw, l4raw.netns as n; print(l4raw.__file__, n.__file__)"
    )
    for path in place.split():
        assert Path(path).is_relative_to(without_compiler.folder)
    assert "[[service]]" in without_compiler.run("l4raw", "config", "template")


def test_it_forwards(without_compiler: Installed, tmp_path: Path) -> None:
    with dsr(backends=1, log=Log(silent=True)) as network, web(network.backends[0]):
        with up(without_compiler, network, tmp_path):
            assert curl(network.client, f"http://{network.vip}/").strip() == "b1"


@contextmanager
def up(installed: Installed, network: Topology, folder: Path) -> Iterator[None]:
    """`l4raw up` of an installation; it must end with 0."""
    config, out, err = folder / "l4raw.toml", folder / "out", folder / "err"
    config.write_text(network.config_toml("80/tcp", lb={"ring_seed": "test"}))
    places = {"L4RAW_RUN_DIR": str(folder / "run"), "L4RAW_STATE_DIR": str(folder / "state")}
    with out.open("w") as stdout, err.open("w") as stderr:
        process = network.balancer.popen(
            [str(installed.folder / "bin/l4raw"), "up", "-c", str(config)],
            stdout=stdout, stderr=stderr, env=installed.environment | places,
        )  # fmt: skip
    wait_for(lambda: out.read_text().startswith("ready"), f"ready, {err}", process)
    yield
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0, err.read_text()
