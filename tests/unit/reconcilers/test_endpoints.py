"""Endpoints and mirrored slices. Rules: k8s.io/kubernetes pkg/controller/endpoint and .../endpointslicemirroring."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from api.objects import Object, clone
from controller.reconcilers.actions import Action, Create, Delete, Note, Write, changer_of
from controller.reconcilers.endpoints import mirror
from controller.reconcilers.endpoints.endpoints import Observed, decide, subsets_of, truncated
from controller.reconcilers.endpoints.facts import ENDPOINTS
from controller.reconcilers.loop import NOTHING
from tests.unit.reconcilers.facts import EARLIER, NOW_TEXT, meta
from tests.unit.reconcilers.services import NAMES, pod, service

TRIGGER = "endpoints.kubernetes.io/last-change-trigger-time"
WEB = {"name": "web", "port": 8080, "protocol": "TCP"}


def address(number: int, **more: Any) -> Object:
    one = pod(number)
    target = {"kind": "Pod", "name": one.name, "namespace": "w", "uid": one.uid}
    return {"ip": one.addresses[0], "nodeName": "n", "targetRef": target, **more}


def stored(action: Action, present: Object | None = None) -> Object:
    """The object after a create or a write."""
    if isinstance(action, Create):
        made = clone(action.obj)
        made["metadata"] |= {"uid": f"uid-{made['metadata']['name']}", "resourceVersion": "7"}
        return made
    assert isinstance(action, Write)
    assert present is not None
    changed = changer_of(action)(clone(present))
    assert changed is not None
    return changed


def test_endpoints_tell_ready_and_unready_addresses_without_an_owner() -> None:
    members = (pod(2), replace(pod(1), serving=False), replace(pod(3), terminating=True))
    (create,) = decide(Observed(service(labels={"team": "a"}), None, members)).actions
    expected = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": "x",
            "namespace": "w",
            "labels": {"team": "a", "endpoints.kubernetes.io/managed-by": "endpoint-controller"},
            "annotations": {TRIGGER: EARLIER},
        },
        "subsets": [{"addresses": [address(2)], "notReadyAddresses": [address(1)], "ports": [WEB]}],
    }
    assert create == Create(ENDPOINTS, expected, trusted=True)
    assert decide(Observed(service(labels={"team": "a"}), stored(create), members)) == NOTHING


def test_a_change_of_readiness_is_written_with_its_time() -> None:
    (create,) = decide(Observed(service(), None, (replace(pod(1), serving=False),))).actions
    (write,) = decide(Observed(service(), stored(create), (pod(1),))).actions
    changed = stored(write, stored(create))
    assert changed["subsets"] == [{"addresses": [address(1)], "ports": [WEB]}]
    assert changed["metadata"]["annotations"] == {TRIGGER: NOW_TEXT}
    (write,) = decide(Observed(service(), changed, ())).actions
    assert TRIGGER not in stored(write, changed)["metadata"]["annotations"]


def test_endpoints_go_with_their_service() -> None:
    present = {"metadata": meta("x")}
    assert decide(Observed(None, present)).actions == (Delete(ENDPOINTS, "w", "x", "uid-x"),)
    assert decide(Observed(None)) == NOTHING


def test_pods_with_other_ports_stand_in_other_subsets() -> None:
    named = service(ports=[{"port": 80, "targetPort": "p"}])
    members = [replace(pod(number), ports=(("p", "TCP", 1 + number % 2),)) for number in range(3)]
    assert [(len(one["addresses"]), one["ports"]) for one in subsets_of(named, [*members, pod(9)])] == [
        (2, [{"port": 1, "protocol": "TCP"}]),
        (1, [{"port": 2, "protocol": "TCP"}]),
    ]


SERVICES: list[tuple[Object, Object, list[Object]]] = [
    ({"clusterIP": "None", "ports": []}, {}, [{"addresses": [address(1)]}]),
    ({"ports": []}, {}, []),
    ({"publishNotReadyAddresses": True}, {"serving": False}, [{"addresses": [address(1)], "ports": [WEB]}]),
    ({"publishNotReadyAddresses": True}, {"terminating": True}, [{"addresses": [address(1)], "ports": [WEB]}]),
    ({}, {"finished": True}, []),
    ({}, {"addresses": ()}, []),
    ({"ipFamilies": ["IPv6", "IPv4"]}, {}, []),
    ({}, {"hostname": "h", "subdomain": "x"}, [{"addresses": [address(1, hostname="h")], "ports": [WEB]}]),
]


@pytest.mark.parametrize(("spec", "facts", "expected"), SERVICES)
def test_what_is_told_of_a_pod(spec: Object, facts: Object, expected: list[Object]) -> None:
    assert subsets_of(service(**spec), [pod(1, **facts)]) == expected


CUT = [(800, 200, (800, 200)), (800, 300, (800, 200)), (1100, 5, (1000, 0))]


@pytest.mark.parametrize(("ready", "waiting", "left"), CUT)
def test_more_than_a_thousand_addresses_are_cut_the_ready_ones_last(
    ready: int, waiting: int, left: tuple[int, int]
) -> None:
    members = [pod(number, serving=number < ready) for number in range(ready + waiting)]
    subsets, cut = truncated(subsets_of(service(), members))
    counts = tuple(sum(len(one.get(part, ())) for one in subsets) for part in ("addresses", "notReadyAddresses"))
    assert (counts, cut) == (left, ready + waiting > 1000)
    (create,) = decide(Observed(service(), None, tuple(members))).actions
    told = stored(create)["metadata"]["annotations"].get("endpoints.kubernetes.io/over-capacity")
    assert told == ("truncated" if cut else None)
    assert decide(Observed(service(), stored(create), tuple(members))) == NOTHING


def test_subsets_are_cut_in_proportion() -> None:
    subsets = [{"addresses": [{"ip": str(n)} for n in range(count)]} for count in (900, 600)]
    assert [len(one["addresses"]) for one in truncated(subsets)[0]] == [600, 400]


def endpoints(*subsets: Object, **more: Any) -> Object:
    return {"apiVersion": "v1", "kind": "Endpoints", "metadata": meta("x", **more), "subsets": list(subsets)}


SUBSET = {"addresses": [{"ip": "10.1.1.1", "hostname": "h"}], "notReadyAddresses": [{"ip": "fd00:0::1"}]}
ALONE = service(selector=None)


def mirrored(found: Object, slices: tuple[Object, ...] = (), svc: Object | None = ALONE) -> tuple[Action, ...]:
    return mirror.decide(mirror.Observed(found, svc, slices, NAMES)).actions


def test_endpoints_of_a_service_without_selector_are_mirrored_a_family_a_slice() -> None:
    found = endpoints(SUBSET | {"ports": [{"port": 5}]}, labels={"a": "b"}, annotations={"c": "d", TRIGGER: "e"})
    slices = tuple(stored(action) for action in mirrored(found))
    shown = [(one["addressType"], one["endpoints"], one["ports"]) for one in slices]
    port = {"name": "", "port": 5, "protocol": "TCP"}
    assert shown == [
        ("IPv4", [{"addresses": ["10.1.1.1"], "conditions": {"ready": True}, "hostname": "h"}], [port]),
        ("IPv6", [{"addresses": ["fd00::1"], "conditions": {"ready": False}}], [port]),
    ]
    labels = {"endpointslice.kubernetes.io/managed-by": mirror.MANAGER, "kubernetes.io/service-name": "x", "a": "b"}
    assert all(one["metadata"]["labels"] == labels for one in slices)
    assert all(one["metadata"]["annotations"] == {"c": "d"} for one in slices)
    assert slices[0]["metadata"]["ownerReferences"][0]["kind"] == "Endpoints"
    assert mirrored(found, slices) == ()
    (write,) = mirrored(endpoints(SUBSET | {"ports": [{"port": 5}]}, labels={"a": "b"}), slices)[:1]
    assert stored(write, slices[0])["metadata"]["annotations"] == {}


@pytest.mark.parametrize(
    "case",
    [
        (endpoints(SUBSET, labels={mirror.SKIP: "true"}), ALONE),
        (endpoints(SUBSET, annotations={"control-plane.alpha.kubernetes.io/leader": "{}"}), ALONE),
        (endpoints(SUBSET), None),
        (endpoints(SUBSET), service()),
    ],
)
def test_what_is_not_mirrored_loses_its_slices(case: tuple[Object, Object | None]) -> None:
    slices = tuple(stored(action) for action in mirrored(endpoints(SUBSET)))
    assert [type(action) for action in mirrored(case[0], slices, case[1])] == [Delete, Delete]
    assert mirrored(case[0], (), case[1]) == ()


def test_a_subset_is_mirrored_up_to_a_thousand_addresses_and_that_is_told() -> None:
    crowd = {"addresses": [{"ip": f"10.1.{n // 250}.{n % 250}"} for n in range(1001)]}
    create, note = mirrored(endpoints(crowd))
    assert len(stored(create)["endpoints"]) == 1000
    assert isinstance(note, Note)
    assert note.message.endswith("1 addresses were skipped")


def test_a_slice_that_is_free_takes_the_place_of_a_new_one() -> None:
    (create,) = mirrored(endpoints({"addresses": [{"ip": "10.1.1.1"}], "ports": [{"port": 5}]}))
    moved = endpoints({"addresses": [{"ip": "10.1.1.1"}], "ports": [{"port": 6}]})
    (write,) = mirrored(moved, (stored(create),))
    assert stored(write, stored(create))["ports"][0]["port"] == 6
