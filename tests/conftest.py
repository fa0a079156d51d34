"""Fixtures every room shares: a real etcd for the session, a store on its own prefix for each test."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from controller.store import Store, StoreConfig
from controller.store.etcd import answers
from controller.store.server import command, die_with_parent, endpoint_of, environment, prepare_directories

_START_SECONDS = 30.0
_prefixes = itertools.count(1)


def wait_for_etcd(endpoint: str) -> None:
    """Blocks until etcd answers; for fixtures that have no event loop."""
    deadline = time.monotonic() + _START_SECONDS
    while not asyncio.run(answers((endpoint,), 1.0)):
        assert time.monotonic() < deadline, "etcd did not start"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of a real etcd on a temp dir, for the whole session; use a prefix of your own."""
    data_dir: Path = tmp_path_factory.mktemp("etcd")
    run = prepare_directories(data_dir)
    child = subprocess.Popen(
        command(data_dir), cwd=run, env=environment(), stderr=subprocess.DEVNULL, preexec_fn=die_with_parent
    )
    try:
        wait_for_etcd(endpoint_of(data_dir))
        yield endpoint_of(data_dir)
    finally:
        child.kill()
        child.wait()


@pytest.fixture
def store_config(etcd: str) -> StoreConfig:
    """A store's configuration with a prefix nobody used before."""
    return StoreConfig(endpoints=(etcd,), encryption_key=b"k" * 32, prefix=f"/test{next(_prefixes)}")


@pytest.fixture
async def store(store_config: StoreConfig) -> AsyncIterator[Store]:
    """An open, running store, empty at first."""
    opened = await Store.open(store_config)
    running = asyncio.create_task(opened.run())
    try:
        yield opened
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await opened.close()
