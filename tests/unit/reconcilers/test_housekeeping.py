"""Garbage, namespaces, what namespaces have, pod networks, old pods and events: decisions compared whole."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from api import kinds
from api.errors import Forbidden
from api.objects import Object
from controller.reconcilers import event_ttl, garbage, namespace, namespace_defaults, node_ipam, pod_gc
from controller.reconcilers.actions import (
    Create,
    Delete,
    DeleteAll,
    Disown,
    DropFinalizer,
    Note,
    Together,
    Write,
)
from controller.reconcilers.garbage import Dependent, OwnerState
from controller.reconcilers.loop import NOTHING, Decision, Failure
from controller.reconcilers.namespace import NAMESPACES, Content
from controller.reconcilers.node_lifecycle import NODES, PODS
from controller.store.types import Key
from tests.unit.reconcilers.facts import EARLIER, NOW, NOW_TEXT, ago, meta, node, pod_object

MAPS = kinds.by_resource("", "configmaps")


def garbage_of(owners: dict[str, OwnerState], *dependents: Dependent, **metadata: Any) -> garbage.Observed:
    return garbage.Observed(MAPS, {"metadata": meta("m", **metadata)}, owners, dependents)


def dependent(*, blocks: bool = True, going: bool = False) -> Dependent:
    return Dependent(MAPS, "w", "d", "uid-d", blocks, going)


def delete(propagation: str = "Background") -> Delete:
    return Delete(MAPS, "w", "m", "uid-m", propagation=propagation)


def test_an_object_goes_when_its_last_owner_is_gone() -> None:
    assert garbage.decide(garbage_of({"a": OwnerState.ABSENT})) == Decision((delete(),))
    assert garbage.decide(garbage_of({"a": OwnerState.SOLID})) == NOTHING
    assert garbage.decide(garbage_of({})) == NOTHING


def test_a_living_owner_keeps_it_and_the_others_lose_their_reference() -> None:
    decision = garbage.decide(garbage_of({"a": OwnerState.SOLID, "b": OwnerState.ABSENT, "c": OwnerState.WAITING}))
    assert decision == Decision((Disown(MAPS, "w", "m", "uid-m", ("b", "c")),))


def test_an_owner_that_waits_has_its_dependents_deleted_in_the_foreground_where_they_have_dependents_too() -> None:
    waiting = {"a": OwnerState.WAITING}
    assert garbage.decide(garbage_of(waiting)) == Decision((delete(),))
    assert garbage.decide(garbage_of(waiting, dependent())) == Decision((delete("Foreground"),))


def test_a_circle_of_foreground_deletions_is_opened() -> None:
    decision = garbage.decide(garbage_of({"a": OwnerState.WAITING}, dependent(going=True)))
    assert decision == Decision((Disown(MAPS, "w", "m", "uid-m", ("a",), unblock=True), delete("Foreground")))


def test_a_foreground_owner_goes_when_nothing_blocks_it_any_more() -> None:
    going = {"deletionTimestamp": NOW_TEXT, "finalizers": ["foregroundDeletion"]}
    assert garbage.decide(garbage_of({}, dependent(), **going)) == NOTHING
    drop = DropFinalizer(MAPS, "w", "m", "uid-m", "foregroundDeletion")
    assert garbage.decide(garbage_of({}, dependent(blocks=False), **going)) == Decision((drop,))


def test_an_orphaning_owner_first_lets_its_dependents_go() -> None:
    going = {"deletionTimestamp": NOW_TEXT, "finalizers": ["orphan"]}
    release = Together((Disown(MAPS, "w", "d", "uid-d", ("uid-m",)),))
    drop = DropFinalizer(MAPS, "w", "m", "uid-m", "orphan")
    assert garbage.decide(garbage_of({}, dependent(), **going)) == Decision((release, drop))


def going_namespace(**status: Any) -> Object:
    metadata = {"name": "w", "uid": "uid-w", "deletionTimestamp": NOW_TEXT}
    return {"metadata": metadata, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Terminating", **status}}


def conditions_of(decision: Decision) -> dict[str, tuple[str, str, str]]:
    write = decision.actions[0]
    assert isinstance(write, Write)
    told = write.replace["status"]["conditions"]
    return {one["type"]: (one["status"], one["reason"], one["message"]) for one in told}


def test_a_namespace_loses_its_pods_before_everything_else() -> None:
    contents = (Content(PODS, 2, 2, {}), Content(MAPS, 1, 1, {"mine": 1}))
    decision = namespace.decide(namespace.Observed(going_namespace(), contents, NOW))
    assert decision.actions[1:] == (Together((DeleteAll(PODS, "w"),)),)
    assert decision.requeue_after_seconds == 5
    told = conditions_of(decision)
    remain = "Some resources are remaining: configmaps. has 1 resource instances, pods. has 2 resource instances"
    assert told["NamespaceContentRemaining"] == ("True", "SomeResourcesRemain", remain)
    finalizers = "Some content in the namespace has finalizers remaining: mine in 1 resource instances"
    assert told["NamespaceFinalizersRemaining"] == ("True", "SomeFinalizersRemain", finalizers)


def test_what_already_goes_is_not_deleted_again() -> None:
    contents = (Content(PODS, 2, 0, {}), Content(MAPS, 1, 1, {}))
    assert len(namespace.decide(namespace.Observed(going_namespace(), contents, NOW)).actions) == 1


def test_an_empty_namespace_is_finalized() -> None:
    decision = namespace.decide(namespace.Observed(going_namespace(), (Content(PODS, 0, 0, {}),), NOW))
    finalize = Write(NAMESPACES, "", "w", "uid-w", replace={"spec": {"finalizers": []}}, subresource="finalize")
    assert decision.actions[1:] == (finalize,)
    assert conditions_of(decision)["NamespaceContentRemaining"][1] == "ContentRemoved"


def test_a_refused_deletion_shows_in_the_namespaces_conditions() -> None:
    seen = namespace.Observed(going_namespace(), (Content(MAPS, 1, 1, {}),), NOW, Failure(Forbidden("no")))
    told = conditions_of(namespace.decide(seen))["NamespaceDeletionContentFailure"]
    assert told == ("True", "ContentDeletionFailed", "Failed to delete all resource types: no")


def test_a_namespace_that_stays_is_left_alone() -> None:
    assert namespace.decide(namespace.Observed({"metadata": {"name": "w"}}, (), NOW)) == NOTHING


def test_every_namespace_has_a_default_account_and_the_ca() -> None:
    new = namespace_defaults.Observed({"metadata": {"name": "w"}}, None)
    (account,) = namespace_defaults.decide_account(new).actions
    (published,) = namespace_defaults.decide_root_ca(new, "CA").actions
    assert isinstance(account, Create)
    assert isinstance(published, Create)
    assert account.obj["metadata"] == {"name": "default", "namespace": "w"}
    assert published.obj["data"] == {"ca.crt": "CA"}
    going = namespace_defaults.Observed(going_namespace(), None)
    assert namespace_defaults.decide_account(going) == NOTHING
    assert namespace_defaults.decide_root_ca(going, "CA") == NOTHING


def test_a_ca_that_somebody_changed_is_put_right() -> None:
    present = {"metadata": meta("kube-root-ca.crt"), "data": {"ca.crt": "other"}}
    (write,) = namespace_defaults.decide_root_ca(
        namespace_defaults.Observed({"metadata": {"name": "w"}}, present), "CA"
    ).actions
    assert isinstance(write, Write)
    assert write.replace == {"data": {"ca.crt": "CA"}}


def test_each_node_gets_the_lowest_free_range_and_nobody_gets_one_twice() -> None:
    used = frozenset(["10.244.0.0/24", "10.244.2.0/24"])
    seen = node_ipam.Observed(ip_network("10.244.0.0/22"), 24, used, (node("a"), node("b"), node("c")))
    (together,) = node_ipam.decide(seen).actions

    def given(name: str, cidr: str) -> Write:
        return Write(NODES, "", name, f"uid-{name}", merge={"spec": {"podCIDR": cidr, "podCIDRs": [cidr]}})

    text = "Node c status is now: CIDRNotAvailable"
    told = Note(node("c"), "Normal", "CIDRNotAvailable", text)
    assert together == Together((given("a", "10.244.1.0/24"), given("b", "10.244.3.0/24"), told))


def test_an_orphan_that_waits_for_its_finalizers_is_not_deleted_again_and_again() -> None:
    gone = {"deletionTimestamp": NOW_TEXT, "deletionGracePeriodSeconds": 0, "finalizers": ["example.com/x"]}
    waiting = pod_object("p", metadata=gone, status={"phase": "Failed"})
    assert pod_gc.decide(pod_gc.Observed((waiting,), (), NOW)).actions == ()


def test_pods_of_nodes_that_are_gone_are_failed_and_removed_finished_ones_just_removed() -> None:
    decision = pod_gc.decide(pod_gc.Observed((pod_object("p"),), (pod_object("old", status={"phase": "Failed"}),), NOW))
    failed, removed = decision.actions
    assert isinstance(failed, Together)
    assert isinstance(removed, Together)
    (write,) = failed.actions
    assert isinstance(write, Write)
    assert write.merge["status"]["phase"] == "Failed"
    assert write.merge["status"]["conditions"][-1]["reason"] == "DeletionByPodGC"
    assert removed.actions == tuple(Delete(PODS, "w", name, f"uid-{name}", grace_seconds=0) for name in ("p", "old"))


def test_events_go_an_hour_after_they_were_last_told() -> None:
    old, fresh = Key("", "events", "w", "old"), Key("", "events", "w", "fresh")
    told = {old: (NOW.timestamp() - 3601, "u1"), fresh: (NOW.timestamp() - 3599, "u2")}
    decision = event_ttl.decide(event_ttl.Observed(told, 3600, NOW))
    expired = Together((Delete(event_ttl.EVENTS, "w", "old", "u1"),))
    assert decision == Decision((expired,), requeue_after_seconds=60)


def test_an_event_was_last_told_at_the_latest_time_it_names() -> None:
    event = {"metadata": {"creationTimestamp": EARLIER}, "firstTimestamp": ago(50), "lastTimestamp": ago(10)}
    assert event_ttl.last_told(event) == NOW.timestamp() - 10
    assert (
        event_ttl.last_told({"metadata": {"creationTimestamp": ago(7)}, "lastTimestamp": None}) == NOW.timestamp() - 7
    )
