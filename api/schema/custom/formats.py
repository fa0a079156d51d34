"""The string and number formats that a schema may name, as Kubernetes' validator knows them.

Called by `values`. A format nobody knows accepts everything, as in Kubernetes. Pure.
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable
from datetime import date, datetime
from typing import Any
from urllib.parse import urlsplit

from api.names import is_dns_subdomain

_DURATION = re.compile(r"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h|d|w))+|[-+]?0")
_HOSTNAME = re.compile(r"(?=.{1,253}$)(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.?)+")
_EMAIL = re.compile(r"[^@\s<>\"(),:;\[\]\\]+@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_MAC = re.compile(r"[0-9A-Fa-f]{2}(?:([:-])[0-9A-Fa-f]{2})(?:\1[0-9A-Fa-f]{2}){4}(?:(?:\1[0-9A-Fa-f]{2}){2})?")
_UUID = "[0-9A-Fa-f]{8}-?[0-9A-Fa-f]{4}-?%s[0-9A-Fa-f]{3}-?%s[0-9A-Fa-f]{3}-?[0-9A-Fa-f]{12}"
_UUIDS = {
    "uuid": re.compile(_UUID % ("[0-9A-Fa-f]", "[0-9A-Fa-f]")),
    "uuid3": re.compile(_UUID % ("3", "[0-9A-Fa-f]")),
    "uuid4": re.compile(_UUID % ("4", "[89ABab]")),
    "uuid5": re.compile(_UUID % ("5", "[89ABab]")),
}
_HEX_COLOR = re.compile(r"#?(?:[0-9A-Fa-f]{3}|[0-9A-Fa-f]{6})")
_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_INTEGERS = {"int32": 31, "int64": 63}
_NUMBERS = {"integer": ("int32", "int64"), "number": ("float", "double")}
_UNCHECKED = frozenset({"password", "bsonobjectid", "isbn", "isbn10", "isbn13", "creditcard", "ssn", "rgbcolor"})


def matches_format(name: str, value: Any) -> bool:
    """Whether a string (or an integer, for int32 and int64) has the format."""
    if isinstance(value, str):
        test = _STRINGS.get(name.replace("-", ""))
        return test is None or test(value)
    if name in _INTEGERS and isinstance(value, int | float) and not isinstance(value, bool):
        bound = 1 << _INTEGERS[name]
        return -bound <= value < bound
    return True


def is_format(name: str, kind: str) -> bool:
    """Whether the format means something for values of a type."""
    if kind == "string":
        plain = name.replace("-", "")
        return plain in _STRINGS or plain in _UNCHECKED
    return name in _NUMBERS.get(kind, ())


def _parses(read: Callable[[str], object]) -> Callable[[str], bool]:
    def test(value: str) -> bool:
        try:
            read(value)
        except (ValueError, binascii.Error):
            return False
        return True

    return test


def _fits(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda value: pattern.fullmatch(value) is not None


def _read_moment(value: str) -> None:
    if len(value) < 19 or value[10] not in "Tt ":
        raise ValueError(value)
    datetime.fromisoformat(value)


def _read_uri(value: str) -> None:
    if not (urlsplit(value).scheme or value.startswith("/")):
        raise ValueError(value)


_STRINGS: dict[str, Callable[[str], bool]] = {
    "date": lambda value: len(value) == 10 and _parses(date.fromisoformat)(value),
    "datetime": _parses(_read_moment),
    "duration": _fits(_DURATION),
    "ipv4": _parses(ipaddress.IPv4Address),
    "ipv6": _parses(ipaddress.IPv6Address),
    "cidr": lambda value: "/" in value and _parses(ipaddress.ip_interface)(value),
    "uri": _parses(_read_uri),
    "email": _fits(_EMAIL),
    "hostname": _fits(_HOSTNAME),
    "mac": _fits(_MAC),
    "byte": _parses(lambda value: base64.b64decode(value, validate=True)),
    "hexcolor": _fits(_HEX_COLOR),
    "k8sshortname": _fits(_LABEL),
    "k8slongname": lambda value: not is_dns_subdomain(value),
    **{name: _fits(pattern) for name, pattern in _UUIDS.items()},
}
