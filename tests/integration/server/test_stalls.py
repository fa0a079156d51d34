"""Nothing holds the event loop: each request that once did, at its full size, beside the watchdog.

`held` counts what this process computed while its loop stood still, so that a busy machine fails no test.
"""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from api.objects import Object
from api.watchdog import Stalls
from controller.store.types import Event, EventType, Key, Record
from controller.store.values import spliced
from tests.integration.server.conftest import Answer, Cluster

PODS, MAPS = "/api/v1/namespaces/big/pods", "/api/v1/namespaces/big/configmaps"
HELD_SECONDS = 0.05
MANY = 10_000


@asynccontextmanager
async def watched() -> AsyncIterator[None]:
    """Inside the block nothing may hold the loop. What is there is frozen, as a controller does at its start."""
    gc.collect()
    gc.freeze()
    stalls = Stalls(tick_seconds=0.002)
    watching = asyncio.create_task(stalls.run())
    try:
        yield
        await asyncio.sleep(0.01)
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        gc.unfreeze()
    assert stalls.held < HELD_SECONDS, (
        f"the loop was held for {stalls.held:.3f} s (it stood still for {stalls.longest:.3f} s)"
    )


async def received(cluster: Cluster, path: str, accept: str = "application/json", method: str = "GET") -> int:
    """How long the answer's body is. It is not kept: the client shares the loop."""
    size = 0
    headers = cluster.admin.headers | {"Accept": accept, "Accept-Encoding": "identity"}
    async with cluster.admin.session.request(method, cluster.url + path, headers=headers) as answer:
        assert answer.status == 200
        async for piece in answer.content.iter_any():
            size += len(piece)
    return size


def a_pod(name: str) -> Object:
    metadata = {"name": name, "namespace": "big", "uid": name, "labels": {"app": "x"}}
    spec = {"containers": [{"name": "c", "image": "busybox:1"}], "restartPolicy": "Always"}
    return {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec, "status": {"phase": "Pending"}}


async def fill(cluster: Cluster, amount: int) -> None:
    store = cluster.services.store
    await cluster.namespace("big")
    for start in range(0, amount, 500):
        names = [f"p{number:05}" for number in range(start, min(start + 500, amount))]
        await asyncio.gather(*(store.create(Key("", "pods", "big", name), a_pod(name)) for name in names))


async def test_a_list_of_ten_thousand_pods_in_any_form(cluster: Cluster) -> None:
    await fill(cluster, MANY)
    for path, accept in (
        (PODS, "application/yaml"),
        (f"{PODS}?pretty=true", "application/json"),
        (PODS, "application/json;as=Table;v=v1;g=meta.k8s.io"),
        (PODS, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"),
        (PODS, "application/json"),
    ):
        async with watched():
            assert await received(cluster, path, accept) > MANY * 100, (path, accept)


async def test_a_watch_that_resumes_behind_fifty_thousand_events(cluster: Cluster) -> None:
    store, resource = cluster.services.store, ("", "podtemplates")
    kind, since = store._cache.kind(resource), store.version - 50_000
    kind.ring.floor = since
    plain = b'{"kind":"PodTemplate","apiVersion":"v1","metadata":{"name":"t","namespace":"big"},"template":{"a":"%b"}}'
    for version in range(since + 1, since + 50_001):
        raw = spliced(plain % (b"x" * 700), version)
        record = Record(Key(*resource, "big", "t"), version, raw, {"app": "x"}, {"metadata.namespace": "big"})
        store._cache._history.add(kind.ring, [Event(EventType.ADDED, record, None)])
    for query in ("", "&labelSelector=app%3Dx"):
        async with watched(), asyncio.timeout(60):
            path = f"/api/v1/podtemplates?watch=1&resourceVersion={since}{query}"
            headers = cluster.admin.headers
            async with cluster.admin.session.get(cluster.url + path, headers=headers) as answer:
                lines = 0
                async for piece in answer.content.iter_any():
                    lines += piece.count(b"\n")
                    if lines == 50_000:
                        break


@pytest.mark.parametrize("keys", [1, 13_000])
async def test_a_large_config_map_patched_a_hundred_times(cluster: Cluster, keys: int) -> None:
    await cluster.namespace("big")
    data = {f"k{number:05}": "x" * (1_000_000 // keys - 6) for number in range(keys)}
    async with watched():
        made = await cluster.admin.post(MAPS, json.dumps({"metadata": {"name": "m"}, "data": data}).encode())
    assert made.status == 201 and (keys == 1 or len(made.body) > 1_200_000)
    merge = {"Content-Type": "application/merge-patch+json"}
    async with watched():
        for number in range(100 if keys == 1 else 20):
            headers = cluster.admin.headers | merge
            body = b'{"data":{"one":"%d"}}' % number
            async with cluster.admin.session.patch(f"{cluster.url}{MAPS}/m", data=body, headers=headers) as answer:
                assert answer.status == 200
                async for _ in answer.content.iter_any():
                    pass
    assert (await cluster.admin.get(f"{MAPS}/m")).json["data"]["one"] == str(number)


async def test_a_collection_of_five_thousand_deleted_at_once(cluster: Cluster) -> None:
    await fill(cluster, 5_000)
    async with watched():
        assert await received(cluster, f"{PODS}?gracePeriodSeconds=0", method="DELETE") > 5_000 * 100
    left: Answer = await cluster.admin.get(PODS)
    assert left.json["items"] == []


async def test_a_cache_of_ten_thousand_objects_read_anew(cluster: Cluster) -> None:
    await fill(cluster, MANY)
    store = cluster.services.store
    heard: list[Event] = []
    store.subscribe(("", "pods"), heard.append)
    async with watched():
        store._feed.interrupt(lost_history=True)
        async with asyncio.timeout(60):
            while not store._feed.following or store._feed._lost_history:
                await store.current()
    assert not heard and store.get(Key("", "pods", "big", "p00000")) is not None
