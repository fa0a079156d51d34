"""What a decision may do to the world, as frozen data, and the one executor that does it.

Reconcilers build actions in `decide()`; the loop performs them in order. Imports registry, recorder and the store's
vocabulary. Invariant: every action is idempotent and carries its precondition (uid, generation or version), so that
performing a stale or repeated one changes nothing. A create that finds its own child, and a delete that finds nothing,
have succeeded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from api.errors import AlreadyExists, Conflict, NotFound, Timeout, conflict
from api.kinds import Kind
from api.objects import Object, clone, controller_of, metadata, name_of, namespace_of, uid_of
from controller.admission.types import Request
from controller.registry.recorder import Recorder
from controller.registry.registry import Registry
from controller.registry.types import DeleteOptions
from controller.store import Query
from controller.store.types import Key, Record

ACTION_SECONDS = 30.0
"""One write may take so long, etcd leader changes included; then its outcome is unknown and the key starts over."""
_WIDEST = 256
"""So many of the actions of one `Together` are in flight at most; it starts with one and doubles, as
replica_set.go's slowStartBatch does, so that a refusal costs few requests."""


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
class DeleteAll:
    """Deletes every object of a kind in a namespace."""

    kind: Kind
    namespace: str


@dataclass(frozen=True)
class Together:
    """Actions that may happen in any order, and each without the others."""

    actions: tuple[Action, ...]


Action = Create | Write | Delete | DeleteAll | Together | Note


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
        versions, done, width = [0], 0, 1
        while done < len(action.actions):
            chunk = action.actions[done : done + width]
            outcomes = await asyncio.gather(*(self.perform(one) for one in chunk), return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
                versions.append(outcome)
            done += len(chunk)
            width = min(width * 2, _WIDEST)
        return max(versions)

    async def _perform_one(self, action: Create | Write | Delete | DeleteAll) -> int:
        if isinstance(action, Create):
            return await self._create(action)
        if isinstance(action, Write):
            return await self._write(action)
        if isinstance(action, Delete):
            return await self._delete(action)
        await self._registry.delete_collection(self._request, action.kind, Query(namespace=action.namespace))
        return 0

    async def _create(self, action: Create) -> int:
        request = self._trusted if action.trusted else self._request
        namespace = namespace_of(action.obj)
        try:
            record = await self._registry.create(request, action.kind, namespace, clone(action.obj))
        except AlreadyExists as error:
            return self._own_child(action, error)
        except Exception as error:
            if action.refused is not None:
                self._tell(replace(action.refused, message=f"{action.refused.message}{error}"))
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

    async def _write(self, action: Write) -> int:
        try:
            record: Record | None = await self._registry.modify(
                self._request,
                action.kind,
                action.namespace,
                action.name,
                _changed_by(action),
                subresource=action.subresource,
            )
        except NotFound:
            return 0
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
        except Exception as error:
            if action.refused is not None:
                self._tell(replace(action.refused, message=f"{action.refused.message}{error}"))
            raise
        self._tell(action.note)
        return deletion.record.version

    def _replaced(self, action: Delete) -> bool:
        """Another object has taken the name: the one that was to be deleted is gone."""
        present = self._registry.store.get(Key(*action.kind.resource, action.namespace, action.name))
        return present is None or uid_of(present.parse()) != action.uid

    def _tell(self, note: Note | None) -> None:
        if note is not None:
            self._recorder.event(note.regarding, note.type, note.reason, note.message, component=self._component)


def _changed_by(action: Write) -> Callable[[Object], Object | None]:
    def change(obj: Object) -> Object | None:
        meta = metadata(obj)
        if action.uid and meta.get("uid") != action.uid:
            return None
        stale = action.generation is not None and meta.get("generation") != action.generation
        if stale or (action.version and meta.get("resourceVersion") != action.version):
            raise conflict(action.kind.group, action.kind.plural, action.name)
        _merge(obj, action.merge)
        obj.update(clone(action.replace))
        return obj

    return change


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
