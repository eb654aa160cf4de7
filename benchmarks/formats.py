"""What the readers cost: processor time and most memory of large headers. `python -m benchmarks.formats`."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from ingest_service.formats.gguf import GgufLimits, GgufReader
from ingest_service.formats.incremental import IncrementalReader, State
from ingest_service.formats.json_files import JsonLimits, JsonReader
from ingest_service.formats.safetensors import SafetensorsLimits, SafetensorsReader
from ingest_service.formats.sentencepiece import SentencePieceLimits, SentencePieceReader
from tests.formats.build import F32, I32, Gguf, Tensor, numbers, safetensors, texts
from tests.formats.corpus_files import piece

MIB = 1 << 20
Make = Callable[[int], IncrementalReader[Any]]


def vocabulary(count: int, merges: int, merge_bytes: int = 12) -> tuple[bytes, Make]:
    """A model's GGUF header with so many tokens and merges."""
    file = Gguf(
        tensors=tuple(Tensor(f"blk.{index}.weight", (32,)) for index in range(300)),
    ).but(
        {
            "tokenizer.ggml.tokens": texts([f"token{index}" for index in range(count)]),
            "tokenizer.ggml.scores": numbers(F32, [0.0] * count),
            "tokenizer.ggml.token_type": numbers(I32, [1] * count),
            "tokenizer.ggml.merges": texts([f"{index:0{merge_bytes}}" for index in range(merges)]),
        }
    )
    size_bytes = file.max_size_bytes
    return file.header, lambda _: GgufReader(GgufLimits(), size_bytes)


def tensors(count: int, name_bytes: int) -> tuple[bytes, Make]:
    """A safetensors header with so many tensors."""
    header = {
        f"{index:0{name_bytes}}": {"dtype": "U8", "shape": [1], "data_offsets": [index, index + 1]}
        for index in range(count)
    }
    content = json.dumps(header).encode()
    return safetensors(content, count), lambda size: SafetensorsReader(SafetensorsLimits(), size)


def tokenizer(count: int) -> tuple[bytes, Make]:
    """A tokenizer.json with so many tokens and twice as many merges."""
    merges = [[f"tok{index}", f"en{index}"] for index in range(2 * count)]
    model = {"type": "BPE", "vocab": {f"token{index}": index for index in range(count)}, "merges": merges}
    content = json.dumps({"model": model}, indent=2).encode()
    return content, lambda size: JsonReader(JsonLimits(), size, "tokenizer.json")


def pieces(count: int) -> tuple[bytes, Make]:
    """A tokenizer.model with so many pieces."""
    content = b"".join(piece(f"piece{index}") for index in range(count))
    return content, lambda size: SentencePieceReader(SentencePieceLimits(), size)


CASES: dict[str, Callable[[], tuple[bytes, Make]]] = {
    "GGUF, 300 000 tokens, 600 000 merges": lambda: vocabulary(300_000, 600_000),
    "GGUF, 1 048 576 tokens, 64 MiB": lambda: vocabulary(1 << 20, 1_200_000),
    "safetensors, 2 000 tensors": lambda: tensors(2_000, 60),
    "safetensors, 65 536 tensors, 32 MiB": lambda: tensors(65_536, 430),
    "tokenizer.json, 300 000 tokens": lambda: tokenizer(300_000),
    "tokenizer.json, 64 MiB": lambda: tokenizer(470_000),
    "tokenizer.model, 300 000 pieces": lambda: pieces(300_000),
    "tokenizer.model, 1 048 576 pieces": lambda: pieces(1 << 20),
}


def read(data: bytes, make: Make) -> IncrementalReader[Any]:
    """Feeds it as an upload does."""
    reader = make(len(data))
    for start in range(0, len(data), MIB):
        reader.feed(data[start : start + MIB])
    return reader


def main() -> None:
    """Prints one line for each case."""
    for name, build in CASES.items():
        data, make = build()
        started = time.thread_time()
        reader = read(data, make)
        seconds = time.thread_time() - started
        tracemalloc.start()
        read(data, make)
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        verdict = "accepted" if reader.state is State.DONE else str(reader.fault)
        print(
            f"{name}: {len(data) / MIB:.1f} MiB, {seconds:.2f} s of processor time,"
            f" most memory {peak_bytes / MIB:.1f} MiB, {verdict}",
            flush=True,
        )


if __name__ == "__main__":
    main()
