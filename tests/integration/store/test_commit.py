"""Group commit on a real etcd: each rule of the design, seen."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY

from controller.store import Store, StoreConfig
from controller.store.etcd import Etcd
from controller.store.keys import Keyspace
from controller.store.types import (
    Guard,
    GuardFailed,
    Key,
    KeyExists,
    KeyMissing,
    Record,
    StoreError,
    TooLarge,
    UnknownOutcome,
    VersionMismatch,
)
from controller.store.values import revision_of
from tests.etcd_process import Wire, opened
from tests.integration.store.conftest import StartEtcd, config_map

CONFIG_MAPS = ("", "configmaps")
NAMESPACE = Key("", "namespaces", "", "default")


def key_of(name: str, plural: str = "configmaps") -> Key:
    return Key("", plural, "default", name)


async def create_all(store: Store, names: list[str]) -> list[Record | BaseException]:
    return await asyncio.gather(
        *(store.create(key_of(name), config_map(name)) for name in names), return_exceptions=True
    )


async def test_writes_that_wait_together_are_one_commit_and_each_has_its_own_outcome(store: Store) -> None:
    await store.create(key_of("taken"), config_map("taken"))
    results = await create_all(store, ["a", "taken", "b", "c"])
    written = [result for result in results if isinstance(result, Record)]
    assert isinstance(results[1], KeyExists)
    assert [record.key.name for record in written] == ["a", "b", "c"]
    assert len({revision_of(record.version) for record in written}) == 1
    assert len({record.version for record in written}) == 3


async def test_a_writer_reads_what_it_wrote(store: Store) -> None:
    record = await store.create(key_of("a"), config_map("a", x="1"))
    assert store.get(record.key) is record
    record = await store.update(record.key, config_map("a", x="2"), record.version)
    assert store.get(record.key) is record
    gone = await store.delete(record.key, record.version)
    assert store.get(record.key) is None
    assert gone.parse()["data"] == {"x": "2"}


async def test_one_key_is_written_once_a_commit_and_one_of_many_creators_wins(store: Store) -> None:
    outcomes = Counter(type(result) for result in await create_all(store, ["same"] * 20))
    assert outcomes == {Record: 1, KeyExists: 19}


async def test_of_an_update_and_a_delete_at_the_same_version_exactly_one_succeeds(store: Store) -> None:
    for number in range(10):
        record = await store.create(key_of(f"k{number}"), config_map("k"))
        results = await asyncio.gather(
            store.update(record.key, config_map("k", x="1"), record.version),
            store.delete(record.key, record.version),
            store.update(record.key, config_map("k", x="2"), record.version),
            return_exceptions=True,
        )
        assert [isinstance(result, Record) for result in results].count(True) == 1
        failed = [result for result in results if not isinstance(result, Record)]
        assert all(isinstance(error, VersionMismatch | KeyMissing) for error in failed)


async def test_a_lost_race_says_what_is_there_now(store: Store, store_config: StoreConfig) -> None:
    async with opened(store_config) as other:
        first = await store.create(key_of("a"), config_map("a"))
        await other.reached(first.version)
        second = await store.update(first.key, config_map("a", x="1"), first.version)
        with pytest.raises(VersionMismatch) as caught:
            await other.update(first.key, config_map("a", x="2"), first.version)
        assert caught.value.current == second
        with pytest.raises(VersionMismatch):
            await other.delete(first.key, 10**15)


@pytest.mark.parametrize("order", ["guarded first", "guarded last", "guarded around"])
async def test_a_guard_is_never_in_one_commit_with_a_write_of_its_key(store: Store, order: str) -> None:
    namespace = await store.create(NAMESPACE, {"metadata": {"name": "default"}})
    for number in range(10):
        guard = (Guard.unchanged(NAMESPACE, namespace.version),)
        change = store.update(NAMESPACE, {"metadata": {"name": "default"}, "n": number}, namespace.version)
        before = [store.create(key_of(f"early{number}"), config_map("e"), guard)] if order != "guarded last" else []
        after = [store.create(key_of(f"late{number}"), config_map("l"), guard)] if order != "guarded first" else []
        results = await asyncio.gather(*before, change, *after, return_exceptions=True)
        changed = results.pop(len(before))
        assert isinstance(changed, Record)
        for created in results:
            if isinstance(created, Record):
                assert revision_of(created.version) < revision_of(changed.version)
            else:
                assert isinstance(created, GuardFailed)
        namespace = changed


async def test_guards_say_which_of_them_does_not_hold(store: Store) -> None:
    await store.create(NAMESPACE, {"metadata": {"name": "default"}})
    missing = Key("", "namespaces", "", "missing")
    holding = (Guard.exists(NAMESPACE), Guard.absent(missing))
    record = await store.create(key_of("a"), config_map("a"), holding)
    with pytest.raises(GuardFailed) as caught:
        await store.update(record.key, config_map("a", x="1"), record.version, (*holding, Guard.exists(missing)))
    assert caught.value.guard == Guard.exists(missing)
    with pytest.raises(GuardFailed):
        await store.delete(record.key, record.version, (Guard.absent(NAMESPACE),))
    with pytest.raises(GuardFailed):
        await store.update(record.key, config_map("a"), record.version, (Guard.exists(missing),))


async def test_versions_rise_by_every_event_and_writers_know_those_of_their_deletions(store: Store) -> None:
    start = store.version
    records = await asyncio.gather(*(store.create(key_of(f"r{number}"), config_map("r")) for number in range(12)))
    watcher = store.watch(CONFIG_MAPS, start)
    doomed = [store.delete(record.key, record.version) for record in records[:9]]
    updates = [store.update(record.key, config_map("r", x="1"), record.version) for record in records[9:]]
    mixed = [doomed[0], updates[0], doomed[1], doomed[2], updates[1], *doomed[3:], updates[2]]
    failing = store.create(records[11].key, config_map("r"))
    results = await asyncio.gather(*mixed[:5], failing, *mixed[5:], return_exceptions=True)
    events = list(await anext(watcher))
    while len(events) < 24:
        events += await anext(watcher)
    versions = [event.record.version for event in events]
    assert versions == sorted(set(versions))
    acknowledged = {result.key: result for result in results if isinstance(result, Record)}
    assert len(acknowledged) == 12
    for event in events[12:]:
        assert event.record == acknowledged[event.record.key]
    assert watcher.version == store.version


async def test_a_write_that_changes_nothing_is_confirmed_and_makes_no_event(store: Store) -> None:
    record = await store.create(key_of("a"), config_map("a", x="1", y="2"))
    watcher = store.watch(CONFIG_MAPS, record.version)
    assert await store.update(record.key, config_map("a", y="2", x="1"), record.version) is record
    changed = await store.update(record.key, config_map("a", y="3"), record.version)
    assert [event.record for event in await anext(watcher)] == [changed]


async def test_a_write_that_changes_nothing_is_not_believed_on_a_stale_cache(
    store: Store, store_config: StoreConfig, wire: Wire
) -> None:
    record = await store.create(key_of("a"), config_map("a"))
    async with opened(replace(store_config, endpoints=(wire.endpoint,), request_timeout_seconds=3)) as stale:
        wire.hold("replies")
        await store.update(record.key, config_map("a", x="1"), record.version)
        assert stale.get(record.key) == record
        unchanged = asyncio.create_task(stale.update(record.key, config_map("a"), record.version))
        await asyncio.sleep(0.1)
        wire.release()
        with pytest.raises(VersionMismatch):
            await unchanged


async def test_an_etcd_with_default_limits_takes_a_thousand_writes_at_once(
    start_etcd: StartEtcd, store_config: StoreConfig
) -> None:
    etcd = await start_etcd("--max-txn-ops=128", "--max-request-bytes=1572864")
    async with opened(replace(store_config, endpoints=(etcd.endpoint,))) as store:
        before = sent_commits()
        results = await create_all(store, [f"n{number}" for number in range(1000)])
        assert all(isinstance(result, Record) for result in results)
        assert sent_commits() - before <= 10, "none was refused and sent again"
        assert len(store.list(CONFIG_MAPS).records) == 1000


def sent_commits() -> float:
    return REGISTRY.get_sample_value("wherry_store_commit_operations_count") or 0


async def test_a_commit_refused_as_a_whole_is_split_until_only_the_guilty_write_is_refused(
    start_etcd: StartEtcd, store_config: StoreConfig
) -> None:
    etcd = await start_etcd("--max-request-bytes=65536")
    async with opened(replace(store_config, endpoints=(etcd.endpoint,))) as store:
        innocent = [store.create(key_of(f"i{number}"), config_map("i", x="x" * 5_000)) for number in range(60)]
        guilty = store.create(key_of("guilty"), config_map("guilty", x="x" * 900_000))
        results = await asyncio.gather(*innocent[:30], guilty, *innocent[30:], return_exceptions=True)
        assert isinstance(results.pop(30), TooLarge)
        assert all(isinstance(result, Record) for result in results)


async def test_large_writes_among_small_ones_neither_fail_nor_disturb_them(
    start_etcd: StartEtcd, store_config: StoreConfig
) -> None:
    etcd = await start_etcd("--max-txn-ops=128", "--max-request-bytes=1572864")
    async with opened(replace(store_config, endpoints=(etcd.endpoint,))) as store:
        small = [store.create(key_of(f"s{number}"), config_map("s")) for number in range(500)]
        large = store.create(key_of("large", "secrets"), config_map("large", data="x" * 1024 * 1024))
        too_large = store.create(key_of("too-large"), config_map("huge", data="x" * 3 * 1024 * 1024))
        both = asyncio.gather(large, too_large, return_exceptions=True)
        results = await asyncio.gather(*small[:250], both, *small[250:])
        assert len([result for result in results if isinstance(result, Record)]) == 500
        fitting, refused = await both
        assert isinstance(fitting, Record)
        assert isinstance(refused, TooLarge)
        assert store.get(refused_key := key_of("too-large")) is None, refused_key


async def test_secrets_lie_sealed_in_etcd(store: Store, store_config: StoreConfig) -> None:
    key = key_of("password", "secrets")
    record = await store.create(key, config_map("password", word="swordfish"))
    etcd = Etcd(store_config.endpoints, None, 5)
    stored = (await etcd.read([Keyspace(store_config.prefix).name(key)]))[0]
    await etcd.close()
    assert stored is not None
    assert b"swordfish" not in stored.value
    async with opened(store_config) as other:
        assert other.get(key) == record
    async with opened(replace(store_config, encryption_key=b"w" * 32)) as stranger:
        assert stranger.get(key) is None


async def test_a_write_whose_reply_is_lost_is_found_by_its_write_id(
    store: Store, store_config: StoreConfig, wire: Wire
) -> None:
    async with opened(replace(store_config, endpoints=(wire.endpoint,))) as cut_off:
        record = await cut_off.create(key_of("b"), config_map("b"))
        await store.reached(record.version)
        written = store.watch(CONFIG_MAPS, record.version)
        wire.hold("replies")
        creating = asyncio.create_task(cut_off.create(key_of("a"), config_map("a")))
        updating = asyncio.create_task(cut_off.update(record.key, config_map("b", x="1"), record.version))
        async for _ in written:
            if store.get(key_of("a")) is not None and store.get(record.key) != record:
                break
        await wire.cut()
        await wire.up()
        assert await creating == store.get(key_of("a"))
        assert await updating == store.get(record.key)
        assert cut_off.get(key_of("a")) == store.get(key_of("a"))


async def test_a_write_nobody_knows_about_is_unknown_and_never_a_conflict(
    store: Store, store_config: StoreConfig, wire: Wire
) -> None:
    async with opened(replace(store_config, endpoints=(wire.endpoint,))) as cut_off:
        record = await cut_off.create(key_of("b"), config_map("b"))
        wire.hold("requests")
        writes = [
            asyncio.create_task(cut_off.create(key_of("a"), config_map("a"))),
            asyncio.create_task(cut_off.update(record.key, config_map("b", x="1"), record.version)),
            asyncio.create_task(cut_off.delete(record.key, record.version)),
        ]
        await asyncio.sleep(0.1)
        await store.create(key_of("a"), config_map("a", by="another"))
        await wire.cut()
        await wire.up()
        results = await asyncio.gather(*writes, return_exceptions=True)
        assert [type(result) for result in results[:2]] == [UnknownOutcome, UnknownOutcome]
        assert isinstance(results[2], Record), "it waited for the next commit, so it was never sent in vain"
        found = await cut_off.read(key_of("a"))
        assert found is not None
        assert found.parse()["data"] == {"by": "another"}


async def test_a_cancelled_caller_does_not_disturb_the_others(store: Store) -> None:
    tasks = [asyncio.create_task(store.create(key_of(f"c{number}"), config_map("c"))) for number in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, Record) for result in results[1::2])
    assert not any(isinstance(result, StoreError) for result in results)
