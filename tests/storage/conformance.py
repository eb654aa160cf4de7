"""What every blob store must do (`ingest_service/storage/base.py`), as one suite.

Subclass it next to a fixture `store` (a new, prepared, empty store) and a fixture `again` (another store
object on the same place, as another part of the same process would have it).
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ingest_service.storage import BlobStore, FileExecutor, PartialFile
from ingest_service.vocabulary.errors import BlobCorrupt, StorageFailed, WriterBusy
from tests.storage.sources import at_rest, opened

ID = "0123456789abcdef01234567"
OTHER = "f" * 24


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def stored(store: BlobStore, partial_id: str, data: bytes) -> str:
    """Writes, syncs and publishes; answers the digest."""
    partial = await store.create_partial(partial_id)
    await partial.write(0, [data])
    await partial.sync()
    await store.publish(partial_id, digest(data))
    await partial.close()
    return digest(data)


async def content(store: BlobStore, sha256: str) -> bytes:
    """The blob's bytes, read in pieces."""
    async with store.open_blob(sha256) as blob:
        parts = [await blob.read(offset, 1000) for offset in range(0, blob.size_bytes + 1, 1000)]
    return b"".join(parts)


def answers(answer: bool) -> Callable[[], Awaitable[bool]]:
    """A question with that answer."""

    async def question() -> bool:
        return answer

    return question


async def reopened(store: BlobStore, partial_id: str) -> PartialFile:
    partial = await store.open_partial(partial_id)
    assert partial is not None
    return partial


class BlobStoreConformance:
    """The suite."""

    async def test_large_writes_of_any_size_go_on_where_a_cut_left_off(self, store: BlobStore) -> None:
        data = random.Random(3).randbytes(3_000_017)
        partial = await store.create_partial(ID)
        await partial.write(0, [data[:700_001], memoryview(data)[700_001:1_500_000], b"x" * 600_000])
        await partial.sync()
        # Somewhere within a block, and before what the last sync has covered.
        await partial.truncate(1_000_003)
        await partial.close()
        opened_again = await store.open_partial(ID)
        assert opened_again is not None
        assert await opened_again.size_bytes() == 1_000_003
        await opened_again.write(1_000_003, [memoryview(data)[1_000_003:2_000_000]])
        await opened_again.write(2_000_000, [data[2_000_000:2_000_001], data[2_000_001:]])
        assert await opened_again.read(999_000, 1_100_000) == data[999_000:2_099_000]
        await opened_again.sync()
        await store.publish(ID, digest(data))
        await opened_again.close()
        async with store.open_blob(digest(data)) as blob:
            assert blob.size_bytes == len(data)
            assert await blob.read(0, len(data)) == data

    async def test_a_partial_keeps_its_bytes_when_it_is_closed_and_opened_again(
        self, store: BlobStore
    ) -> None:
        partial = await store.create_partial(ID)
        assert partial.partial_id == ID
        assert await partial.size_bytes() == 0
        await partial.write(0, [b"one", memoryview(b"two"), b"", b"three"])
        await partial.sync()
        await partial.close()
        partial = await reopened(store, ID)
        assert await partial.size_bytes() == 11
        await partial.write(11, [b"four"])
        await partial.sync()
        await store.publish(ID, digest(b"onetwothreefour"))
        await partial.close()
        assert await content(store, digest(b"onetwothreefour")) == b"onetwothreefour"

    async def test_a_write_of_more_buffers_than_the_system_takes_at_once_is_complete(
        self, store: BlobStore
    ) -> None:
        buffers = [random.Random(index).randbytes(index % 7) for index in range(3000)]
        partial = await store.create_partial(ID)
        await partial.write(0, buffers)
        await partial.sync()
        await store.publish(ID, digest(b"".join(buffers)))
        await partial.close()
        assert await content(store, digest(b"".join(buffers))) == b"".join(buffers)

    async def test_writes_go_where_they_are_told_to_go(self, store: BlobStore) -> None:
        partial = await store.create_partial(ID)
        await partial.write(6, [b"second"])
        await partial.write(0, [b"first "])
        await partial.sync()
        await store.publish(ID, digest(b"first second"))
        await partial.close()
        assert await content(store, digest(b"first second")) == b"first second"

    async def test_a_write_of_nothing_is_fine(self, store: BlobStore) -> None:
        partial = await store.create_partial(ID)
        await partial.write(0, [])
        await partial.write(0, [b""])
        await partial.sync()
        assert await partial.size_bytes() == 0
        await partial.close()

    async def test_a_published_partial_is_a_blob_and_no_partial_any_more(self, store: BlobStore) -> None:
        sha256 = await stored(store, ID, b"model")
        assert await store.partial_ids() == []
        assert await store.open_partial(ID) is None
        assert await store.blob_size_bytes(sha256) == 5
        assert await content(store, sha256) == b"model"

    async def test_an_empty_blob_is_a_blob(self, store: BlobStore) -> None:
        sha256 = await stored(store, ID, b"")
        assert await store.blob_size_bytes(sha256) == 0
        assert await content(store, sha256) == b""

    async def test_the_same_digest_may_be_published_twice(self, store: BlobStore) -> None:
        sha256 = await stored(store, ID, b"model")
        assert await stored(store, OTHER, b"model") == sha256
        assert await store.partial_ids() == []
        assert await content(store, sha256) == b"model"

    async def test_a_publication_that_a_crash_left_half_done_is_finished(self, store: BlobStore) -> None:
        sha256 = await stored(store, ID, b"model")
        await store.publish(ID, sha256)
        assert await content(store, sha256) == b"model"

    async def test_a_publication_of_nothing_is_a_failure(self, store: BlobStore) -> None:
        with pytest.raises(StorageFailed):
            await store.publish(ID, digest(b"model"))
        assert await store.blob_size_bytes(digest(b"model")) is None

    async def test_a_partial_has_one_writer(self, store: BlobStore, again: BlobStore) -> None:
        partial = await store.create_partial(ID)
        for opener in (store, again):
            with pytest.raises(WriterBusy):
                await opener.open_partial(ID)
            with pytest.raises(WriterBusy):
                await opener.remove_partial(ID)
        await partial.write(0, [b"still here"])
        await partial.close()
        after = await reopened(again, ID)
        assert await after.size_bytes() == 10
        with pytest.raises(WriterBusy):
            await store.open_partial(ID)
        await after.close()

    async def test_a_partial_is_created_once(self, store: BlobStore) -> None:
        partial = await store.create_partial(ID)
        await partial.write(0, [b"first"])
        await partial.close()
        with pytest.raises(WriterBusy):
            await store.create_partial(ID)
        kept = await reopened(store, ID)
        assert await kept.size_bytes() == 5
        await kept.close()

    async def test_a_partial_is_read_while_it_is_written(self, store: BlobStore) -> None:
        partial = await store.create_partial(ID)
        await partial.write(0, [b"0123456789"])
        assert await partial.read(2, 3) == b"234"
        assert await partial.read(8, 100) == b"89"
        assert await partial.read(10, 1) == b""
        await partial.close()
        with pytest.raises(RuntimeError):
            await partial.read(0, 1)

    async def test_a_truncated_partial_is_gone_on_with_where_it_was_cut(self, store: BlobStore) -> None:
        partial = await store.create_partial(ID)
        await partial.write(0, [b"kept and never synced"])
        await partial.close()
        partial = await reopened(store, ID)
        await partial.truncate(4)
        assert await partial.size_bytes() == 4
        await partial.write(4, [b" then more"])
        await partial.sync()
        await store.publish(ID, digest(b"kept then more"))
        await partial.close()
        assert await content(store, digest(b"kept then more")) == b"kept then more"

    async def test_a_partial_that_its_holder_removes_is_gone_and_free(
        self, store: BlobStore, again: BlobStore
    ) -> None:
        partial = await store.create_partial(ID)
        await partial.write(0, [b"of no use"])
        await partial.remove()
        await partial.close()
        assert await store.partial_ids() == []
        anew = await again.create_partial(ID)
        assert await anew.size_bytes() == 0
        await anew.close()

    async def test_blobs_are_listed_by_their_digests_and_partials_are_not(self, store: BlobStore) -> None:
        assert await store.blob_digests() == []
        digests = [await stored(store, ID, data) for data in (b"one", b"two", b"three")]
        partial = await store.create_partial(OTHER)
        assert await store.blob_digests() == sorted(digests)
        await partial.close()

    async def test_an_unwanted_blob_is_removed_and_a_wanted_one_stays(self, store: BlobStore) -> None:
        sha256, kept = await stored(store, ID, b"model"), await stored(store, ID, b"other")
        assert await store.remove_blob(sha256, answers(False)) is False
        assert await content(store, sha256) == b"model"
        assert await store.remove_blob(sha256, answers(True)) is True
        assert await store.blob_size_bytes(sha256) is None
        assert await store.blob_digests() == [kept]
        # One that is gone already: no reason to fail.
        assert await store.remove_blob(sha256, answers(True)) is True

    @pytest.mark.parametrize("remover", ["remove_blob", "quarantine_blob"])
    async def test_whether_a_blob_may_go_is_asked_while_nobody_can_publish_it(
        self, store: BlobStore, again: BlobStore, remover: str
    ) -> None:
        sha256 = await stored(store, ID, b"model")
        partial = await store.create_partial(OTHER)
        await partial.write(0, [b"model"])
        await partial.sync()
        publishing: list[asyncio.Task[None]] = []

        async def may_go() -> bool:
            publishing.append(asyncio.create_task(again.publish(OTHER, sha256)))
            await asyncio.wait(publishing, timeout=0.3)
            assert not publishing[0].done(), "published while the blob was about to go"
            return True

        assert await getattr(store, remover)(sha256, may_go)
        await publishing[0]
        await partial.close()
        # What was published last is there, whole.
        assert await content(store, sha256) == b"model"

    async def test_a_question_that_fails_removes_nothing_and_holds_nothing(self, store: BlobStore) -> None:
        sha256 = await stored(store, ID, b"model")

        async def fails() -> bool:
            raise RuntimeError("the database is away")

        for call in (store.remove_blob, store.quarantine_blob):
            with pytest.raises(RuntimeError):
                await call(sha256, fails)
        assert await content(store, sha256) == b"model"
        assert await store.remove_blob(sha256, answers(True)) is True

    async def test_a_blob_in_quarantine_is_no_blob_any_more(self, store: BlobStore) -> None:
        sha256 = await stored(store, ID, b"model")
        assert await store.quarantine_blob(sha256, answers(False)) is None
        assert await content(store, sha256) == b"model"
        assert await store.quarantine_blob(sha256, answers(True))
        assert await store.quarantine_blob(sha256, answers(True)) is None
        assert await store.blob_size_bytes(sha256) is None
        assert await store.blob_digests() == []
        assert await stored(store, ID, b"model") == sha256

    async def test_there_is_no_partial_before_one_is_created(self, store: BlobStore) -> None:
        assert await store.open_partial(ID) is None
        assert await store.remove_partial(ID) is False
        assert await store.partial_ids() == []

    async def test_a_removed_partial_is_gone(self, store: BlobStore) -> None:
        for partial_id in (ID, OTHER):
            await (await store.create_partial(partial_id)).close()
        assert await store.partial_ids() == [ID, OTHER]
        assert await store.remove_partial(ID) is True
        assert await store.remove_partial(ID) is False
        assert await store.partial_ids() == [OTHER]

    async def test_close_may_be_repeated_and_a_closed_partial_takes_nothing(self, store: BlobStore) -> None:
        partial = await store.create_partial(ID)
        await partial.close()
        await partial.close()
        with pytest.raises(RuntimeError):
            await partial.write(0, [b"late"])
        with pytest.raises(RuntimeError):
            await partial.sync()

    async def test_what_is_in_quarantine_is_not_written_over(self, store: BlobStore) -> None:
        places = set()
        for number in range(3):
            sha256 = await stored(store, f"{number:024x}", b"model")
            places.add(await store.quarantine_blob(sha256, answers(True)))
        assert None not in places
        assert len(places) == 3

    async def test_a_reader_keeps_its_bytes_when_the_blob_is_replaced(self, store: BlobStore) -> None:
        sha256 = await stored(store, ID, b"model")
        async with store.open_blob(sha256) as blob:
            await stored(store, OTHER, b"model")
            assert await blob.read(0, 100) == b"model"

    async def test_a_read_is_short_only_at_the_end(self, store: BlobStore) -> None:
        sha256 = await stored(store, ID, b"0123456789")
        async with store.open_blob(sha256) as blob:
            assert blob.size_bytes == 10
            assert await blob.read(2, 3) == b"234"
            assert await blob.read(8, 100) == b"89"
            assert await blob.read(10, 1) == b""

    async def test_a_blob_that_is_not_there_is_said_to_be_lost(self, store: BlobStore) -> None:
        assert await store.blob_size_bytes(digest(b"nothing")) is None
        with pytest.raises(BlobCorrupt):
            async with store.open_blob(digest(b"nothing")):
                pass

    async def test_the_probe_leaves_nothing_behind(self, store: BlobStore) -> None:
        await store.probe()
        await store.probe()
        assert await store.partial_ids() == []
        assert await store.free_bytes() > 0

    @pytest.mark.parametrize(
        "partial_id", ["", "..", "../etc/passwd", "a/b", "a.b", "a b", "é", "-", "x" * 65, "a\n", "a\0"]
    )
    async def test_an_id_that_the_service_did_not_make_is_refused(
        self, store: BlobStore, partial_id: str
    ) -> None:
        for call in (store.create_partial, store.open_partial, store.remove_partial):
            with pytest.raises(ValueError, match="ids that the service made"):
                await call(partial_id)
        with pytest.raises(ValueError, match="ids that the service made"):
            await store.publish(partial_id, digest(b""))

    @pytest.mark.parametrize(
        "sha256",
        [
            "", "sha256:", "a" * 64, f"sha256-{'a' * 64}", f"sha512:{'a' * 64}", f"sha256:{'A' * 64}",
            f"sha256:{'a' * 63}", f"sha256:{'a' * 65}", f"sha256:{'٣' * 64}", f"sha256:{'a' * 64}\n",
            f"sha256:../../{'a' * 58}",
        ],
    )  # fmt: skip
    async def test_a_digest_that_is_none_is_refused(self, store: BlobStore, sha256: str) -> None:
        with pytest.raises(ValueError, match="parsed digests"):
            await store.blob_size_bytes(sha256)
        with pytest.raises(ValueError, match="parsed digests"):
            await store.publish(ID, sha256)
        with pytest.raises(ValueError, match="parsed digests"):
            async with store.open_blob(sha256):
                pass

    async def test_an_adopted_file_is_a_partial_of_its_bytes_that_is_published_as_any_other(
        self, store: BlobStore, tmp_path: Path, executor: FileExecutor
    ) -> None:
        path = at_rest(tmp_path / "theirs", b"whole")
        async with opened(path, executor) as source:
            partial = await store.adopt(ID, source)
            # A store that never can says so before.
            assert await store.adopts(source) <= (partial is not None)
        if partial is None:
            assert await store.partial_ids() == []
            return
        assert (await partial.size_bytes(), await partial.read(0, 9)) == (5, b"whole")
        await partial.sync()
        await partial.close()
        # It is found again, after a crash for example.
        partial = await reopened(store, ID)
        await partial.truncate(5)
        await store.publish(ID, digest(b"whole"))
        await partial.close()
        assert await content(store, digest(b"whole")) == b"whole"

    async def test_an_adopted_file_is_left_whole_when_its_partial_is_cut_written_to_or_removed(
        self, store: BlobStore, tmp_path: Path, executor: FileExecutor
    ) -> None:
        path = at_rest(tmp_path / "theirs", b"whole")
        async with opened(path, executor) as source:
            partial = await store.adopt(ID, source)
        if partial is None:
            return
        await partial.close()
        partial = await reopened(store, ID)
        await partial.truncate(0)
        assert await partial.size_bytes() == 0
        await partial.write(0, [b"other bytes"])
        await partial.sync()
        with pytest.raises(WriterBusy):
            await store.open_partial(ID)
        assert await partial.read(0, 99) == b"other bytes"
        assert path.read_bytes() == b"whole"
        await partial.close()
        assert await store.remove_partial(ID)
        async with opened(path, executor) as source:
            partial = await store.adopt(ID, source)
        assert partial is not None
        await partial.remove()
        assert path.read_bytes() == b"whole"
        assert await store.partial_ids() == []

    async def test_nothing_is_adopted_where_there_is_a_partial_and_an_adopted_one_is_locked(
        self, store: BlobStore, again: BlobStore, tmp_path: Path, executor: FileExecutor
    ) -> None:
        path = at_rest(tmp_path / "theirs", b"whole")
        partial = await store.create_partial(ID)
        async with opened(path, executor) as source:
            with pytest.raises(WriterBusy):
                await again.adopt(ID, source)
            await partial.remove()
            partial_or_none = await again.adopt(ID, source)
        if partial_or_none is not None:
            with pytest.raises(WriterBusy):
                await store.open_partial(ID)
            await partial_or_none.remove()
