"""the disk under the control plane is full, a given etcd is at its quota: it is said, outlived, and over afterwards."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest

from tests.etcd_process import EtcdProcess
from tests.integration.chaos.agents import NODES, names
from tests.integration.chaos.clients import MAPS, config_map
from tests.integration.chaos.plane import Plane, running
from tests.integration.chaos.test_stalls import (
    TTL_SECONDS,
    check_unharmed,
    granted_again,
    rolls_on,
    settled,
    signs_of_silence,
    timed,
)
from tests.integration.chaos.wire import Answer, Broken, Unsent

DISK = "256m"
PIECE = "x" * 200_000
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
PODS_PATH = "/api/v1/namespaces/default/pods"


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


async def write_some(plane: Plane) -> list[str]:
    created = ["first", "early", "late"]
    for name in created:
        answer, _ = await timed(plane, "POST", MAPS, config_map(name, PIECE))
        assert answer.status == 201, answer.body
    return created


async def check_kept(plane: Plane, acknowledged: list[str]) -> None:
    kept = {item["metadata"]["name"] for item in (await plane.get(MAPS)).json()["items"]}
    assert set(acknowledged) <= kept


def etcd_of(plane: Plane) -> int:
    """The pid of its private etcd."""
    (child,) = Path(f"/proc/{plane.pid}/task/{plane.pid}/children").read_text().split()
    return int(child)


@asynccontextmanager
async def full(disk: Path) -> AsyncIterator[None]:
    """Whatever gets free inside the block is filled at once; at its end there is room again."""
    filling = asyncio.create_task(keep_full(disk / "filler"))
    try:
        yield
    finally:
        filling.cancel()
        await asyncio.wait([filling])
        (disk / "filler").unlink()


async def check_only_additions_are_refused(plane: Plane, disk: Path, acknowledged: list[str]) -> None:
    """On a disk without a free byte: what is refused says why, the rest goes on."""
    refused, _ = await timed(plane, "POST", MAPS, config_map("second", "x"))
    assert refused.status == 507 and "retry-after" not in refused.headers, refused.body
    assert refused.message.startswith('configmaps "second" cannot be written: the disk of the control plane is full (')
    assert f"{disk}/etcd: " in refused.message and "free space on it" in refused.message
    changed, _ = await timed(plane, "PUT", f"{MAPS}/{acknowledged[0]}", config_map(acknowledged[0], "y"))
    assert changed.status == 507, changed.body
    for method, path, body in (
        ("DELETE", f"{MAPS}/{acknowledged.pop()}", None),
        ("POST", LEASES, {"metadata": {"name": "mine"}, "spec": {"holderIdentity": "me"}}),
        ("DELETE", f"{LEASES}/mine", None),
    ):
        answer, _ = await timed(plane, method, path, body)
        assert answer.status in (200, 201), answer.body
    assert (await plane.get("/livez")).status == (await plane.get("/readyz/etcd")).status == 200
    assert (await plane.get("/readyz")).status == (await plane.get("/readyz/etcd-reserve")).status == 500
    assert await plane.metric("wherry_etcd_reserve_touched") == 1


@pytest.mark.root
async def test_a_disk_without_a_free_byte_ends_nobody_and_refuses_only_additions(tmp_path: Path) -> None:
    plane = Plane(tmp_path / "plane")
    with small_disk(plane.directory) as disk:
        async with settled(plane) as fleet:
            etcd, gone = etcd_of(plane), sorted(names(fleet.pods))[0]
            acknowledged = await write_some(plane)
            async with full(disk):
                more, refusal = await write_until_refused(plane)
                assert refusal.status == 507, refusal.body
                acknowledged += more
                await check_only_additions_are_refused(plane, disk, acknowledged)
                eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": gone}}
                evicted, _ = await timed(plane, "POST", f"{PODS_PATH}/{gone}/eviction", eviction)
                assert evicted.status == 201, evicted.body
                await asyncio.sleep(2 * TTL_SECONDS)
                assert gone not in names(fleet.pods), "its agent could not say that it has ended"
                assert await plane.metric("leader_election_master_status") == 1
            await plane.ready(30)
            assert etcd_of(plane) == etcd and plane.exited() is None
            assert await plane.metric("wherry_etcd_reserve_touched") == 0
            await check_kept(plane, acknowledged)
            created, _ = await timed(plane, "POST", MAPS, config_map("room", "x"))
            assert created.status == 201, created.body
            await granted_again(fleet)
            assert not [node for node in (await fleet.client.list(NODES))["items"] if signs_of_silence(node)]
            await rolls_on(fleet, "v1")


@pytest.mark.root
async def test_a_control_plane_starts_on_a_full_disk_and_takes_deletions(tmp_path: Path) -> None:
    plane = Plane(tmp_path / "plane")
    with small_disk(plane.directory) as disk:
        async with running(plane):
            acknowledged = await write_some(plane)
            async with full(disk):
                acknowledged += (await write_until_refused(plane))[0]
            fill(disk / "filler")
            plane.kill()
            plane.start()
            await answering(plane)
            fill(disk / "filler")
            await check_only_additions_are_refused(plane, disk, acknowledged)
            await check_kept(plane, acknowledged)
            (disk / "filler").unlink()
            await plane.ready(30)
            created, _ = await timed(plane, "POST", MAPS, config_map("room", "x"))
            assert created.status == 201, created.body


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
