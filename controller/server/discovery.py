"""What is served here: /api and /apis, in the old form (a document a group version) and in the aggregated one.

Called by app.py for paths above resources; kubectl asks before everything else. Documents are made from the table of
kinds. Invariant: the ETag changes exactly when the content does.
Rules: https://kubernetes.io/docs/concepts/overview/kubernetes-api/#discovery-api.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from api.kinds import KINDS, Kind, Subresource, by_resource, cached_by_table, served_kinds
from api.objects import Object
from controller.server.negotiation import Discovery, Form, negotiate_discovery
from controller.server.reply import Reply, encode

AGGREGATED_GROUP = "apidiscovery.k8s.io"
_STATIC_PATHS = (
    "/.well-known/openid-configuration",
    "/healthz",
    "/healthz/etcd",
    "/healthz/ping",
    "/livez",
    "/livez/etcd",
    "/livez/ping",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3",
    "/openapi/v3/",
    "/openid/v1/jwks",
    "/readyz",
    "/readyz/etcd",
    "/readyz/etcd-reserve",
    "/readyz/ping",
    "/readyz/shutdown",
    "/version",
)


@dataclass(frozen=True)
class GroupVersion:
    group: str
    version: str

    @property
    def text(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


def group_versions(kinds: Iterable[Kind] = KINDS) -> dict[GroupVersion, list[Kind]]:
    """Kinds by group version, each list by plural."""
    found: dict[GroupVersion, list[Kind]] = {}
    for kind in kinds:
        found.setdefault(GroupVersion(kind.group, kind.version), []).append(kind)
    return {where: sorted(members, key=lambda kind: kind.plural) for where, members in found.items()}


@cached_by_table
def served() -> dict[GroupVersion, list[Kind]]:
    return group_versions(served_kinds())


@cached_by_table
def served_groups() -> dict[str, list[GroupVersion]]:
    """Named groups and their versions, in the order of the table."""
    groups: dict[str, list[GroupVersion]] = {}
    for where in served():
        if where.group:
            groups.setdefault(where.group, []).append(where)
    return groups


def discover(path: str, accept: str, if_none_match: str, address: str) -> Reply | None:
    """The reply to a discovery path, None if it is none. Raises NotAcceptable."""
    parts = [part for part in path.split("/") if part]
    if path in ("/api", "/api/", "/apis", "/apis/"):
        form = negotiate_discovery(accept)
        if isinstance(form, Discovery):
            return _tagged(_aggregated(parts[0], form.version), form.content_type, if_none_match)
        document = _versions(address) if parts[0] == "api" else _group_list()
        return _tagged(_encoded(document, form), form.content_type, if_none_match)
    document_below = _below(parts, address)
    if document_below is None:
        return None
    form = negotiate_discovery(accept)
    plain = form if isinstance(form, Form) else Form()
    return _tagged(_encoded(document_below, plain), plain.content_type, if_none_match)


def _below(parts: list[str], address: str) -> Object | None:
    del address
    match parts:
        case ["api", version] if GroupVersion("", version) in served():
            return _resource_list(GroupVersion("", version))
        case ["apis", group] if group in served_groups():
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(group)}
        case ["apis", group, version] if GroupVersion(group, version) in served():
            return {"apiVersion": "v1", **_resource_list(GroupVersion(group, version))}
    return None


def root_paths() -> Object:
    """GET /."""
    paths = {"/api", "/apis", "/apis/", *_STATIC_PATHS}
    for where in served():
        paths.add(f"/apis/{where.text}" if where.group else f"/api/{where.version}")
        if where.group:
            paths.add(f"/apis/{where.group}")
    return {"paths": sorted(paths)}


def _encoded(document: Object, form: Form) -> bytes:
    return encode(document, form)


def _tagged(body: bytes, content_type: str, if_none_match: str) -> Reply:
    tag = f'"{hashlib.sha256(body).hexdigest().upper()}"'
    headers = (("ETag", tag), ("Vary", "Accept"))
    if tag in if_none_match:
        return Reply(304, b"", content_type, headers)
    return Reply(200, body, content_type, headers)


def _versions(address: str) -> Object:
    return {
        "kind": "APIVersions",
        "versions": [where.version for where in served() if not where.group],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def _group_list() -> Object:
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(group) for group in served_groups()]}


def _group(group: str) -> Object:
    versions = [{"groupVersion": where.text, "version": where.version} for where in served_groups()[group]]
    return {"name": group, "versions": versions, "preferredVersion": versions[0]}


def _resource_list(where: GroupVersion) -> Object:
    resources = []
    for kind in served()[where]:
        resources.append(_resource(kind))
        resources += [_subresource(kind, sub) for sub in kind.subresources]
    return {"kind": "APIResourceList", "groupVersion": where.text, "resources": resources}


def _resource(kind: Kind) -> Object:
    resource: Object = {
        "name": kind.plural,
        "singularName": kind.singular or kind.kind.lower(),
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        resource["shortNames"] = list(kind.short_names)
    if kind.categories:
        resource["categories"] = list(kind.categories)
    if "get" in kind.verbs and kind.stored:
        resource["storageVersionHash"] = storage_hash(kind)
    return resource


def _subresource(kind: Kind, sub: Subresource) -> Object:
    resource: Object = {
        "name": f"{kind.plural}/{sub.name}",
        "singularName": "",
        "namespaced": kind.namespaced,
        "kind": sub.kind or kind.kind,
        "verbs": list(sub.verbs),
    }
    if sub.group:
        resource["group"] = sub.group
    if sub.version:
        resource["version"] = sub.version
    return resource


def storage_hash(kind: Kind) -> str:
    """Kubernetes' StorageVersionHash: 8 bytes of the SHA-256 of how objects are stored."""
    stored = by_resource(*kind.resource)
    digest = hashlib.sha256(f"{stored.group}/{stored.version}/{stored.kind}".encode()).digest()
    return base64.b64encode(digest[:8]).decode()


@cached_by_table
def _aggregated(root: str, version: str) -> bytes:
    if root == "api":
        wanted = {"": [where for where in served() if not where.group]}
    else:
        wanted = served_groups()
    items = [_aggregated_group(group, members) for group, members in wanted.items()]
    document = {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"{AGGREGATED_GROUP}/{version}",
        "metadata": {},
        "items": items,
    }
    return orjson.dumps(document)


def _aggregated_group(group: str, members: list[GroupVersion]) -> Object:
    versions = [
        {
            "version": where.version,
            "resources": [_aggregated_resource(kind) for kind in served()[where]],
            "freshness": "Current",
        }
        for where in members
    ]
    return {"metadata": {"name": group} if group else {}, "versions": versions}


def _aggregated_resource(kind: Kind) -> Object:
    resource: Object = {
        "resource": kind.plural,
        "responseKind": {"group": "", "version": "", "kind": kind.kind},
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular or kind.kind.lower(),
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        resource["shortNames"] = list(kind.short_names)
    if kind.categories:
        resource["categories"] = list(kind.categories)
    if kind.subresources:
        resource["subresources"] = [
            {
                "subresource": sub.name,
                "responseKind": {"group": sub.group, "version": sub.version, "kind": sub.kind or kind.kind},
                "verbs": list(sub.verbs),
            }
            for sub in kind.subresources
        ]
    return resource
