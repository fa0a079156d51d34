"""Details of the wire that no other test names, over real HTTP: a test a detail."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from controller.server.read import Continue
from tests.integration.server.conftest import Answer, Caller, Cluster

MAPS = "/api/v1/namespaces/default/configmaps"


async def raw(caller: Caller, path: str, **headers: str) -> tuple[Any, bytes]:
    """An answer as it came over the wire, not decompressed."""
    sent = {"Authorization": caller.headers["Authorization"], **{n.replace("_", "-"): v for n, v in headers.items()}}
    async with caller.session.get(caller.url + path, headers=sent, auto_decompress=False) as answer:
        return answer.headers, await answer.read()


@pytest.mark.parametrize("count", [1, 4], ids=["in one write", "in pieces"])
async def test_long_answers_are_compressed_for_those_who_ask(cluster: Cluster, count: int) -> None:
    for number in range(count):
        await cluster.admin.post(MAPS, {"metadata": {"name": f"m{number}"}, "data": {"k": "x" * 200_000}})
    headers, plain = await raw(cluster.admin, MAPS, Accept_Encoding="identity")
    assert "Content-Encoding" not in headers and len(plain) > count * 200_000
    headers, packed = await raw(cluster.admin, MAPS, Accept_Encoding="deflate;q=0.5 , gzip ")
    assert headers["Content-Encoding"] == "gzip" and len(packed) < len(plain) / 10
    assert json.loads(gzip.decompress(packed))["items"] == json.loads(plain)["items"]
    for declined in ("gzip;q=0", "gzip;q=0.5", "*", "GZIP"):
        headers, _ = await raw(cluster.admin, MAPS, Accept_Encoding=declined)
        assert "Content-Encoding" not in headers, declined
    headers, _ = await raw(cluster.admin, f"{MAPS}?fieldSelector=metadata.name=none", Accept_Encoding="gzip")
    assert "Content-Encoding" not in headers


async def test_a_version_before_the_first_is_gone(cluster: Cluster) -> None:
    answer = await cluster.admin.get(f"{MAPS}?resourceVersion=1&resourceVersionMatch=Exact")
    assert (answer.status, answer.json["reason"]) == (410, "Expired")


async def test_an_empty_dry_run_is_no_dry_run(cluster: Cluster) -> None:
    refused = await cluster.admin.post(f"{MAPS}?dryRun=", {"metadata": {"name": "a"}})
    assert refused.status == 422 and 'dryRun: Unsupported value: [""]: supported values: "All"' in refused.message


async def apply(cluster: Cluster, name: str, body: Any, query: str = "") -> Answer:
    headers = {"Content-Type": "application/apply-patch+yaml"}
    return await cluster.admin.ask("PATCH", f"{MAPS}/{name}?fieldManager=m{query}", body, headers=headers)


@pytest.mark.parametrize("validation", ["Strict", "Warn", "Ignore"])
async def test_an_apply_owns_no_field_that_is_none(cluster: Cluster, validation: str) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "oops": 1}, "foo": 1}
    refused = await apply(cluster, "a", body, f"&fieldValidation={validation}")
    assert refused.status == 400
    assert refused.message.startswith("failed to create typed patch object (/a; /v1, Kind=ConfigMap): errors:")
    assert "\n  .foo: field not declared in schema" in refused.message
    assert "\n  .metadata.oops: field not declared in schema" in refused.message
    assert (await cluster.admin.get(f"{MAPS}/a")).status == 404


async def test_an_apply_with_a_key_twice_is_refused_by_those_who_are_strict(cluster: Cluster) -> None:
    body = b'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: "1",\n k: "2"}\n'
    refused = await apply(cluster, "a", body, "&fieldValidation=Strict")
    why = 'error converting YAML to JSON: yaml: unmarshal errors:\n  line 5: key "k" already set in map'
    assert (refused.status, refused.message) == (400, f"error strict decoding YAML: {why}")
    warned = await apply(cluster, "a", body)
    assert (warned.status, warned.json["data"]) == (201, {"k": "2"})
    assert 'line 5: key \\"k\\" already set in map' in warned.headers["Warning"]


async def make_maps(cluster: Cluster, *names: str) -> None:
    for name in names:
        made = await cluster.admin.post(MAPS, {"metadata": {"name": name, "labels": {"n": name}}})
        assert made.status == 201, made.body


async def test_an_expired_page_offers_the_rest_as_it_is_now(cluster: Cluster) -> None:
    await make_maps(cluster, "a", "b", "c")
    expired = await cluster.admin.get(f"{MAPS}?limit=1&continue={Continue(1, ('default', 'a')).text()}")
    assert (expired.status, expired.json["reason"]) == (410, "Expired")
    rest = await cluster.admin.get(f"{MAPS}?limit=5&continue={expired.json['metadata']['continue']}")
    assert [item["metadata"]["name"] for item in rest.json["items"]] == ["b", "c"]


async def test_what_remains_is_counted_only_where_nothing_is_selected(cluster: Cluster) -> None:
    await make_maps(cluster, "a", "b", "c")
    plain, selected = [(await cluster.admin.get(f"{MAPS}?limit=1{more}")).json for more in ("", "&labelSelector=n")]
    assert plain["metadata"]["remainingItemCount"] == 2
    assert selected["metadata"]["continue"] and "remainingItemCount" not in selected["metadata"]


async def test_a_collection_is_deleted_by_the_options_in_its_body(cluster: Cluster) -> None:
    await make_maps(cluster, "a", "b")
    tried = await cluster.admin.ask("DELETE", f"{MAPS}?labelSelector=n=a", {"dryRun": ["All"]})
    assert [item["metadata"]["name"] for item in tried.json["items"]] == ["a"]
    other = await cluster.admin.ask("DELETE", f"{MAPS}?labelSelector=n=a", {"preconditions": {"uid": "other"}})
    assert (other.status, other.json["reason"]) == (409, "Conflict")
    assert (await cluster.admin.get(f"{MAPS}/a")).status == 200
    gone = await cluster.admin.ask("DELETE", f"{MAPS}?labelSelector=n=a")
    assert (gone.status, gone.json["kind"]) == (200, "ConfigMapList")
    left = (await cluster.admin.get(MAPS)).json["items"]
    assert [item["metadata"]["name"] for item in left] == ["b"]


async def test_a_node_that_says_nothing_of_it_is_schedulable(cluster: Cluster) -> None:
    for name, spec in (("open", {}), ("shut", {"unschedulable": True})):
        await cluster.admin.post("/api/v1/nodes", {"metadata": {"name": name}, "spec": spec})
    for value, name in (("false", "open"), ("true", "shut")):
        listed = (await cluster.admin.get(f"/api/v1/nodes?fieldSelector=spec.unschedulable={value}")).json
        assert [item["metadata"]["name"] for item in listed["items"]] == [name]


@pytest.mark.parametrize("path", ["/apis", "/openapi/v3", "/openapi/v3/apis/apps/v1"])
async def test_who_has_the_latest_description_is_told_so(cluster: Cluster, path: str) -> None:
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
    first = await cluster.admin.get(path, Accept=accept)
    assert int(first.headers["Content-Length"]) > 0 or first.headers.get("Content-Encoding")
    again = await cluster.admin.get(path, Accept=accept, If_None_Match=first.headers["ETag"])
    assert (again.status, again.body) == (304, b"")


async def test_an_openapi_document_at_its_hash_may_be_kept_for_ever(cluster: Cluster) -> None:
    index = (await cluster.admin.get("/openapi/v3")).json
    url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
    kept = await cluster.admin.get(url)
    assert kept.headers["Cache-Control"] == "public, immutable" and "2099" in kept.headers["Expires"]
    stale = cluster.url + url[:-4] + "none"
    async with cluster.admin.session.get(stale, headers=cluster.admin.headers, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (301, url)
    loose = await cluster.admin.get(url.partition("?")[0])
    assert loose.headers["Cache-Control"] == "no-cache, private" and loose.body == kept.body


async def test_managed_fields_are_reset_by_an_empty_entry(cluster: Cluster) -> None:
    await make_maps(cluster, "a")
    patch = b'{"metadata":{"managedFields":[{}]}}'
    headers = {"Content-Type": "application/merge-patch+json"}
    cleared = await cluster.admin.ask("PATCH", f"{MAPS}/a", patch, headers=headers)
    assert "managedFields" not in cleared.json["metadata"]


async def test_a_namespace_names_a_security_level_that_is_one(cluster: Cluster) -> None:
    prefix = "pod-security.kubernetes.io/"
    labels = {f"{prefix}enforce": "foo", f"{prefix}warn-version": "v2"}
    refused = await cluster.admin.post("/api/v1/namespaces", {"metadata": {"name": "n", "labels": labels}})
    assert refused.status == 422
    assert (
        f'metadata.labels[{prefix}enforce]: Invalid value: "foo": must be one of privileged, baseline, restricted'
        in (refused.message)
    )
    assert f'metadata.labels[{prefix}warn-version]: Invalid value: "v2": must be "latest" or "v1.x"' in refused.message
    fine = {f"{prefix}enforce": "baseline", f"{prefix}enforce-version": "v1.30", f"{prefix}audit": "restricted"}
    made = await cluster.admin.post("/api/v1/namespaces", {"metadata": {"name": "n", "labels": fine}})
    assert made.status == 201


async def test_one_priority_class_is_the_default(cluster: Cluster) -> None:
    path = "/apis/scheduling.k8s.io/v1/priorityclasses"
    first = await cluster.admin.post(path, {"metadata": {"name": "first"}, "value": 1, "globalDefault": True})
    assert first.status == 201
    second = {"metadata": {"name": "second"}, "value": 2, "globalDefault": True}
    refused = await cluster.admin.post(path, second)
    assert (refused.status, refused.message) == (
        403,
        'priorityclasses.scheduling.k8s.io "second" is forbidden: '
        "PriorityClass first is already marked as default. Only one default can exist",
    )
    assert (await cluster.admin.ask("PUT", f"{path}/first", first.json)).status == 200


async def test_owners_named_twice_are_named_once(cluster: Cluster) -> None:
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "1"}
    told = "contains duplicate entries{}; API server dedups owner references in 1.20+"
    owners = [owner, {**owner, "controller": True}, owner, owner]
    made = await cluster.admin.post(MAPS, {"metadata": {"name": "m", "ownerReferences": owners}})
    assert made.json["metadata"]["ownerReferences"] == owners[:2]
    assert told.format("") in made.headers["Warning"] and "observed: 1, 1" in made.headers["Warning"]
    put = await cluster.admin.ask(
        "PUT", f"{MAPS}/m", made.json | {"metadata": made.json["metadata"] | {"ownerReferences": owners}}
    )
    assert put.json["metadata"] == made.json["metadata"] and told.format("") in put.headers["Warning"]
    headers = {"Content-Type": "application/merge-patch+json"}
    patched = await cluster.admin.ask("PATCH", f"{MAPS}/m", {"metadata": {"ownerReferences": owners}}, headers=headers)
    assert patched.json["metadata"]["ownerReferences"] == owners[:2]
    assert told.format(" after mutating admission happens") in patched.headers["Warning"]


@pytest.mark.parametrize(
    ("query", "body", "told"),
    [
        ("?dryRun=", None, 'dryRun: Unsupported value: [""]: supported values: "All"'),
        ("", {"dryRun": ["All", "x"]}, 'dryRun: Unsupported value: ["All","x"]: supported values: "All"'),
        ("?propagationPolicy=x", None, 'propagationPolicy: Unsupported value: "x": supported values: "Foreground"'),
    ],
)
async def test_delete_options_are_judged_on_one_object_and_on_all(
    cluster: Cluster, query: str, body: Any, told: str
) -> None:
    await cluster.admin.post(MAPS, {"metadata": {"name": "kept"}})
    for path in (MAPS, f"{MAPS}/kept"):
        answer = await cluster.admin.ask("DELETE", path + query, body)
        assert (answer.status, answer.json["details"]["kind"]) == (422, "DeleteOptions"), answer.body
        assert told in answer.message
    assert (await cluster.admin.get(f"{MAPS}/kept")).status == 200


async def test_who_asks_to_wait_for_dependents_in_the_old_way_is_told_accepted(cluster: Cluster) -> None:
    for name, query, status in (
        ("a", "?orphanDependents=false", 202),
        ("b", "", 200),
        ("c", "?orphanDependents=true", 200),
    ):
        await cluster.admin.post(MAPS, {"metadata": {"name": name, "finalizers": ["example.test/hold"]}})
        assert (await cluster.admin.ask("DELETE", f"{MAPS}/{name}{query}")).status == status
    await cluster.admin.post(MAPS, {"metadata": {"name": "d"}})
    assert (await cluster.admin.ask("DELETE", f"{MAPS}/d?orphanDependents=false")).status == 200


async def test_a_field_manager_is_measured_in_bytes(cluster: Cluster) -> None:
    made = await cluster.admin.post(f"{MAPS}?fieldManager={'%C3%A9' * 64}", {"metadata": {"name": "short"}})
    assert made.status == 201
    long = await cluster.admin.post(f"{MAPS}?fieldManager={'%C3%A9' * 65}", {"metadata": {"name": "long"}})
    assert (long.status, "may not be more than 128 bytes" in long.message) == (422, True), long.body
    odd = await cluster.admin.post(f"{MAPS}?fieldManager=%C3%A9%07", {"metadata": {"name": "odd"}})
    assert "invalid character U+0007 (at position 2)" in odd.message


async def test_applying_to_another_uid_is_refused_as_kubernetes_does(cluster: Cluster) -> None:
    await cluster.admin.post(MAPS, {"metadata": {"name": "there"}})
    headers = {"Content-Type": "application/apply-patch+yaml"}

    async def apply(name: str) -> Answer:
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "uid": "abc"}}
        return await cluster.admin.ask("PATCH", f"{MAPS}/{name}?fieldManager=m", config, headers=headers)

    missing, other = await apply("missing"), await apply("there")
    why = "uid mismatch: the provided object specified uid abc, and no existing object was found"
    assert (missing.status, missing.message) == (409, f'Operation cannot be fulfilled on configmaps "missing": {why}')
    assert (other.status, 'metadata.uid: Invalid value: "abc": field is immutable' in other.message) == (422, True)


async def test_a_table_of_a_review_is_not_acceptable(cluster: Cluster) -> None:
    review = {"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}}
    table = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    for kind in ("selfsubjectaccessreviews", "selfsubjectrulesreviews"):
        refused = await cluster.admin.post(f"/apis/authorization.k8s.io/v1/{kind}", review, **table)
        assert (refused.status, refused.json["reason"]) == (406, "NotAcceptable")
    await cluster.namespace("n")
    token = await cluster.admin.post("/api/v1/namespaces/n/serviceaccounts/default/token", {}, **table)
    assert token.status == 406


async def test_what_a_resize_answers_is_what_a_get_shows_byte_by_byte(cluster: Cluster) -> None:
    await cluster.namespace("n")
    ports = [{"containerPort": 443}, {"containerPort": 80}]
    resources = {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}
    container = {"resources": resources, "ports": ports, "name": "c", "image": "busybox:1"}
    pod = await cluster.pod("n", "p", containers=[container])
    (entry,) = pod["metadata"]["managedFields"]
    owned = entry["fieldsV1"]["f:spec"]["f:containers"]['k:{"name":"c"}']
    assert list(owned) == [".", *sorted(owned)[1:]]
    assert [key for key in owned["f:ports"] if key != "."] == [
        'k:{"containerPort":80,"protocol":"TCP"}',
        'k:{"containerPort":443,"protocol":"TCP"}',
    ]
    path = "/api/v1/namespaces/n/pods/p"
    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "500m"
    answer = await cluster.admin.ask("PUT", f"{path}/resize", pod)
    assert answer.status == 200, answer.body
    assert (await cluster.admin.get(path)).body == answer.body
    again = await cluster.admin.ask("PUT", f"{path}/resize", answer.json)
    assert again.body == answer.body
