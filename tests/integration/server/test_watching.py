"""Watches, byte by byte: the initial state, bookmarks, shapes, errors, and how a watch ends."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from controller.server import watch
from tests.integration.server.conftest import Answer, Cluster, next_event
from tests.integration.server.test_custom_resources import (
    CRDS,
    WIDGETS,
    custom,
    definition,
    establish,
    eventually,
    version,
    widget,
)

__all__ = ["custom"]

PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
MAPS = "/api/v1/namespaces/default/configmaps"
LAST = "watch=1&timeoutSeconds=1"
INITIAL = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"


async def make(cluster: Cluster, *names: str, **labels: str) -> list[Any]:
    made = []
    for name in names:
        answer = await cluster.admin.post(MAPS, {"metadata": {"name": name, "labels": labels}})
        assert answer.status == 201, answer.body
        made.append(answer.json)
    return made


def lines(answer: Answer) -> list[Any]:
    assert answer.status == 200, answer.body
    return [json.loads(line) for line in answer.body.splitlines()]


def since(version: int, answer: Answer) -> list[Any]:
    """The lines, the first bookmark dated back to `version`: what others write meanwhile moves it on, and only that
    makes another one."""
    found: list[Any] = []
    last = 0
    for line in lines(answer):
        if line["type"] == "BOOKMARK":
            metadata = line["object"]["metadata"]
            before, last = last, int(metadata["resourceVersion"])
            assert last >= version and last > before
            if before:
                continue
            metadata["resourceVersion"] = str(version)
        found.append(line)
    return found


def types(answer: Answer) -> list[str]:
    return [line["type"] for line in lines(answer)]


def bookmark(version: int, **annotations: str) -> Any:
    metadata: Any = {"resourceVersion": str(version), "creationTimestamp": None}
    metadata |= {"annotations": annotations} if annotations else {}
    return {"type": "BOOKMARK", "object": {"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata}}


async def test_who_asks_for_the_state_gets_it_first(cluster: Cluster) -> None:
    one, two = await make(cluster, "a", "b")
    at = cluster.services.store.version
    state = [{"type": "ADDED", "object": one}, {"type": "ADDED", "object": two}]
    end = bookmark(at, **{"k8s.io/initial-events-end": "true"})
    later = one["metadata"]["resourceVersion"]
    asked = {
        LAST: state,
        f"{LAST}&resourceVersion=0": state,
        f"{LAST}&{INITIAL}": [*state, end],
        f"{LAST}&{INITIAL}&resourceVersion=0": [*state, end],
        f"{LAST}&{INITIAL}&resourceVersion={later}": [*state, end],
        f"{LAST}&{INITIAL.replace('=true', '=false')}": [],
        f"{LAST}&{INITIAL.replace('Bookmarks=true', 'Bookmarks=false')}": state,
        f"{LAST}&resourceVersion={later}": state[1:],
        f"{LAST}&allowWatchBookmarks=true&resourceVersion={later}": [*state[1:], bookmark(at)],
        f"{LAST}&{INITIAL}&fieldSelector=metadata.name%3Db": [state[1], end],
    }
    answers = await asyncio.gather(*(cluster.admin.get(f"{MAPS}?{query}") for query in asked))
    assert {query: since(at, answer) for query, answer in zip(asked, answers, strict=True)} == asked
    assert answers[0].headers["Content-Type"] == "application/json"
    assert answers[0].headers["Cache-Control"] == "no-cache, private"
    assert "Warning" not in answers[0].headers


async def test_a_state_is_written_in_pieces_and_nothing_is_lost_between_it_and_the_stream(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "INITIAL_AT_ONCE", 2)
    made = await make(cluster, *"abcde")
    async with asyncio.timeout(10), cluster.admin.stream(f"{MAPS}?watch=1&{INITIAL}") as stream:
        assert [(await next_event(stream))["object"] for _ in made] == made
        assert (await next_event(stream))["type"] == "BOOKMARK"
        (more,) = await make(cluster, "f")
        assert await next_event(stream) == {"type": "ADDED", "object": more}


async def test_bookmarks_come_while_something_else_happens_and_never_twice(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "BOOKMARK_SECONDS", 0.1)
    (made,) = await make(cluster, "a")
    begin = made["metadata"]["resourceVersion"]
    path = f"{MAPS}?watch=1&resourceVersion={begin}&allowWatchBookmarks=true&timeoutSeconds=2"
    async with asyncio.timeout(10), cluster.admin.stream(path) as stream:
        assert (await next_event(stream))["type"] == "BOOKMARK"
        answer = await cluster.admin.post("/api/v1/namespaces/default/secrets", {"metadata": {"name": "s"}})
        at = int(answer.json["metadata"]["resourceVersion"])
        while int((seen := await next_event(stream))["object"]["metadata"]["resourceVersion"]) < at:
            assert seen["type"] == "BOOKMARK"
        rest = [json.loads(line) async for line in stream]
    versions = [int(line["object"]["metadata"]["resourceVersion"]) for line in [seen, *rest]]
    assert versions == sorted(set(versions)), "each says something new"


async def test_shapes_of_events_and_bookmarks(cluster: Cluster) -> None:
    await make(cluster, "a", "b")
    tables = lines(await cluster.admin.get(f"{MAPS}?{LAST}&{INITIAL}", Accept=TABLE))
    assert [line["type"] for line in tables] == ["ADDED", "ADDED", "BOOKMARK"]
    assert [line["object"]["kind"] for line in tables] == ["Table"] * 3
    assert [bool(line["object"]["columnDefinitions"]) for line in tables] == [True, False, False]
    assert [[row["cells"][0] for row in line["object"]["rows"]] for line in tables] == [["a"], ["b"], []]
    assert tables[2]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    alone = lines(await cluster.admin.get(f"{MAPS}?{LAST}&{INITIAL}&labelSelector=x", Accept=TABLE))
    assert [bool(line["object"]["columnDefinitions"]) for line in alone] == [True]
    partial = lines(await cluster.admin.get(f"{MAPS}?{LAST}&{INITIAL}", Accept=PARTIAL))
    assert [line["object"]["kind"] for line in partial] == ["PartialObjectMetadata"] * 3
    assert [line["type"] for line in partial] == ["ADDED", "ADDED", "BOOKMARK"]
    assert partial[2]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert partial[2]["object"]["apiVersion"] == "meta.k8s.io/v1"


async def test_what_is_too_old_or_too_new_is_said_so(cluster: Cluster) -> None:
    await make(cluster, "a")
    (event,) = lines(await cluster.admin.get(f"{MAPS}?{LAST}&resourceVersion=1"))
    assert event == {
        "type": "ERROR",
        "object": {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": f"too old resource version: 1 ({cluster.services.store.version})",
            "reason": "Expired",
            "code": 410,
        },
    }
    future = await cluster.admin.get(f"{MAPS}?{LAST}&{INITIAL}&resourceVersion=99999999999999")
    assert (future.status, future.json["reason"]) == (504, "Timeout")
    assert (await cluster.admin.get(f"{MAPS}?{LAST}&resourceVersion=99999999999999")).body == b""


async def test_a_watch_that_cannot_follow_is_told_so(cluster: Cluster) -> None:
    (made,) = await make(cluster, "a")
    path = f"{MAPS}?watch=1&resourceVersion={made['metadata']['resourceVersion']}"
    async with asyncio.timeout(10), cluster.admin.stream(path) as stream:
        (more,) = await make(cluster, "b")
        assert await next_event(stream) == {"type": "ADDED", "object": more}
        cluster.services.store._cache.kind(("", "configmaps")).audience.drop_all()
        error = await next_event(stream)
        assert (error["type"], error["object"]["reason"]) == ("ERROR", "Expired")
        assert error["object"]["message"] == "too old resource version: the watch could not keep up"
        assert await stream.read() == b""


async def test_a_watch_ends_when_its_time_is_over_and_no_sooner(cluster: Cluster) -> None:
    (made,) = await make(cluster, "a")
    path = f"{MAPS}?watch=1&resourceVersion={made['metadata']['resourceVersion']}"
    loop = asyncio.get_running_loop()
    begin = loop.time()
    async with asyncio.timeout(10), cluster.admin.stream(f"{path}&timeoutSeconds=1") as stream:
        await asyncio.sleep(0.5)
        (more,) = await make(cluster, "b")
        assert await next_event(stream) == {"type": "ADDED", "object": more}
        assert await stream.read() == b""
    assert 1 <= loop.time() - begin < 5
    async with cluster.admin.stream(f"{MAPS}?watch=1&resourceVersion={more['metadata']['resourceVersion']}") as stream:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await stream.readline()


async def test_a_default_time_is_chosen_among_half_an_hour_to_an_hour(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "TIMEOUT_SECONDS", (1, 1))
    (made,) = await make(cluster, "a")
    async with asyncio.timeout(8):
        answer = await cluster.admin.get(f"{MAPS}?watch=1&resourceVersion={made['metadata']['resourceVersion']}")
    assert (answer.status, answer.body) == (200, b"")


async def test_a_server_that_stops_ends_its_watches_in_order(cluster: Cluster) -> None:
    (made,) = await make(cluster, "a")
    path = f"{MAPS}?watch=1&resourceVersion={made['metadata']['resourceVersion']}"
    async with asyncio.timeout(10), cluster.admin.stream(path) as stream:
        stopping = asyncio.create_task(cluster.listener.__aexit__(None, None, None))
        assert await stream.read() == b"", "an end, and no broken connection"
        await stopping


async def test_selectors_of_a_watch_follow_what_enters_and_leaves(cluster: Cluster) -> None:
    (made,) = await make(cluster, "a", app="x")
    at = made["metadata"]["resourceVersion"]
    for label in ("y", "x"):
        patch = {"Content-Type": "application/merge-patch+json"}
        await cluster.admin.ask("PATCH", f"{MAPS}/a", {"metadata": {"labels": {"app": label}}}, headers=patch)
    await cluster.admin.ask("DELETE", f"{MAPS}/a")
    asked = [f"{LAST}&resourceVersion={at}{more}" for more in ("", "&labelSelector=app%3Dx", "&labelSelector=app%3Dz")]
    asked += [f"{LAST}&resourceVersion={at}&fieldSelector=metadata.name%3D{name}" for name in ("a", "b")]
    answers = await asyncio.gather(*(cluster.admin.get(f"{MAPS}?{query}") for query in asked))
    assert [types(answer) for answer in answers] == [
        ["MODIFIED", "MODIFIED", "DELETED"],
        ["DELETED", "ADDED", "DELETED"],
        [],
        ["MODIFIED", "MODIFIED", "DELETED"],
        [],
    ]


EVENTS = "/api/v1/namespaces/default/events"


async def test_a_view_shows_each_event_in_its_own_form(cluster: Cluster) -> None:
    view = "/apis/events.k8s.io/v1/namespaces/default/events"
    about = {"kind": "Pod", "namespace": "default", "name": "p"}
    made = {}
    for name, reason in (("a", "R"), ("b", "S")):
        body = {"metadata": {"name": name}, "involvedObject": about, "reason": reason, "message": "m", "type": "Normal"}
        answer = await cluster.admin.post(EVENTS, body)
        assert answer.status == 201, answer.body
        made[name] = (await cluster.admin.get(f"{view}/{name}")).json
    at = int(made["a"]["metadata"]["resourceVersion"]) - 1
    asked = [
        f"{LAST}&resourceVersion={at}",
        f"{LAST}&resourceVersion={at}&fieldSelector=reason%3DS",
        f"{LAST}&{INITIAL}",
    ]
    answers = await asyncio.gather(*(cluster.admin.get(f"{view}?{query}") for query in asked))
    shown = [[line["object"] for line in lines(answer) if line["type"] == "ADDED"] for answer in answers]
    assert shown == [[made["a"], made["b"]], [made["b"]], [made["a"], made["b"]]]
    assert made["a"]["note"] == "m" and made["a"]["apiVersion"] == "events.k8s.io/v1"


async def test_a_watch_of_a_custom_kind_shows_it_as_its_definition_says_now(custom: Cluster) -> None:
    second = "/apis/shop.example.com/v2/namespaces/default/widgets"
    patch = {"Content-Type": "application/merge-patch+json"}
    await establish(custom, definition(version("v1"), version("v2")))
    assert (await custom.admin.post(WIDGETS, widget("a", mode="x"))).status == 201
    async with asyncio.timeout(15), custom.admin.stream(f"{second}?watch=1&{INITIAL}") as stream:
        first = await next_event(stream)
        assert first["object"]["apiVersion"] == "shop.example.com/v2" and first["object"]["spec"]["mode"] == "x"
        assert (await next_event(stream))["type"] == "BOOKMARK"
        schema = json.loads(json.dumps(version("v1")["schema"]))
        schema["openAPIV3Schema"]["properties"]["spec"]["properties"]["colour"] = {"type": "string", "default": "red"}
        changed = definition(version("v1", schema=schema), version("v2", schema=schema))["spec"]
        answer = await custom.admin.ask("PATCH", f"{CRDS}/widgets.shop.example.com", {"spec": changed}, headers=patch)
        assert answer.status == 200, answer.body
        await eventually(custom, f"{second}/a", lambda answer: "colour" in answer.json["spec"])
        assert (await custom.admin.post(WIDGETS, widget("b"))).status == 201
        shown = (await next_event(stream))["object"]
        assert (shown["apiVersion"], shown["metadata"]["name"], shown["spec"]["colour"]) == (
            first["object"]["apiVersion"],
            "b",
            "red",
        )
    chosen = lines(await custom.admin.get(f"{second}?{LAST}&{INITIAL}&fieldSelector=spec.mode%3Dx"))
    assert [line["object"]["metadata"].get("name") for line in chosen] == ["a", None]
