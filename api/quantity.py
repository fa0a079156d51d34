"""Quantities: `500m`, `1Gi`, `2e3`. Parsing, comparing by value, and Kubernetes' canonical form.

Used by validation, scheduler, quota, agent and CLI. Values are exact decimals; a binary suffix (Ki ... Ei) keeps being
written in binary, a decimal one in decimal, an exponent as an exponent. Grammar and rounding follow
https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/: nothing is finer than 1n (rounded up,
away from zero) and a binary quantity is capped at 2^63-1. Results are cached: a cluster uses few distinct texts.
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, ROUND_UP, Context, Decimal
from functools import lru_cache

_SHAPE = re.compile(r"([+-]?)(\d*)(?:\.(\d*))?([eEinumkKMGTP]*[-+]?[0-9]*)")
_EXPONENT = re.compile(r"[eE]([-+]?\d+)")
_FORMAT_FAULT = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
_SUFFIX_FAULT = "unable to parse quantity's suffix"
_NUMBER_FAULT = "unable to parse numeric part of quantity"

_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL_NAMES = {power: name for name, power in _DECIMAL.items()}
_BINARY_NAMES = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_NANO = Decimal("1e-9")
_LARGEST_BINARY = Decimal(2**63 - 1)
_EXACT = Context(prec=400)
_LONGEST = 200

Text = str | int | float | Decimal


def parse_quantity(value: Text) -> Decimal:
    """The exact value. Raises ValueError, in Kubernetes' words, for what is no quantity."""
    return _parsed(_as_text(value))[0]


def canonical(value: Text) -> str:
    """The one way to write this quantity: `0.5` is `500m`, `1024Mi` is `1Gi`. Raises ValueError."""
    return _canonical(_as_text(value))


def millicores(value: Text) -> int:
    """CPU in thousandths of a core, rounded up."""
    return _millis(_as_text(value))


def bytes_of(value: Text) -> int:
    """Memory or storage in bytes (also any other countable resource), rounded up."""
    return _whole(_as_text(value))


def render_quantity(value: Decimal, style: str = "") -> str:
    """Canonical text of a computed value; `style` is a quantity whose notation (binary or decimal) it takes over."""
    notation = _parsed(_as_text(style))[1] if style else "decimal"
    return _render(_limited(value, notation), notation)


def is_whole(amount: Decimal) -> bool:
    """Whether it has no fraction; `%` cannot say that of amounts of thirty digits."""
    return amount == amount.to_integral_value()


def _as_text(value: Text) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        raise ValueError(_FORMAT_FAULT)
    return repr(value) if isinstance(value, float) else str(value)


@lru_cache(maxsize=8192)
def _canonical(text: str) -> str:
    value, notation = _parsed(text)
    return text if _kept_as_written(text, notation) else _render(value, notation)


def _kept_as_written(text: str, notation: str) -> bool:
    """Kubernetes keeps some texts that are only nearly canonical, `1.250` or `+5`; so do we, or diffs would show."""
    shape = _SHAPE.fullmatch(text)
    if shape is None or text == "0":
        return shape is not None
    whole, fraction, suffix = shape.group(2).lstrip("0") or "0", shape.group(3) or "", shape.group(4)
    digits = whole + fraction
    if notation == "binary":
        short = 15 - len(whole) - int(_BINARY[suffix] * 3 / 10) - 1 >= 0
        return short and not shape.group(3) and int(whole) & 7 != 0
    if len(digits) > 18 or digits.endswith("000") or digits[0] == "0":
        return False
    scale = _DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:])
    return scale - len(fraction) >= -9 and (scale - len(fraction)) % 3 == 0


@lru_cache(maxsize=8192)
def _millis(text: str) -> int:
    return int((_parsed(text)[0] * 1000).to_integral_value(ROUND_CEILING))


@lru_cache(maxsize=8192)
def _whole(text: str) -> int:
    return int(_parsed(text)[0].to_integral_value(ROUND_CEILING))


@lru_cache(maxsize=8192)
def _parsed(text: str) -> tuple[Decimal, str]:
    """(value, notation), notation one of decimal, exponent, binary."""
    shape = _SHAPE.fullmatch(text) if text.isascii() and len(text) <= _LONGEST else None
    if shape is None or not text:
        raise ValueError(_FORMAT_FAULT)
    sign, whole, fraction, suffix = shape.group(1), shape.group(2), shape.group(3) or "", shape.group(4)
    if not whole and not fraction:
        raise ValueError(_NUMBER_FAULT if _known_suffix(suffix) else _SUFFIX_FAULT)
    number = Decimal(f"{sign}{whole or '0'}.{fraction or '0'}")
    if suffix in _BINARY:
        return _limited(_EXACT.multiply(number, Decimal(2 ** _BINARY[suffix])), "binary"), "binary"
    if suffix in _DECIMAL:
        return _limited(_EXACT.scaleb(number, _DECIMAL[suffix]), "decimal"), "decimal"
    exponent = _EXPONENT.fullmatch(suffix)
    if exponent is None or abs(int(exponent.group(1))) > _LONGEST:
        raise ValueError(_SUFFIX_FAULT)
    return _limited(_EXACT.scaleb(number, int(exponent.group(1))), "exponent"), "exponent"


def _known_suffix(suffix: str) -> bool:
    return suffix in _DECIMAL or suffix in _BINARY or _EXPONENT.fullmatch(suffix) is not None


def _limited(value: Decimal, notation: str) -> Decimal:
    limited = _EXACT.quantize(value, _NANO) if value == 0 else value.quantize(_NANO, ROUND_UP, context=_EXACT)
    if notation == "binary" and abs(limited) > _LARGEST_BINARY:
        return _LARGEST_BINARY.copy_sign(limited)
    return limited


def _render(value: Decimal, notation: str) -> str:
    if value == 0:
        return "0"
    if notation == "binary" and abs(value) >= 1024 and value == value.to_integral_value():
        mantissa, steps = int(value), 0
        while mantissa % 1024 == 0 and steps < 6:
            mantissa, steps = mantissa // 1024, steps + 1
        return f"{mantissa}{_BINARY_NAMES[steps]}"
    sign, digits, exponent = _EXACT.normalize(value).as_tuple()
    mantissa, power = int("".join(map(str, digits))), int(exponent)
    spare = power % 3  # the power must be one that has a name
    mantissa, power = mantissa * 10**spare, power - spare
    text = f"{'-' if sign else ''}{mantissa}"
    if notation == "exponent":
        return f"{text}e{power}" if power else text
    return text + _DECIMAL_NAMES[power] if power in _DECIMAL_NAMES else f"{text}e{power}"
