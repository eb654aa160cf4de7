"""Text from elsewhere, and names from people."""

from __future__ import annotations

import pytest
from model_ingest._clean import file_name_for, printable
from model_ingest._connection import address, channel_options
from model_ingest._names import ingest_name, model_name


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("plain", "plain"),
        ("äöü 漢字 🙂", "äöü 漢字 🙂"),
        ("a\nb\r\n\tc", "a b c"),
        ("\x1b[2J\x1b]0;title\x07x", "[2J ]0;title x"),
        ("a\u202eb\u2066c\u200bd", "a b c d"),
        ("\x9b31mred\x7f", "31mred"),
        ("line\u2028para\u2029end", "line para end"),
        ("lone \ud800 surrogate", "lone surrogate"),
    ],
)
def test_printable(text: str, clean: str):
    assert printable(text) == clean


def test_printable_is_cut():
    assert printable("x" * 50, 10) == "x" * 9 + "…"


@pytest.mark.parametrize(
    ("local", "sent"),
    [
        ("model.gguf", "model.gguf"),
        ("My Model (1).gguf", "My_Model_1_.gguf"),
        (".hidden", "hidden"),
        ("--x.gguf", "x.gguf"),
        ("モデル.gguf", "_.gguf"),
        ("...", "file"),
        ("a" * 300 + ".gguf", "a" * 250 + ".gguf"),
    ],
)
def test_file_names(local: str, sent: str):
    assert file_name_for(local) == sent


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("box:1", "box:1"),
        ("box", "box:50051"),
        ("[::1]:5", "[::1]:5"),
        ("[::1]", "[::1]:50051"),
        ("unix:/run/x.sock", "unix:/run/x.sock"),
        ("dns:///box:1", "dns:///box:1"),
    ],
)
def test_addresses(given: str, used: str):
    assert address(given) == used


@pytest.mark.parametrize("wrong", ["", "  ", "http://box:1", "https://box"])
def test_a_url_is_no_address(wrong: str):
    with pytest.raises(ValueError, match="HOST:PORT"):
        address(wrong)


@pytest.mark.parametrize(
    ("server", "direct"), [("localhost:1", True), ("127.0.0.1:1", True), ("box:1", False)]
)
def test_a_proxy_is_not_asked_for_the_loopback(server: str, direct: bool):
    assert (("grpc.enable_http_proxy", 0) in channel_options(server)) is direct


def test_resource_names():
    assert ingest_name("x") == ingest_name("ingests/x") == "ingests/x"
    assert model_name("llama3") == model_name("models/llama3") == "models/llama3"
