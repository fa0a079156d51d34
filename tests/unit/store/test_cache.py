"""The cache by itself: whole revisions in, what readers, watchers and subscribers see of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from api.objects import Object
from api.selectors import parse_field_selector, parse_label_selector
from controller.store import metrics
from controller.store.border import Change
from controller.store.cache import Cache
from controller.store.cipher import Cipher
from controller.store.history import History, Ring, weight
from controller.store.keys import Keyspace
from controller.store.query import Page, Query
from controller.store.types import Compacted, Event, EventType, Key, Record
from controller.store.values import Codec, Draft
from controller.store.watchers import Audience, Watcher, route_of, translated

KEYSPACE = Keyspace("/test")
CODEC = Codec(KEYSPACE, Cipher(b"k" * 32))
MAPS, PODS = ("", "configmaps"), ("", "pods")
EVERYTHING = Query()
Shown = tuple[str, str, int]


def key(name: str, namespace: str = "ns", plural: str = "configmaps") -> Key:
    return Key("", plural, namespace, name)


def draft(where: Key, owners: Iterable[str] = (), **labels: str) -> Draft:
    metadata: Object = {"name": where.name, "namespace": where.namespace, "labels": labels}
    metadata["ownerReferences"] = [{"uid": uid} for uid in owners]
    return Draft(CODEC, where, KEYSPACE.name(where), {"kind": "X", "apiVersion": "v1", "metadata": metadata})


def put(where: Key, revision: int, sub_index: int = 0, *, owners: Iterable[str] = (), **labels: str) -> Change:
    return Change(KEYSPACE.name(where), draft(where, owners, **labels).value(sub_index, 1), revision)


def gone(where: Key, revision: int) -> Change:
    return Change(KEYSPACE.name(where), None, revision)


def at(revision: int, sub_index: int = 0) -> int:
    return revision * 4096 + sub_index


def shown(events: Iterable[Event]) -> list[Shown]:
    return [(event.type.value, event.record.key.name, event.record.version) for event in events]


def names(page: Page) -> list[str]:
    return [record.key.name for record in page.records]


def loaded(*changes: Change, revision: int = 10, history: History | None = None) -> Cache:
    cache = Cache(CODEC, history)
    cache.load([(change.name, change.value or b"", change.revision) for change in changes], revision)
    return cache


def pending(watcher: Watcher | None) -> list[Shown]:
    assert watcher is not None
    return shown(watcher.take() or [])


def test_a_listing_is_there_at_its_revision_and_nothing_before_it_can_be_watched() -> None:
    cache = loaded(put(key("b"), 4), put(key("a"), 9, 3), put(key("p", plural="pods"), 5))
    assert (cache.revision, cache.version) == (10, at(10, 4095))
    page = cache.list(MAPS, EVERYTHING)
    assert [(record.key, record.version) for record in page.records] == [(key("a"), at(9, 3)), (key("b"), at(4))]
    assert (page.version, page.remaining, page.last) == (at(10, 4095), 0, ("ns", "b"))
    assert cache.get(key("p", plural="pods")) is not None and cache.get(key("z")) is None
    assert cache.get(Key("apps", "deployments", "ns", "a")) is None
    assert cache.watch(MAPS, at(10, 4094), EVERYTHING) is None
    assert pending(cache.watch(MAPS, at(10, 4095), EVERYTHING)) == []
    assert cache.watch(("", "nodes"), at(10), EVERYTHING) is None, "a kind that comes later has the same floor"
    assert cache.kind(MAPS).changed_at == at(10, 4095)
    assert (Page([], 1, 0).last, cache.list(("", "nodes"), EVERYTHING).records) == (None, [])


def test_a_revision_appears_as_a_whole_with_its_events_in_order() -> None:
    cache = loaded(put(key("a"), 4))
    told: list[Shown] = []
    seen: list[list[str]] = []

    def follow(event: Event) -> None:
        told.extend(shown([event]))
        seen.append([*names(cache.list(MAPS, EVERYTHING)), str(cache.revision)])

    cache.kind(MAPS).subscribers[follow] = None
    early = cache.watch(MAPS, at(10, 4095), EVERYTHING)
    cache.apply(12, [put(key("b"), 12), gone(key("a"), 12), put(key("p", plural="pods"), 12, 2), put(key("b"), 12, 3)])
    wanted = [("ADDED", "b", at(12)), ("DELETED", "a", at(12, 1)), ("MODIFIED", "b", at(12, 3))]
    assert told == wanted == pending(early)
    assert seen == [["b", "12"]] * 3, "whoever hears of an event finds it in the cache"
    assert pending(cache.watch(MAPS, at(12), EVERYTHING)) == wanted[1:]
    assert pending(cache.watch(PODS, at(10, 4095), EVERYTHING)) == [("ADDED", "p", at(12, 2))]
    assert (cache.kind(MAPS).changed_at, cache.kind(PODS).changed_at) == (at(12, 3), at(12, 2))
    deleted = cache.kind(MAPS).ring.since(at(12))[0]
    assert deleted.previous is not None and deleted.previous.version == at(4)
    assert deleted.record.parse()["metadata"]["resourceVersion"] == str(at(12, 1))


def test_a_deletion_of_what_was_never_there_is_no_event_but_keeps_its_place() -> None:
    cache = loaded()
    cache.apply(11, [gone(key("a"), 11), gone(key("b"), 11)])
    cache.apply(12, [put(key("a"), 12), put(key("c"), 12, 1)])
    cache.apply(13, [gone(key("x"), 13), gone(key("a"), 13), gone(key("c"), 13)])
    assert pending(cache.watch(MAPS, at(12, 1), EVERYTHING)) == [
        ("DELETED", "a", at(13, 1)),
        ("DELETED", "c", at(13, 2)),
    ]


def test_own_writes_are_not_parsed_again_and_a_forgotten_or_foreign_one_is() -> None:
    cache = loaded()
    mine, other = draft(key("a"), app="x"), draft(key("b"), app="x")
    cache.expect(7, mine)
    cache.expect(8, other)
    cache.forget(8)
    cache.forget(9)
    cache.apply(11, [Change(mine.name, mine.value(0, 7), 11), Change(other.name, other.value(1, 8), 11)])
    assert cache.get(key("a")) is mine.made and mine.made is not None and mine.made.version == at(11)
    assert other.made is None
    found = cache.get(key("b"))
    assert found is not None and (found.version, found.labels) == (at(11, 1), {"app": "x"})
    cache.apply(12, [Change(other.name, other.value(0, 7), 12)])
    found = cache.get(key("b"))
    assert found is not None and found.version == at(12), "another key's write with our write id is not ours"


def test_what_cannot_be_read_is_left_out_and_counted_and_takes_what_it_replaced_along() -> None:
    before = metrics.unreadable._value.get()
    cache = loaded(put(key("a"), 4), Change(KEYSPACE.name(key("bad")), b"junk", 5))
    assert names(cache.list(MAPS, EVERYTHING)) == ["a"]
    cache.apply(11, [Change(KEYSPACE.name(key("a")), b"x" * 40, 11), Change(KEYSPACE.name(key("b")), b"", 11)])
    assert names(cache.list(MAPS, EVERYTHING)) == []
    assert pending(cache.watch(MAPS, at(10, 4095), EVERYTHING)) == [("DELETED", "a", at(11))]
    assert metrics.unreadable._value.get() - before == 3


def test_the_stores_own_keys_are_kept_apart() -> None:
    name, other = KEYSPACE.own("leader", "x"), KEYSPACE.own("leader", "y")
    cache = loaded(Change(name, b"one", 3))
    assert cache.own_keys == {name: (b"one", 3)}
    cache.apply(11, [Change(other, b"two", 11), put(key("a"), 11), Change(name, None, 11), Change(name, None, 11)])
    assert cache.own_keys == {other: (b"two", 11)}
    assert pending(cache.watch(MAPS, at(10, 4095), EVERYTHING)) == [("ADDED", "a", at(11))]


def test_the_owned_are_found_by_their_owner_while_they_are() -> None:
    def owned(uid: str) -> list[str]:
        return [record.key.name for record in cache.by_owner(uid)]

    cache = loaded(put(key("a"), 4, owners=["u"]), put(key("b"), 5, owners=["u", "w"]), put(key("c"), 6))
    assert (owned("u"), owned("w"), owned("x")) == (["a", "b"], ["b"], [])
    cache.apply(11, [put(key("c"), 11, owners=["u"]), put(key("b"), 11, 1, owners=["w"])])
    assert (owned("u"), owned("w")) == (["a", "c"], ["b"])
    cache.apply(12, [put(key("a"), 12), put(key("c"), 12, 1, owners=["u"]), gone(key("b"), 12)])
    assert (owned("u"), owned("w")) == (["c"], [])
    cache.apply(13, [gone(key("c"), 13)])
    assert owned("u") == [] and cache._owned == {}


async def test_a_new_listing_drops_watchers_and_tells_subscribers_the_difference() -> None:
    cache = loaded(
        put(key("a"), 4, owners=["u"]), put(key("b"), 5), put(key("c"), 6), Change(KEYSPACE.own("x"), b"1", 3)
    )
    told: list[Event] = []
    cache.kind(MAPS).subscribers[told.append] = None
    cache.apply(11, [put(key("d"), 11)])
    watcher, called = cache.watch(MAPS, at(10, 4095), EVERYTHING), list[int]()
    cache.when(40, lambda: called.append(cache.revision))
    told.clear()
    entries = [put(key("b"), 5), put(key("c"), 30), put(key("e"), 31)]
    await cache.replace([(change.name, change.value or b"", change.revision) for change in entries], 40)
    assert names(cache.list(MAPS, EVERYTHING)) == ["b", "c", "e"]
    assert sorted(shown(told)) == [
        ("ADDED", "e", at(31)),
        ("DELETED", "a", at(40, 4095)),
        ("DELETED", "d", at(40, 4095)),
        ("MODIFIED", "c", at(30)),
    ]
    modified = next(event for event in told if event.type is EventType.MODIFIED)
    assert modified.previous is not None and modified.previous.version == at(6)
    assert all(event.previous is not None for event in told if event.type is EventType.DELETED)
    assert next(event for event in told if event.type is EventType.ADDED).previous is None
    assert watcher is not None and watcher._dropped
    assert (list(cache.by_owner("u")), cache.own_keys, called) == ([], {}, [40])
    assert cache.watch(MAPS, at(39), EVERYTHING) is None and cache.version == at(40, 4095)
    fresh = cache.watch(MAPS, cache.version, EVERYTHING)
    cache.apply(41, [put(key("f"), 41)])
    assert pending(fresh) == [("ADDED", "f", at(41))]
    assert shown(told)[-1] == ("ADDED", "f", at(41))


async def test_who_waits_for_a_revision_is_called_when_it_is_there() -> None:
    cache, called = loaded(), list[str]()
    cache.when(10, lambda: called.append("now"))
    cache.when(13, lambda: called.append("second"))
    cache.when(12, lambda: called.append("first"))
    cache.when(13, lambda: called.append("third"))
    assert called == ["now"]
    cache.apply(11, [])
    assert called == ["now"]
    cache.apply(12, [])
    assert called == ["now", "first"]
    cache.apply(14, [])
    assert called == ["now", "first", "second", "third"]
    await cache.reached(at(14, 9), 0.01)
    with pytest.raises(TimeoutError):
        await cache.reached(at(15), 0.01)
    waiting = asyncio.create_task(cache.reached(at(15, 7), 5))
    await asyncio.sleep(0)
    cache.apply(15, [])
    await waiting


def test_the_gauges_are_set_when_asked() -> None:
    cache = loaded(put(key("a"), 4), put(key("b"), 4, 1))
    cache.apply(11, [gone(key("a"), 11)])
    cache.measure()
    assert metrics.version._value.get() == at(11, 4095)
    assert metrics.kept_event_bytes._value.get() == cache._history.bytes > 0
    (found,) = [s for m in metrics._objects.collect() for s in m.samples if s.labels["resource"].endswith("configmaps")]
    assert found.value == 1


# ---- history ----


RAW = b'{"metadata":{"resourceVersion":"0"}}'


@dataclass(frozen=True)
class About:
    """What selectors look at."""

    app: str = ""
    node: str = ""
    namespace: str = "ns"


def record(name: str, version: int, raw: bytes = RAW, about: About = About()) -> Record:
    fields = {"metadata.name": name, "metadata.namespace": about.namespace, "spec.nodeName": about.node}
    return Record(key(name, about.namespace, "pods"), version, raw, {"app": about.app}, fields)


def test_an_event_weighs_what_it_alone_keeps_in_memory() -> None:
    old, new = record("a", 1, b"12345"), record("a", 2, b"1234567")
    assert weight(Event(EventType.ADDED, new, None)) == 800
    assert weight(Event(EventType.MODIFIED, new, old)) == 805
    assert weight(Event(EventType.DELETED, new, old)) == 812


def test_the_oldest_events_of_all_rings_go_first() -> None:
    history, one, two = History(kept_events=3), Ring(0), Ring(0)
    for version, ring in ((1, one), (2, two), (3, one)):
        history.add(ring, [Event(EventType.ADDED, record("a", version), None)])
    assert (len(one), len(two), one.floor, two.floor, history.bytes) == (2, 1, 0, 0, 2400)
    history.add(two, [Event(EventType.ADDED, record("a", version), None) for version in (4, 5)])
    assert (len(one), len(two), one.floor, two.floor, history.bytes) == (1, 2, 1, 2, 2400)
    assert [event.record.version for event in two.since(4)] == [5]
    assert [event.record.version for event in two.since(2)] == [4, 5] and one.since(3) == []
    history.clear()
    assert history.bytes == 0 and not history._order


def test_the_budget_is_met_to_the_byte() -> None:
    history, ring = History(kept_bytes=1600), Ring(0)
    history.add(ring, [Event(EventType.ADDED, record("a", version), None) for version in (1, 2)])
    assert (len(ring), history.bytes) == (2, 1600)
    history.add(ring, [Event(EventType.ADDED, record("a", 3), None)])
    assert (len(ring), history.bytes, ring.floor) == (2, 1600, 1)


def test_a_long_ring_is_trimmed_and_keeps_what_it_should() -> None:
    history, ring = History(kept_events=1000), Ring(0)
    for version in range(1, 5001):
        history.add(ring, [Event(EventType.ADDED, record("a", version), None)])
        assert len(ring._events) <= 2100
    assert (len(ring), ring.floor) == (1000, 4000)
    assert [event.record.version for event in ring.since(4000)] == list(range(4001, 5001))
    assert [event.record.version for event in ring.since(4998)] == [4999, 5000]


# ---- watchers ----


def event(version: int, name: str = "a", before: Record | None = None, **about: str) -> Event:
    kind = EventType.ADDED if before is None else EventType.MODIFIED
    return Event(kind, record(name, version, about=About(**about)), before)


async def test_a_watcher_takes_only_what_is_new_and_in_its_namespace_and_selection() -> None:
    audience = Audience(PODS, Ring(0))
    query = Query("ns", labels=parse_label_selector("app=x"))
    watcher = Watcher(audience, 5, query, lambda: 77)
    assert watcher.query is query and aiter(watcher) is watcher
    watcher.offer([event(5, app="x"), event(6, app="y"), event(7, app="x"), event(8, app="x", namespace="other")], 0)
    assert shown(await anext(watcher)) == [("ADDED", "a", 7)]
    watcher.offer([event(6, app="x"), event(7, app="x")], 0)
    assert not watcher._pending and watcher.version == 77
    watcher.offer([event(8, app="x")], 7)
    assert watcher.version == 7 and not watcher._dropped
    assert shown(await anext(watcher)) == [("ADDED", "a", 8)]


async def test_what_the_ring_forgot_before_it_was_read_is_lost_and_said_so() -> None:
    dropped = metrics.dropped_watchers._value.get()
    audience = Audience(PODS, Ring(0))
    watcher = Watcher(audience, 0, Query(), lambda: 77)
    audience.add(watcher)
    waiting = asyncio.create_task(anext(watcher))
    await asyncio.sleep(0)
    watcher.offer([event(3)], 3)
    with pytest.raises(Compacted, match=r"^the watcher was too slow; list again$"):
        await waiting
    assert (watcher.version, watcher._pending, audience._size) == (0, [], 0)
    assert metrics.dropped_watchers._value.get() - dropped == 1
    with pytest.raises(Compacted):
        await anext(watcher)


async def test_a_closed_watcher_hands_out_what_it_has_and_ends() -> None:
    audience = Audience(PODS, Ring(0))
    watcher = Watcher(audience, 0, Query(), lambda: 77)
    audience.add(watcher)
    waiting = asyncio.create_task(anext(watcher))
    await asyncio.sleep(0)
    audience.dispatch([event(1)])
    assert shown(await waiting) == [("ADDED", "a", 1)]
    audience.dispatch([event(2)])
    watcher.close()
    watcher.close()
    assert audience._size == 0 and watcher.version == 1
    audience.dispatch([event(3)])
    assert [shown(batch) async for batch in watcher] == [[("ADDED", "a", 2)]]
    assert watcher.version == 2
    other = Watcher(audience, 0, Query(), lambda: 77)
    waiting = asyncio.create_task(anext(other))
    await asyncio.sleep(0)
    other.close()
    with pytest.raises(StopAsyncIteration):
        await waiting


async def test_a_cancelled_reader_loses_nothing() -> None:
    watcher = Watcher(Audience(PODS, Ring(0)), 0, Query(), lambda: 77)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await anext(watcher)
    watcher.offer([event(1)], 0)
    watcher.offer([event(2)], 0)
    assert shown(await anext(watcher)) == [("ADDED", "a", 1), ("ADDED", "a", 2)]


def test_the_way_to_a_watcher_is_the_one_value_all_its_events_have() -> None:
    by_name = parse_field_selector("metadata.name=a")
    assert route_of(Query()) is None and route_of(Query(labels=parse_label_selector("a=b"))) is None
    assert route_of(Query("ns")) == ("metadata.namespace", "ns")
    assert route_of(Query("ns", fields=by_name)) == ("metadata.name", "a")
    assert route_of(Query(fields=parse_field_selector("metadata.name!=a"))) is None
    assert route_of(Query("ns", fields=parse_field_selector("metadata.name!=a"))) == ("metadata.namespace", "ns")


def test_an_audience_finds_those_concerned_and_forgets_those_who_left() -> None:
    audience = Audience(PODS, Ring(0))
    on_n = Query(fields=parse_field_selector("spec.nodeName=n"))
    watchers = {
        "all": Watcher(audience, 0, Query(), lambda: 9),
        "n": Watcher(audience, 0, on_n, lambda: 9),
        "m": Watcher(audience, 0, on_n, lambda: 9),
        "none": Watcher(audience, 0, Query(fields=parse_field_selector("spec.nodeName=")), lambda: 9),
        "ns": Watcher(audience, 0, Query("ns"), lambda: 9),
    }

    def heard() -> dict[str, list[int]]:
        found = {name: [seen.record.version for seen in watcher._pending] for name, watcher in watchers.items()}
        for watcher in watchers.values():
            watcher._pending.clear()
        return {name: versions for name, versions in found.items() if versions}

    for watcher in watchers.values():
        audience.add(watcher)
    assert audience._size == 5
    moved = event(3, before=record("a", 1), node="n")
    audience.dispatch([event(1), event(2, "b", namespace="other", node="n"), moved])
    assert heard() == {"all": [1, 2, 3], "n": [2, 3], "m": [2, 3], "none": [1, 3], "ns": [1, 3]}
    audience.remove(watchers["m"])
    audience.remove(watchers["m"])
    audience.remove(watchers["all"])
    audience.dispatch([event(4, node="n")])
    assert heard() == {"n": [4], "ns": [4]}
    audience.remove(watchers["n"])
    audience.remove(watchers["ns"])
    assert (audience._size, set(audience._routed_fields)) == (1, {"spec.nodeName"})
    audience.dispatch([event(5, node="n"), event(6)])
    assert heard() == {"none": [6]}
    audience.drop_all()
    assert (audience._size, audience._routed, audience._everyone, audience._routed_fields) == (0, {}, {}, {})
    assert watchers["none"]._dropped


def test_a_dispatch_drops_who_is_behind_the_floor_of_the_ring() -> None:
    ring = Ring(0)
    audience = Audience(PODS, ring)
    plain, routed = (Watcher(audience, 0, query, lambda: 9) for query in (Query(), Query("ns")))
    for watcher in (plain, routed):
        audience.add(watcher)
    audience.dispatch([event(1)])
    ring.floor = 1
    audience.dispatch([event(2)])
    assert plain._dropped and routed._dropped


@pytest.mark.parametrize(
    ("kind", "before", "now", "seen"),
    [
        (EventType.DELETED, "x", "x", "DELETED"),
        (EventType.DELETED, "y", "y", None),
        (EventType.MODIFIED, "x", "y", "DELETED"),
        (EventType.MODIFIED, "y", "x", "ADDED"),
        (EventType.MODIFIED, "x", "x", "MODIFIED"),
        (EventType.MODIFIED, "y", "y", None),
        (EventType.ADDED, None, "x", "ADDED"),
        (EventType.ADDED, None, "y", None),
    ],
)
def test_how_a_selection_sees_a_change(kind: EventType, before: str | None, now: str, seen: str | None) -> None:
    previous = record("a", 1, about=About(before)) if before is not None else None
    change = Event(kind, record("a", 2, about=About(now)), previous)
    found = translated(Query(labels=parse_label_selector("app=x")), change)
    assert (found and found.type.value) == seen
    if found is not None:
        assert found.record.version == 2 and found.record.labels == {"app": "x"}


def test_a_query_looks_at_objects_only_when_it_selects() -> None:
    some = parse_label_selector("app=x"), parse_field_selector("spec.nodeName=n")
    empty = parse_label_selector(""), parse_field_selector("")
    assert not Query("ns").selects and not Query(labels=empty[0], fields=empty[1]).selects
    assert Query(labels=some[0]).selects and Query(labels=empty[0], fields=some[1]).selects
    one, two = record("a", 1, about=About("x")), record("a", 1, about=About("x", "n"))
    asked = [Query(), Query(labels=some[0]), Query(fields=some[1]), Query(labels=some[0], fields=some[1])]
    assert [(query.matches(one), query.matches(two)) for query in asked] == [(True,) * 2] * 2 + [(False, True)] * 2
    assert not Query(labels=some[0], fields=some[1]).matches(record("a", 1, about=About("y", "n")))


# ---- subscribers ----


async def test_a_subscriber_that_fails_on_one_object_hears_of_all_others_and_ends_nothing() -> None:
    cache, heard = loaded(put(key("old"), 4)), []

    def fragile(event: Event) -> None:
        if event.record.key.name == "poison":
            raise KeyError("spec")
        heard.append(event.record.key.name)

    counted = metrics._quarantined.labels("configmaps")
    before = counted._value.get()
    others: list[str] = []
    cache.kind(MAPS).subscribers |= {fragile: None, lambda event: others.append(event.record.key.name): None}
    cache.apply(11, [put(key("a"), 11), put(key("poison"), 11, 1), put(key("b"), 11, 2)])
    await cache.replace([(KEYSPACE.name(key("poison")), draft(key("poison")).value(0, 1), 12)], 12)
    assert (heard, cache.revision) == (["a", "b", "a", "b", "old"], 12)
    assert others == ["a", "poison", "b", "poison", "a", "b", "old"]
    assert counted._value.get() - before == 2
