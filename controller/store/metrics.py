"""What the store tells Prometheus. Names follow kube-apiserver's where it has them.

Called inside this room; the server exposes the default registry. Children of labelled metrics are cached, because
looking one up costs more than observing it.
https://kubernetes.io/docs/reference/instrumentation/metrics/
"""

from __future__ import annotations

from functools import cache

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

_requests = Histogram("etcd_request_duration_seconds", "Requests to etcd.", ["operation"], buckets=_SECONDS)
_objects = Gauge("apiserver_storage_objects", "Objects in the store.", ["resource"])
_watchers = Gauge("wherry_store_watchers", "Watchers of the store.", ["resource"])
_outcomes = Counter("wherry_store_writes_total", "Writes by outcome.", ["outcome"])
_quarantined = Counter(
    "wherry_store_quarantined_events_total",
    "Events a part of the controller failed on and goes on without.",
    ["resource"],
)
_alarms = Gauge("wherry_etcd_alarm", "1 while etcd raises this alarm.", ["alarm"])

commit_operations = Histogram("wherry_store_commit_operations", "Writes in one commit.", buckets=_BATCHES)
settled = Counter("wherry_store_settled_total", "Writes whose outcome had to be looked up.")
unreadable = Counter("wherry_store_unreadable_values_total", "Values in etcd that are not ours to read.")
dropped_watchers = Counter("apiserver_terminated_watchers_total", "Watchers dropped because they were too slow.")
relists = Counter("wherry_store_relists_total", "Times the cache had to be read anew because history was compacted.")
following = Gauge("wherry_store_following", "1 while the cache follows etcd.")
version = Gauge("wherry_store_version", "The cache's resourceVersion.")
database_bytes = Gauge("apiserver_storage_size_bytes", "Size of etcd's database file.")
used_bytes = Gauge("wherry_etcd_used_bytes", "Bytes of etcd's database in use.")
disk_free_bytes = Gauge("wherry_etcd_disk_free_bytes", "Free bytes on the private etcd's disk.")
reserve_bytes = Gauge("wherry_etcd_reserve_bytes", "Bytes of that disk that are kept for etcd.")
reserve_touched = Gauge("wherry_etcd_reserve_touched", "1 while that disk is full and nothing is added.")
kept_event_bytes = Gauge("wherry_store_kept_event_bytes", "Bytes of old object states kept for resuming watches.")
leading = Gauge("leader_election_master_status", "1 while this process leads.", ["name"])

_request = cache(lambda operation: _requests.labels(operation))
_outcome = cache(lambda outcome: _outcomes.labels(outcome))
_object_count = cache(lambda resource: _objects.labels(resource))
_watcher_count = cache(lambda resource: _watchers.labels(resource))


def observe_request(operation: str, seconds: float) -> None:
    _request(operation).observe(seconds)


def count_outcome(outcome: str, amount: int = 1) -> None:
    _outcome(outcome).inc(amount)


def set_objects(resource: tuple[str, str], amount: int) -> None:
    _object_count(_named(resource)).set(amount)


def set_watchers(resource: tuple[str, str], amount: int) -> None:
    _watcher_count(_named(resource)).set(amount)


def count_quarantined(resource: tuple[str, str]) -> None:
    _quarantined.labels(_named(resource)).inc()


def set_alarms(raised: frozenset[str]) -> None:
    for name in {"NOSPACE", "CORRUPT"} | raised:
        _alarms.labels(name).set(name in raised)


def _named(resource: tuple[str, str]) -> str:
    group, plural = resource
    return f"{plural}.{group}" if group else plural
