"""The lines of a create, by themselves: how they are cut out of the stream, and what they add up to."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx
import pytest

from ingest_service.forwarding.answers import lines
from ingest_service.forwarding.create_answer import CreateAnswer, CreateLine
from ingest_service.forwarding.target import BlobMissing, NoSpace, OutcomeUnknown, Refused, TargetError

SUCCESS = b'{"status":"success"}'
MANIFEST = b'{"status":"writing manifest"}'
ERROR = b'{"error":"boom"}'


async def cut_out(body: bytes, step: int) -> list[bytes]:
    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, len(body), step):
            yield body[start : start + step]

    return [line async for line in lines(httpx.Response(200, content=parts()))]


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
async def test_lines_are_the_same_however_they_arrive(step: int) -> None:
    body = b'{"a":1}\n\n \r\n{"b":"\xff"}\r\n{"c":3}'
    assert await cut_out(body, step) == [b'{"a":1}', b'{"b":"\xff"}', b'{"c":3}']
    assert await cut_out(body + b"\n", step) == [b'{"a":1}', b'{"b":"\xff"}', b'{"c":3}']


@pytest.mark.parametrize("step", [1000, 1 << 16, 1 << 22])
async def test_a_line_over_256_kib_is_passed_over_and_those_round_it_are_not(step: int) -> None:
    fits, huge = b"x" * (1 << 18), b"y" * ((1 << 18) + 1)
    assert await cut_out(b"\n".join([b"1", huge, b"2", fits, huge, huge, b"3"]), step) == [
        b"1",
        b"2",
        fits,
        b"3",
    ]
    assert await cut_out(b"1\n" + huge, step) == [b"1"]


def judged(*said: bytes) -> TargetError | None:
    answer = CreateAnswer()
    for line in said:
        answer.take(line)
    try:
        answer.judge()
    except TargetError as error:
        return error
    return None


def test_success_is_a_line_that_says_so_and_nothing_else() -> None:
    assert judged(MANIFEST, SUCCESS) is None
    for said in (
        [],
        [MANIFEST],
        [b'{"status":" success"}'],
        [b'{"status":"success\\u0000"}'],
        [b'{"status":"Success"}'],
        [b'{"status":["success"]}'],
        [b'"success"'],
        [b"success"],
        [b'{"success":true}'],
    ):
        assert isinstance(judged(*said), OutcomeUnknown), said


def test_an_error_line_is_the_truth_unless_the_manifest_was_written() -> None:
    assert isinstance(judged(ERROR), Refused)
    for said in ([MANIFEST, ERROR], [ERROR, SUCCESS]):
        error = judged(*said)
        assert isinstance(error, OutcomeUnknown)
        assert isinstance(error.otherwise, Refused)
        assert error.otherwise.words == "boom"
    # Success is Ollama's last word.
    assert judged(SUCCESS, ERROR) is None


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("open /x/blobs/sha256-00: no such file or directory", BlobMissing),
        ("blob not found for x", BlobMissing),
        ("write x: no space left on device", NoSpace),
        ("NO SPACE LEFT on device", NoSpace),
        ("unsupported architecture", Refused),
        ("", Refused),
    ],
)
def test_what_an_error_line_says_decides_what_comes_next(words: str, kind: type[TargetError]) -> None:
    assert type(judged(json.dumps({"error": words}).encode())) is kind


@pytest.mark.parametrize(
    ("told", "counted"),
    [(5, 5), (-5, 0), (10**30, 2**62), ("5", 0), (None, 0), (True, 0), (1.5, 0), ([5], 0), ({}, 0)],
)
def test_counts_are_whole_numbers_that_a_row_can_hold(told: object, counted: int) -> None:
    line = json.dumps({"status": "x", "completed": told, "total": told}).encode()
    assert CreateAnswer().take(line) == CreateLine("x", counted, counted)
