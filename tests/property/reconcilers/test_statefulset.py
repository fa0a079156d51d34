"""What must hold of StatefulSets whatever happens in whatever order, with decisions cut off anywhere."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from api.objects import Object, clone, controller_of, is_deleting, labels_of, name_of
from controller.reconcilers import statefulset
from controller.reconcilers.history import planned_name
from controller.reconcilers.loop import NOTHING
from controller.reconcilers.statefulset_pods import REVISION_LABEL, ordinal_of
from controller.reconcilers.views import pod_facts
from tests.property.reconcilers.world import World

STATEFUL_SET = ("statefulsets", "x")
WHOLE = 4
STEPS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30), st.integers(0, WHOLE)), min_size=5, max_size=80)
POLICIES = st.sampled_from(["OrderedReady", "Parallel"])


class Sets:
    """A StatefulSet in a world, and what has been done to its pods."""

    def __init__(self, replicas: int, policy: str, **rolling: Any) -> None:
        spec = {"replicas": replicas, "podManagementPolicy": policy, "revisionHistoryLimit": 1}
        spec["updateStrategy"] = {"type": "RollingUpdate", "rollingUpdate": {"partition": 0, **rolling}}
        self.world = World(spec, owner=STATEFUL_SET, kind="StatefulSet")

    def look(self) -> statefulset.Observed:
        world = self.world
        revisions = tuple(clone(one) for one in world.all("controllerrevisions"))
        facts = [(pod_facts(pod), controller_of(pod)) for pod in world.pods]
        owned = tuple(pod for pod, owner in facts if owner is not None)
        occupied = ("controllerrevisions", planned_name(world.owner)) in world.objects
        orphans = tuple(pod for pod, owner in facts if owner is None)
        return statefulset.Observed(clone(world.owner), owned, revisions, world.now, orphans, occupied=occupied)

    def reconcile(self, stop_after: int | None = None) -> None:
        self.world.apply(statefulset.decide(self.look()), stop_after)

    def settle(self) -> None:
        for _ in range(300):
            before = self.world.fingerprint()
            self.reconcile()
            for pod in self.world.pods:
                if is_deleting(pod):
                    self.world.play_gone(pod)
                elif not pod_facts(pod).ready and not pod_facts(pod).finished:
                    self.world.play_ready(pod)
            self.world.pass_time(1)
            if self.world.fingerprint() == before:
                return
        raise AssertionError("it never comes to rest")

    def happen(self, step: tuple[int, int, int]) -> None:
        """A reconcile, perhaps cut off; else a pod gets on, breaks, ends or goes."""
        what, which, cut = step
        pods = self.world.pods
        if what <= 4 or not pods:
            return self.reconcile(cut if cut < WHOLE else None)
        pod = pods[which % len(pods)]
        if is_deleting(pod):
            return self.world.play_gone(pod)
        if what == 9:
            return self.world.play_ended(pod, "Failed" if cut % 2 else "Succeeded")
        return None if pod_facts(pod).finished else self.world.play_ready(pod)

    @property
    def names(self) -> list[str]:
        return [name_of(pod) for pod in self.world.pods]

    @property
    def ready(self) -> set[int]:
        return {_ordinal(pod) for pod in self.world.running if pod_facts(pod).ready}


def _ordinal(pod: Object) -> int:
    found = ordinal_of("x", name_of(pod))
    assert found is not None
    return found


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5), STEPS)
def test_in_order_no_pod_is_made_before_all_below_it_are_ready(
    replicas: int, steps: list[tuple[int, int, int]]
) -> None:
    sets = Sets(replicas, "OrderedReady")
    for index, step in enumerate(steps):
        before, ready = {pod["metadata"]["uid"] for pod in sets.world.pods}, sets.ready
        sets.happen(step)
        for pod in sets.world.pods:
            if pod["metadata"]["uid"] not in before:
                assert set(range(_ordinal(pod))) <= ready
        if index == len(steps) // 2:
            sets.world.change_image("two")
    sets.settle()
    assert sets.names == [f"x-{ordinal}" for ordinal in range(replicas)]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5), st.integers(1, 3), POLICIES, STEPS)
def test_an_update_never_takes_more_pods_away_than_it_may_and_always_completes(
    replicas: int, unavailable: int, policy: str, steps: list[tuple[int, int, int]]
) -> None:
    sets = Sets(replicas, policy, maxUnavailable=unavailable)
    sets.settle()
    sets.world.change_image("two")
    for step in steps:
        sets.happen((min(step[0], 8), *step[1:]))
        assert len(sets.ready) >= replicas - unavailable
    sets.settle()
    assert {labels_of(pod)[REVISION_LABEL] for pod in sets.world.pods} == {planned_name(sets.world.owner)}
    assert sets.world.owner["status"]["currentRevision"] == planned_name(sets.world.owner)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), POLICIES, STEPS)
def test_it_ends_at_the_asked_size_partition_and_start_and_then_does_nothing(
    replicas: int, wanted: int, partition: int, policy: str, steps: list[tuple[int, int, int]]
) -> None:
    sets = Sets(replicas, policy)
    sets.settle()
    old = planned_name(sets.world.owner)
    sets.world.change_image("two")
    sets.world.change_owner(updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": partition}})
    for step in steps[: len(steps) // 2]:
        sets.happen(step)
    sets.world.change_owner(replicas=wanted)
    for step in steps[len(steps) // 2 :]:
        sets.happen(step)
    sets.settle()
    new = planned_name(sets.world.owner)
    assert sets.names == [f"x-{ordinal}" for ordinal in range(wanted)]
    for pod in sets.world.pods:
        revision = labels_of(pod)[REVISION_LABEL]
        assert revision == new if _ordinal(pod) >= partition else revision in (old, new)
    assert statefulset.decide(sets.look()) == NOTHING


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["one", "two", "three", "four"]), min_size=1, max_size=8))
def test_the_template_in_force_always_has_the_highest_revision_and_the_history_stays_short(images: list[str]) -> None:
    sets = Sets(1, "OrderedReady")
    highest = 0
    for image in images:
        sets.world.change_image(image)
        sets.settle()
        revisions = sets.world.all("controllerrevisions")
        newest = max(revisions, key=lambda one: int(one["revision"]))
        assert newest["metadata"]["name"] == planned_name(sets.world.owner)
        assert newest["revision"] >= highest
        assert len(revisions) <= 2
        highest = newest["revision"]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), POLICIES, STEPS, st.randoms(use_true_random=False))
def test_the_order_of_what_is_observed_does_not_matter(
    replicas: int, policy: str, steps: list[tuple[int, int, int]], shuffle: random.Random
) -> None:
    sets = Sets(replicas, policy)
    for step in steps:
        sets.happen(step)
        seen = sets.look()
        pods, revisions = list(seen.pods), list(seen.revisions)
        shuffle.shuffle(pods)
        shuffle.shuffle(revisions)
        shuffled = replace(seen, pods=tuple(pods), revisions=tuple(revisions))
        assert statefulset.decide(seen) == statefulset.decide(shuffled)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), POLICIES, st.lists(st.integers(0, 12), max_size=6))
def test_a_decision_repeated_on_a_stale_view_makes_nothing_twice(replicas: int, policy: str, cuts: list[int]) -> None:
    sets = Sets(replicas, policy)
    sets.reconcile()
    stale = sets.look()
    for cut in (*cuts, None):
        sets.world.apply(statefulset.decide(stale), cut)
    assert len(sets.world.pods) == (replicas if policy == "Parallel" else 1)
    assert len(sets.world.all("controllerrevisions")) == 1
