"""The scheduler's metrics, named as kube-scheduler's (kubernetes.io/docs/reference/instrumentation/metrics)."""

from __future__ import annotations

from datetime import UTC, datetime

from prometheus_client import Counter, Gauge, Histogram

from controller.scheduler.decide import Decision

_LATENCY_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)

_ATTEMPTS = Counter("scheduler_schedule_attempts", "Pods looked at, by result", ["result"])
_SCHEDULED = _ATTEMPTS.labels("scheduled")
_UNSCHEDULABLE = _ATTEMPTS.labels("unschedulable")
_WAITING = Gauge("scheduler_pending_pods", "Pods that wait for a node, by queue", ["queue"]).labels("unschedulable")
_DECISION = Histogram(
    "scheduler_scheduling_algorithm_duration_seconds", "Time of one decision over a batch", buckets=_LATENCY_BUCKETS
)
_POD = Histogram(
    "scheduler_pod_scheduling_sli_duration_seconds", "From a pod's creation to its binding", buckets=_LATENCY_BUCKETS
)


def observe(decision: Decision, seconds: float, waiting: int) -> None:
    _SCHEDULED.inc(len(decision.bindings))
    _UNSCHEDULABLE.inc(len(decision.refusals))
    _DECISION.observe(seconds)
    _WAITING.set(waiting)


def bound(created: datetime) -> None:
    """`created` has whole seconds, so the figure is up to one second too large."""
    _POD.observe(max(0.0, (datetime.now(UTC) - created).total_seconds()))
