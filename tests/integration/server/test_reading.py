"""GET, lists, pages, tables and watches over real HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.integration.server.conftest import Cluster, next_event

MAPS = "/api/v1/namespaces/default/configmaps"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"


async def make_maps(cluster: Cluster, *names: str) -> list[dict[str, Any]]:
    made = []
    for name in names:
        answer = await cluster.admin.post(MAPS, {"metadata": {"name": name, "labels": {"n": name}}, "data": {"k": "v"}})
        assert answer.status == 201, answer.body
        made.append(answer.json)
    return made


async def test_an_object_comes_back_as_it_was_written(cluster: Cluster) -> None:
    (made,) = await make_maps(cluster, "a")
    got = await cluster.admin.get(f"{MAPS}/a")
    assert got.json == made
    assert got.headers["Content-Type"] == "application/json"
    assert (await cluster.admin.get(f"{MAPS}/a?resourceVersion={made['metadata']['resourceVersion']}")).json == made


async def test_items_of_a_list_carry_no_kind(cluster: Cluster) -> None:
    await make_maps(cluster, "a", "b")
    listed = (await cluster.admin.get(MAPS)).json
    assert (listed["kind"], listed["apiVersion"]) == ("ConfigMapList", "v1")
    assert [item["metadata"]["name"] for item in listed["items"]] == ["a", "b"]
    assert not any("kind" in item or "apiVersion" in item for item in listed["items"])


async def test_pages_show_one_version_whatever_happens_between_them(cluster: Cluster) -> None:
    await make_maps(cluster, "a", "b", "c", "d")
    first = (await cluster.admin.get(f"{MAPS}?limit=2")).json
    assert first["metadata"]["remainingItemCount"] == 2
    await cluster.admin.ask("DELETE", f"{MAPS}/d")
    await make_maps(cluster, "bb")
    second = (await cluster.admin.get(f"{MAPS}?limit=2&continue={first['metadata']['continue']}")).json
    assert [item["metadata"]["name"] for item in second["items"]] == ["c", "d"]
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert "continue" not in second["metadata"]


async def test_an_exact_list_shows_the_past(cluster: Cluster) -> None:
    made = await make_maps(cluster, "a", "b")
    version = made[0]["metadata"]["resourceVersion"]
    listed = await cluster.admin.get(f"{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact")
    assert [item["metadata"]["name"] for item in listed.json["items"]] == ["a"]


async def test_pages_of_the_past_say_how_much_remains(cluster: Cluster) -> None:
    made = await make_maps(cluster, *"abcde")
    about = f"limit=2&resourceVersion={made[-1]['metadata']['resourceVersion']}&resourceVersionMatch=Exact"
    await make_maps(cluster, "f", "g")
    first = (await cluster.admin.get(f"{MAPS}?{about}")).json
    second = (await cluster.admin.get(f"{MAPS}?limit=2&continue={first['metadata']['continue']}")).json
    assert [page["metadata"]["remainingItemCount"] for page in (first, second)] == [3, 1]
    chosen = (await cluster.admin.get(f"{MAPS}?{about}&labelSelector=n")).json
    assert chosen["metadata"]["continue"] and "remainingItemCount" not in chosen["metadata"]


async def test_a_long_list_comes_whole_in_pieces(cluster: Cluster) -> None:
    for name in "abc":
        await cluster.admin.post(MAPS, {"metadata": {"name": name}, "data": {"k": name * 600_000}})
    listed = (await cluster.admin.get(MAPS)).json
    assert [len(item["data"]["k"]) for item in listed["items"]] == [600_000] * 3


async def test_tables_have_a_row_an_object_and_watches_one_an_event(cluster: Cluster) -> None:
    await make_maps(cluster, "a", "b")
    table = (await cluster.admin.get(MAPS, Accept=TABLE)).json
    assert table["kind"] == "Table" and [row["cells"][:2] for row in table["rows"]] == [["a", 1], ["b", 1]]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    whole = (await cluster.admin.get(f"{MAPS}/a?includeObject=Object", Accept=TABLE)).json
    assert whole["rows"][0]["object"]["data"] == {"k": "v"}
    version = table["metadata"]["resourceVersion"]
    await make_maps(cluster, "c", "d")
    watched = await cluster.admin.get(f"{MAPS}?watch=1&timeoutSeconds=1&resourceVersion={version}", Accept=TABLE)
    first, second = (json.loads(line)["object"] for line in watched.body.splitlines())
    assert first["columnDefinitions"][0]["name"] == "Name" and first["rows"][0]["cells"][0] == "c"
    assert second["columnDefinitions"] is None


async def test_partial_objects_are_metadata_only(cluster: Cluster) -> None:
    await make_maps(cluster, "a")
    one = (await cluster.admin.get(f"{MAPS}/a", Accept=PARTIAL)).json
    assert set(one) == {"kind", "apiVersion", "metadata"} and one["metadata"]["name"] == "a"
    listed = (await cluster.admin.get(MAPS, Accept=PARTIAL.replace("Metadata;", "MetadataList;"))).json
    assert listed["kind"] == "PartialObjectMetadataList" and set(listed["items"][0]) == set(one)


async def test_both_groups_show_one_event(cluster: Cluster) -> None:
    event = {
        "metadata": {"name": "e", "namespace": "default"},
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Tested",
        "type": "Normal",
        "note": "hello",
        "action": "Testing",
        "reportingController": "test/er",
        "reportingInstance": "one",
        "eventTime": "2026-01-01T00:00:00.123456+01:00",
    }
    made = await cluster.admin.post("/apis/events.k8s.io/v1/namespaces/default/events", event)
    assert made.status == 201 and made.json["note"] == "hello", made.body
    core = (await cluster.admin.get("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name=p")).json
    assert core["items"][0]["message"] == "hello" and core["items"][0]["involvedObject"]["name"] == "p"
    view = (await cluster.admin.get("/apis/events.k8s.io/v1/namespaces/default/events")).json
    assert view["items"][0]["regarding"]["name"] == "p" and "message" not in view["items"][0]
    events = "/apis/events.k8s.io/v1/namespaces/default/events?fieldSelector="
    found = await cluster.admin.get(f"{events}regarding.name=p,reportingController=test/er")
    assert [each["metadata"]["name"] for each in found.json["items"]] == ["e"]
    assert (await cluster.admin.get(f"{events}reportingController!=test/er")).json["items"] == []
    core = await cluster.admin.get("/api/v1/namespaces/default/events?fieldSelector=reportingController=test/er")
    assert len(core.json["items"]) == 1
    refused = await cluster.admin.get(f"{events}involvedObject.name=p")
    assert (refused.status, refused.message) == (400, "field label not supported: involvedObject.name")


async def test_a_watch_goes_on_exactly_where_it_was_left(cluster: Cluster) -> None:
    made = await make_maps(cluster, "a", "b", "c")
    async with cluster.admin.stream(
        f"{MAPS}?watch=true&resourceVersion={made[0]['metadata']['resourceVersion']}"
    ) as lines:
        events = [await next_event(lines), await next_event(lines)]
        assert [(event["type"], event["object"]) for event in events] == [("ADDED", made[1]), ("ADDED", made[2])]
        gone = await cluster.admin.ask("DELETE", f"{MAPS}/b")
        assert gone.status == 200
        last = await next_event(lines)
        assert last["type"] == "DELETED" and int(last["object"]["metadata"]["resourceVersion"]) > int(
            made[2]["metadata"]["resourceVersion"]
        )


async def test_entering_and_leaving_a_selector_are_added_and_deleted(cluster: Cluster) -> None:
    (made,) = await make_maps(cluster, "a")
    version = made["metadata"]["resourceVersion"]
    async with cluster.admin.stream(f"{MAPS}?watch=true&labelSelector=in=yes&resourceVersion={version}") as lines:
        for label in ("yes", None):
            patch = json.dumps({"metadata": {"labels": {"in": label}}}).encode()
            await cluster.admin.ask(
                "PATCH", f"{MAPS}/a", patch, headers={"Content-Type": "application/merge-patch+json"}
            )
        assert [(await next_event(lines))["type"] for _ in range(2)] == ["ADDED", "DELETED"]


async def test_a_watch_list_ends_its_initial_state_with_one_bookmark(cluster: Cluster) -> None:
    await make_maps(cluster, "a", "b")
    query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    async with cluster.admin.stream(f"{MAPS}?{query}") as lines:
        events = [await next_event(lines) for _ in range(3)]
        assert [event["type"] for event in events] == ["ADDED", "ADDED", "BOOKMARK"]
        bookmark = events[2]["object"]
        assert bookmark["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert int(bookmark["metadata"]["resourceVersion"]) >= int(events[1]["object"]["metadata"]["resourceVersion"])
        (made,) = await make_maps(cluster, "c")
        assert (await next_event(lines))["object"] == made


async def test_bookmarks_come_only_to_those_who_allow_them(cluster: Cluster) -> None:
    (made,) = await make_maps(cluster, "a")
    await cluster.admin.post("/api/v1/namespaces/default/secrets", {"metadata": {"name": "elsewhere"}})
    version = made["metadata"]["resourceVersion"]
    with_bookmarks = await cluster.admin.get(
        f"{MAPS}?watch=1&timeoutSeconds=1&resourceVersion={version}&allowWatchBookmarks=true"
    )
    (line,) = with_bookmarks.body.splitlines()
    bookmark = json.loads(line)
    assert bookmark["type"] == "BOOKMARK" and int(bookmark["object"]["metadata"]["resourceVersion"]) > int(version)
    without = await cluster.admin.get(f"{MAPS}?watch=1&timeoutSeconds=1&resourceVersion={version}")
    assert without.body == b""


async def test_a_version_no_longer_kept_is_an_error_event_for_watches(cluster: Cluster) -> None:
    watched = await cluster.admin.get(f"{MAPS}?watch=1&resourceVersion=1&timeoutSeconds=2")
    assert watched.status == 200
    event = json.loads(watched.body)
    assert event["type"] == "ERROR"
    assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("resourceVersion=abc", 400),
        ("limit=2&continue=junk", 400),
        ("labelSelector=a%20in%20(b", 400),
        ("fieldSelector=spec.nodeName=x", 400),
        ("resourceVersionMatch=Exact", 422),
        ("watch=1&sendInitialEvents=true", 422),
        ("watch=1&resourceVersion=abc", 500),
    ],
)
async def test_a_bad_query_is_a_status_and_no_hang(cluster: Cluster, query: str, status: int) -> None:
    answer = await cluster.admin.get(f"{MAPS}?{query}")
    assert answer.status == status and answer.json["kind"] == "Status"


async def test_a_future_version_is_waited_for_and_then_refused(cluster: Cluster) -> None:
    answer = await cluster.admin.get(f"{MAPS}?resourceVersion=99999999999999")
    assert answer.status == 504 and answer.json["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
    assert answer.headers["Retry-After"] == "1"


async def test_many_watchers_get_every_event_once(cluster: Cluster) -> None:
    (start,) = await make_maps(cluster, "start")
    path = f"{MAPS}?watch=1&resourceVersion={start['metadata']['resourceVersion']}"

    async def follow() -> list[str]:
        async with cluster.admin.stream(path) as lines:
            return [(await next_event(lines))["object"]["metadata"]["name"] for _ in range(30)]

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        followers = [tasks.create_task(follow()) for _ in range(20)]
        names = [f"m{index:02}" for index in range(30)]
        await make_maps(cluster, *names)
    assert all(follower.result() == names for follower in followers)


async def test_who_reads_or_writes_endpoints_is_told_to_use_slices(cluster: Cluster) -> None:
    told = '299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"'
    path = "/api/v1/namespaces/default/endpoints"
    made = await cluster.admin.post(path, {"metadata": {"name": "a"}})
    read = [await cluster.admin.get(one) for one in (path, f"{path}/a", "/api/v1/endpoints", f"{path}/none")]
    gone = await cluster.admin.ask("DELETE", f"{path}/a")
    assert [answer.headers.get("Warning") for answer in (made, *read, gone)] == [told] * 6
    assert "Warning" not in (await cluster.admin.get(MAPS)).headers
