"""Large patches cost in proportion, and what cannot be hashed is no crash."""

from __future__ import annotations

import time
from typing import Any

from api.kinds import by_gvk
from api.patch import strategic_merge
from api.schema import merge_schema

MANY = 20_000


def merged(kind: tuple[str, str, str], obj: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    row = by_gvk(*kind)
    assert row is not None
    began = time.process_time()
    found = strategic_merge(obj, patch, merge_schema(row))
    assert time.process_time() - began < 4
    return found


def pod(containers: list[dict[str, Any]]) -> dict[str, Any]:
    return {"spec": {"containers": containers}}


POD = ("", "v1", "Pod")


def test_many_elements_are_merged_in_proportion() -> None:
    old = pod([{"name": f"c{n}", "image": "a"} for n in range(MANY)])
    found = merged(POD, old, pod([{"name": f"c{n}", "image": "b"} for n in range(MANY)]))
    assert [each["image"] for each in found["spec"]["containers"]] == ["b"] * MANY


def test_many_deletes_are_made_in_proportion() -> None:
    old = pod([{"name": f"c{n}"} for n in range(MANY)])
    found = merged(POD, old, pod([{"name": f"c{n}", "$patch": "delete"} for n in range(1, MANY)]))
    assert found["spec"]["containers"] == [{"name": "c0"}]


def test_one_port_in_many_protocols_is_merged_in_proportion() -> None:
    def container(count: int) -> list[dict[str, Any]]:
        return [{"name": "c", "ports": [{"containerPort": 1, "protocol": f"P{n}"} for n in range(count)]}]

    found = merged(POD, pod(container(MANY // 2)), pod(container(MANY)))
    assert len(found["spec"]["containers"][0]["ports"]) == MANY // 2, "the merge key is the port"


def test_lists_in_a_list_of_words_are_merged_and_left_to_validation() -> None:
    patch = {"metadata": {"finalizers": [["a"], "b"]}}
    found = merged(POD, {"metadata": {"finalizers": ["b", ["c"]]}}, patch)
    assert sorted(map(str, found["metadata"]["finalizers"])) == ["['a']", "['c']", "b"]
