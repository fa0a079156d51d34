"""One store for two views of an Event: core/v1, as it is kept, and events.k8s.io/v1.

Called by `views`. Pure; the pairs of names are those of k8s.io/kubernetes/pkg/apis/events/v1/conversion.go.
"""

from __future__ import annotations

from api.objects import Object

_PAIRS = (
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
)
_INWARD = dict(_PAIRS)
_OUTWARD = {core: view for view, core in _PAIRS}


def to_core(obj: Object) -> Object:
    """An events.k8s.io/v1 Event as it is stored."""
    stored = {_INWARD.get(field, field): value for field, value in obj.items()}
    stored["apiVersion"] = "v1"
    stored.setdefault("involvedObject", {})
    return stored


def to_events_v1(obj: Object) -> Object:
    """A stored Event as events.k8s.io/v1 shows it."""
    return {_OUTWARD.get(field, field): value for field, value in obj.items()} | {"apiVersion": "events.k8s.io/v1"}
