"""The watch cache on a real etcd: resuming, paging, barriers, lost history, slow readers, outages."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import orjson
import pytest
from prometheus_client import REGISTRY

from api.selectors import parse_field_selector, parse_label_selector
from controller.store import Page, Query, Store, StoreConfig
from controller.store.etcd import Etcd
from controller.store.history import History
from controller.store.keys import Keyspace
from controller.store.types import Compacted, Event, EventType, Key, Record, Unavailable
from controller.store.values import revision_of
from tests.etcd_process import Wire, opened
from tests.integration.store.conftest import StartEtcd, config_map

CONFIG_MAPS = ("", "configmaps")
PODS = ("", "pods")


def key_of(name: str, plural: str = "configmaps", namespace: str = "default") -> Key:
    return Key("", plural, namespace, name)


async def create(store: Store, *names: str, size: int = 0) -> list[Record]:
    return await asyncio.gather(*(store.create(key_of(name), config_map(name, x="x" * size)) for name in names))


async def collect(store: Store, since: int, amount: int, query: Query | None = None) -> list[Event]:
    events: list[Event] = []
    watcher = store.watch(CONFIG_MAPS, since, query or Query())
    async with asyncio.timeout(5):
        while len(events) < amount:
            events += await anext(watcher)
    watcher.close()
    return events


async def test_an_object_and_an_event_are_encoded_once_for_all(store: Store) -> None:
    since = store.version
    (record,) = await create(store, "a")
    watchers = [store.watch(CONFIG_MAPS, since) for _ in range(3)]
    lines = [(await anext(watcher))[0].line for watcher in watchers]
    assert lines[0] is lines[1] is lines[2]
    assert orjson.loads(lines[0]) == {"type": "ADDED", "object": record.parse()}
    assert store.list(CONFIG_MAPS).records[0].raw is record.raw


async def test_subscribers_of_all_kinds_hear_after_the_cache_holds_the_whole_revision(
    store: Store,
) -> None:
    seen: list[tuple[str, bool]] = []
    keys = [key_of("a"), key_of("a", "secrets"), key_of("b")]

    def hear(event: Event) -> None:
        seen.append((event.record.key.plural, all(store.get(key) for key in keys)))

    stops = [store.subscribe(resource, hear) for resource in (CONFIG_MAPS, ("", "secrets"))]
    await asyncio.gather(*(store.create(key, config_map(key.name)) for key in keys))
    assert sorted(seen) == [("configmaps", True), ("configmaps", True), ("secrets", True)]
    for stop in stops:
        stop()
    await create(store, "c")
    assert len(seen) == 3


async def test_indexes_answer_for_nodes_owners_and_labels(store: Store) -> None:
    owner = {"ownerReferences": [{"uid": "owner-1", "controller": True}], "labels": {"app": "web"}}
    pod = await store.create(key_of("p", "pods"), {"metadata": {"name": "p", **owner}, "spec": {"nodeName": "n1"}})
    map_ = await store.create(key_of("m"), {"metadata": {"name": "m", **owner}})
    assert list(store.by_node("n1")) == [pod]
    assert {record.key for record in store.by_owner("owner-1")} == {pod.key, map_.key}
    assert list(store.by_index(PODS, "label:app", "web")) == [pod]
    moved = await store.update(pod.key, {"metadata": {"name": "p"}, "spec": {"nodeName": "n2"}}, pod.version)
    assert (list(store.by_node("n1")), list(store.by_node("n2"))) == ([], [moved])
    assert [record.key for record in store.by_owner("owner-1")] == [map_.key]


async def test_a_watch_with_selectors_sees_entering_and_leaving(store: Store) -> None:
    query = Query("default", fields=parse_field_selector("spec.nodeName=n1"), labels=parse_label_selector("app=web"))
    watcher = store.watch(PODS, store.version, query)
    labels = {"labels": {"app": "web"}}
    pod = await store.create(key_of("p", "pods"), {"metadata": {"name": "p", **labels}})
    bound = await store.update(pod.key, {"metadata": {"name": "p", **labels}, "spec": {"nodeName": "n1"}}, pod.version)
    left = await store.update(pod.key, {"metadata": {"name": "p"}, "spec": {"nodeName": "n1"}}, bound.version)
    seen = [(event.type, event.record.version, event.record.labels) for event in await anext(watcher)]
    assert seen == [(EventType.ADDED, bound.version, {"app": "web"}), (EventType.DELETED, left.version, {"app": "web"})]


async def test_reads_are_linearizable_across_stores_and_share_their_barrier(
    store: Store, store_config: StoreConfig
) -> None:
    async with opened(store_config) as other:
        for number in range(20):
            record = await store.create(key_of(f"r{number}"), config_map("r"))
            assert await other.read(record.key) == record

        def asked() -> float:
            samples = [REGISTRY.get_sample_value("etcd_request_duration_seconds_count", {"operation": name}) for name in
                       ("kv.Range", "kv.Txn")]  # fmt: skip
            return sum(sample or 0 for sample in samples)

        before = asked()
        await asyncio.gather(*(other.current() for _ in range(200)))
        assert asked() - before <= 3


async def test_a_barrier_passes_on_an_etcd_that_others_write_to(store: Store, store_config: StoreConfig) -> None:
    etcd = Etcd(store_config.endpoints, None, 5)
    started = time.monotonic()
    for _ in range(3):
        await etcd.put(b"/of-others", b"", ())
        await store.current()
    assert time.monotonic() - started < 2
    await etcd.close()


async def test_what_others_put_below_our_prefix_is_left_out(store: Store, store_config: StoreConfig) -> None:
    etcd, keyspace = Etcd(store_config.endpoints, None, 5), Keyspace(store_config.prefix)
    (record,) = await create(store, "a")
    for name in (keyspace.name(key_of("garbage")), keyspace.start + b"x", keyspace.start + b"\xff/a/b/c"):
        await etcd.put(name, b"garbage", ())
    await etcd.close()
    assert await store.read(key_of("garbage")) is None
    async with opened(store_config) as other:
        assert other.list(CONFIG_MAPS).records == [record]


async def test_a_restarted_store_lets_every_watcher_resume(store_config: StoreConfig) -> None:
    async with opened(store_config) as store:
        start = store.version
        records = await create(store, *(f"n{number}" for number in range(30)))
        gone = await store.delete(records[0].key, records[0].version)
        events = await collect(store, start, 31)
    async with opened(store_config) as restarted:
        assert restarted.version >= gone.version
        for cut in (start, records[10].version, records[29].version):
            wanted = [(event.type, event.record) for event in events if event.record.version > cut]
            assert [(event.type, event.record) for event in await collect(restarted, cut, len(wanted))] == wanted


async def test_revisions_that_etcd_sends_in_fragments_are_applied_whole(
    store: Store, store_config: StoreConfig, wire: Wire
) -> None:
    async with opened(replace(store_config, endpoints=(wire.endpoint,))) as behind:
        start = await behind.current()
        await wire.cut()
        written: dict[int, list[Key]] = {}
        for commit in range(6):
            for record in await create(store, *(f"n{commit}-{number}" for number in range(90)), size=10_000):
                written.setdefault(revision_of(record.version), []).append(record.key)
        assert await fragments(store_config, revision_of(start) + 1), "etcd cuts its message"
        torn: list[Event] = []

        def look(event: Event) -> None:
            if not all(behind.get(key) for key in written[revision_of(event.record.version)]):
                torn.append(event)

        behind.subscribe(CONFIG_MAPS, look)
        await wire.up()
        events = await collect(behind, start, 540)
        assert [event.record.version for event in events] == sorted({event.record.version for event in events})
        assert not torn


async def fragments(config: StoreConfig, since: int) -> int:
    """How many messages of a watch end inside a revision, up to the newest one."""
    etcd, keyspace = Etcd(config.endpoints, None, 5), Keyspace(config.prefix)
    found = 0
    async for batch in etcd.watch(keyspace.start, keyspace.end, since):
        found += not batch.complete
        if batch.changes and batch.complete:
            break
    await etcd.close()
    return found


async def test_old_snapshots_are_exact_and_page_through(store: Store) -> None:
    records = await create(store, *(f"n{number:02}" for number in range(20)))
    snapshot = store.list(CONFIG_MAPS)
    await store.delete(records[3].key, records[3].version)
    await store.update(records[5].key, config_map("n05", x="new"), records[5].version)
    await create(store, "n051")
    query, pages = Query("default", limit=7), list[Page]()
    while not pages or pages[-1].remaining:
        after = pages[-1].last if pages else None
        pages.append(await store.list_at(CONFIG_MAPS, snapshot.version, replace(query, after=after)))
    assert [len(page.records) for page in pages] == [7, 7, 6]
    assert {page.version for page in pages} == {snapshot.version}
    assert [record for page in pages for record in page.records] == snapshot.records
    query = Query(fields=parse_field_selector("metadata.name=n03"))
    assert (await store.list_at(CONFIG_MAPS, snapshot.version, query)).records == [records[3]]
    assert (await store.list_at(CONFIG_MAPS, store.version)).records == store.list(CONFIG_MAPS).records


async def test_a_slow_watcher_is_dropped_and_must_list_again(store_config: StoreConfig) -> None:
    async with opened(store_config, History(kept_events=50)) as store:
        start = store.version
        slow = store.watch(CONFIG_MAPS, start)
        quick = asyncio.create_task(collect(store, start, 200))
        for number in range(20):
            await create(store, *(f"n{number}-{place}" for place in range(10)))
        assert len(await quick) == 200
        with pytest.raises(Compacted):
            await anext(slow)
        with pytest.raises(Compacted):
            store.watch(CONFIG_MAPS, start)


async def test_compacted_under_a_watcher_the_cache_starts_over_and_loses_nothing(
    store: Store, store_config: StoreConfig, wire: Wire
) -> None:
    async with opened(replace(store_config, endpoints=(wire.endpoint,))) as cut_off:
        kept, changed, gone = await create(cut_off, "kept", "changed", "gone")
        heard: list[tuple[EventType, str]] = []
        cut_off.subscribe(CONFIG_MAPS, lambda event: heard.append((event.type, event.record.key.name)))
        watcher = cut_off.watch(CONFIG_MAPS, cut_off.version)
        await wire.cut()
        await store.current()
        await store.delete(gone.key, gone.version)
        changed = await store.update(changed.key, config_map("changed", x="1"), changed.version)
        (new,) = await create(store, "new")
        etcd = Etcd(store_config.endpoints, None, 5)
        await etcd.compact(revision_of(new.version))
        await etcd.close()
        await wire.up()
        assert await cut_off.read(new.key) == new
        assert cut_off.list(CONFIG_MAPS).records == [changed, kept, new]
        assert sorted(heard) == [
            (EventType.ADDED, "new"),
            (EventType.DELETED, "gone"),
            (EventType.MODIFIED, "changed"),
        ]
        with pytest.raises(Compacted):
            await anext(watcher)
        with pytest.raises(Compacted):
            cut_off.watch(CONFIG_MAPS, kept.version)
        with pytest.raises(Compacted):
            await cut_off.list_at(CONFIG_MAPS, kept.version)
        started_over = cut_off.version
        (later,) = await create(cut_off, "later")
        assert [event.record for event in await collect(cut_off, started_over, 1)] == [later]


async def test_while_etcd_is_away_calls_wait_and_then_say_so_and_nothing_is_lost(
    start_etcd: StartEtcd, store_config: StoreConfig
) -> None:
    etcd = await start_etcd()
    config = replace(store_config, endpoints=(etcd.endpoint,), request_timeout_seconds=2.0)
    async with opened(config) as store:
        (record,) = await create(store, "a")
        watcher = store.watch(CONFIG_MAPS, store.version)
        etcd.kill()
        await asyncio.sleep(0.2)
        assert not store.healthy
        started = time.monotonic()
        results = await asyncio.gather(
            store.create(key_of("b"), config_map("b")), store.current(), store.read(record.key), return_exceptions=True
        )
        assert [type(result) for result in results] == [Unavailable] * 3
        assert 1.9 < time.monotonic() - started < 4.5
        assert store.get(record.key) == record
        waiting = asyncio.create_task(store.create(key_of("c"), config_map("c")))
        etcd.start()
        assert store.get((await waiting).key) is not None
        assert await store.read(record.key) == record
        assert [event.record.key.name for event in await anext(watcher)] == ["c"]
        assert store.healthy


async def test_an_etcd_that_cannot_be_reached_is_an_error_at_once(store_config: StoreConfig) -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        await Store.open(replace(store_config, endpoints=("unix:/nonexistent/etcd",), request_timeout_seconds=0.5))


async def test_the_next_endpoint_takes_over_when_one_fails(store: Store, store_config: StoreConfig, wire: Wire) -> None:
    async with opened(replace(store_config, endpoints=(wire.endpoint, *store_config.endpoints))) as both:
        await create(both, "a")
        await wire.cut()
        await asyncio.sleep(0.1)
        (record,) = await create(both, "b")
        assert await store.read(record.key) == record
