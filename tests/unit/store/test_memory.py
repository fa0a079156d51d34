"""The parts of the cache that need no etcd: sorted map and indexes, kept events, selector transitions, compaction."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest

from api.selectors import parse_field_selector, parse_label_selector
from controller.store.history import History, Ring, weight
from controller.store.indexes import Indexes
from controller.store.maintenance import decide
from controller.store.query import Query
from controller.store.types import ENCODED_BYTES, Compacted, Event, EventType, Key, Record
from controller.store.watchers import Audience, Watcher, translated

PODS = ("", "pods")


def pod(name: str, version: int, node: str = "", namespace: str = "default", **labels: str) -> Record:
    raw = b'{"metadata":{"resourceVersion":"%d"}}' % version
    fields = {"metadata.name": name, "metadata.namespace": namespace, "spec.nodeName": node}
    return Record(Key(*PODS, namespace, name), version, raw, labels, fields)


def added(record: Record) -> Event:
    return Event(EventType.ADDED, record, None)


def names(records: list[Record]) -> list[str]:
    return [record.key.name for record in records]


@pytest.fixture
def pods() -> Indexes:
    indexes = Indexes(PODS)
    for record in (
        pod("b", 1, "n1", app="x"),
        pod("a", 2, "n2", app="y"),
        pod("c", 3, app="x"),
        pod("a", 4, "n1", "default-2", app="x"),
    ):
        indexes.put(record)
    return indexes


def test_lists_are_in_the_order_of_etcd(pods: Indexes) -> None:
    listed = [(record.key.namespace, record.key.name) for record in pods]
    assert listed == [("default-2", "a"), ("default", "a"), ("default", "b"), ("default", "c")]
    assert listed == sorted(listed, key=lambda pair: "/".join(pair).encode())


def test_a_list_narrows_by_namespace_labels_and_fields(pods: Indexes) -> None:
    assert names(pods.select(Query(namespace="default"))[0]) == ["a", "b", "c"]
    assert names(pods.select(Query(labels=parse_label_selector("app=x")))[0]) == ["a", "b", "c"]
    assert names(pods.select(Query("default", labels=parse_label_selector("app!=x")))[0]) == ["a"]
    assert names(pods.select(Query(fields=parse_field_selector("spec.nodeName=n1")))[0]) == ["a", "b"]
    assert names(pods.select(Query("default", fields=parse_field_selector("metadata.name=c")))[0]) == ["c"]
    assert pods.select(Query("default", fields=parse_field_selector("metadata.name=z")))[0] == []


def test_pages_join_to_the_whole_list_and_say_what_remains(pods: Indexes) -> None:
    first, remaining = pods.select(Query(limit=3))
    assert (len(first), remaining) == (3, 1)
    last = first[-1].key
    rest, remaining = pods.select(Query(limit=3, after=(last.namespace, last.name)))
    assert first + rest == list(pods)
    assert remaining == 0
    chosen, remaining = pods.select(Query(limit=1, labels=parse_label_selector("app=x")))
    assert (len(chosen), remaining) == (1, 1)


def test_indexes_follow_changes_and_forget_what_is_gone(pods: Indexes) -> None:
    pods.put(pod("b", 5, "n2", app="z"))
    pods.remove("default/a")
    assert names(list(pods.lookup("spec.nodeName", "n2"))) == ["b"]
    assert names(list(pods.lookup("spec.nodeName", "n1"))) == ["a"]
    assert names(list(pods.lookup("label:app", "z"))) == ["b"]
    assert list(pods.lookup("label:app", "y")) == []
    with pytest.raises(KeyError):
        pods.lookup("spec.restartPolicy", "Always")


def test_kept_events_stay_within_one_budget_and_the_oldest_go_first() -> None:
    history = History(kept_bytes=10 * weight(added(pod("a", 1))))
    busy, quiet = Ring(0), Ring(0)
    history.add(quiet, [added(pod("q", 1))])
    for version in range(2, 30):
        history.add(busy, [added(pod("b", version))])
    assert (len(quiet), quiet.floor) == (0, 1)
    assert (len(busy), busy.floor) == (10, 19)
    assert [event.record.version for event in busy.since(27)] == [28, 29]
    assert history.bytes <= 10 * weight(added(pod("a", 1)))


@pytest.mark.parametrize(
    ("before", "now", "seen"),
    [
        (None, "x", EventType.ADDED),
        (None, "y", None),
        ("x", "x", EventType.MODIFIED),
        ("y", "x", EventType.ADDED),
        ("x", "y", EventType.DELETED),
        ("y", "y", None),
        ("x", None, EventType.DELETED),
        ("y", None, None),
    ],
)
def test_a_selector_sees_entering_as_added_and_leaving_as_deleted(
    before: str | None, now: str | None, seen: EventType | None
) -> None:
    query = Query(labels=parse_label_selector("app=x"))
    previous = pod("p", 5, app=before) if before else None
    record = pod("p", 9, app=now or before or "")
    event = Event(
        EventType.DELETED if now is None else EventType.MODIFIED if before else EventType.ADDED, record, previous
    )
    got = translated(query, event)
    assert (got.type if got else None) == seen
    if got is not None:
        assert got.record.version == 9
        assert got.record.labels == {"app": "x"}
        assert got is event or got is translated(query, event), "encoded once for all watchers"


async def test_events_reach_the_watchers_they_concern_and_no_others() -> None:
    audience = Audience(PODS, Ring(0))
    queries = {
        "everyone": Query(),
        "node": Query(fields=parse_field_selector("spec.nodeName=n1")),
        "namespace": Query(namespace="kube-system"),
        "name": Query("default", fields=parse_field_selector("metadata.name=a")),
    }
    watchers = {name: Watcher(audience, 0, query, lambda: 100) for name, query in queries.items()}
    for watcher in watchers.values():
        audience.add(watcher)
    before, now = pod("a", 1), pod("a", 2, "n1")
    audience.dispatch([added(before)])
    audience.dispatch([Event(EventType.MODIFIED, now, before), added(pod("a", 3, namespace="kube-system"))])
    audience.dispatch([Event(EventType.MODIFIED, pod("a", 4, "n2"), now)])
    seen = {}
    for name, watcher in watchers.items():
        seen[name] = [(event.type.value, event.record.version) for event in await anext(watcher)]
    assert seen["everyone"] == [("ADDED", 1), ("MODIFIED", 2), ("ADDED", 3), ("MODIFIED", 4)]
    assert seen["node"] == [("ADDED", 2), ("DELETED", 4)]
    assert seen["namespace"] == [("ADDED", 3)]
    assert seen["name"] == [("ADDED", 1), ("MODIFIED", 2), ("MODIFIED", 4)]


async def test_a_slow_watcher_is_dropped_and_others_go_on() -> None:
    history, ring = History(kept_events=5), Ring(0)
    audience = Audience(PODS, ring)
    slow, quick = (Watcher(audience, 0, Query(), lambda: 0) for _ in range(2))
    audience.add(slow)
    audience.add(quick)
    seen = []
    for version in range(1, 20):
        event = added(pod("p", version))
        history.add(ring, [event])
        audience.dispatch([event])
        seen += await anext(quick)
    assert [event.record.version for event in seen] == list(range(1, 20))
    with pytest.raises(Compacted):
        await anext(slow)


async def test_a_watcher_says_up_to_where_it_handed_everything_out() -> None:
    audience = Audience(PODS, Ring(0))
    watcher = Watcher(audience, 3, Query(), lambda: 50)
    assert watcher.version == 50
    watcher.offer([added(pod("p", 10)), added(pod("p", 11))], 0)
    assert watcher.version == 3
    await anext(watcher)
    assert watcher.version == 50
    watcher.close()
    with pytest.raises(StopAsyncIteration):
        await anext(watcher)


def test_compaction_goes_to_the_newest_mark_that_is_old_enough() -> None:
    marks = [(0.0, 10), (60.0, 20), (120.0, 30)]
    assert decide(marks, 100.0, 40, 600).compact_to == 0
    plan = decide(marks, 665.0, 40, 600)
    assert plan.compact_to == 20
    assert plan.marks == [(120.0, 30), (665.0, 40)]
    assert decide(marks, 130.0, 40, 0).compact_to == 30


def test_a_clock_that_was_set_back_neither_loses_history_nor_stops_compaction() -> None:
    plan = decide([(5000.0, 10)], 1400.0, 20, 600)
    assert plan.compact_to == 0
    assert decide(plan.marks, 2000.0, 30, 600).compact_to == 20


def test_what_events_keep_for_their_watchers_is_bounded_however_large_they_are() -> None:
    """3,000 changes of an object of 20 kB: their lines are encoded once for all who follow, and not kept for ever."""
    history, ring = History(), Ring(0)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        previous: Record | None = None
        for version in range(1, 3001):
            raw = b'{"metadata":{"resourceVersion":"%d"},"data":"%b"}' % (version, b"x" * 20_000)
            record = Record(Key(*PODS, "default", "a"), version, raw, {}, {})
            event = Event(EventType.ADDED if previous is None else EventType.MODIFIED, record, previous)
            history.add(ring, [event])
            assert event.line is event.line, "one for all who read it now"
            previous = record
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert kept < history.bytes * 1.1 + ENCODED_BYTES
    assert history.bytes > 55_000_000


def test_a_small_event_costs_no_more_than_it_is_counted_for() -> None:
    history, ring = History(), Ring(0)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        previous = None
        for version in range(1, 5001):
            record = pod("a", version, "n1", app="x")
            history.add(ring, [Event(EventType.MODIFIED, record, previous)])
            previous = record
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert kept < history.bytes * 1.1


def test_an_encoding_that_is_being_made_is_not_forgotten() -> None:
    loop = asyncio.new_event_loop()
    try:
        event = added(pod("a", 1))
        event.forms["made"], event.forms["pending"] = b"x", loop.create_future()
        event.forget_encoded()
        assert list(event.forms) == ["pending"]
    finally:
        loop.close()
