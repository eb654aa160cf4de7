"""The way of one chunk after it was received: a bounded window, then hashed and written side by side.

    put -> window -+-> writer task -> partial.write -> checkpoint task -> partial.sync -> on_checkpoint
                   +-> hasher task -> sha256
    (the file calls run in threads; only the copy into the window and the bookkeeping run on the loop)

After a restart the hasher is behind what is written: it follows the file, nothing is queued for it and
nothing waits for it but the finish; once it has caught up it takes its share of the chunks again (design.md
section 4).

A chunk's bytes leave the window, and the process's budget, once they are both written and hashed. When the
window is full, `put` waits, the caller stops reading, and HTTP/2 flow control holds the sender back
(design.md section 4).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, ParamSpec, Protocol

from ingest_service.ingests.budget import ByteBudget
from ingest_service.ingests.limits import MEBIBYTE, Limits
from ingest_service.ingests.slabs import SlabPool, Window
from ingest_service.storage import Buffer, PartialFile
from ingest_service.vocabulary.errors import BackendDown, StorageFailed

_P = ParamSpec("_P")

#: One file call takes at most this much, so that no upload occupies a thread for long.
_BATCH_BYTES = 8 * MEBIBYTE
#: A slab that is not full waits for more, for a moment at most: a thread's wake-up for each chunk cost as
#: much as the chunk's hash.
_GATHER_SECONDS = 0.02


class Hasher(Protocol):
    """An incremental digest of a file from its first byte on."""

    @property
    def hashed_bytes(self) -> int: ...

    async def update(self, buffers: Sequence[Buffer]) -> None: ...

    async def settle(self) -> None: ...

    def digest(self) -> str: ...


class _Lane:
    """One consumer of the segments, with its own position."""

    def __init__(self, start_bytes: int) -> None:
        self.queue: list[memoryview] = []
        #: Taken off the queue, not done yet.
        self.in_work: list[memoryview] = []
        self.done_bytes = start_bytes
        self.ready = asyncio.Event()

    def add(self, segments: Iterable[memoryview]) -> None:
        self.queue.extend(segments)
        self.ready.set()

    def take(self) -> list[memoryview]:
        """The next batch."""
        size, count = 0, 0
        for segment in self.queue:
            if count and size + len(segment) > _BATCH_BYTES:
                break
            size, count = size + len(segment), count + 1
        self.in_work, self.queue = self.queue[:count], self.queue[count:]
        return self.in_work


class ChunkPipeline:
    """Takes one upload's chunks in order. Used by one task; `close` must be awaited in the end.

    It goes on at `start_bytes`, all of which are durable; `hasher` may have seen fewer of them.
    """

    def __init__(
        self,
        partial: PartialFile,
        hasher: Hasher,
        budget: ByteBudget,
        limits: Limits,
        on_checkpoint: Callable[[int], Coroutine[Any, Any, None]],
        *,
        slabs: SlabPool,
        start_bytes: int = 0,
    ) -> None:
        self._partial = partial
        self._hasher = hasher
        self._budget = budget
        self._window = Window(slabs, start_bytes)
        self._limits = limits
        self._on_checkpoint = on_checkpoint
        self._write_lane, self._hash_lane = _Lane(start_bytes), _Lane(hasher.hashed_bytes)
        self._following = hasher.hashed_bytes < start_bytes
        self.received_bytes = self.committed_bytes = self._released_bytes = start_bytes
        self._failure: BaseException | None = None
        self._moved = asyncio.Event()
        self._written = asyncio.Event()
        self._checkpointing = asyncio.Lock()
        self._recording: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._nudge: asyncio.TimerHandle | None = None
        self._tasks = [
            asyncio.create_task(self._guard(self._consume, self._write_lane, self._write)),
            asyncio.create_task(self._guard(self._hash)),
            asyncio.create_task(self._guard(self._checkpoints)),
        ]

    @property
    def hasher(self) -> Hasher:
        """Settled once `close` has returned."""
        return self._hasher

    @property
    def written_bytes(self) -> int:
        """Up to here the partial holds what was received, durable or not."""
        return self._write_lane.done_bytes

    async def put(self, chunk: Buffer) -> None:
        """Takes a chunk in; waits while the window or the process's budget is full.

        Its bytes are the caller's again afterwards. Raises what a write, a sync or a checkpoint failed with,
        be it of an earlier chunk.
        """
        if self._held_bytes() + len(chunk) > self._limits.window_bytes:
            self._hurry()
            await self._until(lambda: self._held_bytes() + len(chunk) <= self._limits.window_bytes)
        self._raise_failure()
        await self._take_budget(len(chunk))
        try:
            full = self._window.add(chunk)
        except (OSError, MemoryError) as error:
            self._budget.give_back(len(chunk))
            raise BackendDown("The service has no memory for more bytes just now; go on later.") from error
        self.received_bytes += len(chunk)
        if full:
            self._hand_out(full)
        if self._window.waiting_bytes:
            self._hurry_soon()

    async def drain(self) -> str:
        """Waits until all that was taken in is written and hashed; answers the digest of it."""
        self._hurry()
        await self._until(lambda: self._held_bytes() == 0)
        await self._until(lambda: self._hash_lane.done_bytes == self.received_bytes)
        return self._hasher.digest()

    async def suspend(self) -> None:
        """Writes all that was taken in and makes it durable. The hasher may stay behind."""
        self._hurry()
        await self._until(lambda: self._write_lane.done_bytes == self.received_bytes)
        await self.checkpoint()

    async def checkpoint(self) -> None:
        """Makes all that is written durable and tells `on_checkpoint`."""
        async with self._checkpointing:
            self._raise_failure()
            written = self._write_lane.done_bytes
            if written > self.committed_bytes:
                await self._partial.sync()
                self._recording = asyncio.ensure_future(self._on_checkpoint(written))
                await asyncio.shield(self._recording)
                self.committed_bytes = written

    async def close(self) -> None:
        """Stops, after the last submitted write has returned; gives the budget back. Raises nothing."""
        if self._nudge is not None:
            self._nudge.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._recording is not None:
            # Who has the partial next may cut it to what the row says: no word of ours may come after that.
            await asyncio.wait({self._recording})
        await self._partial.close()
        await self._hasher.settle()
        self._budget.give_back(self.received_bytes - self._released_bytes)
        self._released_bytes = self.received_bytes
        self._window.clear()
        # This frame's tasks and their views would stay until the garbage collector came by.
        self._tasks.clear()
        for lane in (self._write_lane, self._hash_lane):
            lane.queue, lane.in_work = [], []

    async def _take_budget(self, size_bytes: int) -> None:
        # Not just `take`: when the store fails for all uploads at once, each holds bytes that another waits
        # for, and only an upload that hears of its failure gives its own back.
        if self._budget.take_at_once(size_bytes):
            return
        turn = self._budget.ask(size_bytes)
        turn.add_done_callback(lambda _: self._moved.set())
        try:
            await self._until(turn.done)
        except BaseException:
            self._budget.withdraw(size_bytes, turn)
            raise

    def _held_bytes(self) -> int:
        return self.received_bytes - self._finished_bytes()

    def _finished_bytes(self) -> int:
        """Up to here nobody needs the chunks any more."""
        written = self._write_lane.done_bytes
        return written if self._following else min(written, self._hash_lane.done_bytes)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while True:
            self._raise_failure()
            if condition():
                return
            self._moved.clear()
            await self._moved.wait()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _guard(self, work: Callable[_P, Awaitable[None]], *args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            await work(*args, **kwargs)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 (told to whoever puts, drains or checkpoints next)
            # The first one is the cause: what was asked of a poisoned partial afterwards only says "failed".
            self._failure = self._failure or error
            self._moved.set()

    async def _consume(self, lane: _Lane, work: Callable[[Sequence[Buffer]], Awaitable[None]]) -> None:
        while True:
            await lane.ready.wait()
            lane.ready.clear()
            batch = lane.take()
            if batch:
                await work(batch)
            lane.in_work = []
            lane.done_bytes += sum(map(len, batch))
            del batch
            self._release()
            if lane.queue:
                lane.ready.set()

    def _hand_out(self, segments: Sequence[memoryview]) -> None:
        """To the lanes. What is still waiting counts as having come only now."""
        if self._nudge is not None:
            self._nudge.cancel()
            self._nudge = None
        self._write_lane.add(segments)
        if not self._following:
            self._hash_lane.add(segments)

    def _hurry_soon(self) -> None:
        if self._nudge is None:
            self._nudge = self._loop.call_later(_GATHER_SECONDS, self._gathered)

    def _gathered(self) -> None:
        self._nudge = None
        if self._write_lane.queue or self._hash_lane.queue:
            # There is enough to do: many small segments would only make it slower.
            self._hurry_soon()
        else:
            self._hurry()

    def _hurry(self) -> None:
        segment = self._window.flush()
        if segment is not None:
            self._hand_out([segment])

    async def _hash(self) -> None:
        while self._following:
            behind = self._write_lane.done_bytes - self._hash_lane.done_bytes
            if behind == 0:
                self._join()
                break
            data = await self._partial.read(self._hash_lane.done_bytes, min(behind, _BATCH_BYTES))
            if not data:
                raise StorageFailed
            await self._hasher.update([data])
            self._hash_lane.done_bytes += len(data)
            self._moved.set()
        await self._consume(self._hash_lane, self._hasher.update)

    def _join(self) -> None:
        """The hasher has caught up: what is not written yet it takes from the queue, as the writer does."""
        self._following = False
        self._hash_lane.add((*self._write_lane.in_work, *self._write_lane.queue))

    def _release(self) -> None:
        free = self._window.release(self._finished_bytes())
        self._budget.give_back(free - self._released_bytes)
        self._released_bytes = free
        self._moved.set()
        self._written.set()

    async def _write(self, batch: Sequence[Buffer]) -> None:
        await self._partial.write(self._write_lane.done_bytes, batch)

    async def _checkpoints(self) -> None:
        """A checkpoint once `checkpoint_bytes` are unsynced, or some for `checkpoint_seconds`."""
        while True:
            await self._until_unsynced(1)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limits.checkpoint_seconds):
                    await self._until_unsynced(self._limits.checkpoint_bytes)
            await self.checkpoint()

    async def _until_unsynced(self, size_bytes: int) -> None:
        while self._write_lane.done_bytes - self.committed_bytes < size_bytes:
            self._written.clear()
            await self._written.wait()
