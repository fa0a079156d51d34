"""What a decision may do to the world, as frozen data, and the one executor that does it.

Reconcilers build actions in `decide()`; the loop performs them in order. Imports registry, recorder and the store's
vocabulary. Invariant: every action is idempotent and carries its precondition (uid, generation or version), so that
performing a stale or repeated one changes nothing. A create that finds its own child, and a delete that finds nothing,
have succeeded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from api.errors import AlreadyExists, ApiError, Conflict, NotFound, Timeout, conflict
from api.kinds import Kind
from api.objects import Object, clone, controller_of, name_of, namespace_of, uid_of
from controller.admission.types import Request
from controller.registry.allocation import take_claim
from controller.registry.recorder import Recorder
from controller.registry.registry import Registry
from controller.registry.types import DeleteOptions
from controller.store import Query
from controller.store.claims import Claim
from controller.store.types import Key

ACTION_SECONDS = 30.0
"""One write may take so long, etcd leader changes included; then its outcome is unknown and the key starts over."""
_WIDEST = 256
"""So many of the actions of one `Together` are in flight at most, enough to fill group commits; it starts with one and
doubles, as replica_set.go's slowStartBatch does, so that a refusal costs few requests."""


@dataclass(frozen=True)
class Note:
    """An event to tell once the action it belongs to has succeeded."""

    regarding: Object
    type: str
    reason: str
    message: str


@dataclass(frozen=True)
class Create:
    """Creates `obj`; an object of that name with the same controlling owner counts as success."""

    kind: Kind
    obj: Object
    note: Note | None = None
    trusted: bool = False
    refused: Note | None = None
    """Told (with the error's text appended) when the create is refused."""


@dataclass(frozen=True)
class Write:
    """Changes an object: `merge` by the rules of JSON merge patch, then every field of `replace` as a whole.

    Preconditions: `uid`; `generation` (the desired state is what the decision saw) and `version` where given.
    """

    kind: Kind
    namespace: str
    name: str
    uid: str
    merge: Object = field(default_factory=dict)
    replace: Object = field(default_factory=dict)
    subresource: str = ""
    generation: int | None = None
    version: str = ""
    note: Note | None = None


@dataclass(frozen=True)
class Delete:
    kind: Kind
    namespace: str
    name: str
    uid: str
    version: str = ""
    grace_seconds: int | None = None
    propagation: str = "Background"
    note: Note | None = None
    refused: Note | None = None


@dataclass(frozen=True)
class Adopt:
    """Makes `reference` the controlling owner of an object that has none; `version` is what the decision saw."""

    kind: Kind
    namespace: str
    name: str
    uid: str
    version: str
    reference: Object


@dataclass(frozen=True)
class Disown:
    """Takes the references to these owners off an object. `unblock` leaves them, but no longer blocking deletion."""

    kind: Kind
    namespace: str
    name: str
    uid: str
    owner_uids: tuple[str, ...]
    unblock: bool = False


@dataclass(frozen=True)
class DropFinalizer:
    kind: Kind
    namespace: str
    name: str
    uid: str
    finalizer: str


@dataclass(frozen=True)
class DeleteAll:
    """Deletes every object of a kind in a namespace."""

    kind: Kind
    namespace: str


@dataclass(frozen=True)
class TakeClaim:
    """Claims for a Service the address or port that it has, while nobody holds that and the Service is as it was."""

    name: str
    service: Object


@dataclass(frozen=True)
class DropClaim:
    """Frees a claim, if it still is the one that was seen."""

    claim: Claim


@dataclass(frozen=True)
class Together:
    """Actions that may happen in any order, and each without the others."""

    actions: tuple[Action, ...]


Change = Write | Adopt | Disown | DropFinalizer
Action = Create | Change | Delete | DeleteAll | TakeClaim | DropClaim | Together | Note


def put_status(kind: Kind, obj: Mapping[str, Any], status: Object) -> Write:
    """Replaces the status of `obj`, if it still is the same object."""
    return Write(kind, namespace_of(obj), name_of(obj), uid_of(obj), replace={"status": status}, subresource="status")


class Executor:
    """Performs actions in the name of one reconciler."""

    def __init__(self, registry: Registry, request: Request, recorder: Recorder, component: str) -> None:
        self._registry = registry
        self._request = request
        self._trusted = replace(request, trusted=True)
        self._recorder = recorder
        self._component = component

    async def perform(self, action: Action) -> int:
        """Does it; the highest version it wrote, 0 if none. Raises ApiError; then later actions must not follow."""
        if isinstance(action, Together):
            return await self._perform_together(action)
        if isinstance(action, Note):
            self._tell(action)
            return 0
        try:
            async with asyncio.timeout(ACTION_SECONDS):
                return await self._perform_one(action)
        except TimeoutError as error:
            raise Timeout(f"no answer from the store within {ACTION_SECONDS:g} s") from error

    async def _perform_together(self, action: Together) -> int:
        """Doubling waves first, then as many as may be in flight, always; no further one after the first error."""
        version, done, width = 0, 0, 1
        while done < len(action.actions) and width < _WIDEST:
            wave = action.actions[done : done + width]
            version = max(version, await self._perform_at_once(wave, len(wave)))
            done += len(wave)
            width *= 2
        return max(version, await self._perform_at_once(action.actions[done:], _WIDEST))

    async def _perform_at_once(self, actions: Sequence[Action], width: int) -> int:
        waiting = iter(actions)
        versions, errors = [0], []

        async def work() -> None:
            for one in waiting:
                try:
                    versions.append(await self.perform(one))
                except ApiError as error:
                    errors.append(error)
                if errors:
                    return

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(width, len(actions))):
                tasks.create_task(work())
        if errors:
            raise errors[0]
        return max(versions)

    async def _perform_one(self, action: Create | Change | Delete | DeleteAll | TakeClaim | DropClaim) -> int:
        if isinstance(action, TakeClaim):
            await take_claim(self._registry.store, action.name, action.service)
            return 0
        if isinstance(action, DropClaim):
            await self._registry.store.claims.drop(action.claim)
            return 0
        if isinstance(action, Create):
            return await self._create(action)
        if isinstance(action, Change):
            return await self._change(action)
        if isinstance(action, Delete):
            return await self._delete(action)
        query, options = Query(namespace=action.namespace), DeleteOptions(propagation="Background")
        await self._registry.delete_collection(self._request, action.kind, query, options)
        return 0

    async def _create(self, action: Create) -> int:
        request = self._trusted if action.trusted else self._request
        namespace = namespace_of(action.obj)
        try:
            record = await self._registry.create(request, action.kind, namespace, clone(action.obj))
        except AlreadyExists as error:
            return self._own_child(action, error)
        except ApiError as error:
            self._tell_refused(action.refused, error)
            raise
        self._tell(action.note)
        return record.version

    def _own_child(self, action: Create, error: AlreadyExists) -> int:
        """An earlier try of ours got through: fine. Somebody else's object: the refusal stands."""
        key = Key(*action.kind.resource, namespace_of(action.obj), name_of(action.obj))
        present, wanted = self._registry.store.get(key), controller_of(action.obj)
        if present is None or wanted is None:
            raise error
        if (controller_of(present.parse()) or {}).get("uid") != wanted["uid"]:
            raise error
        return present.version

    async def _change(self, action: Change) -> int:
        subresource = action.subresource if isinstance(action, Write) else ""
        change = changer_of(action)
        try:
            record = await self._registry.modify(
                self._request, action.kind, action.namespace, action.name, change, subresource=subresource
            )
        except NotFound:
            return 0
        if isinstance(action, Write):
            self._tell(action.note)
        return record.version if record is not None else 0

    async def _delete(self, action: Delete) -> int:
        options = DeleteOptions(
            grace_seconds=action.grace_seconds,
            propagation=action.propagation,
            uid=action.uid,
            resource_version=action.version,
        )
        try:
            deletion = await self._registry.delete(self._request, action.kind, action.namespace, action.name, options)
        except NotFound:
            return 0
        except Conflict:
            if self._replaced(action):
                return 0
            raise
        except ApiError as error:
            self._tell_refused(action.refused, error)
            raise
        self._tell(action.note)
        return deletion.record.version

    def _replaced(self, action: Delete) -> bool:
        """Another object has taken the name: the one that was to be deleted is gone."""
        present = self._registry.store.get(Key(*action.kind.resource, action.namespace, action.name))
        return present is None or uid_of(present.parse()) != action.uid

    def _tell_refused(self, note: Note | None, error: ApiError) -> None:
        if note is not None and not namespace_terminating(error):
            self._tell(replace(note, message=f"{note.message}{error.message}"))

    def _tell(self, note: Note | None) -> None:
        if note is not None:
            self._recorder.event(note.regarding, note.type, note.reason, note.message, component=self._component)


def namespace_terminating(error: ApiError) -> bool:
    """The refusal of a create in a namespace that is being deleted: no failure, the owner is about to go, too."""
    return any(cause.get("reason") == "NamespaceTerminating" for cause in error.details.get("causes") or ())


def changer_of(action: Change) -> Callable[[Object], Object | None]:
    def change(obj: Object) -> Object | None:
        if action.uid and uid_of(obj) != action.uid:
            return None
        if isinstance(action, Write):
            return _written(obj, action)
        if isinstance(action, Adopt):
            return _adopted(obj, action)
        if isinstance(action, Disown):
            return _disowned(obj, action)
        finalizers = obj["metadata"].get("finalizers") or []
        if action.finalizer not in finalizers:
            return None
        obj["metadata"]["finalizers"] = [finalizer for finalizer in finalizers if finalizer != action.finalizer]
        return obj

    return change


def _written(obj: Object, action: Write) -> Object:
    meta = obj["metadata"]
    stale = action.generation is not None and meta.get("generation") != action.generation
    if stale or (action.version and meta.get("resourceVersion") != action.version):
        raise conflict(action.kind.group, action.kind.plural, action.name)
    _merge(obj, action.merge)
    obj.update(clone(action.replace))
    return obj


def _adopted(obj: Object, action: Adopt) -> Object | None:
    owner = controller_of(obj)
    if owner is not None:
        return None
    if obj["metadata"].get("resourceVersion") != action.version:
        raise conflict(action.kind.group, action.kind.plural, action.name)
    obj["metadata"].setdefault("ownerReferences", []).append(dict(action.reference))
    return obj


def _disowned(obj: Object, action: Disown) -> Object | None:
    references = obj["metadata"].get("ownerReferences") or []
    if not any(reference["uid"] in action.owner_uids for reference in references):
        return None
    if action.unblock:
        for reference in references:
            if reference["uid"] in action.owner_uids:
                reference["blockOwnerDeletion"] = False
        return obj
    kept = [reference for reference in references if reference["uid"] not in action.owner_uids]
    if kept:
        obj["metadata"]["ownerReferences"] = kept
    else:
        del obj["metadata"]["ownerReferences"]
    return obj


def _merge(target: Object, patch: Mapping[str, Any]) -> None:
    """JSON merge patch (RFC 7386), in place."""
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        elif isinstance(value, Mapping):
            inner = target.get(name)
            if not isinstance(inner, dict):
                inner = target[name] = {}
            _merge(inner, value)
        else:
            target[name] = value
