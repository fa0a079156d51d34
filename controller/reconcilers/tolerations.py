"""Taints and tolerations, as eviction needs them: how long may a pod stay on a tainted node?

Called by the eviction reconciler. Pure. Rules: https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/.

Kubernetes' admission gives every pod that does not say otherwise two tolerations of 300 s, for not-ready and
unreachable. On a node whose heartbeat stopped they must not delay the replacement (DESIGN.md, D6), while the same
words written by a user must. Who wrote them is on record twice, and no annotation of our own is needed: the template of
the pod's controller holds what the user wrote and never what admission added, and of a pod without a controller
`managedFields` names the writer of spec.tolerations (admission's additions have none).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NO_EXECUTE = "NoExecute"
NO_SCHEDULE = "NoSchedule"
NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
DEFAULT_SECONDS = 300
_DEFAULTED_KEYS = (NOT_READY, UNREACHABLE)


@dataclass(frozen=True)
class Taint:
    """`since`: seconds since the epoch at which it was put on the node, or first seen there."""

    key: str
    value: str
    effect: str
    since: float


@dataclass(frozen=True)
class Toleration:
    """`seconds` None: for ever."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""
    seconds: int | None = None

    def tolerates(self, taint: Taint) -> bool:
        if self.effect and self.effect != taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        if self.operator == "Exists":
            return True
        return bool(self.key) and self.value == taint.value


def stay_until(taints: Sequence[Taint], tolerations: Sequence[Toleration]) -> float | None:
    """The time (seconds since the epoch) at which NoExecute `taints` drive a pod out; None: never; 0.0: at once."""
    ends = []
    for taint in taints:
        matching = [one for one in tolerations if one.tolerates(taint)]
        if not matching:
            return 0.0
        limits = [one.seconds for one in matching if one.seconds is not None]
        if limits:
            ends.append(taint.since + max(0, min(limits)))
    return min(ends, default=None)


def read_tolerations(entries: Iterable[Mapping[str, Any]]) -> tuple[Toleration, ...]:
    return tuple(
        Toleration(
            entry.get("key") or "",
            entry.get("operator") or "Equal",
            entry.get("value") or "",
            entry.get("effect") or "",
            entry.get("tolerationSeconds"),
        )
        for entry in entries
    )


def without_defaulted(
    pod: Mapping[str, Any], tolerations: Sequence[Toleration], template: Mapping[str, Any] | None
) -> tuple[Toleration, ...]:
    """The tolerations that somebody asked for. `template`: the pod template of the pod's controller, if known."""
    if template is not None:
        asked = read_tolerations((template.get("spec") or {}).get("tolerations") or ())
        return tuple(one for one in tolerations if not _looks_defaulted(one) or one in asked)
    if _names_a_writer(pod):
        return tuple(tolerations)
    return tuple(one for one in tolerations if not _looks_defaulted(one))


def _looks_defaulted(one: Toleration) -> bool:
    return one.key in _DEFAULTED_KEYS and one == Toleration(one.key, "Exists", "", NO_EXECUTE, DEFAULT_SECONDS)


def _names_a_writer(pod: Mapping[str, Any]) -> bool:
    for entry in pod["metadata"].get("managedFields") or ():
        if "f:tolerations" in ((entry.get("fieldsV1") or {}).get("f:spec") or {}):
            return True
    return False
