"""The store against a model: a map of versions; and watchers cut at every event.

hypothesis chooses the operations; those of one step run concurrently, so that they share commits.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.objects import Object
from api.selectors import parse_label_selector
from controller.store import Query, Store
from controller.store.types import Event, EventType, Key, KeyExists, KeyMissing, Record, VersionMismatch

CONFIG_MAPS = ("", "configmaps")
NAMES = "abcd"
_namespaces = itertools.count()

RELAXED = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@dataclass(frozen=True)
class Operation:
    verb: str
    name: str
    label: str
    stale: bool


operations = st.builds(
    Operation,
    verb=st.sampled_from(["create", "update", "update", "delete"]),
    name=st.sampled_from(NAMES),
    label=st.sampled_from("xy"),
    stale=st.booleans(),
)
steps = st.lists(st.lists(operations, min_size=1, max_size=8), min_size=1, max_size=8)


def content(name: str, label: str, serial: int) -> Object:
    return {"metadata": {"name": name, "labels": {"app": label}}, "data": {"serial": str(serial)}}


class Run:
    """Carries out steps in a namespace of its own and remembers what was acknowledged."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.namespace = f"run{next(_namespaces)}"
        self.start = store.version
        self.acknowledged: list[tuple[Operation, Record]] = []
        self._known: dict[str, list[int]] = {name: [1] for name in NAMES}
        self._serial = itertools.count()

    async def step(self, chosen: list[Operation]) -> None:
        results = await asyncio.gather(*(self._carry_out(operation) for operation in chosen))
        self.acknowledged += [(operation, record) for operation, record in zip(chosen, results, strict=True) if record]

    async def _carry_out(self, operation: Operation) -> Record | None:
        key = Key(*CONFIG_MAPS, self.namespace, operation.name)
        versions = self._known[operation.name]
        expected = versions[0] if operation.stale else versions[-1]
        obj = content(operation.name, operation.label, next(self._serial))
        try:
            if operation.verb == "create":
                record = await self.store.create(key, obj)
            elif operation.verb == "update":
                record = await self.store.update(key, obj, expected)
            else:
                record = await self.store.delete(key, expected)
        except (KeyExists, KeyMissing, VersionMismatch):
            return None
        versions.append(record.version)
        return record


async def run(store: Store, chosen: list[list[Operation]]) -> Run:
    running = Run(store)
    for step in chosen:
        await running.step(step)
    return running


async def read_until(store: Store, since: int, query: Query, last: int) -> list[Event]:
    """Everything a watcher gets from `since` up to version `last`."""
    watcher = store.watch(CONFIG_MAPS, since, query)
    events: list[Event] = []
    async with asyncio.timeout(10):
        while watcher.version < last:
            if batch := watcher.take():
                events += batch
            elif watcher.version < last:
                await watcher.wait()
    watcher.close()
    return events


def apply(state: dict[str, Record], operation: Operation, record: Record) -> None:
    """The model: what one acknowledged write does to a map."""
    if operation.verb == "create":
        assert operation.name not in state
    else:
        assert operation.name in state
    if operation.verb == "delete":
        del state[operation.name]
    else:
        state[operation.name] = record


@given(chosen=steps)
@RELAXED
async def test_the_store_is_a_map_and_every_version_of_it_can_be_read_again(
    store: Store, chosen: list[list[Operation]]
) -> None:
    done = await run(store, chosen)
    query = Query(done.namespace)
    state: dict[str, Record] = {}
    snapshots = {done.start: dict(state)}
    ordered = sorted(done.acknowledged, key=lambda entry: entry[1].version)
    for operation, record in ordered:
        before = state.get(operation.name)
        assert before is None or before.version < record.version
        apply(state, operation, record)
        snapshots[record.version // 4096 * 4096 + 4095] = dict(state)
    assert [record for _, record in sorted(state.items())] == store.list(CONFIG_MAPS, query).records
    for version, expected in snapshots.items():
        page = await store.list_at(CONFIG_MAPS, version, query)
        assert page.records == [record for _, record in sorted(expected.items())]


@given(chosen=steps)
@RELAXED
async def test_a_watcher_cut_anywhere_and_resumed_sees_each_event_exactly_once(
    store: Store, chosen: list[list[Operation]]
) -> None:
    done = await run(store, chosen)
    end = store.version
    query = Query(done.namespace)
    everything = await read_until(store, done.start, query, end)
    assert [event.record for event in everything] == sorted(
        (record for _, record in done.acknowledged), key=lambda record: record.version
    )
    for cut in [done.start, *(event.record.version for event in everything)]:
        resumed = await read_until(store, cut, query, end)
        assert resumed == [event for event in everything if event.record.version > cut]


@given(chosen=steps)
@RELAXED
async def test_a_watch_with_a_selector_keeps_a_copy_of_the_selected_list(
    store: Store, chosen: list[list[Operation]]
) -> None:
    done = await run(store, chosen)
    query = Query(done.namespace, labels=parse_label_selector("app=x"))
    copy: dict[str, int] = {}
    for event in await read_until(store, done.start, query, store.version):
        name = event.record.key.name
        assert (name in copy) is (event.type is not EventType.ADDED)
        assert event.record.labels == {"app": "x"}
        if event.type is EventType.DELETED:
            del copy[name]
        else:
            copy[name] = event.record.version
    assert copy == {record.key.name: record.version for record in store.list(CONFIG_MAPS, query).records}
