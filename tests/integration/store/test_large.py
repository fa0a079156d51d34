"""Many large objects: the store opens over them, lists their past, and a reply may be larger than its request."""

from __future__ import annotations

import asyncio

from controller.store import Query, Store, StoreConfig
from controller.store.border import Stored
from controller.store.paging import FIRST_KEYS, LEAST_KEYS, MOST_KEYS, keys_for_next
from controller.store.types import Key, KeyExists, Record
from tests.etcd_process import opened
from tests.integration.store.conftest import config_map

SIZE = 1_000_000
AMOUNT = 90
MAPS = ("", "configmaps")


def key_of(number: int) -> Key:
    return Key("", "configmaps", "default", f"n{number:03}")


async def filled(store: Store) -> list[Record]:
    creates = (store.create(key_of(number), config_map("n", x="x" * SIZE)) for number in range(AMOUNT))
    return await asyncio.gather(*creates)


async def test_ninety_megabytes_of_large_objects_are_read_in_pieces(store_config: StoreConfig) -> None:
    async with opened(store_config) as store:
        records = await filled(store)
        past = store.version
        await store.create(Key("", "configmaps", "default", "late"), config_map("late"))
    async with opened(store_config) as restarted:
        assert len(restarted.list(MAPS).records) == AMOUNT + 1
        page = await restarted.list_at(MAPS, past, Query("default"))
        assert [record.version for record in page.records] == [record.version for record in records]


async def test_a_commit_whose_refusals_carry_more_than_a_message_is_not_sent_twice(store: Store) -> None:
    records = await filled(store)
    news = [Key("", "configmaps", "default", f"new{number}") for number in range(20)]
    creates = [store.create(key, config_map("n")) for key in news]
    again = [store.create(one.key, config_map("n")) for one in records]
    results = await asyncio.gather(*creates, *again, return_exceptions=True)
    assert all(isinstance(result, Record) for result in results[:20])
    assert all(isinstance(result, KeyExists) for result in results[20:])


def test_pages_have_the_size_that_the_last_ones_objects_ask_for() -> None:
    def page(size: int) -> list[Stored]:
        return [Stored(b"k", b"x" * size, 1, 1)] * 10

    assert LEAST_KEYS <= FIRST_KEYS <= MOST_KEYS
    assert keys_for_next(page(100)) == MOST_KEYS
    assert keys_for_next(page(3_000_000)) == LEAST_KEYS
    assert LEAST_KEYS < keys_for_next(page(100_000)) < MOST_KEYS
    assert keys_for_next([]) == FIRST_KEYS
