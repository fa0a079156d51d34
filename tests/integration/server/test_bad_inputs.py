"""Whatever is sent, the answer is a Status with a 4xx, and the server serves on."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.server.conftest import Cluster

MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
JSON, YAML = "application/json", "application/yaml"
BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n" % ((c, c) + (c - 1,) * 9) for c in range(ord("b"), ord("k"))
)


@pytest.mark.parametrize(
    ("path", "content_type", "body", "status", "says"),
    [
        (MAPS, JSON, b"", 400, "unexpected end of JSON input"),
        (MAPS, JSON, b"{", 400, "couldn't get version/kind"),
        (MAPS, JSON, b"[]", 400, ""),
        (MAPS, JSON, b'"text"', 400, ""),
        (MAPS, JSON, b"\xff\xfe\x00", 400, ""),
        (MAPS, JSON, b"[" * 50_000, 400, ""),
        (MAPS, JSON, b'{"data": 5}', 400, "data"),
        (MAPS, JSON, b'{"data": {"a": 1}}', 400, "ConfigMap.data"),
        (MAPS, JSON, b'{"metadata": []}', 400, "metadata"),
        (MAPS, JSON, b'{"metadata": {"name": "Bad_Name"}}', 422, "metadata.name"),
        (MAPS, JSON, b'{"metadata": {"name": "a", "namespace": "other"}}', 400, "namespace"),
        (MAPS, JSON, b'{"kind": "Pod", "apiVersion": "v1"}', 400, "ConfigMap"),
        (MAPS, JSON, b'{"apiVersion": "v9", "kind": "ConfigMap"}', 400, "v9"),
        (MAPS, YAML, b"a: [", 400, ""),
        (MAPS, YAML, b"metadata:\n\tname: x\n", 400, ""),
        (MAPS, YAML, BOMB, 400, ""),
        (MAPS, YAML, b"metadata: {name: a}\n---\nmetadata: {name: b}\n", 400, ""),
        (MAPS, "application/vnd.kubernetes.protobuf", b"k8s\x00junk", 400, ""),
        (MAPS, "application/vnd.kubernetes.protobuf", b"not protobuf", 400, ""),
        (MAPS, "text/plain", b"x", 415, "accepted media types include"),
        (MAPS, "application/cbor", b"\xa0", 415, ""),
        (PODS, JSON, b'{"metadata": {"name": "p"}, "spec": {"containers": "x"}}', 400, "spec.containers"),
        (PODS, JSON, b'{"metadata": {"name": "p"}, "spec": {"containers": []}}', 422, "spec.containers"),
        ("/api/v1/namespaces/nowhere/configmaps", JSON, b'{"metadata": {"name": "a"}}', 404, 'namespaces "nowhere"'),
        ("/api/v1/namespaces/default/nonsense", JSON, b"{}", 404, ""),
        (f"{MAPS}?dryRun=Foo", JSON, b'{"metadata": {"name": "a"}}', 422, "dryRun"),
        (f"{MAPS}?fieldValidation=Strict", JSON, b'{"metadata": {"name": "a"}, "foo": 1}', 400, 'unknown field "foo"'),
        (f"{MAPS}?fieldValidation=Strict", JSON, b'{"data": {}, "data": {}}', 400, 'duplicate field "data"'),
        (f"{MAPS}/x", JSON, b"{}", 405, "does not allow this method"),
    ],
)
async def test_a_bad_body_is_refused(
    cluster: Cluster, path: str, content_type: str, body: bytes, status: int, says: str
) -> None:
    await cluster.namespace("default")
    answer = await cluster.admin.ask("POST", path, body, headers={"Content-Type": content_type})
    assert answer.status == status, answer.body
    assert answer.json["kind"] == "Status" and answer.json["code"] == status
    assert says in answer.message
    assert (await cluster.admin.get("/readyz")).body == b"ok"


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/json-patch+json", b"{}", 400),
        ("application/json-patch+json", b'[{"op": "test", "path": "/data/k", "value": "other"}]', 422),
        ("application/json-patch+json", b'[{"op": "remove", "path": "/nothing/here"}]', 422),
        ("application/merge-patch+json", b"[1]", 400),
        ("application/merge-patch+json", b'{"data": 5}', 422),
        ("application/strategic-merge-patch+json", b"junk", 400),
        ("application/apply-patch+yaml", b"{}", 422),
        ("text/plain", b"{}", 415),
    ],
)
async def test_a_bad_patch_is_refused(cluster: Cluster, content_type: str, body: bytes, status: int) -> None:
    await cluster.admin.post(MAPS, {"metadata": {"name": "a"}, "data": {"k": "v"}})
    answer = await cluster.admin.ask("PATCH", f"{MAPS}/a", body, headers={"Content-Type": content_type})
    assert (answer.status, answer.json["kind"]) == (status, "Status"), answer.body


async def test_a_body_beyond_three_mebibytes_is_too_large(cluster: Cluster) -> None:
    answer = await cluster.admin.post(MAPS, {"metadata": {"name": "a"}, "data": {"k": "x" * (3 << 20)}})
    assert answer.status == 413
    assert answer.message == "Request entity too large: limit is 3145728"


@pytest.mark.parametrize(
    ("path", "status"),
    [("/nope", 404), ("/apis/nope.io/v1/things", 404), ("/api/v9/pods", 404), ("/livez/nonsense", 404)],
)
async def test_unknown_paths_are_plain_404(cluster: Cluster, path: str, status: int) -> None:
    answer = await cluster.admin.get(path)
    assert (answer.status, answer.body) == (status, b"404 page not found\n")


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"propagationPolicy": "Foo"}, 422),
        ({"propagationPolicy": "Orphan", "orphanDependents": True}, 422),
        ({"preconditions": {"uid": "other"}}, 409),
        ({"gracePeriodSeconds": "soon"}, 400),
        ({"kind": "ConfigMap"}, 400),
        ({"dryRun": ["Some"]}, 422),
    ],
)
async def test_bad_delete_options_delete_nothing(cluster: Cluster, options: dict[str, Any], status: int) -> None:
    await cluster.admin.post(MAPS, {"metadata": {"name": "a"}})
    answer = await cluster.admin.ask("DELETE", f"{MAPS}/a", options)
    assert answer.status == status, answer.body
    assert (await cluster.admin.get(f"{MAPS}/a")).status == 200


async def test_warnings_are_headers_and_the_object_is_pruned(cluster: Cluster) -> None:
    answer = await cluster.admin.post(MAPS, {"metadata": {"name": "a"}, "foo": 1})
    assert answer.status == 201 and "foo" not in answer.json
    assert answer.headers["Warning"] == '299 - "unknown field \\"foo\\""'


async def test_not_acceptable_is_said_before_anything_is_written(cluster: Cluster) -> None:
    answer = await cluster.admin.ask("POST", MAPS, {"metadata": {"name": "a"}}, headers={"Accept": "application/xml"})
    assert answer.status == 406
    assert (await cluster.admin.get(f"{MAPS}/a")).status == 404
