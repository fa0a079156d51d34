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
        ("-16Ei", "-9223372036854775807"),
        ("7Ei", "7Ei"),
        ("-0.5", "-500m"),
        ("-1.50", "-1500m"),
        ("0.5Ki", "512"),
        ("1023.5Ki", "1048064"),
        ("1024.0Ki", "1Mi"),
        ("1.0Ki", "1Ki"),
        ("0.0005Mi", "524288m"),
        ("2048Ki", "2Mi"),
        ("1e4", "10e3"),
        ("1E-1", "100e-3"),
        ("0.001e3", "1"),
        ("10e-3", "10e-3"),
        ("1000e3", "1e6"),
        ("1000E", "1e21"),
        ("123456789012345678901", "123456789012345678901"),
        ("12345678901234567890100", "12345678901234567890100"),
        ("0.123456789123", "123456790n"),
    ],
)
def test_canonical_text(text: str, expected: str) -> None:
    assert canonical(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("+5", "+5"),
        ("-7", "-7"),
        ("007", "007"),
        ("5.", "5."),
        ("1.250", "1.250"),
        ("1.25", "1250m"),
        ("0.125", "125m"),
        ("1.5000", "1500m"),
        ("10", "10"),
        ("10m", "10m"),
        ("100u", "100u"),
        ("1.001n", "2n"),
        ("1.001u", "1.001u"),
        ("1.000001m", "1.000001m"),
        ("1.0000001m", "1000001n"),
        ("1.0000001u", "1001n"),
        ("500e3", "500e3"),
        ("500E3", "500E3"),
        ("1e2", "100"),
        ("123456789012345678", "123456789012345678"),
        ("123456789012345.678", "123456789012345.678"),
        ("1234567890123456.789", "1234567890123456789m"),
        ("+00", "0"),
        ("000", "0"),
        ("+1Ki", "+1Ki"),
        ("1.Gi", "1.Gi"),
        ("007Mi", "007Mi"),
        ("8Ki", "8Ki"),
        ("+8Ki", "8Ki"),
        ("+9Ki", "+9Ki"),
        ("+12345678901Ki", "+12345678901Ki"),
        ("+123456789013Ki", "123456789013Ki"),
        ("+12345679Mi", "+12345679Mi"),
        ("+123456789Mi", "123456789Mi"),
        ("+12345Gi", "+12345Gi"),
        ("+123457Gi", "123457Gi"),
    ],
)
def test_texts_that_are_only_nearly_canonical_are_kept_where_kubernetes_keeps_them(text: str, expected: str) -> None:
    assert canonical(text) == expected


@pytest.mark.parametrize("text", ["", " 1", "1 Gi", "1gi", "1Kib", "abc", "--1", "1e", "m", ".", "1.2.3", "1" * 300])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"quantit|numeric|suffix"):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"),
        ("x", "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"),
        ("\u0661", "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"),
        ("1" * 201, "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"),
        ("m", "unable to parse numeric part of quantity"),
        ("Ki", "unable to parse numeric part of quantity"),
        (".", "unable to parse numeric part of quantity"),
        ("e3", "unable to parse numeric part of quantity"),
        ("kk", "unable to parse quantity's suffix"),
        ("1kk", "unable to parse quantity's suffix"),
        ("1e201", "unable to parse quantity's suffix"),
        ("1e-201", "unable to parse quantity's suffix"),
        ("1e", "unable to parse quantity's suffix"),
    ],
)
def test_the_fault_is_told_in_kubernetes_words(text: str, fault: str) -> None:
    with pytest.raises(ValueError) as raised:
        canonical(text)
    assert str(raised.value) == fault


def test_the_longest_texts_that_are_read() -> None:
    assert parse_quantity("1" * 200) == Decimal("1" * 200)
    assert parse_quantity("1e200") == Decimal("1e200")
    assert parse_quantity("1e-200") == Decimal("1e-9"), "nothing is finer than a nano"


def test_a_boolean_is_no_quantity() -> None:
    with pytest.raises(ValueError, match="quantities must match"):
        canonical(True)


def test_numbers_are_read_as_written() -> None:
    assert parse_quantity(2) == 2 and canonical(0.25) == "250m"
    assert parse_quantity(0.1) == Decimal("0.1") and canonical(Decimal("1.5")) == "1500m"
    assert canonical(1e22) == "10e21" and canonical(0) == "0" and canonical(0.0) == "0"


def test_cpu_and_bytes_round_up() -> None:
    assert millicores("1500u") == 2 and millicores("0.5") == 500
    assert bytes_of("1Ki") == 1024 and bytes_of("0.5") == 1
    assert millicores("-1.5m") == -1 and millicores(2) == 2000 and millicores("100m") == 100
    assert bytes_of("-0.5") == 0 and bytes_of(7) == 7 and bytes_of("1.1Ki") == 1127


def test_a_sum_takes_the_notation_of_its_parts() -> None:
    assert render_quantity(Decimal(2 * 1024**2), "1Mi") == "2Mi"
    assert render_quantity(Decimal("1.5"), "1") == "1500m"
    assert render_quantity(Decimal(2048)) == "2048" and render_quantity(Decimal(2000)) == "2k"
    assert render_quantity(Decimal(2000), "1e3") == "2e3" and render_quantity(Decimal(5), "1e3") == "5"
    assert render_quantity(Decimal(1023), "1Ki") == "1023" and render_quantity(Decimal(1024), "1Ki") == "1Ki"
    assert render_quantity(Decimal("1024.5"), "1Ki") == "1024500m"
    assert render_quantity(Decimal(-2048), "1Ki") == "-2Ki"
    assert render_quantity(Decimal(2**63), "1Ki") == "9223372036854775807"
    assert render_quantity(Decimal(2**63), "1") == "9223372036854775808"
    assert render_quantity(Decimal("1e-10"), "1") == "1n" and render_quantity(Decimal(0), "1Ki") == "0"
    assert render_quantity(Decimal(1024) ** 7 - 1024, "1") == "1180591620717411302400"
