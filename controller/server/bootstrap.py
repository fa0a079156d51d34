"""What exists in every cluster: the namespaces, Kubernetes' default roles and our IngressClass, created at start.

Called by main.py before the server is ready. Writes through the registry as system:masters. Invariant: run again, it
changes nothing that is as it should be; a role somebody annotated `autoupdate: "false"` is left alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from api.errors import AlreadyExists
from api.ingress import CLASS_NAME, CONTROLLER
from api.kinds import Kind, by_resource
from api.objects import Object, annotations_of, name_of
from controller.admission.types import MASTERS_GROUP, Request, User
from controller.registry import Registry
from controller.server.default_roles import AUTOUPDATE, GROUP, cluster_role_bindings, cluster_roles
from controller.store.types import Key

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
FIELD_MANAGER = "wherry"
_INGRESS_CLASS: Object = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "IngressClass",
    "metadata": {"name": CLASS_NAME},
    "spec": {"controller": CONTROLLER},
}
"""Not marked as default: an Ingress without a class is served all the same, and keeps having none."""
_SYSTEM = User("system:apiserver", groups=(MASTERS_GROUP,))


async def ensure_defaults(registry: Registry) -> None:
    """Creates what is missing, all at once, and adds what default roles have gained. Raises ApiError."""
    wanted: list[tuple[Kind, Object, str]] = []
    for name in NAMESPACES:
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        wanted.append((by_resource("", "namespaces"), namespace, ""))
    wanted.append((by_resource("networking.k8s.io", "ingressclasses"), _INGRESS_CLASS, ""))
    wanted += [(by_resource(GROUP, "clusterroles"), role, "rules") for role in cluster_roles()]
    wanted += [(by_resource(GROUP, "clusterrolebindings"), binding, "subjects") for binding in cluster_role_bindings()]
    results = await asyncio.gather(*(_ensure(registry, *entry) for entry in wanted), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def _ensure(registry: Registry, kind: Kind, wanted: Object, field: str = "") -> None:
    group, plural = kind.resource
    record = registry.store.get(Key(group, plural, "", name_of(wanted)))
    request = Request(_SYSTEM, field_manager=FIELD_MANAGER)
    if record is None:
        try:
            await registry.create(request, kind, "", wanted)
        except AlreadyExists:
            return  # another controller of this cluster was faster
        return
    if field and not _is_frozen(record.parse()):
        await registry.modify(request, kind, "", name_of(wanted), lambda obj: _with_missing(obj, wanted, field))


def _is_frozen(obj: Mapping[str, Any]) -> bool:
    return annotations_of(obj).get(AUTOUPDATE) == "false"


def _with_missing(obj: Object, wanted: Mapping[str, Any], field: str) -> Object | None:
    """`obj` with the entries of `wanted[field]` it lacks, None when it lacks none."""
    held = obj.get(field) or []
    missing = [entry for entry in wanted[field] if entry not in held]
    if not missing:
        return None
    obj[field] = held + missing
    return obj
