"""The arithmetic of rolling updates."""

from __future__ import annotations

import pytest

from api.objects import Object
from controller.reconcilers.rollout import (
    Limits,
    ReplicaSetView,
    limits_of,
    new_size,
    shrink_old,
    spread_proportionally,
    view_replica_set,
)
from tests.unit.reconcilers.facts import ago, replica_set


def view(name: str, size: int, available: int | None = None, pods: int | None = None, **more: int) -> ReplicaSetView:
    count = size if pods is None else pods
    obj = replica_set(size, status={"replicas": count, "availableReplicas": size if available is None else available})
    annotations = {f"deployment.kubernetes.io/{key.replace('_', '-')}": str(value) for key, value in more.items()}
    obj["metadata"] |= {
        "name": name,
        "uid": name,
        "creationTimestamp": ago(100 - len(name)),
        "annotations": annotations,
    }
    return view_replica_set(obj)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"replicas": 10}, Limits(10, 3, 2)),
        ({"replicas": 1}, Limits(1, 1, 0)),
        ({"replicas": 0}, Limits(0, 0, 0)),
        ({"replicas": 4, "strategy": {"rollingUpdate": {"maxSurge": "50%", "maxUnavailable": 1}}}, Limits(4, 2, 1)),
        ({"replicas": 3, "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "10%"}}}, Limits(3, 0, 1)),
        ({"replicas": 3, "strategy": {"type": "Recreate"}}, Limits(3, 0, 0)),
    ],
)
@pytest.mark.proves(
    "Deployment.spec.strategy.rollingUpdate.maxSurge", "Deployment.spec.strategy.rollingUpdate.maxUnavailable"
)
def test_percentages_round_surge_up_and_unavailability_down(spec: Object, expected: Limits) -> None:
    assert limits_of(spec) == expected


def test_the_new_one_grows_into_the_room_that_surge_leaves() -> None:
    limits = Limits(4, 2, 1)
    assert new_size(limits, 0, [view("old", 4)], recreate=False) == 2
    assert new_size(limits, 2, [view("old", 3), view("new", 2)], recreate=False) == 3
    assert new_size(limits, 5, [view("new", 5)], recreate=False) == 4


def test_pods_that_an_old_one_has_not_given_up_yet_take_room() -> None:
    assert new_size(Limits(4, 1, 1), 1, [view("old", 2, pods=4), view("new", 1)], recreate=False) == 1


def test_old_ones_lose_what_is_not_available_before_what_is() -> None:
    new, sick, well = view("new", 2, available=2), view("sick", 2, available=0), view("well", 3)
    assert shrink_old(Limits(4, 1, 1), new, [well, sick]) == {"sick": 0, "well": 1}


def test_old_ones_stay_while_the_new_pods_are_not_available() -> None:
    assert shrink_old(Limits(4, 2, 1), view("new", 3, available=0), [view("old", 3)]) == {}


def test_a_status_that_lags_behind_a_smaller_size_frees_nobody() -> None:
    assert shrink_old(Limits(10, 1, 0), view("new", 1, available=1), [view("old", 9, available=10)]) == {}


def test_scaling_in_the_middle_of_a_rollout_is_proportional() -> None:
    sets = [view("old", 8, max_replicas=13), view("newer", 5, max_replicas=13)]
    assert spread_proportionally(Limits(15, 3, 2), sets, 13) == {"old": 11, "newer": 7}
    assert spread_proportionally(Limits(0, 0, 0), sets, 13) == {"old": 0, "newer": 0}
