"""What the store's integration tests need beyond the shared fixtures: an etcd of their own to maltreat."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from api.objects import Object
from tests.etcd_process import EtcdProcess, Wire

StartEtcd = Callable[..., Awaitable[EtcdProcess]]


def config_map(name: str, **data: str) -> Object:
    return {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "namespace": "default"}, "data": data}


@pytest.fixture
async def start_etcd(tmp_path: Path) -> AsyncIterator[StartEtcd]:
    """`await start_etcd("--option=...")`: an etcd that is killed at the end."""
    started: list[EtcdProcess] = []

    async def start(*options: str) -> EtcdProcess:
        process = EtcdProcess(tmp_path / f"etcd{len(started)}", *options)
        started.append(process)
        process.start()
        await process.answering()
        return process

    yield start
    for process in started:
        process.kill()


@pytest.fixture
async def wire(etcd: str, tmp_path: Path) -> AsyncIterator[Wire]:
    """A cuttable connection to the session's etcd."""
    wire = Wire(etcd, tmp_path / "wire")
    await wire.up()
    yield wire
    await wire.cut()
