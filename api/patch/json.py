"""RFC 6902 JSON patch, on the jsonpatch library.

A patch that is no list of operations is 400; one that cannot be carried out (failed test, missing path) is 422, with
the one sentence Kubernetes has for all of them. Called through api.patch.
"""

from __future__ import annotations

from typing import Any

import jsonpatch
import orjson
from jsonpointer import JsonPointer, JsonPointerException

from api.codec.json_text import is_too_deep
from api.errors import BadRequest, Invalid, TooLarge
from api.objects import Object

_MOST_OPERATIONS = 10_000
_MOST_COPIED_BYTES = 3 << 20
"""Else thirty copies of a field into itself would fill the memory."""
_FAULTS = (jsonpatch.JsonPatchException, JsonPointerException, TypeError, KeyError, ValueError, RecursionError)
_REFUSED = "the server rejected our request due to an error in our request"


def json_patch(obj: Object, patch: Any) -> Object:
    """`obj` (which is changed) with the operations applied. Raises BadRequest, Invalid, TooLarge."""
    if not isinstance(patch, list) or not all(isinstance(operation, dict) for operation in patch):
        raise BadRequest(
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"
        )
    if len(patch) > _MOST_OPERATIONS:
        raise TooLarge(
            f"The allowed maximum operations in a JSON patch is {_MOST_OPERATIONS}, got {len(patch)}",
        )
    patched: Any = obj
    copied = 0
    for operation in patch:
        try:
            if operation.get("op") == "copy":
                copied += len(orjson.dumps(JsonPointer(operation["from"]).resolve(patched)))
                if copied > _MOST_COPIED_BYTES:
                    raise ValueError("too much is copied")
            patched = jsonpatch.JsonPatch([operation]).apply(patched, in_place=True)
        except _FAULTS as fault:
            raise Invalid(_REFUSED, {}) from fault
    if not isinstance(patched, dict) or is_too_deep(patched):
        raise Invalid(_REFUSED, {})
    return patched
