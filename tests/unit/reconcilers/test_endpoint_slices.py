"""EndpointSlice decisions. Rules: k8s.io/endpointslice and https://kubernetes.io/docs/concepts/services-networking/."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from api.errors import Forbidden
from api.objects import Object, clone
from controller.reconcilers.actions import Create, Delete, Write
from controller.reconcilers.endpoints.facts import SLICES, EndpointPod, endpoint_pod
from controller.reconcilers.endpoints.slices import MOST_ENDPOINTS, decide, fill
from controller.reconcilers.loop import NOTHING, Decision, Failure
from tests.unit.reconcilers.facts import EARLIER, NOW_TEXT, pod_object
from tests.unit.reconcilers.services import LABELS, NAMES, OWNER, WEB, applied, flat, pod, pods, seen, service


def endpoint(number: int, *, ready: bool = True, **more: Any) -> Object:
    one = pod(number)
    return {
        "addresses": list(one.addresses),
        "conditions": {"ready": ready, "serving": ready, "terminating": False},
        "targetRef": {"kind": "Pod", "name": one.name, "namespace": "w", "uid": one.uid},
        "nodeName": "n",
        **more,
    }


def only(slices: Sequence[Object]) -> Object:
    (one,) = slices
    return one


def test_a_service_without_pods_has_one_empty_slice_without_ports() -> None:
    decision = decide(seen(service(labels={"team": "a"}), ()))
    expected: Object = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "x-a",
            "generateName": "x-",
            "namespace": "w",
            "labels": {"team": "a", **LABELS},
            "ownerReferences": [OWNER],
            "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": EARLIER},
        },
        "addressType": "IPv4",
        "endpoints": None,
        "ports": None,
    }
    assert decision == Decision((Create(SLICES, expected, trusted=True),))
    made = applied(seen(service(labels={"team": "a"}), ()))
    assert decide(seen(service(labels={"team": "a"}), (), made)) == NOTHING


def test_the_empty_slice_is_filled_and_emptied_again_without_a_second_one() -> None:
    empty = applied(seen(service(), ()))
    full = applied(seen(service(), pods(2), empty))
    assert only(full)["endpoints"] == [endpoint(0), endpoint(1)]
    assert only(full)["ports"] == [WEB]
    assert only(full)["metadata"]["annotations"] == {"endpoints.kubernetes.io/last-change-trigger-time": NOW_TEXT}
    assert decide(seen(service(), pods(2), full)) == NOTHING
    again = only(applied(seen(service(), (), full)))
    assert (again["endpoints"], again["ports"], again["metadata"]["name"]) == (None, None, "x-a")
    assert again["metadata"]["annotations"] == {}


CONDITIONS = [
    ({}, {}, (True, True, False)),
    ({"serving": False}, {}, (False, False, False)),
    ({"terminating": True}, {}, (False, True, True)),
    ({"serving": False, "terminating": True}, {}, (False, False, True)),
    ({"serving": False}, {"publishNotReadyAddresses": True}, (True, False, False)),
    ({"serving": False, "terminating": True}, {"publishNotReadyAddresses": True}, (True, False, True)),
]


@pytest.mark.parametrize(("facts", "spec", "expected"), CONDITIONS)
def test_conditions_tell_ready_serving_terminating(
    facts: Object, spec: Object, expected: tuple[bool, bool, bool]
) -> None:
    made = only(applied(seen(service(**spec), [pod(1, **facts)])))
    conditions = made["endpoints"][0]["conditions"]
    assert (conditions["ready"], conditions["serving"], conditions["terminating"]) == expected


@pytest.mark.parametrize(
    "facts", [{"finished": True}, {"addresses": ()}, {"node": "lost"}, {"addresses": ("fd00::1",)}]
)
def test_pods_that_are_no_endpoints(facts: Object) -> None:
    assert only(applied(seen(service(), [pod(1, **facts)])))["endpoints"] is None


@pytest.mark.proves("Service.spec.publishNotReadyAddresses")
def test_a_pod_whose_node_is_gone_stays_where_unready_addresses_are_published() -> None:
    made = only(applied(seen(service(publishNotReadyAddresses=True), [pod(1, node="lost")])))
    assert made["endpoints"][0]["nodeName"] == "lost"


@pytest.mark.proves("Service.spec.ports.targetPort", "Service.spec.ports.name")
def test_named_ports_that_differ_from_pod_to_pod_make_slices_of_their_own() -> None:
    named = service(ports=[{"port": 80, "targetPort": "p"}, {"name": "u", "port": 53, "protocol": "UDP"}])
    first, second, none = (pod(number) for number in range(3))
    first, second = replace(first, ports=(("p", "TCP", 1),)), replace(second, ports=(("p", "TCP", 2),))
    wrong = replace(none, ports=(("p", "UDP", 3),))
    made = applied(seen(named, (first, second, wrong)))
    dns = {"name": "u", "port": 53, "protocol": "UDP"}
    assert [one["ports"] for one in made] == [
        [{"name": "", "port": 1, "protocol": "TCP"}, dns],
        [{"name": "", "port": 2, "protocol": "TCP"}, dns],
        [dns],
    ]
    assert decide(seen(named, (first, second, wrong), made)) == NOTHING


def test_a_headless_service_without_ports_has_endpoints_without_ports() -> None:
    made = only(applied(seen(service(clusterIP="None", ports=[]), pods(1))))
    assert (made["ports"], len(made["endpoints"])) == (None, 1)
    assert made["metadata"]["labels"]["service.kubernetes.io/headless"] == ""


def test_both_families_have_slices() -> None:
    dual = service(ipFamilies=["IPv4", "IPv6"])
    made = applied(seen(dual, [pod(1, addresses=("10.244.0.3", "fd00::3"))]))
    assert [(one["addressType"], one["endpoints"][0]["addresses"]) for one in made] == [
        ("IPv4", ["10.244.0.3"]),
        ("IPv6", ["fd00::3"]),
    ]
    single = applied(seen(service(), [pod(1)], made))
    assert [one["addressType"] for one in single] == ["IPv4"]


def test_hostname_zone_and_app_protocol_are_told() -> None:
    headless = service(ports=[{"port": 80, "appProtocol": "kubernetes.io/h2c"}])
    named = pod(1, hostname="h", subdomain="x")
    made = only(applied(seen(headless, [named, pod(2, hostname="h", subdomain="y")], zones={"n": "z"})))
    assert made["endpoints"][0] == endpoint(1, hostname="h", zone="z")
    assert made["endpoints"][1] == endpoint(2, zone="z")
    assert made["ports"][0]["appProtocol"] == "kubernetes.io/h2c"


ZONE_HINT, NODE_HINT = {"forZones": [{"name": "z"}]}, {"forNodes": [{"name": "n"}]}
HINTS = [
    (None, "z", {}),
    ("PreferClose", "z", {"hints": ZONE_HINT}),
    ("PreferSameZone", "z", {"hints": ZONE_HINT}),
    ("PreferSameNode", "z", {"hints": ZONE_HINT | NODE_HINT}),
    ("PreferSameNode", "", {"hints": NODE_HINT}),
    ("PreferClose", "", {}),
]


@pytest.mark.parametrize(("distribution", "zone", "hints"), HINTS)
@pytest.mark.proves("Service.spec.trafficDistribution")
def test_traffic_distribution_gives_hints_to_ready_endpoints(
    distribution: str | None, zone: str, hints: Object
) -> None:
    spread = service(trafficDistribution=distribution)
    made = only(applied(seen(spread, [pod(1), pod(2, serving=False)], zones={"n": zone})))
    zoned: Object = {"zone": zone} if zone else {}
    assert made["endpoints"] == [endpoint(1, **zoned, **hints), endpoint(2, ready=False, **zoned)]


def test_labels_follow_the_service_but_for_the_reserved_ones() -> None:
    made = applied(seen(service(labels={"a": "1", "kubernetes.io/service-name": "evil"}), pods(1)))
    assert only(made)["metadata"]["labels"] == {"a": "1", **LABELS}
    changed = applied(seen(service(labels={"b": "2"}), pods(1), made))
    assert only(changed)["metadata"]["labels"] == {"b": "2", **LABELS}


def test_a_slice_holds_a_hundred_and_one_change_rewrites_one_slice() -> None:
    members = pods(250)
    made = applied(seen(service(), members))
    assert [len(one["endpoints"]) for one in made] == [100, 100, 50]
    unready = tuple(replace(one, serving=False) if one.name == "p120" else one for one in members)
    (write,) = flat(decide(seen(service(), unready, made)))
    assert isinstance(write, Write)
    assert write.name == made[1]["metadata"]["name"]


def test_new_endpoints_go_into_changed_slices_then_where_they_all_fit_then_into_new_ones() -> None:
    present = [{"endpoints": [endpoint(n) for n in range(98)]}, {"endpoints": [endpoint(n) for n in range(98, 168)]}]
    wanted = {one.name: endpoint(number) for number, one in enumerate(pods(200))}
    del wanted["p000"]
    assert [len(endpoints) for _, endpoints in fill(wanted, present)] == [100, 99]
    more = {one.name: endpoint(number) for number, one in enumerate(pods(200))}
    assert [len(endpoints) for _, endpoints in fill(more, present)] == [98, 70, 32]
    few = {name: one for name, one in more.items() if name < "p170"}
    assert [len(endpoints) for _, endpoints in fill(few, present)] == [100, 70]


def test_slices_of_a_former_service_of_that_name_go() -> None:
    former = clone(only(applied(seen(service(), pods(1)))))
    former["metadata"]["ownerReferences"][0]["uid"] = "other"
    new = seen(service(), pods(1), [former], names=NAMES[1:])
    assert [type(action) for action in flat(decide(new))] == [Create, Delete]


def test_a_service_that_is_being_deleted_gets_no_new_slices() -> None:
    going = service()
    going["metadata"]["deletionTimestamp"] = NOW_TEXT
    assert decide(seen(going, pods(1))) == NOTHING


def test_nothing_is_tried_in_a_namespace_that_ends() -> None:
    refused = Failure(Forbidden("no", details={"causes": [{"reason": "NamespaceTerminating"}]}))
    assert decide(seen(service(), pods(1), failure=refused)) == NOTHING


def test_what_an_endpoint_needs_is_read_from_a_pod() -> None:
    containers = [{"name": "c", "ports": [{"name": "p", "containerPort": 1}, {"containerPort": 2}]}]
    stays = {"name": "s", "restartPolicy": "Always", "ports": [{"name": "q", "containerPort": 3, "protocol": "UDP"}]}
    ends = {"name": "i", "ports": [{"name": "r", "containerPort": 4}]}
    spec = {"hostname": "h", "subdomain": "x", "containers": containers, "initContainers": [stays, ends]}
    found = endpoint_pod(pod_object("p", spec=spec, status={"podIPs": [{"ip": "10.1.1.1"}, {"ip": "FD00:0::1"}]}))
    expected = EndpointPod("w", "p", "uid-p", ("10.1.1.1", "fd00::1"), serving=True, node="n", hostname="h")
    assert found == replace(expected, subdomain="x", ports=(("p", "TCP", 1), ("q", "UDP", 3)))
    assert endpoint_pod(pod_object("p", ready=False, status={"podIP": "10.1.1.1"})).addresses == ("10.1.1.1",)


def test_the_largest_slice_is_what_kubernetes_makes() -> None:
    assert MOST_ENDPOINTS == 100
