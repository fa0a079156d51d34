"""What a kind may add to the generic write path: a `Strategy`, a frozen record of small pure functions.

Called by the registry only; imports only `api`. Invariant: a strategy changes nothing but the object it is given,
does no I/O, and knows no other kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from api.objects import Object

Prepare = Callable[[Object], None]
"""Brings a new object into the state a fresh one starts in (status cleared, generation set)."""

PrepareUpdate = Callable[[Object, Mapping[str, Any]], None]
"""(new, old): takes back what this write may not change; `old` is read only."""

Grace = Callable[[Mapping[str, Any], int | None], int | None]
"""(object, asked seconds) -> the grace period a delete gives it, or None: this kind dies at once."""


def nothing(obj: Object) -> None:
    del obj


def nothing_on_update(new: Object, old: Mapping[str, Any]) -> None:
    del new, old


def no_grace(obj: Mapping[str, Any], asked: int | None) -> int | None:
    del obj, asked
    return None


@dataclass(frozen=True)
class Strategy:
    """The ways kinds differ.

    `garbage_collection`, unless a delete says otherwise: "background", "orphan" (kinds older than the collector), or
    "unsupported": nobody owns through them (Events). `delete_warning` is told to who deletes without saying.
    """

    prepare_create: Prepare = nothing
    prepare_update: PrepareUpdate = nothing_on_update
    prepare_status: PrepareUpdate = nothing_on_update
    grace: Grace = no_grace
    create_on_update: bool = False
    unconditional_update: bool = True
    returns_deleted: bool = False
    garbage_collection: str = "background"
    delete_warning: str = ""


def keep(new: Object, old: Mapping[str, Any], field: str) -> None:
    """Makes `new[field]` what it was in `old`, absence included."""
    if field in old:
        new[field] = old[field]
    else:
        new.pop(field, None)


def keep_metadata(new: Object, old: Mapping[str, Any], field: str) -> None:
    keep(new["metadata"], old["metadata"], field)


def bump_generation_if(changed: bool, new: Object, old: Mapping[str, Any]) -> None:
    """metadata.generation counts the desired states: it grows by one exactly when the desired state changed."""
    generation = old["metadata"].get("generation")
    if generation is None and not changed:
        new["metadata"].pop("generation", None)
    else:
        new["metadata"]["generation"] = (generation or 0) + changed
