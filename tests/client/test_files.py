"""Which local files a push sends, and as what."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_ingest import LocalFileError
from model_ingest._files import local_files
from model_ingest.v1.resources_pb2 import File


def make(directory: Path, *names: str) -> Path:
    directory.mkdir(exist_ok=True)
    for name in names:
        (directory / name).write_bytes(b"x")
    return directory


def told(paths: list[Path], roles: list[tuple[str, Path]] | None = None) -> list[tuple[str, str]]:
    return [(one.name, File.Role.Name(one.role)[5:]) for one in local_files(paths, roles or [])]


def test_files_and_roles(tmp_path: Path) -> None:
    assert told([tmp_path / "My model.gguf"]) == [("My_model.gguf", "MODEL")]
    found = told(
        [tmp_path / "m.gguf"], [("Projector", tmp_path / "a.gguf"), ("adapter", tmp_path / "b.gguf")]
    )
    assert found == [("m.gguf", "MODEL"), ("a.gguf", "PROJECTOR"), ("b.gguf", "ADAPTER")]
    shards = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    assert told([tmp_path / name for name in shards]) == [(name, "SHARD") for name in shards]


def test_a_directory_of_safetensors_is_sent_as_ollama_itself_would(tmp_path: Path) -> None:
    inside = ["model.safetensors", "config.json", "tokenizer.json", "tokenizer.model", "chat_template.jinja"]
    directory = make(tmp_path / "d", *inside, "README.md", "model.gguf", ".hidden.json", "pytorch_model.bin")
    (directory / "sub.json").mkdir()
    assert told([directory]) == [(name, "MODEL") for name in sorted(inside)]


def test_a_directory_of_shards_or_of_one_model(tmp_path: Path) -> None:
    shards = make(tmp_path / "s", "m-00002-of-00002.gguf", "m-00001-of-00002.gguf", "README.md")
    assert told([shards]) == [("m-00001-of-00002.gguf", "SHARD"), ("m-00002-of-00002.gguf", "SHARD")]
    assert told([make(tmp_path / "one", "m.gguf", "x.json")]) == [("m.gguf", "MODEL")]
    upper = ["M-00001-of-00002.GGUF", "M-00002-of-00002.GGUF"]
    assert told([make(tmp_path / "upper", *upper)]) == [(name, "SHARD") for name in upper]


def test_the_only_shard_of_one_is_a_model(tmp_path: Path) -> None:
    assert told([tmp_path / "x-00001-of-00001.gguf"]) == [("x-00001-of-00001.gguf", "MODEL")]


def test_a_directory_that_says_nothing_clear(tmp_path: Path) -> None:
    with pytest.raises(LocalFileError, match="neither"):
        told([make(tmp_path / "none", "config.json")])
    with pytest.raises(LocalFileError, match="several models"):
        told([make(tmp_path / "two", "a.gguf", "b.gguf")])


def test_roles_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(LocalFileError, match="no role weights"):
        told([], [("weights", tmp_path / "a")])
    with pytest.raises(LocalFileError, match="is a directory"):
        told([], [("projector", make(tmp_path / "d"))])
