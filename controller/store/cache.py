"""The cache: every object in memory, as bytes ready to send, kept in step by whole revisions.

Filled and advanced by feed.py alone; read by store.py. For each kind a sorted map, indexes, a ring of past events, its
watchers and in-process subscribers. Imports no etcd.
Invariants: a revision becomes visible as a whole; versions rise by every event; subscribers and watchers hear of an
event after the cache holds it; what this process wrote itself is not parsed again (`expect`).
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator

import structlog

from api.turns import Turn
from controller.store import metrics
from controller.store.border import Change
from controller.store.history import History, Ring
from controller.store.indexes import Indexes
from controller.store.keys import place
from controller.store.query import Page, Query
from controller.store.types import ENCODED, Event, EventType, Key, Record
from controller.store.values import (
    HEADER_BYTES,
    Codec,
    Draft,
    NotOurs,
    header,
    list_version,
    revision_of,
    sub_index_of,
    version_of,
)
from controller.store.watchers import Audience, Watcher

Subscriber = Callable[[Event], None]
OwnFollower = Callable[[bytes, bytes | None], None]
"""Told name and value of one of the store's own keys; None: it is gone."""

_log = structlog.get_logger()


class KindCache:
    """The objects of one kind and who follows them."""

    def __init__(self, resource: tuple[str, str], floor: int) -> None:
        self.resource = resource
        self.objects = Indexes(resource)
        self.ring = Ring(floor)
        self.audience = Audience(resource, self.ring)
        self.subscribers: dict[Subscriber, None] = {}
        self.changed_at = floor

    def publish(self, events: list[Event], history: History) -> None:
        self.changed_at = events[-1].record.version
        history.add(self.ring, events)
        self.audience.dispatch(events)
        for subscriber in tuple(self.subscribers):
            deliver(subscriber, events)


def deliver(subscriber: Subscriber, events: Iterable[Event]) -> None:
    """Tells a subscriber. An event that it cannot take is left out for it, told and counted: one odd object must end
    neither the feed nor, at each start anew, the process."""
    for event in events:
        try:
            subscriber(event)
        except Exception:
            key = event.record.key
            metrics.count_quarantined(key.resource)
            _log.exception(
                "an event is left out: its subscriber failed",
                subscriber=getattr(subscriber, "__qualname__", repr(subscriber)),
                resource=".".join(filter(None, reversed(key.resource))),
                object=f"{key.namespace}/{key.name}",
                version=event.record.version,
            )


class Cache:
    def __init__(self, codec: Codec, history: History | None = None) -> None:
        self._codec = codec
        self._history = history or History()
        self._kinds: dict[tuple[str, str], KindCache] = {}
        self._owned: dict[str, dict[Key, None]] = {}
        self._drafts: dict[int, Draft] = {}
        self._waiting: list[tuple[int, int, Callable[[], None]]] = []
        self._ticket = itertools.count()
        self._floor = 0
        self.own_keys: dict[bytes, tuple[bytes, int]] = {}
        """The store's own keys below `~`: value and revision. For leadership and claims."""
        self._own_followers: dict[OwnFollower, bytes] = {}
        self.revision = 0

    @property
    def version(self) -> int:
        return list_version(self.revision)

    def kind(self, resource: tuple[str, str]) -> KindCache:
        found = self._kinds.get(resource)
        if found is None:
            found = self._kinds[resource] = KindCache(resource, self._floor)
        return found

    def get(self, key: Key) -> Record | None:
        kind = self._kinds.get(key.resource)
        return kind.objects.get(place(key.namespace, key.name)) if kind else None

    def list(self, resource: tuple[str, str], query: Query) -> Page:
        records, remaining = self.kind(resource).objects.select(query)
        return Page(records, self.version, remaining)

    def by_owner(self, uid: str) -> Iterator[Record]:
        for key in tuple(self._owned.get(uid, ())):
            record = self.get(key)
            if record is not None:
                yield record

    def watch(self, resource: tuple[str, str], since: int, query: Query) -> Watcher | None:
        """None when events after `since` are no longer kept."""
        kind = self.kind(resource)
        if since < kind.ring.floor:
            return None
        watcher = Watcher(kind.audience, since, query, lambda: self.version)
        watcher.catch_up(kind.ring.since(since))
        kind.audience.add(watcher)
        return watcher

    def expect(self, write_id: int, draft: Draft) -> None:
        """Announces a value this process is about to write, so that it need not be parsed when it comes back."""
        self._drafts[write_id] = draft

    def forget(self, write_id: int) -> None:
        self._drafts.pop(write_id, None)

    def when(self, revision: int, callback: Callable[[], None]) -> None:
        """Calls back, at once or later, when the cache is at `revision` or past it."""
        if self.revision >= revision:
            callback()
        else:
            heapq.heappush(self._waiting, (revision, next(self._ticket), callback))

    async def reached(self, version: int, timeout_seconds: float) -> None:
        """Raises TimeoutError when the cache does not get to `version` in time."""
        revision = revision_of(version)
        if self.revision >= revision:
            return
        arrived = asyncio.Event()
        self.when(revision, arrived.set)
        async with asyncio.timeout(timeout_seconds):
            await arrived.wait()

    def follow_own(self, prefix: bytes, follower: OwnFollower) -> Callable[[], None]:
        """Calls back for the store's own keys below `prefix`: at once for all there are, then for each change."""
        self._own_followers[follower] = prefix
        for name, (value, _) in tuple(self.own_keys.items()):
            if name.startswith(prefix):
                follower(name, value)

        def stop() -> None:
            self._own_followers.pop(follower, None)

        return stop

    def load(self, entries: Iterable[tuple[bytes, bytes, int]], revision: int) -> None:
        """Starts from a listing (name, value, mod_revision) made at `revision`."""
        for entry in entries:
            self._load_entry(*entry)
        self.revision = revision
        self._floor = self.version
        for kind in self._kinds.values():
            kind.ring.floor = kind.changed_at = self._floor

    def _load_entry(self, name: bytes, value: bytes, modified: int) -> None:
        key = self._codec.keyspace.key(name)
        if key is None:
            self.own_keys[name] = (value, modified)
            return
        record = self._readable(key, name, value, modified)
        if record is not None:
            self._put(record)

    def apply(self, revision: int, changes: Iterable[Change]) -> None:
        """Takes over one whole revision and tells everybody."""
        sub_index = -1
        events: dict[KindCache, list[Event]] = {}
        for change in changes:
            sub_index, event = self._change(change, sub_index)
            if event is not None:
                events.setdefault(self.kind(event.record.key.resource), []).append(event)
        self._advance(revision)
        for kind, found in events.items():
            kind.publish(found, self._history)
        self._call_waiting()

    async def replace(self, entries: Iterable[tuple[bytes, bytes, int]], revision: int) -> None:
        """Takes over a new listing after history was lost: watchers must list again, subscribers get the difference.

        Called by who applies revisions, which has to wait for it. Read aside in turns, taken over at once.
        """
        turn = Turn()
        aside = Cache(self._codec)
        for entry in entries:
            aside._load_entry(*entry)
            await turn.breathe()
        before = {kind.resource: kind.objects for kind in self._kinds.values()}
        own_before = self.own_keys
        self._history.clear()
        self._owned, self.own_keys = aside._owned, aside.own_keys
        self.revision = revision
        self._floor = self.version
        for resource in aside._kinds:
            self.kind(resource)
        for kind in self._kinds.values():
            kind.objects = aside.kind(kind.resource).objects
            kind.audience.drop_all()
            kind.ring = Ring(self._floor)
            kind.audience = Audience(kind.resource, kind.ring)
            kind.changed_at = self._floor
        for name in own_before.keys() | self.own_keys.keys():
            self._tell_own(name, self.own_keys[name][0] if name in self.own_keys else None)
        for kind in tuple(self._kinds.values()):
            for event in _difference(before.get(kind.resource) or Indexes(kind.resource), kind, self.version):
                if event is not None:
                    for subscriber in tuple(kind.subscribers):
                        deliver(subscriber, (event,))
                await turn.breathe()
        self._call_waiting()

    def _change(self, change: Change, sub_index: int) -> tuple[int, Event | None]:
        """(the event's sub-index, the event), the map already changed. The store's own keys have no event."""
        record = self._written_here(change)
        if record is None:
            key = self._codec.keyspace.key(change.name)
            if key is None:
                self._own(change)
                return sub_index, None
            if change.value is not None:
                record = self._readable(key, change.name, change.value, change.revision)
            if record is None:
                return sub_index + 1, self._remove(key, version_of(change.revision, sub_index + 1))
        previous = self._put(record)
        return sub_index_of(record.version), Event(
            EventType.ADDED if previous is None else EventType.MODIFIED, record, previous
        )

    def _written_here(self, change: Change) -> Record | None:
        """The record of a write of this process, made from what the writer gave."""
        if change.value is None or len(change.value) < HEADER_BYTES:
            return None
        sub_index, write_id = header(change.value)
        draft = self._drafts.get(write_id)
        if draft is None or draft.name != change.name:
            return None
        return draft.record(version_of(change.revision, sub_index))

    def _put(self, record: Record) -> Record | None:
        previous = self.kind(record.key.resource).objects.put(record)
        if record.owners or (previous is not None and previous.owners):
            self._own_by(previous, record)
        return previous

    def _remove(self, key: Key, version: int) -> Event | None:
        previous = self.kind(key.resource).objects.remove(place(key.namespace, key.name))
        if previous is None:
            return None
        self._own_by(previous, None)
        return Event(EventType.DELETED, previous.at_version(version), previous)

    def _own_by(self, previous: Record | None, record: Record | None) -> None:
        before, now = previous.owners if previous else (), record.owners if record else ()
        if before == now:
            return
        for uid in before:
            if previous is not None and (owned := self._owned.get(uid)) is not None:
                owned.pop(previous.key, None)
                if not owned:
                    del self._owned[uid]
        for uid in now:
            if record is not None:
                self._owned.setdefault(uid, {})[record.key] = None

    def _own(self, change: Change) -> None:
        if change.value is None:
            self.own_keys.pop(change.name, None)
        else:
            self.own_keys[change.name] = (change.value, change.revision)
        self._tell_own(change.name, change.value)

    def _tell_own(self, name: bytes, value: bytes | None) -> None:
        for follower, prefix in tuple(self._own_followers.items()):
            if name.startswith(prefix):
                follower(name, value)

    def _readable(self, key: Key, name: bytes, value: bytes, revision: int) -> Record | None:
        try:
            return self._codec.record(key, name, value, revision)
        except NotOurs as error:
            self._report(name, error)
            return None

    def _report(self, name: bytes, error: NotOurs) -> None:
        metrics.unreadable.inc()
        _log.error(
            "a value in etcd cannot be read and is left out", key=name.decode(errors="replace"), error=str(error)
        )

    def _advance(self, revision: int) -> None:
        self.revision = revision

    def _call_waiting(self) -> None:
        while self._waiting and self._waiting[0][0] <= self.revision:
            heapq.heappop(self._waiting)[2]()

    def measure(self) -> None:
        """Sets the gauges that would cost too much at every change."""
        metrics.version.set(self.version)
        metrics.kept_event_bytes.set(self._history.bytes + ENCODED.bytes)
        for kind in self._kinds.values():
            metrics.set_objects(kind.resource, len(kind.objects))


def _difference(before: Indexes, kind: KindCache, version: int) -> Iterator[Event | None]:
    """What subscribers have to hear after a new listing, None for what is as it was; deletions carry the listing's
    version."""
    objects = kind.objects
    for record in objects:
        previous = before.get(place(record.key.namespace, record.key.name))
        if previous is None:
            yield Event(EventType.ADDED, record, None)
        elif previous.version != record.version:
            yield Event(EventType.MODIFIED, record, previous)
        else:
            yield None
    for gone in before:
        if objects.get(place(gone.key.namespace, gone.key.name)) is None:
            yield Event(EventType.DELETED, gone.at_version(version), gone)
        else:
            yield None
