"""A registry on a real store, with one namespace and its default service account."""

from __future__ import annotations

import pytest

from api import kinds
from api.objects import Object
from controller.registry import Registry, Request, User
from controller.store import Store

ADMIN = User("admin", groups=("system:masters",))
NAMESPACES = kinds.by_resource("", "namespaces")
ACCOUNTS = kinds.by_resource("", "serviceaccounts")
MAPS = kinds.by_resource("", "configmaps")
PODS = kinds.by_resource("", "pods")
NODES = kinds.by_resource("", "nodes")
DEPLOYMENTS = kinds.by_resource("apps", "deployments")
LEASES = kinds.by_resource("coordination.k8s.io", "leases")


def admin(*, dry_run: bool = False, field_manager: str = "test", field_validation: str = "Warn") -> Request:
    return Request(ADMIN, dry_run=dry_run, field_manager=field_manager, field_validation=field_validation)


def a_map(name: str = "x", **metadata: object) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}, "data": {"a": "b"}}


def a_pod(name: str = "x", **metadata: object) -> Object:
    spec = {"containers": [{"name": "c", "image": "busybox:1"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **metadata}, "spec": spec}


def a_deployment(name: str = "x", replicas: int = 2) -> Object:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "busybox:1"}]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


@pytest.fixture
async def registry(store: Store) -> Registry:
    made = Registry(store)
    await made.create(admin(), NAMESPACES, "", {"metadata": {"name": "shop"}})
    await made.create(admin(), ACCOUNTS, "shop", {"metadata": {"name": "default"}})
    return made
