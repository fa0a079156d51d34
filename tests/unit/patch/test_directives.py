"""Strategic merge patch to the last word: what each directive does, and how each malformed one is refused."""

from __future__ import annotations

from typing import Any

import pytest

from api.errors import ApiError, BadRequest, Unexplained, UnsupportedMediaType
from api.objects import Object, clone
from api.patch import strategic_merge
from tests.unit.patch.objects import DEPLOYMENT, POD, custom, pod

NAMED = [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}, {"name": "c", "image": "1"}]
BAD_PRIMITIVE = "invalid patch format of primitive list"
BAD_ORDER = "invalid patch format of setElementOrder list"
BAD_RETAIN = "invalid patch format of retainKeys"
NO_KEY = "does not contain declared merge key: name"
NOT_IN_ORDER = "The order in patch list:\n[{}]\n doesn't match $setElementOrder list:\n[{}]\n"


def containers(patch: Any, live: list[Object] | None = None) -> list[Object]:
    """The containers of a pod after a patch of its spec."""
    merged = strategic_merge(pod(*clone({"l": NAMED if live is None else live})["l"]), {"spec": patch}, POD)
    found: list[Object] = merged["spec"]["containers"]
    return found


def order(*names: str) -> dict[str, Any]:
    return {"$setElementOrder/containers": [{"name": name} for name in names]}


def names(found: list[Object]) -> str:
    return "".join(item["name"] for item in found)


@pytest.mark.parametrize(
    ("patch", "result"),
    [
        ({"containers": []}, NAMED),
        (
            {"containers": [{"name": "b", "$patch": "merge", "tty": True}]},
            [NAMED[0], {**NAMED[1], "tty": True}, NAMED[2]],
        ),
        ({"containers": [{"name": "b", "$patch": "delete"}]}, [NAMED[0], NAMED[2]]),
        ({"containers": [{"name": "x", "$patch": "delete"}]}, NAMED),
        ({"containers": [{"name": "d", "image": None, "args": ["$x"]}]}, [{"name": "d", "args": ["$x"]}, *NAMED]),
        ({"containers": [{"name": "d", "resources": {"$patch": "delete"}}]}, [{"name": "d"}, *NAMED]),
        (
            {"containers": [{"name": "d", "resources": {"$retainKeys": ["x"], "x": 1}}]},
            [{"name": "d", "resources": {"x": 1}}, *NAMED],
        ),
        ({"containers": [{"$patch": "replace"}, {"name": "z", "image": None}]}, [{"name": "z"}]),
        ({"containers": [{"name": "z"}, {"$patch": "replace"}]}, [{"name": "z"}]),
        ({"containers": [{"$patch": "replace"}]}, []),
        (
            {"containers": [{"name": "c", "image": "2"}, {"name": "a", "image": "2"}]},
            [NAMED[1], {"name": "c", "image": "2"}, {"name": "a", "image": "2"}],
        ),
        ({"containers": [{"name": "a", "args": [None, 1]}]}, [{**NAMED[0], "args": [None, 1]}, *NAMED[1:]]),
    ],
)
def test_elements_of_a_list(patch: Object, result: list[Object]) -> None:
    assert containers(patch) == result


@pytest.mark.parametrize(
    ("patch", "result"),
    [
        (order("c", "b", "a"), "cba"),
        (order("c", "a"), "bca"),
        (order("b", "a"), "bac"),
        (order(), "abc"),
        ({**order("d", "c"), "containers": [{"name": "d"}]}, "dabc"),
        ({**order("a", "d", "b", "c"), "containers": [{"name": "d"}]}, "adbc"),
        ({**order("b", "c"), "containers": [{"name": "a", "$patch": "delete"}]}, "bc"),
        ({**order("c", "b"), "containers": [{"name": "a", "$patch": "delete"}, {"name": "c", "tty": True}]}, "cb"),
        ({**order("c", "b", "a"), "containers": [{"name": "c", "tty": True}, {"name": "a", "tty": True}]}, "cba"),
        ({"containers": [{"name": "z"}, {"name": "b", "tty": True}]}, "zabc"),
    ],
)
def test_the_order_of_elements(patch: Object, result: str) -> None:
    found = containers(patch)
    assert names(found) == result


def test_an_order_of_a_list_that_is_not_there_makes_none() -> None:
    assert strategic_merge({"spec": {}}, {"spec": order("a")}, POD) == {"spec": {}}
    made = strategic_merge(
        {"spec": {}}, {"spec": {**order("b", "a"), "containers": [{"name": "b"}, {"name": "a"}]}}, POD
    )
    assert made == {"spec": {"containers": [{"name": "b"}, {"name": "a"}]}}


def test_what_is_deleted_from_a_primitive_list() -> None:
    def finalizers(patch: Object, *live: str) -> Any:
        return strategic_merge({"metadata": {"finalizers": list(live)}}, {"metadata": patch}, POD)["metadata"]

    gone: Object = {"$deleteFromPrimitiveList/finalizers": ["b", "x"]}
    assert finalizers({**gone}, "a", "b", "c") == {"finalizers": ["a", "c"]}
    assert finalizers({**gone, "finalizers": ["d"]}, "a", "b") == {"finalizers": ["d", "a"]}
    assert finalizers({"$setElementOrder/finalizers": ["c", "a"]}, "a", "b", "c") == {"finalizers": ["b", "c", "a"]}
    assert strategic_merge({"metadata": {}}, {"metadata": {**gone}}, POD) == {"metadata": {}}
    assert finalizers({"finalizers": []}, "a") == {"finalizers": ["a"]}
    assert finalizers({"finalizers": ["a"]}) == {"finalizers": ["a"]}
    assert finalizers({"finalizers": ["b", "a"]}, "a", "c") == {"finalizers": ["b", "a", "c"]}


def test_directives_of_maps() -> None:
    live = {"metadata": {"labels": {"a": "1", "b": "2"}}}

    def labels(patch: Any) -> Any:
        return strategic_merge(clone(live), {"metadata": {"labels": patch}}, POD)["metadata"].get("labels")

    assert labels({"$patch": "merge", "c": "3"}) == {"a": "1", "b": "2", "c": "3"}
    assert labels({"$patch": "replace", "c": "3"}) == {"c": "3"}
    assert labels({"$patch": "delete"}) == {}
    assert labels({"$retainKeys": ["a", "c"], "c": "3"}) == {"a": "1", "c": "3"}
    assert labels({"$retainKeys": ["c"], "c": None}) == {}
    assert labels(None) is None and labels({"a": None}) == {"b": "2"} and labels("x") == "x"
    assert strategic_merge({"a": {"b": 1}, "c": [1]}, {"a": [2], "c": {"d": None, "e": 1}}, POD) == {
        "a": [2],
        "c": {"e": 1},
    }
    assert strategic_merge({"a": 1}, {"a": {"$patch": "delete"}}, POD) == {}
    assert strategic_merge({"a": 1}, {"$patch": "delete"}, POD) == {}
    assert strategic_merge({"a": 1}, {"$patch": "replace", "b": 2}, POD) == {"b": 2}


def test_a_union_that_is_replaced_as_a_whole_and_one_that_says_what_it_retains() -> None:
    live: Object = {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}
    union = {"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}
    patch: Object = {"spec": {"volumes": [union]}}
    assert strategic_merge(live, patch, POD) == {"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}}
    live = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    patch = {"spec": {"strategy": {"$retainKeys": ["type", "rollingUpdate"], "rollingUpdate": {"maxSurge": 2}}}}
    merged = strategic_merge(live, patch, DEPLOYMENT)
    assert merged == {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2}}}}


PORTS = [{"containerPort": 1, "protocol": "TCP"}, {"containerPort": 1, "protocol": "UDP"}]


@pytest.mark.parametrize(
    ("change", "result"),
    [
        ({"containerPort": 1, "protocol": "UDP", "name": "n"}, [PORTS[0], {**PORTS[1], "name": "n"}]),
        ({"containerPort": 1, "name": "n"}, [{**PORTS[0], "name": "n"}, PORTS[1]]),
        ({"containerPort": 1, "protocol": "SCTP"}, [{"containerPort": 1, "protocol": "SCTP"}, PORTS[1]]),
        ({"containerPort": 2, "protocol": "UDP"}, [{"containerPort": 2, "protocol": "UDP"}, *PORTS]),
    ],
)
def test_elements_with_one_merge_key_are_told_apart_by_the_others(change: Object, result: list[Object]) -> None:
    (found,) = containers({"containers": [{"name": "a", "ports": [change]}]}, [{"name": "a", "ports": PORTS}])
    assert found["ports"] == result


@pytest.mark.parametrize(
    ("patch", "error", "told"),
    [
        ([], BadRequest, "json: cannot unmarshal array into Go value of type map[string]interface {}"),
        (
            {"$patch": "dance", "b": [1, None, True, "x"]},
            BadRequest,
            "unknown patch type: dance in map: map[$patch:dance b:[1 <nil> true x]]",
        ),
        (
            {"spec": {"containers": [{"name": "a", "$patch": "dance"}]}},
            BadRequest,
            "unknown patch type: dance in map: map[$patch:dance name:a]",
        ),
        (
            {"spec": {"containers": [{"image": "a", "$patch": "merge"}]}},
            BadRequest,
            "merging lists cannot yet be specified in the patch",
        ),
        (
            {"spec": {"containers": [{"image": "a", "tty": False}]}},
            Unexplained,
            "map: map[image:a tty:false] " + NO_KEY,
        ),
        (
            {"spec": {"containers": [{"image": "a", "$patch": "delete"}]}},
            Unexplained,
            "map: map[$patch:delete image:a] " + NO_KEY,
        ),
        (
            {"spec": {"containers": [{"name": "a"}, "x"]}},
            BadRequest,
            "expected a map[string]interface {}, but received a str",
        ),
        ({"spec": {"$other/x": []}}, BadRequest, BAD_ORDER),
        ({"spec": {"$setElementOrder": []}}, BadRequest, BAD_ORDER),
        ({"spec": {"$deleteFromPrimitiveList": []}}, BadRequest, BAD_PRIMITIVE),
        ({"spec": {"$deleteFromPrimitiveList/x": "y"}}, BadRequest, BAD_PRIMITIVE),
        ({"spec": {"$setElementOrder/containers": {}}}, BadRequest, BAD_ORDER),
        ({"spec": {"$setElementOrder/containers": ["a"], "containers": [{"name": "a"}]}}, BadRequest, BAD_ORDER),
        ({"spec": {"$setElementOrder/containers": [], "containers": {}}}, BadRequest, BAD_ORDER),
        ({"spec": {"$setElementOrder/restartPolicy": []}}, BadRequest, BAD_ORDER),
        ({"spec": {"$retainKeys": {}}}, BadRequest, BAD_RETAIN),
        ({"spec": {"$retainKeys": ["a"], "b": 1}}, BadRequest, BAD_RETAIN),
        (
            {"spec": {**order("a", "b"), "containers": [{"name": "b"}, {"name": "a"}]}},
            Unexplained,
            NOT_IN_ORDER.format("map[name:b] map[name:a]", "map[name:a] map[name:b]"),
        ),
        (
            {"spec": {**order("b"), "containers": [{"name": "z", "$patch": "delete"}, {"name": "b"}, {"name": "c"}]}},
            Unexplained,
            NOT_IN_ORDER.format("map[$patch:delete name:z] map[name:b] map[name:c]", "map[name:b]"),
        ),
    ],
)
def test_a_malformed_patch_is_refused_in_kubernetes_words(patch: Any, error: type[ApiError], told: str) -> None:
    live = pod(*clone({"l": NAMED})["l"], restartPolicy="Always")
    with pytest.raises(error) as raised:
        strategic_merge(live, patch, POD)
    assert raised.value.message == told


def test_only_built_in_kinds_know_strategies() -> None:
    for node in (None, custom(a={"type": "string"})):
        with pytest.raises(UnsupportedMediaType) as raised:
            strategic_merge({}, {}, node)
        assert raised.value.message == (
            "the body of the request was in an unknown format - accepted media types include: "
            "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
        )
