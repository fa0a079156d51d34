"""Aggregated ClusterRoles: decisions compared whole."""

from __future__ import annotations

from typing import Any

from api.objects import Object
from controller.reconcilers.actions import Write
from controller.reconcilers.cluster_roles import ROLES, Observed, decide
from controller.reconcilers.loop import NOTHING, Decision

PODS, NODES = ({"apiGroups": [""], "resources": [name], "verbs": ["get"]} for name in ("pods", "nodes"))


def role(name: str, *rules: Object, picks: tuple[str, ...] = (), **labels: str) -> Object:
    made: dict[str, Any] = {"metadata": {"name": name, "uid": f"uid-{name}", "labels": labels}, "rules": list(rules)}
    if picks:
        made["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": {pick: "yes"}} for pick in picks]}
    return made


def put(name: str, *rules: Object) -> Write:
    return Write(ROLES, "", name, f"uid-{name}", replace={"rules": list(rules)})


def test_a_role_gets_the_rules_its_selectors_pick_by_name_and_each_once() -> None:
    parts = (role("b", PODS, part="yes"), role("a", NODES, PODS, part="yes"), role("c", NODES))
    assert decide(Observed((role("all", picks=("part",)), *parts))) == Decision((put("all", NODES, PODS),))


def test_what_somebody_wrote_into_it_goes_and_what_is_right_stays() -> None:
    assert decide(Observed((role("all", PODS, picks=("part",)),))) == Decision((put("all"),))
    assert decide(Observed((role("all", PODS, picks=("part",)), role("a", PODS, part="yes")))) == NOTHING


def test_a_role_that_picks_itself_adds_nothing_and_one_of_another_is_passed_on() -> None:
    inner, outer = role("inner", PODS, picks=("x",), y="yes", x="yes"), role("outer", picks=("y",))
    assert decide(Observed((inner, outer, role("a", PODS, x="yes")))) == Decision((put("outer", PODS),))
