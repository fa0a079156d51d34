"""Events expire: one hour after the last time they were told.

Run by the loop under one key, again every minute. `decide` is pure. Kubernetes gives events an etcd lease; wherry's
store has none (leases do not go into group commits), so this reconciler sweeps. Invariant: an event that was told again
within the TTL stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from api import kinds
from api.objects import metadata, uid_of
from controller.reconcilers.actions import Delete, Together
from controller.reconcilers.loop import Decision, Failure, Once, Source
from controller.reconcilers.views import Views, seconds_of
from controller.store.types import Key

EVENTS = kinds.by_resource("", "events")
SWEEP_SECONDS = 60.0
_TIMES = ("lastTimestamp", "eventTime", "firstTimestamp")


@dataclass(frozen=True)
class Observed:
    """What each event was last told, in seconds since the epoch, with its uid."""

    told: Mapping[Key, tuple[float, str]]
    ttl_seconds: float
    now: datetime


def decide(observed: Observed) -> Decision:
    oldest = observed.now.timestamp() - observed.ttl_seconds
    expired = tuple(
        Delete(EVENTS, key.namespace, key.name, uid) for key, (when, uid) in observed.told.items() if when < oldest
    )
    return Decision((Together(expired),) if expired else (), requeue_after_seconds=SWEEP_SECONDS)


def last_told(event: Mapping[str, Any]) -> float:
    """The latest time an event names; its creation if it names none."""
    times = [seconds_of(event.get(field)) for field in _TIMES]
    times.append(seconds_of((event.get("series") or {}).get("lastObservedTime")))
    return max(times) or seconds_of(metadata(event).get("creationTimestamp"))


class EventExpiry:
    name = "event-ttl-controller"
    concurrency = 1

    def __init__(self, views: Views, ttl_seconds: float, clock: Callable[[], datetime]) -> None:
        self._views = views
        self._ttl_seconds = ttl_seconds
        self._clock = clock
        self._known: dict[Key, tuple[int, tuple[float, str]]] = {}

    def sources(self) -> Sequence[Source]:
        return (Once("events"),)

    def observe(self, key: str, failure: Failure | None) -> Observed | None:
        """Each version of an event is parsed once."""
        del key, failure
        known: dict[Key, tuple[int, tuple[float, str]]] = {}
        for record in self._views.store.list(EVENTS.resource).records:
            before = self._known.get(record.key)
            if before is not None and before[0] == record.version:
                known[record.key] = before
            else:
                event = record.parse()
                known[record.key] = (record.version, (last_told(event), uid_of(event)))
        self._known = known
        told = {name: fact for name, (_, fact) in known.items()}
        return Observed(told, self._ttl_seconds, self._clock())

    def decide(self, observed: Observed) -> Decision:
        return decide(observed)
