"""Pages of a list that fit into a message."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import Message

#: Below the send limit of 4 MiB.
MAX_PAGE_BYTES = 3 * 1024 * 1024
_Page = TypeVar("_Page", bound=Message)


async def page_that_fits(page_of: Callable[[int], Awaitable[_Page]], limit: int) -> _Page:
    """The page of at most `limit` resources, or a shorter one: a resource may have a thousand files."""
    while True:
        page = await page_of(limit)
        if limit == 1 or page.ByteSize() <= MAX_PAGE_BYTES:
            return page
        limit = max(1, limit // 4)
