"""Discovery documents against what a real API server shows for the same kinds."""

from __future__ import annotations

import orjson
import pytest

from api.kinds import KINDS, by_resource
from controller.server.discovery import discover, root_paths, storage_hash
from controller.server.health import answer_health

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def test_an_etag_that_is_known_is_answered_304() -> None:
    first = discover("/apis", AGGREGATED, "", "h:1")
    assert first is not None and first.status == 200
    tag = dict(first.headers)["ETag"]
    again = discover("/apis", AGGREGATED, tag, "h:1")
    assert again is not None and again.status == 304 and again.body == b""
    assert dict(again.headers)["ETag"] == tag


def test_the_aggregated_form_is_named_in_its_content_type() -> None:
    reply = discover("/api", AGGREGATED, "", "h:1")
    assert reply is not None and reply.content_type == AGGREGATED
    core = orjson.loads(reply.body)["items"][0]["versions"][0]["resources"]
    pods = next(resource for resource in core if resource["resource"] == "pods")
    assert pods["shortNames"] == ["po"] and pods["scope"] == "Namespaced"
    assert {key: value for key, value in pods["subresources"][-1].items() if key != "verbs"} == {
        "subresource": "status",
        "responseKind": {"group": "", "version": "", "kind": "Pod"},
    }


@pytest.mark.parametrize("path", ["/apis/nope", "/apis/apps/v9", "/api/v2", "/nope"])
def test_what_is_not_served_is_not_discovered(path: str) -> None:
    assert discover(path, "", "", "h:1") is None


def test_a_scale_names_its_own_group() -> None:
    reply = discover("/apis/apps/v1", "", "", "h:1")
    assert reply is not None
    scale = next(r for r in orjson.loads(reply.body)["resources"] if r["name"] == "deployments/scale")
    assert (scale["group"], scale["version"], scale["kind"]) == ("autoscaling", "v1", "Scale")


def test_the_storage_hash_is_kubernetes() -> None:
    assert storage_hash(by_resource("", "configmaps")) == "qFsyl6wFWjQ="
    assert storage_hash(by_resource("apps", "deployments")) == "8aSe+NMegvE="


def test_every_group_version_has_a_path() -> None:
    paths = root_paths()["paths"]
    for kind in KINDS:
        assert (f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.version}") in paths


@pytest.mark.parametrize(
    ("path", "params", "etcd", "status", "text"),
    [
        ("/livez", {}, False, 200, "ok"),
        ("/readyz", {}, True, 200, "ok"),
        ("/readyz", {}, False, 500, "[+]ping ok\n[-]etcd failed\nreadyz check failed\n"),
        ("/readyz", {"exclude": "etcd"}, False, 200, "ok"),
        ("/readyz/etcd", {}, False, 500, "[-]etcd failed\nreadyz check failed\n"),
        ("/readyz", {"verbose": ""}, True, 200, "[+]ping ok\n[+]etcd ok\nreadyz check passed\n"),
    ],
)
def test_losing_etcd_is_not_ready_but_alive(
    path: str, params: dict[str, str], etcd: bool, status: int, text: str
) -> None:
    reply = answer_health(path, params, {"etcd": lambda: etcd})
    assert reply is not None
    assert (reply.status, reply.body.decode()) == (status, text)


def test_an_unknown_check_is_not_found() -> None:
    assert answer_health("/readyz/nonsense", {}, {}) is None
