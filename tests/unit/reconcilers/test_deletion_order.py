"""Which pods go first: one test for each rank of Kubernetes' order."""

from __future__ import annotations

import pytest

from controller.reconcilers.deletion_order import first_to_go
from controller.reconcilers.views import PodFacts
from tests.unit.reconcilers.facts import pod

NOW = 1_000_000.0

RANKS = [
    (pod("unassigned", node="", phase="Pending", ready=False), pod("assigned", node="n", phase="Pending", ready=False)),
    (pod("pending", node="n", phase="Pending"), pod("unknown", node="n", phase="Unknown")),
    (pod("unknown", node="n", phase="Unknown"), pod("running", node="n")),
    (pod("unready", node="n", ready=False), pod("ready", node="n")),
    (pod("cheap", node="n", deletion_cost=-1), pod("dear", node="n")),
    (pod("crowded", node="crowd"), pod("spread", node="n")),
    (pod("young", node="n", ready_since=NOW - 10), pod("old", node="n", ready_since=NOW - 1000)),
    (pod("restarted", node="n", restarts=3), pod("steady", node="n")),
    (pod("new", node="n", created=NOW - 5), pod("aged", node="n", created=NOW - 5000)),
    (pod("a", node="n", ready_since=NOW - 900), pod("b", node="n", ready_since=NOW - 800)),
]


@pytest.mark.parametrize(("first", "second"), RANKS, ids=lambda one: one.name)
def test_the_first_goes_before_the_second(first: PodFacts, second: PodFacts) -> None:
    related = {"crowd": 2, "n": 1}
    assert first_to_go((second, first), 1, related, NOW) == (first,)
    assert first_to_go((first, second), 1, related, NOW) == (first,)


def test_an_earlier_rank_outweighs_all_later_ones() -> None:
    cheap_but_ready = pod("cheap", node="n", deletion_cost=-100, restarts=9)
    assert first_to_go((cheap_but_ready, pod("unready", node="n", ready=False)), 1, {}, NOW)[0].name == "unready"
