"""The claims of a StatefulSet's pods: made before the pod, owned and so deleted as the retention policy says."""

from __future__ import annotations

from typing import Any

import pytest

from api.objects import Object
from controller.reconcilers.actions import Create, Delete, Write
from controller.reconcilers.loop import Decision
from controller.reconcilers.statefulset import Observed, decide
from controller.reconcilers.views import PodFacts
from controller.reconcilers.workloads import owner_reference
from tests.unit.reconcilers.facts import NOW
from tests.unit.reconcilers.test_statefulset import created, flat, replica, revision, stateful_set, told

SPEC = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
TEMPLATES = [{"metadata": {"name": "data", "labels": {"a": "b"}}, "spec": SPEC, "status": {"phase": "Pending"}}]
RETAIN: Object = {}
BOTH: Object = {"whenDeleted": "Delete", "whenScaled": "Delete"}
WITH_SET: Object = {"whenDeleted": "Delete", "whenScaled": "Retain"}
WITH_SCALE: Object = {"whenDeleted": "Retain", "whenScaled": "Delete"}


def storing(replicas: int = 1, policy: Object | None = None, **spec: Any) -> Object:
    if policy:
        spec["persistentVolumeClaimRetentionPolicy"] = policy
    return stateful_set(replicas, volumeClaimTemplates=TEMPLATES, status=told(replicas), **spec)


def claim(ordinal: int, *owners: Object, **meta: Any) -> Object:
    name = f"data-x-{ordinal}"
    metadata = {"name": name, "namespace": "w", "uid": f"uid-{name}", "resourceVersion": "9", **meta}
    return {"metadata": {**metadata, **({"ownerReferences": list(owners)} if owners else {})}, "spec": SPEC}


def of_pod(name: str, uid: str) -> Object:
    reference = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}
    return {**reference, "controller": True, "blockOwnerDeletion": True}


SET, POD = owner_reference(stateful_set()), of_pod("x-0", "uid-x-0")
FOREIGN = {"apiVersion": "v1", "kind": "Thing", "name": "t", "uid": "uid-t", "controller": True}


def look(obj: Object, *pods: PodFacts, claims: tuple[Object, ...] = ()) -> Decision:
    by_name = {one["metadata"]["name"]: one for one in claims}
    return decide(Observed(obj, pods, (revision(1),), NOW, claims=by_name))


def owners_written(decision: Decision) -> list[Any]:
    return [
        [reference["uid"] for reference in one.merge["metadata"]["ownerReferences"] or ()]
        for one in flat(decision)
        if isinstance(one, Write) and one.kind.plural == "persistentvolumeclaims"
    ]


def test_claims_are_made_before_the_pod_that_mounts_them() -> None:
    made, pod = flat(look(storing()))
    assert isinstance(made, Create) and isinstance(pod, Create)
    assert made.obj == {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data-x-0", "namespace": "w", "labels": {"a": "b", "app": "x"}},
        "spec": SPEC,
    }
    assert pod.obj["spec"]["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": "data-x-0"}}]


def test_a_claim_takes_the_place_of_a_volume_of_the_template_with_its_name() -> None:
    obj = storing()
    obj["spec"]["template"]["spec"]["volumes"] = [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]
    created_revision = {**revision(1), "data": {"spec": {"template": obj["spec"]["template"]}}}
    _, pod = flat(decide(Observed(obj, (), (created_revision,), NOW)))
    assert isinstance(pod, Create)
    assert [volume["name"] for volume in pod.obj["spec"]["volumes"]] == ["data", "tmp"]
    assert "persistentVolumeClaim" in pod.obj["spec"]["volumes"][0]


def test_a_claim_that_is_there_is_used_again() -> None:
    assert created(look(storing(), claims=(claim(0),))) == ["x-0"]


def test_a_pending_pod_gets_the_claims_it_lacks() -> None:
    assert created(look(storing(), replica(0, phase="Pending", ready=False))) == ["data-x-0"]


def test_a_claim_that_is_going_holds_its_pod_back() -> None:
    assert created(look(storing(), claims=(claim(0, deletionTimestamp="2026-01-01T00:00:00Z"),))) == []
    former = claim(0, of_pod("x-0", "former"))
    assert created(look(storing(policy=WITH_SCALE), claims=(former,))) == []
    assert created(look(storing(), claims=(former,))) == ["x-0"]


@pytest.mark.proves("StatefulSet.spec.persistentVolumeClaimRetentionPolicy.whenDeleted")
def test_a_new_claim_belongs_to_the_set_when_it_shall_go_with_it() -> None:
    made = flat(look(storing(policy=WITH_SET)))[0]
    assert isinstance(made, Create) and made.obj["metadata"]["ownerReferences"] == [SET]


@pytest.mark.parametrize(
    ("policy", "owners", "written"),
    [
        (RETAIN, (), []),
        (RETAIN, (SET,), [[]]),
        (WITH_SET, (), [["uid-x"]]),
        (WITH_SET, (SET,), []),
        (WITH_SCALE, (SET,), [[]]),
        (WITH_SCALE, (POD,), [[]]),
        (BOTH, (POD,), [["uid-x"]]),
        (BOTH, (SET,), []),
        (WITH_SET, ({**SET, "controller": False},), [["uid-x"]]),
        (WITH_SET, ({**SET, "uid": "former"},), []),
        (WITH_SET, (FOREIGN,), []),
        (WITH_SET, (FOREIGN, SET), [["uid-t"]]),
        (RETAIN, (FOREIGN, SET), [["uid-t"]]),
    ],
)
def test_the_claim_of_a_pod_in_range_has_the_owner_of_the_policy(
    policy: Object, owners: tuple[Object, ...], written: list[list[str]]
) -> None:
    assert owners_written(look(storing(policy=policy), replica(0), claims=(claim(0, *owners),))) == written


@pytest.mark.parametrize(
    ("policy", "owners", "written"),
    [
        (RETAIN, (), []),
        (WITH_SET, (SET,), []),
        (WITH_SCALE, (), [["uid-x-0"]]),
        (WITH_SCALE, (POD,), []),
        (BOTH, (SET,), [["uid-x-0"]]),
    ],
)
@pytest.mark.proves("StatefulSet.spec.persistentVolumeClaimRetentionPolicy.whenScaled")
def test_the_claim_of_a_surplus_pod_goes_with_it_when_scaling_deletes(
    policy: Object, owners: tuple[Object, ...], written: list[list[str]]
) -> None:
    decision = look(storing(0, policy=policy), replica(0), claims=(claim(0, *owners),))
    assert owners_written(decision) == written
    assert isinstance(flat(decision)[-1], Delete), "the owner is settled before the pod goes"
