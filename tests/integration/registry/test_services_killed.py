"""Processes that write Services, and their etcd, are killed at any moment: no address is lost, none is held twice."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

from controller.registry import Registry
from controller.store import StoreConfig
from tests.etcd_process import EtcdProcess, opened
from tests.integration.registry.conftest import NAMESPACES, admin
from tests.integration.registry.test_services import check_claims, services_in

ROUNDS, WRITERS = 3, 2


async def start_writer(endpoint: str, seed: str) -> asyncio.subprocess.Process:
    command = [sys.executable, "-m", "tests.integration.registry.service_writer", endpoint, "/killed", seed]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 30) == b"ready\n"
    return process


async def test_claims_are_whole_after_kills_of_writers_and_etcd(tmp_path: Path) -> None:
    etcd = EtcdProcess(tmp_path)
    etcd.start()
    dice = random.Random(7)
    try:
        await etcd.answering()
        config = StoreConfig(endpoints=(etcd.endpoint,), encryption_key=b"k" * 32, prefix="/killed")
        async with opened(config) as store:
            await Registry(store).create(admin(), NAMESPACES, "", {"metadata": {"name": "shop"}})
        seen = 0
        for round_ in range(ROUNDS):
            writers = await asyncio.gather(
                *(start_writer(etcd.endpoint, f"{round_}/{number}") for number in range(WRITERS))
            )
            await asyncio.sleep(dice.uniform(0.3, 0.6))
            if round_ == 1:
                etcd.kill()
            for writer in writers:
                writer.kill()
                await writer.wait()
            if round_ == 1:
                etcd.start()
                await etcd.answering()
            async with opened(config) as store:
                await check_claims(store)
                seen += len(services_in(store))
        assert seen, "nothing was written"
    finally:
        etcd.kill()
