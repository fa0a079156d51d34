"""What a DELETE does to an object, step by step."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from api import kinds
from api.errors import Conflict, Invalid
from api.objects import Object, clone
from controller.registry.deletion_plan import (
    FOREGROUND,
    ORPHAN,
    Step,
    check_options,
    check_preconditions,
    is_released,
    plan_definition,
    plan_deletion,
    plan_namespace,
)
from controller.registry.strategies import Strategy, strategy_of
from controller.registry.types import DeleteOptions, Target

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PODS = strategy_of(kinds.by_resource("", "pods"))
PLAIN = Strategy()


def a_map(**metadata: Any) -> Object:
    return {"metadata": {"name": "x", "uid": "u", **metadata}}


def a_pod(node: str = "n", **metadata: Any) -> Object:
    spec = {"terminationGracePeriodSeconds": 30, "nodeName": node}
    return {"metadata": {"name": "x", "uid": "u", "generation": 1, **metadata}, "spec": spec, "status": {}}


def test_an_object_that_nothing_holds_is_removed_at_once() -> None:
    plan = plan_deletion(PLAIN, a_map(), DeleteOptions(), NOW)
    assert plan.step is Step.REMOVE


def test_finalizers_keep_an_object_marked_until_they_are_gone() -> None:
    plan = plan_deletion(PLAIN, a_map(finalizers=["ex.io/f"]), DeleteOptions(), NOW)
    assert plan.step is Step.MARK
    assert plan.obj["metadata"]["deletionTimestamp"] == "2026-01-02T03:04:05Z"
    assert plan.obj["metadata"]["deletionGracePeriodSeconds"] == 0
    again = plan_deletion(PLAIN, clone(plan.obj), DeleteOptions(), NOW)
    assert again.step is Step.NOTHING
    assert again.obj == plan.obj


def test_foreground_keeps_the_owner_until_the_collector_took_its_dependents() -> None:
    plan = plan_deletion(PLAIN, a_map(), DeleteOptions(propagation="Foreground"), NOW)
    assert plan.step is Step.MARK
    assert plan.obj["metadata"]["finalizers"] == [FOREGROUND]


def test_orphan_keeps_the_owner_until_its_dependents_are_set_free() -> None:
    for options in (DeleteOptions(propagation="Orphan"), DeleteOptions(orphan_dependents=True)):
        plan = plan_deletion(PLAIN, a_map(), options, NOW)
        assert plan.step is Step.MARK
        assert plan.obj["metadata"]["finalizers"] == [ORPHAN]


def test_kinds_older_than_the_collector_orphan_unless_told_otherwise() -> None:
    jobs = strategy_of(kinds.by_resource("batch", "jobs"))
    assert plan_deletion(jobs, a_map(), DeleteOptions(), NOW).obj["metadata"]["finalizers"] == [ORPHAN]
    assert plan_deletion(jobs, a_map(), DeleteOptions(propagation="Background"), NOW).step is Step.REMOVE
    held = plan_deletion(jobs, a_map(finalizers=[FOREGROUND]), DeleteOptions(), NOW)
    assert held.obj["metadata"]["finalizers"] == [FOREGROUND]


def test_a_later_policy_replaces_the_earlier_finalizer() -> None:
    first = plan_deletion(PLAIN, a_map(finalizers=["ex.io/f"]), DeleteOptions(propagation="Foreground"), NOW)
    then = plan_deletion(PLAIN, clone(first.obj), DeleteOptions(propagation="Background"), NOW)
    assert then.step is Step.MARK
    assert then.obj["metadata"]["finalizers"] == ["ex.io/f"]


def test_background_removes_an_owner_at_once() -> None:
    plan = plan_deletion(PLAIN, a_map(finalizers=[FOREGROUND]), DeleteOptions(propagation="Background"), NOW)
    assert plan.step is Step.REMOVE


def test_events_know_no_garbage_collection() -> None:
    events = strategy_of(kinds.by_resource("", "events"))
    assert plan_deletion(events, a_map(), DeleteOptions(propagation="Foreground"), NOW).step is Step.REMOVE


def test_a_pod_on_a_node_is_marked_with_its_own_grace_period_and_a_new_generation() -> None:
    plan = plan_deletion(PODS, a_pod(), DeleteOptions(), NOW)
    assert plan.step is Step.MARK
    assert plan.obj["metadata"] == {
        "name": "x",
        "uid": "u",
        "generation": 2,
        "deletionTimestamp": "2026-01-02T03:04:35Z",
        "deletionGracePeriodSeconds": 30,
    }


def test_an_unscheduled_pod_dies_at_once() -> None:
    plan = plan_deletion(PODS, a_pod(node=""), DeleteOptions(), NOW)
    assert plan.step is Step.REMOVE
    assert plan.obj["metadata"]["deletionGracePeriodSeconds"] == 0


def test_a_second_delete_can_only_bring_the_end_nearer() -> None:
    marked = plan_deletion(PODS, a_pod(), DeleteOptions(), NOW).obj
    longer = plan_deletion(PODS, clone(marked), DeleteOptions(grace_seconds=60), NOW)
    assert (longer.step, longer.obj) == (Step.NOTHING, marked)
    silent = plan_deletion(PODS, clone(marked), DeleteOptions(), NOW)
    assert silent.step is Step.NOTHING
    shorter = plan_deletion(PODS, clone(marked), DeleteOptions(grace_seconds=5), NOW)
    assert shorter.step is Step.MARK
    assert shorter.obj["metadata"]["deletionTimestamp"] == "2026-01-02T03:04:10Z"
    assert shorter.obj["metadata"]["deletionGracePeriodSeconds"] == 5
    assert shorter.obj["metadata"]["generation"] == 2


def test_grace_zero_removes_a_pod_unless_a_finalizer_holds_it() -> None:
    now = DeleteOptions(grace_seconds=0)
    assert plan_deletion(PODS, a_pod(), now, NOW).step is Step.REMOVE
    held = plan_deletion(PODS, a_pod(finalizers=["ex.io/f"]), now, NOW)
    assert held.step is Step.MARK
    assert held.obj["metadata"]["deletionGracePeriodSeconds"] == 0


def test_a_namespace_turns_terminating_and_goes_when_its_finalizers_are_gone() -> None:
    namespace: Object = {**a_map(), "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
    first = plan_namespace(namespace, DeleteOptions(), NOW)
    assert first.step is Step.MARK
    assert first.obj["status"]["phase"] == "Terminating"
    assert "deletionGracePeriodSeconds" not in first.obj["metadata"]
    assert plan_namespace(clone(first.obj), DeleteOptions(), NOW).step is Step.NOTHING
    emptied = {**clone(first.obj), "spec": {}}
    assert plan_namespace(emptied, DeleteOptions(), NOW).step is Step.REMOVE


def test_a_definition_goes_after_its_objects() -> None:
    known = [{"type": "Terminating", "status": "False"}, {"type": "Established", "status": "True"}]
    first = plan_definition({**a_map(finalizers=["ex.io/f"]), "status": {"conditions": known}}, DeleteOptions(), NOW)
    assert first.step is Step.MARK
    assert first.obj["metadata"]["finalizers"] == ["ex.io/f", "customresourcecleanup.apiextensions.k8s.io"]
    assert first.obj["metadata"]["deletionTimestamp"] == "2026-01-02T03:04:05Z"
    established, terminating = first.obj["status"]["conditions"]
    assert established == known[1]
    assert terminating == {
        "type": "Terminating",
        "status": "True",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
        "reason": "InstanceDeletionPending",
        "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
    }
    assert plan_definition(clone(first.obj), DeleteOptions(), NOW).step is Step.NOTHING
    emptied = clone(first.obj)
    emptied["metadata"]["finalizers"] = []
    assert plan_definition(emptied, DeleteOptions(), NOW).step is Step.REMOVE
    held = plan_definition(a_map(), DeleteOptions(propagation="Orphan"), NOW).obj["metadata"]["finalizers"]
    assert held == [ORPHAN, "customresourcecleanup.apiextensions.k8s.io"]


def test_the_last_finalizer_releases_only_what_has_no_grace_left() -> None:
    maps = Target(kinds.by_resource("", "configmaps"), "n", "x")
    deleted = {"deletionTimestamp": "2026-01-02T03:04:05Z"}
    assert not is_released(maps, a_map())
    assert not is_released(maps, a_map(**deleted, finalizers=["ex.io/f"]))
    assert is_released(maps, a_map(**deleted, deletionGracePeriodSeconds=0))
    assert not is_released(maps, a_map(**deleted, deletionGracePeriodSeconds=30))
    namespaces = Target(kinds.by_resource("", "namespaces"), "", "x")
    assert not is_released(namespaces, {**a_map(**deleted), "spec": {"finalizers": ["kubernetes"]}})
    assert is_released(namespaces, {**a_map(**deleted), "spec": {}})


def test_preconditions_compare_uid_and_version() -> None:
    target = Target(kinds.by_resource("apps", "deployments"), "n", "x")
    obj = a_map(resourceVersion="7")
    check_preconditions(target, DeleteOptions(uid="u", resource_version="7"), obj)
    with pytest.raises(Conflict) as refused:
        check_preconditions(target, DeleteOptions(uid="other"), obj)
    assert refused.value.message == (
        'Operation cannot be fulfilled on Deployment.apps "x": the UID in the precondition (other) does not match '
        "the UID in record (u). The object might have been deleted and then recreated"
    )
    with pytest.raises(Conflict):
        check_preconditions(target, DeleteOptions(resource_version="6"), obj)


def test_an_unknown_propagation_policy_is_refused_by_name() -> None:
    with pytest.raises(Invalid) as refused:
        check_options(DeleteOptions(propagation="Foo"))
    assert refused.value.message == (
        'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "Foo": '
        'supported values: "Foreground", "Background", "Orphan", "nil"'
    )
    with pytest.raises(Invalid):
        check_options(DeleteOptions(propagation="Orphan", orphan_dependents=True))
