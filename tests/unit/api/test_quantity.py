"""Quantities: canonical text, exact values, and what is none."""

from decimal import Decimal

import pytest

from api.quantity import bytes_of, canonical, millicores, parse_quantity, render_quantity


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5", "500m"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("1000", "1k"),
        ("1e3", "1e3"),
        ("1024", "1024"),
        ("0", "0"),
        ("0Mi", "0"),
        ("-1.5Gi", "-1536Mi"),
        ("0.1m", "100u"),
        ("0.0000000001", "1n"),
        ("1023Ki", "1023Ki"),
        ("1.234", "1.234"),
        ("16Ei", "9223372036854775807"),
    ],
)
def test_canonical_text(text: str, expected: str) -> None:
    assert canonical(text) == expected


@pytest.mark.parametrize("text", ["", " 1", "1 Gi", "1gi", "1Kib", "abc", "--1", "1e", "m", ".", "1.2.3", "1" * 300])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"quantit|numeric|suffix"):
        parse_quantity(text)


def test_a_boolean_is_no_quantity() -> None:
    with pytest.raises(ValueError, match="quantities must match"):
        canonical(True)


def test_numbers_are_read_as_written() -> None:
    assert parse_quantity(2) == 2 and canonical(0.25) == "250m"


def test_cpu_and_bytes_round_up() -> None:
    assert millicores("1500u") == 2 and millicores("0.5") == 500
    assert bytes_of("1Ki") == 1024 and bytes_of("0.5") == 1


def test_a_sum_takes_the_notation_of_its_parts() -> None:
    assert render_quantity(Decimal(2 * 1024**2), "1Mi") == "2Mi"
    assert render_quantity(Decimal("1.5"), "1") == "1500m"
