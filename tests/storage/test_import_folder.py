"""Claims of the import folder, and which of its files are listed.

Breaks when: two have one claim, a claim is not kept as it was over a crash, or a listing has no bound.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest_service.storage import FileExecutor, ImportFolder, LocalBlobStore
from ingest_service.vocabulary.errors import FileNotFound
from tests.storage.sources import at_rest

ID = "0123456789abcdef01234567"


@pytest.fixture
async def folder(store: LocalBlobStore, data_dir: Path, executor: FileExecutor) -> ImportFolder:
    at_rest(data_dir / "import" / "b.gguf", b"whole")
    return ImportFolder(data_dir, executor)


async def test_a_claim_is_held_by_one_and_found_again_as_it_was(
    folder: ImportFolder, data_dir: Path, executor: FileExecutor
) -> None:
    other = ImportFolder(data_dir, executor)
    source = await folder.open("b.gguf")
    claim = await folder.claim(ID, "f00", source)
    assert claim is not None
    assert (claim.ingest_id, claim.name, claim.identity) == ("f00", "b.gguf", source.identity)
    assert await other.claim(ID, "f00", source) is None
    assert await other.claim_again(ID) is None
    await folder.release(claim)
    await source.close()
    # Another file of that name is not what was claimed.
    at_rest(data_dir / "import" / "b.gguf", b"another")
    source = await other.open("b.gguf")
    again = await other.claim(ID, "f00", source)
    assert again is not None
    assert again.identity == claim.identity != source.identity
    await source.close()
    assert await other.claimed() == [ID]
    await other.end(again, stored=True)
    assert await other.claimed() == []
    # It is not the file that was stored, so it stays.
    assert (data_dir / "import" / "b.gguf").read_bytes() == b"another"
    assert await folder.claim_again(ID) is None
    assert await folder.claimed() == []


async def test_so_many_names_and_no_more_the_first_ones(folder: ImportFolder, data_dir: Path) -> None:
    for name in ("c.gguf", "a.gguf"):
        at_rest(data_dir / "import" / name, b"whole")
    assert await folder.names(2) == ["a.gguf", "b.gguf"]


async def test_a_name_that_is_not_there(folder: ImportFolder) -> None:
    with pytest.raises(FileNotFound):
        await folder.open("none.gguf")
    with pytest.raises(ValueError, match="ids that the service made"):
        await folder.claim_again("../a")
