"""Details of the wire that no other test names, over real HTTP: a test a detail."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

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
    headers, packed = await raw(cluster.admin, MAPS, Accept_Encoding="deflate, gzip;q=1.0")
    assert headers["Content-Encoding"] == "gzip" and len(packed) < len(plain) / 10
    assert json.loads(gzip.decompress(packed))["items"] == json.loads(plain)["items"]
    headers, _ = await raw(cluster.admin, MAPS, Accept_Encoding="gzip;q=0")
    assert "Content-Encoding" not in headers
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
    body = b'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: "1", k: "2"}\n'
    refused = await apply(cluster, "a", body, "&fieldValidation=Strict")
    assert refused.status == 400 and 'duplicate field "data.k"' in refused.message
    warned = await apply(cluster, "a", body)
    assert (warned.status, warned.json["data"]) == (201, {"k": "2"})
    assert 'duplicate field \\"data.k\\"' in warned.headers["Warning"]
