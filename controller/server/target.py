"""What a request is about: its path and method read as Kubernetes reads them (RequestInfo).

Called for every request by app.py; pure and cheap (a split, no regular expressions). Invariant: authorization sees
exactly the resource, subresource, namespace and name that the handler acts on, because both read one `Target`.
Rules: k8s.io/apiserver/pkg/endpoints/request/requestinfo.go.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from api.kinds import Kind, by_path, when_changed

_OBJECT_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_COLLECTION_VERBS = {**_OBJECT_VERBS, "GET": "list", "HEAD": "list", "DELETE": "deletecollection"}
_NAMESPACE_SUBRESOURCES = ("status", "finalize")


class Target(NamedTuple):
    """A path below a group version. `kind` None: nothing is served there (404, once authorized)."""

    group: str
    version: str
    resource: str
    namespace: str
    name: str
    subresource: str
    rest: str
    """What follows the subresource, for proxies, with its leading slash."""
    kind: Kind | None
    watch: bool = False
    """The deprecated /watch/ path prefix."""


def parse_target(path: str) -> Target | None:
    """Reads /api/v1/... or /apis/GROUP/VERSION/... down to a resource; None for every other path.

    `path` is the raw path without its query. Percent-encoding is undone segment by segment.
    """
    return _remembered(path) if len(path) <= _LONGEST_REMEMBERED else _parse(path)


def _parse(path: str) -> Target | None:
    parts = path.split("/")
    if parts[-1] == "" and len(parts) > 2:
        parts.pop()
    if "%" in path:
        parts = [unquote(part) for part in parts]
    if len(parts) >= 4 and parts[1] == "api":
        return _below("", parts[2], parts[3:])
    if len(parts) >= 5 and parts[1] == "apis":
        return _below(parts[2], parts[3], parts[4:])
    return None


_remembered = lru_cache(maxsize=4096)(_parse)
"""Clients ask for few paths again and again. Emptied when the table of kinds changes."""
_LONGEST_REMEMBERED = 256
when_changed(_remembered.cache_clear)


def _below(group: str, version: str, parts: list[str]) -> Target:
    watch = parts[0] == "watch" and len(parts) > 1
    if watch:
        parts = parts[1:]
    if parts[0] != "namespaces" or len(parts) == 1:
        return _resource(group, version, "", parts, watch)
    if len(parts) == 2 or (len(parts) == 3 and parts[2] in _NAMESPACE_SUBRESOURCES):
        return _resource(group, version, "", parts, watch)
    return _resource(group, version, parts[1], parts[2:], watch)


def _resource(group: str, version: str, namespace: str, parts: list[str], watch: bool) -> Target:
    count = len(parts)
    resource = parts[0]
    name = parts[1] if count > 1 else ""
    subresource = parts[2] if count > 2 else ""
    rest = "/" + "/".join(parts[3:]) if count > 3 else ""
    kind = by_path(group, version, resource)
    if kind is not None and not _fits(kind, namespace, name):
        kind = None
    if resource == "namespaces" and group == "" and name and not namespace:
        namespace = name
    return Target(group, version, resource, namespace, name, subresource, rest, kind, watch)


def _fits(kind: Kind, namespace: str, name: str) -> bool:
    """Objects of namespaced kinds live below a namespace (their lists also across all), others never do."""
    if kind.namespaced:
        return bool(namespace) or not name
    return not namespace


def verb_of(method: str, target: Target) -> str:
    """The request's verb; lists that watch are told apart by the caller, who reads the query. "" if none fits."""
    if target.name:
        return _OBJECT_VERBS.get(method, "")
    return _COLLECTION_VERBS.get(method, "")
