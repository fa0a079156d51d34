"""Figures of the API server, under Kubernetes' names, and their exposition at /metrics.

Called by app.py: `observe` after every request. Children are looked up in a dict of our own, for a GET has 20 us to
spend on everything; the text is made in a thread, for 10,000 series would block the loop for 150 ms. Names and labels:
https://kubernetes.io/docs/reference/instrumentation/metrics/
"""

from __future__ import annotations

import asyncio
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Gauge, Histogram, generate_latest

from controller.server.reply import Reply
from controller.server.target import Target

BUCKETS = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60)
EXPOSITION_SECONDS = 10.0
_LABELS = ["verb", "group", "version", "resource", "subresource", "scope"]

_requests = Counter("apiserver_request", "Requests by verb, resource and code.", [*_LABELS, "dry_run", "code"])
_durations = Histogram(
    "apiserver_request_duration_seconds", "Seconds from request to reply.", [*_LABELS, "dry_run"], buckets=BUCKETS
)
_inflight = Gauge("apiserver_current_inflight_requests", "Requests being worked on now.", ["request_kind"])
_longrunning = Gauge("apiserver_longrunning_requests", "Watches, logs and tunnels that are open now.", _LABELS)

_MUTATING = frozenset(("POST", "PUT", "PATCH", "DELETE"))


class RequestMetrics:
    """What one server process counts."""

    def __init__(self) -> None:
        self._children: dict[tuple[Any, ...], tuple[Any, Any]] = {}
        self._reading = _inflight.labels("readOnly")
        self._mutating = _inflight.labels("mutating")
        self.running = {False: 0, True: 0}
        self._reading.set_function(lambda: self.running[False])
        self._mutating.set_function(lambda: self.running[True])

    def begin(self, method: str) -> bool:
        """Counts a request in; what it returns belongs to `end`."""
        mutating = method in _MUTATING
        self.running[mutating] += 1
        return mutating

    def end(self, mutating: bool) -> None:
        self.running[mutating] -= 1

    def observe(self, verb: str, target: Target | None, code: int, seconds: float) -> None:
        """Counts a finished request; `target` None for paths that are no resource. Long-running ones have no time."""
        if target is None:
            key: tuple[Any, ...] = (verb, "", "", "", "", code)
        else:
            key = (
                verb,
                target.group,
                target.version,
                target.resource,
                target.subresource,
                bool(target.namespace),
                code,
            )
            if target.kind is None:
                key = (verb, "", "", "", "", code)
        children = self._children.get(key)
        if children is None:
            children = self._children[key] = _children_of(verb, target, code)
        children[0].inc()
        if seconds >= 0:
            children[1].observe(seconds)

    def open(self, verb: str, target: Target) -> Any:
        """A long-running request begins; call `dec()` on the result when it ends."""
        gauge = _longrunning.labels(*_labels_of(verb, target))
        gauge.inc()
        return gauge


def _children_of(verb: str, target: Target | None, code: int) -> tuple[Any, Any]:
    labels = _labels_of(verb, target)
    return _requests.labels(*labels, "", str(code)), _durations.labels(*labels, "")


def _labels_of(verb: str, target: Target | None) -> tuple[str, ...]:
    shown = verb.upper() if verb not in ("create", "update", "delete") else _SHOWN[verb]
    if target is None or target.kind is None:
        return (shown, "", "", "", "", "")
    scope = "resource" if target.name or verb == "create" else "namespace" if target.namespace else "cluster"
    return (shown, target.group, target.version, target.resource, target.subresource, scope)


_SHOWN = {"create": "POST", "update": "PUT", "delete": "DELETE"}


async def answer_metrics() -> Reply:
    """The exposition of everything this process counts."""
    async with asyncio.timeout(EXPOSITION_SECONDS):
        body = await asyncio.to_thread(generate_latest, REGISTRY)
    return Reply(200, body, CONTENT_TYPE_LATEST)
