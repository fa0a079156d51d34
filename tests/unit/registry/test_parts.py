"""The small pure parts of the write path: intake, system fields, bindings, scale, event views, faults."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from api import kinds
from api.errors import (
    AlreadyExists,
    ApiError,
    BadRequest,
    Conflict,
    Gone,
    Invalid,
    NotFound,
    ServiceUnavailable,
    Timeout,
)
from api.objects import Object
from controller.admission.types import Request, User
from controller.registry.faults import api_error
from controller.registry.intake import check_name, judge, settle_namespace, take_in
from controller.registry.known_specs import Known, KnownSpecs
from controller.registry.ownership import manager_of
from controller.registry.patching import touched_fields
from controller.registry.pods import Binding, binding_of, bound
from controller.registry.scale import scale_object
from controller.registry.system_fields import carry_over, merge_owners, name_it, new_uid, stamp_new
from controller.registry.types import DeleteOptions, PatchType, Target
from controller.registry.views import inward, outward_object
from controller.store.types import (
    Compacted,
    Guard,
    GuardFailed,
    Key,
    KeyExists,
    KeyMissing,
    Record,
    StoreError,
    Unavailable,
    UnknownOutcome,
    VersionMismatch,
)

MAPS = kinds.by_resource("", "configmaps")
DEPLOYMENTS = kinds.by_resource("apps", "deployments")
CONTROLLERS = kinds.by_resource("", "replicationcontrollers")
NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
ADMIN = User("admin", groups=("system:masters",))


def a_map(**fields: object) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, **fields}


def test_an_unknown_field_is_an_error_a_warning_or_nothing() -> None:
    strict = Request(ADMIN, field_validation="Strict", duplicates=("kind",))
    with pytest.raises(BadRequest) as refused:
        take_in(strict, MAPS, a_map(fooBar=1))
    assert refused.value.message == (
        'ConfigMap in version "v1" cannot be handled as a ConfigMap: '
        'strict decoding error: unknown field "fooBar", duplicate field "kind"'
    )
    warned = Request(ADMIN)
    assert "fooBar" not in take_in(warned, MAPS, a_map(fooBar=1))
    assert warned.warnings == ['unknown field "fooBar"']
    ignored = Request(ADMIN, field_validation="Ignore")
    assert "fooBar" not in take_in(ignored, MAPS, a_map(fooBar=1))
    assert ignored.warnings == []


def test_a_decoder_does_not_look_into_what_it_does_not_know() -> None:
    repeated = ("fooBar", "fooBar.a", "fooBarred")
    with pytest.raises(BadRequest, match=r'error: unknown field "fooBar", duplicate field "fooBarred"$'):
        take_in(Request(ADMIN, field_validation="Strict", duplicates=repeated), MAPS, a_map(fooBar={}))


def test_keys_that_repeat_in_yaml_are_told_in_the_words_of_its_decoder() -> None:
    lines = ('line 9: key "foo" already set in map', 'line 11: key "bar" already set in map')
    strict = Request(ADMIN, field_validation="Strict", duplicates=("data.foo",), repeated=lines)
    with pytest.raises(BadRequest) as refused:
        take_in(strict, MAPS, a_map(fooBar=1))
    assert refused.value.message.endswith(
        f'strict decoding error: yaml: unmarshal errors:\n  {lines[0]}\n  {lines[1]}, unknown field "fooBar"'
    )
    warned = Request(ADMIN, duplicates=("data.foo",), repeated=lines)
    take_in(warned, MAPS, a_map(fooBar=1))
    assert warned.warnings == [*lines, 'unknown field "fooBar"']


def test_a_wrong_type_is_refused_whatever_the_field_validation() -> None:
    with pytest.raises(BadRequest) as refused:
        take_in(Request(ADMIN, field_validation="Ignore"), MAPS, a_map(data={"a": 1}))
    assert "cannot unmarshal number into Go struct field ConfigMap.data of type string" in refused.value.message


def test_the_namespace_of_the_url_is_the_namespace_of_the_object() -> None:
    obj = a_map()
    settle_namespace(Target(MAPS, "shop"), obj)
    assert obj["metadata"]["namespace"] == "shop"
    with pytest.raises(BadRequest):
        settle_namespace(Target(MAPS, "other"), obj)


def test_a_put_names_the_object_of_its_url() -> None:
    check_name(Target(MAPS, "shop", "x"), a_map())
    with pytest.raises(BadRequest) as refused:
        check_name(Target(MAPS, "shop", "y"), a_map())
    assert refused.value.message == "the name of the object (x) does not match the name on the URL (y)"
    with pytest.raises(BadRequest):
        check_name(Target(MAPS, "shop", "y"), {"metadata": {}})


def test_uids_are_random_uuids() -> None:
    shape = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
    made = {new_uid() for _ in range(200)}
    assert len(made) == 200
    assert all(shape.fullmatch(uid) for uid in made)


def test_a_new_object_gets_identity_and_loses_marks_of_an_earlier_life() -> None:
    metadata: Object = {
        "name": "x",
        "uid": "old",
        "deletionTimestamp": "t",
        "deletionGracePeriodSeconds": 3,
        "selfLink": "s",
    }
    stamp_new(metadata, NOW)
    assert metadata.pop("uid") != "old"
    assert metadata == {"name": "x", "creationTimestamp": "2026-01-02T03:04:05Z"}


def test_a_generated_name_is_the_base_and_five_characters() -> None:
    metadata: Object = {"generateName": "web-"}
    assert name_it(metadata)
    assert re.fullmatch(r"web-[a-z0-9]{5}", metadata["name"])
    assert not name_it(metadata)
    assert not name_it({})


def test_an_update_cannot_touch_what_the_server_writes() -> None:
    old = {"metadata": {"uid": "u", "creationTimestamp": "t", "generation": 4, "deletionTimestamp": "d"}}
    new: Object = {"metadata": {"generation": 9, "creationTimestamp": "now", "deletionGracePeriodSeconds": 1}}
    carry_over(new, old)
    assert new["metadata"] == old["metadata"]


def test_the_field_manager_is_what_was_asked_for_or_the_program() -> None:
    assert manager_of(Request(ADMIN, field_manager="me", user_agent="kubectl/v1.35")) == "me"
    assert manager_of(Request(ADMIN, user_agent="kubectl/v1.35 (linux)")) == "kubectl"
    assert manager_of(Request(ADMIN)) == "unknown"


def test_binding_sets_the_node_and_the_condition() -> None:
    pod: Object = {
        "metadata": {"name": "x", "uid": "u", "resourceVersion": "7"},
        "spec": {},
        "status": {"nominatedNodeName": "m", "conditions": [{"type": "PodScheduled", "status": "False"}]},
    }
    done = bound(pod, Binding("n", uid="u", annotations={"a": "b"}), "now")
    assert done["spec"] == {"nodeName": "n"}
    assert done["metadata"] == {"name": "x", "uid": "u", "annotations": {"a": "b"}}
    condition = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": "now"}
    assert done["status"] == {"conditions": [condition]}


@pytest.mark.parametrize(
    ("metadata", "spec", "uid", "why"),
    [
        ({}, {"nodeName": "m"}, "", 'pod x is already assigned to node "m"'),
        ({"deletionTimestamp": "t"}, {}, "", "pod x is being deleted, cannot be assigned to a host"),
        ({}, {"schedulingGates": [{"name": "g"}]}, "", "pod x has non-empty .spec.schedulingGates"),
        ({}, {}, "other", "Precondition failed: UID in precondition: other, UID in object meta: u"),
    ],
)
def test_a_pod_is_bound_once_and_only_when_it_may_run(metadata: Object, spec: Object, uid: str, why: str) -> None:
    pod: Object = {"metadata": {"name": "x", "uid": "u", **metadata}, "spec": spec}
    with pytest.raises(Conflict) as refused:
        bound(pod, Binding("n", uid=uid), "now")
    assert refused.value.message == f'Operation cannot be fulfilled on pods/binding "x": {why}'


def test_a_binding_targets_a_node() -> None:
    binding = binding_of("x", {"metadata": {"name": "x"}, "target": {"kind": "Node", "name": "n"}})
    assert binding.node == "n"
    broken: list[Object] = [{"target": {"kind": "Pod", "name": "n"}}, {"target": {}}, {"metadata": {"name": "y"}}]
    for each in broken:
        with pytest.raises(ApiError):
            binding_of("x", each)


def test_a_scale_shows_replicas_and_the_selector_as_text() -> None:
    workload = {
        "metadata": {"name": "x", "namespace": "shop", "uid": "u", "resourceVersion": "7", "labels": {"a": "b"}},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}},
        "status": {"replicas": 2},
    }
    shown = scale_object(DEPLOYMENTS, workload)
    assert shown["metadata"] == {"name": "x", "namespace": "shop", "uid": "u", "resourceVersion": "7"}
    assert shown["spec"] == {"replicas": 3}
    assert shown["status"] == {"replicas": 2, "selector": "app=web"}
    controller = {**workload, "kind": "ReplicationController", "spec": {"selector": {"app": "web"}}}
    assert scale_object(CONTROLLERS, controller)["status"] == {"replicas": 2, "selector": "app=web"}


def test_an_event_of_the_new_group_is_kept_as_the_old_one_and_shown_as_either() -> None:
    kind = kinds.by_gvk("events.k8s.io", "v1", "Event")
    assert kind is not None
    event = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "x"},
        "regarding": {"kind": "Pod", "name": "p"},
        "note": "hello",
        "reportingController": "me",
        "deprecatedCount": 2,
    }
    stored = inward(kind, event)
    assert (stored["apiVersion"], stored["involvedObject"]["name"], stored["message"]) == ("v1", "p", "hello")
    assert (stored["reportingComponent"], stored["count"]) == ("me", 2)
    assert outward_object(kind, stored) == event


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (KeyExists(), AlreadyExists),
        (KeyMissing(), NotFound),
        (VersionMismatch(None), NotFound),
        (VersionMismatch(Record(Key("", "configmaps", "n", "x"), 1, b"{}", {}, {})), Conflict),
        (GuardFailed(Guard("leader")), ServiceUnavailable),
        (Unavailable(), ServiceUnavailable),
        (UnknownOutcome(), Timeout),
        (Compacted(), Gone),
    ],
)
def test_every_store_error_has_its_answer(fault: StoreError, expected: type[ApiError]) -> None:
    assert type(api_error(fault, Target(MAPS, "n", "x"))) is expected


def test_delete_options_are_read_from_their_body() -> None:
    body = {
        "gracePeriodSeconds": 0,
        "propagationPolicy": "Orphan",
        "preconditions": {"uid": "u", "resourceVersion": "7"},
    }
    expected = DeleteOptions(grace_seconds=0, propagation="Orphan", uid="u", resource_version="7")
    assert DeleteOptions.from_object(body) == expected
    with pytest.raises(BadRequest):
        DeleteOptions.from_object({"gracePeriodSeconds": "soon"})


@pytest.mark.parametrize(
    ("type", "document", "touched"),
    [
        (PatchType.MERGE, {"metadata": {}, "status": {}}, {"metadata", "status"}),
        (PatchType.STRATEGIC, {"$patch": "replace", "spec": {}}, None),
        (PatchType.MERGE, [], None),
        (PatchType.JSON, [{"op": "replace", "path": "/spec/replicas", "value": 1}], {"spec"}),
        (PatchType.JSON, [{"op": "move", "from": "/data/a", "path": "/binaryData/a"}], {"data", "binaryData"}),
        (PatchType.JSON, [{"op": "replace", "path": "", "value": {}}], None),
        (PatchType.JSON, [{"op": "add", "path": 5}], None),
    ],
)
def test_what_a_patch_leaves_alone_is_known_from_its_document(
    type: PatchType, document: object, touched: set[str] | None
) -> None:
    assert touched_fields(type, document) == touched


def a_pod(**spec: object) -> Object:
    return {"metadata": {"name": "x"}, "spec": {"containers": [{"name": "c"}], **spec}}


def test_a_walked_spec_is_known_again_and_a_merely_defaulted_one_only_to_the_trusted() -> None:
    pods = kinds.by_resource("", "pods")
    specs = KnownSpecs()
    key = specs.key_of(pods, a_pod())
    assert key is not None
    assert specs.find(key, walked=False) is None
    specs.learn(key, Known(b'{"a":1}', walked=False))
    assert specs.find(key, walked=True) is None
    specs.learn(key, Known(b'{"a":2}', walked=True))
    specs.learn(key, Known(b'{"a":3}', walked=False))
    known = specs.find(specs.key_of(pods, a_pod()), walked=True)
    assert known is not None
    assert known.spec() == {"a": 2}


def test_a_spec_that_cannot_be_judged_alone_has_no_key() -> None:
    pods = kinds.by_resource("", "pods")
    specs = KnownSpecs()
    meaningful = {**a_pod(), "metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/c": "x"}}}
    assert specs.key_of(pods, meaningful) is None
    assert specs.key_of(pods, a_pod(volumes=[{"name": "v", "ephemeral": {}}])) is None
    assert specs.key_of(pods, {**a_pod(), "fooBar": 1}) is None
    assert specs.key_of(pods, a_pod(priority=2**70)) is None
    assert specs.key_of(MAPS, a_map()) is None


def test_known_specs_forget_the_oldest() -> None:
    specs = KnownSpecs()
    for number in range(600):
        specs.learn(str(number).encode(), Known(b"{}", walked=True))
    assert specs.find(b"0", walked=True) is None
    assert specs.find(b"599", walked=True) is not None


def test_owners_that_are_named_twice_are_named_once_and_told() -> None:
    one, other = {"uid": "a", "kind": "X"}, {"uid": "b", "kind": "X"}
    request, obj = Request(ADMIN), a_map()
    obj["metadata"]["ownerReferences"] = [one, other, dict(one), dict(one)]
    merge_owners(request, obj)
    assert obj["metadata"]["ownerReferences"] == [one, other]
    assert request.warnings == [
        ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may "
        "reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: a, a"
    ]
    merge_owners(request, obj, admitted=True)
    assert len(request.warnings) == 1
    obj["metadata"]["ownerReferences"].append(dict(other))
    merge_owners(request, obj, admitted=True)
    assert request.warnings[1].startswith(
        ".metadata.ownerReferences contains duplicate entries after mutating admission"
    )


def test_an_invalid_object_is_refused_before_it_is_warned_of() -> None:
    target = Target(MAPS, "n", "x")
    request = Request(ADMIN)
    with pytest.raises(Invalid, match=r"data\[a b\]: Invalid value"):
        judge(request, target, a_map(data={"a b": "x"}) | {"metadata": {"name": "x", "namespace": "n"}}, None)
    judge(request, target, a_map(data={"a": "x"}) | {"metadata": {"name": "x", "namespace": "n"}}, None)
    assert request.warnings == []
