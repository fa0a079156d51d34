"""Names: what Kubernetes accepts, and how it words what it does not."""

from random import Random

import pytest

from api import names


@pytest.mark.parametrize("value", ["a", "web-1", "a" * 63])
def test_dns_labels_are_accepted(value: str) -> None:
    assert names.is_dns_label(value) == []


def test_a_label_with_dots_is_told_so() -> None:
    assert names.is_dns_label("a.b") == ["must not contain dots"]


def test_an_overlong_label_is_only_too_long() -> None:
    assert names.is_dns_label("a" * 64) == ["must be no more than 63 characters"]


def test_a_trailing_newline_is_no_name() -> None:
    assert names.is_dns_label("a\n") and names.is_dns_subdomain("a.b\n") and names.is_label_value("a\n")


def test_a_bad_subdomain_is_shown_the_pattern() -> None:
    [fault] = names.is_dns_subdomain("Bad_Name")
    assert fault.startswith("a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters")
    assert fault.endswith(
        r"regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
    )


@pytest.mark.parametrize(
    ("key", "faults"),
    [
        ("app", []),
        ("example.com/app", []),
        ("", ["name part must be non-empty", "name part must consist"]),
        ("/app", ["prefix part must be non-empty"]),
        ("a/b/c", ["a valid label key must consist"]),
        ("Example.com/app", ["prefix part a lowercase RFC 1123 subdomain"]),
        ("a" * 64, ["name part must be no more than 63 bytes"]),
    ],
)
def test_qualified_names(key: str, faults: list[str]) -> None:
    found = names.is_qualified_name(key)
    assert len(found) == len(faults)
    assert all(fault.startswith(start) for fault, start in zip(found, faults, strict=True))


def test_config_keys_may_not_climb() -> None:
    assert names.is_config_key("..") == ["must not be '..'"]
    assert names.is_config_key("..data") == ["must not start with '..'"]
    assert names.is_config_key("a.conf") == []


def test_environment_names_are_printable_ascii_without_equals() -> None:
    assert names.is_env_name("1 odd:name") == []
    assert names.is_env_name("a=b") and names.is_env_name("ä") and names.is_env_name("")


def test_port_names_follow_iana() -> None:
    assert names.is_port_name("http-1") == []
    assert names.is_port_name("80") == ["must contain at least one letter (a-z)"]
    assert names.is_port_name("a--b-") == [
        "must not contain consecutive hyphens",
        "must not begin or end with a hyphen",
    ]


def test_generated_names_never_pass_63_characters() -> None:
    generated = names.generate_name("x" * 80, Random(1))
    assert len(generated) == 63 and generated.startswith("x" * 58)
    assert not set(generated[58:]) & set("aeiou013")
