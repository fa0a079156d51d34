"""Server-side apply: ownership, conflicts, force, removal; and tracking of ordinary writes."""

from typing import Any

import pytest

from api.errors import BadRequest, Conflict
from api.objects import Object, clone
from api.patch import Writer, apply, track_update
from tests.unit.patch.objects import CONFIG_MAP, POD, pod

T1, T2 = "2024-01-01T00:00:01Z", "2024-01-01T00:00:02Z"


def writer(manager: str, time: str = T1, **more: Any) -> Writer:
    return Writer(manager, "v1", time, **more)


def config(**data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data}


def owned(obj: Object) -> dict[tuple[str, str], Any]:
    return {(e["manager"], e["operation"]): e["fieldsV1"] for e in obj["metadata"].get("managedFields", ())}


def test_applying_creates_with_an_owner_of_exactly_what_was_applied() -> None:
    created = apply(None, config(k="1"), writer("a"), CONFIG_MAP)
    assert created["data"] == {"k": "1"}
    assert created["metadata"]["managedFields"] == [
        {
            "manager": "a",
            "operation": "Apply",
            "apiVersion": "v1",
            "time": T1,
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:data": {"f:k": {}}},
        }
    ]


def test_another_managers_value_is_a_conflict_with_cause() -> None:
    live = apply(None, config(k="1"), writer("a"), CONFIG_MAP)
    with pytest.raises(Conflict) as raised:
        apply(live, config(k="2"), writer("b"), CONFIG_MAP)
    assert raised.value.message == 'Apply failed with 1 conflict: conflict with "a": .data.k'
    assert raised.value.details["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "a"', "field": ".data.k"}
    ]


def test_several_conflicts_are_grouped_by_owner() -> None:
    live = apply(None, config(k="1", l="1"), writer("a"), CONFIG_MAP)
    with pytest.raises(Conflict) as raised:
        apply(live, config(k="2", l="2"), writer("b"), CONFIG_MAP)
    assert raised.value.message == 'Apply failed with 2 conflicts: conflicts with "a":\n- .data.k\n- .data.l'


def test_force_takes_the_field_and_the_old_owner_loses_it() -> None:
    live = apply(None, config(k="1", l="1"), writer("a"), CONFIG_MAP)
    forced = apply(live, config(k="2"), writer("b", T2), CONFIG_MAP, force=True)
    assert forced["data"] == {"k": "2", "l": "1"}
    assert owned(forced) == {("a", "Apply"): {"f:data": {"f:l": {}}}, ("b", "Apply"): {"f:data": {"f:k": {}}}}


def test_equal_values_are_shared_not_contested() -> None:
    live = apply(None, config(k="1"), writer("a"), CONFIG_MAP)
    shared = apply(live, config(k="1"), writer("b"), CONFIG_MAP)
    assert owned(shared) == {("a", "Apply"): {"f:data": {"f:k": {}}}, ("b", "Apply"): {"f:data": {"f:k": {}}}}
    kept = apply(shared, config(), writer("a", T2), CONFIG_MAP)
    assert kept["data"] == {"k": "1"} and owned(kept)["a", "Apply"] == {"f:data": {}}


def test_what_is_no_longer_applied_and_owned_by_nobody_else_goes() -> None:
    live = apply(None, config(k="1", l="1"), writer("a"), CONFIG_MAP)
    assert apply(live, config(k="1"), writer("a", T2), CONFIG_MAP)["data"] == {"k": "1"}


def test_an_unchanged_apply_keeps_the_time() -> None:
    live = apply(None, config(k="1"), writer("a"), CONFIG_MAP)
    assert apply(live, config(k="1"), writer("a", T2), CONFIG_MAP) == live


def test_list_elements_are_owned_one_by_one() -> None:
    live = apply(None, pod({"name": "a", "image": "a"}), writer("one"), POD)
    both = apply(live, pod({"name": "b", "image": "b"}), writer("two"), POD)
    assert [c["name"] for c in both["spec"]["containers"]] == ["a", "b"]
    without = apply(both, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}, writer("one", T2), POD)
    assert [c["name"] for c in without["spec"]["containers"]] == ["b"]


def test_ports_are_keyed_by_number_and_defaulted_protocol() -> None:
    ports = [{"containerPort": 80}]
    live = apply(None, pod({"name": "a", "ports": ports}), writer("one"), POD)
    containers = owned(live)["one", "Apply"]["f:spec"]["f:containers"]['k:{"name":"a"}']
    assert list(containers["f:ports"]) == ['k:{"containerPort":80,"protocol":"TCP"}']


def test_an_atomic_selector_is_owned_as_a_whole() -> None:
    tolerations = [{"key": "a", "operator": "Exists"}]
    live = apply(None, pod({"name": "a"}, tolerations=tolerations), writer("one"), POD)
    assert owned(live)["one", "Apply"]["f:spec"]["f:tolerations"] == {}


def test_status_is_not_owned_through_the_main_endpoint() -> None:
    applied = {**pod({"name": "a"}), "status": {"phase": "Running"}}
    assert "f:status" not in owned(apply(None, applied, writer("a", reset=("status",)), POD))["a", "Apply"]


def test_managed_fields_may_not_be_applied() -> None:
    applied = config()
    applied["metadata"]["managedFields"] = [{"manager": "x"}]
    with pytest.raises(BadRequest, match=r"metadata\.managedFields must be nil"):
        apply(None, applied, writer("a"), CONFIG_MAP)


def test_untracked_objects_belong_to_before_first_apply() -> None:
    live = config(k="1")
    with pytest.raises(Conflict, match="before-first-apply"):
        apply(live, config(k="2"), writer("a"), CONFIG_MAP)


def test_kubectl_may_take_over_what_kubectl_applied_client_side() -> None:
    live = config(k="1")
    text = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"k":"1"}}'
    live["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": text}
    track_update(None, live, writer("kubectl-client-side-apply"), CONFIG_MAP)
    applied = apply(live, config(k="2"), writer("kubectl", T2), CONFIG_MAP)
    assert applied["data"] == {"k": "2"}
    assert '"k":"2"' in applied["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]


def test_kubectl_may_not_take_over_what_somebody_changed_since() -> None:
    live = config(k="1")
    text = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"k":"1"}}'
    live["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": text}
    track_update(None, live, writer("kubectl-client-side-apply"), CONFIG_MAP)
    edited = clone(live)
    edited["data"]["k"] = "mine"
    track_update(live, edited, writer("kubectl-edit", T2), CONFIG_MAP)
    with pytest.raises(Conflict, match="kubectl-edit"):
        apply(edited, config(k="2"), writer("kubectl", T2), CONFIG_MAP)


def test_a_create_is_tracked_without_what_always_exists() -> None:
    obj = pod({"name": "a", "image": "i"})
    obj["metadata"] |= {"uid": "1", "labels": {"x": "y"}}
    track_update(None, obj, writer("m"), POD)
    assert owned(obj)["m", "Update"] == {
        "f:metadata": {"f:labels": {".": {}, "f:x": {}}},
        "f:spec": {"f:containers": {'k:{"name":"a"}': {".": {}, "f:name": {}, "f:image": {}}}},
    }


def test_an_update_takes_what_it_changes_from_everybody() -> None:
    live = apply(None, config(k="1", l="1"), writer("a"), CONFIG_MAP)
    new = clone(live)
    new["data"] = {"k": "2"}
    track_update(live, new, writer("editor", T2), CONFIG_MAP)
    assert owned(new) == {("editor", "Update"): {"f:data": {"f:k": {}}}}


def test_an_update_that_changes_nothing_changes_no_owner() -> None:
    live = apply(None, config(k="1"), writer("a"), CONFIG_MAP)
    new = clone(live)
    track_update(live, new, writer("editor", T2), CONFIG_MAP)
    assert new == live


def test_omitted_managed_fields_are_kept_and_empty_ones_reset() -> None:
    live = apply(None, config(k="1"), writer("a"), CONFIG_MAP)
    omitted = clone(live)
    del omitted["metadata"]["managedFields"]
    track_update(live, omitted, writer("editor", T2), CONFIG_MAP)
    assert omitted == live
    given: Any
    for given in ([], [{}]):
        reset = clone(live)
        reset["metadata"]["managedFields"] = given
        track_update(live, reset, writer("editor", T2), CONFIG_MAP)
        assert "managedFields" not in reset["metadata"]


def test_subresources_have_their_own_entries() -> None:
    old = pod({"name": "a"})
    track_update(None, old, writer("m"), POD)
    new = clone(old) | {"status": {"phase": "Running"}}
    track_update(old, new, writer("m", T2, subresource="status"), POD)
    entry = next(e for e in new["metadata"]["managedFields"] if e.get("subresource"))
    assert entry["subresource"] == "status" and entry["fieldsV1"] == {"f:status": {".": {}, "f:phase": {}}}


def test_old_updaters_are_merged_into_ancient_changes() -> None:
    obj = config()
    track_update(None, obj, writer("creator"), CONFIG_MAP)
    for number in range(15):
        new = clone(obj)
        new.setdefault("data", {})[f"k{number}"] = "v"
        track_update(obj, new, writer(f"m{number}", f"2024-01-01T00:01:{number:02}Z"), CONFIG_MAP)
        obj = new
    managers = [entry["manager"] for entry in obj["metadata"]["managedFields"]]
    assert len(managers) == 10 and "ancient-changes" in managers
