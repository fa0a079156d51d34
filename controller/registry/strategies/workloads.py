"""Workloads: status starts empty, only their controller writes it, generation follows the spec.

Rules from k8s.io/kubernetes/pkg/registry/apps/*/strategy.go and .../core/replicationcontroller/strategy.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from api.objects import Object
from controller.registry.strategies.base import Strategy, bump_generation_if, keep, keep_metadata
from controller.registry.strategies.common import keep_status_and_count, spec_and_status

TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"
"""DaemonSets count their templates in this annotation, for clients older than ControllerRevisions."""


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


def prepare_daemon_set(daemon_set: Object) -> None:
    daemon_set["metadata"]["generation"] = 1
    counts = ("currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled", "numberReady")
    daemon_set["status"] = dict.fromkeys(counts, 0)
    _count_template(daemon_set, 1)


def prepare_daemon_set_update(new: Object, old: Mapping[str, Any]) -> None:
    """As other workloads, and a changed template has the next number, whatever the annotation is asked to say."""
    _count_spec(new, old)
    text = (old["metadata"].get("annotations") or {}).get(TEMPLATE_GENERATION, "")
    number = int(text) if text.isdecimal() else 0
    changed = (new.get("spec") or {}).get("template") != (old.get("spec") or {}).get("template")
    _count_template(new, number + changed)


def _count_template(daemon_set: Object, number: int) -> None:
    metadata = daemon_set["metadata"]
    metadata["annotations"] = {**(metadata.get("annotations") or {}), TEMPLATE_GENERATION: str(number)}


_count_spec = keep_status_and_count("spec")
STATEFUL_SET = spec_and_status({"replicas": 0, "availableReplicas": 0})
DAEMON_SET = replace(spec_and_status({}), prepare_create=prepare_daemon_set, prepare_update=prepare_daemon_set_update)
REPLICATION_CONTROLLER = replace(spec_and_status({"replicas": 0}), garbage_collection="orphan")
POD_TEMPLATE = replace(spec_and_status(None, counted=("template",)), returns_deleted=True)
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
