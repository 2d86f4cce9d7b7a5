"""The flow table keeps its promises: what is in it is found, and up to its capacity nothing is refused."""

from __future__ import annotations

import random
from mmap import mmap

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from l4raw.core.entry import ENTRY, SIZE
from l4raw.core.flows import FlowTable, flow_key
from l4raw.core.hashing import flow_hash, hash_key, tag
from l4raw.core.room import buckets_in, bytes_for
from l4raw.wire.abi import FULL

KEY = hash_key(b"flows")


def keys(count: int, seed: int = 1) -> list[bytes]:
    """Keys as clients make them: few addresses, ports that count up."""
    rng = random.Random(seed)
    sources = [rng.randbytes(4) for _ in range(count // 500 + 1)]
    return [flow_key(sources[i // 500], 1024 + i % 500, b"\x0a\x4d\0\x64", 80, 6) for i in range(count)]


def test_an_entry_is_one_line() -> None:
    assert ENTRY.size == SIZE == 64


@pytest.mark.parametrize("memory", [1 << 14, 1 << 16, 1 << 20, 12_345_678])
def test_memory_is_used_and_never_exceeded(memory: int) -> None:
    buckets = buckets_in(memory)
    assert bytes_for(buckets) <= memory < bytes_for(buckets + 1)
    assert buckets_in(bytes_for(buckets)) == buckets


def test_too_little_memory_is_an_error() -> None:
    with pytest.raises(ValueError, match="1000 bytes"):
        buckets_in(1000)


@pytest.mark.parametrize("memory", [1 << 15, 1 << 18, 1 << 22])
@pytest.mark.parametrize("seed", range(3))
def test_no_insert_fails_below_the_capacity_and_the_next_one_does(memory: int, seed: int) -> None:
    table = FlowTable(bytearray(memory), hash_key(bytes([seed])))
    flows = keys(table.capacity + 1, seed)
    inserted = [table.insert(key, 1, 1, 1, 0, 0) for key in flows]
    assert min(inserted[:-1]) >= 0 and inserted[-1] == FULL
    assert len(set(inserted)) == len(flows)
    assert all(table.find(key) == index for key, index in zip(flows[:-1], inserted, strict=False))
    assert table.find(flows[-1]) == -1
    assert memory / table.capacity <= 100 or memory < 1 << 17, "bytes a flow"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("memory", [1 << 15, 1 << 18])
@pytest.mark.parametrize("oldest", [True, False], ids=["oldest goes", "any goes"])
def test_no_insert_fails_while_flows_come_and_go_at_capacity(memory: int, seed: int, oldest: bool) -> None:
    """Far more flows overflow than while a table fills for the first time: see the module's text."""
    table = FlowTable(bytearray(memory), hash_key(bytes([seed])))
    rng = random.Random(seed)
    live: list[bytes] = []
    overflowed = 0
    for number, key in enumerate(keys(table.capacity * 8, seed)):
        if len(live) == table.capacity:
            gone = live.pop(0 if oldest else rng.randrange(len(live)))
            table.delete(table.find(gone))
        live.append(key)
        index = table.insert(key, 1, 1, 1, 0, 0)
        assert index >= 0, number
        overflowed = max(overflowed, sum(table.buffer[table.entries * SIZE + 37 :: SIZE][: table.overflow]))
    assert overflowed < table.overflow * 0.9
    assert all(table.find(key) >= 0 for key in live)


def test_the_marks_go_when_nothing_overflows_any_more() -> None:
    """Else a table that was full once would look in two places for ever."""
    table = FlowTable(bytearray(1 << 17), KEY)
    flows = {key: table.insert(key, 1, 1, 1, 0, 0) for key in keys(table.capacity)}

    def marked() -> int:
        start = (table.entries + table.overflow) * SIZE
        return table.buffer[start : start + table.buckets].count(table._mark)

    for _ in range(300):  # more than there are marks
        over = [key for key, index in flows.items() if index >= table.entries]
        assert over and marked()
        for key in over:
            assert marked()
            table.delete(flows.pop(key))
        assert not marked() or table._mark == 1, "once in 255 times old marks are marks again"
        assert all(table.find(key) == index for key, index in flows.items())
        assert all(table.find(key) < 0 for key in over)
        flows.update({key: table.insert(key, 1, 1, 1, 0, 0) for key in over})


def test_every_entry_in_use_has_a_tag_of_its_key_and_a_free_one_has_none() -> None:
    table = FlowTable(bytearray(1 << 16), KEY)
    flows = {key: table.insert(key, 1, 1, 1, 0, 0) for key in keys(table.capacity)}
    for key in list(flows)[::3]:
        table.delete(flows.pop(key))
    expected = {index: tag(flow_hash(KEY, key)) for key, index in flows.items()}
    start = (table.entries + table.overflow) * SIZE + -(-table.buckets // 64) * 64
    tags = table.buffer[start : start + table.entries]
    assert 0 not in expected.values() and len(set(expected.values())) > 100
    assert list(tags) == [expected.get(index, 0) for index in range(table.entries)]


def test_an_entry_that_is_used_again_has_another_generation() -> None:
    """Bit 0 of `lock` is a writer's; the generation above it tells a reader that the flow is another one."""
    table = FlowTable(bytearray(1 << 15), KEY)
    key = keys(1)[0]
    index = table.insert(key, 1, 1, 1, 0, 0)
    first = table.read(index).lock
    table.delete(index)
    assert table.insert(key, 1, 1, 1, 0, 0) == index
    assert (table.read(index).lock & 1, table.read(index).lock >> 1) == (0, (first >> 1) + 2)


def test_it_works_in_mapped_memory() -> None:
    with mmap(-1, bytes_for(64)) as memory:
        table = FlowTable(memory, KEY)
        key = keys(1)[0]
        index = table.insert(key, 1, 2, 3, 4, 5)
        assert table.find(key) == index and table.key(index) == key
        assert table.read(index)[:6] == (1, 2, 3, 4, 0, 5)


def test_the_same_steps_give_the_same_bytes() -> None:
    one, two = (FlowTable(bytearray(1 << 16), KEY) for _ in range(2))
    for table in (one, two):
        indices = [table.insert(key, 1, 1, 1, 0, 7) for key in keys(300)]
        table.link(indices[0], indices[1])
        table.delete(indices[5])
    assert one.buffer == two.buffer


class Machine(RuleBasedStateMachine):
    """The table against a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.table = FlowTable(bytearray(bytes_for(4)), KEY)
        self.model: dict[bytes, int] = {}

    @rule(number=st.integers(0, 40))
    def insert(self, number: int) -> None:
        key = keys(41)[number]
        if key in self.model:
            return
        index = self.table.insert(key, 1, number, 0, 0, 0)
        assert (index < 0) == (len(self.model) >= self.table.capacity)
        if index >= 0:
            self.model[key] = index

    @rule(number=st.integers(0, 40))
    def delete(self, number: int) -> None:
        index = self.model.pop(keys(41)[number], -1)
        if index >= 0:
            self.table.delete(index)
            self.table.delete(index)  # a second time changes nothing

    @invariant()
    def finds_what_is_there_and_nothing_else(self) -> None:
        for key in keys(41):
            assert self.table.find(key) == self.model.get(key, -1)
        assert len(self.table) == len(self.model)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
