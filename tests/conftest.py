"""Fixtures every room shares: a real etcd for the session, a store on its own prefix for each test."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from controller.store import Store, StoreConfig
from tests.etcd_process import EtcdProcess, opened

_prefixes = itertools.count(1)


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of a real etcd on a temp dir, for the whole session; use a prefix of your own."""
    process = EtcdProcess(tmp_path_factory.mktemp("etcd"))
    process.start()
    try:
        process.listening()
        yield process.endpoint
    finally:
        process.kill()


@pytest.fixture
def store_config(etcd: str) -> StoreConfig:
    """A store's configuration with a prefix nobody used before."""
    return StoreConfig(endpoints=(etcd,), encryption_key=b"k" * 32, prefix=f"/test{next(_prefixes)}")


@pytest.fixture
async def store(store_config: StoreConfig) -> AsyncIterator[Store]:
    """An open, running store, empty at first."""
    async with opened(store_config) as running:
        yield running
