"""The strategy most kinds share: a spec that people write, a status that a controller writes, a generation between.

Called by the table of strategies and its modules. Pure. What differs per kind is in its strategy.go below
k8s.io/kubernetes/pkg/registry.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.objects import Object, clone
from controller.registry.strategies.base import Prepare, PrepareUpdate, Strategy, bump_generation_if, keep


def start(status: Object | None, *, generation: bool = True) -> Prepare:
    """A new object begins with this status (None: the kind has none) and, where it is counted, generation 1."""

    def prepare(obj: Object) -> None:
        if generation:
            obj["metadata"]["generation"] = 1
        if status is not None:
            obj["status"] = clone(status)

    return prepare


def keep_status_and_count(*counted: str) -> PrepareUpdate:
    """An update leaves the status alone; the generation counts changes of these fields."""

    def prepare(new: Object, old: Mapping[str, Any]) -> None:
        keep(new, old, "status")
        if counted:
            bump_generation_if(any(new.get(field) != old.get(field) for field in counted), new, old)

    return prepare


def keep_spec(new: Object, old: Mapping[str, Any]) -> None:
    """A status write leaves the spec alone."""
    keep(new, old, "spec")


def spec_and_status(status: Object | None, *, counted: tuple[str, ...] = ("spec",)) -> Strategy:
    """`status`: what a new object starts with. `counted`: the fields whose changes the generation counts, () for none.

    The flags of Strategy are set with `dataclasses.replace`.
    """
    return Strategy(
        prepare_create=start(status, generation=bool(counted)),
        prepare_update=keep_status_and_count(*counted),
        prepare_status=keep_spec,
    )
