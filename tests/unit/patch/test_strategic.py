"""Strategic merge patch: keys, directives, order."""

from typing import Any

import pytest

from api.errors import BadRequest, Unexplained, UnsupportedMediaType
from api.objects import Object
from api.patch import strategic_merge
from tests.unit.patch.objects import CONFIG_MAP, DEPLOYMENT, POD, pod


def containers(obj: Object) -> list[Object]:
    found: list[Object] = obj["spec"]["containers"]
    return found


def test_containers_merge_by_name() -> None:
    patch = {"spec": {"containers": [{"name": "b", "image": "new"}, {"name": "c", "image": "c"}]}}
    merged = strategic_merge(pod({"name": "a", "image": "a"}, {"name": "b", "image": "b", "tty": True}), patch, POD)
    assert containers(merged) == [
        {"name": "a", "image": "a"},
        {"name": "b", "image": "new", "tty": True},
        {"name": "c", "image": "c"},
    ]


def test_patch_delete_removes_an_element() -> None:
    patch = {"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}
    assert containers(strategic_merge(pod({"name": "a"}, {"name": "b"}), patch, POD)) == [{"name": "b"}]


def test_patch_replace_in_a_list_replaces_it() -> None:
    patch = {"spec": {"containers": [{"$patch": "replace"}, {"name": "z"}]}}
    assert containers(strategic_merge(pod({"name": "a"}), patch, POD)) == [{"name": "z"}]


def test_patch_replace_and_delete_in_a_map() -> None:
    labels = {"metadata": {"name": "x", "labels": {"a": "1", "b": "2"}}}
    replaced = strategic_merge({**labels}, {"metadata": {"labels": {"$patch": "replace", "c": "3"}}}, POD)
    assert replaced["metadata"]["labels"] == {"c": "3"}
    assert strategic_merge(replaced, {"metadata": {"labels": {"$patch": "delete"}}}, POD)["metadata"]["labels"] == {}


def test_nulls_delete_also_in_new_maps() -> None:
    patch = {"metadata": {"labels": None, "annotations": {"a": None, "b": "1"}}}
    merged = strategic_merge({"metadata": {"labels": {"a": "1"}}}, patch, POD)
    assert merged == {"metadata": {"annotations": {"b": "1"}}}


def test_set_element_order_orders_and_keeps_the_servers_own_in_place() -> None:
    live = pod({"name": "a"}, {"name": "own"}, {"name": "b"})
    patch = {
        "spec": {
            "$setElementOrder/containers": [{"name": "z"}, {"name": "b"}, {"name": "a"}],
            "containers": [{"name": "z", "image": "z"}],
        }
    }
    names = [container["name"] for container in containers(strategic_merge(live, patch, POD))]
    assert [name for name in names if name != "own"] == ["z", "b", "a"] and "own" in names


def test_set_element_order_alone_reorders() -> None:
    patch = {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}
    merged = strategic_merge(pod({"name": "a"}, {"name": "b"}), patch, POD)
    assert [container["name"] for container in containers(merged)] == ["b", "a"]


def test_retain_keys_clears_the_other_half_of_a_union() -> None:
    obj = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert strategic_merge(obj, patch, DEPLOYMENT) == {"spec": {"strategy": {"type": "Recreate"}}}


def test_delete_from_primitive_list() -> None:
    obj = {"metadata": {"finalizers": ["a/b", "c/d"]}}
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/b"]}}
    assert strategic_merge(obj, patch, POD)["metadata"]["finalizers"] == ["c/d"]


@pytest.mark.parametrize("first", ["$setElementOrder", "$deleteFromPrimitiveList"])
def test_an_element_is_taken_out_of_a_primitive_list_that_is_ordered_too(first: str) -> None:
    directives = {"$setElementOrder/finalizers": ["e/f", "a/b"], "$deleteFromPrimitiveList/finalizers": ["c/d"]}
    ordered = dict(sorted(directives.items(), key=lambda directive: not directive[0].startswith(first)))
    obj = {"metadata": {"finalizers": ["a/b", "c/d", "e/f"]}}
    merged = strategic_merge(obj, {"metadata": {**ordered, "finalizers": ["e/f"]}}, POD)
    assert merged == {"metadata": {"finalizers": ["e/f", "a/b"]}}


def test_primitive_lists_with_merge_strategy_are_united() -> None:
    merged = strategic_merge({"metadata": {"finalizers": ["a/b"]}}, {"metadata": {"finalizers": ["c/d"]}}, POD)
    assert merged["metadata"]["finalizers"] == ["c/d", "a/b"]  # new ones first, as Kubernetes orders them


def test_lists_without_strategy_are_replaced() -> None:
    merged = strategic_merge(
        pod({"name": "a", "args": ["1"]}), {"spec": {"containers": [{"name": "a", "args": []}]}}, POD
    )
    assert containers(merged) == [{"name": "a", "args": []}]


def test_of_two_ports_with_one_number_the_protocol_decides() -> None:
    ports = [{"containerPort": 53, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}]
    patch = {
        "spec": {"containers": [{"name": "a", "ports": [{"containerPort": 53, "protocol": "UDP", "name": "dns"}]}]}
    }
    merged = strategic_merge(pod({"name": "a", "ports": ports}), patch, POD)
    assert containers(merged)[0]["ports"] == [
        {"containerPort": 53, "protocol": "TCP"},
        {"containerPort": 53, "protocol": "UDP", "name": "dns"},
    ]


def test_an_element_without_its_key_is_answered_as_kubernetes_does() -> None:
    with pytest.raises(Unexplained, match=r"map: map\[image:noname\] does not contain declared merge key: name"):
        strategic_merge(pod({"name": "a"}), {"spec": {"containers": [{"image": "noname"}]}}, POD)


@pytest.mark.parametrize(
    "patch",
    [
        [],
        {"spec": {"$retainKeys": "x"}},
        {"spec": {"$retainKeys": ["a"], "containers": []}},
        {"spec": {"$setElementOrder/containers": {"name": "a"}}},
        {"metadata": {"$deleteFromPrimitiveList/finalizers": "x"}},
    ],
)
def test_malformed_directives_are_bad_requests(patch: Any) -> None:
    with pytest.raises(BadRequest):
        strategic_merge(pod({"name": "a"}), patch, POD)


def test_an_order_that_the_patch_contradicts_is_refused() -> None:
    patch = {
        "spec": {
            "$setElementOrder/containers": [{"name": "a"}, {"name": "b"}],
            "containers": [{"name": "b"}, {"name": "a"}],
        }
    }
    with pytest.raises(Unexplained, match="doesn't match"):
        strategic_merge(pod({"name": "a"}), patch, POD)


def test_custom_resources_have_no_strategy() -> None:
    with pytest.raises(UnsupportedMediaType):
        strategic_merge({}, {}, None)


def test_a_config_maps_data_merges_key_by_key() -> None:
    assert strategic_merge({"data": {"a": "1"}}, {"data": {"b": "2"}}, CONFIG_MAP) == {"data": {"a": "1", "b": "2"}}
