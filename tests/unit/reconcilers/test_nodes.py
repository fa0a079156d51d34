"""Node lifecycle and taint eviction: decisions compared whole."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from api.fencing import is_fenced
from api.objects import Object, format_time
from controller.reconcilers import node_lifecycle, taint_eviction
from controller.reconcilers.actions import Delete, Note, Together, Write
from controller.reconcilers.loop import NOTHING, Decision
from controller.reconcilers.node_lifecycle import HEARTBEATS, NODES, PODS, Health
from controller.reconcilers.taint_eviction import PlacedPod
from controller.reconcilers.tolerations import Taint, Toleration, read_tolerations, stay_until, without_defaulted
from tests.unit.reconcilers.facts import EARLIER, NOW, NOW_TEXT, condition, node, pod_object

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
DEFAULTED = [
    {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    for key in (NOT_READY, UNREACHABLE)
]


def taint(key: str, effect: str) -> Object:
    return {"key": key, "effect": effect, "timeAdded": NOW_TEXT}


LOST = [taint(UNREACHABLE, "NoSchedule"), taint(UNREACHABLE, "NoExecute")]


def see(obj: Object, health: Health = Health.ALIVE, **more: Any) -> node_lifecycle.Observed:
    return node_lifecycle.Observed(obj, health, more.pop("braked", False), NOW, **more)


def node_write(patch: Object, subresource: str = "") -> Write:
    return Write(NODES, "", "n", "uid-n", merge=patch, subresource=subresource, version="7")


def unknown(type: str, known: bool = True) -> Object:
    if known:
        message, reason = "Kubelet stopped posting node status.", "NodeStatusUnknown"
        return {**condition(type, "Unknown", reason, NOW_TEXT), "message": message}
    return {
        "type": type,
        "status": "Unknown",
        "lastHeartbeatTime": EARLIER,
        "lastTransitionTime": NOW_TEXT,
        "reason": "NodeStatusNeverUpdated",
        "message": "Kubelet never posted node status.",
    }


UNKNOWN = [unknown("Ready"), *(unknown(type, False) for type in ("MemoryPressure", "DiskPressure", "PIDPressure"))]


def test_a_ready_node_is_left_alone() -> None:
    assert node_lifecycle.decide(see(node())) == NOTHING


def test_a_silent_node_is_first_closed_for_new_pods() -> None:
    assert node_lifecycle.decide(see(node(), Health.SILENT)) == Decision((node_write({"spec": {"taints": LOST}}),))


def test_then_its_conditions_become_unknown() -> None:
    tainted = node(taints=LOST)
    note = Note(tainted, "Normal", "NodeNotReady", "Node n status is now: NodeNotReady")
    written = node_write({"status": {"conditions": UNKNOWN}}, "status")
    assert node_lifecycle.decide(see(tainted, Health.SILENT)) == Decision((written, note))


def test_then_its_pods_stop_being_ready() -> None:
    dead = node(taints=LOST)
    dead["status"]["conditions"] = UNKNOWN
    pod = pod_object("p")
    seen = see(dead, Health.SILENT, ready_pods=(pod,))
    assert node_lifecycle.decide(seen) == Decision(requeue_after_seconds=1)  # most are evicted by then
    later = NOW + timedelta(seconds=1)
    (together,) = node_lifecycle.decide(replace(seen, now=later)).actions
    assert together == Together(
        (
            Write(
                PODS,
                "w",
                "p",
                "uid-p",
                merge={"status": {"conditions": [condition("Ready", "False", since=format_time(later))]}},
                subresource="status",
                version="3",
                note=Note(pod, "Warning", "NodeNotReady", "Node is not ready"),
            ),
        )
    )
    assert node_lifecycle.decide(see(dead, Health.SILENT)) == NOTHING


def test_the_brake_keeps_the_evicting_taint_and_the_pods_readiness() -> None:
    braked = see(node(), Health.SILENT, braked=True, ready_pods=(pod_object("p"),), requeue_after_seconds=1.0)
    assert node_lifecycle.decide(braked) == Decision((node_write({"spec": {"taints": LOST[:1]}}),), None, 1.0)
    dead = node(taints=LOST[:1])
    dead["status"]["conditions"] = UNKNOWN
    assert node_lifecycle.decide(replace(braked, node=dead)) == Decision(requeue_after_seconds=1.0)


def test_a_node_that_is_back_and_reports_ready_loses_our_taints_and_keeps_others() -> None:
    own = {"key": "team", "value": "a", "effect": "NoSchedule"}
    back = node(taints=[own, *LOST])
    assert node_lifecycle.decide(see(back)) == Decision((node_write({"spec": {"taints": [own]}}),))


def test_a_node_that_is_back_but_has_not_reported_stays_closed() -> None:
    back = node(ready="Unknown", taints=LOST)
    assert node_lifecycle.decide(see(back)) == NOTHING


def test_a_node_that_is_heard_again_and_has_not_reported_is_not_evicted() -> None:
    held = node(ready="Unknown", taints=LOST[:1])  # the brake held while it was silent
    assert node_lifecycle.decide(see(held)) == NOTHING


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (node(ready="False"), [taint(NOT_READY, "NoSchedule"), taint(NOT_READY, "NoExecute")]),
        (node(spec={"unschedulable": True}), [taint("node.kubernetes.io/unschedulable", "NoSchedule")]),
    ],
)
def test_taints_follow_what_the_node_reports(obj: Object, expected: list[Object]) -> None:
    assert node_lifecycle.decide(see(obj)).actions == (node_write({"spec": {"taints": expected}}),)


def test_a_node_under_pressure_gets_no_new_pods() -> None:
    pressed = node()
    pressed["status"]["conditions"].append(condition("MemoryPressure", "True"))
    wanted = [taint("node.kubernetes.io/memory-pressure", "NoSchedule")]
    assert node_lifecycle.decide(see(pressed)).actions == (node_write({"spec": {"taints": wanted}}),)


def test_the_taint_of_admission_stays_until_the_first_report() -> None:
    assert node_lifecycle.decide(see(node(ready=None, taints=[taint(NOT_READY, "NoSchedule")]))) == NOTHING


def test_a_first_heartbeat_is_recorded_on_the_node() -> None:
    patch = {"metadata": {"annotations": {HEARTBEATS: "true"}}}
    assert node_lifecycle.decide(see(node(), new_heartbeat=True)) == Decision((node_write(patch),))


def lost(*pods: PlacedPod, **more: Any) -> taint_eviction.Observed:
    taints = (Taint(UNREACHABLE, "", "NoExecute", NOW.timestamp()),)
    return taint_eviction.Observed("n", taints, pods, NOW, **{"lost": True, **more})


def evicted(pod: Object, *, forced: bool) -> tuple[Together, Together]:
    disrupted = {
        "type": "DisruptionTarget",
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": NOW_TEXT,
        "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint",
    }
    patch: Object = {"conditions": [*pod["status"]["conditions"], disrupted]}
    if forced:
        patch["phase"] = "Failed"
    told = Write(PODS, "w", "p", "uid-p", merge={"status": patch}, subresource="status")
    note = Note(pod, "Normal", "TaintManagerEviction", "Marking for deletion Pod w/p")
    return Together((told,)), Together(
        (Delete(PODS, "w", "p", "uid-p", grace_seconds=0 if forced else None, note=note),)
    )


def test_ordinary_pods_of_a_lost_node_are_finished_by_force_at_once() -> None:
    pod = pod_object("p")
    assert taint_eviction.decide(lost(PlacedPod(pod, ()))) == Decision(evicted(pod, forced=True))


def test_also_those_whose_deletion_the_node_will_never_confirm() -> None:
    pod = pod_object("p", metadata={"deletionTimestamp": NOW_TEXT})
    assert taint_eviction.decide(lost(PlacedPod(pod, ()))) == Decision(evicted(pod, forced=True))


def test_toleration_seconds_that_a_user_asked_for_count() -> None:
    asked = Toleration(UNREACHABLE, "Exists", "", "NoExecute", 60)
    pod = PlacedPod(pod_object("p"), (asked,))
    assert taint_eviction.decide(lost(pod)) == Decision(requeue_after_seconds=60)
    assert taint_eviction.decide(lost(PlacedPod(pod.pod, (replace(asked, seconds=None),)))) == NOTHING


def test_fenced_pods_stay_until_a_person_says_that_the_node_is_lost() -> None:
    pod = PlacedPod(pod_object("p"), (), fenced=True)
    assert taint_eviction.decide(lost(pod)) == NOTHING
    assert taint_eviction.decide(lost(pod, out_of_service=True)) == Decision(evicted(pod.pod, forced=True))


def test_nothing_is_evicted_while_the_brake_holds() -> None:
    assert taint_eviction.decide(lost(PlacedPod(pod_object("p"), ()), braked=True)) == Decision(requeue_after_seconds=1)


def test_on_a_living_node_a_tainted_out_pod_goes_gracefully() -> None:
    pod = pod_object("p")
    assert taint_eviction.decide(lost(PlacedPod(pod, ()), lost=False)) == Decision(evicted(pod, forced=False))
    going = pod_object("p", metadata={"deletionTimestamp": NOW_TEXT})
    assert taint_eviction.decide(lost(PlacedPod(going, ()), lost=False)) == NOTHING


@pytest.mark.proves("Pod.spec.tolerations.tolerationSeconds")
@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        ({"operator": "Exists"}, None),
        ({"key": "k", "operator": "Exists", "tolerationSeconds": 5}, 105.0),
        ({"key": "k", "value": "v", "effect": "NoExecute"}, None),
        ({"key": "k", "value": "other"}, 0.0),
        ({"key": "k", "operator": "Exists", "effect": "NoSchedule"}, 0.0),
        ({"key": "k", "operator": "Exists", "tolerationSeconds": -1}, 100.0),
    ],
)
def test_how_long_a_pod_may_stay(toleration: Object, expected: float | None) -> None:
    assert stay_until([Taint("k", "v", "NoExecute", 100.0)], read_tolerations([toleration])) == expected


def test_default_tolerations_are_told_from_those_a_user_wrote() -> None:
    tolerations = read_tolerations(DEFAULTED)
    plain = pod_object("p", metadata={"managedFields": [{"fieldsV1": {"f:spec": {"f:containers": {}}}}]})
    written = pod_object("p", metadata={"managedFields": [{"fieldsV1": {"f:spec": {"f:tolerations": {}}}}]})
    assert without_defaulted(plain, tolerations, None) == ()
    assert without_defaulted(written, tolerations, None) == tolerations
    assert without_defaulted(written, tolerations, {"spec": {}}) == ()
    assert without_defaulted(plain, tolerations, {"spec": {"tolerations": DEFAULTED[:1]}}) == tolerations[:1]


def test_what_makes_a_pod_fenced() -> None:
    owner = {"kind": "StatefulSet", "controller": True, "name": "s", "uid": "u"}
    claim = {"name": "v", "persistentVolumeClaim": {"claimName": "c"}}
    assert is_fenced(pod_object("p", metadata={"labels": {"wherry/fenced": "true"}}))
    assert is_fenced(pod_object("p", metadata={"ownerReferences": [owner]}))
    assert is_fenced(pod_object("p", spec={"volumes": [claim]}))
    assert not is_fenced(pod_object("p"))
