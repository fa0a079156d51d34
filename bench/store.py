"""What the store costs: creates a second, a list of 30,000 pods, fan-out to watchers, resident memory.

Run by people: `python bench/store.py [pods]`. Starts an etcd of its own in a temp dir and compares with bare puts of
the same bytes through the stubs, alone and 50 to a transaction (the floor of a group commit).
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from api.objects import Object
from controller.store import Store, StoreConfig
from controller.store.border import Condition
from controller.store.etcd import Commit, Etcd
from controller.store.server import EtcdEndpoint, ensure_etcd
from controller.store.types import Key

WRITERS = 64
WATCHERS = 30
PODS = ("", "pods")
FILLER = {f"annotation-{number}": "x" * 90 for number in range(55)}


def pod(name: str) -> Object:
    """About 7 KB, as a pod with status and managedFields is."""
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"00000000-0000-0000-0000-{name:>12}",
            "labels": {"app": "bench", "pod-template-hash": "abcdef"},
            "annotations": FILLER,
        },
        "spec": {"nodeName": f"node-{hash(name) % 1000}", "containers": [{"name": "c", "image": "busybox:1"}]},
        "status": {"phase": "Running"},
    }


def resident_mb() -> float:
    fields = Path("/proc/self/status").read_text().split("VmRSS:")[1].split()
    return int(fields[0]) / 1024


class Timed:
    """Prints rate and CPU of what happened inside."""

    def __init__(self, title: str, amount: int) -> None:
        self._title, self._amount = title, amount

    def __enter__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        rate, each = self._amount / wall, cpu / self._amount * 1e6
        print(f"{self._title:58} {rate:10,.0f} /s {each:9.1f} us CPU each, {wall:6.2f} s, RSS {resident_mb():.0f} MB")


async def floor(endpoint: EtcdEndpoint, amount: int) -> None:
    etcd = Etcd(endpoint.endpoints, None, 10)
    value = b"x" * 7000
    with Timed("floor: single puts, 64 at once", amount):
        names = iter(range(amount))

        async def put() -> None:
            for number in names:
                await etcd.put(b"/floor/%d" % number, value, (Condition(b"/floor/%d" % number, "mod", "=", 0),))

        await asyncio.gather(*(put() for _ in range(WRITERS)))
    with Timed("floor: nested puts, 50 a transaction", amount):
        for start in range(0, amount, 50):
            commit = Commit()
            for number in range(start, start + 50):
                commit.put(b"/nested/%d" % number, value, 0)
            await etcd.commit(commit)
    await etcd.close()


async def create(store: Store, prefix: str, amount: int) -> None:
    names = iter(range(amount))

    async def writer() -> None:
        for number in names:
            name = f"{prefix}-{number}"
            await store.create(Key(*PODS, "default", name), pod(name))

    await asyncio.gather(*(writer() for _ in range(WRITERS)))


async def fan_out(store: Store, amount: int) -> None:
    async def follow() -> int:
        seen, size = 0, 0
        watcher = store.watch(PODS, store.version)
        async for batch in watcher:
            seen += len(batch)
            size += sum(len(event.line) for event in batch)
            if seen == amount:
                watcher.close()
        return seen

    followers = [asyncio.create_task(follow()) for _ in range(WATCHERS)]
    await asyncio.sleep(0)
    with Timed(f"creates with {WATCHERS} watchers ({WATCHERS} events each)", amount):
        await create(store, "fan", amount)
        assert sum(await asyncio.gather(*followers)) == amount * WATCHERS


async def main(amount: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        endpoint = await ensure_etcd(Path(directory))
        try:
            await floor(endpoint, 5_000)
            await measure(StoreConfig(endpoint.endpoints, b"k" * 32), amount)
        finally:
            await endpoint.stop()


async def measure(config: StoreConfig, amount: int) -> None:
    store = await Store.open(config)
    running = asyncio.create_task(store.run())
    with Timed("creates through the store, 64 writers", amount):
        await create(store, "pod", amount)
    with Timed("list, all bytes joined", amount):
        body = b",".join(record.raw for record in store.list(PODS).records)
    print(f"{'':58} {len(body) / 1e6:.0f} MB")
    del body
    await fan_out(store, 5_000)
    with Timed("reads behind the barrier, 32 at once", 10_000):
        key = Key(*PODS, "default", "pod-1")

        async def read(times: int) -> None:
            for _ in range(times):
                await store.read(key)

        await asyncio.gather(*(read(10_000 // 32) for _ in range(32)))
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await store.close()
    del store
    with Timed("opening a store on this etcd", amount):
        store = await Store.open(config)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 30_000))
