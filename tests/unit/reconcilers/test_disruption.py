"""PodDisruptionBudget decisions, and what an eviction spends. Rules: k8s.io/kubernetes pkg/controller/disruption and
pkg/registry/core/pod/storage/eviction.go."""

from __future__ import annotations

from typing import Any

import pytest

from api.errors import ApiError, Forbidden, TooManyRequests
from api.objects import Object, clone
from controller.reconcilers.actions import Note, Write
from controller.reconcilers.disruption import Observed, decide
from controller.reconcilers.loop import NOTHING, Decision
from controller.reconcilers.views import PodFacts
from controller.registry.eviction import BUDGETS, spent
from tests.unit.reconcilers.facts import NOW, NOW_TEXT, ago, meta, pod

COUNTS = {"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0}


def budget(status: Object | None = None, **spec: Any) -> Object:
    body = {"selector": {"matchLabels": {"app": "x"}}, **spec}
    head: Object = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": meta("x")}
    return head | {"spec": body, "status": dict(COUNTS) if status is None else status}


def pods(*ready: bool) -> tuple[PodFacts, ...]:
    return tuple(pod(f"p{number}", ready=one) for number, one in enumerate(ready))


def seen(one: Object, members: tuple[PodFacts, ...], **more: Any) -> Observed:
    return Observed(one, members, NOW, **{"scales": {"uid-x": len(members)} if members else {}, **more})


def written(decision: Decision) -> Object:
    assert isinstance(decision.status, Write)
    status: Object = decision.status.replace["status"]
    return status


def counts(decision: Decision) -> tuple[int, ...]:
    status = written(decision)
    return tuple(status[part] for part in ("expectedPods", "currentHealthy", "desiredHealthy", "disruptionsAllowed"))


def test_the_whole_status_is_written_once_over_the_version_that_was_counted() -> None:
    decision = decide(seen(budget(minAvailable=2), pods(True, True, True)))
    condition = {"type": "DisruptionAllowed", "status": "True", "reason": "SufficientPods", "message": ""}
    condition |= {"lastTransitionTime": NOW_TEXT}
    expected = {"currentHealthy": 3, "desiredHealthy": 2, "disruptionsAllowed": 1, "expectedPods": 3}
    status = {**expected, "observedGeneration": 1, "conditions": [{**condition, "observedGeneration": 1}]}
    where = (BUDGETS, "w", "x", "uid-x")
    write = Write(*where, replace={"status": status}, subresource="status", version="7")
    assert decision == Decision(status=write)
    assert decide(seen(budget(status, minAvailable=2), pods(True, True, True))) == NOTHING


CASES: list[tuple[Object, tuple[bool, ...], int, tuple[int, ...]]] = [
    ({"minAvailable": 2}, (True, True, True), 3, (3, 3, 2, 1)),
    ({"minAvailable": 2}, (True, True, False), 3, (3, 2, 2, 0)),
    ({"minAvailable": 5}, (True,), 3, (1, 1, 5, 0)),
    ({"minAvailable": "50%"}, (True, True, True), 3, (3, 3, 2, 1)),
    ({"minAvailable": "50%"}, (True, True, True), 7, (7, 3, 4, 0)),
    ({"maxUnavailable": 1}, (True, True, True), 3, (3, 3, 2, 1)),
    ({"maxUnavailable": 1}, (True, True), 3, (3, 2, 2, 0)),
    ({"maxUnavailable": "30%"}, (True, True, True, True), 4, (4, 4, 2, 2)),
    ({"maxUnavailable": 9}, (True, False), 2, (2, 1, 0, 1)),
    ({"maxUnavailable": 0}, (True,), 1, (1, 1, 1, 0)),
    ({}, (True,), 1, (0, 1, 0, 0)),
]


@pytest.mark.parametrize(("spec", "ready", "scale", "expected"), CASES)
@pytest.mark.proves("PodDisruptionBudget.spec.minAvailable", "PodDisruptionBudget.spec.maxUnavailable")
def test_how_many_may_go(spec: Object, ready: tuple[bool, ...], scale: int, expected: tuple[int, ...]) -> None:
    assert counts(decide(seen(budget(**spec), pods(*ready), scales={"u": scale}))) == expected


def test_without_pods_nobody_may_go_and_that_is_told() -> None:
    decision = decide(seen(budget(minAvailable=1), ()))
    assert counts(decision) == (0, 0, 1, 0)
    assert written(decision)["conditions"][0]["reason"] == "InsufficientPods"
    (note,) = decision.actions
    assert isinstance(note, Note)
    assert note.reason == "NoPods"


def test_pods_that_go_or_were_evicted_are_not_healthy() -> None:
    members = (*pods(True, True, True), pod("going", deleting=True))
    told = {**COUNTS, "disruptedPods": {"p0": ago(60), "p1": ago(121), "gone": ago(1), "going": ago(1)}}
    decision = decide(seen(budget(told, minAvailable=1), members))
    assert counts(decision) == (4, 2, 1, 1)
    assert written(decision)["disruptedPods"] == {"p0": ago(60)}
    assert decision.requeue_after_seconds == 60


def test_unknown_scales_stop_evictions_and_are_told() -> None:
    before = {**COUNTS, "disruptionsAllowed": 1, "currentHealthy": 1}
    decision = decide(seen(budget(before, maxUnavailable=1), pods(True), problem="no scale"))
    status = written(decision)
    assert (status["disruptionsAllowed"], status["conditions"][0]["reason"]) == (0, "SyncFailed")
    assert [note.reason for note in decision.actions if isinstance(note, Note)] == ["CalculateExpectedPodCountFailed"]
    assert counts(decide(seen(budget(minAvailable=1), pods(True), problem="no scale"))) == (1, 1, 1, 0)


def test_an_eviction_spends_one_disruption_and_leaves_the_pods_name() -> None:
    status = written(decide(seen(budget(minAvailable=2), pods(True, True, True))))
    after = spent(budget(clone(status), minAvailable=2), "p1", NOW_TEXT)["status"]
    assert (after["disruptionsAllowed"], after["disruptedPods"]) == (0, {"p1": NOW_TEXT})
    assert after["conditions"][0]["reason"] == "InsufficientPods"
    assert counts(decide(seen(budget(after, minAvailable=2), pods(True, True, True)))) == (3, 2, 2, 0)


REFUSALS: list[tuple[Object, type[ApiError], str]] = [
    ({"observedGeneration": 0}, TooManyRequests, "The disruption budget x is still being processed by the server."),
    ({"desiredHealthy": 2}, TooManyRequests, "The disruption budget x needs 2 healthy pods and has 0 currently"),
    ({"currentHealthy": 3}, TooManyRequests, "The disruption budget x does not allow evicting pods currently"),
    ({"disruptionsAllowed": -1}, Forbidden, ""),
    ({"disruptionsAllowed": 1, "disruptedPods": {str(n): NOW_TEXT for n in range(2001)}}, Forbidden, ""),
]


@pytest.mark.parametrize(("status", "error", "cause"), REFUSALS)
@pytest.mark.proves("PodDisruptionBudget.spec.unhealthyPodEvictionPolicy")
def test_what_a_budget_refuses(status: Object, error: type[ApiError], cause: str) -> None:
    with pytest.raises(error) as refused:
        spent(budget({**COUNTS, "observedGeneration": 1, **status}), "p", NOW_TEXT)
    if cause:
        assert refused.value.details["causes"] == [{"reason": "DisruptionBudget", "message": cause}]
