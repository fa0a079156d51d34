"""RFC 6902 JSON patch as the API server reads it (evanphx/json-patch v4).

Indices may be negative (-1: the last element; for `add`: the end), `replace` sets a missing key of a map, `copy` of one
copies null, a value that is not there is null, and 1 is not 1.0. A patch that is no list of operations is 400; one that
cannot be carried out (failed test, missing path) is 422, with the one sentence Kubernetes has for all of them. Called
through api.patch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import orjson

from api.codec.json_text import is_too_deep
from api.errors import BadRequest, Invalid, TooLarge
from api.objects import Object
from api.schema.walker import json_kind

_MOST_OPERATIONS = 10_000
_MOST_COPIED_BYTES = 3 << 20
"""Else thirty copies of a field into itself would fill the memory."""
_REFUSED = "the server rejected our request due to an error in our request"
_INDEX = re.compile(r"[+-]?[0-9]{1,18}")
_FIELDS = ("op", "path", "from", "value")


class _Unfit(Exception):
    """An operation cannot be carried out."""


def json_patch(obj: Object, patch: Any) -> Object:
    """`obj` (which is changed) with the operations applied. Raises BadRequest, Invalid, TooLarge."""
    _check_shape(patch)
    operations = patch or []
    if len(operations) > _MOST_OPERATIONS:
        raise TooLarge(
            f"The allowed maximum operations in a JSON patch is {_MOST_OPERATIONS}, got {len(operations)}",
        )
    patched: Any = obj
    copied = 0
    try:
        for operation in operations:
            if operation is not None and operation.get("op") == "copy":
                copied += _copy(patched, operation)
                if copied > _MOST_COPIED_BYTES:
                    raise _Unfit
            else:
                patched = _carried_out(patched, operation or {})
    except (_Unfit, RecursionError, orjson.JSONEncodeError) as fault:
        raise Invalid(_REFUSED, {}) from fault
    if not isinstance(patched, dict) or is_too_deep(patched):
        raise Invalid(_REFUSED, {})
    return patched


def unknown_operation_fields(patch: Any) -> Iterator[str]:
    """Paths of what no operation has."""
    for index, operation in enumerate(patch if isinstance(patch, list) else ()):
        if isinstance(operation, dict):
            yield from (f"[{index}].{name}" for name in operation if name not in _FIELDS)


def _check_shape(patch: Any) -> None:
    """Raises BadRequest for what Go cannot read as operations."""
    if patch is not None and not isinstance(patch, list):
        raise _no_patch(patch, "Go value of type []handlers.jsonPatchOp")
    for operation in patch or ():
        if operation is not None and not isinstance(operation, dict):
            raise _no_patch(operation, "Go value of type handlers.jsonPatchOp")
        for name in _FIELDS[:3]:
            given = (operation or {}).get(name)
            if given is not None and not isinstance(given, str):
                raise _no_patch(given, f"Go struct field jsonPatchOp.{name} of type string")


def _no_patch(value: Any, into: str) -> BadRequest:
    return BadRequest(f"error decoding patch: {unmarshal_fault(value, into)}")


def unmarshal_fault(value: Any, into: str = "Go value of type map[string]interface {}") -> str:
    """How Go says that a JSON value does not fit."""
    return f"json: cannot unmarshal {json_kind(value)} into {into}"


def _carried_out(root: Any, operation: Object) -> Any:
    """The document after any operation but `copy`."""
    verb, path, value = (operation.get(name) for name in ("op", "path", "value"))
    if path == "" and verb in ("replace", "test"):
        if not isinstance(value, dict | list) or (verb == "test" and not _same(root, value)):
            raise _Unfit
        return value if verb == "replace" else root
    holder, key = _place(root, operation.get("from") if verb == "move" else path)
    if verb == "add":
        _add(holder, key, value)
    elif verb == "remove":
        _remove(holder, key)
    elif verb == "replace":
        _replace(holder, key, value)
    elif verb == "move":
        moved = _remove(holder, key)
        _add(*_place(root, path), moved)
    elif verb != "test" or not _same(_get(holder, key), value):
        raise _Unfit
    return root


def _copy(root: Any, operation: Object) -> int:
    """How many bytes were copied."""
    text = orjson.dumps(_get(*_place(root, operation.get("from"))))
    _add(*_place(root, operation.get("path")), orjson.loads(text))
    return len(text)


def _place(root: Any, path: str | None) -> tuple[Any, str]:
    """The map or list that holds what a path leads to, and its key there."""
    _, *keys = [step.replace("~1", "/").replace("~0", "~") for step in (path or "").split("/")]
    if not keys:
        raise _Unfit
    for step in keys[:-1]:
        root = _get(root, step)
        if not isinstance(root, dict | list):
            raise _Unfit
    return root, keys[-1]


def _index(items: list[Any], key: str, room: int = 0) -> int:
    size = len(items) + room
    index = int(key) if _INDEX.fullmatch(key) else size
    if not -size <= index < size:
        raise _Unfit
    return index % size


def _get(holder: Any, key: str) -> Any:
    return holder.get(key) if isinstance(holder, dict) else holder[_index(holder, key)]


def _replace(holder: Any, key: str, value: Any) -> None:
    holder[key if isinstance(holder, dict) else _index(holder, key)] = value


def _add(holder: Any, key: str, value: Any) -> None:
    if isinstance(holder, dict):
        holder[key] = value
    else:
        holder.insert(len(holder) if key == "-" else _index(holder, key, 1), value)


def _remove(holder: Any, key: str) -> Any:
    if isinstance(holder, list):
        return holder.pop(_index(holder, key))
    if key not in holder:
        raise _Unfit
    return holder.pop(key)


def _same(one: Any, other: Any) -> bool:
    """Equality of Go's raw values: numbers are what they are written as."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
