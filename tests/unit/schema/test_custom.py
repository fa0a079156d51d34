"""Schemas of custom resources: pruning, defaults, value faults in Kubernetes' words, CEL rules, columns, paths."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from api.schema.custom.jsonpath import BadPath, find, parse_path
from api.schema.custom.shaping import drop_nulls, prune, set_defaults
from api.schema.custom.structural import parse_structural
from api.schema.custom.type import CustomType

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def custom(schema: dict[str, Any], **version: Any) -> CustomType:
    whole = {"type": "object", "properties": {"spec": {"type": "object", **schema}}}
    return CustomType.of({"name": "v1", "schema": {"openAPIV3Schema": whole}, **version})


def faults(schema: dict[str, Any], spec: Any, old: Any = None) -> list[str]:
    before = None if old is None else {"metadata": {"name": "x"}, "spec": old}
    return [str(fault) for fault in custom(schema).validate({"metadata": {"name": "x"}, "spec": spec}, before)]


def of(**properties: Any) -> dict[str, Any]:
    return {"properties": properties}


def test_what_a_schema_does_not_know_is_pruned_with_its_path() -> None:
    node = parse_structural(
        {
            "type": "object",
            "properties": {
                "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {}}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "inner": {"type": "object", "x-kubernetes-embedded-resource": True, "properties": {}},
            },
        }
    )
    value = {
        "list": [{"a": "x", "b": 1}],
        "map": {"k": {"c": 1}},
        "free": {"anything": [1]},
        "inner": {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "p",
                "typo": 1,
                "ownerReferences": [{"kind": "Node", "typo": 1}],
                "labels": {"l": "1"},
            },
            "spec": {},
        },
        "other": 1,
    }
    metadata = ["inner.metadata.ownerReferences[0].typo", "inner.metadata.typo"]
    assert sorted(prune(value, node)) == [*metadata, "inner.spec", "list[0].b", "map.k.c", "other"]
    assert value == {
        "list": [{"a": "x"}],
        "map": {"k": {}},
        "free": {"anything": [1]},
        "inner": {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p", "ownerReferences": [{"kind": "Node"}], "labels": {"l": "1"}},
        },
    }


def test_defaults_fill_what_is_missing_and_replace_nulls_that_may_not_be() -> None:
    node = parse_structural(
        {
            "type": "object",
            "properties": {
                "mode": {"type": "string", "default": "a"},
                "maybe": {"type": "string", "nullable": True, "default": "b"},
                "gone": {"type": "string"},
                "deep": {"type": "object", "default": {}, "properties": {"n": {"type": "integer", "default": 3}}},
            },
        }
    )
    value: dict[str, Any] = {"mode": None, "maybe": None, "gone": None}
    drop_nulls(value, node)
    set_defaults(value, node)
    assert value == {"mode": "a", "maybe": None, "deep": {"n": 3}}
    again = {**value}
    set_defaults(again, node)
    assert again == value


@pytest.mark.parametrize(
    ("schema", "spec", "fault"),
    [
        (
            of(n={"type": "integer"}),
            {"n": "x"},
            'spec.n: Invalid value: "string": spec.n in body must be of type integer: "string"',
        ),
        (
            of(n={"type": "integer", "maximum": 9}),
            {"n": 10},
            "spec.n: Invalid value: 10: spec.n in body should be less than or equal to 9",
        ),
        (
            of(n={"type": "integer", "minimum": 0, "exclusiveMinimum": True}),
            {"n": 0},
            "spec.n: Invalid value: 0: spec.n in body should be greater than 0",
        ),
        (
            of(n={"type": "number", "multipleOf": 0.5}),
            {"n": 0.7},
            "spec.n: Invalid value: 0.7: spec.n in body should be a multiple of 0.5",
        ),
        (
            of(s={"type": "string", "enum": ["a", "b"]}),
            {"s": "z"},
            'spec.s: Unsupported value: "z": supported values: "a", "b"',
        ),
        (of(s={"type": "string", "maxLength": 2}), {"s": "abc"}, "spec.s: Too long: may not be more than 2 bytes"),
        (
            of(s={"type": "string", "pattern": "^a$"}),
            {"s": "b"},
            "spec.s: Invalid value: \"b\": spec.s in body should match '^a$'",
        ),
        (
            of(s={"type": "string", "format": "ipv4"}),
            {"s": "1.2"},
            'spec.s: Invalid value: "1.2": spec.s in body must be of type ipv4: "1.2"',
        ),
        (of(a={"type": "array", "maxItems": 1}), {"a": [1, 2]}, "spec.a: Too many: 2: must have at most 1 item"),
        ({"required": ["n"]}, {}, "spec.n: Required value"),
        (
            of(p={"x-kubernetes-int-or-string": True}),
            {"p": True},
            'spec.p: Invalid value: "boolean": spec.p in body must be of type integer,string: "boolean"',
        ),
        (
            of(a={"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}),
            {"a": ["x", "x"]},
            'spec.a[1]: Duplicate value: "x"',
        ),
    ],
)
def test_a_value_fault_is_said_in_kubernetes_words(schema: dict[str, Any], spec: Any, fault: str) -> None:
    assert faults(schema, spec) == [fault]


def test_one_of_tells_what_no_alternative_took() -> None:
    schema = {"properties": {"a": {}, "b": {}}, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}
    assert faults(schema, {"a": 1}) == []
    assert faults(schema, {})[0].endswith('"spec" must validate one and only one schema (oneOf). Found none valid')
    assert "Found 2 valid alternatives" in faults(schema, {"a": 1, "b": 2})[0]


def test_what_was_stored_under_a_looser_schema_may_stay() -> None:
    schema = of(n={"type": "integer", "maximum": 9}, s={"type": "string"})
    assert faults(schema, {"n": 10, "s": "new"}, {"n": 10, "s": "old"}) == []
    assert len(faults(schema, {"n": 11}, {"n": 10})) == 1


def test_rules_see_the_value_and_the_one_before() -> None:
    rules = [
        {"rule": "!has(self.max) || self.n <= self.max", "message": "n above max"},
        {"rule": "self.n >= oldSelf.n", "messageExpression": "'was ' + string(oldSelf.n)"},
    ]
    schema = {**of(n={"type": "integer"}, max={"type": "integer"}), "x-kubernetes-validations": rules}
    assert faults(schema, {"n": 1, "max": 2}) == []
    assert faults(schema, {"n": 3, "max": 2}) == ["spec: Invalid value: n above max"]
    assert faults(schema, {"n": 1}, {"n": 5}) == ["spec: Invalid value: was 5"]


def test_rules_wait_for_values_of_the_right_type() -> None:
    schema = {**of(n={"type": "integer"}), "x-kubernetes-validations": [{"rule": "self.n > 0"}]}
    assert [fault.partition(":")[0] for fault in faults(schema, {"n": "x"})] == ["spec.n", "<nil>"]


def test_columns_follow_their_paths_and_types() -> None:
    columns = [
        {"name": "N", "type": "integer", "jsonPath": ".spec.n"},
        {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]
    schema = custom({}, additionalPrinterColumns=columns)
    obj = {
        "metadata": {"name": "x", "creationTimestamp": "2026-01-01T23:00:00Z"},
        "spec": {"n": 3},
        "status": {"conditions": [{"type": "Other", "status": "No"}, {"type": "Ready", "status": "True"}]},
    }
    assert [column.name for column in schema.headings()] == ["Name", "N", "Ready", "Age"]
    assert schema.cells(obj, NOW) == ["x", 3, "True", "60m"]
    bare = {"metadata": {"name": "y"}, "spec": {"n": "no"}}
    assert schema.cells(bare, NOW) == ["y", None, None, None]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".a.b", [1]),
        ("['a'].b", [1]),
        (".l[0]", [10]),
        (".l[-1]", [30]),
        (".l[*]", [10, 20, 30]),
        (".l[1:]", [20, 30]),
        ("..b", [1, 2]),
        (".missing", []),
        ('.items[?(@.name=="y")].v', [2]),
        (".items[?(@.v>1)].name", ["y"]),
    ],
)
def test_a_path_leads_to_values(path: str, found: list[Any]) -> None:
    obj = {"a": {"b": 1}, "c": {"b": 2}, "l": [10, 20, 30], "items": [{"name": "x", "v": 1}, {"name": "y", "v": 2}]}
    assert find(obj, parse_path(path)) == found


@pytest.mark.parametrize("path", [".a[", "a b", ".a[?(x)]", "{.a"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(BadPath):
        parse_path(path)
