"""Strategies of kinds that differ in one thing: where a status starts, or what the generation counts.

Rules from k8s.io/kubernetes/pkg/registry/{autoscaling,policy,scheduling,discovery,core}/*/strategy.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from api.objects import Object
from controller.registry.strategies.base import Strategy, bump_generation_if, keep
from controller.registry.strategies.common import keep_spec, spec_and_status, start

ROUND_TRIP = "autoscaling.alpha.kubernetes.io/"
_ROUND_TRIPS = frozenset(
    ROUND_TRIP + name
    for name in ("metrics", "behavior", "current-metrics", "conditions", "scale-down-tolerance", "scale-up-tolerance")
)


def prepare_volume(volume: Object) -> None:
    since = volume["metadata"].get("creationTimestamp")
    volume["status"] = {"phase": "Pending", "lastPhaseTransitionTime": since}


def prepare_slice(slice_: Object) -> None:
    """Topology of old cannot be written any more."""
    slice_["metadata"]["generation"] = 1
    _drop_topology(slice_)


def _drop_topology(slice_: Object) -> None:
    for endpoint in slice_.get("endpoints") or ():
        endpoint.pop("deprecatedTopology", None)


def count_slice(new: Object, old: Mapping[str, Any]) -> None:
    """A slice has neither spec nor status: all of it counts, of its metadata the labels only."""
    if new.get("endpoints") != old.get("endpoints"):
        _drop_topology(new)
    changed = {**new, "metadata": None} != {**old, "metadata": None}
    relabelled = (new["metadata"].get("labels") or {}) != (old["metadata"].get("labels") or {})
    bump_generation_if(changed or relabelled, new, old)


def drop_round_trip(metadata: Object) -> None:
    """Takes off the annotations in which autoscaling/v1 shows what only v2 knows: in v2 they count for nothing."""
    annotations = metadata.get("annotations") or {}
    kept = {name: value for name, value in annotations.items() if name not in _ROUND_TRIPS}
    if kept:
        metadata["annotations"] = kept
    elif annotations:
        del metadata["annotations"]


def prepare_autoscaler(autoscaler: Object) -> None:
    autoscaler["status"] = {"desiredReplicas": 0, "currentMetrics": None}
    drop_round_trip(autoscaler["metadata"])


def prepare_autoscaler_update(new: Object, old: Mapping[str, Any]) -> None:
    keep(new, old, "status")
    drop_round_trip(new["metadata"])


AUTOSCALER = Strategy(
    prepare_create=prepare_autoscaler, prepare_update=prepare_autoscaler_update, prepare_status=keep_spec
)
DISRUPTION_BUDGET = replace(
    spec_and_status(dict.fromkeys(("currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods"), 0)),
    unconditional_update=False,
)
PRIORITY_CLASS = Strategy(prepare_create=start(None))
ENDPOINT_SLICE = Strategy(prepare_create=prepare_slice, prepare_update=count_slice)
PERSISTENT_VOLUME = replace(spec_and_status({}, counted=()), prepare_create=prepare_volume, returns_deleted=True)
