"""Which addresses an Ingress shows."""

from __future__ import annotations

from typing import Any

import pytest

from api.objects import Object
from controller.reconcilers.actions import put_status
from controller.reconcilers.ingress_status import INGRESSES, Observed, addresses_of, decide
from controller.reconcilers.loop import NOTHING, Decision

CONTROLLERS = {"wherry": "wherry/ingress", "ours-too": "wherry/ingress", "nginx": "k8s.io/ingress-nginx"}


def ingress(class_name: str | None = None, legacy: str = "", shown: Any = None) -> Object:
    annotations = {"kubernetes.io/ingress.class": legacy} if legacy else {}
    spec = {} if class_name is None else {"ingressClassName": class_name}
    status = {"loadBalancer": {"ingress": shown} if shown else {}}
    return {"metadata": {"namespace": "ns", "name": "i", "annotations": annotations}, "spec": spec, "status": status}


def node(name: str, *addresses: tuple[str, str], label: str = "true", ready: str = "True") -> Object:
    listed = [{"type": kind, "address": address} for kind, address in addresses]
    status = {"conditions": [{"type": "Ready", "status": ready}], "addresses": listed}
    return {"metadata": {"name": name, "labels": {"wherry/ingress": label}}, "status": status}


def test_the_addresses_are_those_of_ready_nodes_with_the_label_external_before_internal() -> None:
    nodes = [
        node("c", ("InternalIP", "10.0.0.3"), ("ExternalIP", "192.0.2.3")),
        node("a", ("InternalIP", "10.0.0.1"), ("Hostname", "a")),
        node("down", ("InternalIP", "10.0.0.4"), ready="Unknown"),
        node("off", ("InternalIP", "10.0.0.5"), label="false"),
    ]
    assert addresses_of(nodes) == ("10.0.0.1", "192.0.2.3")


@pytest.mark.parametrize(
    "named", [ingress(), ingress("wherry"), ingress("ours-too"), ingress(legacy="wherry"), ingress(legacy="ours-too")]
)
def test_an_ingress_of_ours_shows_them(named: Object) -> None:
    wanted = {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}
    decision = decide(Observed(named, CONTROLLERS, ("10.0.0.1",)))
    assert decision == Decision(status=put_status(INGRESSES, named, wanted))


@pytest.mark.parametrize("named", [ingress("nginx"), ingress("gone"), ingress(legacy="nginx"), ingress(legacy="gce")])
def test_an_ingress_of_another_controller_is_left_alone(named: Object) -> None:
    assert decide(Observed(named, CONTROLLERS, ("10.0.0.1",))) == NOTHING


def test_the_old_annotation_may_name_us_without_a_class_object() -> None:
    assert decide(Observed(ingress(legacy="wherry"), {}, ("10.0.0.1",))) != NOTHING


def test_what_is_right_is_not_written_and_no_node_means_no_address() -> None:
    shown = ingress(shown=[{"ip": "10.0.0.1"}])
    assert decide(Observed(shown, CONTROLLERS, ("10.0.0.1",))) == NOTHING
    assert decide(Observed(shown, CONTROLLERS, ())).status == put_status(INGRESSES, shown, {"loadBalancer": {}})
    assert decide(Observed(ingress(), CONTROLLERS, ())) == NOTHING
