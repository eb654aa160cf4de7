"""Takes one body to disk: read on the loop, hashed and written in threads, two buffers."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor

from .blobs import Blobs, Temp
from .body import Body

BUFFER = 2 << 20


async def receive(body: Body, blobs: Blobs, executor: Executor, corrupt_at: int | None = None) -> str:
    """Stores the body under its computed digest, whatever it was announced as (section 2).

    Memory is two buffers. If anything fails, the temporary file is removed.
    """
    loop = asyncio.get_running_loop()
    buffers = (memoryview(bytearray(BUFFER)), memoryview(bytearray(BUFFER)))
    temp = blobs.temp()
    writing: asyncio.Future[int] | None = None
    try:
        turn = 0
        while True:
            start = body.received
            filled = await _fill(body, buffers[turn])
            if filled and corrupt_at is not None and start <= corrupt_at < start + filled:
                buffers[turn][corrupt_at - start] ^= 0xFF
            if writing is not None:
                await writing
            if not filled:
                break
            writing = loop.run_in_executor(executor, temp.write, buffers[turn][:filled])
            turn = 1 - turn
            # Reads of waiting bytes do not suspend: let the other connections have a turn.
            await asyncio.sleep(0)
        return (await loop.run_in_executor(executor, blobs.keep, temp))[0]
    except BaseException:
        _abandon(executor, temp)
        if writing is not None:
            writing.add_done_callback(_consume)
        raise


async def _fill(body: Body, view: memoryview) -> int:
    filled = 0
    while filled < len(view):
        count = await body.readinto(view[filled:])
        if count == 0:
            break
        filled += count
    return filled


def _abandon(executor: Executor, temp: Temp) -> None:
    # In a thread, because Temp's lock may be held by a write still under way.
    executor.submit(temp.discard)


def _consume(future: asyncio.Future[int]) -> None:
    if not future.cancelled():
        future.exception()
