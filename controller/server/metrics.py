"""Figures of the API server, under Kubernetes' names, and their exposition at /metrics.

Called by app.py: `observe` after every request. Counting is our own (a dict, a bisect), for a GET has 20 us to spend on
everything; prometheus-client only asks for the sums at exposition, which runs in a thread, for 10,000 series would
block the loop for 150 ms. Names and labels: https://kubernetes.io/docs/reference/instrumentation/metrics/
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from api.kinds import Kind
from controller.server.cluster_metrics import ClusterMetrics, snapshot
from controller.server.fairness import Level
from controller.server.reply import Reply
from controller.server.target import Target
from controller.server.version import version_info
from controller.store import Store

BUCKETS = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60)
EXPOSITION_SECONDS = 10.0
disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series of each, which no dashboard asks for

_LABELS = ("verb", "group", "version", "resource", "subresource", "scope")
_MUTATING = frozenset(("POST", "PUT", "PATCH", "DELETE"))
_SHOWN = {"create": "POST", "update": "PUT", "deletecollection": "DELETE"}
_NO_RESOURCE = ("", "", "", "", "")

Labels = tuple[str, ...]


def is_mutating(method: str) -> bool:
    return method in _MUTATING


class _Durations:
    """One series of the histogram."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0

    def cumulated(self) -> list[tuple[str, float]]:
        seen, buckets = 0, []
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), self.counts, strict=True):
            seen += count
            buckets.append((bound, float(seen)))
        return buckets


class RequestMetrics(Collector):
    """What one server process counts; registers itself for exposition until `close`."""

    def __init__(self, registry: CollectorRegistry = REGISTRY, levels: Sequence[Level] = ()) -> None:
        self._levels = levels
        self.running = {False: 0, True: 0}
        """Requests being worked on now, by whether they write."""
        self._requests: dict[tuple[Any, ...], list[Any]] = {}
        self._durations: dict[Labels, _Durations] = {}
        self._open: dict[Labels, int] = {}
        self._registry = registry
        registry.register(self)

    def close(self) -> None:
        self._registry.unregister(self)

    def begin(self, method: str) -> bool:
        """Counts a request in; what it returns belongs to `end`."""
        mutating = is_mutating(method)
        self.running[mutating] += 1
        return mutating

    def end(self, mutating: bool) -> None:
        self.running[mutating] -= 1

    def observe(self, verb: str, target: Target | None, code: int, seconds: float) -> None:
        """Counts a finished request; `target` None for paths that are no resource. Negative seconds: long-running.

        What nobody serves counts as no resource, too: else whoever asks for it would fill the memory with series.
        """
        if target is None or target.kind is None or not _is_served(target, target.kind):
            target = None
            key: tuple[Any, ...] = (verb, None, "", False, code)
        else:
            key = (verb, target.kind.plural, target.subresource, bool(target.namespace), code, target.group)
        series = self._requests.get(key)
        if series is None:
            labels = _labels_of(verb, target)
            series = self._requests[key] = [0, self._durations.setdefault(labels, _Durations()), labels, str(code)]
        series[0] += 1
        if seconds >= 0:
            durations = series[1]
            durations.counts[bisect_left(BUCKETS, seconds)] += 1
            durations.total += seconds

    def open(self, verb: str, target: Target) -> Labels:
        """A long-running request begins; give what it returns to `shut` when it ends."""
        labels = _labels_of(verb, target)
        self._open[labels] = self._open.get(labels, 0) + 1
        return labels

    def shut(self, labels: Labels) -> None:
        self._open[labels] -= 1

    def collect(self) -> Iterator[Any]:
        """Asked by prometheus-client, from its own thread."""
        requests = CounterMetricFamily(
            "apiserver_request", "Requests by verb, resource and code.", labels=(*_LABELS, "dry_run", "code")
        )
        summed: dict[Labels, int] = {}
        for count, _, labels, code in list(self._requests.values()):
            key = (*labels, "", code)
            summed[key] = summed.get(key, 0) + count
        for key, count in summed.items():
            requests.add_metric(key, count)
        yield requests
        durations = HistogramMetricFamily(
            "apiserver_request_duration_seconds", "Seconds from request to reply.", labels=(*_LABELS, "dry_run")
        )
        for labels, series in list(self._durations.items()):
            durations.add_metric((*labels, ""), series.cumulated(), series.total)
        yield durations
        yield from self._gauges()

    def _gauges(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        running = GaugeMetricFamily(
            "apiserver_current_inflight_requests", "Requests being worked on now.", labels=("request_kind",)
        )
        running.add_metric(("readOnly",), self.running[False])
        running.add_metric(("mutating",), self.running[True])
        yield running
        streams = GaugeMetricFamily(
            "apiserver_longrunning_requests", "Watches, logs and tunnels that are open now.", labels=_LABELS
        )
        for labels, count in list(self._open.items()):
            streams.add_metric(labels, count)
        yield streams
        yield from self._fairness()
        version = version_info()
        build = GaugeMetricFamily(
            "kubernetes_build_info", "The value is always 1.", labels=("major", "minor", "git_version", "platform")
        )
        build.add_metric((version["major"], version["minor"], version["gitVersion"], version["platform"]), 1)
        yield build

    def _fairness(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        label = ("priority_level",)
        taken = GaugeMetricFamily(
            "apiserver_flowcontrol_current_executing_seats", "Seats that requests take now.", labels=label
        )
        waiting = GaugeMetricFamily(
            "apiserver_flowcontrol_current_inqueue_requests", "Requests that wait for a seat.", labels=label
        )
        refused = CounterMetricFamily(
            "apiserver_flowcontrol_rejected_requests", "Requests refused for want of a seat.", labels=label
        )
        for level in self._levels:
            taken.add_metric((level.name,), level.taken)
            waiting.add_metric((level.name,), level.waiting)
            refused.add_metric((level.name,), level.refused)
        yield from (taken, waiting, refused)


def _is_served(target: Target, kind: Kind) -> bool:
    return not target.subresource or any(each.name == target.subresource for each in kind.subresources)


def _labels_of(verb: str, target: Target | None) -> Labels:
    shown = _SHOWN.get(verb) or verb.upper()
    if target is None or target.kind is None:
        return (shown, *_NO_RESOURCE)
    scope = "resource" if target.name or verb == "create" else "namespace" if target.namespace else "cluster"
    return (shown, target.group, target.version, target.resource, target.subresource, scope)


async def answer_metrics(store: Store, cluster: ClusterMetrics) -> Reply:
    """The exposition of everything this process counts, and of the cluster's state."""
    taken = snapshot(store)

    def render() -> bytes:
        return generate_latest(REGISTRY) + cluster.render(taken)

    async with asyncio.timeout(EXPOSITION_SECONDS):
        body = await asyncio.to_thread(render)
    return Reply(200, body, CONTENT_TYPE_LATEST)
