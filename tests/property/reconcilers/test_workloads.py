"""What must hold of Deployments and ReplicaSets whatever happens in whatever order, with decisions cut off anywhere."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.reconcilers import deployment, replicaset
from controller.reconcilers.loop import NOTHING
from tests.property.reconcilers.world import World

LIMITS = st.tuples(st.integers(0, 3), st.integers(0, 3)).filter(lambda limits: limits != (0, 0))
STEP = st.tuples(st.integers(0, 5), st.integers(0, 30), st.integers(0, 4))


def rolling(replicas: int, surge: int, unavailable: int) -> World:
    rolling_update = {"maxSurge": surge, "maxUnavailable": unavailable}
    world = World({"replicas": replicas, "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling_update}})
    world.settle()
    return world


def one_step(world: World, step: tuple[int, int, int]) -> None:
    """Something happens: a reconcile (perhaps cut off), or one pod gets on."""
    what, which, cut = step
    stop_after = cut if cut < 4 else None
    if what <= 1:
        world.step_deployment(stop_after)
    elif what <= 3 and world.replica_sets:
        sets = world.replica_sets
        world.step_replica_set(sets[which % len(sets)]["metadata"]["name"], stop_after)
    elif world.pods:
        pod = world.pods[which % len(world.pods)]
        if "deletionTimestamp" in pod["metadata"]:
            world.play_gone(pod)
        else:
            world.play_ready(pod)
    world.pass_time(0.1)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 6), LIMITS, st.lists(STEP, min_size=10, max_size=120))
def test_a_rollout_never_leaves_its_limits_and_always_completes(
    replicas: int, limits: tuple[int, int], steps: list[tuple[int, int, int]]
) -> None:
    surge, unavailable = limits
    world = rolling(replicas, surge, unavailable)
    assert world.available() == replicas
    world.change_image("two")
    for step in steps:
        one_step(world, step)
        assert len(world.running) <= replicas + surge
        assert world.available() >= replicas - min(unavailable, replicas)
    world.settle()
    assert [pod["spec"]["containers"][0]["image"] for pod in world.running] == ["two"] * replicas
    assert world.deployment["status"]["updatedReplicas"] == replicas


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), LIMITS, st.lists(STEP, max_size=40), st.integers(0, 6))
def test_scaling_in_the_middle_of_a_rollout_ends_at_the_new_size(
    replicas: int, limits: tuple[int, int], steps: list[tuple[int, int, int]], wanted: int
) -> None:
    world = rolling(replicas, *limits)
    world.change_image("two")
    for step in steps[: len(steps) // 2]:
        one_step(world, step)
    world.change_owner(replicas=wanted)
    for step in steps[len(steps) // 2 :]:
        one_step(world, step)
    world.settle()
    assert [pod["spec"]["containers"][0]["image"] for pod in world.running] == ["two"] * wanted


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3), st.lists(STEP, min_size=10, max_size=60))
def test_recreate_never_runs_two_templates_at_once(replicas: int, steps: list[tuple[int, int, int]]) -> None:
    world = World({"replicas": replicas, "strategy": {"type": "Recreate"}})
    world.settle()
    world.change_image("two")
    for step in steps:
        one_step(world, step)
        assert len({pod["spec"]["containers"][0]["image"] for pod in world.pods}) <= 1
    world.settle()
    assert [pod["spec"]["containers"][0]["image"] for pod in world.running] == ["two"] * replicas


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 5), LIMITS, st.lists(STEP, max_size=30))
def test_at_rest_nothing_is_left_to_do(
    replicas: int, limits: tuple[int, int], steps: list[tuple[int, int, int]]
) -> None:
    world = rolling(replicas, *limits)
    world.change_image("two")
    for step in steps:
        one_step(world, step)
    world.settle()
    assert deployment.decide(world.look_at_deployment()) == NOTHING
    for one in world.replica_sets:
        assert replicaset.decide(world.look_at_replica_set(one["metadata"]["name"])) == NOTHING


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), LIMITS, st.lists(STEP, max_size=30), st.randoms(use_true_random=False))
def test_the_order_of_what_is_observed_does_not_matter(
    replicas: int, limits: tuple[int, int], steps: list[tuple[int, int, int]], shuffle: random.Random
) -> None:
    world = rolling(replicas, *limits)
    world.change_image("two")
    for step in steps:
        one_step(world, step)
        seen = world.look_at_deployment()
        sets = list(seen.replica_sets)
        shuffle.shuffle(sets)
        decision, other = deployment.decide(seen), deployment.decide(replace(seen, replica_sets=tuple(sets)))
        assert set(map(repr, decision.actions)) == set(map(repr, other.actions))
        assert decision.status == other.status
        for one in world.replica_sets:
            look = world.look_at_replica_set(one["metadata"]["name"])
            pods = list(look.pods)
            shuffle.shuffle(pods)
            assert replicaset.decide(look) == replicaset.decide(replace(look, pods=tuple(pods)))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.lists(st.integers(0, 12), max_size=6))
def test_a_create_repeated_on_a_stale_view_makes_nothing_twice(replicas: int, cuts: list[int]) -> None:
    world = World({"replicas": replicas})
    world.step_deployment()
    name = world.replica_sets[0]["metadata"]["name"]
    stale = world.look_at_replica_set(name)
    for cut in cuts:
        world.apply(replicaset.decide(stale), cut)
    world.apply(replicaset.decide(stale), None)
    assert len(world.pods) == min(replicas, int(world.replica_sets[0]["spec"]["replicas"]))
