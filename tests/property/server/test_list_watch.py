"""Random list and watch programs over random histories, by HTTP, on a real etcd: all agree with a model.

hypothesis chooses the writes, when history is compacted, and what is asked about it; the programs of one history run
at the same time. Events are the objects: what selects them (a label, the field `reason`) may change in an update.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.store.etcd import Etcd
from tests.integration.server.conftest import Answer, Cluster, cluster, next_event
from tests.property.server.list_watch_model import Change, Chosen, Seen, State, events_after, listed, objects_at

__all__ = ["cluster"]

SUB_INDEXES = 4096
THOROUGH = settings(
    max_examples=200 if os.environ.get("WHERRY_FULL") else 8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
_numbers = itertools.count()
WATCH = "watch=1&allowWatchBookmarks=true&timeoutSeconds=1"
INITIAL = "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"

names = st.sampled_from("abcde")
states = st.builds(State, names, st.sampled_from(["x", "y"]), st.sampled_from(["R", "S"]))
verbs = st.sampled_from(["write", "write", "write", "delete"])
chosens = st.builds(Chosen, st.sampled_from(["", "x"]), st.sampled_from(["", "R"]))


@dataclass
class History:
    """Writes in a namespace of its own, and what they became."""

    cluster: Cluster
    path: str = ""
    start: int = 0
    changes: list[Change] = field(default_factory=list)
    compacted: int = 0

    @staticmethod
    async def begin(cluster: Cluster) -> History:
        namespace = await cluster.namespace(f"history{next(_numbers)}")
        history = History(cluster, f"/api/v1/namespaces/{namespace}/events")
        history.start = int((await history.get("")).json["metadata"]["resourceVersion"])
        return history

    @property
    def end(self) -> int:
        return self.changes[-1].version if self.changes else self.start

    async def get(self, query: str) -> Answer:
        return await self.cluster.admin.get(f"{self.path}?{query}")

    async def carry_out(self, verb: str, state: State) -> None:
        known = objects_at(self.changes, self.end).get(state.name)
        if verb == "delete":
            if known is not None:
                await self._delete(known.state)
            return
        namespace = self.path.split("/")[4]
        body = {
            "metadata": {"name": state.name, "namespace": namespace, "labels": {"app": state.app}},
            "involvedObject": {"kind": "Pod", "namespace": namespace, "name": f"p{next(_numbers)}"},
            "reason": state.reason,
        }
        where = self.path if known is None else f"{self.path}/{state.name}"
        answer = await self.cluster.admin.ask("POST" if known is None else "PUT", where, body)
        assert answer.status == (201 if known is None else 200), answer.body
        version = int(answer.json["metadata"]["resourceVersion"])
        self.changes.append(Change(version, "ADDED" if known is None else "MODIFIED", state))

    async def _delete(self, state: State) -> None:
        """A deletion's answer does not tell its version: a watch does, for nothing else writes here."""
        answer = await self.cluster.admin.ask("DELETE", f"{self.path}/{state.name}")
        assert answer.status == 200, answer.body
        async with self.cluster.admin.stream(f"{self.path}?watch=1&resourceVersion={self.end}") as lines:
            type_, name, version = seen_in(await next_event(lines))
        assert (type_, name) == ("DELETED", state.name) and version > self.end
        self.changes.append(Change(version, "DELETED", state))

    async def compact(self, etcd: Etcd) -> None:
        self.compacted = self.end // SUB_INDEXES
        await etcd.compact(self.compacted)

    def kept(self, version: int) -> bool:
        """Whether a list can still show `version`."""
        return version // SUB_INDEXES >= self.compacted or version >= self.end


def seen_in(event: dict[str, Any]) -> Seen:
    metadata = event["object"]["metadata"]
    return event["type"], metadata["name"], int(metadata["resourceVersion"])


def lines_of(answer: Answer) -> list[dict[str, Any]]:
    assert answer.status == 200, answer.body
    return [json.loads(line) for line in answer.body.splitlines()]


def events_in(answer: Answer) -> list[Seen]:
    return [seen_in(event) for event in lines_of(answer) if event["type"] != "BOOKMARK"]


def items_of(page: Answer) -> list[tuple[str, int]]:
    items = page.json["items"]
    return [(item["metadata"]["name"], int(item["metadata"]["resourceVersion"])) for item in items]


# ---- programs ----


async def list_pages(history: History, chosen: Chosen, limit: int, version: int, match: str) -> None:
    """A whole list, page by page, at a version or at none."""
    about = f"&resourceVersion={version}" if version else ""
    about += f"&resourceVersionMatch={match}" if version and match else ""
    page = await history.get(f"limit={limit}{about}{chosen.query}")
    exact = bool(version) and (match == "Exact" or (not match and limit > 0))
    shown = version if exact else history.end
    if exact and not history.kept(version):
        assert (page.status, page.json["reason"]) == (410, "Expired"), page.body
        return
    wanted, found = listed(history.changes, shown, chosen), items_of(page)
    at = page.json["metadata"]["resourceVersion"]
    while token := page.json["metadata"].get("continue"):
        assert len(items_of(page)) == limit
        remaining = page.json["metadata"].get("remainingItemCount")
        assert remaining == (None if chosen.query else len(wanted) - len(found))
        page = await history.get(f"limit={limit}&continue={token}{chosen.query}")
        assert page.status == 200, page.body
        assert page.json["metadata"]["resourceVersion"] == at, "all pages show one version"
        found += items_of(page)
    assert found == wanted
    assert "remainingItemCount" not in page.json["metadata"]


async def watch_from(history: History, chosen: Chosen, version: int) -> None:
    """A watch from a version, cut at every event and resumed there, and at its bookmark."""
    lines = lines_of(await history.get(f"{WATCH}&resourceVersion={version}{chosen.query}"))
    wanted = events_after(history.changes, version, chosen)
    assert [seen_in(line) for line in lines if line["type"] != "BOOKMARK"] == wanted
    if version < history.end:
        assert (
            lines[-1]["type"] == "BOOKMARK" and int(lines[-1]["object"]["metadata"]["resourceVersion"]) >= history.end
        )
    cuts = [event[2] for event in wanted[:-1]] + [
        int(line["object"]["metadata"]["resourceVersion"]) for line in lines[-1:]
    ]
    answers = await asyncio.gather(*(history.get(f"{WATCH}&resourceVersion={cut}{chosen.query}") for cut in cuts))
    for cut, answer in zip(cuts, answers, strict=True):
        assert events_in(answer) == [event for event in wanted if event[2] > cut]


async def watch_all(history: History, chosen: Chosen, version: str, initial: bool) -> None:
    """A watch that begins with the state: with the closing bookmark, or, as older clients ask for it, without."""
    about = f"&resourceVersion={version}" if version else ""
    lines = lines_of(await history.get(f"{WATCH}{about}{INITIAL if initial else ''}{chosen.query}"))
    if version not in ("", "0") and not initial:
        wanted = events_after(history.changes, int(version), chosen)
    else:
        wanted = [("ADDED", *entry) for entry in listed(history.changes, history.end, chosen)]
    assert [seen_in(line) for line in lines if line["type"] != "BOOKMARK"] == wanted
    ends = [line for line in lines if "k8s.io/initial-events-end" in line["object"]["metadata"].get("annotations", {})]
    assert [lines.index(end) for end in ends] == ([len(wanted)] if initial else [])


async def expired_pages(history: History, token: str, first: list[tuple[str, int]]) -> None:
    """A list that was begun before the history it shows was compacted goes on with the present, if asked to."""
    page = await history.get(f"limit=1&continue={token}")
    if page.status == 200:
        return
    assert (page.status, page.json["reason"]) == (410, "Expired")
    rest = await history.get(f"continue={page.json['metadata']['continue']}")
    wanted = [entry for entry in listed(history.changes, history.end, Chosen()) if entry[0] > first[-1][0]]
    assert items_of(rest) == wanted


async def live(history: History, chosen: Chosen, opened: asyncio.Event, written: asyncio.Event) -> None:
    """A watch that is there before the writes."""
    query = f"watch=1&resourceVersion={history.start}{chosen.query}"
    async with asyncio.timeout(30), history.cluster.admin.stream(f"{history.path}?{query}") as lines:
        opened.set()
        await written.wait()
        wanted = events_after(history.changes, history.start, chosen)
        assert [seen_in(await next_event(lines)) for _ in wanted] == wanted


# ---- the test ----


@pytest.fixture
async def compactor(etcd: str) -> AsyncIterator[Etcd]:
    client = Etcd((etcd,), None, 10.0)
    yield client
    await client.close()


def programs(data: st.DataObject, history: History) -> list[Any]:
    versions = [history.start, *(change.version for change in history.changes)]
    some = st.sampled_from(versions)
    lists = st.tuples(chosens, st.integers(0, 3), some | st.just(0), st.sampled_from(["", "Exact", "NotOlderThan"]))
    whole = st.tuples(chosens, st.sampled_from(["", "0"]) | some.map(str), st.booleans())
    pages = data.draw(st.lists(lists, min_size=6, max_size=6))
    cut = data.draw(st.lists(st.tuples(chosens, some), min_size=3, max_size=3))
    initial = data.draw(st.lists(whole, min_size=3, max_size=3))
    return [
        *(list_pages(history, *about) for about in pages),
        *(watch_from(history, *about) for about in cut),
        *(watch_all(history, *about) for about in initial),
    ]


@given(data=st.data(), writes=st.lists(st.tuples(verbs, states), min_size=3, max_size=12), chosen=chosens)
@THOROUGH
async def test_lists_and_watches_agree_with_the_model(
    cluster: Cluster, compactor: Etcd, data: st.DataObject, writes: list[tuple[str, State]], chosen: Chosen
) -> None:
    history = await History.begin(cluster)
    opened, written = asyncio.Event(), asyncio.Event()
    paused, compact_at = data.draw(st.integers(0, len(writes))), data.draw(st.integers(0, 2 * len(writes)))
    begun: list[tuple[str, list[tuple[str, int]]]] = []
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(live(history, chosen, opened, written))
        await opened.wait()
        for place, (verb, state) in enumerate(writes):
            await history.carry_out(verb, state)
            first = await history.get("limit=1") if place == paused else None
            if first is not None and (token := first.json["metadata"].get("continue")):
                begun.append((token, items_of(first)))
            if place == compact_at:
                await history.compact(compactor)
        written.set()
        for program in programs(data, history):
            tasks.create_task(program)
        for page in begun:
            tasks.create_task(expired_pages(history, *page))
