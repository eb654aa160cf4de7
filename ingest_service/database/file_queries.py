"""Queries on files."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import and_, bindparam, case, func, insert, or_, select, update

from ingest_service.database.rows import changed, file_from_row, file_values
from ingest_service.database.statements import ReadOrLock, Statements, batches
from ingest_service.database.tables import files
from ingest_service.database.types import latest_believed
from ingest_service.vocabulary.records import File
from ingest_service.vocabulary.states import FileState

_WAITING = [str(FileState.PENDING), str(FileState.UPLOADING)]

_OF_INGESTS = ReadOrLock(
    select(files)
    .where(files.c.ingest_id.in_(bindparam("ingests", expanding=True)))
    .order_by(files.c.position)
)
#: Built once, as the one above: it runs for every 64 MiB.
_CHECKPOINT = (
    update(files)
    .where(
        files.c.id == bindparam("file"),
        files.c.writer_epoch == bindparam("epoch"),
        files.c.state.in_([str(FileState.UPLOADING), str(FileState.VERIFYING)]),
    )
    .values(
        progress_at=bindparam("now"),
        committed_size=case(
            (files.c.committed_size < bindparam("durable"), bindparam("durable")),
            else_=files.c.committed_size,
        ),
    )
)


class FileQueries:
    """Reads and writes `files`."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    async def of_ingests(self, ingest_ids: Sequence[str], *, lock: bool = False) -> dict[str, list[File]]:
        """The files of each ingest, in the order of its request."""
        found: dict[str, list[File]] = {ingest_id: [] for ingest_id in ingest_ids}
        for row in (await self._statements.run(_OF_INGESTS[lock], {"ingests": ingest_ids})).mappings():
            found[row["ingest_id"]].append(file_from_row(row))
        return found

    async def insert(self, new: Sequence[File]) -> None:
        """Writes the files of a new ingest."""
        if not new:
            return
        rows = [{**file_values(file), "position": position} for position, file in enumerate(new)]
        await self._statements.run(insert(files), rows)

    async def save(self, before: File, after: File) -> None:
        """Writes what changed."""
        values = changed(file_values(before), file_values(after))
        if values:
            await self._statements.run(update(files).where(files.c.id == after.id).values(**values))

    async def checkpoint(self, file_id: str, writer_epoch: int, committed_size: int, now: datetime) -> bool:
        """Records durable bytes; False if another writer took over or the file takes no bytes any more.

        `committed_size` never decreases: a smaller number changes nothing and is no error.
        """
        values = {"file": file_id, "epoch": writer_epoch, "durable": committed_size, "now": now}
        return (await self._statements.run(_CHECKPOINT, values)).rowcount == 1

    async def writers(self, file_ids: Sequence[str]) -> dict[str, tuple[int, FileState]]:
        """Epoch and state of each of these files that exists."""
        query = select(files.c.id, files.c.writer_epoch, files.c.state).where(files.c.id.in_(file_ids))
        rows = await self._statements.run(query)
        return {row.id: (row.writer_epoch, FileState(row.state)) for row in rows}

    async def states(self, file_ids: Sequence[str]) -> dict[str, FileState]:
        """The state of each of these files that exists."""
        found: dict[str, FileState] = {}
        for some in batches(file_ids):
            query = select(files.c.id, files.c.state).where(files.c.id.in_(some))
            found |= {row.id: FileState(row.state) for row in await self._statements.run(query)}
        return found

    async def without_progress_since(self, moment: datetime, limit: int) -> list[File]:
        """Files that wait for bytes and got none since then, the oldest first."""
        query = (
            select(files)
            .where(files.c.state.in_(_WAITING), files.c.progress_at < moment)
            .order_by(files.c.progress_at)
            .limit(limit)
        )
        return [file_from_row(row) for row in (await self._statements.run(query)).mappings()]

    async def correct_times_ahead(self, now: datetime) -> None:
        """Progress that a clock ahead of ours wrote down counts as progress of now, not as later."""
        # Every state is named, so that the index on state and time serves.
        ahead = (
            files.c.state.in_([str(state) for state in FileState]),
            files.c.progress_at > latest_believed(now),
        )
        await self._statements.run(update(files).where(*ahead).values(progress_at=now))

    async def reserved_bytes(self, pending_since: datetime, now: datetime) -> int:
        """Bytes that are still to come, and have room kept for them.

        A file whose first byte has not come counts only if it was declared, or taken by a writer, after
        `pending_since`, and not by a clock that was ahead of `now`.
        """
        missing = func.coalesce(func.sum(files.c.size_bytes - files.c.committed_size), 0)
        query = select(missing).where(
            or_(
                files.c.state == str(FileState.VERIFYING),
                and_(files.c.state == str(FileState.UPLOADING), files.c.committed_size > 0),
                and_(
                    files.c.state.in_(_WAITING),
                    files.c.progress_at.between(pending_since, latest_believed(now)),
                ),
            )
        )
        return int((await self._statements.run(query)).scalar_one())

    async def unfinished(self) -> list[File]:
        """Files whose bytes are neither stored nor given up: what a boot has to look at."""
        states = [str(FileState.UPLOADING), str(FileState.VERIFYING), str(FileState.PUBLISHING)]
        rows = (await self._statements.run(select(files).where(files.c.state.in_(states)))).mappings()
        return [file_from_row(row) for row in rows]
