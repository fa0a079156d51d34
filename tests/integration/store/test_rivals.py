"""Many writers of one key: who lost is told with the commit that decided it, and told the truth."""

from __future__ import annotations

import asyncio

import pytest

from controller.store import Store, StoreConfig
from controller.store.types import GuardFailed, Key, KeyExists, KeyMissing, Record, VersionMismatch
from tests.etcd_process import opened
from tests.integration.store.conftest import config_map

KEY = Key("", "configmaps", "default", "one")


async def test_of_many_updates_of_one_version_one_wins_and_the_others_hear_of_it_at_once(store: Store) -> None:
    first = await store.create(KEY, config_map("one"))
    before = store._committer.commits
    updates = [store.update(KEY, config_map("one", by=str(number)), first.version) for number in range(100)]
    results = await asyncio.gather(*updates, return_exceptions=True)
    (winner,) = [result for result in results if isinstance(result, Record)]
    losers = [result for result in results if isinstance(result, VersionMismatch)]
    assert [loser.current for loser in losers] == [winner] * 99
    assert store._committer.commits - before <= 2


async def test_many_creates_of_one_key_make_one_object(store: Store) -> None:
    results = await asyncio.gather(
        *(store.create(KEY, config_map("one", by=str(number))) for number in range(100)), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == sorted(["Record"] + ["KeyExists"] * 99)
    assert store._committer.commits <= 3


async def test_who_waits_behind_a_deletion_finds_nothing_and_may_create(store: Store) -> None:
    first = await store.create(KEY, config_map("one"))
    results = await asyncio.gather(
        store.delete(KEY, first.version),
        store.update(KEY, config_map("one", x="1"), first.version),
        store.create(KEY, config_map("one", x="2")),
        store.create(KEY, config_map("one", x="3")),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [Record, KeyMissing, Record, KeyExists]
    found = await store.read(KEY)
    assert found is not None
    assert found.parse()["data"] == {"x": "2"}


async def test_the_next_process_of_one_name_does_not_wait_for_its_dead_predecessor(
    store: Store, store_config: StoreConfig
) -> None:
    async with opened(store_config) as dying:
        dead = await dying.lead("controller", "one").__aenter__()
        assert dead._renewing is not None
        dead._renewing.cancel()
        async with asyncio.timeout(2), store.lead("controller", "one") as successor:
            assert successor.guard != dead.guard
            with pytest.raises(GuardFailed):
                await store.create(KEY, config_map("one"), (dead.guard,))
