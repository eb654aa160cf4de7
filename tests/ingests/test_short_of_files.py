"""A process that is short of descriptors, or finds one bad spot, gives no file up for it."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from ingest_service.ingests.recovery import Recovery
from ingest_service.vocabulary.errors import BackendDown, StorageFailed
from ingest_service.vocabulary.states import FileState
from tests.ingests.parts import Parts, clock, raising
from tests.ingests.test_recovery import DATA, crashed

_OPEN = os.open


@pytest.mark.extended_unless(".part-24", ".locks-24")
@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
@pytest.mark.parametrize(
    ("state", "where"),
    [(FileState.VERIFYING, ".part"), (FileState.PUBLISHING, ".part"), (FileState.PUBLISHING, ".locks")],
)
async def test_a_repair_that_cannot_open_a_file_leaves_its_row_as_it_is(
    parts_on_sqlite: Parts, monkeypatch: pytest.MonkeyPatch, state: FileState, where: str, number: int
) -> None:
    ingest = await crashed(parts_on_sqlite, state, partial=DATA, committed=len(DATA))
    recovery = Recovery(parts_on_sqlite.database, parts_on_sqlite.store, parts_on_sqlite.vetting, clock=clock)

    def none_left(path: Any, *args: Any, **more: Any) -> int:
        if where in str(path):
            raise OSError(number, os.strerror(number))
        return _OPEN(path, *args, **more)

    with monkeypatch.context() as short:
        short.setattr(os, "open", none_left)
        with pytest.raises(BackendDown):
            await recovery.of_the_dead()
    assert (await parts_on_sqlite.file(ingest)).state is state
    await recovery.of_the_dead()
    assert (await parts_on_sqlite.push(ingest, DATA)).state is FileState.STORED
    assert parts_on_sqlite.blob(DATA) == DATA


async def test_one_partial_that_cannot_be_cut_does_not_stop_the_boot(parts_on_sqlite: Parts) -> None:
    first = await crashed(parts_on_sqlite, FileState.UPLOADING, partial=DATA, committed=10)
    second = await crashed(parts_on_sqlite, FileState.UPLOADING, partial=DATA, committed=10)
    parts_on_sqlite.hooks.before["truncate"] = raising(StorageFailed("EIO"), times=1)
    await Recovery(
        parts_on_sqlite.database, parts_on_sqlite.store, parts_on_sqlite.vetting, clock=clock
    ).at_boot()
    kept = [len(parts_on_sqlite.kept(await parts_on_sqlite.file(ingest))) for ingest in (first, second)]
    assert sorted(kept) == [10, len(DATA)]
