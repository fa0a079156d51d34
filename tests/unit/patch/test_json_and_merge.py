"""JSON patch and merge patch: what they do and which refusal a bad one gets."""

from copy import deepcopy
from typing import Any

import pytest

from api.errors import BadRequest, Invalid, TooLarge
from api.patch import json_patch, merge_patch
from api.patch.json import unknown_operation_fields


def test_operations_are_applied_in_order() -> None:
    patch = [{"op": "add", "path": "/a/-", "value": 2}, {"op": "replace", "path": "/a/0", "value": 0}]
    assert json_patch({"a": [1]}, patch) == {"a": [0, 2]}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/a", "value": 2},
        {"op": "remove", "path": "/zzz"},
        {"op": "replace", "path": "/b/c", "value": 1},
        {"op": "dance", "path": "/a"},
        {"path": "/a"},
        None,
        {"op": "add", "value": 1},
        {"op": "add", "path": "a", "value": 1},
        {"op": "add", "path": "", "value": {}},
        {"op": "test", "path": "", "value": {"a": 2}},
        {"op": "replace", "path": "", "value": 7},
    ],
)
def test_what_cannot_be_carried_out_is_unprocessable(operation: Any) -> None:
    with pytest.raises(Invalid) as raised:
        json_patch({"a": 1}, [operation])
    assert raised.value.message == "the server rejected our request due to an error in our request"


@pytest.mark.parametrize("patch", [{}, 3, ["x"], [{"op": 1}]])
def test_what_is_no_json_patch_is_a_bad_request(patch: Any) -> None:
    with pytest.raises(BadRequest):
        json_patch({}, patch)


def test_merge_replaces_lists_merges_maps_and_nulls_delete() -> None:
    obj = {"a": {"b": 1, "c": 2}, "l": [1, 2], "x": "y"}
    assert merge_patch(obj, {"a": {"b": None, "d": {"e": None, "f": 1}}, "l": [3], "x": None}) == {
        "a": {"c": 2, "d": {"f": 1}},
        "l": [3],
    }


def test_a_merge_patch_must_be_an_object() -> None:
    with pytest.raises(BadRequest):
        merge_patch({}, [1])


REFUSED = "the server rejected our request due to an error in our request"


@pytest.mark.parametrize(
    "patch",
    [
        [{"op": "test", "path": "/a", "value": True}],
        [{"op": "add", "path": "/b", "value": 1}, {"op": "copy", "path": "/c"}],
        [{"op": "move", "path": "/c", "from": "/zzz"}],
        [{"op": "move", "path": "/a/b", "from": "/a"}],
        [{"op": "replace", "path": "", "value": 7}],
        [{"op": "remove", "path": "/l/1"}],
    ],
)
def test_a_refused_json_patch_is_told_in_kubernetes_words(patch: Any) -> None:
    with pytest.raises(Invalid) as raised:
        json_patch({"a": 1, "l": [1]}, patch)
    assert (raised.value.message, raised.value.details, raised.value.bare) == (REFUSED, {}, True)


def test_operations_reach_every_place() -> None:
    patch = [
        {"op": "copy", "path": "/b", "from": "/a"},
        {"op": "move", "path": "/c~1d", "from": "/l/0"},
        {"op": "test", "path": "/c~1d", "value": {"e": [1]}},
        {"op": "remove", "path": "/a"},
        {"op": "add", "path": "/l/0", "value": None},
    ]
    assert json_patch({"a": {"x": 1}, "l": [{"e": [1]}, 2]}, patch) == {
        "b": {"x": 1},
        "c/d": {"e": [1]},
        "l": [None, 2],
    }
    assert json_patch({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 2}}]) == {"b": 2}
    assert json_patch({"a": 1}, []) == {"a": 1}


def test_a_json_patch_of_too_many_operations_is_too_large() -> None:
    operation = {"op": "add", "path": "/a", "value": 1}
    assert json_patch({}, [operation] * 10_000) == {"a": 1}
    with pytest.raises(TooLarge) as raised:
        json_patch({}, [operation] * 10_001)
    assert raised.value.message == "The allowed maximum operations in a JSON patch is 10000, got 10001"


def test_copies_are_counted_together() -> None:
    obj = {"a": "x" * ((1 << 20) - 2)}
    copies = [{"op": "copy", "path": f"/{place}", "from": "/a"} for place in range(4)]
    assert len(json_patch(dict(obj), copies[:3])) == 4
    with pytest.raises(Invalid):
        json_patch(dict(obj), copies)


@pytest.mark.parametrize(
    ("apply", "patch", "into"),
    [
        (json_patch, {}, "object into Go value of type []handlers.jsonPatchOp"),
        (json_patch, [1], "number into Go value of type handlers.jsonPatchOp"),
        (json_patch, [{"path": True}], "bool into Go struct field jsonPatchOp.path of type string"),
        (merge_patch, [], "array into Go value of type map[string]interface {}"),
        (merge_patch, "x", "string into Go value of type map[string]interface {}"),
    ],
)
def test_another_shape_of_a_patch_is_told_in_kubernetes_words(apply: Any, patch: Any, into: str) -> None:
    with pytest.raises(BadRequest) as raised:
        apply({}, patch)
    assert raised.value.message == f"error decoding patch: json: cannot unmarshal {into}"


def test_a_json_patch_makes_nothing_too_deep_to_be_kept() -> None:
    value: Any = {}
    for _ in range(120):
        value = {"a": value}
    operations = [{"op": "add", "path": "/x" + "/a" * (120 * times), "value": deepcopy(value)} for times in range(3)]
    assert len(json_patch({}, deepcopy(operations[:1]))) == 1
    with pytest.raises(Invalid) as raised:
        json_patch({}, operations)
    assert raised.value.message == REFUSED


def test_a_json_patch_works_in_place() -> None:
    obj: Any = {"a": {"b": 1}}
    inner = obj["a"]
    assert json_patch(obj, [{"op": "add", "path": "/a/c", "value": 2}])["a"] is inner == {"b": 1, "c": 2}


@pytest.mark.parametrize(
    ("operation", "result"),
    [
        ({"op": "add", "path": "/l/-1", "value": 9}, [1, 2, 3, 9]),
        ({"op": "add", "path": "/l/-4", "value": 9}, [9, 1, 2, 3]),
        ({"op": "remove", "path": "/l/-1"}, [1, 2]),
        ({"op": "replace", "path": "/l/-3", "value": 9}, [9, 2, 3]),
        ({"op": "test", "path": "/l/-2", "value": 2}, [1, 2, 3]),
        ({"op": "move", "from": "/l/-1", "path": "/l/-3"}, [3, 1, 2]),
        ({"op": "copy", "from": "/l/-3", "path": "/l/-1"}, [1, 2, 3, 1]),
        ({"op": "replace", "path": "/l/+1", "value": 9}, [1, 9, 3]),
    ],
)
def test_negative_indices_count_from_the_end(operation: Any, result: list[int]) -> None:
    assert json_patch({"l": [1, 2, 3]}, [operation]) == {"l": result}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "add", "path": "/l/-5", "value": 9},
        {"op": "add", "path": "/l/4", "value": 9},
        {"op": "remove", "path": "/l/-4"},
        {"op": "replace", "path": "/l/3", "value": 9},
        {"op": "replace", "path": "/l/-", "value": 9},
        {"op": "test", "path": "/l/-4", "value": None},
        {"op": "copy", "from": "/l/x", "path": "/l/-"},
        {"op": "test", "path": "/l/0", "value": 1.0},
    ],
)
def test_indices_beyond_either_end_are_refused(operation: Any) -> None:
    with pytest.raises(Invalid):
        json_patch({"l": [1, 2, 3]}, [operation])


def test_what_is_missing_in_a_map_is_null() -> None:
    patch = [
        {"op": "test", "path": "/b", "value": None},
        {"op": "replace", "path": "/c", "value": 1},
        {"op": "copy", "from": "/zzz", "path": "/d"},
        {"op": "add", "path": "/e"},
    ]
    assert json_patch({}, patch) == {"c": 1, "d": None, "e": None}
    assert json_patch({"a": 1}, None) == {"a": 1}


def test_unknown_fields_of_operations_are_named() -> None:
    patch = [{"op": "remove", "path": "/a"}, None, {"op": "add", "x": 1, "path": "/b", "Value": 2}]
    assert [*unknown_operation_fields(patch)] == ["[2].x", "[2].Value"]


def test_a_null_merge_patch_changes_nothing() -> None:
    assert merge_patch({"a": 1}, None) == {"a": 1}
