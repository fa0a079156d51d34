"""The one write path: default, validate, admit, compare-and-set, for every kind and every caller.

Called by server (HTTP), reconcilers and scheduler (in process, same rules); imports admission, the store and `api`.
Every method raises api.errors.ApiError and nothing else. Invariants: no object reaches the store that is not
defaulted, validated and admitted; a write is a compare-and-set on the version that was judged; a write that changes
nothing keeps its resourceVersion and causes no event.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from api.kinds import Kind
from api.objects import Object
from controller.registry.types import DEFAULT_DELETE, DeleteOptions, Deletion, Patch
from controller.store.types import Record

if TYPE_CHECKING:
    from controller.admission.types import Request
    from controller.store import Query, Store


@dataclass(frozen=True)
class RegistrySettings:
    """What differs between installations."""

    default_tolerations: bool = True
    service_account_admission: bool = True


class Registry:
    def __init__(self, store: Store, settings: RegistrySettings | None = None) -> None:
        self.store = store
        self.settings = settings or RegistrySettings()

    async def create(self, request: Request, kind: Kind, namespace: str, obj: Object) -> Record:
        """Creates `obj` (which becomes the registry's own: do not use it afterwards)."""
        raise NotImplementedError

    async def update(
        self, request: Request, kind: Kind, namespace: str, name: str, obj: Object, *, subresource: str = ""
    ) -> tuple[Record, bool]:
        """Replaces an object; (record, created): PUT creates only where Kubernetes allows it."""
        raise NotImplementedError

    async def patch(
        self, request: Request, kind: Kind, namespace: str, name: str, patch: Patch, *, subresource: str = ""
    ) -> tuple[Record, bool]:
        """Applies a patch; (record, created): only server-side apply creates."""
        raise NotImplementedError

    async def delete(
        self, request: Request, kind: Kind, namespace: str, name: str, options: DeleteOptions = DEFAULT_DELETE
    ) -> Deletion:
        raise NotImplementedError

    async def delete_collection(
        self, request: Request, kind: Kind, query: Query, options: DeleteOptions = DEFAULT_DELETE
    ) -> list[Record]:
        """Deletes what the query selects; the states before deletion, as Kubernetes answers them."""
        raise NotImplementedError

    async def modify(
        self,
        request: Request,
        kind: Kind,
        namespace: str,
        name: str,
        change: Callable[[Object], Object | None],
        *,
        subresource: str = "",
    ) -> Record | None:
        """Read, change, compare-and-set, again on a lost race. `change` gets a fresh dict and returns what to write,
        or None for "nothing to do" (then None is returned)."""
        raise NotImplementedError

    async def bind(self, request: Request, namespace: str, name: str, node: str, uid: str = "") -> Record:
        """Binds a pod to a node (pods/binding)."""
        raise NotImplementedError

    async def evict(self, request: Request, namespace: str, name: str, options: DeleteOptions) -> Deletion:
        """Deletes a pod by the eviction API (policy/v1)."""
        raise NotImplementedError

    def scale_of(self, kind: Kind, record: Record) -> Record:
        """The autoscaling/v1 Scale that GET .../scale shows; update and patch of "scale" answer it too."""
        raise NotImplementedError
