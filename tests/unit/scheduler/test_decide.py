"""What the scheduler decides, and how it explains a refusal."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from api.objects import Object
from controller.scheduler.snapshot import Snapshot
from tests.unit.scheduler.objects import node, places, pod, reasons, schedule, snapshot_of

TAINT: Object = {"key": "team", "value": "a", "effect": "NoSchedule"}


def node_affinity(operator: str, *values: str) -> Object:
    term = {"matchExpressions": [{"key": "disk", "operator": operator, "values": list(values)}]}
    return {
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}
    }


def company(kind: str, app: str, key: str = "kubernetes.io/hostname") -> Object:
    term = {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key}
    return {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}


def test_without_nodes_the_message_says_so() -> None:
    assert reasons(schedule(Snapshot(), pod("a"))) == {"a": "no nodes available to schedule pods"}


REFUSALS: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("cordoned", {"unschedulable": True}, {}, "node(s) were unschedulable"),
    ("tainted", {"taints": [TAINT]}, {}, "node(s) had untolerated taint {team: a}"),
    ("not ready", {"ready": "Unknown"}, {}, "node(s) were not ready"),
    ("selector", {}, {"spec": {"nodeSelector": {"disk": "ssd"}}}, "node(s) didn't match Pod's node affinity/selector"),
    ("affinity", {"labels": {"disk": "hdd"}}, {"spec": node_affinity("In", "ssd")},
     "node(s) didn't match Pod's node affinity/selector"),
    ("cpu", {"cpu": "1"}, {"cpu": "1500m"}, "Insufficient cpu"),
    ("memory", {"memory": "1Gi"}, {"memory": "1025Mi"}, "Insufficient memory"),
    ("pods", {"pods": "0"}, {}, "Too many pods"),
    ("device", {}, {"requests": {"example.com/gpu": "1"}}, "Insufficient example.com/gpu"),
    ("pod affinity", {}, {"spec": company("podAffinity", "db")}, "node(s) didn't match pod affinity rules"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("node_options", "pod_options", "reason"), [row[1:] for row in REFUSALS], ids=[r[0] for r in REFUSALS]
)
def test_a_node_that_cannot_take_the_pod_is_counted_under_its_reason(
    node_options: dict[str, Any], pod_options: dict[str, Any], reason: str
) -> None:
    decision = schedule(snapshot_of([node("n", **node_options)]), pod("a", **pod_options))
    assert reasons(decision) == {"a": f"0/1 nodes are available: 1 {reason}."}


def test_the_message_counts_each_reason_over_all_nodes() -> None:
    nodes = [
        node("a", unschedulable=True),
        node("b", cpu="1"),
        node("c", cpu="1", memory="1Gi"),
        node("d", taints=[TAINT]),
    ]
    decision = schedule(snapshot_of(nodes), pod("p", cpu="2", memory="2Gi"))
    assert reasons(decision) == {
        "p": "0/4 nodes are available: 1 Insufficient memory, 1 node(s) had untolerated taint {team: a}, "
        "1 node(s) were unschedulable, 2 Insufficient cpu."
    }


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        ({"key": "team", "operator": "Equal", "value": "a", "effect": "NoSchedule"}, True),
        ({"key": "team", "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"key": "team", "value": "b"}, False),
        ({"key": "team", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "other", "operator": "Exists"}, False),
    ],
)
def test_a_toleration_opens_a_tainted_node_when_key_value_and_effect_match(toleration: Object, tolerated: bool) -> None:
    decision = schedule(snapshot_of([node("n", taints=[TAINT])]), pod("a", spec={"tolerations": [toleration]}))
    assert bool(decision.bindings) is tolerated


@pytest.mark.parametrize(
    ("operator", "values", "disk", "matches"),
    [
        ("In", ("ssd", "nvme"), "nvme", True),
        ("NotIn", ("ssd",), "ssd", False),
        ("NotIn", ("ssd",), None, True),
        ("Exists", (), "x", True),
        ("DoesNotExist", (), "x", False),
        ("Gt", ("5",), "6", True),
        ("Gt", ("5",), "5", False),
        ("Lt", ("5",), "4", True),
        ("Lt", ("5",), None, False),
    ],
)
def test_node_affinity_operators(operator: str, values: tuple[str, ...], disk: str | None, matches: bool) -> None:
    labels = {} if disk is None else {"disk": disk}
    decision = schedule(snapshot_of([node("n", labels=labels)]), pod("a", spec=node_affinity(operator, *values)))
    assert bool(decision.bindings) is matches


def test_equal_pods_of_one_owner_spread_over_the_nodes() -> None:
    pods = [pod(f"p{i}", cpu="10m", owner="rs") for i in range(30)]
    placed = places(schedule(snapshot_of([node("a"), node("b"), node("c")]), *pods))
    assert Counter(placed.values()) == {"a": 10, "b": 10, "c": 10}


def test_pods_of_one_owner_added_one_by_one_spread_too() -> None:
    snapshot = snapshot_of([node("a"), node("b")], {"a": [pod("old", owner="rs")]})
    assert places(schedule(snapshot, pod("new", owner="rs"))) == {"new": "b"}


def test_a_batch_fills_the_nodes_and_the_rest_is_refused() -> None:
    pods = [pod(f"p{i}", cpu="1", owner="rs") for i in range(10)]
    decision = schedule(snapshot_of([node("a", cpu="4"), node("b", cpu="3")]), *pods)
    assert Counter(places(decision).values()) == {"a": 4, "b": 3}
    assert set(reasons(decision).values()) == {"0/2 nodes are available: 2 Insufficient cpu."}


def test_the_more_important_pod_gets_the_last_place() -> None:
    snapshot = snapshot_of([node("n", cpu="1")])
    decision = schedule(snapshot, pod("low", cpu="1"), pod("high", cpu="1", priority=5))
    assert places(decision) == {"high": "n"}


def test_a_host_port_is_given_once_per_node() -> None:
    snapshot = snapshot_of([node("a"), node("b")], {"a": [pod("old", host_port=80)]})
    decision = schedule(snapshot, *[pod(f"p{i}", host_port=80, owner="rs") for i in range(5)])
    assert list(places(decision).values()) == ["b"]
    assert "2 node(s) didn't have free ports for the requested pod ports" in reasons(decision)["p1"]


def test_anti_affinity_keeps_pods_of_one_batch_apart() -> None:
    nodes = [node("a"), node("b"), node("c")]
    pods = [pod(f"p{i}", labels={"app": "x"}, owner="rs", spec=company("podAntiAffinity", "x")) for i in range(4)]
    decision = schedule(snapshot_of(nodes), *pods)
    assert sorted(places(decision).values()) == ["a", "b", "c"]
    assert reasons(decision) == {"p3": "0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules."}


def test_a_placed_pod_keeps_away_whom_its_anti_affinity_names() -> None:
    loner = pod("loner", spec=company("podAntiAffinity", "noisy"))
    snapshot = snapshot_of([node("a")], {"a": [loner]})
    decision = schedule(snapshot, pod("n", labels={"app": "noisy"}))
    assert reasons(decision) == {
        "n": "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules."
    }


def test_affinity_to_its_own_group_starts_anywhere_and_then_stays_together() -> None:
    nodes = [node("a"), node("b")]
    pods = [pod(f"p{i}", labels={"app": "x"}, owner="rs", spec=company("podAffinity", "x")) for i in range(4)]
    assert len(set(places(schedule(snapshot_of(nodes), *pods)).values())) == 1


def test_hard_topology_spread_keeps_the_skew_between_zones() -> None:
    zones = [node("a", labels={"zone": "1"}), node("b", labels={"zone": "2"}), node("c")]
    constraint = {
        "maxSkew": 1,
        "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "x"}},
    }
    spec = {"topologySpreadConstraints": [constraint]}
    snapshot = snapshot_of(zones, {"a": [pod("old", labels={"app": "x"})]})
    decision = schedule(snapshot, *[pod(f"p{i}", labels={"app": "x"}, owner="rs", spec=spec) for i in range(3)])
    assert Counter(places(decision).values()) == {"a": 1, "b": 2}


def test_an_image_that_is_there_decides_between_equal_nodes() -> None:
    images = [{"names": ["big:1"], "sizeBytes": 900 * 1024 * 1024}]
    assert places(schedule(snapshot_of([node("a"), node("b", images=images)]), pod("p", image="big:1"))) == {"p": "b"}


def test_deciding_changes_nothing_in_the_snapshot() -> None:
    snapshot = snapshot_of([node("a")])
    before = snapshot.requested.copy()
    schedule(snapshot, *[pod(f"p{i}", cpu="100m", owner="rs") for i in range(9)])
    assert (snapshot.requested == before).all()
    assert not snapshot.pods
