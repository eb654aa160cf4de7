"""A pipeline on a real partial, with hooks where a fault can be put in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ingest_service.ingests.budget import ByteBudget
from ingest_service.ingests.limits import Limits
from ingest_service.ingests.pipeline import ChunkPipeline
from ingest_service.ingests.slabs import SlabPool
from ingest_service.storage import FileExecutor, LocalBlobStore, PartialFile, Sha256
from tests.ingests.parts import HookedHasher, HookedPartial, Hooks, new_id


@dataclass
class Rig:
    """A pipeline on a real partial, with hooks, and what it told."""

    executor: FileExecutor
    store: LocalBlobStore
    budget: ByteBudget
    limits: Limits
    slabs: SlabPool
    hooks: Hooks = field(default_factory=Hooks)
    committed: list[int] = field(default_factory=list)

    async def pipeline(self) -> tuple[ChunkPipeline, HookedPartial]:
        partial: PartialFile = await self.store.create_partial(new_id())
        hooked = HookedPartial(partial, self.hooks)

        async def on_checkpoint(size_bytes: int) -> None:
            assert size_bytes <= hooked.synced_bytes, "told of bytes that no sync covered"
            assert not self.committed or size_bytes > self.committed[-1], "told twice, or backwards"
            await self.hooks.run("on_checkpoint")
            self.committed.append(size_bytes)

        hasher = HookedHasher(Sha256(self.executor), self.hooks)
        return ChunkPipeline(
            hooked, hasher, self.budget, self.limits, on_checkpoint, slabs=self.slabs
        ), hooked


async def new_rig(directory: Path, executor: FileExecutor, budget_bytes: int = 2**30, **limits: float) -> Rig:
    store = LocalBlobStore(directory, executor)
    await store.prepare()
    values = {"checkpoint_bytes": 2**40, "checkpoint_seconds": 3600.0} | limits
    made = Limits(**values)  # type: ignore[arg-type]
    return Rig(executor, store, ByteBudget(budget_bytes), made, SlabPool(made.window_bytes))
