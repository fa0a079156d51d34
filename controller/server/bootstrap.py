"""What exists in every cluster: the namespaces, Kubernetes' default roles, our IngressClass, and the ConfigMap
kube-public/cluster-network, from which clients learn the ranges of pods and services. Created at start.

Called by main.py before the server is ready. Writes through the registry as system:masters. Invariant: run again, it
changes nothing that is as it should be; a role somebody annotated `autoupdate: "false"` is left alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from api.errors import AlreadyExists, Conflict, NotFound
from api.ingress import CLASS_NAME, CONTROLLER
from api.kinds import Kind, by_resource
from api.network_facts import NAME, NAMESPACE
from api.objects import Object, annotations_of, clone, name_of, uid_of
from controller.admission.pods import SYSTEM_PRIORITIES
from controller.admission.types import MASTERS_GROUP, Request, User
from controller.registry import DeleteOptions, Registry
from controller.server.default_roles import AUTOUPDATE, GROUP, cluster_role_bindings, cluster_roles
from controller.server.rbac import Rule, missing_in
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
_PRIORITY_CLASSES: list[Object] = [
    {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": SYSTEM_PRIORITIES[name],
        "description": f"Used for system critical pods that must {where}.",
    }
    for name, where in (
        ("system-node-critical", "not be moved from their current node"),
        ("system-cluster-critical", "run in the cluster, but can be moved to another node if necessary"),
    )
]
_SYSTEM = User("system:apiserver", groups=(MASTERS_GROUP,))


async def ensure_defaults(registry: Registry) -> None:
    """Creates what is missing, all at once, and adds what default roles have gained. Raises ApiError."""
    wanted: list[tuple[Kind, Object]] = []
    await ensure_namespaces(registry)
    wanted.append((by_resource("networking.k8s.io", "ingressclasses"), clone(_INGRESS_CLASS)))
    wanted += [(by_resource("scheduling.k8s.io", "priorityclasses"), clone(each)) for each in _PRIORITY_CLASSES]
    wanted += [(by_resource(GROUP, "clusterroles"), role) for role in cluster_roles()]
    wanted += [(by_resource(GROUP, "clusterrolebindings"), binding) for binding in cluster_role_bindings()]
    results = await asyncio.gather(*(_ensure(registry, *entry) for entry in wanted), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def publish_network(registry: Registry, data: Mapping[str, str]) -> None:
    """Makes the ConfigMap say this. Raises ApiError."""
    kind, request = by_resource("", "configmaps"), Request(_SYSTEM, field_manager=FIELD_MANAGER)
    made = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "data": {**data},
    }
    with suppress(AlreadyExists):
        await registry.create(request, kind, NAMESPACE, made)
        return
    await registry.modify(request, kind, NAMESPACE, NAME, lambda obj: {**obj, "data": {**data}})


async def ensure_namespaces(registry: Registry) -> None:
    """Kubernetes' own namespaces: there from the start, and made again when somebody deletes one. Raises ApiError."""
    for name in NAMESPACES:
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        await _ensure(registry, by_resource("", "namespaces"), namespace)


async def _ensure(registry: Registry, kind: Kind, wanted: Object) -> None:
    group, plural = kind.resource
    record = registry.store.get(Key(group, plural, "", name_of(wanted)))
    request = Request(_SYSTEM, field_manager=FIELD_MANAGER)
    if record is not None and kind.group == GROUP:
        present = record.parse()
        if annotations_of(present).get(AUTOUPDATE) == "false":
            return
        if present.get("roleRef") == wanted.get("roleRef"):
            await registry.modify(request, kind, "", name_of(wanted), lambda obj: _completed(obj, wanted))
            return
        with suppress(NotFound, Conflict):  # a binding cannot be turned to another role
            await registry.delete(request, kind, "", name_of(wanted), DeleteOptions(uid=uid_of(present)))
    elif record is not None:
        return
    with suppress(AlreadyExists):  # another controller of this cluster was faster
        await registry.create(request, kind, "", wanted)


def _completed(obj: Object, wanted: Mapping[str, Any]) -> Object | None:
    """`obj` with what it lacks of `wanted`, None when it lacks nothing: labels, annotations, rules that what it has
    does not cover, selectors, subjects. The rules of an aggregated role are the reconciler's."""
    before = clone(obj)
    for name in ("labels", "annotations"):
        obj["metadata"][name] = {**wanted["metadata"][name], **(obj["metadata"].get(name) or {})}
    aggregation = wanted.get("aggregationRule")
    if aggregation is not None:
        present = obj.get("aggregationRule") or {}
        obj["aggregationRule"] = {"clusterRoleSelectors": _joined(present, aggregation, "clusterRoleSelectors")}
    elif "rules" in wanted:
        held = [Rule.of(rule) for rule in obj.get("rules") or ()]
        obj["rules"] = [*(obj.get("rules") or ()), *(rule for rule in wanted["rules"] if missing_in(held, [rule]))]
    if "subjects" in wanted:
        obj["subjects"] = _joined(obj, wanted, "subjects")
    return obj if obj != before else None


def _joined(present: Mapping[str, Any], wanted: Mapping[str, Any], field: str) -> list[Any]:
    held = present.get(field) or []
    return [*held, *(entry for entry in wanted[field] if entry not in held)]
