"""Merge facts for patch and apply, and the OpenAPI documents that clients build theirs from."""

from __future__ import annotations

import re
from typing import Any

import orjson

from api.kinds import KINDS, Kind, by_gvk
from api.objects import Object
from api.schema import Node, definition, merge_schema, openapi_v3


def node(kind: str, *path: str, group: str = "") -> Node:
    row = by_gvk(group, "v1", kind)
    assert row is not None
    current = merge_schema(row)
    for step in path:
        assert current is not None
        current = current.element if step == "*" else current.field(step)
    assert current is not None
    return current


def test_containers_merge_by_name_and_ports_by_port_and_protocol() -> None:
    containers = node("Pod", "spec", "containers")
    assert (containers.type, containers.patch_merge_key, containers.list_type) == ("array", "name", "map")
    assert containers.patch_strategy == ("merge",)
    ports = node("Pod", "spec", "containers", "*", "ports")
    assert ports.patch_merge_key == "containerPort"
    assert ports.list_map_keys == ("containerPort", "protocol")
    assert node("Pod", "spec", "volumes").patch_strategy == ("merge", "retainKeys")
    assert node("Deployment", "spec", "strategy", group="apps").patch_strategy == ("retainKeys",)


def test_lists_and_maps_say_how_they_are_owned() -> None:
    assert node("Pod", "metadata", "finalizers").list_type == "set"
    assert node("Pod", "spec", "tolerations").list_type == "atomic"
    assert node("Pod", "spec", "nodeSelector").map_type == "atomic"
    selector = node("Deployment", "spec", "selector", group="apps")
    assert (selector.type, selector.map_type) == ("object", "atomic")
    labels = node("Pod", "metadata", "labels")
    assert labels.type == "map"
    assert labels.field("anything") == labels.element == Node(type="string")


def test_there_is_no_node_for_an_unknown_field_or_a_custom_resource() -> None:
    assert node("Pod", "spec").field("typo") is None
    assert merge_schema(Kind("ex.io", "v1", "W", "ws")) is None


def documents() -> dict[tuple[str, str], Object]:
    return {
        (group, version): openapi_v3(group, version, KINDS) for group, version in {(k.group, k.version) for k in KINDS}
    }


def test_every_reference_in_every_document_leads_somewhere() -> None:
    for document in documents().values():
        names = set(re.findall(rb'"#/components/schemas/([^"]+)"', orjson.dumps(document)))
        assert {name.decode() for name in names} <= set(document["components"]["schemas"])


def operations(document: Object) -> list[tuple[str, str, Any]]:
    return [
        (path, verb, operation)
        for path, item in document["paths"].items()
        for verb, operation in item.items()
        if verb != "parameters"
    ]


def test_every_kind_that_can_be_patched_offers_field_validation() -> None:
    for kind in KINDS:
        if "patch" not in kind.verbs:
            continue
        document = openapi_v3(kind.group, kind.version, KINDS)
        wanted = {"group": kind.group, "kind": kind.kind, "version": kind.version}
        patches = [
            operation
            for _, verb, operation in operations(document)
            if verb == "patch" and operation["x-kubernetes-group-version-kind"] == wanted
        ]
        assert patches
        for patch in patches:
            assert "fieldValidation" in {parameter["name"] for parameter in patch["parameters"]}
        described = [
            schema
            for schema in document["components"]["schemas"].values()
            if wanted in schema.get("x-kubernetes-group-version-kind", ())
        ]
        assert len(described) == 1
        assert described[0]["description"]


def test_operation_ids_are_unique_in_a_document() -> None:
    for document in documents().values():
        ids = [operation["operationId"] for _, _, operation in operations(document)]
        assert len(ids) == len(set(ids))


def test_a_definition_carries_types_and_patch_extensions() -> None:
    pod = by_gvk("", "v1", "Pod")
    assert pod is not None
    assert definition(pod)["properties"]["spec"]["allOf"] == [
        {"$ref": "#/components/schemas/io.k8s.api.core.v1.PodSpec"}
    ]
    spec = openapi_v3("", "v1", [pod])["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]
    containers = spec["properties"]["containers"]
    assert containers["x-kubernetes-patch-merge-key"] == "name"
    assert containers["x-kubernetes-list-map-keys"] == ["name"]
    assert spec["required"] == ["containers"]
    assert definition(Kind("ex.io", "v1", "W", "ws")) == {}
