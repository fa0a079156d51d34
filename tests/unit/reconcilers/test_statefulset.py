"""StatefulSet decisions: order, identity, updates, status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from api.errors import Forbidden
from api.objects import Object, clone
from controller.reconcilers.actions import Action, Adopt, Create, Delete, Disown, Together, Write
from controller.reconcilers.history import CONTROLLER_REVISIONS, creation, planned_name
from controller.reconcilers.loop import NOTHING, Decision, Failure
from controller.reconcilers.statefulset import HASH_LABEL, STATEFUL_SETS, Observed, decide
from controller.reconcilers.statefulset_pods import ordinal_of
from controller.reconcilers.views import Owner, PodFacts
from controller.reconcilers.workloads import PODS, owner_reference
from tests.unit.reconcilers.facts import NOW, NOW_TEXT, TEMPLATE, meta, pod

OWNER = Owner("apps/v1", "StatefulSet", "x", "uid-x")
QUOTA = Forbidden('pods "x-0" is forbidden: exceeded quota')


def stateful_set(replicas: int = 2, *, image: str = "one", status: Object | None = None, **spec: Any) -> Object:
    template = clone(TEMPLATE)
    template["spec"]["containers"][0]["image"] = image
    body = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": "x"}},
        "serviceName": "svc",
        "template": template,
        "podManagementPolicy": "OrderedReady",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        "revisionHistoryLimit": 10,
        **spec,
    }
    whole = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta("x"), "spec": body}
    return {**whole, "status": status if status is not None else {"replicas": 0, "availableReplicas": 0}}


def revision(number: int, image: str = "one") -> Object:
    obj = creation(stateful_set(image=image), (), HASH_LABEL).obj
    obj["metadata"] |= {"uid": f"uid-{image}", "resourceVersion": "5"}
    return {**obj, "revision": number}


ONE, TWO = planned_name(stateful_set(image="one")), planned_name(stateful_set(image="two"))


def replica(ordinal: int, at: str = ONE, **facts: Any) -> PodFacts:
    name = f"x-{ordinal}"
    labels = {"app": "x", "controller-revision-hash": at, "statefulset.kubernetes.io/pod-name": name}
    labels["apps.kubernetes.io/pod-index"] = str(ordinal)
    return pod(name, **{"labels": labels, "owner": OWNER, **facts})


UNREADY: Mapping[str, Any] = {"ready": False}
PARALLEL: Mapping[str, Any] = {"podManagementPolicy": "Parallel"}


def told(count: int, *, current: str = ONE, update: str = ONE, **counts: int) -> Object:
    full = {"readyReplicas": count, "currentReplicas": count, "updatedReplicas": count}
    always = ("replicas", "availableReplicas")
    shown = {**dict.fromkeys(always, count), **full, **counts}
    names = {"currentRevision": current, "updateRevision": update, "collisionCount": 0, "observedGeneration": 1}
    return {
        **{key: value for key, value in shown.items() if value or key in always},
        **names,
    }


def look(obj: Object, *pods: PodFacts, revisions: tuple[Object, ...] = (), **more: Any) -> Decision:
    return decide(Observed(obj, pods, revisions or (revision(1),), NOW, **more))


def flat(decision: Decision) -> list[Action]:
    return [
        one
        for action in decision.actions
        for one in (action.actions if isinstance(action, Together) else (action,))
        if not (isinstance(one, Write) and one.subresource == "status")
    ]


def created(decision: Decision) -> list[str]:
    return [one.obj["metadata"]["name"] for one in flat(decision) if isinstance(one, Create)]


def deleted(decision: Decision) -> list[str]:
    return [one.name for one in flat(decision) if isinstance(one, Delete)]


def status_of(decision: Decision) -> Object:
    writes = [one for one in (*decision.actions, decision.status) if isinstance(one, Write) and one.subresource]
    (write,) = writes
    status: Object = write.replace["status"]
    return status


def test_first_of_all_the_template_becomes_a_revision() -> None:
    decision = decide(Observed(stateful_set(), (), (), NOW))
    (create,) = decision.actions
    assert create == creation(stateful_set(), (), HASH_LABEL)


def test_a_revision_name_that_is_taken_is_counted_as_a_collision() -> None:
    decision = decide(Observed(stateful_set(), (), (), NOW, occupied=True))
    assert decision.actions == () and status_of(decision)["collisionCount"] == 1


@pytest.mark.proves("StatefulSet.spec.replicas", "StatefulSet.spec.template", "StatefulSet.spec.podManagementPolicy")
def test_pods_are_made_one_at_a_time_from_the_lowest_ordinal_and_the_status_names_the_revision_first() -> None:
    decision = look(stateful_set())
    status, together = decision.actions
    assert status == Write(STATEFUL_SETS, "w", "x", "uid-x", replace={"status": told(0)}, subresource="status")
    assert isinstance(together, Together)
    assert created(decision) == ["x-0"]


@pytest.mark.proves("StatefulSet.spec.serviceName")
def test_a_pod_has_name_labels_host_name_and_subdomain_of_its_ordinal() -> None:
    (create,) = flat(look(stateful_set(status=told(0))))
    assert isinstance(create, Create) and not create.trusted
    assert create.obj == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "x-0",
            "generateName": "x-",
            "namespace": "w",
            "ownerReferences": [owner_reference(stateful_set())],
            "labels": {
                "app": "x",
                "statefulset.kubernetes.io/pod-name": "x-0",
                "apps.kubernetes.io/pod-index": "0",
                "controller-revision-hash": ONE,
            },
        },
        "spec": {**TEMPLATE["spec"], "hostname": "x-0", "subdomain": "svc"},
    }
    assert create.note is not None and create.note.message == "create Pod x-0 in StatefulSet x successful"


@pytest.mark.parametrize(
    ("first", "made"),
    [
        ({}, ["x-1"]),
        (UNREADY, []),
        ({"phase": "Pending", "ready": False}, []),
        ({"deleting": True}, []),
    ],
)
def test_the_next_pod_waits_until_the_one_before_is_available(first: Mapping[str, Any], made: list[str]) -> None:
    assert created(look(stateful_set(), replica(0, **first))) == made


@pytest.mark.proves("StatefulSet.spec.minReadySeconds")
def test_with_min_ready_seconds_the_next_pod_waits_that_long() -> None:
    ready = replica(0, ready_since=NOW.timestamp() - 4)
    decision = look(stateful_set(minReadySeconds=10), ready)
    assert created(decision) == [] and decision.requeue_after_seconds == 6
    assert status_of(decision)["availableReplicas"] == 0
    assert created(look(stateful_set(minReadySeconds=4), ready)) == ["x-1"]


def test_parallel_makes_and_takes_away_all_at_once() -> None:
    assert created(look(stateful_set(3, **PARALLEL), replica(1, **UNREADY))) == ["x-0", "x-2"]
    going = look(stateful_set(1, **PARALLEL), *(replica(one) for one in range(4)))
    assert deleted(going) == ["x-3", "x-2", "x-1"]


@pytest.mark.proves("StatefulSet.spec.ordinals.start")
def test_ordinals_start_where_the_spec_says_and_pods_below_are_surplus() -> None:
    shifted = stateful_set(2, ordinals={"start": 5})
    assert created(look(shifted)) == ["x-5"]
    assert deleted(look(shifted, replica(0), replica(5), replica(6))) == ["x-0"]


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
def test_a_finished_pod_is_deleted_and_made_anew_only_when_it_has_gone(phase: str) -> None:
    assert deleted(look(stateful_set(), replica(0, phase=phase))) == ["x-0"]
    assert flat(look(stateful_set(), replica(0, phase=phase, deleting=True))) == []


def test_surplus_pods_go_from_the_highest_ordinal_one_at_a_time() -> None:
    pods = [replica(one) for one in range(4)]
    assert deleted(look(stateful_set(1), *pods)) == ["x-3"]
    assert deleted(look(stateful_set(1), *pods[:3], replica(3, deleting=True))) == []


def test_scaling_down_waits_for_broken_pods_below_and_takes_the_only_broken_one() -> None:
    assert deleted(look(stateful_set(1), replica(0, **UNREADY), replica(1), replica(2))) == []
    assert deleted(look(stateful_set(1), replica(0), replica(1), replica(2, **UNREADY))) == ["x-2"]
    both = (replica(0), replica(1, **UNREADY), replica(2, **UNREADY))
    assert deleted(look(stateful_set(1), *both)) == []


def updating(*pods: PodFacts, status: Object | None = None, **spec: Any) -> Decision:
    obj = stateful_set(3, image="two", status=status or told(3, update=TWO), **spec)
    return look(obj, *pods, revisions=(revision(1), revision(2, "two")))


def rolling(**fields: Any) -> Object:
    return {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0, **fields}}}


OLD = tuple(replica(one) for one in range(3))


def test_an_update_goes_from_the_highest_ordinal_down_one_pod_at_a_time() -> None:
    assert deleted(updating(*OLD)) == ["x-2"]
    assert deleted(updating(*OLD[:2], replica(2, deleting=True))) == []
    assert created(updating(*OLD[:2])) == ["x-2"]
    assert deleted(updating(*OLD[:2], replica(2, TWO, **UNREADY))) == []
    assert deleted(updating(*OLD[:2], replica(2, TWO))) == ["x-1"]


@pytest.mark.proves("StatefulSet.spec.updateStrategy.rollingUpdate.partition")
def test_a_partition_keeps_the_pods_below_it_at_the_old_revision() -> None:
    spec = rolling(partition=2)
    assert deleted(updating(*OLD, **spec)) == ["x-2"]
    assert deleted(updating(*OLD[:2], replica(2, TWO), **spec)) == []
    (old,) = [one for one in flat(updating(OLD[0], replica(2, TWO), **spec)) if isinstance(one, Create)]
    assert old.obj["metadata"]["labels"]["controller-revision-hash"] == ONE
    assert old.obj["spec"]["containers"][0]["image"] == "one"


@pytest.mark.proves("StatefulSet.spec.updateStrategy.rollingUpdate.maxUnavailable")
def test_max_unavailable_lets_more_pods_go_at_once() -> None:
    assert deleted(updating(*OLD, **rolling(maxUnavailable=2))) == ["x-2", "x-1"]
    assert deleted(updating(*OLD, **rolling(maxUnavailable="67%"))) == ["x-2", "x-1"]
    assert deleted(updating(*OLD, **rolling(maxUnavailable="1%"))) == ["x-2"]
    coming = replica(2, TWO, **UNREADY)
    assert deleted(updating(*OLD[:2], coming, **rolling(maxUnavailable=2), **PARALLEL)) == ["x-1"]


def test_with_parallel_a_broken_pod_of_the_old_revision_does_not_stop_the_update() -> None:
    assert deleted(updating(replica(0, **UNREADY), *OLD[1:], **PARALLEL)) == ["x-2"]
    assert deleted(updating(replica(0, **UNREADY), replica(1, TWO), replica(2, TWO), **PARALLEL)) == ["x-0"]
    assert deleted(updating(OLD[0], replica(1, TWO, **UNREADY), OLD[2], **PARALLEL)) == []


def test_with_ordered_ready_a_broken_pod_stops_the_update_as_in_kubernetes() -> None:
    assert deleted(updating(*OLD[:2], replica(2, **UNREADY))) == []


@pytest.mark.proves("StatefulSet.spec.updateStrategy.type")
def test_on_delete_updates_only_what_a_person_deletes() -> None:
    spec = {"updateStrategy": {"type": "OnDelete"}}
    assert deleted(updating(*OLD, **spec)) == []
    (new,) = [one for one in flat(updating(*OLD[:2], **spec)) if isinstance(one, Create)]
    assert new.obj["metadata"]["labels"]["controller-revision-hash"] == TWO


def test_the_update_is_complete_when_all_are_updated_and_ready() -> None:
    halfway = updating(*OLD[:2], replica(2, TWO, **UNREADY))
    assert status_of(halfway) == told(
        3, update=TWO, currentReplicas=2, updatedReplicas=1, readyReplicas=2, availableReplicas=2
    )
    done = updating(*(replica(one, TWO) for one in range(3)), status=told(3, update=TWO))
    assert status_of(done) == told(3, current=TWO, update=TWO)


def test_at_rest_nothing_is_done() -> None:
    pods = (replica(0), replica(1))
    assert look(stateful_set(status=told(2)), *pods) == NOTHING


def test_a_set_that_goes_only_counts() -> None:
    going = stateful_set(status=told(2))
    going["metadata"]["deletionTimestamp"] = NOW_TEXT
    decision = look(going, replica(0, deleting=True))
    assert decision.actions == () and status_of(decision)["replicas"] == 1
    assert decide(Observed(going, (), (), NOW)) == NOTHING


def test_a_refusal_is_told_in_an_event_and_the_status_is_written_before_the_next_try() -> None:
    decision = look(stateful_set(status=told(2)), replica(0), failure=Failure(QUOTA))
    status, _ = decision.actions
    assert isinstance(status, Write) and status_of(decision) == told(1)
    (create,) = flat(decision)
    assert isinstance(create, Create) and create.refused is not None
    assert (create.refused.reason, create.refused.message) == (
        "FailedCreate",
        "create Pod x-1 in StatefulSet x failed error: ",
    )


@pytest.mark.proves("StatefulSet.spec.selector")
def test_only_pods_with_a_name_of_the_set_are_adopted_and_others_released() -> None:
    stray, other = replica(1, owner=None), pod("x-one", owner=None)
    decision = look(stateful_set(), pod("x-07", owner=OWNER), orphans=(stray, other))
    assert decision.actions == (
        Disown(PODS, "w", "x-07", "uid-x-07", ("uid-x",)),
        Adopt(PODS, "w", "x-1", "uid-x-1", "3", owner_reference(stateful_set())),
    )


def test_an_adopted_pod_gets_the_labels_that_name_it() -> None:
    nameless = replica(0, labels={"app": "x", "controller-revision-hash": ONE})
    (write,) = flat(look(stateful_set(1), nameless))
    labels = {"statefulset.kubernetes.io/pod-name": "x-0", "apps.kubernetes.io/pod-index": "0"}
    assert isinstance(write, Write) and write.merge == {"metadata": {"labels": labels}}


@pytest.mark.proves("StatefulSet.spec.revisionHistoryLimit")
def test_old_revisions_go_when_no_pod_has_them() -> None:
    third = planned_name(stateful_set(image="three"))
    obj = stateful_set(1, image="three", revisionHistoryLimit=0, status=told(1, current=third, update=third))
    revisions = (revision(1), revision(2, "two"), revision(3, "three"))
    decision = look(obj, replica(0, ONE), revisions=revisions)
    gone = [one for one in flat(decision) if isinstance(one, Delete) and one.kind == CONTROLLER_REVISIONS]
    assert [one.name for one in gone] == [TWO]


@pytest.mark.parametrize(
    ("name", "ordinal"),
    [("x-0", 0), ("x-12", 12), ("x-07", None), ("x-", None), ("y-0", None), ("x-a-0", None), ("x", None)],
)
def test_a_name_says_its_ordinal(name: str, ordinal: int | None) -> None:
    assert ordinal_of("x", name) == ordinal
