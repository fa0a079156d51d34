"""ReplicaSet decisions, compared whole."""

from __future__ import annotations

from dataclasses import replace

import pytest

from api.errors import Conflict, Forbidden
from controller.reconcilers.actions import Action, Adopt, Create, Delete, Disown, Together, Write
from controller.reconcilers.loop import NOTHING, Decision, Failure
from controller.reconcilers.names import child_names
from controller.reconcilers.replicaset import REPLICA_SETS, Observed, decide
from controller.reconcilers.workloads import PODS, owner_reference
from tests.unit.reconcilers.facts import NOW, NOW_TEXT, pod, replica_set

SETTLED = {
    "replicas": 2,
    "fullyLabeledReplicas": 2,
    "readyReplicas": 2,
    "availableReplicas": 2,
    "terminatingReplicas": 0,
    "observedGeneration": 1,
}
QUOTA = Forbidden('pods "x" is forbidden: exceeded quota')


def status_write(status: object) -> Write:
    return Write(REPLICA_SETS, "w", "x", "uid-x", replace={"status": status}, subresource="status")


def names(decision: Decision, kind: type[Create] | type[Delete]) -> list[str]:
    found: list[str] = []
    for action in decision.actions:
        for one in action.actions if isinstance(action, Together) else (action,):
            if isinstance(one, kind):
                found.append(one.obj["metadata"]["name"] if isinstance(one, Create) else one.name)
    return found


@pytest.mark.proves("ReplicaSet.spec.replicas", "ReplicaSet.spec.template.metadata", "ReplicaSet.spec.template.spec")
def test_missing_pods_are_created_from_the_template_under_derived_names() -> None:
    decision = decide(Observed(replica_set(2), (), NOW))
    expected = child_names("x", "uid-x", ())
    (together,) = decision.actions
    assert isinstance(together, Together)
    first = together.actions[0]
    assert isinstance(first, Create)
    assert first.obj == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": next(expected),
            "generateName": "x-",
            "namespace": "w",
            "labels": {"app": "x"},
            "ownerReferences": [owner_reference(replica_set(2))],
        },
        "spec": {"containers": [{"name": "c", "image": "one"}]},
    }
    assert names(decision, Create)[1] == next(expected)
    assert decision.status is None


def test_names_of_pods_that_are_going_or_gone_are_not_given_again() -> None:
    first, second, third = (name for name, _ in zip(child_names("x", "uid-x", ()), range(3), strict=False))
    going = pod(first, deleting=True)
    decision = decide(Observed(replica_set(1), (going,), NOW, gone=frozenset([second])))
    assert names(decision, Create) == [third]


def test_status_is_written_once_the_pods_are_as_wanted() -> None:
    decision = decide(Observed(replica_set(2), (pod("a"), pod("b")), NOW))
    assert decision == Decision(status=status_write(SETTLED))
    assert decide(Observed(replica_set(2, status=SETTLED), (pod("a"), pod("b")), NOW)) == NOTHING


def test_finished_and_deleted_pods_do_not_count_as_replicas() -> None:
    pods = (pod("a", phase="Failed"), pod("b", deleting=True), pod("c"))
    assert len(names(decide(Observed(replica_set(2), pods, NOW)), Create)) == 1


def test_a_fenced_pod_that_still_runs_is_not_replaced() -> None:
    decision = decide(Observed(replica_set(1), (pod("a", deleting=True, fenced=True),), NOW))
    assert names(decision, Create) == []


def test_surplus_pods_go_those_that_got_least_far_first() -> None:
    pods = (pod("running"), pod("pending", phase="Pending", ready=False), pod("unready", ready=False))
    assert names(decide(Observed(replica_set(1), pods, NOW)), Delete) == ["pending", "unready"]


@pytest.mark.proves("ReplicaSet.spec.selector")
def test_a_matching_pod_nobody_controls_is_adopted_and_counts() -> None:
    stray = pod("stray", owner=None)
    decision = decide(Observed(replica_set(2), (pod("a"),), NOW, orphans=(stray, pod("other", labels={}, owner=None))))
    reference = owner_reference(replica_set(2))
    assert decision.actions == (Adopt(PODS, "w", "stray", "uid-stray", "3", reference),)


def test_a_pod_whose_labels_no_longer_match_is_released_and_replaced() -> None:
    decision = decide(Observed(replica_set(2), (pod("a"), pod("b", labels={})), NOW))
    release: Action = Disown(PODS, "w", "b", "uid-b", ("uid-x",))
    assert decision.actions[0] == release
    assert len(names(decision, Create)) == 1


def test_a_replica_set_being_deleted_creates_and_adopts_nothing() -> None:
    going = replica_set(2)
    going["metadata"]["deletionTimestamp"] = NOW_TEXT
    decision = decide(Observed(going, (), NOW, orphans=(pod("stray", owner=None),)))
    assert decision.actions == ()


def test_a_refused_create_is_told_in_the_status_before_the_next_try() -> None:
    decision = decide(Observed(replica_set(2), (pod("a"),), NOW, failure=Failure(QUOTA)))
    told, tries = decision.actions
    failure = {
        "type": "ReplicaFailure",
        "status": "True",
        "lastTransitionTime": NOW_TEXT,
        "reason": "FailedCreate",
        "message": QUOTA.message,
    }
    one = {**SETTLED, "replicas": 1, "fullyLabeledReplicas": 1, "readyReplicas": 1, "availableReplicas": 1}
    assert told == status_write({**one, "conditions": [failure]})
    assert isinstance(tries, Together)


def test_the_failure_condition_goes_when_nothing_is_missing_any_more() -> None:
    failed = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "lastTransitionTime": NOW_TEXT}
    before = replica_set(2, status={**SETTLED, "conditions": [failed]})
    assert decide(Observed(before, (pod("a"), pod("b")), NOW)) == Decision(status=status_write(SETTLED))


def test_a_pod_ready_far_in_the_future_is_no_young_one_because_a_clock_was_set_back() -> None:
    ready = pod("a", ready_since=NOW.timestamp() + 3600)
    written = decide(Observed(replica_set(1, minReadySeconds=30), (ready,), NOW)).status
    assert isinstance(written, Write)
    assert written.replace["status"]["availableReplicas"] == 1


def test_a_lost_race_is_no_failure_worth_telling() -> None:
    seen = Observed(replica_set(2), (pod("a"),), NOW, failure=Failure(Conflict("changed")))
    assert decide(seen) == decide(replace(seen, failure=None))


@pytest.mark.proves("ReplicaSet.spec.minReadySeconds")
def test_min_ready_seconds_make_pods_available_later() -> None:
    ready = pod("a", ready_since=NOW.timestamp() - 10)
    decision = decide(Observed(replica_set(1, minReadySeconds=30), (ready,), NOW))
    assert decision.requeue_after_seconds == 20
    written = decision.status
    assert isinstance(written, Write)
    assert "availableReplicas" not in written.replace["status"]
