"""What goes in and out of the registry besides objects: patches, delete options, deletions.

Called by server, reconcilers and scheduler; imports only `api` and the store's vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from api.errors import BadRequest
from api.kinds import Kind
from api.objects import Object
from api.quick import quick_dataclass
from controller.store.types import Key, Record


@quick_dataclass(frozen=True, slots=True)
class Target:
    """What a request is about. `name` is empty while a create has not named its object yet."""

    kind: Kind
    namespace: str
    name: str = ""
    subresource: str = ""

    @property
    def key(self) -> Key:
        return Key(*self.kind.resource, self.namespace, self.name)


class PatchType(StrEnum):
    """The content types of PATCH."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class Patch:
    """A PATCH body as it came; the registry decodes it."""

    type: PatchType
    body: bytes


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """meta/v1 DeleteOptions. `grace_seconds` None means the kind's default (for pods: their own grace period)."""

    grace_seconds: int | None = None
    propagation: str = ""
    """"", "Background", "Foreground" or "Orphan"."""
    orphan_dependents: bool | None = None
    uid: str = ""
    """Precondition: delete only the object with this uid."""
    resource_version: str = ""
    """Precondition: delete only this version."""
    ignore_store_read_error: bool = False

    @staticmethod
    def from_object(obj: Mapping[str, Any]) -> DeleteOptions:
        """Reads a decoded DeleteOptions body (or {}). dryRun belongs to the Request. Raises BadRequest."""
        preconditions = obj.get("preconditions") or {}
        grace = obj.get("gracePeriodSeconds")
        if grace is not None and (not isinstance(grace, int) or isinstance(grace, bool)):
            raise BadRequest(f"gracePeriodSeconds must be a whole number, not {grace!r}")
        return DeleteOptions(
            grace_seconds=grace,
            propagation=obj.get("propagationPolicy") or "",
            orphan_dependents=obj.get("orphanDependents"),
            uid=preconditions.get("uid") or "",
            resource_version=preconditions.get("resourceVersion") or "",
        )


DEFAULT_DELETE = DeleteOptions()


@dataclass(frozen=True, slots=True)
class Deletion:
    """What a delete did. `gone`: the object is no longer stored (or, in a dry run, would not be).

    `status` is the Success Status that Kubernetes answers for most kinds; None means answer with `record`.
    """

    record: Record
    status: Object | None
    gone: bool
