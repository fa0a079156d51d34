"""RFC 7396 JSON merge patch: objects merge, everything else replaces, null removes. Called through api.patch."""

from __future__ import annotations

from typing import Any

from api.errors import BadRequest
from api.objects import Object
from api.patch.json import unmarshal_fault


def merge_patch(obj: Object, patch: Any) -> Object:
    """`obj` (which is changed) with the patch merged in. Raises BadRequest when the patch is no object."""
    if patch is not None and not isinstance(patch, dict):
        raise BadRequest(f"error decoding patch: {unmarshal_fault(patch)}")
    return _merged(obj, patch or {})


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
