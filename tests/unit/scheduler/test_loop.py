"""The scheduler's loop where no store is needed."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from controller.scheduler.demand import PodClass, pending_pod
from controller.scheduler.loop import Scheduler, SchedulerSettings
from tests.unit.scheduler.objects import node, pod, snapshot_of


def test_a_pod_on_which_the_decision_fails_keeps_no_other_from_its_node() -> None:
    scheduler = Scheduler(None, None, None, SchedulerSettings())  # type: ignore[arg-type]  # it only decides here
    scheduler._snapshot = snapshot_of([node("n1")])
    for name in ("a", "poison", "b"):
        found = pending_pod(pod(name))
        odd = replace(found, pod_class=cast(PodClass, object())) if name == "poison" else found
        scheduler._pending[found.uid] = odd
    assert sorted(binding.pod.name for binding in scheduler._decide().bindings) == ["a", "b"]
    assert sorted(each.name for each in scheduler._pending.values()) == ["a", "b"]
