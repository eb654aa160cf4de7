"""The data directory and the database of one process: opened, checked against each other, closed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from ingest_service.config import Settings
from ingest_service.database import Database
from ingest_service.database.migrate import SchemaTooNew, migrate
from ingest_service.database.unusable import why_unusable
from ingest_service.ingests.identity import WrongStore, check_identity, give_store_id, identity_for_rebuild
from ingest_service.ingests.recovery import Recovery
from ingest_service.process import StartError, check_holds_store, store_in_use
from ingest_service.storage import DirectIo, FileExecutor, LocalBlobStore, LocalQuarantine, LocalScanner
from ingest_service.storage.layout import (
    UnsafeLayout,
    make_data_directory,
    secure_layout,
    why_directory_unusable,
)
from ingest_service.storage.store_guard import StoreGuard
from ingest_service.storage.store_lock import StoreLock
from ingest_service.vocabulary.errors import DatabaseDown, IngestError, StorageFull

_log = logging.getLogger(__name__)
#: For sizes and free room, which the kernel mostly knows without asking the disk.
_LOOKER_THREADS = 2


class OpenedStore:
    """`open`, then `close`. What it is made of may be handed out before it is opened."""

    def __init__(self, settings: Settings, new_id: Callable[[], str]) -> None:
        self._settings = settings
        self._new_id = new_id
        self.executor = FileExecutor(settings.file_threads)
        # When the disk stands still, all threads for files soon wait for it; who only asks must not.
        self._looker = FileExecutor(_LOOKER_THREADS)
        self.database = Database(settings.database_url)
        self._guard = StoreGuard(settings.data_dir)
        self._lock = StoreLock(settings.data_dir)
        self.blobs = LocalBlobStore(
            settings.data_dir,
            self.executor,
            looker=self._looker,
            direct_io=DirectIo(settings.direct_io),
            guard=self._guard,
        )
        self.quarantine = LocalQuarantine(
            settings.data_dir, self.blobs, self.executor, self._guard, self._looker
        )
        self.scanner = LocalScanner(settings.data_dir, self._guard)

    async def open(self, *, alone: bool = False) -> str:
        """Opens directory and database and checks that they belong together; answers the store's id.

        `alone`: for a rebuild; the database may be new. Raises StartError, and StoreInUse while others work
        on the store.
        """
        if alone:
            await self.executor.run(check_holds_store, self._settings.data_dir)
        await self._open_directory(alone=alone)
        await self._open_database()
        try:
            identity = identity_for_rebuild if alone else check_identity
            store_id = await identity(self.database, self._settings.data_dir, self.executor, self._new_id)
        except WrongStore as error:
            raise StartError(str(error)) from error
        except DatabaseDown as error:
            raise await self.no_database(error) from error
        self._guard.expected = store_id
        return store_id

    async def recover(self, recovery: Recovery) -> None:
        """What a crash left is put right; then the store must be writable. Raises StartError."""
        try:
            await recovery.at_boot()
            await self.blobs.probe()
            # Not before: on a disk that is full, the recovery may have made room.
            await self.database.prove_writable()
        except DatabaseDown as error:
            raise await self.no_database(error) from error
        except IngestError as error:
            raise self._no_directory(error) from error

    async def give_store_id(self, store_id: str) -> None:
        """A rebuild has ended: services may start on this database."""
        await give_store_id(self.database, store_id)

    async def close(self) -> None:
        """Closes what `open` opened, however far it came."""
        await self.database.close()
        self.scanner.close()
        self._lock.release()
        self.executor.close()
        self._looker.close()

    async def no_database(self, error: BaseException) -> StartError:
        """Why the database cannot be used, in one line with the remedy."""
        return await _no_database(self._settings, self.database, error)

    async def _open_directory(self, *, alone: bool) -> None:
        try:
            await self.executor.run(make_data_directory, self._settings.data_dir)
            await self.executor.run(secure_layout, self._settings.data_dir)
            await self.blobs.prepare()
            if not await self.executor.run(lambda: self._lock.take(alone=alone)):
                raise store_in_use(self._settings.data_dir, alone=alone)
            if self._settings.direct_io == DirectIo.ON and not await self.blobs.takes_direct_writes():
                raise StartError(
                    "INGEST_DIRECT_IO is on, but the file system of INGEST_DATA_DIR"
                    f" {self._settings.data_dir} takes no direct writes: set it to auto."
                )
            # A full disk is no reason to stop yet: what the recovery removes may make room.
            with contextlib.suppress(StorageFull):
                await self.blobs.probe()
        except UnsafeLayout as error:
            raise StartError(str(error)) from error
        except (OSError, IngestError) as error:
            raise self._no_directory(error) from error

    async def _open_database(self) -> None:
        try:
            before, after = await migrate(self.database)
        except SchemaTooNew as error:
            raise _too_new(error) from error
        except Exception as error:
            _log.debug("the database cannot be opened", exc_info=error)
            raise await self.no_database(error) from error
        if before != after:
            _log.info("database migrated", extra={"from_revision": before, "to_revision": after})

    def _no_directory(self, error: BaseException) -> StartError:
        return StartError(why_directory_unusable(self._settings.data_dir, error))


async def migrate_only(settings: Settings) -> tuple[str | None, str]:
    """Brings the schema up to date; answers the revision before and after. Raises StartError."""
    if settings.database_url.startswith("sqlite"):
        await asyncio.to_thread(make_data_directory, settings.data_dir)
    database = Database(settings.database_url)
    try:
        return await migrate(database)
    except SchemaTooNew as error:
        raise _too_new(error) from error
    except Exception as error:
        raise await _no_database(settings, database, error) from error
    finally:
        await database.close()


def _too_new(error: SchemaTooNew) -> StartError:
    return StartError(
        f"INGEST_DATABASE_URL is at schema {error}, which is newer than this program: run the newer version."
    )


async def _no_database(settings: Settings, database: Database, error: BaseException) -> StartError:
    why = await asyncio.to_thread(why_unusable, database.engine.url, error)
    return StartError(f"INGEST_DATABASE_URL {settings.public()['database_url']} cannot be opened {why}")
