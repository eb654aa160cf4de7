"""To READY by three ways, a model that is known already, and an upload that goes on after a kill."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from model_ingest.v1.ingest_service_pb2 import UploadRequest, UploadStart

from benchmarks.deployments import ways
from benchmarks.main_path import bytes_at_ollama, emulator, push
from benchmarks.resilience import chunk, fill, seconds_to_serving
from benchmarks.suite.sides import MEBIBYTE, new_file
from tests.faults.children import Child
from tests.support.files import create_request
from tests.support.service import ServiceProcess, environment
from tests.support.stubs import ingest_stub


async def to_ready(directory: Path, size_bytes: int, rounds: int) -> dict[str, Any]:
    """`push --declare-digest` to READY over loopback: HTTP after the upload, beside it, by hardlink."""
    return await ways(directory, size_bytes, rounds, 0)


async def again(directory: Path, size_bytes: int, rounds: int) -> dict[str, Any]:
    """The same file under another name, and what was sent for it."""
    with tempfile.TemporaryDirectory(dir=directory) as name:
        here = Path(name)
        new_file(here / "model.gguf", size_bytes)
        async with emulator(here / "ollama") as ollama:
            variables = environment(here / "data", "", f"default={ollama.base_url}")
            del variables["INGEST_DATABASE_URL"]
            async with ServiceProcess(variables, here / "log") as process:
                first = await push(here / "model.gguf", process.address, "first", "--declare-digest")
                sent = await bytes_at_ollama(ollama)
                seconds = [
                    await push(here / "model.gguf", process.address, f"again-{number}", "--declare-digest")
                    for number in range(rounds)
                ]
                return {
                    "first_seconds": round(first, 2),
                    "again_seconds": [round(one, 2) for one in seconds],
                    "ratio": round(statistics.median(seconds) / first, 3),
                    "bytes_sent_to_ollama_again": await bytes_at_ollama(ollama) - sent,
                    "uploads_started": process.log.read_text().count('message="upload started"'),
                }


async def after_a_kill(directory: Path, size_bytes: int, rounds: int) -> dict[str, Any]:
    """From a new channel until one MiB more is durable and answered, the hasher being `size_bytes` behind."""
    with tempfile.TemporaryDirectory(dir=directory) as name:
        here = Path(name)
        variables = environment(here / "data", "", require_digest=False, log_level="WARNING")
        del variables["INGEST_DATABASE_URL"]
        child = Child(variables, here / "log")
        boots, resumes = [], []
        try:
            await child.start()
            async with child.channel() as channel:
                request = create_request(size_bytes + 64 * MEBIBYTE, "large")
                ingest = await ingest_stub(channel).CreateIngest(request)
            await fill(child, ingest, size_bytes)
            for number in range(rounds):
                boots.append(await seconds_to_serving(child))
                at = size_bytes + number * MEBIBYTE
                began = time.perf_counter()
                async with child.channel() as channel:
                    call = ingest_stub(channel).Upload()
                    await call.write(UploadRequest(start=UploadStart(file=ingest.files[0].name)))
                    await call.write(chunk(at, bytes(MEBIBYTE)))
                    await call.done_writing()
                    assert (await call).committed_size == at + MEBIBYTE
                resumes.append(time.perf_counter() - began)
                await child.kill()
        finally:
            with contextlib.suppress(AssertionError):
                await child.kill()
        return {
            "committed_bytes": size_bytes,
            "start_to_serving_seconds": [round(one, 2) for one in boots],
            "resume_seconds": [round(one, 3) for one in resumes],
            "resume_to_reading_it_all_again": round(
                statistics.median(resumes) / _rehash_seconds(size_bytes), 3
            ),
        }


def _rehash_seconds(size_bytes: int) -> float:
    """What a service would take that hashes what it has before it takes more, of the same size, now."""
    import hashlib

    data, digest = bytes(MEBIBYTE), hashlib.sha256()
    began = time.perf_counter()
    for _ in range(size_bytes // MEBIBYTE):
        digest.update(data)
    return time.perf_counter() - began
