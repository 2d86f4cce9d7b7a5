"""Who has a frame: the free list, the states, and a frame that is given away."""

from __future__ import annotations

import pytest

from l4raw.xdp.errors import FrameError
from l4raw.xdp.frames import FILL, FREE, HELD, TX, Frame, FramePool

FRAMES = 8
SIZE = 2048


class Area:
    """A UMEM without a kernel."""

    frame_size = SIZE

    def __init__(self) -> None:
        self.pool = FramePool(FRAMES)
        self.buffer = memoryview(bytearray(b"\xa5" * FRAMES * SIZE))

    def view(self, address: int, length: int) -> memoryview:
        return self.buffer[address : address + length]


@pytest.fixture
def area() -> Area:
    return Area()


def held(area: Area, offset: int = 256, length: int = 60) -> Frame:
    (index,) = area.pool.hold(1)
    return Frame(area, index * SIZE + offset, length)


def test_all_frames_are_free_at_first() -> None:
    pool = FramePool(FRAMES)
    assert pool.free == pool.count(FREE) == FRAMES
    assert sorted(pool.pop(FRAMES + 1)) == list(range(FRAMES))


def test_there_are_never_more_than_there_are() -> None:
    pool = FramePool(FRAMES)
    taken = pool.hold(5)
    assert len(taken) == 5
    assert len(pool.hold(5)) == 3
    assert pool.hold(5) == []
    assert (pool.free, pool.count(HELD)) == (0, FRAMES)
    pool.release(taken[2])
    assert pool.hold(5) == [taken[2]]


def test_a_frame_is_released_once() -> None:
    pool = FramePool(FRAMES)
    (index,) = pool.hold(1)
    pool.release(index)
    with pytest.raises(FrameError, match=f"frame {index} is not held: state 0"):
        pool.release(index)
    assert pool.free == FRAMES


@pytest.mark.parametrize("state", [HELD, FILL, TX])
def test_a_frame_in_use_does_not_go_on_the_free_list(state: int) -> None:
    pool = FramePool(FRAMES)
    (index,) = pool.pop(1)
    pool.state[index] = state
    with pytest.raises(FrameError, match=f"frame {index} is not free: state {state}"):
        pool.push([index])
    assert pool.free == FRAMES - 1


def test_a_closed_socket_gives_back_its_frames_and_no_others() -> None:
    pool = FramePool(FRAMES)
    for index, (state, owner) in enumerate([(FILL, 1), (TX, 1), (FILL, 2), (TX, 2), (HELD, 1)]):
        pool.pop(1)
        pool.state[index], pool.owner[index] = state, owner
    assert pool.abandon(1) == 2
    assert list(pool.state) == [FREE, FREE, FILL, TX, HELD, FREE, FREE, FREE]
    assert pool.free == 5
    assert pool.faults() == []


def test_faults_are_found() -> None:
    pool = FramePool(FRAMES)
    assert pool.faults() == []
    pool.push([3])
    assert "a frame is on the free list twice" in pool.faults()
    pool = FramePool(FRAMES)
    pool.state[3] = TX
    assert pool.faults() == ["on the free list, but in use: [3]"]
    pool = FramePool(FRAMES)
    pool.pop(2)
    assert pool.faults() == ["8 frames are free, 6 are on the free list"]


def test_data_is_the_memory(area: Area) -> None:
    frame = held(area)
    frame.data[:4] = b"abcd"
    assert bytes(area.buffer[frame.address : frame.address + 5]) == b"abcd\xa5"
    assert (len(frame), bytes(frame)[:4]) == (60, b"abcd")
    assert frame.index * SIZE + frame.offset == frame.address


def test_a_frame_grows_at_both_ends_inside_its_chunk(area: Area) -> None:
    frame = held(area)
    frame.data[:1] = b"x"
    frame.move(frame.offset - 20, len(frame) + 20)
    assert (frame.offset, len(frame), frame.data[20]) == (236, 80, ord("x"))
    frame.write(b"longer than before" * 10)
    assert bytes(frame) == b"longer than before" * 10
    for offset, length in [(-1, 10), (0, SIZE + 1), (SIZE - 9, 10), (0, 0)]:
        before = frame.address, len(frame)
        with pytest.raises(ValueError, match=f"not in a chunk of {SIZE} bytes"):
            frame.move(offset, length)
        assert (frame.address, len(frame)) == before


def test_a_frame_that_was_given_away_cannot_be_used(area: Area) -> None:
    frame = held(area)
    view = frame.data
    frame.release()
    assert area.pool.free == FRAMES
    for use in (lambda: frame.data, frame.release, lambda: frame.move(0, 1), lambda: len(frame)):
        with pytest.raises(FrameError, match=f"frame {frame.index} was sent or released"):
            use()
    with pytest.raises(ValueError, match="released"):
        view[0]
    assert area.pool.free == FRAMES
    assert repr(frame) == f"<Frame {frame.index}: given away>"
