"""The memory of a window: the bytes come out as they went in, where a direct write can take them from."""

from __future__ import annotations

import errno
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_service.ingests import slabs
from ingest_service.ingests.slabs import SMALL_BYTES, Slab, SlabPool, Window
from ingest_service.storage.direct import lies_in_place

MEBIBYTE = 1024 * 1024
_WINDOW_BYTES = 16 * MEBIBYTE


@settings(max_examples=60, deadline=None)
@given(
    start=st.integers(0, 10_000),
    sizes=st.lists(st.integers(1, 700_000), min_size=1, max_size=15),
    flush_after=st.sets(st.integers(0, 15)),
    seed=st.integers(0, 1000),
)
def test_what_comes_out_is_what_went_in_and_lies_as_in_the_file(
    start: int, sizes: list[int], flush_after: set[int], seed: int
) -> None:
    """Whatever was released before, nothing that is still needed is overwritten."""
    chance = random.Random(seed)
    window = Window(SlabPool(4 * MEBIBYTE), start)
    expected, position = bytearray(), start
    held: list[tuple[int, memoryview]] = []
    out = bytearray()

    def takes(segments: list[memoryview]) -> None:
        nonlocal position
        for segment in segments:
            assert lies_in_place(segment, position)
            position += len(segment)
            held.append((position, segment))
        while held and chance.random() < 0.5:
            end, segment = held.pop(0)
            out.extend(segment)
            window.release(end)

    for number, size in enumerate(sizes):
        chunk = chance.randbytes(size)
        expected += chunk
        takes(window.add(chunk))
        if number in flush_after and (segment := window.flush()) is not None:
            takes([segment])
    if (segment := window.flush()) is not None:
        takes([segment])
    assert window.waiting_bytes == 0
    for _, segment in held:
        out.extend(segment)
    assert out == expected


def test_one_who_sends_little_holds_little_and_one_in_a_rush_gets_more() -> None:
    window = Window(SlabPool(_WINDOW_BYTES), 0)
    window.add(bytes(1000))
    assert [slab.size_bytes for slab in window._slabs] == [SMALL_BYTES]
    window.add(bytes(SMALL_BYTES))
    assert [slab.size_bytes for slab in window._slabs] == [SMALL_BYTES, 4 * MEBIBYTE]
    # Later, when it has become slow again.
    window.flush()
    window.release(SMALL_BYTES + 1000)
    window.add(bytes(1000))
    assert [slab.size_bytes for slab in window._slabs] == [SMALL_BYTES]


def test_a_slab_goes_back_as_soon_as_nobody_needs_what_is_in_it() -> None:
    pool = SlabPool(_WINDOW_BYTES)
    window = Window(pool, 0)
    window.add(bytes(1000))
    window.flush()
    window.release(999)
    assert pool.idle_bytes == 0
    window.release(1000)
    assert pool.idle_bytes == SMALL_BYTES
    assert not window._slabs


def test_what_is_idle_is_bounded_and_used_again() -> None:
    pool = SlabPool(_WINDOW_BYTES)
    windows = [Window(pool, 0) for _ in range(100)]
    for window in windows:
        window.add(bytes(MEBIBYTE))
        window.add(bytes(1000))
    for window in windows:
        window.clear()
    assert pool.idle_bytes <= 32 * SMALL_BYTES + 8 * 4 * MEBIBYTE
    idle = pool.idle_bytes
    windows[0].add(bytes(MEBIBYTE))
    assert pool.idle_bytes < idle


def test_a_small_window_is_made_of_several_slabs() -> None:
    """Else the client would wait while the only one is written."""
    window = Window(SlabPool(4 * MEBIBYTE), 0)
    window.add(bytes(2 * MEBIBYTE))
    assert len(window._slabs) == 2


def test_where_there_is_no_memory_nothing_was_taken_in(monkeypatch: pytest.MonkeyPatch) -> None:
    window = Window(SlabPool(_WINDOW_BYTES), 5)
    window.add(b"abc")
    real = slabs.Slab

    def fails(size_bytes: int) -> Slab:
        raise OSError(errno.ENOMEM, "no memory")

    monkeypatch.setattr(slabs, "Slab", fails)
    for _ in range(2):
        with pytest.raises(OSError, match="no memory"):
            window.add(bytes(SMALL_BYTES))
    monkeypatch.setattr(slabs, "Slab", real)
    segment = window.flush()
    assert segment is not None
    assert bytes(segment) == b"abc"


def test_a_slab_is_held_as_a_whole() -> None:
    window = Window(SlabPool(_WINDOW_BYTES), 10)
    window.add(bytes(1000))
    window.flush()
    # Its first half is done; its memory is not free.
    assert window.release(510) == 10
    assert window.release(1010) == 1010


def test_what_was_got_before_the_memory_ended_is_used_later(monkeypatch: pytest.MonkeyPatch) -> None:
    window = Window(SlabPool(4 * MEBIBYTE), 100)
    real, made = slabs.Slab, [0]

    def fails_once(size_bytes: int) -> Slab:
        made[0] += 1
        if made[0] == 2:
            raise MemoryError
        return real(size_bytes)

    monkeypatch.setattr(slabs, "Slab", fails_once)
    with pytest.raises(MemoryError):
        window.add(bytes(2 * MEBIBYTE))
    # Exactly what the slab that is there would hold, if the bytes began where a block does.
    data = random.Random(3).randbytes(MEBIBYTE)
    segments = [*window.add(data), window.flush()]
    assert b"".join(segment for segment in segments if segment) == data
    assert made[0] == 3
