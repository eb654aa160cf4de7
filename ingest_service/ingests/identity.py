"""Do data directory and database belong together? Checked by every boot before anything else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from ingest_service.database import Conflict, Database
from ingest_service.storage import FileExecutor
from ingest_service.storage.identity import (
    network_file_system,
    on_one_file_system,
    read_store_id,
    write_store_id,
)

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


async def identity_for_rebuild(
    database: Database, data_directory: Path, executor: FileExecutor, new_id: Callable[[], str]
) -> str:
    """The store's id, where the database may be a new one that has none yet: `give_store_id` writes it once
    the rebuild has ended. Raises WrongStore.
    """
    if await database.read(lambda tx: tx.store.store_id()) is not None:
        return await check_identity(database, data_directory, executor, new_id)
    await _check_file_systems(database, data_directory, executor)
    try:
        store_id = await executor.run(read_store_id, data_directory)
        if store_id is None:
            store_id = new_id()
            await executor.run(write_store_id, data_directory, store_id)
    except OSError as error:
        raise WrongStore(
            f"INGEST_DATA_DIR {data_directory}: its store id cannot be read or written ({error.strerror}):"
            " make the directory and what is in it this user's own."
        ) from error
    return store_id


async def give_store_id(database: Database, store_id: str) -> None:
    """The database belongs to this store from now on. May be repeated."""
    if await database.read(lambda tx: tx.store.store_id()) is None:
        await database.transact(lambda tx: tx.store.set_store_id(store_id))


async def _check_file_systems(database: Database, data_directory: Path, executor: FileExecutor) -> None:
    # A volume may be mounted on any of them.
    directories = (data_directory, data_directory / "blobs", data_directory / "uploads")
    if not await executor.run(on_one_file_system, *directories):
        raise WrongStore(
            f"INGEST_DATA_DIR {data_directory} holds blobs/ or uploads/ on another file system, and a"
            " stored file is moved from one to the other: mount one volume at the data directory itself."
        )
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
            " database: point it at the store's own database, or choose an empty data directory. If the"
            " store's database is lost, `python -m ingest_service rebuild` lists its models again."
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
