"""The benchmark's arithmetic, files and words: what needs neither root nor a network."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from l4raw.bench.bed import CHANGES, MOST_FULLNAT, Setting, memory_for
from l4raw.bench.frames import Ends, datagram
from l4raw.bench.generator import Order, Sent, Stream, pack
from l4raw.bench.histogram import BITS, BUCKETS, Histogram, upper_bound
from l4raw.bench.load import Load
from l4raw.bench.measure import drops
from l4raw.bench.result import SCHEMA, Change, ResultError, compare, machine, read, result
from l4raw.bench.search import highest
from l4raw.bench.sink import Arrived
from l4raw.bench.turns import Pair, spread, take_turns
from l4raw.cli import bench as command
from l4raw.cli.main import cli
from l4raw.control.errors import L4Error
from l4raw.core.model import Mode
from l4raw.core.room import buckets_in, capacity_of
from tests.bench.nftables import raised

SPREAD = {"median": 5e6, "low": 4e6, "high": 6e6}
FIGURES: dict[str, Any] = {
    "saturated": {
        "rate": SPREAD,
        "bare": SPREAD,
        "ratio": {"median": 0.6, "low": 0.5, "high": 0.7},
        "ns": 200.0,
        "bare_ns": 100.0,
        "offered": 5e6,
        "lost": 3,
        "drops": {"first wire": 3},
        "by_kernel": 1.0,
        "cpu": 0.1,
    },
    "no_loss": 4e6,
    "latency": [
        {
            "load": 0.1,
            "rate": 4e5,
            "us": {"p50": 5.0, "p99": 9.0, "p99.9": 20.0},
            "bare_us": {"p50": 4.0, "p99": 8.0, "p99.9": 25.0},
            "added_us": {"p50": 1.0, "p99": 1.0, "p99.9": -5.0},
        }
    ],
    "note": "native",
}


EMPTY = {**FIGURES, "schema": SCHEMA, "kernel": "", "machine": {}, "setting": {}, "saturated": {}}


@pytest.fixture
def found() -> dict[str, Any]:
    return result(Setting(), 50, deepcopy(FIGURES))


def test_turns_are_abba_and_begin_with_a_turn_that_does_not_count() -> None:
    order: list[str] = []

    def turn(who: str, rates: list[float]) -> Callable[[], float]:
        def take() -> float:
            order.append(who)
            return rates.pop(0)

        return take

    seen: list[Pair] = []
    pairs = take_turns(turn("A", [9, 1, 2, 3]), turn("B", [9, 2, 4, 6]), 3, seen.append)
    assert "".join(order) == "AB" + "ABBAAB"
    assert pairs == seen == [Pair(1, 2), Pair(2, 4), Pair(3, 6)]
    assert {pair.ratio for pair in pairs} == {0.5}
    assert Pair(1, 0).ratio == 0


def test_a_spread_has_the_quartiles() -> None:
    assert spread([4, 1, 3, 2, 5]) == (3, 2, 4)
    assert spread([7]) == (7, 7, 7)
    assert str(spread([1, 2, 3])) == "2.00 (1.50 to 2.50)"


@pytest.mark.parametrize("limit", [0, 1, 333_333, 900_000, 999_999, 2_000_000])
def test_the_search_ends_below_the_limit_and_near_it(limit: float) -> None:
    most, tried = 1_000_000, []

    def carried(rate: float) -> bool:
        tried.append(rate)
        return rate <= limit

    rate = highest(carried, most, steps=8, tries=1)
    assert rate <= limit and min(limit, most) - rate < most / 100
    assert max(tried) <= most and len(tried) == 8


def test_the_search_tries_again() -> None:
    """Another job costs frames in some runs."""
    answers = iter([False, False, True] + [False] * 30)
    assert highest(lambda rate: next(answers), 100, steps=3, tries=3) == 90


def test_a_bucket_ends_where_the_next_one_begins() -> None:
    """As the sink's: the octave, and the four bits after the first."""

    def bucket(value: int) -> int:
        octave = max(0, value.bit_length() - 1)
        if octave < BITS:
            return value
        return (octave << BITS) + (value >> octave - BITS) - (1 << BITS)

    for value in [*range(5000), *(10**n for n in range(4, 15))]:
        end = upper_bound(bucket(value))
        assert value < end <= max(value + 1, value * 17 / 16 + 1)
        assert bucket(end) > bucket(value)
    counts = [0] * BUCKETS
    counts[bucket(100)], counts[bucket(1000)] = 99, 1
    assert Histogram(counts).percentile(0.5) == upper_bound(bucket(100))
    assert Histogram(counts).percentile(1.0) == upper_bound(bucket(1000))


def test_a_flow_table_is_as_large_as_it_must_be() -> None:
    assert memory_for(1_000_000, Mode.DSR_L2) == "128MiB"
    for flows in (1, 1000, 100_000, 1_000_000):
        for mode in Mode:
            mib = int(memory_for(flows, mode).removesuffix("MiB"))
            wanted = flows * (4 if mode.is_nat else 1)
            assert capacity_of(buckets_in(mib << 20)) >= wanted
            assert mib == 1 or capacity_of(buckets_in(mib << 19)) < wanted


def test_changes_alone_need_no_entry() -> None:
    assert Setting(remembers=CHANGES, protocol="tcp").entries == 0
    assert Setting(Mode.NAT, flows=7).entries == 14


@pytest.mark.parametrize(
    "stream", [Stream(frames=0), Stream(flows=0), Stream(flows=1 << 31), Stream(1, 1e9, frames=1)]
)
def test_what_there_are_no_addresses_for_is_refused(stream: Stream) -> None:
    with pytest.raises(ValueError, match="flow"):
        pack(Ends(bytes(6), bytes(6), bytes(4)), 1, Order([stream], 100))


def test_a_frame_has_the_length_that_the_bare_program_knows() -> None:
    assert len(datagram(Ends(bytes(6), bytes(6), bytes(4))).frame) == 60


def test_drops_add_up_to_what_was_lost() -> None:
    nothing = Histogram([0] * BUCKETS)
    load = Load(Sent(1000, 0, 0, 1000, 1.0), 950, *(Arrived(n, 0, nothing, nothing) for n in (600, 0)))
    before = {"engine": {"receive_lost": 5}, "verdicts": {"drop_acl": 1, "forward": 1}}
    after = {"engine": {"receive_lost": 205}, "verdicts": {"drop_acl": 101, "forward": 601}}
    told = drops(load, before, after)
    assert told == {"receive_lost": 200, "drop_acl": 100, "first wire": 50, "last wire, or unknown": 50}
    assert sum(told.values()) == load.lost


def test_a_file_has_all_that_a_comparison_needs(found: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps(found))
    again = read(file)
    assert again["schema"] == SCHEMA and again["machine"] == machine()
    assert set(again["setting"]) == {
        *("mode", "dataplane", "protocol", "flows", "arms", "remembers", "pairs"),
    }
    assert {"kernel", "versions", "generated"} <= set(again)
    changes = {change.name: change for change in compare(found, again)}
    assert all(change.before == change.after for change in changes.values())
    assert {"saturated", "without loss", "added latency at 10% load, p99.9"} <= set(changes)


def test_a_comparison_says_what_changed_and_whether_the_quartiles_part(found: dict[str, Any]) -> None:
    faster = deepcopy(found)
    faster["saturated"]["rate"] = {"median": 7e6, "low": 6.5e6, "high": 8e6}
    faster["saturated"]["ratio"]["median"] = 0.66
    changes = {change.name: change for change in compare(found, faster)}
    assert changes["saturated"].percent == pytest.approx(40)
    assert changes["saturated"].beyond_quartiles
    assert changes["of the bare program"].percent == pytest.approx(10)
    assert not changes["of the bare program"].beyond_quartiles


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [("machine", "cpus", 64), ("machine", "host", "x"), ("setting", "mode", "nat")],
)
def test_different_machines_and_settings_are_not_compared(
    found: dict[str, Any], part: str, field: str, value: object
) -> None:
    other = deepcopy(found)
    other[part][field] = value
    with pytest.raises(ResultError, match=f"{part}, {field}: .* and {value}"):
        compare(found, other)


def test_another_kernel_is_a_change_like_others(found: dict[str, Any]) -> None:
    assert compare(found, found | {"kernel": "7.0"})


def run(*args: str) -> Result:
    return CliRunner().invoke(cli, ["bench", *args])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no JSON"),
        ("[]", "no result of"),
        ('{"schema": "l4raw.check/1"}', "no result of"),
        (f'{{"schema": "{SCHEMA}"}}', "incomplete"),
        (json.dumps(EMPTY), "incomplete"),
        (json.dumps(EMPTY | {"machine": [], "setting": 1}), "has no fields"),
    ],
)
def test_a_file_that_is_none_is_a_plain_message(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(text)
    done = run("compare", str(file), str(file))
    assert done.exit_code == 1 and words in done.stderr and "Traceback" not in done.output


def test_compare_prints_a_table_and_json(found: dict[str, Any], tmp_path: Path) -> None:
    other = deepcopy(found) | {"kernel": "7.0"}
    for name, content in (("a", found), ("b", other)):
        (tmp_path / name).write_text(json.dumps(content))
    done = run("compare", str(tmp_path / "a"), str(tmp_path / "b"))
    assert done.exit_code == 0 and "saturated, Mpps" in done.stdout and "and 7.0" in done.stderr
    done = run("compare", "--json", str(tmp_path / "a"), str(tmp_path / "b"))
    record = json.loads(done.stdout)
    assert record["schema"] == "l4raw.bench.compare/1" and record["data"][0]["percent"] == 0


def test_the_table_has_every_figure(found: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(command._table(found))
    text = console.export_text()
    for words in ("5.00 (4.00 to 6.00)", "0.60 (0.50 to 0.70)", "p99.9", "added -5.0", "first wire 3", "10%"):
        assert words in text


def test_who_is_not_root_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    done = run()
    assert done.exit_code == L4Error("L4R-301", what="").exit_code
    assert "L4R-301" in done.stderr and "network namespaces" in done.stderr


def test_a_plot_without_matplotlib_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    done = run("--plot", str(tmp_path / "a.png"))
    assert done.exit_code == 1 and "-m pip install matplotlib" in done.stderr


def test_options_that_do_not_fit_are_refused() -> None:
    for args in (["--changes"], ["--changes", "--protocol", "tcp", "--mode", "nat"], ["--mode", "none"]):
        assert run(*args).exit_code == 2


def test_what_was_raised_is_put_back(tmp_path: Path) -> None:
    """Here a file of ours; also when it was left by an exception."""
    file = tmp_path / "most"
    file.write_text("7\n")
    with pytest.raises(KeyError), raised(file, 9):
        assert file.read_text() == "9\n"
        raise KeyError
    assert file.read_text() == "7\n"


def test_what_cannot_be_raised_is_an_error(tmp_path: Path) -> None:
    for file in (tmp_path / "missing", tmp_path):
        with pytest.raises(OSError, match="could not be written"), raised(file, 9):
            pass


def test_what_was_nothing_or_less_has_no_percentage() -> None:
    assert Change("added latency", "us", -0.5, 1.0).percent is None
    assert Change("added latency", "us", 0.0, 1.0).percent is None
    assert Change("added latency", "us", 0.5, 1.0).percent == pytest.approx(100)


def test_what_cannot_be_written_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "missing" / "a.json"
    done = run("--json", str(file))
    assert done.exit_code == 1 and str(file) in done.stderr and not file.parent.exists()


def test_more_flows_than_there_are_ports_are_refused() -> None:
    assert MOST_FULLNAT == 2_064_384
    assert run("--mode", "fullnat", "--flows", str(MOST_FULLNAT + 1)).exit_code == 2


def test_a_rate_without_loss_that_was_not_found_is_said_to_be_none(found: dict[str, Any]) -> None:
    none = deepcopy(found) | {"no_loss": None, "latency": []}
    assert "without loss" not in {change.name for change in compare(found, none)}
    assert command._table(none).row_count == command._table(found).row_count - 3


def test_what_json_printed_is_a_result_too(found: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"schema": SCHEMA, "data": found, "warnings": []}))
    assert read(file) == found
