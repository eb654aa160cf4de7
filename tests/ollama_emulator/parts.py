"""What passes between the steps of a create: progress messages, layers in the making."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import TypeVar

from .blobs import Blobs
from .eras import Version
from .gguf import GGUF
from .golang import dumps
from .models import IMAGE, Layer, Models

T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """One line. `completed` and the others are omitted at zero (contract section 3.3)."""

    status: str
    digest: str = ""
    total: int = 0
    completed: int = 0

    def as_json(self) -> bytes:
        fields = {"digest": self.digest, "total": self.total, "completed": self.completed}
        return dumps({"status": self.status, **{k: v for k, v in fields.items() if v}})


Worker = AsyncGenerator[Progress, None]


@dataclass
class Part:
    """A layer and, where it is a GGUF, its header; `fresh` ones came from files."""

    layer: Layer
    gguf: GGUF | None = None
    fresh: bool = False
    shards: list[Part] = field(default_factory=list)


@dataclass
class Workshop:
    """What a create works with."""

    blobs: Blobs
    models: Models
    version: Version
    executor: Executor
    rewrite_progress: bool = True
    no_prune: bool = False
    #: What show said first of each manifest, kept to the end of the process (`Version.show_is_cached`).
    shown_ns: dict[str, int] = field(default_factory=dict)

    async def thread(self, work: Callable[[], T]) -> T:
        """Runs blocking work off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.executor, work)

    async def new_layer(self, data: bytes, kind: str) -> Layer:
        """`NewLayer` with its status line."""

        def store() -> Layer:
            temp = self.blobs.temp()
            temp.write(data)
            digest, created = self.blobs.keep(temp)
            return Layer(media_type(kind), digest, len(data), status=layer_status(digest, created))

        return await self.thread(store)


def media_type(kind: str) -> str:
    return kind if "/" in kind else IMAGE + kind


def layer_status(digest: str, created: bool) -> str:
    return f"{'creating new' if created else 'using existing'} layer {digest}"
