"""What a Modelfile is read as, and what of it is refused by its line's number.

The expected values are those of Ollama's own parser (versions 0.24.0 and 0.33.0-rc2), unless a comment says
otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from model_ingest import LocalFileError, Modelfile, read_modelfile

FILES = ("m.gguf", "mm.gguf", "lora.gguf", "draft.gguf")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the Modelfile lies, with the files that it may name."""
    made = tmp_path_factory.mktemp("modelfile")
    for name in FILES:
        (made / name).write_bytes(b"GGUF")
    return made


def read(directory: Path, text: str | bytes, **arguments: Any) -> Modelfile:
    path = directory / "Modelfile"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_modelfile(path, **arguments)


def options(directory: Path, text: str | bytes) -> dict[str, Any]:
    found: dict[str, Any] = MessageToDict(read(directory, text).options)
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM llama3:8b", {"from": "llama3:8b"}),
        ("from llama3", {"from": "llama3"}),
        ('FROM "llama3"', {"from": "llama3"}),
        ('FROM """llama3"""', {"from": "llama3"}),
        ("FROM hf.co/a/b-GGUF:b-Q4.gguf", {"from": "hf.co/a/b-GGUF:b-Q4.gguf"}),
        ("FROM x\nFROM y", {"from": "y"}),
        ("\n# a comment\n  # another\nFROM x\n\n", {"from": "x"}),
        ('# an open "\nFROM x', {"from": "x"}),
        ("FROM ./m.gguf", {}),
        (
            "FROM x\nRENDERER qwen3-coder\nparser qwen3-coder\nREQUIRES v0.14",
            {"from": "x", "renderer": "qwen3-coder", "parser": "qwen3-coder", "requires": "0.14"},
        ),
        ("FROM x\nRENDERER a\nRENDERER b", {"from": "x", "renderer": "b"}),
        ('FROM x\nLICENSE MIT\nLICENSE """\nMore\n"""', {"from": "x", "licenses": ["MIT", "\nMore\n"]}),
        (
            'FROM x\nMESSAGE user Hello: there\nMESSAGE assistant """Hi\nyou"""\nmessage system ""',
            {
                "from": "x",
                "messages": [
                    {"role": "user", "content": "Hello: there"},
                    {"role": "assistant", "content": "Hi\nyou"},
                    {"role": "system"},
                ],
            },
        ),
    ],
)
def test_commands(directory: Path, text: str, expected: dict[str, Any]) -> None:
    assert options(directory, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("be # brief", "be # brief"),
        ("one\nSYSTEM two", "two"),
        (" \ta  b \t", "a  b"),
        ('a "b" c', 'a "b" c'),
        ("'a'", "'a'"),
        # In simple quotes, over one line and several; blanks within them are kept.
        ('"a text"', "a text"),
        ('" a "  ', " a "),
        ('"a\nb"', "a\nb"),
        ('"a  \n\n# no comment\nb"', "a  \n\n# no comment\nb"),
        ('"a" and\n"b"', 'a" and\n"b'),
        # In triple quotes.
        ('"""a"""', "a"),
        ('"""\n# no comment\nFROM y\n"""', "\n# no comment\nFROM y\n"),
        ('  """ a "b" c """  ', ' a "b" c '),
        ('"""a  \n\tb\t\n  """', "a  \n\tb\t\n  "),
        ('"""a\nb""" \t\nTEMPLATE c', "a\nb"),
        ('"""a """ b\nc"""', 'a """ b\nc'),
        ('"""a\n"""b\n"""', 'a\n"""b\n'),
        ('"""he said "x""""', 'he said "x"'),
        ('""""a""""', '"a"'),
        # Empty.
        ("", ""),
        ('""', ""),
        ('""""""', ""),
        ('a\nSYSTEM ""', ""),
        # Ends of lines are kept as they are within a text, and a lone carriage return is one.
        ('"""a\r\nb"""\r\n', "a\r\nb"),
        ("a\rTEMPLATE b", "a"),
        ('"a\rb"', "a\rb"),
        ("a\x0cb\u2028c", "abc"),
    ],
)
def test_values(directory: Path, text: str, expected: str) -> None:
    assert read(directory, f"FROM x\nSYSTEM {text}").options.system == expected


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + "# c\nFROM x\nSYSTEM ü 👍\n".encode(),
        b"\xff\xfe" + "FROM x\nSYSTEM ü 👍\n".encode("utf-16-le"),
        b"\xfe\xff" + "FROM x\r\nSYSTEM ü 👍\r\n".encode("utf-16-be"),
    ],
)
def test_a_byte_order_mark_chooses_the_encoding(directory: Path, content: bytes) -> None:
    assert options(directory, content) == {"from": "x", "system": "ü 👍"}


def test_bytes_that_are_no_utf8_are_replaced_with_a_warning(directory: Path) -> None:
    found = read(directory, b"FROM x\nSYSTEM a\xffb\xe2\x82 \xed\xa0\x80")
    assert found.options.system == "a�b� ���"
    assert found.warnings[0].startswith("line 2: there are bytes that are no text")


def test_what_cannot_be_printed_is_left_out_with_a_warning(directory: Path) -> None:
    found = read(directory, "\x0cFROM x\nSYSTEM a\u00a0b\u3000c\u200dd\ue000\U0010ffff\nTEMPLATE ü")
    assert found.options.system == "abcd"
    left_out = "U+00A0, U+200D, U+3000, U+E000, U+10FFFF"
    assert found.warnings == [
        f"line 2: Ollama leaves out characters that cannot be printed ({left_out}), so they go"
    ]


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("num_ctx 4096\nPARAMETER num_ctx 8192", {"num_ctx": 8192}),
        ("temperature\t0.5\nparameter seed  -1", {"temperature": 0.5, "seed": -1}),
        ("use_mmap t\nPARAMETER use_mmap F", {"use_mmap": False}),
        ('num_ctx "1"', {"num_ctx": 1}),
        (
            'stop <|end|>\nPARAMETER stop "two words "\nPARAMETER stop 5',
            {"stop": ["<|end|>", "two words ", "5"]},
        ),
        ('stop "\n"\nPARAMETER stop ""', {"stop": ["\n", ""]}),
        ("draft_num_predict 4", {"draft_num_predict": 4}),
        ("seed 9223372036854775807", {"seed": 2.0**63}),
        # Ollama prints this and does not read it again; we do.
        ("num_ctx 1.048576e+06", {"num_ctx": 1048576}),
    ],
)
def test_parameters(directory: Path, text: str, parameters: dict[str, Any]) -> None:
    assert options(directory, f"FROM x\nPARAMETER {text}") == {"from": "x", "parameters": parameters}


def test_deprecated_parameters_are_warned_of_and_left_out(directory: Path) -> None:
    found = read(directory, "FROM x\nPARAMETER mirostat many\nPARAMETER use_mlock true\nPARAMETER top_k 1")
    assert MessageToDict(found.options) == {"from": "x", "parameters": {"top_k": 1}}
    assert found.warnings == [
        "line 2: parameter mirostat is deprecated; Ollama ignores it",
        "line 3: parameter use_mlock is deprecated; Ollama ignores it",
    ]


def test_warnings_are_bounded(directory: Path) -> None:
    found = read(directory, "FROM x\n" + "PARAMETER low_vram 1\n" * 1000)
    assert len(found.warnings) == 21
    assert found.warnings[-1] == "there are more warnings, which are not shown"


def test_files_are_found_beside_the_modelfile(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    text = f"FROM m.gguf\nFROM {directory}/mm.gguf\nADAPTER ./lora.gguf\nDRAFT draft.gguf"
    found = read(directory, text)
    assert found.models == [directory / "m.gguf", directory / "mm.gguf"]
    assert found.adapters == [directory / "lora.gguf"]
    assert found.drafts == [directory / "draft.gguf"]
    assert read(directory, "FROM .").models == [directory]
    assert read(directory, "FROM m.gguf\nFROM gone/../m.gguf").models == [directory / "m.gguf"]


def test_the_last_adapter_counts(directory: Path) -> None:
    found = read(directory, "FROM x\nADAPTER mm.gguf\nADAPTER lora.gguf\nFROM y")
    assert found.adapters == [directory / "lora.gguf"]
    assert found.warnings == [
        f"line 3: this ADAPTER replaces ADAPTER {directory}/mm.gguf",
        "line 4: this FROM replaces FROM x",
    ]


def test_of_several_drafts_the_one_that_ollama_uses_counts(directory: Path) -> None:
    """Ollama 0.33 was asked: it keeps both as layers, and shows and uses the last by name."""
    used = directory / "mm.gguf"
    for names in (["lora.gguf", "mm.gguf"], ["mm.gguf", "lora.gguf"]):
        found = read(directory, "FROM m.gguf\n" + "".join(f"DRAFT {name}\n" for name in names))
        assert found.drafts == [used]
        (warning,) = found.warnings
        assert warning.startswith("line 3: Ollama uses one DRAFT")
        assert warning.endswith(f"{used}; {directory}/lora.gguf is left out")
    assert not read(directory, "FROM m.gguf\nDRAFT mm.gguf\nDRAFT mm.gguf").warnings
    with pytest.raises(LocalFileError, match="DRAFT and FROM name the same"):
        read(directory, "DRAFT lora.gguf\nDRAFT mm.gguf\nFROM lora.gguf")


def test_an_empty_stop_is_read_and_warned_of(directory: Path) -> None:
    found = read(directory, 'FROM x\nPARAMETER stop ""\nPARAMETER stop a')
    assert MessageToDict(found.options.parameters) == {"stop": ["", "a"]}
    assert found.warnings == [
        "line 2: an empty stop ends every answer before its first letter (Ollama 0.24.0)"
    ]


def test_files_of_replaced_roles_are_not_looked_for(directory: Path) -> None:
    text = "FROM /gone/sha256-1\nADAPTER /gone/sha256-2\nDRAFT /gone/sha256-3\nSYSTEM a"
    found = read(directory, text, replaced_roles={"model", "adapter", "draft"})
    assert found == Modelfile(options=found.options)
    assert MessageToDict(found.options) == {"system": "a"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "there is no FROM; add"),
        ("SYSTEM x", "there is no FROM; add"),
        ("FROM x\n\nNOPE y", "line 3: `NOPE` is no command; there are: FROM, ADAPTER, DRAFT"),
        ("FROM x\r\n\r\nNOPE y", "line 3: `NOPE`"),
        ("FROM x\r\rNOPE y", "line 3: `NOPE`"),
        ("FROM x\n\x1b[31m y", "line 2: `[31m`"),
        ("FROM x\nSYSTEM", 'line 2: SYSTEM is followed by a blank and a value; "" is an empty one'),
        ("FROM", "line 1: FROM is followed by"),
        ('FROM x\nSYSTEM"a"', "line 2: SYSTEM is followed by a blank and a value"),
        ('FROM x\nSYSTEM """a\nb', 'line 2: a value that begins with """ ends with """ at the end of a line'),
        ('FROM x\nSYSTEM """a""" b', 'line 2: a value that begins with """'),
        ('FROM x\nSYSTEM "a', 'line 2: a value that begins with " ends with " at the end of a line'),
        ("FROM ./none.gguf", "line 1: there is no "),
        ("FROM m.gguf # my model", "(a comment needs a line of its own)"),
        ("FROM m.gguf".encode("utf-16-le"), "looks like UTF-16 without a byte order mark"),
        # Ollama takes this one for a model's name and asks its registry.
        ("FROM none.gguf", "(a model called so is written `none.gguf:latest`)"),
        ("FROM m.gguf/x", "line 1: cannot look at "),
        ("FROM ./" + "a" * 300, "line 1: cannot look at "),
        ("FROM ~no-such-user/x", "line 1: there is no home of "),
        # Ollama leaves the file out without a word.
        ("FROM x\nFROM m.gguf", "line 2: FROM names a file here, and a model"),
        ("FROM m.gguf\nFROM x", "line 2: FROM names a file here, and a model"),
        ("FROM x\nADAPTER none", "line 2: there is no "),
        ("FROM x\nADAPTER none", "--role adapter=PATH stands in for ADAPTER"),
        ("FROM x\nADAPTER .", "is a directory; name the one GGUF file of the adapter"),
        ("FROM x\nDRAFT none", "line 2: there is no "),
        ("FROM m.gguf\nDRAFT ./m.gguf", "line 2: DRAFT and FROM name the same "),
        ("DRAFT m.gguf\nFROM m.gguf", "line 2: DRAFT and FROM name the same "),
        ("FROM x\nPARAMETER num_ctx", "line 2: PARAMETER is followed by one blank, a name and a value"),
        ("FROM x\nPARAMETER  num_ctx 1", "line 2: PARAMETER is followed by one blank"),
        ("FROM x\nPARAMETER num_ctx many", "line 2: the parameter num_ctx cannot be `many`; write a whole"),
        ("FROM x\nPARAMETER num_ctx x\nPARAMETER num_ctx 1", "line 2: the parameter num_ctx"),
        ("FROM x\nPARAMETER temperature nan", "line 2: the parameter temperature cannot be `nan`; write a"),
        ("FROM x\nPARAMETER use_mmap yes", "line 2: the parameter use_mmap cannot be `yes`; write true or"),
        ("FROM x\nPARAMETER Temperature 1", "there is no parameter Temperature; did you mean temperature?"),
        ("FROM x\nPARAMETER numa 1", "line 2: there is no parameter numa; "),
        ("FROM x\nMESSAGE tool hi", "line 2: the role of a MESSAGE is one of system, user, assistant"),
        ("FROM x\nMESSAGE User hi", "in small letters"),
        ("FROM x\nMESSAGE user", "line 2: MESSAGE is followed by one blank, a role and a text"),
        ("FROM x\nREQUIRES latest", "line 2: REQUIRES is a version of Ollama, e.g. 0.14.0, not `latest`"),
        (b"#" * (4 * 1024 * 1024 + 1), "at most 4194304 bytes"),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_line(directory: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(LocalFileError) as caught:
        read(directory, text)
    assert words in caught.value.message
    assert caught.value.exit_code == 2


def test_every_line_that_cannot_be_used_is_told(directory: Path) -> None:
    text = 'FORM x\nPARAMETER num_ctx x\nFROM x\nMESSAGE tool hi\nREQUIRES latest\nSYSTEM "open\n'
    with pytest.raises(LocalFileError) as caught:
        read(directory, text)
    assert "line 1: `FORM` is no command" in caught.value.message
    told = [(one.field, one.description[:20]) for one in caught.value.violations]
    assert [line for line, _ in told] == ["line 2", "line 4", "line 5", "line 6"]
    assert told[1][1] == "the role of a MESSAG"


def test_of_many_lines_that_cannot_be_used_twenty_are_told(directory: Path) -> None:
    with pytest.raises(LocalFileError) as caught:
        read(directory, "x\n" * 30)
    *others, last = caught.value.violations
    assert [one.field for one in others] == [f"line {number}" for number in range(2, 21)]
    assert (last.field, last.description) == ("further lines", "10 more cannot be used")


def test_one_that_is_not_there(directory: Path) -> None:
    with pytest.raises(LocalFileError, match="No such file"):
        read_modelfile(directory / "none")
