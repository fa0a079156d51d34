"""What must hold of DaemonSets whatever happens in whatever order, with decisions cut off anywhere."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from api.objects import Object, clone, is_deleting
from controller.reconcilers import daemonset
from controller.reconcilers.daemonset_pods import NodeFacts, target_node
from controller.reconcilers.loop import NOTHING
from controller.reconcilers.views import pod_facts
from tests.property.reconcilers.world import World

STEPS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30), st.integers(0, 4)), min_size=5, max_size=80)
LIMITS = st.sampled_from([(0, 1), (0, 2), (1, 0), (2, 0)])


class Daemons:
    """A DaemonSet on some nodes; its pods are bound where they are meant to run."""

    def __init__(self, nodes: int, limits: tuple[int, int]) -> None:
        rolling = {"maxSurge": limits[0], "maxUnavailable": limits[1]}
        spec = {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling}, "revisionHistoryLimit": 1}
        self.world = World(spec, owner=("daemonsets", "x"), kind="DaemonSet")
        self.nodes = tuple(NodeFacts(f"n{number}", {}, ()) for number in range(nodes))

    def look(self) -> daemonset.Observed:
        world = self.world
        pods = tuple(pod_facts(pod) for pod in world.pods)
        targets = {pod["metadata"]["uid"]: target_node(pod) for pod in world.pods}
        revisions = tuple(clone(one) for one in world.all("controllerrevisions"))
        gone = frozenset(world.gone)
        return daemonset.Observed(
            clone(world.owner), pods, revisions, self.nodes, world.now, targets=targets, gone=gone
        )

    def reconcile(self, stop_after: int | None = None) -> None:
        self.world.apply(daemonset.decide(self.look()), stop_after)

    def get_on(self, pod: Object) -> None:
        if is_deleting(pod):
            return self.world.play_gone(pod)
        node = target_node(pod)
        self.world.play_ready(pod)
        pod["spec"]["nodeName"] = node
        return None

    def happen(self, step: tuple[int, int, int]) -> None:
        """A reconcile, perhaps cut off; else a pod gets on."""
        what, which, cut = step
        if what <= 4 or not self.world.pods:
            self.reconcile(cut if cut < 4 else None)
        else:
            self.get_on(self.world.pods[which % len(self.world.pods)])
        self.world.pass_time(0.1)

    def settle(self) -> None:
        for _ in range(200):
            before = self.world.fingerprint()
            self.reconcile()
            for pod in self.world.pods:
                if is_deleting(pod) or not pod_facts(pod).ready:
                    self.get_on(pod)
            if self.world.fingerprint() == before:
                return
        raise AssertionError("it never comes to rest")

    def per_node(self) -> Counter[str]:
        return Counter(target_node(pod) for pod in self.world.running)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 5), LIMITS, STEPS)
def test_an_update_keeps_its_limits_and_ends_with_one_new_pod_a_node(
    nodes: int, limits: tuple[int, int], steps: list[tuple[int, int, int]]
) -> None:
    daemons = Daemons(nodes, limits)
    daemons.settle()
    assert set(daemons.per_node().values()) == {1} and len(daemons.per_node()) == nodes
    daemons.world.change_image("two")
    surge, unavailable = limits
    for step in steps:
        daemons.happen(step)
        assert daemons.world.available() >= nodes - unavailable
        assert sum(daemons.per_node().values()) <= nodes + surge
    daemons.settle()
    assert set(daemons.per_node().values()) == {1} and len(daemons.per_node()) == nodes
    assert {pod["spec"]["containers"][0]["image"] for pod in daemons.world.pods} == {"two"}
    assert daemonset.decide(daemons.look()) == NOTHING


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.lists(st.integers(0, 8), max_size=6))
def test_a_decision_repeated_on_a_stale_view_makes_nothing_twice(nodes: int, cuts: list[int]) -> None:
    daemons = Daemons(nodes, (0, 1))
    daemons.reconcile()
    stale = daemons.look()
    for cut in (*cuts, None):
        daemons.world.apply(daemonset.decide(stale), cut)
    assert daemons.per_node() == Counter(node.name for node in daemons.nodes)
