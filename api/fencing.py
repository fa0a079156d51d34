"""Which pods are fenced: they must never run twice at the same time (DESIGN.md, invariants). Pure.

Called by the registry (their end is always confirmed by their node), by eviction and ReplicaSets (they are replaced
only then). Imports api.objects only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.objects import controller_of, labels_of

FENCED_LABEL = "wherry/fenced"


def is_fenced(pod: Mapping[str, Any]) -> bool:
    """By label, by identity (a StatefulSet's), or because it holds a claim."""
    if labels_of(pod).get(FENCED_LABEL) == "true":
        return True
    if (controller_of(pod) or {}).get("kind") == "StatefulSet":
        return True
    return any("persistentVolumeClaim" in volume for volume in (pod.get("spec") or {}).get("volumes") or ())
