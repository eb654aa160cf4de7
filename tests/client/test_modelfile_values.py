"""Numbers, truth values and versions of a Modelfile: the forms of Go's `strconv` and `semver`."""

from __future__ import annotations

import pytest
from model_ingest._modelfile.float32 import parse_float32
from model_ingest._modelfile.values import parse_bool, parse_int, parse_version


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("+7", 7),
        ("-007", -7),
        ("0" * 30 + "8", 8),
        ("4294967296", 2**32),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("1e+06", 1_000_000),
        ("-2.097152e+06", -2_097_152),
    ],
)
def test_whole_numbers(text: str, number: int) -> None:
    assert parse_int(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "+",
        "--1",
        " 1",
        "1.0",
        "1e3",
        "1.5e+00",
        "1e+20",
        "0x10",
        "1_000",
        "0b1",
        "\u0663",
        "9223372036854775808",
        "-9223372036854775809",
        "9" * 5000,
    ],
)
def test_what_is_no_whole_number(text: str) -> None:
    with pytest.raises(ValueError):
        parse_int(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0.7", 0.7),
        (".5", 0.5),
        ("5.", 5.0),
        ("-1E1", -10.0),
        ("+1e-1", 0.1),
        ("1_000.2_5", 1000.25),
        ("1e1_0", 1e10),
        ("0x1p-2", 0.25),
        ("0X_1.8P+1", 3.0),
        ("0x.8p0", 0.5),
        # Rounded to 32 bits, and written with as few digits as that takes.
        ("0.123456789", 0.12345679),
        ("0.30000001192092896", 0.3),
        ("16777217", 16777216.0),
        ("1807266.6875", 1807266.8),
        ("9.8607613e-32", 9.8607613e-32),
        # Halfway between two, and a little beyond in a digit that a double does not hold.
        ("1.00000017881393432617187500", 1.0000002),
        ("1.00000017881393432617187499", 1.0000001),
        ("0x1.000003p0", 1.0000002),
        ("0x1.000002ffffffffffffffp0", 1.0000001),
        ("3.4028235677973366e38", 3.4028235e38),
        ("1e-50", 0.0),
        ("0." + "0" * 5000 + "1", 0.0),
    ],
)
def test_numbers_with_a_fraction(text: str, number: float) -> None:
    assert parse_float32(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "-",
        "1e",
        "1e+",
        "_1",
        "1_",
        "1__0",
        "1_.5",
        "1e_1",
        "1,5",
        "0.1f",
        "0x1.8",
        "0xp1",
        "0x.p1",
        "0b1",
        "\u0660.\u0665",
        "inf",
        "-Infinity",
        "nan",
        "3.5e38",
        "3.4028235677973367e38",
        "1e400",
        "0x1p99999",
    ],
)
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(ValueError):
        parse_float32(text)


def test_truth_values() -> None:
    assert all(parse_bool(text) for text in ("1", "t", "T", "TRUE", "true", "True"))
    assert not any(parse_bool(text) for text in ("0", "f", "F", "FALSE", "false", "False"))
    for text in ("", "tRUE", "yes", "on", "2", "01"):
        with pytest.raises(ValueError):
            parse_bool(text)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("0.14.0", "0.14.0"),
        ("v0.14", "0.14"),
        ("1", "1"),
        ("1.2.3-rc.1+b-2.07", "1.2.3-rc.1+b-2.07"),
        ("1.2.3-0a.--", "1.2.3-0a.--"),
    ],
)
def test_versions(text: str, version: str) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v",
        "vv1",
        "V1",
        "01",
        "1.02",
        "1.2.3.4",
        "1.2-rc",
        "1-rc",
        "1.2.3-",
        "1.2.3-01",
        "1.2.3-a..b",
        "1.2.3+",
        ">=0.14",
        "latest",
        "1.2.3-ü",
    ],
)
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(ValueError):
        parse_version(text)
