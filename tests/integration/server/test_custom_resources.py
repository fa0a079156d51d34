"""Custom resources over real HTTP: served at once, shaped by their schema, with every generic feature."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from api import kinds
from controller.server.definitions import Definitions
from tests.integration.server.conftest import Answer, Cluster, next_event

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WIDGETS = "/apis/shop.example.com/v1/namespaces/default/widgets"
MERGE = "application/merge-patch+json"
SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 0},
                "mode": {"type": "string", "default": "auto"},
                "parts": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {"name": {"type": "string"}, "weight": {"type": "integer"}},
                    },
                },
            },
        },
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}


def version(name: str, **more: Any) -> dict[str, Any]:
    scale = {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}
    subresources = {"status": {}, "scale": scale}
    return {
        "name": name,
        "served": True,
        "storage": name == "v1",
        "schema": {"openAPIV3Schema": SCHEMA},
        "subresources": subresources,
        "selectableFields": [{"jsonPath": ".spec.mode"}],
        **more,
    }


def definition(*versions: dict[str, Any], plural: str = "widgets", kind: str = "Widget") -> dict[str, Any]:
    names = {"plural": plural, "kind": kind, "shortNames": ["wd"] if plural == "widgets" else []}
    spec = {"group": "shop.example.com", "scope": "Namespaced", "names": names, "versions": list(versions)}
    return {"metadata": {"name": f"{plural}.shop.example.com"}, "spec": spec}


def widget(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "shop.example.com/v1",
        "kind": "Widget",
        "metadata": {"name": name},
        "spec": {"size": 1, **spec},
    }


@pytest.fixture
async def custom(cluster: Cluster) -> AsyncIterator[Cluster]:
    await cluster.namespace("default")
    task = asyncio.create_task(Definitions(cluster.services.registry).run())
    yield cluster
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    kinds.serve_custom(())


async def establish(cluster: Cluster, crd: dict[str, Any]) -> None:
    made = await cluster.admin.post(CRDS, crd)
    assert made.status == 201, made.body
    await until(cluster, crd["metadata"]["name"], "Established", "True")


async def eventually(cluster: Cluster, path: str, holds: Callable[[Answer], bool]) -> None:
    async with asyncio.timeout(5):
        while True:
            if holds(await cluster.admin.get(path)):
                return
            await asyncio.sleep(0.01)


async def until(cluster: Cluster, name: str, condition: str, status: str) -> dict[str, Any]:
    async with asyncio.timeout(5):
        while True:
            found = (await cluster.admin.get(f"{CRDS}/{name}")).json
            for each in (found.get("status") or {}).get("conditions") or ():
                if (each["type"], each["status"]) == (condition, status):
                    result: dict[str, Any] = each
                    return result
            await asyncio.sleep(0.01)


async def test_an_established_kind_is_served_discovered_and_described(custom: Cluster) -> None:
    await establish(custom, definition(version("v1")))
    made = await custom.admin.post(WIDGETS, widget("a", junk=1))
    assert made.status == 201
    assert made.json["spec"] == {"size": 1, "mode": "auto"}
    assert 'unknown field \\"spec.junk\\"' in made.headers["Warning"]
    found = (await custom.admin.get("/apis/shop.example.com/v1")).json["resources"]
    assert [each["name"] for each in found] == ["widgets", "widgets/status", "widgets/scale"]
    document = (await custom.admin.get("/openapi/v3/apis/shop.example.com/v1")).json
    shown = document["components"]["schemas"]["com.example.shop.v1.Widget"]["properties"]
    assert shown["apiVersion"]["description"].startswith("APIVersion defines ")
    assert shown["kind"]["description"].startswith("Kind is a string value")
    assert shown["metadata"]["description"].startswith("Standard object's metadata")
    times = document["components"]["schemas"]["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"]["properties"]
    assert times["creationTimestamp"]["description"].startswith("CreationTimestamp is a timestamp")


async def test_older_clients_read_schemas_that_they_understand(custom: Cluster) -> None:
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    either = {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}
    nested = {
        "type": "object",
        "properties": {
            "free": {**anything, "properties": {"a": {"type": "string"}}},
            "port": either,
            "maybe": {"type": "string", "nullable": True, "description": "May be null."},
        },
    }
    for plural, schema in (("anythings", anything), ("gadgets", nested)):
        one = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
        await establish(custom, definition(one, plural=plural, kind=plural.capitalize()[:-1]))
    found = (await custom.admin.get("/openapi/v2")).json["definitions"]
    free = found["com.example.shop.v1.Anything"]
    assert set(free) == {"type", "x-kubernetes-group-version-kind"} and free["type"] == "object"
    properties = found["com.example.shop.v1.Gadget"]["properties"]
    assert properties["free"] == anything
    assert properties["port"] == {"x-kubernetes-int-or-string": True}
    assert properties["maybe"] == {"description": "May be null."}


async def test_status_and_scale_are_written_apart_and_the_generation_counts_the_spec(custom: Cluster) -> None:
    await establish(custom, definition(version("v1")))
    await custom.admin.post(WIDGETS, widget("a"))
    patch = b'{"spec":{"size":9},"status":{"size":7,"more":[1]}}'
    patched = await custom.admin.ask("PATCH", f"{WIDGETS}/a/status", patch, headers={"Content-Type": MERGE})
    assert (patched.json["spec"]["size"], patched.json["status"]) == (1, {"size": 7, "more": [1]})
    assert patched.json["metadata"]["generation"] == 1
    scaled = await custom.admin.ask(
        "PATCH", f"{WIDGETS}/a/scale", b'{"spec":{"replicas":5}}', headers={"Content-Type": MERGE}
    )
    assert (scaled.json["spec"], scaled.json["status"]) == ({"replicas": 5}, {"replicas": 7})
    now = (await custom.admin.get(f"{WIDGETS}/a")).json
    assert (now["spec"]["size"], now["metadata"]["generation"]) == (5, 2)


async def test_server_side_apply_merges_lists_by_their_keys(custom: Cluster) -> None:
    await establish(custom, definition(version("v1")))

    async def apply(manager: str, *parts: dict[str, Any]) -> dict[str, Any]:
        path = f"{WIDGETS}/a?fieldManager={manager}"
        headers = {"Content-Type": "application/apply-patch+yaml"}
        answer = await custom.admin.ask("PATCH", path, widget("a", parts=list(parts)), headers=headers)
        assert answer.status in (200, 201), answer.body
        obj: dict[str, Any] = answer.json
        return obj

    await apply("one", {"name": "x", "weight": 1})
    await apply("two", {"name": "y", "weight": 2})
    merged = await apply("one", {"name": "x", "weight": 3})
    assert merged["spec"]["parts"] == [{"name": "x", "weight": 3}, {"name": "y", "weight": 2}]


async def test_watches_and_field_selectors_work(custom: Cluster) -> None:
    await establish(custom, definition(version("v1")))
    async with custom.admin.stream(f"{WIDGETS}?watch=true&fieldSelector=spec.mode%3Dmanual") as lines:
        await custom.admin.post(WIDGETS, widget("a"))
        await custom.admin.post(WIDGETS, widget("b", mode="manual"))
        event = await next_event(lines)
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "b")
    unknown = await custom.admin.get(f"{WIDGETS}?fieldSelector=spec.size%3D1")
    assert unknown.status == 400


async def test_versions_show_the_same_object_each_in_its_own_name(custom: Cluster) -> None:
    old = version("v1beta1", deprecated=True)
    await establish(custom, definition(old, version("v1")))
    beta = WIDGETS.replace("/v1/", "/v1beta1/")
    made = await custom.admin.post(beta, {**widget("a"), "apiVersion": "shop.example.com/v1beta1"})
    assert made.json["apiVersion"] == "shop.example.com/v1beta1"
    assert made.headers["Warning"] == '299 - "shop.example.com/v1beta1 Widget is deprecated"'
    assert (await custom.admin.get(f"{WIDGETS}/a")).json["apiVersion"] == "shop.example.com/v1"
    listed = (await custom.admin.get(beta)).json
    assert [listed["apiVersion"], listed["items"][0]["metadata"]["name"]] == ["shop.example.com/v1beta1", "a"]
    preferred = (await custom.admin.get("/apis/shop.example.com")).json["preferredVersion"]["version"]
    assert preferred == "v1"


async def test_a_name_that_another_definition_has_is_refused(custom: Cluster) -> None:
    await establish(custom, definition(version("v1")))
    await custom.admin.post(CRDS, definition(version("v1"), plural="gadgets", kind="Widget"))
    names = await until(custom, "gadgets.shop.example.com", "NamesAccepted", "False")
    assert (names["reason"], names["message"]) == ("ListKindConflict", '"WidgetList" is already in use')
    assert (await custom.admin.get(WIDGETS.replace("widgets", "gadgets"))).status == 404


async def test_a_stricter_schema_holds_for_what_changes(custom: Cluster) -> None:
    await establish(custom, definition(version("v1")))
    await custom.admin.post(WIDGETS, widget("a", size=5))
    stored = (await custom.admin.get(f"{CRDS}/widgets.shop.example.com")).json
    size = stored["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["size"]
    size["maximum"] = 3
    assert (await custom.admin.ask("PUT", f"{CRDS}/widgets.shop.example.com", stored)).status == 200
    headers = {"Content-Type": MERGE}
    kept = await custom.admin.ask("PATCH", f"{WIDGETS}/a", b'{"spec":{"mode":"x"}}', headers=headers)
    assert kept.status == 200, kept.body
    refused = await custom.admin.ask("PATCH", f"{WIDGETS}/a", b'{"spec":{"size":6}}', headers=headers)
    assert "should be less than or equal to 3" in refused.message


async def test_what_an_older_schema_stored_is_shown_as_the_new_one_has_it(custom: Cluster) -> None:
    await establish(custom, definition(version("v1")))
    await custom.admin.post(WIDGETS, widget("a", size=5, parts=[{"name": "x", "weight": 1}]))
    stored = (await custom.admin.get(f"{CRDS}/widgets.shop.example.com")).json
    spec = stored["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    spec["color"] = {"type": "string", "default": "red"}
    del spec["parts"]["items"]["properties"]["weight"]
    assert (await custom.admin.ask("PUT", f"{CRDS}/widgets.shop.example.com", stored)).status == 200
    shown = (await custom.admin.get(f"{WIDGETS}/a")).json
    assert (shown["spec"]["color"], shown["spec"]["parts"]) == ("red", [{"name": "x"}])
    assert (await custom.admin.get(WIDGETS)).json["items"][0]["spec"] == shown["spec"]
    async with custom.admin.stream(f"{WIDGETS}?watch=true&fieldSelector=spec.mode%3Dauto") as lines:
        event = await next_event(lines)
    assert (event["object"]["spec"], event["object"]["metadata"]) == (shown["spec"], shown["metadata"])


async def test_a_deleted_definition_takes_its_objects_along(custom: Cluster) -> None:
    await establish(custom, definition(version("v1")))
    held = widget("a")
    held["metadata"]["finalizers"] = ["example.com/hold"]
    await custom.admin.post(WIDGETS, held)
    await custom.admin.post(WIDGETS, widget("b"))
    await custom.admin.ask("DELETE", f"{CRDS}/widgets.shop.example.com")
    await eventually(custom, WIDGETS, lambda answer: len(answer.json["items"]) == 1)
    assert (await custom.admin.get(f"{CRDS}/widgets.shop.example.com")).status == 200
    headers = {"Content-Type": MERGE}
    await custom.admin.ask("PATCH", f"{WIDGETS}/a", b'{"metadata":{"finalizers":null}}', headers=headers)
    await eventually(custom, f"{CRDS}/widgets.shop.example.com", lambda answer: answer.status == 404)
    assert (await custom.admin.get(WIDGETS)).status == 404
