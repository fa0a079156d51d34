"""Acknowledged writes survive kills, and counters count right: etcd killed -9 under load."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import replace

from controller.store import Store, StoreConfig
from controller.store.types import Key, KeyExists, Record, StoreError, Unavailable, UnknownOutcome, VersionMismatch
from tests.etcd_process import EtcdProcess, opened
from tests.integration.store.conftest import StartEtcd, config_map

COUNTER = Key("", "configmaps", "default", "counter")
KILLS = 3


class Load:
    """Writers that remember what they were told."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.told: Counter[str] = Counter()
        self.created: list[Record] = []
        self.unknown: set[Key] = set()
        self.values: list[int] = []

    async def create(self, writer: int) -> None:
        for number in range(10_000):
            key = Key("", "configmaps", "default", f"w{writer}-{number}")
            try:
                self.created.append(await self._store.create(key, config_map(key.name)))
            except UnknownOutcome:
                self.unknown.add(key)
            except StoreError as error:
                self.told[type(error).__name__] += 1

    async def count(self) -> None:
        while True:
            try:
                record = await self._store.read(COUNTER)
                assert record is not None
                value = int(record.parse()["data"]["n"]) + 1
                await self._store.update(COUNTER, config_map("counter", n=str(value)), record.version)
            except VersionMismatch:
                continue
            except UnknownOutcome:
                self.told["unknown increments"] += 1
            except Unavailable:
                continue
            else:
                self.values.append(value)


async def kill_and_restart(etcd: EtcdProcess) -> None:
    for _ in range(KILLS):
        await asyncio.sleep(0.4)
        etcd.kill()
        await asyncio.sleep(0.1)
        etcd.start()
        await etcd.answering()
    await asyncio.sleep(0.3)


async def test_what_was_acknowledged_is_there_after_kills_and_nobody_hears_of_a_conflict_that_was_none(
    start_etcd: StartEtcd, store_config: StoreConfig
) -> None:
    etcd = await start_etcd()
    config = replace(store_config, endpoints=(etcd.endpoint,))
    async with opened(config) as store:
        await store.create(COUNTER, config_map("counter", n="0"))
        load = Load(store)
        tasks = [asyncio.create_task(load.create(writer)) for writer in range(16)]
        tasks += [asyncio.create_task(load.count()) for _ in range(4)]
        await kill_and_restart(etcd)
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
        assert load.told[KeyExists.__name__] == 0
        assert len(load.created) > 100
        await store.current()
        for record in load.created:
            assert store.get(record.key) == record
        assert len(set(load.values)) == len(load.values), "no increment was lost"
        counter = store.get(COUNTER)
        assert counter is not None
        reached = int(counter.parse()["data"]["n"])
        assert len(load.values) <= reached <= len(load.values) + load.told["unknown increments"] + 4
    async with opened(config) as reopened:
        assert {record.key for record in load.created} <= {
            record.key for record in reopened.list(("", "configmaps")).records
        }
