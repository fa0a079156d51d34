"""An API process' share of Service writes, without rest, until it is killed: run by test_services_killed."""

from __future__ import annotations

import asyncio
import random
import sys

from controller.registry import Registry
from controller.registry.registry import RegistrySettings
from controller.store import StoreConfig
from tests.etcd_process import opened
from tests.integration.registry.test_services import SMALL, act

WORKERS = 6


async def main(endpoint: str, prefix: str, seed: str) -> None:
    config = StoreConfig(endpoints=(endpoint,), encryption_key=b"k" * 32, prefix=prefix)
    async with opened(config) as store:
        registry = Registry(store, RegistrySettings(ranges=SMALL))
        print("ready", flush=True)

        async def work(number: int) -> None:
            dice = random.Random(f"{seed}/{number}")
            while True:
                await act(registry, dice)

        await asyncio.gather(*map(work, range(WORKERS)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
