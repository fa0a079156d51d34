"""The metadata that only the server writes: uid, creationTimestamp, deletion marks, generated names.

Called by create, update and delete. Pure but for randomness. Rules from k8s.io/apiserver/pkg/registry/rest
(BeforeCreate, BeforeUpdate, BeforeDelete).
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from math import floor
from typing import Any

from api.names import generate_name
from api.objects import Object, format_time, parse_time
from controller.admission.types import Request

_OWN_ON_CREATE = ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink")
_KEPT_ON_UPDATE = ("creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds")
_RANDOM = random.Random()
_UUID_FREE = (1 << 128) - 1 - (0xF << 76) - (0x3 << 62)
_UUID_MARKS = (4 << 76) + (2 << 62)
"""Version 4 and variant 10 of RFC 9562, and the bits they leave to chance."""


@lru_cache(maxsize=64)
def _second(since_1970: int) -> str:
    return format_time(datetime.fromtimestamp(since_1970, UTC))


def timestamp(moment: datetime) -> str:
    """A moment as metav1.Time; formatted once a second."""
    return _second(floor(moment.timestamp()))


def new_uid() -> str:
    """A random UUID (version 4), unique but no secret; uuid.uuid4 takes five times as long."""
    text = f"{_RANDOM.getrandbits(128) & _UUID_FREE | _UUID_MARKS:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def name_it(metadata: Object) -> bool:
    """Gives an object that only has a generateName a name; False when it has one already, or nothing to make one of."""
    base = metadata.get("generateName")
    if metadata.get("name") or not base:
        return False
    metadata["name"] = generate_name(base, _RANDOM)
    return True


def stamp_new(metadata: Object, moment: datetime) -> None:
    for field in _OWN_ON_CREATE:
        metadata.pop(field, None)
    metadata["uid"] = new_uid()
    metadata["creationTimestamp"] = timestamp(moment)


def merge_owners(request: Request, obj: Object, *, admitted: bool = False) -> None:
    """Drops owner references that are there already, and says so. `admitted`: webhooks had their turn."""
    metadata = obj["metadata"]
    owners = metadata.get("ownerReferences") or []
    kept: list[Object] = []
    for owner in owners:
        if owner not in kept:
            kept.append(owner)
    if len(kept) == len(owners):
        return
    metadata["ownerReferences"] = kept
    rest = [*owners]
    for owner in kept:
        rest.remove(owner)
    again = ", ".join(owner.get("uid") or "" for owner in rest)
    request.warnings.append(_REPEATED.format(" after mutating admission happens" if admitted else "", again))


_REPEATED = (
    ".metadata.ownerReferences contains duplicate entries{}; API server dedups owner references in 1.20+, and may "
    "reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}"
)


def carry_over(new: Object, old: Mapping[str, Any]) -> None:
    """What an update cannot change silently: identity and the marks of a deletion under way.

    A uid that differs is left for validation to refuse; the rest is simply put back.
    """
    metadata, before = new["metadata"], old["metadata"]
    metadata.pop("selfLink", None)
    if not metadata.get("uid"):
        metadata["uid"] = before["uid"]
    for field in _KEPT_ON_UPDATE:
        if field in before:
            metadata[field] = before[field]
        else:
            metadata.pop(field, None)


def mark_deleting(metadata: Object, moment: datetime, grace_seconds: int) -> None:
    """First mark of a graceful deletion: when the object is due to be gone; counts as a new desired state."""
    metadata["deletionTimestamp"] = timestamp(moment + timedelta(seconds=grace_seconds))
    metadata["deletionGracePeriodSeconds"] = grace_seconds
    if metadata.get("generation"):
        metadata["generation"] += 1


def shorten_grace(metadata: Object, grace_seconds: int) -> None:
    """A second delete may only bring the end nearer."""
    due = parse_time(metadata["deletionTimestamp"])
    asked = due - timedelta(seconds=metadata["deletionGracePeriodSeconds"] - grace_seconds)
    metadata["deletionTimestamp"] = format_time(asked)
    metadata["deletionGracePeriodSeconds"] = grace_seconds
