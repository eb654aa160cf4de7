"""sha256 wrong, malformed or missing, in CreateIngest and in finish."""

from __future__ import annotations

import pytest
from model_ingest.v1 import resources_pb2

from tests.conftest import StartService
from tests.rpc.refusals import refused
from tests.rpc.scenes import Scene
from tests.rpc.uploading import upload
from tests.support.files import MEBIBYTE, create_request, digest, gguf, upload_messages

pytestmark = pytest.mark.asyncio(loop_scope="module")

DATA = gguf(MEBIBYTE)
RIGHT, OTHER = digest(DATA), digest(b"other")
HEX = RIGHT.removeprefix("sha256:")
MALFORMED = {
    "upper case": f"sha256:{HEX.upper()}",
    "dash": f"sha256-{HEX}",
    "short": RIGHT[:-1],
    "long": RIGHT + "0",
    "newline": RIGHT + "\n",
    "no prefix": HEX,
    "prefix in upper case": f"SHA256:{HEX}",
    "another algorithm": f"sha512:{HEX}",
    "no hex": "sha256:" + "g" * 64,
    "other digits": "sha256:" + "\u0660" * 64,
    "space": " " + RIGHT,
    "path": "sha256:../../../../etc/passwd",
}


async def left_resumable(shared: Scene, file: str) -> None:
    """Its bytes are all kept, and a `finish` that is right would do; nobody sends it."""
    await shared.assert_resumable(file, len(DATA))
    await shared.give_up(file)


@pytest.mark.parametrize("sha256", MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_digest_in_create(shared: Scene, sha256: str) -> None:
    before = await shared.all_ingests()
    request = create_request(DATA, sha256=sha256)
    await refused(shared.running.ingests.CreateIngest(request), "DIGEST_MALFORMED")
    assert await shared.all_ingests() == before


@pytest.mark.extended_unless("path")
@pytest.mark.parametrize("sha256", MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_digest_in_finish(shared: Scene, sha256: str) -> None:
    file = await shared.new_file(DATA)
    messages = upload_messages(file, DATA, sha256=sha256)
    await refused(upload(shared.running, messages), "DIGEST_MALFORMED")
    await left_resumable(shared, file)


async def test_a_wrong_digest_in_finish(shared: Scene) -> None:
    file = await shared.new_file(DATA)
    refusal = await refused(
        upload(shared.running, upload_messages(file, DATA, sha256=OTHER)), "DIGEST_MISMATCH"
    )
    assert refusal.metadata == {"expected": OTHER, "actual": RIGHT}
    ingest = await shared.assert_failed(file, "DIGEST_MISMATCH")
    assert dict(ingest.failure.metadata) == refusal.metadata


async def test_a_wrong_digest_in_create(shared: Scene) -> None:
    file = await shared.new_file(DATA, sha256=OTHER)
    refusal = await refused(upload(shared.running, upload_messages(file, DATA, sha256="")), "DIGEST_MISMATCH")
    assert refusal.metadata == {"expected": OTHER, "actual": RIGHT}
    await shared.assert_failed(file, "DIGEST_MISMATCH")


async def test_two_digests_that_contradict_each_other(shared: Scene) -> None:
    file = await shared.new_file(DATA, sha256=OTHER)
    refusal = await refused(upload(shared.running, upload_messages(file, DATA)), "DIGEST_MISMATCH")
    assert refusal.metadata == {"expected": OTHER, "actual": RIGHT}
    await shared.assert_failed(file, "DIGEST_MISMATCH")


async def test_a_file_that_changed_while_it_was_sent(shared: Scene) -> None:
    """Chunks carry right checksums of wrong bytes: only the digest of the whole tells."""
    changed = DATA[:-1] + bytes([DATA[-1] ^ 1])
    file = await shared.new_file(DATA, sha256=RIGHT)
    refusal = await refused(
        upload(shared.running, upload_messages(file, changed, sha256=RIGHT)), "DIGEST_MISMATCH"
    )
    assert refusal.metadata == {"expected": RIGHT, "actual": digest(changed)}
    await shared.assert_failed(file, "DIGEST_MISMATCH")


async def test_no_digest_at_all(shared: Scene) -> None:
    file = await shared.new_file(DATA)
    await refused(upload(shared.running, upload_messages(file, DATA, sha256="")), "DIGEST_REQUIRED")
    await left_resumable(shared, file)


@pytest.mark.asyncio(loop_scope="function")
async def test_a_digest_in_create_alone_is_enough(scene: Scene) -> None:
    file = await scene.new_file(DATA, sha256=RIGHT)
    stored = await upload(scene.running, upload_messages(file, DATA, sha256=""))
    assert (stored.state, stored.sha256) == (resources_pb2.File.STATE_STORED, RIGHT)


@pytest.mark.asyncio(loop_scope="function")
async def test_without_require_digest_the_service_computes_its_own(start_service: StartService) -> None:
    running = await start_service(require_digest="false")
    ingest = await running.ingests.CreateIngest(create_request(DATA))
    stored = await upload(running, upload_messages(ingest.files[0].name, DATA, sha256=""))
    assert (stored.state, stored.sha256) == (resources_pb2.File.STATE_STORED, RIGHT)


@pytest.mark.asyncio(loop_scope="function")
async def test_without_require_digest_one_that_is_given_still_counts(start_service: StartService) -> None:
    running = await start_service(require_digest="false")
    ingest = await running.ingests.CreateIngest(create_request(DATA))
    messages = upload_messages(ingest.files[0].name, DATA, sha256=OTHER)
    await refused(upload(running, messages), "DIGEST_MISMATCH")
