"""Names, label keys and values, and the other short strings whose form Kubernetes fixes.

Each `*_faults` function takes a string and returns the list of what is wrong with it, in the words that
clients already know from Kubernetes (k8s.io/apimachinery/pkg/util/validation); an empty list means fine. Called by
validation, the agent and the CLI. Imports only the standard library. Accepting is the fast path: one regular
expression match, no allocation.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

NameRule = Callable[[str], list[str]]

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = _LABEL + r"(\." + _LABEL + ")*"
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_KEY = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = f"({_KEY})?"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"
_C_IDENTIFIER = "[A-Za-z_][A-Za-z0-9_]*"
_PERCENT = "[0-9]+%"
_HEADER = "[-A-Za-z0-9]+"
_WILDCARD = r"\*\." + _SUBDOMAIN

_match_label = re.compile(_LABEL).fullmatch
_match_subdomain = re.compile(_SUBDOMAIN).fullmatch
_match_label_1035 = re.compile(_LABEL_1035).fullmatch
_match_key = re.compile(_KEY).fullmatch
_match_label_value = re.compile(_LABEL_VALUE).fullmatch
_match_config_key = re.compile(_CONFIG_KEY).fullmatch
_match_c_identifier = re.compile(_C_IDENTIFIER).fullmatch
_match_percent = re.compile(_PERCENT).fullmatch
_match_header = re.compile(_HEADER).fullmatch
_match_wildcard = re.compile(_WILDCARD).fullmatch
_match_port_charset = re.compile("[-a-z0-9]+").fullmatch

_KEY_WORDS = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
)
_KEY_EXAMPLES = ("MyName", "my.name", "123-abc")

# Kubernetes leaves out vowels and look-alike digits, so that a random suffix never spells a word.
_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH = 5
_GENERATED_BASE_LIMIT = 63 - _SUFFIX_LENGTH


def byte_length(text: str) -> int:
    """Length as Go counts it: UTF-8 bytes."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def pattern_fault(words: str, pattern: str, *examples: str) -> str:
    """How Kubernetes words a failed pattern: rule, examples, then the pattern itself."""
    listed = " or ".join(f"'{example}', " for example in examples)
    return f"{words} (e.g. {listed}regex used for validation is '{pattern}')"


def length_fault(limit: int, unit: str = "characters") -> str:
    return f"must be no more than {limit} {unit}"


def range_fault(low: int, high: int) -> str:
    return f"must be between {low} and {high}, inclusive"


def is_dns_label(value: str) -> list[str]:
    """RFC 1123 label: namespaces, containers, volumes."""
    if len(value) <= 63 and _match_label(value):
        return []
    faults = [length_fault(63)] if byte_length(value) > 63 else []
    if not _match_label(value):
        if _match_subdomain(value):
            faults.append("must not contain dots")
        else:
            words = (
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
                "and must start and end with an alphanumeric character"
            )
            faults.append(pattern_fault(words, _LABEL, "my-name", "123-abc"))
    return faults


def is_dns_subdomain(value: str) -> list[str]:
    """RFC 1123 subdomain: the name rule of most kinds."""
    if len(value) <= 253 and _match_subdomain(value):
        return []
    faults = [length_fault(253)] if byte_length(value) > 253 else []
    if not _match_subdomain(value):
        words = (
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
            "and must start and end with an alphanumeric character"
        )
        faults.append(pattern_fault(words, _SUBDOMAIN, "example.com"))
    return faults


def is_dns_1035_label(value: str) -> list[str]:
    """RFC 1035 label, which may not start with a digit: service names."""
    if len(value) <= 63 and _match_label_1035(value):
        return []
    faults = [length_fault(63)] if byte_length(value) > 63 else []
    if not _match_label_1035(value):
        words = (
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "
            "alphabetic character, and end with an alphanumeric character"
        )
        faults.append(pattern_fault(words, _LABEL_1035, "my-name", "abc-123"))
    return faults


def is_wildcard_subdomain(value: str) -> list[str]:
    """`*.` followed by a subdomain: ingress hosts."""
    faults = [length_fault(253)] if byte_length(value) > 253 else []
    if not _match_wildcard(value):
        words = (
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must "
            "consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character"
        )
        faults.append(pattern_fault(words, _WILDCARD, "*.example.com"))
    return faults


def is_qualified_name(value: str) -> list[str]:
    """`[prefix/]name`: label keys, taint keys, resource names, finalizers."""
    if len(value) <= 63 and _match_key(value):
        return []
    prefix, slash, name = value.rpartition("/")
    faults: list[str] = []
    if "/" in prefix:
        words = pattern_fault(_KEY_WORDS, _KEY, *_KEY_EXAMPLES)
        optional = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        return [f"a valid label key {words} {optional}"]
    if slash:
        if not prefix:
            faults.append("prefix part must be non-empty")
        faults += [
            "prefix part " + fault.replace(" characters", " bytes")
            if fault == length_fault(253)
            else "prefix part " + fault
            for fault in (is_dns_subdomain(prefix) if prefix else ())
        ]
    if not name:
        faults.append("name part must be non-empty")
    elif byte_length(name) > 63:
        faults.append("name part " + length_fault(63, "bytes"))
    if not _match_key(name):
        faults.append("name part " + pattern_fault(_KEY_WORDS, _KEY, *_KEY_EXAMPLES))
    return faults


def is_label_value(value: str) -> list[str]:
    if len(value) <= 63 and _match_label_value(value):
        return []
    faults = [length_fault(63, "bytes")] if byte_length(value) > 63 else []
    if not _match_label_value(value):
        words = (
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
            "and must start and end with an alphanumeric character"
        )
        faults.append(pattern_fault(words, _LABEL_VALUE, "MyValue", "my_value", "12345"))
    return faults


def is_config_key(value: str) -> list[str]:
    """A key of a ConfigMap's or Secret's data: it becomes a file name."""
    faults = [length_fault(253)] if byte_length(value) > 253 else []
    if not _match_config_key(value):
        words = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
        faults.append(pattern_fault(words, _CONFIG_KEY, "key.name", "KEY_NAME", "key-name"))
    return faults + _parent_faults(value)


def is_env_name(value: str) -> list[str]:
    """An environment variable's name: printable ASCII without `=` (KEP-4369)."""
    if not value:
        return ["environment variable name must be non-empty"]
    if value.isascii() and value.isprintable() and "=" not in value:
        return []
    return ["a valid environment variable name must consist only of printable ASCII characters other than '='"]


def is_c_identifier(value: str) -> list[str]:
    if _match_c_identifier(value):
        return []
    words = (
        "a valid C identifier must start with alphabetic character or '_', "
        "followed by a string of alphanumeric characters or '_'"
    )
    return [pattern_fault(words, _C_IDENTIFIER, "my_name", "MY_NAME", "MyName")]


def is_port_number(value: int) -> list[str]:
    return [] if 1 <= value <= 65535 else [range_fault(1, 65535)]


def is_port_name(value: str) -> list[str]:
    """IANA service name: at most 15 of `a-z0-9-`, at least one letter, hyphens only inside and single."""
    faults = [length_fault(15)] if byte_length(value) > 15 else []
    if not _match_port_charset(value):
        faults.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not any("a" <= char <= "z" for char in value):
        faults.append("must contain at least one letter (a-z)")
    if "--" in value:
        faults.append("must not contain consecutive hyphens")
    if value and (value[0] == "-" or value[-1] == "-"):
        faults.append("must not begin or end with a hyphen")
    return faults


def is_percent(value: str) -> list[str]:
    if _match_percent(value):
        return []
    words = "a valid percent string must be a numeric string followed by an ending '%'"
    return [pattern_fault(words, _PERCENT, "1%", "93%")]


def is_http_header(value: str) -> list[str]:
    if _match_header(value):
        return []
    words = "a valid HTTP header must consist of alphanumeric characters or '-'"
    return [pattern_fault(words, _HEADER, "X-Header-Name")]


def is_path_segment(value: str) -> list[str]:
    """The only rule for RBAC names: that they can stand in a URL."""
    if value in (".", ".."):
        return [f"may not be '{value}'"]
    return [f"may not contain '{bad}'" for bad in ("/", "%") if bad in value]


def is_user_id(value: int) -> list[str]:
    return [] if 0 <= value <= 2147483647 else [range_fault(0, 2147483647)]


def is_group_id(value: int) -> list[str]:
    return is_user_id(value)


def generate_name(base: str, random: Random) -> str:
    """`metadata.generateName` plus five random characters, the base cut so that 63 are never passed."""
    return base[:_GENERATED_BASE_LIMIT] + "".join(random.choices(_SUFFIX_ALPHABET, k=_SUFFIX_LENGTH))


def mask_trailing_dash(name: str) -> str:
    """A generateName prefix as Kubernetes judges it: a final dash is fine, because characters follow."""
    return name[:-2] + "a" if len(name) > 1 and name.endswith("-") else name


def _parent_faults(value: str) -> list[str]:
    if value in (".", ".."):
        return [f"must not be '{value}'"]
    return ["must not start with '..'"] if value.startswith("..") else []
