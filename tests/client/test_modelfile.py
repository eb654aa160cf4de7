"""What a Modelfile is read as, and what of it is refused by its line's number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from model_ingest import LocalFileError, Modelfile, read_modelfile


def read(directory: Path, text: str | bytes) -> Modelfile:
    (directory / "m.gguf").write_bytes(b"GGUF")
    (directory / "mm.gguf").write_bytes(b"GGUF")
    (directory / "lora.gguf").write_bytes(b"GGUF")
    path = directory / "Modelfile"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_modelfile(path)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("FROM llama3:8b", {"from": "llama3:8b"}),
        ("from llama3", {"from": "llama3"}),
        ('FROM "llama3"', {"from": "llama3"}),
        ("\n# a comment\n  # another\nFROM x\n\n", {"from": "x"}),
        ("\ufeffFROM x", {"from": "x"}),
        ("FROM x\r\nSYSTEM a b\r\n", {"from": "x", "system": "a b"}),
        ("FROM x\nSYSTEM be # brief", {"from": "x", "system": "be # brief"}),
        ("FROM x\nSYSTEM one\nSYSTEM two", {"from": "x", "system": "two"}),
        ('FROM x\nSYSTEM "quoted text"', {"from": "x", "system": "quoted text"}),
        ('FROM x\nSYSTEM """one line"""', {"from": "x", "system": "one line"}),
        (
            'FROM x\nSYSTEM """\n# no comment\nFROM y\n"""',
            {"from": "x", "system": "\n# no comment\nFROM y\n"},
        ),
        ('FROM x\nSYSTEM """ a "b" c """', {"from": "x", "system": ' a "b" c '}),
        ('FROM x\nSYSTEM   """a\n\n  b"""  \n', {"from": "x", "system": "a\n\n  b"}),
        (
            'FROM x\nTEMPLATE """{{ .System }}\n{{ .Prompt }}"""',
            {"from": "x", "template": "{{ .System }}\n{{ .Prompt }}"},
        ),
        ("FROM x\nTEMPLATE {{ .Prompt }}", {"from": "x", "template": "{{ .Prompt }}"}),
        ('FROM x\nLICENSE MIT\nLICENSE """\nMore\n"""', {"from": "x", "licenses": ["MIT", "\nMore\n"]}),
        (
            "FROM\tx\nPARAMETER num_ctx 4096\nPARAMETER temperature\t0.5\nPARAMETER  seed  -1",
            {"from": "x", "parameters": {"num_ctx": 4096, "temperature": 0.5, "seed": -1}},
        ),
        (
            "FROM x\nparameter use_mmap False\nPARAMETER use_mlock TRUE",
            {"from": "x", "parameters": {"use_mmap": False, "use_mlock": True}},
        ),
        (
            'FROM x\nPARAMETER stop <|end|>\nPARAMETER stop "two words "\nPARAMETER stop 5',
            {"from": "x", "parameters": {"stop": ["<|end|>", "two words ", "5"]}},
        ),
        ("FROM x\nPARAMETER num_ctx many", {"from": "x", "parameters": {"num_ctx": "many"}}),
        ("FROM x\nPARAMETER seed nan", {"from": "x", "parameters": {"seed": "nan"}}),
        (
            'FROM x\nMESSAGE user Hello there\nMESSAGE Assistant """Hi\nyou"""',
            {
                "from": "x",
                "messages": [
                    {"role": "user", "content": "Hello there"},
                    {"role": "assistant", "content": "Hi\nyou"},
                ],
            },
        ),
        ("FROM ./m.gguf", {}),
    ],
)
def test_options(tmp_path: Path, text: str, options: dict[str, Any]) -> None:
    assert MessageToDict(read(tmp_path, text).options) == options


def test_files_are_found_beside_the_modelfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    found = read(tmp_path, f"FROM m.gguf\nFROM {tmp_path}/mm.gguf\nADAPTER ./lora.gguf")
    assert found.models == [tmp_path / "m.gguf", tmp_path / "mm.gguf"]
    assert found.adapters == [tmp_path / "lora.gguf"]
    assert read(tmp_path, "FROM .").models == [tmp_path]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "there is no FROM"),
        ("SYSTEM x", "there is no FROM"),
        ("FROM x\n\nRENDERER y", "line 3: `RENDERER` is none of FROM"),
        ("FROM x\nrequires 0.14.0", "line 2: `requires` is none of"),
        ("FROM x\n\x1b[31m y", "line 2: `[31m`"),
        ("FROM x\nSYSTEM", "line 2: SYSTEM has no value"),
        ("FROM", "line 1: FROM has no value"),
        ('FROM x\nSYSTEM """a\nb', 'line 2: a """ is not closed'),
        ('FROM x\nSYSTEM """a""" b', "line 2: nothing may follow"),
        ('FROM x\nSYSTEM "a', 'line 2: a `"` is not closed'),
        ("FROM ./none.gguf", "line 1: there is no "),
        ("FROM none.gguf", "line 1: there is no "),
        ("FROM x\nADAPTER none", "line 2: there is no "),
        ("FROM ./" + "a" * 300, "line 1: there is no "),
        ("FROM ~no-such-user/x", "line 1: there is no home of "),
        ("FROM x\nFROM y", "line 2: a second FROM"),
        ("FROM x\nFROM m.gguf", "line 2: FROM names a file and a model"),
        ("FROM m.gguf\nFROM x", "line 2: FROM names a file and a model"),
        ("FROM x\nPARAMETER num_ctx", "line 2: PARAMETER has no value"),
        ("FROM x\nPARAMETER top_k 1\nPARAMETER top_k 2", "line 3: a second PARAMETER top_k"),
        ("FROM x\nMESSAGE tool hi", "line 2: MESSAGE is followed by one of system"),
        ("FROM x\nMESSAGE user", "line 2: MESSAGE is followed by"),
        (b"FROM \xff\xfe", "no text in UTF-8"),
        (b"#" * (4 * 1024 * 1024 + 1), "at most 4194304 bytes"),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_line(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(LocalFileError) as caught:
        read(tmp_path, text)
    assert words in caught.value.message
    assert caught.value.exit_code == 2


def test_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LocalFileError, match="No such file"):
        read_modelfile(tmp_path / "none")
