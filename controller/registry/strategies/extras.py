"""Strategies of kinds that differ in one thing: where a status starts, or what the generation counts.

Rules from k8s.io/kubernetes/pkg/registry/{autoscaling,policy,scheduling,discovery,core}/*/strategy.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from api.objects import Object
from controller.registry.strategies.base import Strategy, bump_generation_if
from controller.registry.strategies.common import spec_and_status, start


def prepare_volume(volume: Object) -> None:
    since = volume["metadata"].get("creationTimestamp")
    volume["status"] = {"phase": "Pending", "lastPhaseTransitionTime": since}


def count_slice(new: Object, old: Mapping[str, Any]) -> None:
    """A slice has neither spec nor status: all of it counts, of its metadata the labels only."""
    changed = {**new, "metadata": None} != {**old, "metadata": None}
    relabelled = (new["metadata"].get("labels") or {}) != (old["metadata"].get("labels") or {})
    bump_generation_if(changed or relabelled, new, old)


AUTOSCALER = spec_and_status({"desiredReplicas": 0, "currentMetrics": None}, counted=())
DISRUPTION_BUDGET = replace(
    spec_and_status(dict.fromkeys(("currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods"), 0)),
    unconditional_update=False,
)
PRIORITY_CLASS = Strategy(prepare_create=start(None))
ENDPOINT_SLICE = Strategy(prepare_create=start(None), prepare_update=count_slice)
PERSISTENT_VOLUME = replace(spec_and_status({}, counted=()), prepare_create=prepare_volume, returns_deleted=True)
