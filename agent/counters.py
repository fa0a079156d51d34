"""What the agent counts while it works: calls of the runtime, containers and pods started. Names are the kubelet's.

Imported where it happens (runtime, pods) and by `metrics`, which shows it. Imports nothing of the agent. Invariant:
labels have few values (verbs of CRI), never names of pods, and their children are looked up once.
Source of the names: https://kubernetes.io/docs/reference/instrumentation/metrics/
"""

from __future__ import annotations

from functools import cache

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics

REGISTRY = CollectorRegistry()
disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series of each, which no dashboard asks for

_CALL_BUCKETS = (0.005, 0.0125, 0.03, 0.08, 0.2, 0.5, 1.2, 3, 7.5, 18, 45, 120)
_START_BUCKETS = (0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 30, 60, 120, 300, 600)
_OPERATION = ["operation_type"]

_calls = Counter("kubelet_runtime_operations", "Calls of the container runtime", _OPERATION, registry=REGISTRY)
_failures = Counter(
    "kubelet_runtime_operations_errors", "Calls of the container runtime that failed", _OPERATION, registry=REGISTRY
)
_seconds = Histogram(
    "kubelet_runtime_operations_duration_seconds",
    "Seconds that calls of the container runtime took",
    _OPERATION,
    buckets=_CALL_BUCKETS,
    registry=REGISTRY,
)
_pod_start = Histogram(
    "kubelet_pod_start_duration_seconds",
    "Seconds from the agent's first sight of a pod to its running",
    buckets=_START_BUCKETS,
    registry=REGISTRY,
)
containers_started = Counter("kubelet_started_containers", "Containers started", registry=REGISTRY)
container_start_failures = Counter(
    "kubelet_started_containers_errors", "Containers that could not be started", registry=REGISTRY
)
pods_started = Counter("kubelet_started_pods", "Pod sandboxes started", registry=REGISTRY)

_policy_wait = Histogram(
    "wherry_policy_wait_seconds",
    "Seconds that a pod's first container waited for network policies to be in the kernel",
    buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2),
    registry=REGISTRY,
)

_children = cache(lambda operation: (_calls.labels(operation), _seconds.labels(operation)))


def runtime_called(operation: str, seconds: float) -> None:
    calls, histogram = _children(operation)
    calls.inc()
    histogram.observe(seconds)


def runtime_failed(operation: str) -> None:
    _failures.labels(operation).inc()


def policy_waited(seconds: float) -> None:
    _policy_wait.observe(seconds)


def pod_runs(seconds: float) -> None:
    """A pod that waited runs now, `seconds` after the agent saw it first."""
    _pod_start.observe(max(0.0, seconds))
