"""JSON patch and merge patch: what they do and which refusal a bad one gets."""

from typing import Any

import pytest

from api.errors import BadRequest, Invalid
from api.patch import json_patch, merge_patch


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
        {"op": "add", "path": "a", "value": 1},
        {"op": "replace", "path": "", "value": 7},
    ],
)
def test_what_cannot_be_carried_out_is_unprocessable(operation: Any) -> None:
    with pytest.raises(Invalid) as raised:
        json_patch({"a": 1}, [operation])
    assert raised.value.message == "the server rejected our request due to an error in our request"


@pytest.mark.parametrize("patch", [{}, 3, ["x"], None])
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
