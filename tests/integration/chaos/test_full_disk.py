"""The disk under the private etcd is full, a given etcd is at its quota: it is said, outlived, and over afterwards."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.etcd_process import EtcdProcess
from tests.integration.chaos.agents import names
from tests.integration.chaos.clients import MAPS, config_map
from tests.integration.chaos.plane import Plane
from tests.integration.chaos.test_stalls import (
    TTL_SECONDS,
    check_unharmed,
    granted_again,
    rolls_on,
    settled,
    timed,
)
from tests.integration.chaos.wire import Answer, Broken, Unsent

DISK = "160m"
PIECE = "x" * 200_000


@contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """A tmpfs at `directory`. Needs root."""
    directory.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=700", "tmpfs", str(directory)], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def fill(ballast: Path) -> None:
    """Until nothing more fits."""
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


async def keep_full(ballast: Path) -> None:
    """Also of what etcd gives back when it ends."""
    while True:
        fill(ballast)
        await asyncio.sleep(0.05)


async def write_until_refused(plane: Plane) -> tuple[list[str], Answer]:
    """(names of what was acknowledged, the first refusal)."""
    acknowledged: list[str] = []
    for number in itertools.count():
        assert number < 1000, "it never gets full"
        name = f"big{number}"
        answer, _ = await timed(plane, "POST", MAPS, config_map(name, PIECE))
        if answer.status != 201:
            return acknowledged, answer
        acknowledged.append(name)
        await asyncio.sleep(0.03)
    raise AssertionError


async def check_kept(plane: Plane, acknowledged: list[str]) -> None:
    kept = {item["metadata"]["name"] for item in (await plane.get(MAPS)).json()["items"]}
    assert set(acknowledged) <= kept


@pytest.mark.root
async def test_a_full_disk_is_said_and_outlived(tmp_path: Path) -> None:
    plane = Plane(tmp_path / "plane")
    with small_disk(plane.directory / "etcd") as disk:
        async with settled(plane) as fleet:
            before = names(fleet.pods)
            filling = asyncio.create_task(keep_full(disk / "ballast"))
            acknowledged, refusal = await write_until_refused(plane)
            assert refusal.status in (503, 504), refusal.body
            assert refusal.headers["retry-after"] == "1"
            await asyncio.sleep(2 * TTL_SECONDS)
            second, _ = await timed(plane, "POST", MAPS, config_map("second", "x"))
            assert second.status in (503, 504)
            assert "etcd does not answer" in second.message
            assert (await plane.get("/livez")).status == 200
            assert (await plane.get("/readyz")).status == 500
            assert (await plane.get("/api/v1/pods?resourceVersion=0")).status == 200
            assert f"the disk of {disk} is full" in plane.log
            filling.cancel()
            (disk / "ballast").unlink()
            await plane.ready(30)
            await check_kept(plane, acknowledged)
            await granted_again(fleet)
            await asyncio.sleep(2 * TTL_SECONDS)
            await check_unharmed(fleet, before)
            await rolls_on(fleet, "v1")


async def test_a_given_etcd_at_its_quota_is_said_and_made_room_in(tmp_path: Path) -> None:
    etcd = EtcdProcess(tmp_path / "given", "--quota-backend-bytes=20000000")
    etcd.start()
    plane = Plane(tmp_path / "plane", ("--etcd-endpoints", etcd.endpoint))
    try:
        async with settled(plane) as fleet:
            before = names(fleet.pods)
            acknowledged, refusal = await write_until_refused(plane)
            assert refusal.status == 503 and "full" in refusal.message, refusal.body
            assert refusal.headers["retry-after"] == "1"
            await check_kept(plane, acknowledged)
            plane.kill()
            plane.start()
            await answering(plane)
            await check_kept(plane, acknowledged)
            await asyncio.gather(*(delete(plane, name) for name in acknowledged[1:]))
            await plane.ready(90)
            created, _ = await timed(plane, "POST", MAPS, config_map("room", "x"))
            assert created.status == 201
            await check_kept(plane, acknowledged[:1])
            await granted_again(fleet)
            await asyncio.sleep(2 * TTL_SECONDS)
            await check_unharmed(fleet, before)
            await rolls_on(fleet, "v1")
    finally:
        etcd.kill()


async def answering(plane: Plane) -> None:
    """Reads are served; it may not be ready, for it cannot write."""
    deadline = time.monotonic() + 30
    while True:
        with suppress(Unsent, Broken):
            if (await plane.get(MAPS)).status == 200:
                return
        assert time.monotonic() < deadline, plane.log[-3000:]
        await asyncio.sleep(0.1)


async def delete(plane: Plane, name: str) -> None:
    while True:
        answer, _ = await timed(plane, "DELETE", f"{MAPS}/{name}")
        if answer.status in (200, 404):
            return
        assert answer.status in (503, 504), answer.body
        await asyncio.sleep(0.5)
