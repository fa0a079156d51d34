"""Services and their pods for the endpoint reconcilers' tests, and a store in memory that decisions are applied to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from api.objects import Object, clone
from controller.reconcilers.actions import Action, Create, Delete, Together, Write, changer_of
from controller.reconcilers.endpoints.facts import EndpointPod
from controller.reconcilers.endpoints.slices import MANAGER, Observed, decide
from controller.reconcilers.loop import Decision
from tests.unit.reconcilers.facts import EARLIER, NOW_TEXT, meta

NAMES = tuple(f"x-{letter}" for letter in "abcdef")
LABELS: dict[str, str] = {"endpointslice.kubernetes.io/managed-by": MANAGER, "kubernetes.io/service-name": "x"}
OWNER = {
    "apiVersion": "v1",
    "kind": "Service",
    "name": "x",
    "uid": "uid-x",
    "controller": True,
    "blockOwnerDeletion": True,
}
WEB = {"name": "web", "port": 8080, "protocol": "TCP"}


def service(*, labels: Object | None = None, **spec: Any) -> Object:
    ports = [{"name": "web", "port": 80, "targetPort": 8080, "protocol": "TCP"}]
    body = {"selector": {"app": "x"}, "clusterIP": "10.96.0.7", "ipFamilies": ["IPv4"], "ports": ports, **spec}
    named = meta("x", creationTimestamp=EARLIER) | ({"labels": labels} if labels else {})
    return {"apiVersion": "v1", "kind": "Service", "metadata": named, "spec": body}


def pod(number: int, **facts: Any) -> EndpointPod:
    name = f"p{number:03}"
    known: Object = {"addresses": (f"10.244.{number // 200}.{number % 200 + 2}",), "serving": True, "node": "n"}
    return EndpointPod("w", name, f"uid-{name}", **{**known, "ready_since": NOW_TEXT, **facts})


def pods(count: int) -> tuple[EndpointPod, ...]:
    return tuple(pod(number) for number in range(count))


def seen(svc: Object, members: Sequence[EndpointPod], slices: Sequence[Object] = (), **more: Any) -> Observed:
    return Observed(svc, tuple(members), tuple(slices), **{"zones": {"n": ""}, "names": NAMES, **more})


def flat(decision: Decision) -> list[Action]:
    return [one for act in decision.actions for one in (act.actions if isinstance(act, Together) else (act,))]


def applied(observed: Observed, stop_after: int | None = None) -> tuple[Object, ...]:
    """The slices after the decision, or a prefix of it."""
    slices = {one["metadata"]["name"]: clone(one) for one in observed.slices}
    for action in flat(decide(observed))[:stop_after]:
        if isinstance(action, Create):
            made = clone(action.obj)
            made["metadata"] |= {"uid": f"uid-{made['metadata']['name']}", "resourceVersion": "1"}
            assert made["metadata"]["name"] not in slices
            slices[made["metadata"]["name"]] = made
        elif isinstance(action, Write):
            changed = changer_of(action)(slices[action.name])
            assert changed is not None
            changed["metadata"]["resourceVersion"] += "1"
        elif isinstance(action, Delete):
            del slices[action.name]
    return tuple(slices.values())
