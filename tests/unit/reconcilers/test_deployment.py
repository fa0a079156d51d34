"""Deployment decisions, compared whole."""

from __future__ import annotations

from typing import Any

import pytest

from api.errors import Forbidden
from api.objects import Object, clone
from controller.reconcilers.actions import Adopt, Create, Delete, Disown, Note, Write
from controller.reconcilers.deployment import DEPLOYMENTS, Observed, decide
from controller.reconcilers.loop import NOTHING, Decision, Failure
from controller.reconcilers.replicaset import REPLICA_SETS
from controller.reconcilers.revisions import planned_name
from controller.reconcilers.workloads import owner_reference
from tests.unit.reconcilers.facts import EARLIER, NOW, NOW_TEXT, ago, deployment, meta

REVISION = "deployment.kubernetes.io/revision"
AVAILABLE = {
    "type": "Available",
    "status": "True",
    "lastUpdateTime": EARLIER,
    "lastTransitionTime": EARLIER,
    "reason": "MinimumReplicasAvailable",
    "message": "Deployment has minimum availability.",
}
COMPLETE = {
    "replicas": 2,
    "updatedReplicas": 2,
    "readyReplicas": 2,
    "availableReplicas": 2,
    "terminatingReplicas": 0,
    "observedGeneration": 1,
}


def progressing(status: str, reason: str, message: str, update: str = NOW_TEXT, transition: str = NOW_TEXT) -> Object:
    return {
        "type": "Progressing",
        "status": status,
        "lastUpdateTime": update,
        "lastTransitionTime": transition,
        "reason": reason,
        "message": message,
    }


DONE = progressing("True", "NewReplicaSetAvailable", 'ReplicaSet "rs" has successfully progressed.', EARLIER, EARLIER)


def child(name: str, size: int, image: str = "one", available: int | None = None, revision: int = 1) -> Object:
    """A ReplicaSet of deployment x whose status has caught up."""
    template = {
        "metadata": {"labels": {"app": "x", "pod-template-hash": name}},
        "spec": {"containers": [{"name": "c", "image": image}]},
    }
    annotations = {
        REVISION: str(revision),
        "deployment.kubernetes.io/desired-replicas": "2",
        "deployment.kubernetes.io/max-replicas": "3",
    }
    ready = size if available is None else available
    counts = {"readyReplicas": ready, "availableReplicas": ready}
    status = {"replicas": size, **{key: n for key, n in counts.items() if n}, "observedGeneration": 1}
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": meta(
            name,
            labels={"app": "x"},
            annotations=annotations,
            ownerReferences=[owner_reference(deployment())],
            creationTimestamp=ago(100 - revision),
        ),
        "spec": {"replicas": size, "selector": {"matchLabels": {"app": "x"}}, "template": template},
        "status": {**status, "terminatingReplicas": 0},
    }


def settled(**spec: Any) -> Object:
    obj = deployment(2, status={**COMPLETE, "conditions": [AVAILABLE, DONE]}, **spec)
    obj["metadata"]["annotations"] = {REVISION: "1"}
    return obj


def changed(obj: Object, image: str = "two") -> Object:
    new = clone(obj)
    new["spec"]["template"]["spec"]["containers"][0]["image"] = image
    new["metadata"]["generation"] = 2
    return new


def see(obj: Object, *sets: Object, **more: Any) -> Observed:
    return Observed(obj, sets, NOW, more.pop("running", {}), **more)


def resize(name: str, before: int, after: int, sizes: tuple[int, int] = (2, 3)) -> Write:
    annotations = {
        "deployment.kubernetes.io/desired-replicas": str(sizes[0]),
        "deployment.kubernetes.io/max-replicas": str(sizes[1]),
    }
    direction = "up" if after > before else "down"
    text = f"Scaled {direction} replica set {name} from {before} to {after}"
    return Write(
        REPLICA_SETS,
        "w",
        name,
        f"uid-{name}",
        merge={"metadata": {"annotations": annotations}, "spec": {"replicas": after}},
        generation=1,
        note=Note(deployment(), "Normal", "ScalingReplicaSet", text),
    )


def status_of(decision: Decision) -> Object:
    written = decision.status
    assert isinstance(written, Write)
    assert (written.kind, written.subresource) == (DEPLOYMENTS, "status")
    status: Object = written.replace["status"]
    return status


def same_write(action: object, expected: Write) -> bool:
    """Equal but for the object an event is about."""
    assert isinstance(action, Write)
    assert action.note is not None and expected.note is not None
    bare = (action.merge, action.generation, action.name, action.note.message)
    return bare == (expected.merge, expected.generation, expected.name, expected.note.message)


@pytest.mark.proves("Deployment.spec.template", "Deployment.spec.replicas")
def test_a_new_deployment_gets_its_first_replica_set() -> None:
    new = deployment(2)
    name = planned_name(new)
    decision = decide(see(new))
    (create,) = decision.actions
    assert isinstance(create, Create)
    hashed = {"app": "x", "pod-template-hash": name.removeprefix("x-")}
    assert create.obj["metadata"] == {
        "name": name,
        "namespace": "w",
        "labels": hashed,
        "annotations": {
            REVISION: "1",
            "deployment.kubernetes.io/desired-replicas": "2",
            "deployment.kubernetes.io/max-replicas": "3",
        },
        "ownerReferences": [owner_reference(new)],
    }
    assert create.obj["spec"]["selector"] == {"matchLabels": hashed}
    assert create.note == Note(new, "Normal", "ScalingReplicaSet", f"Scaled up replica set {name} from 0 to 2")
    assert decision.status == Write(
        DEPLOYMENTS,
        "w",
        "x",
        "uid-x",
        merge={"metadata": {"annotations": {REVISION: "1"}}},
        replace={
            "status": {
                "terminatingReplicas": 0,
                "observedGeneration": 1,
                "conditions": [
                    progressing("True", "NewReplicaSetCreated", f'Created new replica set "{name}"'),
                    {
                        **AVAILABLE,
                        "status": "False",
                        "reason": "MinimumReplicasUnavailable",
                        "message": "Deployment does not have minimum availability.",
                        "lastUpdateTime": NOW_TEXT,
                        "lastTransitionTime": NOW_TEXT,
                    },
                ],
            }
        },
        subresource="status",
    )
    assert decision.requeue_after_seconds == 601


def test_at_rest_there_is_nothing_to_do() -> None:
    assert decide(see(settled(), child("rs", 2))) == NOTHING


def test_a_new_template_starts_a_second_replica_set_within_the_surge() -> None:
    decision = decide(see(changed(settled()), child("rs", 2)))
    (create,) = decision.actions
    assert isinstance(create, Create)
    assert (create.obj["spec"]["replicas"], create.obj["metadata"]["annotations"][REVISION]) == (1, "2")


def test_the_old_one_shrinks_when_a_new_pod_is_available() -> None:
    sets = (child("rs", 2), child("new", 1, "two", revision=2))
    (action,) = decide(see(changed(settled()), *sets)).actions
    assert same_write(action, resize("rs", 2, 1))


def test_the_new_one_grows_before_the_old_one_shrinks_again() -> None:
    sets = (child("rs", 1), child("new", 1, "two", revision=2))
    (action,) = decide(see(changed(settled()), *sets)).actions
    assert same_write(action, resize("new", 1, 2))


def test_going_back_to_an_old_template_moves_its_revision_to_the_front() -> None:
    sets = (child("rs", 0, revision=1), child("new", 2, "two", revision=2))
    decision = decide(see(settled(), *sets))
    wanted = {REVISION: "3", "deployment.kubernetes.io/revision-history": "1"}
    assert decision.actions == (
        Write(REPLICA_SETS, "w", "rs", "uid-rs", merge={"metadata": {"annotations": wanted}}, generation=1),
    )
    written = decision.status
    assert isinstance(written, Write)
    assert written.merge == {"metadata": {"annotations": {REVISION: "3"}}}


def test_annotations_are_handed_down_but_not_those_of_kubectl_and_the_controller() -> None:
    obj = settled()
    obj["metadata"]["annotations"] |= {"team": "shop", "kubectl.kubernetes.io/last-applied-configuration": "{}"}
    (action,) = decide(see(obj, child("rs", 2))).actions
    assert isinstance(action, Write)
    assert action.merge == {"metadata": {"annotations": {"team": "shop"}}}


@pytest.mark.proves("Deployment.spec.minReadySeconds")
def test_how_long_pods_have_to_be_ready_is_handed_down() -> None:
    (action,) = decide(see(settled(minReadySeconds=7), child("rs", 2))).actions
    assert isinstance(action, Write)
    assert action.merge == {"spec": {"minReadySeconds": 7}}


def test_scaling_changes_the_size_before_anything_else() -> None:
    obj = settled()
    obj["spec"]["replicas"] = 5
    (action,) = decide(see(obj, child("rs", 2))).actions
    assert same_write(action, resize("rs", 2, 5, (5, 7)))


@pytest.mark.proves("Deployment.spec.paused")
def test_a_paused_deployment_is_scaled_but_not_rolled() -> None:
    obj = changed(settled(paused=True))
    decision = decide(see(obj, child("rs", 2)))
    assert decision.actions == ()
    told = status_of(decision)["conditions"]
    assert ("DeploymentPaused", "Unknown") in [(one["reason"], one["status"]) for one in told]
    obj["spec"]["replicas"] = 3
    (action,) = decide(see(obj, child("rs", 2))).actions
    assert same_write(action, resize("rs", 2, 3, (3, 4)))


@pytest.mark.proves("Deployment.spec.strategy.type")
def test_recreate_stops_all_old_pods_and_waits_until_none_can_run() -> None:
    obj = changed(settled(strategy={"type": "Recreate"}))
    (action,) = decide(see(obj, child("rs", 2))).actions
    assert same_write(action, resize("rs", 2, 0, (2, 2)))
    assert decide(see(obj, child("rs", 0), running={"uid-rs": 1})).actions == ()
    unseen = child("rs", 0)
    unseen["metadata"]["generation"] = 2
    assert decide(see(obj, unseen)).actions == ()
    (create,) = decide(see(obj, child("rs", 0))).actions
    assert isinstance(create, Create)
    assert create.obj["spec"]["replicas"] == 2


def test_what_moves_is_told_as_progress() -> None:
    started = progressing("True", "NewReplicaSetCreated", "", ago(5), ago(5))
    before = deployment(2, status={"terminatingReplicas": 0, "observedGeneration": 1, "conditions": [started]})
    before["metadata"]["annotations"] = {REVISION: "1"}
    told = status_of(decide(see(before, child("rs", 2, available=1))))["conditions"]
    assert told[-1] == progressing("True", "ReplicaSetUpdated", 'ReplicaSet "rs" is progressing.', NOW_TEXT, ago(5))
    told = status_of(decide(see(before, child("rs", 2))))["conditions"]
    done = 'ReplicaSet "rs" has successfully progressed.'
    assert told[-1] == progressing("True", "NewReplicaSetAvailable", done, NOW_TEXT, ago(5))


@pytest.mark.proves("Deployment.spec.progressDeadlineSeconds")
def test_a_rollout_that_does_not_move_times_out_after_its_deadline() -> None:
    stuck = {**COMPLETE, "replicas": 3, "updatedReplicas": 1, "unavailableReplicas": 1, "observedGeneration": 2}
    moving = progressing("True", "ReplicaSetUpdated", "", ago(590), ago(600))
    obj = changed(deployment(2, status={**stuck, "conditions": [AVAILABLE, moving]}))
    obj["metadata"]["annotations"] = {REVISION: "2"}
    sets = (child("rs", 2), child("new", 1, "two", available=0, revision=2))
    assert decide(see(obj, *sets)) == Decision(requeue_after_seconds=11)
    obj["status"]["conditions"][1] = progressing("True", "ReplicaSetUpdated", "", ago(601), ago(601))
    told = status_of(decide(see(obj, *sets)))["conditions"]
    text = 'ReplicaSet "new" has timed out progressing.'
    assert told[-1] == progressing("False", "ProgressDeadlineExceeded", text)


def test_a_replica_set_that_cannot_be_created_is_told_before_the_next_try() -> None:
    refusal = Forbidden("no room")
    decision = decide(see(deployment(2), failure=Failure(refusal)))
    told, tries = decision.actions
    assert isinstance(told, Write)
    assert isinstance(tries, Create)
    (condition, *_) = told.replace["status"]["conditions"]
    assert (condition["status"], condition["reason"]) == ("False", "ReplicaSetCreateError")
    assert condition["message"].endswith("no room")


def test_a_name_that_is_somebody_elses_leads_to_another_hash() -> None:
    new = deployment(2)
    decision = decide(see(new, occupied=True))
    assert decision.actions == ()
    assert status_of(decision)["collisionCount"] == 1
    again = deployment(2, status=status_of(decision))
    assert planned_name(again) != planned_name(new)


@pytest.mark.proves("Deployment.spec.selector")
def test_orphans_are_adopted_and_strangers_released_before_anything_else() -> None:
    orphan, stranger = child("orphan", 1), child("stranger", 1)
    del orphan["metadata"]["ownerReferences"]
    stranger["metadata"]["labels"] = {}
    assert decide(see(settled(), orphan, stranger)).actions == (
        Adopt(REPLICA_SETS, "w", "orphan", "uid-orphan", "7", owner_reference(deployment())),
        Disown(REPLICA_SETS, "w", "stranger", "uid-stranger", ("uid-x",)),
    )


@pytest.mark.proves("Deployment.spec.revisionHistoryLimit")
def test_old_empty_replica_sets_beyond_the_history_go_when_the_rollout_is_complete() -> None:
    sets = (child("a", 0, "a", revision=1), child("b", 0, "b", revision=2), child("rs", 2, revision=3))
    obj = settled(revisionHistoryLimit=1)
    obj["metadata"]["annotations"] = {REVISION: "3"}
    assert decide(see(obj, *sets)).actions == (Delete(REPLICA_SETS, "w", "a", "uid-a", "7"),)


def test_a_failure_of_the_replica_set_is_the_deployments_too() -> None:
    failing = child("rs", 2, available=1)
    failed = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "lastTransitionTime": EARLIER}
    failing["status"]["conditions"] = [failed]
    told = status_of(decide(see(settled(), failing)))["conditions"]
    assert told[-1] == {**failed, "lastUpdateTime": EARLIER}


def test_a_deployment_being_deleted_only_tells_its_status() -> None:
    going = changed(settled())
    going["metadata"]["deletionTimestamp"] = NOW_TEXT
    assert decide(see(going, child("rs", 2))).actions == ()
