"""Each scheduling field of a pod decides: with it, a pod goes where it would not go without it, or waits.

Two nodes, `a` in zone one with a red disk, and `b` in zone two with a blue one. `b` has less room: a pod without
wishes goes to `a`. Some pods are placed already.
"""

from __future__ import annotations

from typing import Any

import pytest

from api.objects import Object
from controller.scheduler.decide import decide
from controller.scheduler.demand import pending_pod
from controller.scheduler.snapshot import Snapshot
from tests.unit.scheduler.objects import node, places, pod, snapshot_of

ZONE, HOST = "zone", "kubernetes.io/hostname"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
NAMESPACES: dict[str, dict[str, str]] = {"default": {"team": "x"}, "other": {"team": "y"}}
IN_BLUE = {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["blue"]}]}


def cluster(**placed: list[Object]) -> Snapshot:
    nodes = [
        node("a", labels={ZONE: "one", "disk": "red"}),
        node("b", labels={ZONE: "two", "disk": "blue"}, cpu="2", memory="4Gi"),
    ]
    return snapshot_of(nodes, placed)


def place(snapshot: Snapshot, spec: Object, **options: Any) -> str | None:
    """Where a pod with these wishes goes; None if it waits."""
    snapshot.namespace_labels.update(NAMESPACES)
    return places(decide(snapshot, [pending_pod(pod("new", spec=spec, **options))], {})).get("new")


def company(kind: str, term: Object, *, preferred: bool = False) -> Object:
    terms = {PREFERRED: [{"weight": 100, "podAffinityTerm": term}]} if preferred else {REQUIRED: [term]}
    return {"affinity": {kind: terms}}


def beside(**term: Any) -> Object:
    return {"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": HOST, **term}


def spread(**constraint: Any) -> Object:
    base = {"maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule"}
    selector = {"labelSelector": {"matchLabels": {"app": "web"}}}
    return {"topologySpreadConstraints": [{**base, **selector, **constraint}]}


@pytest.mark.proves(
    "Pod.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms.matchExpressions.key",
    "Pod.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms.matchExpressions.operator",
    "Pod.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms.matchExpressions.values",
    "Pod.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms.matchFields",
    "Pod.spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution.weight",
    "Pod.spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution.preference.matchExpressions",
)
def test_node_affinity_requires_and_prefers() -> None:
    by_name = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}
    assert place(cluster(), {}) == "a"
    assert place(cluster(), {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [IN_BLUE]}}}}) == "b"
    assert place(cluster(), {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [by_name]}}}}) == "b"
    wish = [{"weight": 100, "preference": IN_BLUE}]
    assert place(cluster(), {"affinity": {"nodeAffinity": {PREFERRED: wish}}}) == "b"
    more = [{"weight": 1, "preference": IN_BLUE}, {"weight": 100, "preference": _in("disk", "red")}]
    assert place(cluster(), {"affinity": {"nodeAffinity": {PREFERRED: more}}}) == "a"


def _in(key: str, value: str) -> Object:
    return {"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}


@pytest.mark.proves(
    "Pod.spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution.labelSelector.matchLabels",
    "Pod.spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution.labelSelector.matchExpressions.key",
    "Pod.spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution.labelSelector.matchExpressions.operator",
    "Pod.spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution.labelSelector.matchExpressions.values",
    "Pod.spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution.topologyKey",
    "Pod.spec.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution.weight",
    "Pod.spec.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution.podAffinityTerm.labelSelector",
)
def test_pods_seek_company() -> None:
    occupied = cluster(b=[pod("db", labels={"app": "db"})])
    assert place(occupied, company("podAffinity", beside())) == "b"
    by_expression = {"matchExpressions": [{"key": "app", "operator": "In", "values": ["db"]}]}
    assert place(occupied, company("podAffinity", beside(labelSelector=by_expression))) == "b"
    assert place(occupied, company("podAffinity", beside(topologyKey=ZONE))) == "b"
    assert place(occupied, company("podAffinity", beside(), preferred=True)) == "b"
    assert place(cluster(), company("podAffinity", beside())) is None


@pytest.mark.proves(
    "Pod.spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution.topologyKey",
    "Pod.spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution.weight",
)
def test_pods_avoid_company() -> None:
    occupied = cluster(a=[pod("db", labels={"app": "db"})])
    assert place(occupied, company("podAntiAffinity", beside())) == "b"
    assert place(occupied, company("podAntiAffinity", beside(), preferred=True)) == "b"


@pytest.mark.proves(
    "Pod.spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution.namespaces",
    "Pod.spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution.namespaceSelector",
)
def test_company_is_looked_for_in_the_namespaces_named_or_selected() -> None:
    occupied = cluster(b=[pod("db", labels={"app": "db"}, namespace="other")])
    assert place(occupied, company("podAffinity", beside())) is None
    assert place(occupied, company("podAffinity", beside(namespaces=["other"]))) == "b"
    selected = {"matchLabels": {"team": "y"}}
    assert place(occupied, company("podAffinity", beside(namespaceSelector=selected))) == "b"


@pytest.mark.proves(
    "Pod.spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution.matchLabelKeys",
    "Pod.spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution.mismatchLabelKeys",
)
def test_company_is_of_the_pods_own_version_or_of_another() -> None:
    occupied = cluster(b=[pod("db", labels={"app": "db", "version": "1"})])
    labels = {"labels": {"version": "1"}}
    assert place(occupied, company("podAffinity", beside(matchLabelKeys=["version"])), **labels) == "b"
    assert place(occupied, company("podAffinity", beside(mismatchLabelKeys=["version"])), **labels) is None
    other = {"labels": {"version": "2"}}
    assert place(occupied, company("podAffinity", beside(matchLabelKeys=["version"])), **other) is None
    assert place(occupied, company("podAffinity", beside(mismatchLabelKeys=["version"])), **other) == "b"


@pytest.mark.proves(
    "Pod.spec.topologySpreadConstraints.maxSkew",
    "Pod.spec.topologySpreadConstraints.topologyKey",
    "Pod.spec.topologySpreadConstraints.whenUnsatisfiable",
    "Pod.spec.topologySpreadConstraints.labelSelector.matchLabels",
    "Pod.spec.topologySpreadConstraints.minDomains",
    "Pod.spec.topologySpreadConstraints.matchLabelKeys",
)
def test_pods_spread() -> None:
    web = {"app": "web", "version": "1"}
    uneven = cluster(a=[pod("w", labels=web)])
    assert place(uneven, spread(), labels=web) == "b"
    assert place(uneven, spread(maxSkew=2), labels=web) == "a"
    assert place(uneven, spread(topologyKey="disk"), labels=web) == "b"
    full = cluster(a=[pod("w", labels=web)], b=[pod("big", cpu="2")])
    assert place(full, spread(), labels=web, cpu="1") is None
    assert place(full, spread(whenUnsatisfiable="ScheduleAnyway"), labels=web, cpu="1") == "a"
    assert place(cluster(b=[pod("w", labels=web)]), spread(minDomains=3), labels=web) == "a"
    even = cluster(a=[pod("w", labels=web)], b=[pod("v", labels=web)])
    assert place(even, spread(minDomains=3), labels=web) is None
    assert place(uneven, spread(matchLabelKeys=["version"]), labels={**web, "version": "2"}) == "a"


@pytest.mark.proves("Pod.spec.topologySpreadConstraints.nodeAffinityPolicy")
def test_nodes_that_a_pod_cannot_use_count_only_when_affinity_is_ignored() -> None:
    web = {"app": "web"}
    uneven = cluster(a=[pod("w", labels=web)])
    selector = {"nodeSelector": {"disk": "red"}}
    assert place(uneven, {**spread(nodeAffinityPolicy="Honor"), **selector}, labels=web) == "a"
    assert place(uneven, {**spread(nodeAffinityPolicy="Ignore"), **selector}, labels=web) is None


@pytest.mark.proves("Pod.spec.topologySpreadConstraints.nodeTaintsPolicy")
def test_tainted_nodes_count_unless_taints_are_honoured() -> None:
    web = {"app": "web"}
    taint = {"key": "closed", "effect": "NoSchedule"}
    nodes = [node("a", labels={ZONE: "one"}), node("b", labels={ZONE: "two"}, taints=[taint])]
    uneven = snapshot_of(nodes, {"a": [pod("w", labels=web)]})
    assert place(uneven, spread(nodeTaintsPolicy="Honor"), labels=web) == "a"
    assert place(uneven, spread(nodeTaintsPolicy="Ignore"), labels=web) is None


@pytest.mark.proves(
    "Pod.spec.tolerations.key",
    "Pod.spec.tolerations.operator",
    "Pod.spec.tolerations.value",
    "Pod.spec.tolerations.effect",
)
def test_a_toleration_opens_the_nodes_whose_taint_it_matches_in_every_part() -> None:
    closed = snapshot_of([node("a", taints=[{"key": "team", "value": "x", "effect": "NoSchedule"}])])
    toleration = {"key": "team", "operator": "Equal", "value": "x", "effect": "NoSchedule"}
    assert place(closed, {"tolerations": [toleration]}) == "a"
    for part, other in (("key", "other"), ("value", "y"), ("effect", "NoExecute")):
        assert place(closed, {"tolerations": [{**toleration, part: other}]}) is None
    assert place(closed, {"tolerations": [{"key": "team", "operator": "Exists"}]}) == "a"


@pytest.mark.proves("Pod.spec.overhead")
def test_overhead_takes_room() -> None:
    small = snapshot_of([node("a", cpu="1")])
    assert place(small, {}, cpu="900m") == "a"
    assert place(small, {"overhead": {"cpu": "200m"}}, cpu="900m") is None
