"""Figures of the control loops, named as those of Kubernetes' work queues.

Imported by the loop and its queue, which says at exposition what is being worked on.
Source of the names: k8s.io/component-base/metrics/prometheus/workqueue.
"""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram

_BUCKETS = (1e-5, 1e-4, 1e-3, 5e-3, 1e-2, 5e-2, 0.1, 0.5, 1.0, 5.0, 10.0)

_ADDS = Counter("workqueue_adds_total", "Keys added", ["name"])
_DEPTH = Gauge("workqueue_depth", "Keys that wait", ["name"])
_RETRIES = Counter("workqueue_retries_total", "Keys added again after an error", ["name"])
_WAIT = Histogram("workqueue_queue_duration_seconds", "How long keys wait", ["name"], buckets=_BUCKETS)
_WORK = Histogram("workqueue_work_duration_seconds", "How long reconciling a key takes", ["name"], buckets=_BUCKETS)
_UNFINISHED = Gauge("workqueue_unfinished_work_seconds", "Seconds spent on keys being reconciled now", ["name"])
_LONGEST = Gauge("workqueue_longest_running_processor_seconds", "Seconds the longest reconcile runs", ["name"])
_ERRORS = Counter("wherry_reconcile_errors_total", "Reconciles that ended in an error", ["name"])
_ACTIONS = Counter("wherry_reconcile_actions_total", "Actions performed", ["name"])


@dataclass(frozen=True)
class LoopMetrics:
    """The figures of one reconciler."""

    adds: Counter
    depth: Gauge
    retries: Counter
    wait: Histogram
    work: Histogram
    unfinished: Gauge
    longest: Gauge
    errors: Counter
    actions: Counter

    @staticmethod
    def of(name: str) -> LoopMetrics:
        return LoopMetrics(
            adds=_ADDS.labels(name),
            depth=_DEPTH.labels(name),
            retries=_RETRIES.labels(name),
            wait=_WAIT.labels(name),
            work=_WORK.labels(name),
            unfinished=_UNFINISHED.labels(name),
            longest=_LONGEST.labels(name),
            errors=_ERRORS.labels(name),
            actions=_ACTIONS.labels(name),
        )
