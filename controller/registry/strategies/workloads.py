"""Deployments and ReplicaSets: status starts empty, only their controller writes it, generation follows the spec.

Rules from k8s.io/kubernetes/pkg/registry/apps/{deployment,replicaset}/strategy.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.objects import Object
from controller.registry.strategies.base import Strategy, bump_generation_if, keep, keep_metadata


def prepare_deployment(deployment: Object) -> None:
    deployment["metadata"]["generation"] = 1
    deployment["status"] = {}


def prepare_replica_set(replica_set: Object) -> None:
    replica_set["metadata"]["generation"] = 1
    replica_set["status"] = {"replicas": 0}


def prepare_update(new: Object, old: Mapping[str, Any]) -> None:
    keep(new, old, "status")
    bump_generation_if(new.get("spec") != old.get("spec"), new, old)


def prepare_deployment_update(new: Object, old: Mapping[str, Any]) -> None:
    """As other workloads; a Deployment's annotations count as desired state too (its controller hands them down)."""
    keep(new, old, "status")
    annotations = new["metadata"].get("annotations") or {}
    changed = new.get("spec") != old.get("spec") or annotations != (old["metadata"].get("annotations") or {})
    bump_generation_if(changed, new, old)


def prepare_deployment_status(new: Object, old: Mapping[str, Any]) -> None:
    keep(new, old, "spec")
    keep_metadata(new, old, "labels")


def prepare_replica_set_status(new: Object, old: Mapping[str, Any]) -> None:
    keep(new, old, "spec")


DEPLOYMENT = Strategy(
    prepare_create=prepare_deployment,
    prepare_update=prepare_deployment_update,
    prepare_status=prepare_deployment_status,
)
REPLICA_SET = Strategy(
    prepare_create=prepare_replica_set,
    prepare_update=prepare_update,
    prepare_status=prepare_replica_set_status,
)
