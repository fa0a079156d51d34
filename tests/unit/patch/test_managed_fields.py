"""metadata.managedFields, entry by entry: whose words count, what an entry keeps, other versions of a kind."""

from __future__ import annotations

from typing import Any

import pytest

from api.errors import Conflict
from api.objects import Object, clone
from api.patch import Writer, apply, track_update
from api.schema import Node
from tests.unit.patch.objects import CONFIG_MAP, DEPLOYMENT, POD, custom, pod

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def writer(manager: str, time: str = "t1", version: str = "v1", **more: Any) -> Writer:
    return Writer(manager, version, time, **more)


def config(**data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data}


def entry(manager: str, operation: str, fields: Any, time: str = "t1", version: str = "v1", sub: str = "") -> Object:
    found: Object = {"manager": manager, "operation": operation, "apiVersion": version, "time": time}
    found |= {"fieldsType": "FieldsV1", "fieldsV1": fields}
    return found | ({"subresource": sub} if sub else {})


def data(*keys: str, whole: bool = False) -> Object:
    return {"f:data": ({".": {}} if whole else {}) | {f"f:{key}": {} for key in keys}}


def made(**content: str) -> Object:
    obj = config(**content)
    track_update(None, obj, writer("maker"), CONFIG_MAP)
    return obj


def updated(old: Object, by: Writer, **content: str) -> Object:
    new = clone(old)
    new["data"] = content
    track_update(old, new, by, CONFIG_MAP)
    return new


def entries(obj: Object) -> Any:
    return obj["metadata"].get("managedFields")


# ---- updates ----


def test_an_updater_keeps_one_entry_and_its_time_until_it_changes() -> None:
    first = made(k="1")
    assert entries(first) == [entry("maker", "Update", data("k", whole=True))]
    more = updated(first, writer("maker", "t2"), k="1", l="1")
    assert entries(more) == [entry("maker", "Update", data("k", "l", whole=True), "t2")]
    less = updated(more, writer("maker", "t3"), k="1")
    assert entries(less) == [entry("maker", "Update", data("k", whole=True), "t3")]
    same = updated(less, writer("maker", "t4"), k="2")
    assert entries(same) == [entry("maker", "Update", data("k", whole=True), "t4")]


def test_what_another_changes_or_removes_is_taken_from_the_others_only() -> None:
    live = updated(made(k="1", l="1", m="1"), writer("other", "t2"), k="2", m="1")
    assert entries(live) == [
        entry("maker", "Update", data("m", whole=True)),
        entry("other", "Update", data("k"), "t2"),
    ]
    live = updated(live, writer("other", "t3"), m="1", n="1")
    assert entries(live)[1] == entry("other", "Update", data("n"), "t3")


def test_one_who_only_removes_owns_nothing() -> None:
    live = updated(made(k="1", l="1"), writer("other", "t2"), k="1")
    assert entries(live) == [entry("maker", "Update", data("k", whole=True))]


def test_updaters_are_told_apart_by_version_and_subresource_and_appliers_by_subresource() -> None:
    live = updated(made(k="1"), writer("maker", "t2", "v2"), k="1", l="1")
    live = updated(live, writer("maker", "t3", subresource="status"), k="1", l="1", m="1")
    assert entries(live) == [
        entry("maker", "Update", data("k", whole=True)),
        entry("maker", "Update", data("l"), "t2", "v2"),
        entry("maker", "Update", data("m"), "t3", sub="status"),
    ]
    live = apply(live, config(k="1"), writer("maker", "t4"), CONFIG_MAP)
    live = apply(live, config(l="1"), writer("maker", "t5", "v2"), CONFIG_MAP)
    assert entries(live)[0] == entry("maker", "Apply", data("l"), "t5", "v2")
    assert live["data"] == {"k": "1", "l": "1", "m": "1"}


def test_the_request_may_edit_the_entries_but_not_through_a_subresource() -> None:
    live = made(k="1")
    mine = [entry("edited", "Update", data("k"))]
    new = clone(live)
    new["metadata"]["managedFields"] = mine
    track_update(live, new, writer("editor"), CONFIG_MAP)
    assert entries(new) == mine
    given: Any
    edits: list[Any] = [mine, [], [{}]]
    for given in edits:
        new = clone(live)
        new["metadata"]["managedFields"] = given
        track_update(live, new, writer("editor", subresource="status"), CONFIG_MAP)
        assert entries(new) == entries(live)
    for given in (["x"], [{"fieldsV1": "x"}], "x"):
        new = clone(live)
        new["metadata"]["managedFields"] = given
        track_update(live, new, writer("editor"), CONFIG_MAP)
        assert entries(new) == entries(live)


def test_a_creator_may_bring_entries_along() -> None:
    new = config(k="1", l="1")
    new["metadata"]["managedFields"] = [entry("old", "Apply", data("k", "l", whole=True), "t0")]
    track_update(None, new, writer("maker"), CONFIG_MAP)
    assert entries(new) == [entry("maker", "Update", data("k", "l", whole=True))]


def test_what_was_never_tracked_stays_untracked() -> None:
    given: Any
    for given in (None, [], [{}]):
        new = config(k="2")
        if given is not None:
            new["metadata"]["managedFields"] = given
        track_update(config(k="1"), new, writer("maker"), CONFIG_MAP)
        assert new == config(k="2")


def test_a_create_of_nothing_has_no_entries() -> None:
    empty: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "managedFields": []}}
    track_update(None, empty, writer("maker"), CONFIG_MAP)
    assert empty["metadata"] == {"name": "c"}


def test_what_an_endpoint_ignores_is_not_owned_by_it() -> None:
    by = writer("m", reset=("status",))
    new = {**pod({"name": "a"}), "status": {"phase": "Running"}}
    track_update(None, new, by, POD)
    assert list(entries(new)[0]["fieldsV1"]) == ["f:spec"]
    later = clone(new) | {"status": {"phase": "Failed"}}
    track_update(new, later, writer("n", "t2", reset=("status",)), POD)
    assert entries(later) == entries(new)


def test_eleven_updaters_are_ten_entries_and_the_oldest_two_are_one() -> None:
    live = made(k0="1")
    for number in range(1, 10):
        live = updated(live, writer(f"m{number}", f"t{number + 10}"), **{f"k{n}": "1" for n in range(number + 1)})
    assert len(entries(live)) == 10 and entries(live)[0]["manager"] == "maker"
    live = apply(live, config(a="1"), writer("applier", "t99"), CONFIG_MAP)
    more = updated(live, writer("last", "t77", subresource="x"), **live["data"], z="1")
    assert [found["manager"] for found in entries(more)] == [
        *("applier", "ancient-changes"),
        *(f"m{number}" for number in range(2, 10)),
        "last",
    ]
    assert entries(more)[1] == entry("ancient-changes", "Update", data("k0", "k1", whole=True), "t11")


# ---- applies ----


def test_an_untracked_object_belongs_to_an_unknown_updater() -> None:
    live = apply(config(k="1", l="1"), config(k="1"), writer("a", "t2"), CONFIG_MAP)
    assert entries(live) == [
        entry("a", "Apply", data("k"), "t2"),
        entry("before-first-apply", "Update", data("k", "l", whole=True), "t2"),
    ]
    for bare, version in (({"data": {"k": "1"}}, "v1"), ({"apiVersion": "v0", "data": {"k": "1"}}, "v0")):
        found = apply({"metadata": {}, **bare}, config(k="1"), writer("a", version="v7"), CONFIG_MAP)
        assert entries(found)[1] == entry("before-first-apply", "Update", data("k", whole=True), version=version)


def test_conflicts_name_every_owner_and_field() -> None:
    live = updated(made(k="1", l="1", m="1"), writer("status-er", "t2", subresource="status"), k="1", l="2", m="1")
    live = apply(live, config(n="1"), writer("zed", "t3"), CONFIG_MAP)
    with pytest.raises(Conflict) as raised:
        apply(live, config(k="9", l="9", m="9", n="9"), writer("a"), CONFIG_MAP)
    assert raised.value.message == (
        "Apply failed with 4 conflicts: "
        'conflicts with "maker" using v1:\n- .data.k\n- .data.m\n'
        'conflicts with "status-er" with subresource "status" using v1:\n- .data.l\n'
        'conflicts with "zed":\n- .data.n'
    )
    assert sorted((cause["field"], cause["message"]) for cause in raised.value.details["causes"]) == [
        (".data.k", 'conflict with "maker" using v1'),
        (".data.l", 'conflict with "status-er" with subresource "status" using v1'),
        (".data.m", 'conflict with "maker" using v1'),
        (".data.n", 'conflict with "zed"'),
    ]
    assert {cause["reason"] for cause in raised.value.details["causes"]} == {"FieldManagerConflict"}
    with pytest.raises(Conflict) as raised:
        apply(live, config(l="9"), writer("a"), CONFIG_MAP)
    told = 'conflict with "status-er" with subresource "status" using v1'
    assert raised.value.message == f"Apply failed with 1 conflict: {told}: .data.l"


def test_an_apply_keeps_its_time_only_when_nothing_changes() -> None:
    live = apply(None, config(k="1", l="1"), writer("a"), CONFIG_MAP)
    assert apply(live, config(k="1", l="1"), writer("a", "t2"), CONFIG_MAP) == live
    less = apply(live, config(k="1"), writer("a", "t2"), CONFIG_MAP)
    assert entries(less) == [entry("a", "Apply", data("k"), "t2")] and less["data"] == {"k": "1"}
    other = apply(live, config(k="1", l="1"), writer("a", "t2", "v2"), CONFIG_MAP)
    assert entries(other) == [entry("a", "Apply", data("k", "l"), "t2", "v2")]
    changed = updated(live, writer("m", "t2"), k="1", l="2")
    assert entries(changed)[0] == entry("a", "Apply", data("k"))
    back = apply(changed, config(k="1", l="1"), writer("a", "t3"), CONFIG_MAP, force=True)
    assert entries(back) == [entry("a", "Apply", data("k", "l"), "t3")]


def test_a_null_removes_and_is_owned() -> None:
    live = apply(None, config(k="1", l="1"), writer("a"), CONFIG_MAP)
    nulled: Any = config(k="1")
    nulled["data"]["l"] = None
    assert apply(live, nulled, writer("a", "t2"), CONFIG_MAP)["data"] == {"k": "1"}


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ('{"apiVersion":"v1","data":{"k":"1"}}', True),
        ('{"apiVersion":"v2","data":{"k":"1"}}', False),
        ('{"apiVersion":"v1","data":{"k":"0"}}', False),
        ('{"apiVersion":"v1","data":{"l":"1"}}', False),
        ("[]", False),
        ("{", False),
        ("", False),
    ],
)
def test_kubectl_takes_over_only_what_its_annotation_says_and_still_holds(text: str, may: bool) -> None:
    live = config(k="1")
    live["metadata"]["annotations"] = {LAST_APPLIED: text}
    track_update(None, live, writer("maker"), CONFIG_MAP)
    if may:
        applied = apply(live, config(k="2"), writer("kubectl"), CONFIG_MAP)
        assert applied["data"] == {"k": "2"}
        renewed = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"k":"2"}}\n'
        assert applied["metadata"]["annotations"] == {LAST_APPLIED: renewed}
    else:
        with pytest.raises(Conflict):
            apply(live, config(k="2"), writer("kubectl"), CONFIG_MAP)
    with pytest.raises(Conflict):
        apply(live, config(k="2"), writer("another"), CONFIG_MAP)
    kept = apply(live, config(k="2"), writer("another"), CONFIG_MAP, force=True)
    assert kept["metadata"]["annotations"] == {LAST_APPLIED: text}


def test_lists_keep_the_applied_order_and_the_rest_its_place() -> None:
    def order(live: str, applied: str) -> str:
        stored = pod(*({"name": name} for name in live))
        track_update(None, stored, writer("maker"), POD)
        merged = apply(stored, pod(*({"name": name} for name in applied)), writer("a"), POD)
        return "".join(container["name"] for container in merged["spec"]["containers"])

    assert order("abc", "ca") == "bca" and order("abc", "ac") == "abc" and order("abc", "b") == "abc"
    assert order("abc", "xb") == "axbc" and order("abc", "bx") == "abcx" and order("abc", "xyz") == "abcxyz"
    assert order("abcd", "dxb") == "acdxb" and order("ab", "ba") == "ba" and order("", "ab") == "ab"


def test_what_is_withdrawn_goes_out_of_nested_elements_and_nothing_else() -> None:
    def containers(*fields: str) -> Object:
        values = {
            "image": "i",
            "args": ["x"],
            "env": [{"name": "E", "value": "1"}],
            "resources": {"limits": {"cpu": "1"}},
        }
        return pod({"name": "c", **{field: values[field] for field in fields}}, {"name": "d", "image": "d"})

    live = apply(None, containers("image", "args", "env", "resources"), writer("a"), POD)
    live = apply(live, pod({"name": "c", "env": [{"name": "E"}]}), writer("b", "t2"), POD)
    live["spec"]["containers"][0]["tty"] = True  # nobody's
    left = apply(live, containers("image"), writer("a", "t3"), POD)
    assert left["spec"]["containers"] == [
        {"name": "c", "image": "i", "env": [{"name": "E"}], "tty": True},
        {"name": "d", "image": "d"},
    ]
    left = apply(left, pod({"name": "d", "image": "d"}), writer("a", "t4"), POD)
    assert left["spec"]["containers"] == [
        {"name": "c", "env": [{"name": "E"}], "tty": True},
        {"name": "d", "image": "d"},
    ]
    left = apply(left, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}, writer("b", "t5"), POD)
    assert left["spec"]["containers"] == [{"name": "d", "image": "d"}]


def test_a_deployment_is_owned_down_to_its_template() -> None:
    obj: Object = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "x", "annotations": {}},
        "spec": {
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"creationTimestamp": None, "labels": {"a": "b"}},
                "spec": {
                    "containers": [{"name": "c", "ports": [{"protocol": "UDP", "containerPort": 1}]}],
                    "volumes": [],
                    "nodeSelector": {"k": "v"},
                },
            },
            "paused": True,
        },
    }
    track_update(None, obj, writer("m"), DEPLOYMENT)
    assert entries(obj)[0]["fieldsV1"] == {
        "f:metadata": {"f:annotations": {}},
        "f:spec": {
            "f:paused": {},
            "f:selector": {},
            "f:strategy": {"f:type": {}},
            "f:template": {
                "f:metadata": {"f:creationTimestamp": {}, "f:labels": {".": {}, "f:a": {}}},
                "f:spec": {
                    "f:containers": {
                        'k:{"name":"c"}': {
                            ".": {},
                            "f:name": {},
                            "f:ports": {
                                ".": {},
                                'k:{"containerPort":1,"protocol":"UDP"}': {
                                    ".": {},
                                    "f:containerPort": {},
                                    "f:protocol": {},
                                },
                            },
                        }
                    },
                    "f:nodeSelector": {},
                    "f:volumes": {},
                },
            },
        },
    }


def test_an_untracked_pod_belongs_to_an_unknown_updater_element_by_element() -> None:
    live = apply(pod({"name": "c", "image": "i"}), pod({"name": "d"}), writer("a"), POD)
    assert entries(live)[1]["fieldsV1"] == {
        "f:spec": {"f:containers": {'k:{"name":"c"}': {".": {}, "f:image": {}, "f:name": {}}}}
    }


# ---- versions ----

OLD, NEW = "example.test/v1", "example.test/v2"
NODES = {
    OLD: custom(a={"type": "string"}, c={"type": "string"}),
    NEW: custom(b={"type": "string"}, c={"type": "string"}),
}


class Renamed:
    """v1 calls `a` what v2 calls `b`."""

    def shown(self, obj: Object, api_version: str) -> Object | None:
        if api_version not in NODES:
            return None
        wanted = "a" if api_version == OLD else "b"
        return {(wanted if name in "ab" else name): value for name, value in obj.items()} | {"apiVersion": api_version}

    def schema(self, api_version: str) -> Node | None:
        return NODES.get(api_version)


def thing(version: str, **content: str) -> Object:
    return {"apiVersion": version, "kind": "Thing", "metadata": {"name": "x"}, **content}


def applied(live: Object | None, obj: Object, manager: str, time: str = "t1", *, force: bool = False) -> Object:
    version = obj["apiVersion"]
    shown = Renamed().shown(live, version) if live is not None else None
    by = writer(manager, time, version)
    return apply(shown, obj, by, NODES[version], force=force, versions=Renamed())


def test_what_is_owned_in_another_version_conflicts_there_and_is_taken_there() -> None:
    live = applied(None, thing(OLD, a="1", c="1"), "one")
    with pytest.raises(Conflict) as raised:
        applied(live, thing(NEW, b="2"), "two")
    assert raised.value.details["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".a"}
    ]
    forced = applied(live, thing(NEW, b="2"), "two", "t2", force=True)
    assert (forced["apiVersion"], forced["b"], forced["c"]) == (NEW, "2", "1")
    assert entries(forced) == [
        entry("one", "Apply", {"f:c": {}}, "t1", OLD),
        entry("two", "Apply", {"f:b": {}}, "t2", NEW),
    ]
    shared = applied(live, thing(NEW, b="1"), "two", "t2")
    assert [found["fieldsV1"] for found in entries(shared)] == [{"f:a": {}, "f:c": {}}, {"f:b": {}}]


def test_what_was_applied_in_another_version_goes_when_it_is_applied_no_more() -> None:
    live = applied(None, thing(OLD, a="1", c="1"), "one")
    moved = applied(live, thing(NEW, b="1"), "one", "t2")
    assert moved == thing(NEW, b="1") | {
        "metadata": {"name": "x", "managedFields": [entry("one", "Apply", {"f:b": {}}, "t2", NEW)]}
    }
    gone = applied(live, thing(NEW, c="1"), "one", "t2")
    assert {name: gone[name] for name in gone if name in "abc"} == {"c": "1"}


def test_what_somebody_owns_in_another_version_stays() -> None:
    live = applied(None, thing(OLD, a="1", c="1"), "one")
    live = applied(live, thing(NEW, b="1"), "two", "t2")
    left = applied(live, thing(OLD, c="1"), "one", "t3")
    assert (left["apiVersion"], left["a"], left["c"]) == (OLD, "1", "1")
    assert entries(left) == [
        entry("two", "Apply", {"f:b": {}}, "t2", NEW),
        entry("one", "Apply", {"f:c": {}}, "t3", OLD),
    ]
    last = applied(left, thing(NEW), "two", "t4")
    assert {name: last[name] for name in last if name in "abc"} == {"c": "1"}


def test_entries_of_a_version_that_is_gone_are_dropped_and_what_they_applied_stays() -> None:
    live = applied(None, thing(OLD, a="1", c="1"), "one")
    for found in entries(live):
        found["apiVersion"] = "example.test/v0"
    other = applied(live, thing(NEW, c="2"), "two", "t2")
    assert entries(other) == [entry("two", "Apply", {"f:c": {}}, "t2", NEW)] and other["b"] == "1"
    same = applied(live, thing(NEW, c="1"), "one", "t2")
    assert entries(same) == [entry("one", "Apply", {"f:c": {}}, "t2", NEW)] and same["b"] == "1"


def test_an_update_takes_fields_in_every_version() -> None:
    old = applied(None, thing(OLD, a="1", c="1"), "one")
    shown = Renamed().shown(old, NEW)
    assert shown is not None
    new = clone(shown) | {"b": "2"}
    track_update(shown, new, writer("two", "t2", NEW), NODES[NEW], Renamed())
    assert entries(new) == [
        entry("one", "Apply", {"f:c": {}}, "t1", OLD),
        entry("two", "Update", {"f:b": {}}, "t2", NEW),
    ]
    gone = clone(shown)
    del gone["b"]
    track_update(shown, gone, writer("two", "t2", NEW), NODES[NEW], Renamed())
    assert entries(gone) == [entry("one", "Apply", {"f:c": {}}, "t1", OLD)]


# ---- a schema that changes ----

GRANULAR = {"type": "object", "additionalProperties": {"type": "string"}}
ATOMIC = {**GRANULAR, "x-kubernetes-map-type": "atomic"}
ITEM = {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "string"}}, "required": ["k"]}
BY_KEY = {"type": "array", "items": ITEM, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}
WHOLE_LIST = {"type": "array", "items": ITEM}


def shaped(part: Any) -> Object:
    return {"apiVersion": "example.test/v1", "kind": "Thing", "metadata": {"name": "t"}, "part": part}


def thing_writer(manager: str) -> Writer:
    return writer(manager, version="example.test/v1")


PARTS = [(GRANULAR, ATOMIC, {"a": "1"}, {"b": "1"}), (BY_KEY, WHOLE_LIST, [{"k": "a"}], [{"k": "b"}])]


@pytest.mark.parametrize(("before", "after", "one", "other"), PARTS, ids=["map", "list"])
def test_who_owned_parts_of_what_is_atomic_now_owns_the_whole(
    before: Object, after: Object, one: Any, other: Any
) -> None:
    old, new = custom(part=before), custom(part=after)
    stored = apply(None, shaped(one), thing_writer("one"), old)
    stored = apply(stored, shaped(other), thing_writer("other"), old)
    both = stored["part"]
    with pytest.raises(Conflict) as raised:
        apply(stored, shaped(other), thing_writer("other"), new)
    assert [cause["field"] for cause in raised.value.details["causes"]] == [".part"]
    shared = apply(stored, shaped(both), thing_writer("other"), new)
    assert [each["fieldsV1"] for each in entries(shared)] == [{"f:part": {}}, {"f:part": {}}]
    forced = apply(stored, shaped(other), thing_writer("other"), new, force=True)
    assert forced["part"] == other and [each["manager"] for each in entries(forced)] == ["other"]
    touched = clone(stored)
    touched["metadata"]["labels"] = {"l": "1"}
    track_update(stored, touched, thing_writer("third"), new)
    assert [each["fieldsV1"] for each in entries(touched)[:2]] == [{"f:part": {}}, {"f:part": {}}]


@pytest.mark.parametrize(("after", "before", "one", "other"), PARTS, ids=["map", "list"])
def test_who_owned_what_is_granular_now_owns_it_as_before(before: Object, after: Object, one: Any, other: Any) -> None:
    stored = apply(None, shaped(one), thing_writer("one"), custom(part=before))
    joined = apply(stored, shaped(other), thing_writer("other"), custom(part=after))
    assert entries(joined)[0]["fieldsV1"] == {"f:part": {}}
    assert len(joined["part"]) == 2


@pytest.mark.parametrize(
    "odd",
    [
        {"fieldsV1": {"f:data": "x"}},
        {"fieldsV1": {"q": {}}},
        {"fieldsV1": {"k:zzz": {}}},
        {"fieldsV1": {"k:1": {}}},
        {"fieldsV1": {"i:x": {}}},
        {"fieldsV1": {".": {"f:data": {}}}},
        {"fieldsType": "FieldsV2"},
        {"fieldsType": ""},
    ],
)
def test_entries_that_cannot_be_read_leave_the_stored_ones(odd: Any) -> None:
    old = made(k="1")
    new = clone(old)
    new["metadata"]["managedFields"] = [entry("odd", "Update", data("k")) | odd]
    track_update(old, new, writer("third"), CONFIG_MAP)
    assert entries(new) == entries(old)
    fresh = config(k="1") | {"metadata": {"name": "c", "managedFields": new["metadata"]["managedFields"]}}
    fresh["metadata"]["managedFields"] = [entry("odd", "Update", data("k")) | odd]
    track_update(None, fresh, writer("maker"), CONFIG_MAP)
    assert [each["manager"] for each in entries(fresh)] == ["maker"]
