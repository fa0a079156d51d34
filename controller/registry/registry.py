"""The one write path: default, validate, admit, compare-and-set, for every kind and every caller.

Called by server (HTTP), reconcilers and scheduler (in process, same rules); imports admission, the store and `api`.
Every method raises api.errors.ApiError and nothing else. Invariants: no object reaches the store that is not
defaulted, validated and admitted; a write is a compare-and-set on the version that was judged; a write that changes
nothing keeps its resourceVersion and causes no event.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from api.kinds import Kind
from api.objects import Object
from controller.admission.attributes import Attributes
from controller.admission.chain import Chain, Check
from controller.admission.dynamic.hooks import Caller
from controller.admission.types import Request
from controller.registry import deletion, eviction, pods, scale, update
from controller.registry.allocation import Allocator
from controller.registry.conversion import Converter
from controller.registry.create import create
from controller.registry.ground import Ground
from controller.registry.intake import take_in
from controller.registry.known_specs import KnownSpecs
from controller.registry.ledger import Ledger
from controller.registry.patching import patch_object
from controller.registry.ranges import DEFAULT_RANGES, ServiceRanges
from controller.registry.shown_events import shown_events
from controller.registry.types import DEFAULT_DELETE, DeleteOptions, Deletion, Patch, Target
from controller.registry.views import Translations, outward, outward_all
from controller.store import Query, Store
from controller.store.types import Event, Record

_SCALE = "scale"
Witness = Callable[[Request, str, Target], None]


@dataclass(frozen=True)
class RegistrySettings:
    """What differs between installations: further admission checks (the server's RBAC escalation check), and where
    Services get addresses and node ports from."""

    checks: tuple[Check, ...] = ()
    caller: Caller | None = None
    """Who delivers reviews to webhooks."""
    ranges: ServiceRanges = DEFAULT_RANGES


DEFAULT_SETTINGS = RegistrySettings()


class Registry:
    """Reads go to `store`; every write goes through here."""

    def __init__(self, store: Store, settings: RegistrySettings = DEFAULT_SETTINGS) -> None:
        self.store = store
        self.ranges = settings.ranges
        self.witness: Witness | None = None
        """Told of what the leader's loops wrote: the server's audit log, which sees requests only."""
        allocator = Allocator(store, settings.ranges)
        converter = Converter(settings.caller)
        chain = Chain(store, settings.checks, settings.caller, Translations(converter))
        self._ground = Ground(store, chain, KnownSpecs(), Ledger(store), allocator, converter)

    def _tell(self, request: Request, verb: str, target: Target) -> None:
        """Only the leader's own requests have guards; all others are seen by the server."""
        if request.guards and self.witness is not None and not request.dry_run:
            self.witness(request, verb, target)

    async def create(self, request: Request, kind: Kind, namespace: str, obj: Object) -> Record:
        """Creates `obj` (which becomes the registry's own: do not use it afterwards)."""
        record = await create(self._ground, request, Target(kind, namespace), obj)
        self._tell(request, "create", Target(kind, namespace, record.key.name))
        return record

    async def update(
        self, request: Request, kind: Kind, namespace: str, name: str, obj: Object, *, subresource: str = ""
    ) -> tuple[Record, bool]:
        """Replaces an object; (record, created): PUT creates only where Kubernetes allows it.

        `subresource`: "", status, scale (both sides a Scale), ephemeralcontainers, finalize.
        """
        target = Target(kind, namespace, name, subresource)
        if subresource == _SCALE:
            written = await scale.replace_scale(self._ground, request, target, obj), False
        else:
            written = await update.replace_object(self._ground, request, target, obj)
        self._tell(request, "update", target)
        return written

    async def patch(
        self, request: Request, kind: Kind, namespace: str, name: str, patch: Patch, *, subresource: str = ""
    ) -> tuple[Record, bool]:
        """Applies a patch; (record, created): only server-side apply creates."""
        target = Target(kind, namespace, name, subresource)
        if subresource == _SCALE:
            written = await scale.patch_scale(self._ground, request, target, patch), False
        else:
            written = await patch_object(self._ground, request, target, patch)
        self._tell(request, "patch", target)
        return written

    async def delete(
        self, request: Request, kind: Kind, namespace: str, name: str, options: DeleteOptions = DEFAULT_DELETE
    ) -> Deletion:
        """Deletes an object, or starts its deletion when finalizers or a grace period keep it."""
        deleted = await deletion.delete(self._ground, request, Target(kind, namespace, name), options)
        self._tell(request, "delete", Target(kind, namespace, name))
        return deleted

    async def delete_collection(
        self, request: Request, kind: Kind, query: Query, options: DeleteOptions = DEFAULT_DELETE
    ) -> list[Record]:
        """Deletes what the query selects; the states before deletion, as Kubernetes answers them."""
        deleted = await deletion.delete_collection(self._ground, request, kind, query, options)
        self._tell(request, "deletecollection", Target(kind, query.namespace))
        return deleted

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
        """Read, change, compare-and-set, again on a lost race; the version that was read is always the expected one.

        `change` gets a fresh dict, may change and return it, or returns None for "nothing to do" (and so does modify).
        """

        def wanted(current: Object) -> Object | None:
            changed = change(current)
            return changed if changed is None or request.trusted else take_in(request, kind, changed)

        target = Target(kind, namespace, name, subresource)
        record = await update.change(self._ground, request, target, wanted)
        if record is not None:
            self._tell(request, "update", target)
        return record

    async def bind(self, request: Request, namespace: str, name: str, node: str, uid: str = "") -> Record:
        """Binds a pod to a node. Raises Conflict when it is bound, being deleted, or another pod than `uid`."""
        metadata = {"name": name, "namespace": namespace, **({"uid": uid} if uid else {})}
        target = {"kind": "Node", "name": node}
        binding = {"kind": "Binding", "apiVersion": "v1", "metadata": metadata, "target": target}
        return await self.bind_as(request, namespace, name, binding)

    async def bind_as(self, request: Request, namespace: str, name: str, binding: Object) -> Record:
        """POST pods/NAME/binding (or /bindings) with a core/v1 Binding; Kubernetes answers a Success Status, 201."""
        target = Target(pods.PODS, namespace, name, "binding")
        bound = await pods.bind(self._ground, request, target, binding)
        self._tell(request, "create", target)
        return bound

    async def evict_as(self, request: Request, namespace: str, name: str, obj: Object) -> Deletion:
        """POST pods/NAME/eviction with a policy/v1 Eviction; Kubernetes answers a Success Status, 201."""
        target = Target(pods.PODS, namespace, name, "eviction")
        evicted = await eviction.evict(self._ground, request, target, obj)
        self._tell(request, "create", target)
        return evicted

    async def admit(self, attributes: Attributes) -> None:
        """Shows admission what is no write of a stored object: a token request, a connection. Raises ApiError."""
        await self._ground.admit(attributes)

    async def approve(self, attributes: Attributes) -> None:
        """The second step: policies and validating webhooks. Raises ApiError."""
        await self._ground.approve(attributes)

    async def shown(self, kind: Kind, record: Record) -> Record:
        """A record read from the store as `kind` shows it (see `views`)."""
        return await outward(self._ground.converter, kind, record)

    async def shown_all(self, kind: Kind, records: list[Record]) -> list[Record]:
        """As `shown`, all converted together."""
        return await outward_all(self._ground.converter, kind, records)

    async def shown_events(self, kind: Kind, events: list[Event], query: Query | None) -> list[Event]:
        """Events of the store as `kind` shows them; `query`: what `views.stored_query` left to judge."""
        return await shown_events(self._ground.converter, kind, events, query)

    async def scale_of(self, kind: Kind, record: Record) -> Record:
        """The autoscaling/v1 Scale that GET .../scale shows; update and patch of "scale" answer it too."""
        return scale.scale_record(kind, await outward(self._ground.converter, kind, record))
