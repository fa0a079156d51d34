"""What server-side apply owns of lists and maps: repeated elements, omitted keys, keys of maps."""

from __future__ import annotations

from typing import Any

import pytest

from api.errors import BadRequest, Conflict
from api.objects import Object, clone
from api.patch import Writer, apply, track_update
from tests.unit.patch.objects import POD, custom, pod

STRING = {"type": "string"}
MAPS = custom(
    m={
        "type": "object",
        "additionalProperties": {"type": "object", "properties": {"a": STRING, "b": STRING}},
    }
)
PORTS = custom(
    p={
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["n", "q"],
        "items": {"type": "object", "properties": {"n": STRING, "q": {**STRING, "default": "x"}, "v": STRING}},
    },
    s={"type": "array", "x-kubernetes-list-type": "set", "items": STRING},
)


def writer(manager: str) -> Writer:
    return Writer(manager, "example.test/v1", "t")


def thing(**content: Any) -> Object:
    return {"apiVersion": "example.test/v1", "kind": "Thing", "metadata": {"name": "x"}, **content}


def owned(obj: Object) -> dict[str, Any]:
    return {entry["manager"]: entry["fieldsV1"] for entry in obj["metadata"].get("managedFields", ())}


def test_keys_of_a_map_are_owned_with_their_content() -> None:
    live = apply(None, thing(m={"k": {"a": "1"}}), writer("one"), MAPS)
    assert owned(live) == {"one": {"f:m": {"f:k": {".": {}, "f:a": {}}}}}


def test_a_key_of_a_map_goes_with_its_owner_whoever_owns_something_in_it() -> None:
    live = apply(None, thing(m={"k": {"a": "1"}}), writer("one"), MAPS)
    new = clone(live)
    new["m"]["k"]["b"] = "2"
    track_update(live, new, writer("two"), MAPS)
    assert owned(new)["two"] == {"f:m": {"f:k": {"f:b": {}}}}
    left = apply(new, thing(), writer("one"), MAPS)
    assert "k" not in left.get("m", {}) and owned(left) == {}


def test_a_key_of_a_map_that_another_applied_too_loses_only_what_was_withdrawn() -> None:
    live = apply(None, thing(m={"k": {"a": "1", "b": "1"}}), writer("one"), MAPS)
    live = apply(live, thing(m={"k": {"b": "1"}}), writer("two"), MAPS)
    assert apply(live, thing(), writer("one"), MAPS)["m"] == {"k": {"b": "1"}}


def test_all_that_a_creator_wrote_of_a_custom_resource_is_its_own() -> None:
    made = thing(m={"k": {"a": "1"}}, spec={"x": 1}, status={})
    track_update(None, made, writer("one"), MAPS)
    assert owned(made)["one"] == {
        "f:m": {".": {}, "f:k": {".": {}, "f:a": {}}},
        "f:spec": {".": {}, "f:x": {}},
        "f:status": {},
    }


def test_a_key_that_an_element_omits_counts_as_its_default_or_not_at_all() -> None:
    live = apply(None, thing(p=[{"n": "1"}, {"q": "y"}, {"n": "1", "q": "z"}]), writer("one"), PORTS)
    assert list(owned(live)["one"]["f:p"]) == ['k:{"n":"1","q":"x"}', 'k:{"n":"1","q":"z"}', 'k:{"q":"y"}']
    again = apply(live, thing(p=[{"n": "1", "q": "x", "v": "new"}]), writer("two"), PORTS)
    assert again["p"] == [{"n": "1", "q": "x", "v": "new"}, {"q": "y"}, {"n": "1", "q": "z"}]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({"p": [{"n": "1"}, {"n": "1", "q": "x"}]}, '.p: duplicate entries for key [n="1",q="x"]'),
        ({"s": ["b", "a", "b"]}, '.s: duplicate entries for key [="b"]'),
        (
            {"s": ["a", "a"], "p": [{"q": "y"}, {"q": "y"}]},
            'errors:\n  .s: duplicate entries for key [="a"]\n  .p: duplicate entries for key [q="y"]',
        ),
    ],
)
def test_a_configuration_may_not_repeat_an_element(content: Object, fault: str) -> None:
    with pytest.raises(BadRequest) as raised:
        apply(None, thing(**content), writer("one"), PORTS)
    subject = "failed to create typed patch object (/x; example.test/v1, Kind=Thing): "
    assert raised.value.message == subject + fault


def test_a_configuration_says_where_in_an_element_the_fault_is() -> None:
    env = [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]
    applied = pod({"name": "c", "env": env})
    applied["metadata"]["namespace"] = "ns"
    with pytest.raises(BadRequest) as raised:
        apply(None, applied, writer("one"), POD)
    subject = "failed to create typed patch object (ns/x; /v1, Kind=Pod): "
    assert raised.value.message == subject + '.spec.containers[name="c"].env: duplicate entries for key [name="A"]'


def test_an_element_without_any_key_cannot_be_applied() -> None:
    with pytest.raises(BadRequest) as raised:
        apply(None, pod({"name": "a"}, {"image": "b"}), writer("one"), POD)
    assert raised.value.message == (
        "failed to create typed patch object (/x; /v1, Kind=Pod): .spec.containers: element 1: associative list with "
        'keys has an element that omits all key fields ["name"] (and doesn\'t have default values for any key fields)'
    )


# ---- what an update may repeat ----


def repeated(*values: str) -> Object:
    made = thing(p=[{"n": "0", "v": "first"}, *({"n": "1", "v": value} for value in values)])
    track_update(None, made, writer("maker"), PORTS)
    return made


def test_repeated_elements_are_owned_together() -> None:
    assert owned(repeated("a", "b"))["maker"]["f:p"] == {
        ".": {},
        'k:{"n":"0","q":"x"}': {".": {}, "f:n": {}, "f:v": {}},
        'k:{"n":"1","q":"x"}': {},
    }


def test_an_apply_that_does_not_name_repeated_elements_leaves_them() -> None:
    live = repeated("a", "b")
    applied = apply(live, thing(p=[{"n": "2"}, {"n": "0"}]), writer("one"), PORTS)
    assert applied["p"] == [{"n": "2"}, *live["p"]]


def test_an_apply_that_names_them_replaces_them_by_its_own() -> None:
    live = repeated("a", "b")
    with pytest.raises(Conflict) as raised:
        apply(live, thing(p=[{"n": "1", "q": "x"}]), writer("one"), PORTS)
    assert [cause["field"] for cause in raised.value.details["causes"]] == ['.p[n="1",q="x"]']
    forced = apply(live, thing(p=[{"n": "1", "q": "x"}]), writer("one"), PORTS, force=True)
    assert forced["p"] == [{"n": "0", "v": "first"}, {"n": "1", "q": "x"}]


@pytest.mark.parametrize(
    ("before", "after", "taken", "kept"),
    [
        (("a", "b"), ("a", "b"), None, {}),
        (("a", "b"), ("b", "a"), {}, None),
        (("a", "b"), ("a",), {".": {}, "f:n": {}, "f:v": {}}, None),
        (("a", "b"), (), None, None),
        (("a",), ("a", "b"), {}, None),
        ((), ("a", "b"), {}, None),
        (("a",), ("b",), {"f:v": {}}, {".": {}, "f:n": {}}),
    ],
)
def test_an_update_takes_repeated_elements_as_one(
    before: tuple[str, ...], after: tuple[str, ...], taken: Any, kept: Any
) -> None:
    live, new = repeated(*before), repeated(*after)
    new["metadata"].pop("managedFields")
    track_update(live, new, writer("two"), PORTS)
    key = 'k:{"n":"1","q":"x"}'
    assert owned(new).get("two", {}).get("f:p", {}).get(key) == taken
    assert owned(new)["maker"]["f:p"].get(key) == kept
