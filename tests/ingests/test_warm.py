"""Which hasher an upload may go on with: one that saw exactly the bytes that are still there."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ingest_service.ingests import warm
from ingest_service.ingests.warm import WarmHashers
from ingest_service.storage import Buffer


class Seen:
    """A hasher that has seen so many bytes."""

    def __init__(self, hashed_bytes: int) -> None:
        self.hashed_bytes = hashed_bytes

    async def update(self, buffers: Sequence[Buffer]) -> None: ...

    async def settle(self) -> None: ...

    def digest(self) -> str:
        return ""


def test_the_next_writer_goes_on_with_it_once() -> None:
    hashers, hasher = WarmHashers(), Seen(100)
    hashers.keep("file", 3, hasher)
    assert hashers.take("other", 4, 100) is None
    assert hashers.take("file", 4, 100) is hasher
    assert hashers.take("file", 5, 100) is None


@pytest.mark.parametrize("epoch", [3, 5, 6])
def test_another_writer_in_between_makes_it_void(epoch: int) -> None:
    hashers = WarmHashers()
    hashers.keep("file", 3, Seen(100))
    assert hashers.take("file", epoch, 100) is None


def test_one_that_saw_bytes_that_were_cut_off_is_void_and_one_that_is_behind_is_not() -> None:
    hashers, behind = WarmHashers(), Seen(99)
    hashers.keep("file", 3, Seen(101))
    assert hashers.take("file", 4, 100) is None
    hashers.keep("file", 4, behind)
    assert hashers.take("file", 5, 100) is behind


def test_the_oldest_are_forgotten() -> None:
    hashers = WarmHashers()
    for number in range(warm._CAPACITY + 2):
        hashers.keep(str(number), 1, Seen(number))
    assert hashers.take("0", 2, 10**9) is None
    assert hashers.take("1", 2, 10**9) is None
    assert hashers.take("2", 2, 10**9) is not None
