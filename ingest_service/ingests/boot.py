"""What a boot puts right before the service says SERVING: the store's identity, what a crash left."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from ingest_service.database import Conflict, Database
from ingest_service.formats import recognise
from ingest_service.formats.recognise import MAGIC_BYTES
from ingest_service.ingests.file_moves import FileMoves
from ingest_service.storage import BlobStore, FileExecutor
from ingest_service.storage.identity import network_file_system, read_store_id, write_store_id
from ingest_service.vocabulary.errors import (
    BlobCorrupt,
    FormatInvalid,
    StorageFailed,
    StorageFull,
    WriterBusy,
)
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.records import Failure, File
from ingest_service.vocabulary.states import FileState

_log = logging.getLogger(__name__)


class WrongStore(Exception):
    """Data directory and database do not belong together; the message holds the remedy."""


async def check_identity(
    database: Database, data_directory: Path, executor: FileExecutor, new_id: Callable[[], str]
) -> str:
    """Compares the store ids of directory and database; writes them on the very first boot.

    Raises WrongStore. An unmounted volume must not look like a lost store (design.md section 4).
    """
    await _check_file_systems(database, data_directory, executor)
    try:
        return await _compare(database, data_directory, executor, new_id)
    except OSError as error:
        raise WrongStore(
            f"INGEST_DATA_DIR {data_directory}: the store id in it cannot be read or written"
            f" ({error.strerror}): make the directory and what is in it this user's own."
        ) from error
    except Conflict:
        # Another process had its very first boot at the same moment: its id is there now.
        return await _compare(database, data_directory, executor, new_id)


async def _check_file_systems(database: Database, data_directory: Path, executor: FileExecutor) -> None:
    # A volume may be mounted on any of them.
    directories = (data_directory, data_directory / "blobs", data_directory / "uploads")
    places = dict.fromkeys(directories, "INGEST_DATA_DIR")
    url = database.engine.url
    if url.get_backend_name() == "sqlite" and url.database:
        places[Path(url.database)] = "INGEST_DATABASE_URL"
    for path, setting in places.items():
        kind = await executor.run(network_file_system, path)
        if kind is not None:
            raise WrongStore(
                f"{setting}: {path} is on a network file system ({kind}), where locks and syncs do not hold;"
                " use a local one."
            )


async def _compare(
    database: Database, data_directory: Path, executor: FileExecutor, new_id: Callable[[], str]
) -> str:
    on_disk = await executor.run(read_store_id, data_directory)
    in_database = await database.read(lambda tx: tx.store.store_id())
    if on_disk is None and in_database is None:
        # The database first: a crash in between leaves an id that the directory lacks, which is repaired
        # below as long as nothing is stored.
        store_id = new_id()
        await database.transact(lambda tx: tx.store.set_store_id(store_id))
        await executor.run(write_store_id, data_directory, store_id)
        _log.info("new store", extra={"store_id": store_id})
        return store_id
    if on_disk is None and in_database is not None and not await _holds_anything(database):
        await executor.run(write_store_id, data_directory, in_database)
        return in_database
    if on_disk is None:
        raise WrongStore(
            f"INGEST_DATA_DIR {data_directory} has no store id, but INGEST_DATABASE_URL belongs to store"
            f" {in_database}: is the data volume mounted? Mount it, or point INGEST_DATA_DIR at it."
        )
    if in_database is None:
        raise WrongStore(
            f"INGEST_DATA_DIR {data_directory} is store {on_disk}, but INGEST_DATABASE_URL is a new, empty"
            " database: point it at the store's own database, or choose an empty data directory."
        )
    if on_disk != in_database:
        raise WrongStore(
            f"INGEST_DATA_DIR {data_directory} is store {on_disk}, but INGEST_DATABASE_URL belongs to store"
            f" {in_database}: point both at the same store."
        )
    return on_disk


async def _holds_anything(database: Database) -> bool:
    ingests, _ = await database.read(
        lambda tx: tx.ingests.page(canonical_model=None, states=(), before_number=None, limit=1)
    )
    return bool(ingests)


class Recovery:
    """Finishes or gives up what a crash left unfinished, one log line each."""

    def __init__(self, database: Database, store: BlobStore, *, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._store = store
        self._moves = FileMoves(database, clock)

    async def run(self) -> None:
        """Looks at every unfinished file and every partial; what a live process holds is left alone."""
        unfinished = await self._database.read(lambda tx: tx.files.unfinished())
        kept: set[str] = set()
        for file in unfinished:
            try:
                if file.state is FileState.PUBLISHING:
                    await self._publish(file)
                else:
                    await self._give_up(file)
            except WriterBusy:
                kept.add(file.id)
        for partial_id in await self._store.partial_ids():
            if partial_id not in kept:
                await self._remove_orphan(partial_id)

    async def _publish(self, file: File) -> None:
        """Its digest was right: whichever of partial and blob exists becomes the blob."""
        assert file.sha256 is not None
        try:
            await self._check_partial(file)
            await self._store.publish(file.id, file.sha256)
            async with self._store.open_blob(file.sha256) as blob:
                file_format = recognise(await blob.read(0, MAGIC_BYTES), blob.size_bytes)
        except (StorageFailed, BlobCorrupt, FormatInvalid):
            _log.exception("a file in publication has lost its bytes", extra=_of(file))
            failure = Failure(Reason.STORAGE_FAILED, "The store lost the bytes of this file: push it again.")
            await self._moves.fail(file, failure)
            return
        await self._moves.stored(file, file_format)
        _log.info("finished the publication of a file", extra={**_of(file), "sha256": file.sha256})

    async def _check_partial(self, file: File) -> None:
        """What is there is all there, and durable. Raises WriterBusy, StorageFailed."""
        partial = await self._store.open_partial(file.id)
        if partial is None:
            return
        try:
            # Their sync came before the row, so the bytes are there; a disk that lied is found out here.
            if await partial.size_bytes() != file.size_bytes:
                raise StorageFailed
            await partial.sync()
        finally:
            await partial.close()

    async def _give_up(self, file: File) -> None:
        try:
            partial = await self._store.open_partial(file.id)
        except StorageFailed:
            # Something that cannot be opened bears its name: no upload can be running on it.
            partial = None
        if partial is not None:
            await partial.close()
        failure = Failure(
            Reason.UPLOAD_INTERRUPTED,
            "The service stopped while the upload was running; this version cannot resume it: push again.",
        )
        try:
            await self._moves.fail(file, failure)
        except StorageFull:
            # The database shares the full disk, and this partial may be what fills it.
            await self._store.remove_partial(file.id)
            await self._moves.fail(file, failure)
        _log.info("gave up an interrupted upload", extra=_of(file))

    async def _remove_orphan(self, partial_id: str) -> None:
        try:
            if await self._store.remove_partial(partial_id):
                _log.info("removed a partial that belongs to no upload", extra={"partial": partial_id})
        except WriterBusy:
            _log.info("left a partial that another process holds", extra={"partial": partial_id})
        except StorageFailed:
            # One file that cannot be removed is no reason not to serve; the store has logged why.
            _log.warning("left a partial that cannot be removed", extra={"partial": partial_id})


def _of(file: File) -> dict[str, str]:
    return {"ingest": file.ingest_id, "file": file.file_name}
