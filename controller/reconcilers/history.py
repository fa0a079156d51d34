"""ControllerRevisions: the templates a StatefulSet or DaemonSet has had, by which `kubectl rollout undo` goes back.

Called by the decisions of both, first of all (`unsettled`). Pure. Invariant: numbers only rise, and the template in
force has the highest; a template that comes back keeps its revision and gets a new number. A revision's data, hash and
name are those of Kubernetes' StatefulSets (k8s.io/kubernetes pkg/controller/history), so that a cluster that is taken
over rolls nothing anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from api import kinds
from api.kinds import Kind
from api.objects import (
    Object,
    annotations_of,
    controller_of,
    is_deleting,
    labels_of,
    metadata,
    name_of,
    namespace_of,
    uid_of,
)
from api.selectors import from_object
from controller.reconcilers.actions import Action, Adopt, Create, Delete, Write, put_status
from controller.reconcilers.loop import Decision
from controller.reconcilers.names import spelled
from controller.reconcilers.views import seconds_of
from controller.reconcilers.workloads import owner_reference

CONTROLLER_REVISIONS = kinds.by_resource("apps", "controllerrevisions")
_LONGEST_OWNER = 223
_FNV_OFFSET, _FNV_PRIME = 0x811C9DC5, 0x01000193
_ESCAPED = {text: b"\\u%04x" % ord(text) for text in "&<>\u2028\u2029"}
"""What Go's JSON encoder escapes and others do not."""


@dataclass(frozen=True)
class Revision:
    """A ControllerRevision as a decision reads it; `template` is the pod template it holds."""

    obj: Object
    name: str
    number: int
    template: Mapping[str, Any]

    @property
    def place(self) -> tuple[int, float, str]:
        """Revisions sort by this, oldest first."""
        return self.number, seconds_of(metadata(self.obj).get("creationTimestamp")), self.name


def revisions_of(owner: Mapping[str, Any], objects: Iterable[Object]) -> tuple[Revision, ...]:
    """The revisions the owner controls, oldest first."""
    selector, uid = from_object(owner["spec"]["selector"]), uid_of(owner)
    own = (one for one in objects if (controller_of(one) or {}).get("uid") == uid and not is_deleting(one))
    views = (_view(one) for one in own if selector.matches(labels_of(one)))
    return tuple(sorted(views, key=lambda revision: revision.place))


def _view(obj: Object) -> Revision:
    template = ((obj.get("data") or {}).get("spec") or {}).get("template") or {}
    kept = {key: value for key, value in template.items() if key != "$patch"}
    return Revision(obj, name_of(obj), int(obj.get("revision") or 0), kept)


def adoptions(owner: Mapping[str, Any], objects: Iterable[Object]) -> Iterable[Adopt]:
    """Matching revisions that nobody controls become the owner's."""
    selector = from_object(owner["spec"]["selector"])
    for obj in objects:
        if controller_of(obj) is None and not is_deleting(obj) and selector.matches(labels_of(obj)):
            where = (CONTROLLER_REVISIONS, namespace_of(obj), name_of(obj), uid_of(obj))
            yield Adopt(*where, metadata(obj).get("resourceVersion") or "", owner_reference(owner))


def find_current(template: Mapping[str, Any], revisions: Sequence[Revision]) -> Revision | None:
    """The newest revision with this template."""
    return next((one for one in reversed(revisions) if one.template == template), None)


def unsettled(
    kind: Kind, owner: Object, revisions: Sequence[Revision], hash_label: str, *, occupied: bool
) -> Decision | None:
    """What makes the revision of the owner's template the one with the highest number; None if it is.

    `occupied`: the name of a new one is somebody else's. Then status.collisionCount rises, and the next has another.
    """
    found = find_current(owner["spec"]["template"], revisions)
    if found is not None:
        numbered = renumbering(found, revisions)
        return None if numbered is None else Decision((numbered,))
    if not occupied:
        return Decision((creation(owner, revisions, hash_label),))
    counted = {**(owner.get("status") or {}), "collisionCount": collisions_of(owner) + 1}
    return Decision(status=put_status(kind, owner, counted))


def renumbering(found: Revision, revisions: Sequence[Revision]) -> Write | None:
    """Makes the revision in force the one with the highest number; None if it is."""
    if revisions[-1].template == found.template:
        return None
    where = (CONTROLLER_REVISIONS, namespace_of(found.obj), found.name, uid_of(found.obj))
    version = metadata(found.obj).get("resourceVersion") or ""
    return Write(*where, merge={"revision": revisions[-1].number + 1}, version=version)


def creation(owner: Mapping[str, Any], revisions: Sequence[Revision], hash_label: str) -> Create:
    """The revision of the owner's present template, labelled with its hash under `hash_label`."""
    template = owner["spec"]["template"]
    meta: Object = {
        "name": planned_name(owner),
        "namespace": namespace_of(owner),
        "labels": {**((template.get("metadata") or {}).get("labels") or {}), hash_label: _hash(owner)},
        "annotations": dict(annotations_of(owner)),
        "ownerReferences": [owner_reference(owner)],
    }
    number = revisions[-1].number + 1 if revisions else 1
    revision = {"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": meta, "revision": number}
    return Create(CONTROLLER_REVISIONS, {**revision, "data": _data(template)})


def planned_name(owner: Mapping[str, Any]) -> str:
    """The name of the revision that the owner's present template asks for."""
    return f"{name_of(owner)[:_LONGEST_OWNER]}-{_hash(owner)}"


def beyond_history(revisions: Sequence[Revision], live: Collection[str], limit: int | None) -> Iterable[Action]:
    """Deletes the oldest revisions past spec.revisionHistoryLimit; those whose names are `live` do not count."""
    past = [one for one in revisions if one.name not in live]
    if limit is None or limit < 0:
        return
    for one in past[: max(0, len(past) - limit)]:
        version = metadata(one.obj).get("resourceVersion") or ""
        yield Delete(CONTROLLER_REVISIONS, namespace_of(one.obj), one.name, uid_of(one.obj), version)


def collisions_of(owner: Mapping[str, Any]) -> int:
    return int((owner.get("status") or {}).get("collisionCount") or 0)


def _data(template: Mapping[str, Any]) -> Object:
    """A strategic merge patch that brings the template back, in Go's order of keys: clients compare the bytes."""
    patch: Object = orjson.loads(_patch(template))
    return patch


def _patch(template: Mapping[str, Any]) -> bytes:
    return orjson.dumps({"spec": {"template": {**template, "$patch": "replace"}}}, option=orjson.OPT_SORT_KEYS)


def _hash(owner: Mapping[str, Any]) -> str:
    """FNV-1 of the data as Go writes it, with the collision count behind it."""
    text = _patch(owner["spec"]["template"])
    for plain, escaped in _ESCAPED.items():
        text = text.replace(plain.encode(), escaped)
    number = _FNV_OFFSET
    for byte in text + b"%d" % collisions_of(owner):
        number = (number * _FNV_PRIME & 0xFFFFFFFF) ^ byte
    return spelled(str(number))
