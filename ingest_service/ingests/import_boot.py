"""The import folder at boot: what a crash left goes on, what lies there is taken in, one after the other."""

from __future__ import annotations

import asyncio
import hashlib
import logging

from ingest_service.ingests.import_names import model_name_of
from ingest_service.ingests.imports import ImportRequest, Imports
from ingest_service.ingests.service import Ingests
from ingest_service.storage import FileIdentity, ImportFolder
from ingest_service.vocabulary.errors import Draining, IngestError
from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.states import FileState

_log = logging.getLogger(__name__)
#: What lies there beyond that waits for another boot.
_MAX_FILES = 1000
#: So often a file that was accepted and then failed is begun anew, once at each boot.
_MAX_ATTEMPTS = 10
_REMEDIES = {
    Reason.FILE_NAME_INVALID: "rename it or take it away",
    Reason.NAME_INVALID: "rename it or take it away; ImportFile gives the model a name of your own",
}


class ImportBoot:
    """Runs in the background from `start` on, once."""

    def __init__(self, folder: ImportFolder, imports: Imports, ingests: Ingests) -> None:
        self._folder = folder
        self._imports = imports
        self._ingests = ingests
        self._task: asyncio.Task[None] | None = None

    def start(self, *, look_for_files: bool) -> None:
        """Goes on with what was begun; `look_for_files`: takes in what lies in the folder, too."""
        self._task = asyncio.create_task(self._run(look_for_files=look_for_files))

    async def stop(self) -> None:
        """Begins no more of them."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, *, look_for_files: bool) -> None:
        try:
            await self._imports.resume()
            if look_for_files:
                for name in await self._folder.names(_MAX_FILES):
                    await self._take_in(name)
        except IngestError as error:
            _log.warning("the import folder could not be gone through", extra={"detail": error.message})
        except Exception:  # noqa: BLE001 (logged; serving goes on)
            _log.exception("unforeseen fault while the import folder was gone through")

    async def _take_in(self, name: str) -> None:
        try:
            request = ImportRequest(name, model_name_of(name), request_id=await self._request_id(name))
            _, task = await self._imports.begin(request, may_end_former=True)
        except Draining:
            return
        except IngestError as error:
            rule = {"rule": error.metadata["rule"]} if "rule" in error.metadata else {}
            _log.warning(
                "a file stays in the import folder",
                extra={
                    "file": name, "reason": error.reason, **rule, "detail": error.message,
                    "remedy": _REMEDIES.get(error.reason, "put it right or take it away"),
                },
            )  # fmt: skip
            return
        if task is not None:
            await asyncio.wait({task})

    async def _request_id(self, name: str) -> str:
        """The same for the same file in every process and at every boot, until that attempt has failed."""
        source = await self._folder.open(name)
        await source.close()
        first = f"import:{_hash(name, source.identity)}"
        request_id = first
        for attempt in range(2, _MAX_ATTEMPTS + 1):
            former = await self._ingests.by_request_id(request_id)
            if former is None or former.files[0].state is not FileState.FAILED:
                break
            request_id = f"{first}:{attempt}"
        return request_id


def _hash(name: str, identity: FileIdentity) -> str:
    # Not the device: its number may be another one after a reboot of the machine.
    words = f"{name}\0{identity.inode}\0{identity.size_bytes}\0{identity.modified_ns}"
    return hashlib.sha256(words.encode()).hexdigest()
