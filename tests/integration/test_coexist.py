"""What is not ours is refused and left as it is, and so is what another instance has."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from l4raw.netns import Log, Topology, dsr

from l4raw.control.guard import table_name
from tests.integration.snapshot import assert_as_before, difference
from tests.integration.starting import Place, Up, echo, run, toml

pytestmark = pytest.mark.root

NOBODY = 65534
EXIT_REFUSED = 4


@pytest.fixture
def network() -> Iterator[Topology]:
    with dsr(backends=1, log=Log(silent=True)) as built:
        yield built


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def a_file(path: Path) -> None:
    path.write_text("not yours\n")


def a_link(path: Path) -> None:
    target = path.parent.parent / "target"
    target.mkdir()
    path.symlink_to(target)


def a_dangling_link(path: Path) -> None:
    path.symlink_to("/nowhere")


def a_folder_of_nobody(path: Path) -> None:
    path.mkdir(mode=0o700)
    os.chown(path, NOBODY, NOBODY)


def a_folder_that_all_may_write(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def a_folder_with_files(path: Path) -> None:
    path.mkdir()
    (path / "lock").write_text("")
    (path / "thesis.txt").write_text("not yours\n")


def a_folder_whose_lock_is_a_link(path: Path) -> None:
    path.mkdir()
    (path / "lock").symlink_to("/etc/hostname")


def a_folder_whose_lock_is_a_folder(path: Path) -> None:
    (path / "lock").mkdir(parents=True)


def a_folder_whose_lock_is_nobodys(path: Path) -> None:
    path.mkdir()
    (path / "lock").write_text("")
    os.chown(path / "lock", NOBODY, NOBODY)


def a_folder_whose_journal_is_a_link(path: Path) -> None:
    path.mkdir()
    (path / "lock").write_text("")
    (path / "undo.jsonl").symlink_to("/etc/hostname")


NO_FOLDERS = [a_file, a_link, a_dangling_link, a_folder_of_nobody, a_folder_that_all_may_write]
NO_INSTANCES = [
    *NO_FOLDERS,
    a_folder_with_files,
    a_folder_whose_lock_is_a_link,
    a_folder_whose_lock_is_a_folder,
    a_folder_whose_lock_is_nobodys,
    a_folder_whose_journal_is_a_link,
]
Make = Callable[[Path], None]


def refused(network: Topology, place: Place, *args: str) -> str:
    """`up` must be refused and change nothing; its first line."""
    config = place.config(toml(network))
    before = place.look(network.balancer)
    done = run(network.balancer, place, "up", "-c", config, *args)
    assert done.returncode == EXIT_REFUSED, done.stderr
    assert done.stdout == ""
    assert difference(before, place.look(network.balancer)) == ""
    return done.stderr.splitlines()[0]


def test_foreign_objects_in_place_of_the_run_folder(network: Topology, tmp_path: Path) -> None:
    for make in NO_FOLDERS:
        (tmp_path / make.__name__).mkdir()
        place = Place(tmp_path / make.__name__)
        place.run.rmdir()
        make(place.run)
        first = refused(network, place)
        assert first.startswith(f"error L4R-205: {place.run}"), f"{make}: {first}"


def test_foreign_objects_in_place_of_an_instance(network: Topology, tmp_path: Path) -> None:
    name = f"eth0@{network.balancer.inode}"
    for make in NO_INSTANCES:
        (tmp_path / make.__name__).mkdir()
        place = Place(tmp_path / make.__name__)
        make(place.run / name)
        first = refused(network, place)
        assert first.startswith(f"error L4R-205: {place.run / name}"), f"{make}: {first}"
        # Nor does `down` touch it; it says that it is there.
        before = place.files()
        done = run(network.balancer, place, "down")
        assert done.returncode == 0, done.stderr
        assert done.stderr.startswith("left: "), f"{make}: {done.stderr}"
        assert difference(before, place.files()) == ""


def test_a_foreign_nft_table_of_our_name(network: Topology, place: Place) -> None:
    network.balancer.sysctl("net.ipv4.ip_forward", 1)
    table = table_name(f"eth0@{network.balancer.inode}")
    network.balancer.run(["nft", f"add table netdev {table}"])
    first = refused(network, place)
    assert first.startswith(f"error L4R-205: an nftables table `netdev {table}` exists")


def test_a_foreign_table_that_appears_while_it_runs(network: Topology, place: Place) -> None:
    """Forwarding comes, and our name is taken: better to stop than to let the kernel answer clients."""
    table = table_name(f"eth0@{network.balancer.inode}")
    network.balancer.run(["nft", f"add table netdev {table}"])
    before = place.look(network.balancer)
    balancer = Up(network.balancer, place, "-c", place.config(toml(network))).wait_ready()
    network.balancer.sysctl("net.ipv4.ip_forward", 1)
    assert balancer.end() == EXIT_REFUSED
    assert "error L4R-205: an nftables table" in balancer.err
    network.balancer.sysctl("net.ipv4.ip_forward", 0)
    network.balancer.sysctl("net.ipv4.conf.all.accept_redirects", 1)  # ip_forward has changed it
    changed = difference(before, place.look(network.balancer))
    assert "nft" not in changed and str(place.run) not in changed


@pytest.mark.parametrize("name", [[], ["--instance", "other"]], ids=["same-name", "other-name"])
def test_a_second_instance_on_the_interface(network: Topology, place: Place, name: list[str]) -> None:
    first = Up(network.balancer, place, "-c", place.config(toml(network))).wait_ready()
    with echo(network) as servers:
        said = refused(network, place, *name)
        assert said.startswith("error L4R-204: ")
        holder = f"instance eth0@{network.balancer.inode} (process {first.process.pid}, on eth0)"
        assert holder in said
        assert servers.ask()
    first.stop()


def test_a_second_instance_of_the_name_elsewhere(network: Topology, place: Place) -> None:
    with dsr(backends=1, log=Log(silent=True)) as elsewhere:
        first = Up(network.balancer, place, "-c", place.config(toml(network)), "--instance", "x").wait_ready()
        said = refused(elsewhere, place, "--instance", "x")
        assert said.startswith("error L4R-204: instance x is running already: instance x (process ")
        first.stop()


def test_the_same_interface_name_in_two_namespaces(network: Topology, place: Place) -> None:
    before = place.look(network.balancer)
    with dsr(backends=1, log=Log(silent=True)) as elsewhere:
        both = [Up(n.balancer, place, "-c", place.config(toml(n))).wait_ready() for n in (network, elsewhere)]
        with echo(network) as here, echo(elsewhere) as there:
            assert here.ask()
            assert there.ask()
            both[0].stop()
            assert there.ask()
        both[1].stop()
    assert_as_before(before, lambda: place.look(network.balancer), 0.0)


def test_errors_are_json_too(network: Topology, place: Place) -> None:
    a_file(place.run / f"eth0@{network.balancer.inode}")
    done = run(network.balancer, place, "up", "-c", place.config(toml(network)), "--json")
    error = json.loads(done.stderr)
    assert (error["schema"], error["exit_code"]) == ("l4raw.error/1", EXIT_REFUSED)
    assert error["errors"][0]["code"] == "L4R-205"
