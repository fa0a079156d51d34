"""Which handler answers which verb on which resource.

Called by app.py for every request; a table made once from the table of kinds. Invariant: a verb that discovery does not
show has no handler.
"""

from __future__ import annotations

from api.kinds import KINDS, Kind, Subresource
from controller.server import connect, read, reviews, token_request, usage, watch, write
from controller.server.target import Target
from controller.server.write import Handler

LONG_RUNNING = frozenset(("log", "exec", "attach", "portforward", "proxy"))
"""Subresources that may stay open; so may watches."""
CONNECT_AS_CREATE = frozenset(("exec", "attach", "portforward"))
"""Opening one is a create, however it is asked (KEP: authorizing websocket upgrades)."""
ONLY_ANSWERS = frozenset(("binding", "eviction", "token"))
"""What is posted there is answered and never listed, so it has no columns."""

_OBJECTS: dict[str, Handler] = {
    "get": read.get_object,
    "list": read.list_objects,
    "watch": watch.watch_objects,
    "create": write.create_object,
    "update": write.update_object,
    "patch": write.patch_object,
    "delete": write.delete_object,
    "deletecollection": write.delete_collection,
}
_PROXY: dict[str, Handler] = dict.fromkeys(("get", "create", "update", "patch", "delete"), connect.proxy)
_CONNECT: dict[str, Handler] = dict.fromkeys(("get", "create"), connect.stream)
_PART: dict[str, Handler] = {"get": read.get_object, "update": write.update_object, "patch": write.patch_object}
_SUBRESOURCES: dict[str, dict[str, Handler]] = {
    "status": _PART,
    "scale": {**_PART, "get": read.get_scale},
    "ephemeralcontainers": _PART,
    "resize": _PART,
    "approval": _PART,
    "finalize": {"update": write.update_object},
    "binding": {"create": write.create_binding},
    "eviction": {"create": write.create_eviction},
    "token": {"create": token_request.create_token},
    "log": {"get": connect.logs},
    "exec": _CONNECT,
    "attach": _CONNECT,
    "portforward": _CONNECT,
    "proxy": _PROXY,
}
_CREATED: dict[tuple[str, str], Handler] = {
    ("", "Binding"): write.create_binding,
    ("authentication.k8s.io", "TokenReview"): reviews.review_token,
    ("authentication.k8s.io", "SelfSubjectReview"): reviews.review_self,
    ("authorization.k8s.io", "SubjectAccessReview"): reviews.review_access,
    ("authorization.k8s.io", "LocalSubjectAccessReview"): reviews.review_local_access,
    ("authorization.k8s.io", "SelfSubjectAccessReview"): reviews.review_own_access,
    ("authorization.k8s.io", "SelfSubjectRulesReview"): reviews.review_own_rules,
}


_MADE: dict[tuple[str, str], Handler] = {
    ("metrics.k8s.io", "NodeMetrics"): usage.usage_of_nodes,
    ("metrics.k8s.io", "PodMetrics"): usage.usage_of_pods,
}
"""Kinds that are made when they are asked for."""


def _table() -> dict[tuple[Kind, str, str], Handler]:
    found: dict[tuple[Kind, str, str], Handler] = {}
    for kind in KINDS:
        for verb in kind.verbs:
            if not kind.stored:
                found[kind, "", verb] = _MADE[kind.group, kind.kind]
                continue
            found[kind, "", verb] = _CREATED.get((kind.group, kind.kind), _OBJECTS[verb])
        for sub in kind.subresources:
            for verb in sub.verbs:
                found[kind, sub.name, verb] = _SUBRESOURCES[sub.name][verb]
    return found


_HANDLERS = {(id(kind), sub, verb): handler for (kind, sub, verb), handler in _table().items()}
"""By identity: hashing a Kind's fields costs more than the rest of the dispatch."""


def find(target: Target, verb: str) -> Handler | None:
    """The handler, None when nothing answers this verb here."""
    if verb == "create" and target.name and not target.subresource:
        return None
    if verb == "watch" and target.name:
        return watch.watch_objects if not target.subresource and _watchable(target.kind) else None
    if verb in ("update", "patch") and not target.name:
        return None
    if target.rest and target.subresource != "proxy":
        return None
    if not target.namespace and verb not in ("list", "watch") and target.kind is not None and target.kind.namespaced:
        return None  # across all namespaces one can only look
    if not verb and target.subresource == "proxy":
        verb = "get"  # OPTIONS: a proxy passes every method on
    kind = target.kind
    if kind is not None and kind.custom is not None:
        return _custom_handler(kind, target.subresource, verb)
    return _HANDLERS.get((id(kind), target.subresource, verb))


def _watchable(kind: Kind | None) -> bool:
    return kind is not None and "watch" in kind.verbs


def _custom_handler(kind: Kind, subresource: str, verb: str) -> Handler | None:
    """Custom kinds come and go: they have no rows in the table."""
    if not subresource:
        return _OBJECTS.get(verb) if verb in kind.verbs else None
    found: Subresource | None = next((sub for sub in kind.subresources if sub.name == subresource), None)
    return _SUBRESOURCES[subresource].get(verb) if found is not None and verb in found.verbs else None


def exists(target: Target) -> bool:
    """Whether any verb is answered at this path."""
    kind = target.kind
    if kind is None or (target.rest and target.subresource != "proxy"):
        return False
    return not target.subresource or any(sub.name == target.subresource for sub in kind.subresources)
