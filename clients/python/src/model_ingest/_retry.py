"""The retry loop: tries, waits, asks the server where things stand, goes on. Knows no strategy's details."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from model_ingest._backoff import Backoff
from model_ingest._errors import IngestError

_Result = TypeVar("_Result")
_Result_co = TypeVar("_Result_co", covariant=True)
Sleep = Callable[[float], Awaitable[None]]
OnWait = Callable[[IngestError, float], None]


class Strategy(Protocol[_Result_co]):
    """What is tried."""

    async def attempt(self) -> _Result_co:
        """One try."""

    async def recover(self) -> _Result_co | None:
        """After a failed try: the result if it is there after all; None to try again; raises to give up."""


async def run(
    strategy: Strategy[_Result],
    backoff: Backoff,
    *,
    look_first: bool = False,
    sleep: Sleep = asyncio.sleep,
    on_wait: OnWait | None = None,
) -> _Result:
    """Tries until there is a result; raises the last error once `backoff` says that it is no use.

    A failed try is never simply repeated: `recover` looks first. `recover` may fail as well,
    and is then what is tried again. `look_first`: the server may have something already. `on_wait`
    hears why the next try waits, and how long.
    """
    looked = not look_first
    while True:
        try:
            if not looked:
                found = await strategy.recover()
                if found is not None:
                    return found
                looked = True
            return await strategy.attempt()
        except IngestError as error:
            delay_seconds = backoff.after(error)
            if on_wait is not None:
                on_wait(error, delay_seconds)
        looked = False
        await sleep(delay_seconds)


async def repeat(
    operation: Callable[[], Awaitable[_Result]], backoff: Backoff, *, sleep: Sleep = asyncio.sleep
) -> _Result:
    """The loop for a call that is safe to repeat as it is."""
    while True:
        try:
            return await operation()
        except IngestError as error:
            delay_seconds = backoff.after(error)
        await sleep(delay_seconds)
