"""Kubernetes objects as plain dicts, and the few accessors everybody needs.

An object is what JSON says it is: nested dicts, lists, strings, numbers, booleans. Objects that come out of the
store's cache are shared: treat them as frozen and copy (`clone`) before changing anything. Called by every room;
imports nothing but the standard library and orjson.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

Object = dict[str, Any]


def clone(obj: Mapping[str, Any]) -> Object:
    """A deep copy of a JSON object."""
    copied: Object = orjson.loads(orjson.dumps(obj))
    return copied


def metadata(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    return obj.get("metadata") or {}


def name_of(obj: Mapping[str, Any]) -> str:
    return metadata(obj).get("name") or ""


def namespace_of(obj: Mapping[str, Any]) -> str:
    return metadata(obj).get("namespace") or ""


def uid_of(obj: Mapping[str, Any]) -> str:
    return metadata(obj).get("uid") or ""


def labels_of(obj: Mapping[str, Any]) -> Mapping[str, str]:
    return metadata(obj).get("labels") or {}


def annotations_of(obj: Mapping[str, Any]) -> Mapping[str, str]:
    return metadata(obj).get("annotations") or {}


def is_deleting(obj: Mapping[str, Any]) -> bool:
    return bool(metadata(obj).get("deletionTimestamp"))


def controller_of(obj: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The owner reference with `controller: true`, or None."""
    for reference in metadata(obj).get("ownerReferences") or ():
        if reference.get("controller"):
            return dict(reference)
    return None


def condition_of(status: Mapping[str, Any], type: str) -> Mapping[str, Any] | None:
    """The condition of that type in a status, or None."""
    for condition in status.get("conditions") or ():
        if condition.get("type") == type:
            return dict(condition)
    return None


def is_ready(obj: Mapping[str, Any]) -> bool:
    """Whether a pod's or node's status says Ready=True."""
    condition = condition_of(obj.get("status") or {}, "Ready")
    return condition is not None and condition.get("status") == "True"


def format_time(moment: datetime) -> str:
    """metav1.Time on the wire: UTC, whole seconds, `Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_micro_time(moment: datetime) -> str:
    """metav1.MicroTime on the wire: UTC, six digits, `Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> datetime:
    """Reads RFC 3339 with any offset and fraction. Raises ValueError for anything else."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"time {text!r} has no offset")
    return moment.astimezone(UTC)
