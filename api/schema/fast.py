"""The quick look: is an object already exactly as Kubernetes would write it back?

`walker.check` asks this first and does its careful second pass only on a no. A yes means: every field is known, has
its type, and nothing in it would be dropped or rewritten (nulls, empty lists, `0.5` for `500m`, times with an offset).
One closure a struct, compiled once; about 20 us for a 2 KB pod. Imports facts and quantity only.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any

from api.quantity import canonical
from api.schema.facts import Field, Type, fields_of

Test = Callable[[Any], bool]

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_canonical_quantities: set[str] = set()
_QUANTITIES_KEPT = 4096


@cache
def struct_test(struct: str) -> Test:
    table: dict[str, Any] = {}
    for name, field in fields_of(struct).items():
        table[name] = _field_test(field, table)
    find = table.get

    def test(value: Any) -> bool:
        if type(value) is not dict:
            return False
        for name, item in value.items():
            wanted = find(name)
            if wanted is str:
                if type(item) is not str or not item:
                    return False
            elif wanted is None or not wanted(item):
                return False
        return True

    return test


def _field_test(field: Field, table: dict[str, Any]) -> Any:
    """`str` stands for the commonest test, a string that may not be empty; the struct's loop inlines it."""
    kind, may_be_empty = field.type, not field.dropped_when_empty
    if kind.shape == "string" and not may_be_empty:
        return str
    if kind.shape == "struct" and not field.null_when_unset:
        return _deferred(kind.struct, field.name, table)
    if kind.shape in ("list", "map"):
        test = _many_test(kind, may_be_empty)
    else:
        test = type_test(kind)
        if not may_be_empty:
            return lambda value: bool(value) and test(value)
    if field.null_when_unset:
        return lambda value: value is None or test(value)
    return test


def _deferred(struct: str, name: str, table: dict[str, Any]) -> Test:
    """Compiles a struct when the first value of it comes by, and takes its place: most are never seen."""

    def first_test(value: Any) -> bool:
        table[name] = test = struct_test(struct)
        return test(value)

    return first_test


@cache
def type_test(kind: Type) -> Test:
    if kind.shape == "struct":
        struct = kind.struct
        return lambda value: struct_test(struct)(value)
    if kind.shape in ("list", "map"):
        return _many_test(kind, may_be_empty=True)
    return _TESTS[kind.shape]


def _many_test(kind: Type, may_be_empty: bool) -> Test:
    """The test of a list or map; its elements' test is looked up once, when first needed."""
    assert kind.element is not None
    element, in_list = kind.element, kind.shape == "list"
    wanted: type = list if in_list else dict
    if element.shape == "string":
        return _strings_test(wanted, may_be_empty)
    tests: list[Test] = []

    def test_many(value: Any) -> bool:
        if type(value) is not wanted or not (value or may_be_empty):
            return False
        if not tests:
            tests.append(struct_test(element.struct) if element.shape == "struct" else type_test(element))
        items: Any = value
        return all(map(tests[0], items if in_list else items.values()))

    return test_many


def _strings_test(wanted: type, may_be_empty: bool) -> Test:
    in_list = wanted is list

    def test_strings(value: Any) -> bool:
        if type(value) is not wanted or not (value or may_be_empty):
            return False
        items: Any = value
        return all(map(_is_string, items if in_list else items.values()))

    return test_strings


def _is_string(value: Any) -> bool:
    return type(value) is str


def _is_bool(value: Any) -> bool:
    return type(value) is bool


def _is_int32(value: Any) -> bool:
    return type(value) is int and -0x80000000 <= value <= 0x7FFFFFFF


def _is_int64(value: Any) -> bool:
    return type(value) is int and -0x8000000000000000 <= value <= 0x7FFFFFFFFFFFFFFF


def _is_number(value: Any) -> bool:
    return type(value) is int or type(value) is float


def _is_bytes(value: Any) -> bool:
    if type(value) is not str:
        return False
    try:
        binascii.a2b_base64(value, strict_mode=True)
    except ValueError:
        return False
    return True


def _is_quantity(value: Any) -> bool:
    if type(value) is not str:
        return False
    if value in _canonical_quantities:
        return True
    try:
        if canonical(value) != value:
            return False
    except ValueError:
        return False
    if len(_canonical_quantities) >= _QUANTITIES_KEPT:
        _canonical_quantities.clear()
    _canonical_quantities.add(value)
    return True


def _is_moment(value: str) -> bool:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _is_time(value: Any) -> bool:
    return type(value) is str and _TIME.fullmatch(value) is not None and _is_moment(value)


def _is_micro_time(value: Any) -> bool:
    return type(value) is str and _MICRO_TIME.fullmatch(value) is not None and _is_moment(value)


def _is_int_or_string(value: Any) -> bool:
    return type(value) is str or _is_int32(value)


def _is_strings(value: Any) -> bool:
    return type(value) is list and all(type(item) is str for item in value)


def _is_anything(value: Any) -> bool:
    return value is not None


def _is_never(value: Any) -> bool:
    """Shapes that only the careful pass knows."""
    del value
    return False


_TESTS: dict[str, Test] = {
    "string": _is_string,
    "bool": _is_bool,
    "int32": _is_int32,
    "int64": _is_int64,
    "float64": _is_number,
    "bytes": _is_bytes,
    "items": _is_strings,
    "quantity": _is_quantity,
    "time": _is_time,
    "microtime": _is_micro_time,
    "duration": _is_never,
    "intorstring": _is_int_or_string,
    "raw": _is_anything,
    "fields": _is_anything,
    "json": lambda value: True,
    "propsorbool": _is_never,
    "propsorarray": _is_never,
    "propsorstrings": _is_never,
}
