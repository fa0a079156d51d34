"""The DNS process's figures among the agent's metrics, as it last sent them.

Filled by `part`; shown by the agent's /metrics, as the collector registers itself there once. A process that was
started again counts from zero, as Prometheus expects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agent import counters

RCODES = ("NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED")
_COUNTERS = {
    "hits": "Questions for names outside the cluster that the cache answered",
    "misses": "Questions for names outside the cluster that upstream was asked",
    "stale": "Answers past their time, given because upstream did not answer",
    "refused": "Questions that were not asked upstream because too many were under way",
    "prefetches": "Answers fetched again before their time was over",
}
_GAUGES = {
    "entries": "Answers in the cache, stale ones included",
    "waiting": "Queries that wait for upstream",
    "connections": "Open TCP connections of clients",
}
_UPSTREAM = ("queries", "failures")


class DnsFigures(Collector):
    """`latest` is what the process said last; empty before it has."""

    def __init__(self) -> None:
        self.latest: Mapping[str, Any] = {}

    def collect(self) -> Iterator[Metric]:
        latest = self.latest
        if not latest:
            return
        answers = CounterMetricFamily("wherry_dns_responses", "DNS answers by response code", labels=["rcode"])
        for number, count in enumerate(latest["rcodes"]):
            if count:
                answers.add_metric([RCODES[number] if number < len(RCODES) else str(number)], count)
        yield answers
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(f"wherry_dns_cache_{name}", text, value=latest[name])
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(f"wherry_dns_{name}", text, value=latest[name])
        yield from _upstreams(latest["upstreams"])


def _upstreams(servers: list[Any]) -> Iterator[Metric]:
    label = ["to"]
    asked = CounterMetricFamily("wherry_dns_upstream_queries", "Queries to an upstream server", labels=label)
    failures = CounterMetricFamily("wherry_dns_upstream_failures", "Queries it did not answer", labels=label)
    seconds = GaugeMetricFamily("wherry_dns_upstream_latency_seconds", "Time of its answers, averaged", labels=label)
    healthy = GaugeMetricFamily("wherry_dns_upstream_healthy", "Whether it answered lately", labels=label)
    for address, asked_count, failure_count, latency, failing in servers:
        for family, value in ((asked, asked_count), (failures, failure_count), (seconds, latency)):
            family.add_metric([address], value)
        healthy.add_metric([address], float(not failing))
    yield from (asked, failures, seconds, healthy)


FIGURES = DnsFigures()
counters.REGISTRY.register(FIGURES)
