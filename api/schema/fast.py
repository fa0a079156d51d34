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
        table[name] = _field_test(field)
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


def _field_test(field: Field) -> Any:
    """`str` stands for the commonest test, a string that may not be empty; the struct's loop inlines it."""
    test = type_test(field.type)
    if field.null_when_unset:
        return lambda value: value is None or test(value)
    if not field.dropped_when_empty:
        return test
    if field.type.shape == "string":
        return str
    return lambda value: bool(value) and test(value)


@cache
def type_test(kind: Type) -> Test:
    if kind.shape == "struct":
        return _deferred(kind.struct)
    if kind.shape == "list" and kind.element is not None:
        return _list_test(type_test(kind.element))
    if kind.shape == "map" and kind.element is not None:
        return _map_test(kind.element)
    return _TESTS[kind.shape]


def _deferred(struct: str) -> Test:
    """Compiles a struct when the first value of it comes by: most are never seen, and some contain themselves."""
    compiled: list[Test] = []

    def test(value: Any) -> bool:
        if not compiled:
            compiled.append(struct_test(struct))
        return compiled[0](value)

    return test


def _list_test(test: Test) -> Test:
    def test_list(value: Any) -> bool:
        return type(value) is list and all(map(test, value))

    return test_list


def _map_test(element: Type) -> Test:
    if element.shape == "string":

        def test_strings(value: Any) -> bool:
            if type(value) is not dict:
                return False
            return all(type(item) is str for item in value.values())

        return test_strings
    test = type_test(element)

    def test_map(value: Any) -> bool:
        return type(value) is dict and all(map(test, value.values()))

    return test_map


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
