"""CPU cost of the write path without the store's commit: microseconds for each verb.

usage: python -m bench.registry [--count N] [--profile VERB]

The store is a dict in memory, so what is measured is the registry itself: schema walk, defaults, ownership, admission,
validation, JSON. Budget: creating a pod of 700 bytes costs less than 120 us.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import pstats
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import cast

import orjson

from api import kinds
from api.objects import Object, clone
from controller.registry import Patch, PatchType, Registry, Request, User
from controller.store import Page, Query, Store
from controller.store.types import Guard, Key, KeyExists, Record, VersionMismatch

PODS = kinds.by_resource("", "pods")
NAMESPACES = kinds.by_resource("", "namespaces")
CHUNK = 50
"""Verbs timed together; the median over chunks is printed, so that a busy machine's worst moments do not count."""

ACCOUNTS = kinds.by_resource("", "serviceaccounts")


class Memory:
    """The part of Store that the write path calls, in a dict."""

    def __init__(self) -> None:
        self.records: dict[Key, Record] = {}
        self.version = 4096

    def get(self, key: Key) -> Record | None:
        return self.records.get(key)

    async def read(self, key: Key) -> Record | None:
        return self.records.get(key)

    def list(self, resource: tuple[str, str], query: Query) -> Page:
        assert resource == ("", "resourcequotas"), "a create asks for the quotas of its namespace only"
        return Page([], self.version, 0)

    def count(self, resource: tuple[str, str]) -> int:
        del resource
        return 0

    async def create(self, key: Key, obj: Object, guards: tuple[Guard, ...] = (), claims: object = None) -> Record:
        del guards, claims
        if key in self.records:
            raise KeyExists
        return self._put(key, obj)

    async def update(
        self, key: Key, obj: Object, expected: int, guards: tuple[Guard, ...] = (), claims: object = None
    ) -> Record:
        del guards, claims
        current = self.records.get(key)
        if current is None or current.version != expected:
            raise VersionMismatch(current)
        return self._put(key, obj)

    def _put(self, key: Key, obj: Object) -> Record:
        self.version += 4096
        obj["metadata"]["resourceVersion"] = str(self.version)
        fields = {"status.phase": (obj.get("status") or {}).get("phase", "")}
        record = Record(key, self.version, orjson.dumps(obj), obj["metadata"].get("labels") or {}, fields)
        self.records[key] = record
        return record


def pod(number: int) -> Object:
    """A pod of about 700 bytes as people write them."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"web-{number}",
            "labels": {"app": "web", "tier": "front"},
            "annotations": {"owner": "team-a"},
        },
        "spec": {
            "containers": [
                {
                    "name": "web",
                    "image": "registry.example.com/shop/web:1.27",
                    "args": ["--port", "8080", "--verbose"],
                    "ports": [{"name": "http", "containerPort": 8080}],
                    "env": [{"name": "MODE", "value": "production"}, {"name": "REGION", "value": "eu-1"}],
                    "resources": {"requests": {"cpu": "500m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                    "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 5},
                }
            ],
            "nodeSelector": {"kubernetes.io/os": "linux"},
        },
    }


async def measure(count: int, profile: str) -> None:
    """Prints one line a verb."""
    registry = Registry(cast(Store, Memory()))
    request = Request(User("admin", groups=("system:masters",)), field_manager="bench")
    trusted = Request(User("system:controller"), field_manager="bench", trusted=True)
    await registry.create(request, NAMESPACES, "", {"metadata": {"name": "shop"}})
    await registry.create(request, ACCOUNTS, "shop", {"metadata": {"name": "default"}})
    wanted = [pod(number) for number in range(count)]
    print(f"a pod of {len(orjson.dumps(wanted[0]))} bytes, {count} times")
    template = orjson.loads((await registry.create(request, PODS, "shop", pod(count + 1))).raw)
    made = [_from_template(template, number) for number in range(count)]
    label = Patch(PatchType.MERGE, b'{"metadata":{"labels":{"tier":"back"}}}')
    status = Patch(
        PatchType.STRATEGIC,
        b'{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}],"podIP":"10.1.0.7"}}',
    )
    verbs: dict[str, Callable[[int], Awaitable[object]]] = {
        "create": lambda number: registry.create(request, PODS, "shop", wanted[number]),
        "create-trusted": lambda number: registry.create(trusted, PODS, "shop", made[number]),
        "bind": lambda number: registry.bind(trusted, "shop", f"web-{number}", "n1"),
        "merge-patch": lambda number: registry.patch(request, PODS, "shop", f"web-{number}", label),
        "status-patch": lambda number: registry.patch(
            request, PODS, "shop", f"web-{number}", status, subresource="status"
        ),
        "modify-trusted": lambda number: registry.modify(trusted, PODS, "shop", f"web-{number}", _annotate),
    }
    gc.collect()
    gc.freeze()
    for name, verb in verbs.items():
        profiler = cProfile.Profile() if name == profile else None
        if profiler:
            profiler.enable()
        spent = []
        for start in range(0, count, CHUNK):
            started = time.process_time()
            for number in range(start, start + CHUNK):
                await verb(number)
            spent.append((time.process_time() - started) / CHUNK * 1e6)
        if profiler:
            profiler.disable()
            pstats.Stats(profiler).sort_stats("tottime").print_stats(25)
        print(f"{name:16} {statistics.median(spent):7.1f} us   (best {min(spent):.1f})")


def _annotate(obj: Object) -> Object:
    obj["metadata"].setdefault("annotations", {})["seen"] = "yes"
    return obj


def _from_template(template: Object, number: int) -> Object:
    spec = clone(template["spec"])
    for field in ("volumes", "tolerations", "priority", "preemptionPolicy"):
        spec.pop(field, None)
    spec["containers"][0].pop("volumeMounts")
    metadata = {"name": f"made-{number}", "namespace": "shop", "labels": {"app": "made"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--profile", default="")
    options = parser.parse_args()
    asyncio.run(measure(options.count // CHUNK * CHUNK, options.profile))


if __name__ == "__main__":
    main()
