"""The small rules that all kinds share: names, labels, selectors, ports, addresses, paths, quantities, enumerations.

Each takes the list to which it appends FieldErrors first, then the field's path, then the value; it returns nothing.
Paths are strings, `spec.containers[0].name`. Imports only `api`. Wording: k8s.io/apimachinery/pkg/util/validation and
k8s.io/kubernetes/pkg/apis/core/validation, because clients show and match it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from api.errors import FieldError, duplicate, forbidden, invalid, not_supported, required
from api.names import (
    NameRule,
    is_dns_label,
    is_dns_subdomain,
    is_group_id,
    is_label_value,
    is_percent,
    is_port_name,
    is_port_number,
    is_qualified_name,
    is_user_id,
)

Errors = list[FieldError]
Value = Mapping[str, Any]

_good_labels: set[tuple[str, str]] = set()
_GOOD_LABELS_KEPT = 10_000

_DOTTED = re.compile(r"\d{1,3}(\.\d{1,3}){3}", re.ASCII)

HTTP_PATH = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"
IMMUTABLE = "field is immutable"
NEGATIVE = "must be greater than or equal to 0"
NOT_POSITIVE = "must be greater than zero"
FILE_MODE = "must be a number between 0 and 0777 (octal), both inclusive"


def check_name(errors: Errors, path: str, value: Any, rule: Callable[[Any], list[str]]) -> None:
    """Reports what `rule` (of api.names) finds in the value."""
    for fault in rule(value):
        errors.append(invalid(path, value, fault))


def check_dns_label(errors: Errors, path: str, value: str) -> None:
    check_name(errors, path, value, is_dns_label)


def check_subdomain(errors: Errors, path: str, value: str) -> None:
    check_name(errors, path, value, is_dns_subdomain)


def check_qualified(errors: Errors, path: str, value: str) -> None:
    check_name(errors, path, value, is_qualified_name)


def check_required_name(errors: Errors, path: str, value: str | None, rule: NameRule) -> None:
    if not value:
        errors.append(required(path))
    else:
        check_name(errors, path, value, rule)


def check_user(errors: Errors, path: str, value: int | None) -> None:
    if value is not None:
        check_name(errors, path, value, is_user_id)


def check_group(errors: Errors, path: str, value: int | None) -> None:
    if value is not None:
        check_name(errors, path, value, is_group_id)


def check_not_negative(errors: Errors, path: str, value: int | None) -> None:
    if value is not None and value < 0:
        errors.append(invalid(path, value, NEGATIVE))


def check_choice(errors: Errors, path: str, value: str | None, choices: Collection[str]) -> None:
    """A required enumeration. A set is listed sorted, a sequence in its order (Kubernetes has both)."""
    if not value:
        errors.append(required(path))
    elif value not in choices:
        errors.append(not_supported(path, value, choices))


def check_optional_choice(errors: Errors, path: str, value: str | None, choices: Collection[str]) -> None:
    """An enumeration behind a pointer: absent is fine, empty is not."""
    if value is not None and value not in choices:
        errors.append(not_supported(path, value, choices))


def check_mode(errors: Errors, path: str, value: int | None) -> None:
    """A file mode."""
    if value is not None and not 0 <= value <= 0o777:
        errors.append(invalid(path, value, FILE_MODE))


def check_labels(errors: Errors, path: str, labels: Mapping[str, str] | None) -> None:
    """The same labels come with thousands of objects: those found good are remembered."""
    if not labels or labels.items() <= _good_labels:
        return
    before = len(errors)
    for key in sorted(labels):
        check_qualified(errors, path, key)
        check_name(errors, path, labels[key] or "", is_label_value)
    if len(errors) == before:
        if len(_good_labels) > _GOOD_LABELS_KEPT:
            _good_labels.clear()
        _good_labels.update(labels.items())


def check_label_selector(errors: Errors, path: str, selector: Value | None) -> None:
    if not selector:
        return
    check_labels(errors, f"{path}.matchLabels", selector.get("matchLabels"))
    for index, requirement in enumerate(selector.get("matchExpressions") or ()):
        _check_requirement(errors, f"{path}.matchExpressions[{index}]", requirement)


def _check_requirement(errors: Errors, path: str, requirement: Value) -> None:
    operator, values = requirement.get("operator") or "", requirement.get("values") or []
    check_operator(errors, path, operator, values)
    check_qualified(errors, f"{path}.key", requirement.get("key") or "")
    for index, value in enumerate(values):
        check_name(errors, f"{path}.values[{index}]", value, is_label_value)


def check_operator(errors: Errors, path: str, operator: str, values: Sequence[str]) -> None:
    """The operators that label and node selectors share."""
    if operator in ("In", "NotIn"):
        if not values:
            errors.append(required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            errors.append(forbidden(f"{path}.values", detail))
    else:
        errors.append(invalid(f"{path}.operator", operator, "not a valid selector operator"))


def check_port(errors: Errors, path: str, value: int | str | None) -> None:
    """A port by number or by name (IntOrString); absent is port 0."""
    if isinstance(value, str):
        check_name(errors, path, value, is_port_name)
    else:
        check_name(errors, path, value or 0, is_port_number)


def parse_address(value: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """As laxly as Kubernetes always did: leading zeros are decimal."""
    try:
        return None if "%" in value else ipaddress.ip_address(_unpadded(value))
    except ValueError:
        return None


def parse_network(value: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """As laxly: leading zeros, bits beyond the prefix length."""
    address, slash, length = value.rpartition("/")
    try:
        return (
            ipaddress.ip_network(f"{_unpadded(address)}/{length}", strict=False)
            if slash and _is_number(length)
            else None
        )
    except ValueError:
        return None


def _unpadded(address: str) -> str:
    return ".".join(part.lstrip("0") or "0" for part in address.split(".")) if _DOTTED.fullmatch(address) else address


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def check_ip(errors: Errors, path: str, value: str | None) -> None:
    text = value or ""
    address = parse_address(text)
    if address is None:
        errors.append(invalid(path, text, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"))
    elif _unpadded(text) != text:
        errors.append(invalid(path, text, "must not have leading 0s"))
    elif _is_mapped(address):
        errors.append(invalid(path, text, "must not be an IPv4-mapped IPv6 address"))


def check_cidr(errors: Errors, path: str, value: str | None) -> None:
    text = value or ""
    network, (given, _, length) = parse_network(text), text.rpartition("/")
    if network is None:
        errors.append(invalid(path, text, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"))
    elif _unpadded(given) != given or str(int(length)) != length:
        errors.append(invalid(path, text, "must not have leading 0s in IP or prefix length"))
    elif _is_mapped(address := ipaddress.ip_address(given)):
        errors.append(invalid(path, text, "must not have an IPv4-mapped IPv6 address"))
    elif address != network.network_address:
        errors.append(invalid(path, text, "must not have bits set beyond the prefix length"))


def _is_mapped(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None


def check_not_special_ip(errors: Errors, path: str, value: str) -> None:
    """Endpoints and external addresses: no loopback, link-local or unspecified address."""
    address = parse_address(value)
    if address is None:
        errors.append(invalid(path, value, "must be a valid IP address"))
        return
    if address.is_unspecified:
        errors.append(invalid(path, value, f"may not be unspecified ({value})"))
    if address.is_loopback:
        errors.append(invalid(path, value, "may not be in the loopback range (127.0.0.0/8, ::1/128)"))
    if address.is_link_local:
        errors.append(invalid(path, value, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"))
    if address in ipaddress.ip_network("224.0.0.0/24" if address.version == 4 else "ff02::/16"):
        errors.append(invalid(path, value, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"))


def check_no_backsteps(errors: Errors, path: str, value: str) -> None:
    if ".." in value and ".." in value.split("/"):
        errors.append(invalid(path, value, "must not contain '..'"))


def check_descending_path(errors: Errors, path: str, value: str) -> None:
    """A relative path that never climbs."""
    if value.startswith("/"):
        errors.append(invalid(path, value, "must be a relative path"))
    check_no_backsteps(errors, path, value)


def check_domain_prefixed_path(errors: Errors, path: str, value: str) -> None:
    """A name that belongs to somebody: `acme.io/foo`."""
    domain, _, rest = value.partition("/")
    if not value:
        errors.append(required(path))
    elif not domain or not rest:
        errors.append(invalid(path, value, 'must be a domain-prefixed path (such as "acme.io/foo")'))
    else:
        check_subdomain(errors, path, domain)
        if not re.fullmatch(HTTP_PATH, rest):
            errors.append(invalid(path, rest, f"Invalid path (regex used for validation is '{HTTP_PATH}')"))


def check_unreserved_path(errors: Errors, path: str, value: str) -> None:
    """A descending path that does not begin with two dots, which volumes keep for themselves."""
    check_descending_path(errors, path, value)
    if value.startswith("..") and not value.startswith("../") and value != "..":
        errors.append(invalid(path, value, "must not start with '..'"))


def check_immutable(errors: Errors, path: str, value: Any, before: Any) -> None:
    if value != before and (value or before):
        errors.append(invalid(path, value, IMMUTABLE))


def check_count_or_percent(errors: Errors, path: str, value: int | str | None) -> None:
    """IntOrString: a number of 0 or more, or a percentage."""
    if isinstance(value, str):
        check_name(errors, path, value, is_percent)
    else:
        check_not_negative(errors, path, value)


def percent_of(value: Any) -> int | None:
    """The number of a percentage, None for anything else."""
    return int(value[:-1]) if isinstance(value, str) and not is_percent(value) else None


def check_unique(errors: Errors, path: str, value: Any, seen: set[Any]) -> None:
    """Reports a value seen before, else remembers it."""
    if value in seen:
        errors.append(duplicate(path, value))
    seen.add(value)


def go_form(value: Value, names: Iterable[str]) -> dict[str, Any]:
    """How Kubernetes shows one of its internal structs: every field by its Go name, null when unset.

    `names` are the wire names in Go's order; `seLinuxOptions=SELinuxOptions` gives the Go name itself.
    """
    shown = {}
    for name in names:
        wire, _, go_name = name.partition("=")
        shown[go_name or wire[:1].upper() + wire[1:]] = value.get(wire)
    return shown
