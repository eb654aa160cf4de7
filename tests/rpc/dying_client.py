"""A client as a process of its own, made to be killed: `python -m tests.rpc.dying_client ADDRESS`.

Creates an ingest with its Upload, prints its name, and sends chunks until there is no tomorrow.
"""

from __future__ import annotations

import asyncio
import sys

import grpc
from model_ingest.v1.ingest_service_pb2 import UploadRequest, UploadStart

from tests.rpc.uploading import chunk, upload_call
from tests.support.files import MEBIBYTE, create_request
from tests.support.models import beginning

DECLARED_BYTES = 512 * MEBIBYTE


async def main(address: str) -> None:
    """Does not return before all bytes are sent, and then goes without `finish`."""
    first = beginning(DECLARED_BYTES, MEBIBYTE)
    async with grpc.aio.insecure_channel(address) as channel:
        call = upload_call(channel)
        await call.write(UploadRequest(start=UploadStart(create=create_request(DECLARED_BYTES, "dying"))))
        metadata = dict(await call.initial_metadata())
        print(metadata["model-ingest-name"], flush=True)
        for offset in range(0, DECLARED_BYTES, MEBIBYTE):
            await call.write(chunk(offset, first))
            await asyncio.sleep(0.02)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
