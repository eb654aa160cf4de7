"""Targets from a file: what is in it, what may be wrong with it, and that its secrets stay secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest_service.config import SettingError, Settings, load_settings

_WHOLE = """
[gpu-1]
url = "http://10.0.0.5:11434/"
models_dir = "models"
headers = {authorization = "Bearer hunter2"}

[gpu-2]
url = "https://ollama.example:443"
ca = "ca.pem"
"""


def loaded(directory: Path, content: str, **more: str) -> Settings:
    (directory / "ca.pem").touch()
    path = directory / "targets.toml"
    path.write_text(content)
    return load_settings({"INGEST_TARGETS_FILE": str(path), **more})


def test_everything_a_file_may_say(tmp_path: Path) -> None:
    first, second = loaded(tmp_path, _WHOLE).targets
    assert (first.name, first.url) == ("gpu-1", "http://10.0.0.5:11434")
    assert first.models_dir == tmp_path / "models"
    assert first.headers == {"authorization": "Bearer hunter2"}
    assert (second.name, second.url, second.ca) == (
        "gpu-2",
        "https://ollama.example:443",
        tmp_path / "ca.pem",
    )
    assert (second.models_dir, second.headers) == (None, {})


def test_no_header_is_ever_shown(tmp_path: Path) -> None:
    settings = loaded(tmp_path, _WHOLE)
    assert "hunter2" not in repr(settings) + repr(settings.public())


def test_an_empty_file_means_store_only(tmp_path: Path) -> None:
    assert loaded(tmp_path, "").targets == ()


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("[a", "TOML"),
        ("a = 1", "tables"),
        ('["ä"]\nurl = "http://h"', "tables"),
        ("[a]", "url"),
        ("[a]\nurl = 1", "url"),
        ('[a]\nurl = "ftp://h"', "http"),
        ('[a]\nurl = "http://h"\nport = 1', "port"),
        ('[a]\nurl = "http://h"\nmodels_dir = ""', "models_dir"),
        ('[a]\nurl = "http://h"\nca = 1', "ca"),
        ('[a]\nurl = "http://h"\nheaders = "x"', "headers"),
        ('[a]\nurl = "http://h"\nheaders = {"a b" = "hunter2"}', "headers"),
        ('[a]\nurl = "http://h"\nheaders = {a = "hunter2\\n"}', "headers"),
        ("\n".join(f'[t{n}]\nurl = "http://h{n}"' for n in range(1025)), "1024"),
        ('[a]\nurl = "http://h"\n[b]\nurl = "http://h/"', "same URL"),
        ('[a]\nurl = "http://h"\nca = "none.pem"', "no file"),
    ],
)
def test_what_may_be_wrong_is_said_without_its_secrets(content: str, word: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=word) as error:
        loaded(tmp_path, content)
    assert "INGEST_TARGETS_FILE" in str(error.value)
    assert "hunter2" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="cannot be read"):
        load_settings({"INGEST_TARGETS_FILE": str(tmp_path / "none.toml")})


def test_both_ways_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="exclude"):
        loaded(tmp_path, "", INGEST_TARGETS="a=http://h")
