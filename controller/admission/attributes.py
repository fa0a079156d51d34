"""What one admission check looks at: the write, the object before and after, and the store to look things up in.

Built by the registry for every write, read by each module of this package. Invariant: `obj` is the one thing that a
check may change (before validation); everything else is read only.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Protocol

from api.errors import Cause, Forbidden, qualified
from api.kinds import Kind
from api.objects import Object, name_of
from api.quick import quick_dataclass
from controller.admission.types import Request
from controller.store import Page
from controller.store.types import Key, Record


class Reader(Protocol):
    """The part of the store that admission reads."""

    def get(self, key: Key) -> Record | None:
        """From the cache; does not block."""
        ...

    def list(self, resource: tuple[str, str]) -> Page:
        """From the cache; does not block."""
        ...

    def count(self, resource: tuple[str, str]) -> int:
        """How many objects `list` would give; costs nothing."""
        ...

    async def read(self, key: Key) -> Record | None:
        """As new as the call. Raises store.Unavailable."""
        ...


class Translator(Protocol):
    """How objects get from one version of their kind to another."""

    async def translate(self, source: Kind, target: Kind, obj: Mapping[str, Any]) -> Object:
        """`obj` (left alone), which is of kind `source`, as `target`. Raises ApiError."""
        ...


class Operation(StrEnum):
    CREATE = "CREATE"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    CONNECT = "CONNECT"


@quick_dataclass(frozen=True, slots=True)
class Attributes:
    """One write. `obj` is None for DELETE, `old` is None for CREATE; `name` may be empty while it is generated."""

    request: Request
    operation: Operation
    kind: Kind
    namespace: str
    name: str
    obj: Object | None = None
    old: Mapping[str, Any] | None = None
    subresource: str = ""
    form: Kind | None = None
    """The kind of `obj` and `old` where a subresource has one of its own (Binding, Scale, PodExecOptions)."""
    whole: Mapping[str, Any] | None = None
    """The object such a subresource belongs to, as far as it was looked up."""
    requested: Kind | None = None
    """The kind of the request, where a webhook or a policy is shown the objects in another version."""

    @property
    def is_pod(self) -> bool:
        return self.kind.plural == "pods" and self.kind.group == ""

    def forbidden(self, why: str, *causes: Cause) -> Forbidden:
        """403 as Kubernetes words it: `pods "x" is forbidden: WHY`."""
        name = self.name or (name_of(self.obj) if self.obj else "") or self._base_name() or "Unknown"
        details: Object = {"name": name, "kind": self.kind.plural}
        if self.kind.group:
            details["group"] = self.kind.group
        if causes:
            details["causes"] = [cause.wire() for cause in causes]
        return Forbidden(f'{qualified(self.kind.group, self.kind.plural)} "{name}" is forbidden: {why}', details)

    def _base_name(self) -> str:
        return str(((self.obj or {}).get("metadata") or {}).get("generateName") or "")
