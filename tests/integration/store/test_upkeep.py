"""Leadership, compaction, alarms and the private etcd, on real ones."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from controller.store import Store, StoreConfig
from controller.store.border import NoSpace
from controller.store.etcd import Etcd, answers
from controller.store.keys import Keyspace
from controller.store.server import EtcdStartError, endpoint_of, ensure_etcd, socket_directory
from controller.store.types import Compacted, GuardFailed, Key, Unavailable
from tests.etcd_process import Wire, opened
from tests.integration.store.conftest import StartEtcd, config_map

CONFIG_MAPS = ("", "configmaps")


def key_of(name: str) -> Key:
    return Key("", "configmaps", "default", name)


async def test_one_leads_at_a_time_and_the_next_follows_at_once(store: Store, store_config: StoreConfig) -> None:
    order: list[str] = []

    async def stand(candidate: Store, name: str) -> None:
        async with candidate.lead("controller", name):
            order.append(f"{name} leads")
            await asyncio.sleep(0.3)
            order.append(f"{name} ends")

    async with opened(store_config) as other, asyncio.timeout(4):
        await asyncio.gather(stand(store, "a"), stand(other, "b"), stand(store, "c"))
    assert len(order) == 6
    assert all(order[place][0] == order[place + 1][0] for place in (0, 2, 4))


async def test_a_ghost_leader_cannot_write_and_notices_in_time(
    store: Store, store_config: StoreConfig, wire: Wire
) -> None:
    async with opened(replace(store_config, endpoints=(wire.endpoint,))) as cut_off:
        async with cut_off.lead("controller", "ghost", ttl_seconds=2) as ghost:
            assert (await cut_off.create(key_of("a"), config_map("a"), (ghost.guard,))).key.name == "a"
            await wire.cut()
            cut_at = time.monotonic()
            async with asyncio.timeout(8), store.lead("controller", "successor", ttl_seconds=2) as successor:
                assert ghost.lost.is_set(), "before another is elected"
                assert ghost.valid_until <= successor.valid_until
                assert time.monotonic() - cut_at < 6
                await wire.up()
                with pytest.raises(GuardFailed) as caught:
                    await cut_off.create(key_of("b"), config_map("b"), (ghost.guard,))
                assert caught.value.guard == ghost.guard
                await store.create(key_of("b"), config_map("b"), (successor.guard,))
        with pytest.raises(GuardFailed):
            await store.create(key_of("c"), config_map("c"), (successor.guard,))


async def test_compaction_keeps_what_is_young_and_forgets_what_is_old(
    start_etcd: StartEtcd, store_config: StoreConfig
) -> None:
    etcd = await start_etcd()
    async with opened(replace(store_config, endpoints=(etcd.endpoint,))) as store:
        now = time.time()
        first = await store.create(key_of("a"), config_map("a"))
        await store._maintenance.round(now)
        second = await store.update(first.key, config_map("a", x="1"), first.version)
        await store.current()
        await store._maintenance.round(now + 300)
        await store.update(first.key, config_map("a", x="2"), second.version)
        await store.current()
        assert (await store.list_at(CONFIG_MAPS, first.version)).records == [first]
        await store._maintenance.round(now + 601)
        assert (await store.list_at(CONFIG_MAPS, second.version)).records == [second]
        await store.current()
        await store._maintenance.round(now + 901)
        with pytest.raises(Compacted):
            await store.list_at(CONFIG_MAPS, first.version)
        assert len(await anext(store.watch(CONFIG_MAPS, first.version))) == 2, "watches resume from memory"
    async with opened(replace(store_config, endpoints=(etcd.endpoint,))) as restarted:
        with pytest.raises(Compacted):
            restarted.watch(CONFIG_MAPS, first.version)
        assert restarted.get(first.key) is not None


async def test_a_full_etcd_refuses_writes_takes_deletes_and_recovers(
    start_etcd: StartEtcd, store_config: StoreConfig
) -> None:
    quota = 16 * 1024**2
    etcd = await start_etcd(f"--quota-backend-bytes={quota}")
    async with opened(replace(store_config, endpoints=(etcd.endpoint,), quota_bytes=quota)) as store:
        written = []
        with pytest.raises(Unavailable, match="full"):
            for number in range(40):
                written.append(await store.create(key_of(f"n{number}"), config_map("n", x="x" * 900_000)))
                await store._maintenance.look()
        assert not store.healthy
        with suppress(NoSpace):
            await store._etcd.put(b"/of-others", b"x" * 1000, ())
        await store._maintenance.look()
        small = store.create(key_of("small"), config_map("small"))
        deletes = [store.delete(record.key, record.version) for record in written]
        results = await asyncio.gather(*deletes[:3], small, *deletes[3:], return_exceptions=True)
        assert [type(result) for result in results].count(Unavailable) == 1
        await store._maintenance.round(time.time())
        assert store.healthy, store.problems
        await store.create(key_of("small"), config_map("small"))


async def test_a_round_of_maintenance_is_done_by_one_process_and_survives_losing_etcd(
    store: Store, store_config: StoreConfig, wire: Wire
) -> None:
    async with opened(replace(store_config, endpoints=(wire.endpoint,), keep_seconds=0.5)) as cut_off:
        await asyncio.sleep(0.2)
        await wire.cut()
        await asyncio.sleep(0.2)
        assert not cut_off.healthy
        await wire.up()
        assert await cut_off.current() >= store.version


async def test_a_private_etcd_is_ours_alone_restarts_and_is_adopted(tmp_path: Path) -> None:
    first = await ensure_etcd(tmp_path)
    adopted = await ensure_etcd(tmp_path)
    supervising = asyncio.create_task(first.run())
    try:
        assert first.pid is not None
        assert (adopted.endpoints, adopted.pid) == (first.endpoints, None)
        for directory in (socket_directory(tmp_path), tmp_path / "etcd" / "data"):
            assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert not listening_tcp_sockets(first.pid)
        killed = first.pid
        os.kill(killed, signal.SIGKILL)
        async with asyncio.timeout(10):
            while first.pid in (None, killed) or not await answers(first.endpoints, 1):  # noqa: ASYNC110 - it is polled
                await asyncio.sleep(0.05)
    finally:
        supervising.cancel()
        with suppress(asyncio.CancelledError):
            await supervising
    assert not await answers(adopted.endpoints, 1)


def listening_tcp_sockets(pid: int) -> list[str]:
    """Local addresses a process listens on by TCP."""
    held = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # it was closed meanwhile
            held.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return [row[1] for row in rows if f"socket:[{row[9]}]" in held]


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/exe").exists()


async def test_a_private_etcd_does_not_outlive_its_killed_controller(tmp_path: Path) -> None:
    program = (
        "import asyncio, pathlib, sys\n"
        "from controller.store.server import ensure_etcd\n"
        "async def main():\n"
        "    print((await ensure_etcd(pathlib.Path(sys.argv[1]))).pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    arguments = ("-c", program, str(tmp_path))
    controller = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    assert controller.stdout is not None
    pid = int(await controller.stdout.readline())
    controller.kill()
    await controller.wait()
    async with asyncio.timeout(5):
        while alive(pid):  # noqa: ASYNC110 - the kernel does not tell
            await asyncio.sleep(0.02)
    taken_over = await ensure_etcd(tmp_path)
    assert taken_over.pid is not None
    await taken_over.stop()


async def test_an_etcd_that_cannot_start_says_where_its_log_is(tmp_path: Path) -> None:
    (tmp_path / "etcd").mkdir()
    (tmp_path / "etcd" / "data").write_text("in the way")
    with pytest.raises((EtcdStartError, FileExistsError)):
        await ensure_etcd(tmp_path)
    assert endpoint_of(tmp_path).startswith("unix:/")


async def test_a_data_directory_with_a_long_name_still_gets_a_socket(tmp_path: Path) -> None:
    endpoint = await ensure_etcd(tmp_path / ("long" * 30))
    assert await answers(endpoint.endpoints, 1)
    await endpoint.stop()
    assert not socket_directory(tmp_path / ("long" * 30)).exists(), "nothing is left behind"


async def test_own_keys_are_no_objects_and_leave_with_their_leader(store: Store, store_config: StoreConfig) -> None:
    etcd, keyspace = Etcd(store_config.endpoints, None, 5), Keyspace(store_config.prefix)
    async with store.lead("controller", "me"):
        held = (await etcd.read([keyspace.own("leader", "controller")]))[0]
        assert held is not None
        assert held.value == b"me"
    assert await etcd.read([keyspace.own("leader", "controller")]) == [None]
    await etcd.close()
