"""The paths of OpenAPI v3 documents: which operations a kind answers, with the parameters clients look for.

Called by `openapi` only. kubectl needs, per kind, a PATCH operation that carries x-kubernetes-group-version-kind and
lists `fieldValidation`; client generators need the rest. Source: the published documents of Kubernetes.
"""

from __future__ import annotations

from collections.abc import Callable

from api.kinds import Kind, Subresource
from api.objects import Object

_REF = "#/components/schemas/"
_META = _REF + "io.k8s.apimachinery.pkg.apis.meta.v1."
_STRING: Object = {"type": "string", "uniqueItems": True}
_WHOLE: Object = {"type": "integer", "uniqueItems": True}
_FLAG: Object = {"type": "boolean", "uniqueItems": True}
_PATCH_TYPES = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)
_READABLE = ("application/json", "application/yaml")


def _query(name: str, schema: Object, description: str) -> Object:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _path_parameter(name: str, description: str) -> Object:
    return {"name": name, "in": "path", "required": True, "schema": _STRING, "description": description}


_DRY_RUN = _query("dryRun", _STRING, "`All` checks and answers as usual but keeps nothing.")
_MANAGER = _query("fieldManager", _STRING, "Who is writing: the owner recorded for each changed field.")
_VALIDATION = _query("fieldValidation", _STRING, "What unknown or duplicate fields lead to: Strict, Warn or Ignore.")
_FORCE = _query("force", _FLAG, "Take over fields that another manager owns; for apply patches only.")
_WRITE = [_DRY_RUN, _MANAGER, _VALIDATION]
_DELETE = [
    _DRY_RUN,
    _query("gracePeriodSeconds", _WHOLE, "Seconds until the object is killed; 0 deletes it at once."),
    _query("propagationPolicy", _STRING, "What happens to dependents: Orphan, Background or Foreground."),
    _query("orphanDependents", _FLAG, "Deprecated form of propagationPolicy."),
]
_LIST = [
    _query("labelSelector", _STRING, "Only objects whose labels match."),
    _query("fieldSelector", _STRING, "Only objects whose selectable fields match."),
    _query("limit", _WHOLE, "At most so many objects; the rest follows with continue."),
    _query("continue", _STRING, "Where the previous page ended."),
    _query("resourceVersion", _STRING, "How new the answer has to be."),
    _query("resourceVersionMatch", _STRING, "How resourceVersion is meant: Exact or NotOlderThan."),
    _query("timeoutSeconds", _WHOLE, "How long the request may take."),
    _query("watch", _FLAG, "Stream changes instead of listing."),
    _query("allowWatchBookmarks", _FLAG, "Send bookmark events while watching."),
    _query("sendInitialEvents", _FLAG, "Begin a watch with the present state."),
]
_PRETTY = _query("pretty", _STRING, "Indent the answer.")
_NAMESPACE = _path_parameter("namespace", "The namespace of the object.")


def paths_of(kind: Kind, component: str, list_component: str, reference_to: Callable[[Kind], str]) -> Object:
    """Every path of a kind and its subresources; `reference_to` names (and adds) another kind's component."""
    root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    spot = _Spot(kind, component)
    base = f"{root}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"{root}/{kind.plural}"
    paths: Object = {base: spot.collection(list_component)}
    if kind.namespaced and "list" in kind.verbs:
        everywhere = spot.operation("list", "get", "AllNamespaces", list_component)
        paths[f"{root}/{kind.plural}"] = {"get": everywhere, "parameters": [*_LIST, _PRETTY]}
    if {"get", "update", "patch", "delete"} & set(kind.verbs):
        paths[f"{base}/{{name}}"] = spot.single(tuple(verb for verb in kind.verbs if verb != "create"))
    for subresource in kind.subresources:
        inner = _spot_of(kind, subresource, component, reference_to)
        paths[f"{base}/{{name}}/{subresource.name}"] = inner.single(subresource.verbs)
    return {path: item for path, item in paths.items() if len(item) > 1}


def _spot_of(kind: Kind, subresource: Subresource, component: str, reference_to: Callable[[Kind], str]) -> _Spot:
    suffix = subresource.name.capitalize()
    if not subresource.kind:
        return _Spot(kind, component, suffix)
    group, version = subresource.group or kind.group, subresource.version or kind.version
    other = Kind(group, version, subresource.kind, kind.plural, namespaced=kind.namespaced)
    if subresource.kind.endswith("Options"):
        return _Spot(kind, "", suffix, other)
    return _Spot(kind, reference_to(other), suffix, other)


class _Spot:
    """One place in the URL space and what is read and written there."""

    def __init__(self, kind: Kind, component: str, suffix: str = "", shown: Kind | None = None) -> None:
        self._kind = kind
        self._component = component
        self._suffix = suffix
        self._shown = shown or kind

    def collection(self, list_component: str) -> Object:
        item: Object = {"parameters": self._path_parameters(named=False)}
        verbs = self._kind.verbs
        if "list" in verbs:
            item["get"] = self.operation("list", "get", "", list_component, _LIST)
        if "create" in verbs:
            item["post"] = self.operation("post", "create", "", self._component, _WRITE)
        if "deletecollection" in verbs:
            item["delete"] = self.operation("deletecollection", "deleteCollection", "", "", [*_LIST, *_DELETE])
        return item

    def single(self, verbs: tuple[str, ...]) -> Object:
        item: Object = {"parameters": self._path_parameters(named=True)}
        if "get" in verbs:
            item["get"] = self.operation("get", "read", "", self._component)
        if "create" in verbs:
            item["post"] = self.operation("post", "create", "", self._component, _WRITE)
        if "update" in verbs:
            item["put"] = self.operation("put", "replace", "", self._component, _WRITE)
        if "patch" in verbs:
            item["patch"] = self.operation("patch", "patch", "", self._component, [*_WRITE, _FORCE])
            types = _PATCH_TYPES if self._kind.custom is None else _PATCH_TYPES[:-1]
            content = {media: {"schema": {"$ref": _META + "Patch"}} for media in types}
            item["patch"]["requestBody"] = {"required": True, "content": content}
        if "delete" in verbs:
            item["delete"] = self.operation("delete", "delete", "", "", _DELETE)
            options = {"*/*": {"schema": {"$ref": _META + "DeleteOptions"}}}
            item["delete"]["requestBody"] = {"content": options}
        return item

    def operation(
        self, action: str, verb: str, scope: str, component: str, parameters: list[Object] | None = None
    ) -> Object:
        """One operation; `component` "" means that it answers with a Status or with bytes."""
        kind, shown = self._kind, self._shown
        group = (kind.group.partition(".")[0] or "core").capitalize()
        middle = "Namespaced" if kind.namespaced and not scope else ""
        name = f"{verb}{group}{kind.version.capitalize()}{middle}{kind.kind}{self._suffix}{scope}"
        answer = {"schema": {"$ref": _REF + component if component else _META + "Status"}}
        content = dict.fromkeys(_READABLE, answer)
        operation: Object = {
            "operationId": name,
            "tags": [f"{group.lower()}_{kind.version}"],
            "description": f"{verb} {kind.plural}{'/' + self._suffix.lower() if self._suffix else ''}",
            "responses": {
                "200": {"description": "OK", "content": content},
                "401": {"description": "Unauthorized"},
            },
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": shown.group, "kind": shown.kind, "version": shown.version},
        }
        if action in ("post", "put", "patch"):
            operation["responses"]["201"] = {"description": "Created", "content": content}
        if action in ("post", "delete"):
            operation["responses"]["202"] = {"description": "Accepted", "content": content}
        if parameters:
            operation["parameters"] = parameters
        if action in ("post", "put") and component:
            body = {"*/*": {"schema": {"$ref": _REF + component}}}
            operation["requestBody"] = {"required": True, "content": body}
        return operation

    def _path_parameters(self, *, named: bool) -> list[Object]:
        parameters = [_PRETTY]
        if self._kind.namespaced:
            parameters.insert(0, _NAMESPACE)
        if named:
            parameters.insert(0, _path_parameter("name", f"The name of the {self._kind.kind}."))
        return parameters
