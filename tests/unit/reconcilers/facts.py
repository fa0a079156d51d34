"""Small objects for the reconcilers' unit tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from api.objects import Object, format_time
from controller.reconcilers.views import Owner, PodFacts

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
NOW_TEXT = format_time(NOW)
EARLIER = format_time(NOW - timedelta(hours=1))


def ago(seconds: float) -> str:
    return format_time(NOW - timedelta(seconds=seconds))


def meta(name: str, **more: Any) -> Object:
    return {"name": name, "namespace": "w", "uid": f"uid-{name}", "resourceVersion": "7", "generation": 1, **more}


TEMPLATE: Object = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "one"}]}}


def replica_set(replicas: int, *, status: Object | None = None, **spec: Any) -> Object:
    body = {"replicas": replicas, "selector": {"matchLabels": {"app": "x"}}, "template": TEMPLATE, **spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": meta("x"),
        "spec": body,
        "status": status if status is not None else {"replicas": 0},
    }


OWNER = Owner("apps/v1", "ReplicaSet", "x", "uid-x")


def pod(name: str, **facts: Any) -> PodFacts:
    known: Object = {"labels": {"app": "x"}, "owner": OWNER, "phase": "Running", "ready": True, "ready_since": 1.0}
    return PodFacts("w", name, f"uid-{name}", "3", **{**known, **facts})


def deployment(replicas: int = 2, *, status: Object | None = None, **spec: Any) -> Object:
    body = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": "x"}},
        "template": TEMPLATE,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
        "progressDeadlineSeconds": 600,
        "revisionHistoryLimit": 10,
        **spec,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta("x"),
        "spec": body,
        "status": status if status is not None else {},
    }


def node(name: str = "n", *, ready: str | None = "True", taints: list[Object] | None = None, **more: Any) -> Object:
    conditions = [] if ready is None else [condition("Ready", ready)]
    spec: Object = {"taints": taints} if taints else {}
    metadata = {"name": name, "uid": f"uid-{name}", "resourceVersion": "7", "creationTimestamp": EARLIER}
    metadata |= more.pop("metadata", {})
    spec |= more.pop("spec", {})
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": metadata,
        "spec": spec,
        "status": {"conditions": conditions},
    }


def condition(type: str, status: str, reason: str = "Told", since: str = EARLIER) -> Object:
    return {"type": type, "status": status, "reason": reason, "lastTransitionTime": since, "message": ""}


def pod_object(name: str, *, ready: bool = True, **more: Any) -> Object:
    conditions = [condition("Ready", str(ready))]
    metadata = {
        "name": name,
        "namespace": "w",
        "uid": f"uid-{name}",
        "resourceVersion": "3",
        **more.pop("metadata", {}),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"nodeName": "n", **more.pop("spec", {})},
        "status": {"phase": "Running", "conditions": conditions, **more.pop("status", {})},
    }
