"""Numbers with a fraction, exactly as Ollama's command hands them to its server."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from typing import Final

_DECIMAL: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_HEXADECIMAL: Final = re.compile(
    r"[+-]?0[xX](?P<whole>[0-9a-fA-F]*)\.?(?P<part>[0-9a-fA-F]*)[pP](?P<exponent>[+-]?[0-9]+)"
)
#: An underscore stands between two digits, or between `0x` and a digit.
_UNDERSCORE: Final = re.compile(r"(?<=[0-9])_(?=[0-9])")
_UNDERSCORE_IN_HEXADECIMAL: Final = re.compile(r"(?<=[0-9a-fA-FxX])_(?=[0-9a-fA-F])")
_LARGEST: Final = float.fromhex("0x1.fffffep127")
#: Halfway from the largest float32 to the next power of two: what is not below it is out of range.
_LIMIT: Final = float.fromhex("0x1.ffffffp127")
_MOST_DIGITS: Final = 9


def parse_float32(text: str) -> float:
    """As `strconv.ParseFloat(text, 32)`, then written into JSON and read again as a double.

    Raises ValueError for another form, for what is out of range, and for infinity and NaN: JSON has neither,
    so `ollama create` fails with them.
    """
    plain = _without_underscores(text)
    hexadecimal = _HEXADECIMAL.fullmatch(plain)
    if not hexadecimal and not _DECIMAL.fullmatch(plain):
        raise ValueError
    try:
        double = float.fromhex(plain) if hexadecimal else float(plain)
    except OverflowError:
        raise ValueError from None
    if abs(double) > _LIMIT:
        raise ValueError

    def beyond() -> int:
        """The sign of what rounding to a double took away."""
        if hexadecimal:
            return _sign(_exact(hexadecimal, negative=plain.startswith("-")) - Fraction(double))
        exact = Decimal(plain)
        return (exact > Decimal(double)) - (exact < Decimal(double))

    return _shortest(_nearest(double, beyond))


def _without_underscores(text: str) -> str:
    """Takes them off where they may stand."""
    if "_" not in text:
        return text
    is_hexadecimal = text.lstrip("+-")[:2].lower() == "0x"
    return (_UNDERSCORE_IN_HEXADECIMAL if is_hexadecimal else _UNDERSCORE).sub("", text)


def _nearest(double: float, beyond: Callable[[], int]) -> float:
    """The float32 next to the exact number. `beyond` says on which side of `double` that lies."""
    if abs(double) == _LIMIT:
        if beyond() * double >= 0:
            raise ValueError
        return math.copysign(_LARGEST, double)
    single = _as_single(double)
    other = 2 * double - single
    if single == double or _as_single(other) != other:
        return single
    # Halfway between two float32: what was lost before decides, or if nothing was, the even one of them.
    side = beyond()
    if side == 0:
        return single
    return max(single, other) if side > 0 else min(single, other)


def _as_single(double: float) -> float:
    if abs(double) >= _LIMIT:
        return math.copysign(math.inf, double)
    return float(struct.unpack("<f", struct.pack("<f", double))[0])


def _exact(found: re.Match[str], *, negative: bool) -> Fraction:
    digits = int(found["whole"] + found["part"], 16)
    exponent = int(found["exponent"]) - 4 * len(found["part"])
    value = Fraction(digits << exponent) if exponent >= 0 else Fraction(digits, 1 << -exponent)
    return -value if negative else value


def _sign(number: Fraction) -> int:
    return (number > 0) - (number < 0)


def _shortest(single: float) -> float:
    """The double with the fewest decimal digits that still is this float32, which is what Go writes."""
    exact = Decimal(single)
    for digits in range(1, _MOST_DIGITS):
        for way in (ROUND_HALF_EVEN, ROUND_FLOOR, ROUND_CEILING):
            # At a power of two the nearest number of so few digits may be another float32, the next not.
            short = float(Context(prec=digits, rounding=way).plus(exact))
            if _as_single(short) == single:
                return short
    return float(f"{single:.{_MOST_DIGITS}g}")
