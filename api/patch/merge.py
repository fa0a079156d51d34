"""RFC 7396 JSON merge patch: objects merge, everything else replaces, null removes. Called through api.patch."""

from __future__ import annotations

from typing import Any

from api.errors import BadRequest
from api.objects import Object


def merge_patch(obj: Object, patch: Any) -> Object:
    """`obj` (which is changed) with the patch merged in. Raises BadRequest when the patch is no object."""
    if not isinstance(patch, dict):
        raise BadRequest(
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
        )
    return _merged(obj, patch)


def _merged(target: Object, patch: Object) -> Object:
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            current = target.get(key)
            target[key] = _merged(current if isinstance(current, dict) else {}, value)
        else:
            target[key] = value
    return target
