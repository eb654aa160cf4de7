"""While a small call is answered, uploads that send fast hand over their messages one by one.

Breaks when: they go on all at once, one that is slow holds up the others, or a turn is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from model_ingest.v1.ingest_service_pb2 import GetIngestRequest

from ingest_service.rpc import read_turns
from ingest_service.rpc.read_turns import ReadTurns
from ingest_service.vocabulary.records import Ingest
from tests.conftest import StartService
from tests.rpc.uploading import upload
from tests.support.files import create_request, digest, gguf, upload_messages
from tests.support.service import RunningService


@pytest.fixture
def no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long anything takes: whoever has a message is fast, and no turn ends by its time."""
    for name in ("_READY_SECONDS", "_TURN_SECONDS", "_WAIT_SECONDS"):
        monkeypatch.setattr(read_turns, name, 3600.0)


class Senders:
    """Clients whose messages are there as soon as the loop has turned twice; counts how many are asked."""

    def __init__(self) -> None:
        self.asked = self.most_asked = 0

    async def messages(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            self.asked += 1
            self.most_asked = max(self.most_asked, self.asked)
            for _ in range(2):
                await asyncio.sleep(0)
            self.asked -= 1
            yield number


async def everything(turns: ReadTurns, messages: AsyncIterator[int]) -> list[int]:
    return [message async for message in turns.in_turn(messages)]


async def all_of(turns: ReadTurns, senders: Senders) -> None:
    """After as many messages of each as tell that it sends fast."""
    streams = [turns.in_turn(senders.messages(50)) for _ in range(8)]
    for stream in streams:
        for _ in range(read_turns._FAST_AFTER):
            await anext(stream)
    senders.most_asked = 0

    async def rest(stream: AsyncIterator[int]) -> list[int]:
        return [message async for message in stream]

    assert await asyncio.gather(*map(rest, streams)) == [list(range(read_turns._FAST_AFTER, 50))] * 8


async def test_alone_they_read_all_at_once(no_clock: None) -> None:
    senders = Senders()
    await all_of(ReadTurns(), senders)
    assert senders.most_asked == 8


async def test_beside_a_small_call_one_after_the_other(no_clock: None) -> None:
    turns, senders = ReadTurns(), Senders()
    with turns.small_call():
        await all_of(turns, senders)
    assert senders.most_asked == 1


async def test_and_for_a_moment_after_it(no_clock: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_turns, "_LINGER_SECONDS", 3600.0)
    turns, senders = ReadTurns(), Senders()
    with turns.small_call():
        pass
    await all_of(turns, senders)
    assert senders.most_asked == 1
    monkeypatch.setattr(read_turns, "_LINGER_SECONDS", 0.0)
    await all_of(turns, senders)
    assert senders.most_asked == 8


async def test_one_whose_message_does_not_come_keeps_nobody_waiting() -> None:
    turns = ReadTurns()
    stopped = asyncio.Event()

    async def stops() -> AsyncIterator[int]:
        for _ in range(read_turns._FAST_AFTER):
            yield 0
        await stopped.wait()
        yield 1

    with turns.small_call():
        stuck = asyncio.create_task(everything(turns, stops()))
        async with asyncio.timeout(30):
            assert await everything(turns, Senders().messages(100)) == list(range(100))
            assert not stuck.done()
            stopped.set()
            assert await stuck == [0] * read_turns._FAST_AFTER + [1]
            assert await everything(turns, Senders().messages(3)) == [0, 1, 2]


async def test_a_turn_ends_with_a_cancel_and_with_a_fault() -> None:
    turns = ReadTurns()

    async def breaks() -> AsyncIterator[int]:
        for _ in range(read_turns._FAST_AFTER):
            yield 0
        raise ValueError("broken")

    async def hangs() -> AsyncIterator[int]:
        for _ in range(read_turns._FAST_AFTER):
            yield 0
        await asyncio.Event().wait()

    with turns.small_call():
        async with asyncio.timeout(30):
            with pytest.raises(ValueError, match="broken"):
                await everything(turns, breaks())
            hanging = asyncio.create_task(everything(turns, hangs()))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            hanging.cancel()
            await asyncio.wait({hanging})
            assert await everything(turns, Senders().messages(3)) == [0, 1, 2]
    assert not turns._free.locked()


async def test_who_sends_in_bursts_takes_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would fall silent with the turn in its hands."""
    monkeypatch.setattr(read_turns, "_READY_SECONDS", 0.003)
    turns = ReadTurns()

    async def bursts() -> AsyncIterator[int]:
        for number in range(30):
            if number % 5 == 4:
                await asyncio.sleep(0.01)
            yield number

    async def none(self: ReadTurns) -> None:
        raise AssertionError("it took a turn")

    monkeypatch.setattr(ReadTurns, "_take", none)
    with turns.small_call():
        assert await everything(turns, bursts()) == list(range(30))


async def test_nobody_waits_long_for_a_turn() -> None:
    turns = ReadTurns()
    await turns._free.acquire()
    with turns.small_call():
        async with asyncio.timeout(30):
            assert await everything(turns, Senders().messages(30)) == list(range(30))


async def test_over_the_wire_unary_calls_are_small_and_uploads_take_turns(
    start_service: StartService, monkeypatch: pytest.MonkeyPatch, no_clock: None
) -> None:
    service: RunningService = await start_service()
    turns = service.service.rpc.turns
    data = gguf(300_000)
    file = (await service.ingests.CreateIngest(create_request(data))).files[0].name
    reached, go_on = asyncio.Event(), asyncio.Event()
    real = service.service.ingests.get

    async def get(ingest_id: str) -> Ingest:
        reached.set()
        await go_on.wait()
        return await real(ingest_id)

    taken = 0
    take = ReadTurns._take

    async def counted(self: ReadTurns) -> Any:
        nonlocal taken
        taken += 1
        return await take(self)

    monkeypatch.setattr(service.service.ingests, "get", get)
    monkeypatch.setattr(ReadTurns, "_take", counted)
    name = file.partition("/files/")[0]
    asking = asyncio.ensure_future(service.ingests.GetIngest(GetIngestRequest(name=name)))
    async with asyncio.timeout(30):
        await reached.wait()
        assert turns._small_calls == 1
        stored = await upload(service, upload_messages(file, data, chunk_bytes=6_000))
        assert stored.sha256 == digest(data)
        # All but those that tell that the client is fast.
        assert 30 <= taken <= 60
        go_on.set()
        await asking
    assert turns._small_calls == 0


async def test_who_let_its_turn_end_has_to_show_more_before_it_gets_another(
    monkeypatch: pytest.MonkeyPatch, no_clock: None
) -> None:
    turns, taken = ReadTurns(), [0]
    take = ReadTurns._take

    async def counted(self: ReadTurns) -> Any:
        taken[0] += 1
        return await take(self)

    async def late_once() -> AsyncIterator[int]:
        for number in range(6 * read_turns._FAST_AFTER):
            if number == read_turns._FAST_AFTER:
                # The turn for this message was taken with no time at all.
                monkeypatch.setattr(read_turns, "_TURN_SECONDS", 3600.0)
                while turns._free.locked():
                    await asyncio.sleep(0)
            if number == read_turns._FAST_AFTER - 1:
                monkeypatch.setattr(read_turns, "_TURN_SECONDS", 0.0)
            yield number

    monkeypatch.setattr(ReadTurns, "_take", counted)
    with turns.small_call():
        await everything(turns, late_once())
    # One that it let end; then nothing for four times as many messages as before.
    assert taken[0] == 1 + read_turns._FAST_AFTER
