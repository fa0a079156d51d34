"""DaemonSet decisions: which nodes, replacement and surge, ended pods, status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from api.objects import Object, clone
from controller.reconcilers.actions import Action, Create, Delete, Note, Together, Write
from controller.reconcilers.daemonset import DAEMON_SETS, Observed, decide
from controller.reconcilers.daemonset_pods import REVISION_LABEL, NodeFacts, target_node
from controller.reconcilers.history import creation
from controller.reconcilers.loop import NOTHING, Decision
from controller.reconcilers.views import Owner, PodFacts
from tests.unit.reconcilers.facts import NOW, NOW_TEXT, TEMPLATE, meta, pod

OWNER = Owner("apps/v1", "DaemonSet", "x", "uid-x")
NODES = tuple(NodeFacts(name, {"kubernetes.io/hostname": name}, ()) for name in ("a", "b", "c"))
UNREADY: Mapping[str, Any] = {"ready": False}


def daemon_set(
    *, image: str = "one", status: Object | None = None, pod_spec: Object | None = None, **spec: Any
) -> Object:
    template = clone(TEMPLATE)
    template["spec"] |= pod_spec or {}
    template["spec"]["containers"][0]["image"] = image
    rolling = {"maxSurge": 0, "maxUnavailable": 1}
    body = {
        "selector": {"matchLabels": {"app": "x"}},
        "template": template,
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
        "revisionHistoryLimit": 10,
        **spec,
    }
    whole = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": meta("x"), "spec": body}
    return {**whole, "status": status if status is not None else {}}


def revision(number: int, obj: Object) -> Object:
    created = creation(obj, (), REVISION_LABEL).obj
    created["metadata"] |= {"uid": f"uid-{number}", "resourceVersion": "5"}
    return {**created, "revision": number}


def hash_of(image: str) -> str:
    text: str = revision(1, daemon_set(image=image))["metadata"]["labels"][REVISION_LABEL]
    return text


def daemon(node: str, image: str = "one", name: str = "", **facts: Any) -> PodFacts:
    labels = {"app": "x", REVISION_LABEL: hash_of(image)}
    return pod(name or f"{node}-{image}", **{"labels": labels, "owner": OWNER, "node": node, **facts})


def look(obj: Object, *pods: PodFacts, nodes: tuple[NodeFacts, ...] = NODES, **more: Any) -> Decision:
    return decide(Observed(obj, pods, (revision(2, obj),), nodes, NOW, **more))


def flat(decision: Decision) -> list[Action]:
    return [a for one in decision.actions for a in (one.actions if isinstance(one, Together) else (one,))]


def targets(decision: Decision) -> list[str]:
    return [target_node(one.obj) for one in flat(decision) if isinstance(one, Create)]


def names(decision: Decision) -> list[str]:
    return [one.obj["metadata"]["name"] for one in flat(decision) if isinstance(one, Create)]


def deleted(decision: Decision) -> list[str]:
    return [one.name for one in flat(decision) if isinstance(one, Delete)]


def status_of(decision: Decision) -> Object:
    (write,) = [one for one in (*decision.actions, decision.status) if isinstance(one, Write)]
    assert write.kind == DAEMON_SETS
    status: Object = write.replace["status"]
    return status


def rolling(**limits: Any) -> Object:
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1, **limits}}


@pytest.mark.proves("DaemonSet.spec.template")
def test_every_node_gets_one_pod_that_only_it_can_run() -> None:
    decision = look(daemon_set(), daemon("b"))
    assert targets(decision) == ["a", "c"]
    created = next(one for one in flat(decision) if isinstance(one, Create)).obj
    assert created["metadata"]["labels"] == {"app": "x", REVISION_LABEL: hash_of("one")}
    tolerated = {(one["key"].split("/")[1], one["effect"]) for one in created["spec"]["tolerations"]}
    assert tolerated == {
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    }


def test_names_are_the_nodes_own_and_former_ones_are_not_given_again() -> None:
    first = names(look(daemon_set()))
    assert len(set(first)) == 3
    assert names(look(daemon_set(), nodes=NODES[1:])) == first[1:]
    assert not set(names(look(daemon_set(), gone=frozenset(first)))) & set(first)


@pytest.mark.parametrize(
    ("spec", "nodes"),
    [
        ({"nodeSelector": {"kubernetes.io/hostname": "b"}}, ["b"]),
        ({"nodeName": "c"}, ["c"]),
        ({"nodeSelector": {"no": "such"}}, []),
    ],
)
def test_selectors_choose_the_nodes(spec: Object, nodes: list[str]) -> None:
    assert targets(look(daemon_set(pod_spec=spec))) == nodes


@pytest.mark.parametrize(
    ("key", "effect", "starts", "stays"),
    [
        ("mine", "NoSchedule", False, True),
        ("mine", "NoExecute", False, False),
        ("mine", "PreferNoSchedule", True, True),
        ("node.kubernetes.io/unschedulable", "NoSchedule", True, True),
        ("node.kubernetes.io/unreachable", "NoExecute", True, True),
        ("node.kubernetes.io/network-unavailable", "NoSchedule", False, True),
    ],
)
def test_taints_keep_pods_away_or_drive_them_out(key: str, effect: str, starts: bool, stays: bool) -> None:
    tainted = (NodeFacts("a", {}, ({"key": key, "effect": effect},)),)
    assert targets(look(daemon_set(), nodes=tainted)) == (["a"] if starts else [])
    assert deleted(look(daemon_set(), daemon("a"), nodes=tainted)) == ([] if stays else ["a-one"])


def test_on_the_hosts_network_a_node_without_network_is_good_enough() -> None:
    tainted = (NodeFacts("a", {}, ({"key": "node.kubernetes.io/network-unavailable", "effect": "NoSchedule"},)),)
    assert targets(look(daemon_set(pod_spec={"hostNetwork": True}), nodes=tainted)) == ["a"]


@pytest.mark.proves("DaemonSet.spec.selector")
def test_of_several_pods_on_a_node_the_oldest_stays_and_one_for_a_node_that_is_gone_goes() -> None:
    pods = (daemon("a", name="young", created=9.0), daemon("a", name="old", created=1.0))
    assert deleted(look(daemon_set(), *pods, nodes=NODES[:1])) == ["young"]
    waiting = daemon("", name="homeless", phase="Pending", ready=False)
    decision = look(daemon_set(), daemon("a"), waiting, nodes=NODES[:1], targets={"uid-homeless": "z"})
    assert deleted(decision) == ["homeless"]
    assert targets(look(daemon_set(), waiting, nodes=NODES[:1], targets={"uid-homeless": "a"})) == []


def test_ended_pods_are_deleted_and_failing_ones_less_and_less_often() -> None:
    failed = daemon("a", phase="Failed", ready=False)
    decision = look(daemon_set(), failed, nodes=NODES[:1])
    assert deleted(decision) == ["a-one"]
    assert [one.reason for one in decision.actions if isinstance(one, Note)] == ["FailedDaemonPod"]
    later = look(daemon_set(), failed, nodes=NODES[:1], retry_at={"a": NOW.timestamp() + 4})
    assert deleted(later) == [] and later.requeue_after_seconds == 4
    assert deleted(look(daemon_set(), daemon("a", phase="Succeeded"), nodes=NODES[:1])) == ["a-one"]


OLD = tuple(daemon(node) for node in "abc")


def update(*pods: PodFacts, **spec: Any) -> Decision:
    return look(daemon_set(image="two", **spec), *pods)


@pytest.mark.proves("DaemonSet.spec.updateStrategy.rollingUpdate.maxUnavailable")
def test_an_update_takes_away_as_many_as_may_be_unavailable() -> None:
    assert deleted(update(*OLD)) == ["a-one"]
    assert deleted(update(*OLD, updateStrategy=rolling(maxUnavailable="50%"))) == ["a-one", "b-one"]
    assert deleted(update(daemon("a", deleting=True), *OLD[1:])) == []
    assert targets(update(*OLD[1:])) == ["a"]
    assert deleted(update(daemon("a", "two", **UNREADY), *OLD[1:])) == []
    assert deleted(update(daemon("a", "two"), *OLD[1:])) == ["b-one"]
    assert deleted(update(OLD[0], OLD[1], daemon("c", **UNREADY))) == ["c-one"], "a broken one is in nobody's way"


@pytest.mark.proves("DaemonSet.spec.updateStrategy.rollingUpdate.maxSurge", "DaemonSet.spec.minReadySeconds")
def test_with_surge_the_new_pod_comes_before_the_old_one_goes() -> None:
    surging = {"updateStrategy": rolling(maxSurge=1, maxUnavailable=0)}
    assert (targets(update(*OLD, **surging)), deleted(update(*OLD, **surging))) == (["a"], [])
    coming = update(*OLD, daemon("a", "two", **UNREADY), **surging)
    assert (targets(coming), deleted(coming)) == ([], [])
    assert deleted(update(*OLD, daemon("a", "two"), **surging)) == ["a-one"]
    broken = update(OLD[0], daemon("b", **UNREADY), OLD[2], **surging)
    assert targets(broken) == ["b", "a"], "beside a broken pod the new one costs no surge"


@pytest.mark.proves("DaemonSet.spec.updateStrategy.type")
def test_on_delete_updates_only_what_a_person_deletes() -> None:
    on_delete = {"updateStrategy": {"type": "OnDelete"}}
    assert deleted(update(*OLD, **on_delete)) == [] and targets(update(*OLD[1:], **on_delete)) == ["a"]


def test_the_status_counts_nodes() -> None:
    decision = update(daemon("a", "two"), daemon("b", **UNREADY), daemon("c", deleting=True))
    assert status_of(decision) == {
        "currentNumberScheduled": 3,
        "desiredNumberScheduled": 3,
        "numberMisscheduled": 0,
        "numberReady": 2,
        "updatedNumberScheduled": 1,
        "numberAvailable": 2,
        "numberUnavailable": 1,
        "observedGeneration": 1,
    }
    misplaced = look(daemon_set(pod_spec={"nodeSelector": {"no": "such"}}), daemon("a"))
    assert status_of(misplaced)["numberMisscheduled"] == 1


def test_at_rest_nothing_is_done_and_a_set_that_goes_does_nothing() -> None:
    told = status_of(look(daemon_set(), *OLD))
    assert look(daemon_set(status=told), *OLD) == NOTHING
    going = daemon_set()
    going["metadata"]["deletionTimestamp"] = NOW_TEXT
    assert look(going) == NOTHING
