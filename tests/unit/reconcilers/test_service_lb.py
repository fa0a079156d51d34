"""Load balancers: who gets which addresses, who waits and why, and who answers."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from api.objects import Object
from controller.reconcilers.actions import Note, Together, Write
from controller.reconcilers.loop import NOTHING, Decision
from controller.reconcilers.service_lb import ANNOUNCER, Balanced, Observed, Server, decide, is_ours, outcomes_of
from controller.reconcilers.service_lb_watch import api_places, credible, server_of
from controller.registry.ranges import NO_POOL, ServiceRanges, parse_pool

A, B = Server("a", ("192.0.2.1",)), Server("b", ("192.0.2.2", "fd00::2"))
POOL = parse_pool("198.51.100.1-198.51.100.3")


def service(
    name: str, *shown: str, ports: tuple[int, ...] = (80,), created: int = 1, announcer: str = "", **spec: Any
) -> Object:
    meta: Object = {"name": name, "namespace": "shop", "uid": name, "creationTimestamp": f"2026-01-0{created}"}
    if announcer:
        meta["annotations"] = {ANNOUNCER: announcer}
    listed = [{"port": port, "protocol": "TCP"} for port in ports]
    body = {"type": "LoadBalancer", "ports": listed, "ipFamilies": ["IPv4"], **spec}
    ingress = [{"ip": address, "ipMode": "VIP"} for address in shown]
    return {"metadata": meta, "spec": body, "status": {"loadBalancer": {"ingress": ingress} if shown else {}}}


def observed(*services: Object, servers: tuple[Server, ...] = (A, B), **rest: Any) -> Observed:
    balanced = rest.pop("balanced", tuple(map(Balanced, services)))
    return Observed(rest.pop("pool", NO_POOL), servers, balanced, **rest)


def addresses(seen: Observed) -> dict[str, tuple[str, ...]]:
    return {outcome.service["metadata"]["name"]: outcome.addresses for outcome in outcomes_of(seen)}


def warnings(seen: Observed) -> dict[str, str]:
    found = ((outcome.service["metadata"]["name"], outcome.warning) for outcome in outcomes_of(seen))
    return {name: warning[1] for name, warning in found if warning is not None}


def writes(decision: Decision) -> list[Write]:
    together = [action for action in decision.actions if isinstance(action, Together)]
    return [one for phase in together for one in phase.actions if isinstance(one, Write)]


def reasons(decision: Decision) -> list[str]:
    found: list[str] = []
    for action in decision.actions:
        for one in action.actions if isinstance(action, Together) else (action,):
            note = one if isinstance(one, Note) else getattr(one, "note", None)
            found += [note.reason] if note is not None else []
    return found


def test_without_a_pool_a_service_gets_the_addresses_of_all_nodes_in_its_families() -> None:
    assert addresses(observed(service("x"))) == {"x": ("192.0.2.1", "192.0.2.2")}
    assert addresses(observed(service("x", ipFamilies=["IPv6"]))) == {"x": ("fd00::2",)}


def test_the_first_assignment_is_told_as_kubernetes_does() -> None:
    decision = decide(observed(service("x")))
    assert reasons(decision) == ["EnsuringLoadBalancer", "EnsuredLoadBalancer"]
    [write] = writes(decision)
    shown = [{"ip": address, "ipMode": "VIP"} for address in ("192.0.2.1", "192.0.2.2")]
    assert (write.subresource, write.replace) == ("status", {"status": {"loadBalancer": {"ingress": shown}}})
    assert decide(observed(service("x", "192.0.2.1", "192.0.2.2"))) is NOTHING


def test_a_node_that_came_or_went_is_told_as_an_update() -> None:
    assert reasons(decide(observed(service("x", "192.0.2.1")))) == ["UpdatedLoadBalancer"]


def test_without_a_node_there_is_a_warning_once_and_no_address() -> None:
    seen = observed(service("x"), servers=())
    assert reasons(decide(seen)) == ["UnAvailableLoadBalancer"]
    told = frozenset({("x", "There are no available nodes for LoadBalancer")})
    assert decide(observed(service("x"), servers=(), told=told)) is NOTHING


def test_the_second_service_on_a_port_waits_and_is_told_for_whom() -> None:
    seen = observed(service("young", created=2), service("old", created=1))
    assert addresses(seen) == {"old": ("192.0.2.1", "192.0.2.2"), "young": ()}
    assert warnings(seen)["young"].endswith("port 80/TCP of the nodes is held by Service shop/old")


def test_who_has_the_port_keeps_it_from_an_older_one() -> None:
    seen = observed(service("young", "192.0.2.1", "192.0.2.2", created=2), service("old", created=1))
    assert addresses(seen)["old"] == () and addresses(seen)["young"]


def test_a_node_port_of_another_service_is_no_port_for_a_load_balancer() -> None:
    held = {30080: "shop/web"}
    seen = observed(service("x", ports=(30080,)), service("web", ports=(80,)), node_ports=held)
    assert warnings(seen) == {
        "x": "Error syncing load balancer: failed to ensure load balancer: "
        "port 30080/TCP of the nodes is held by Service shop/web"
    }
    assert addresses(observed(service("web", ports=(30080,)), node_ports=held))["web"]


def test_ports_that_may_become_somebodys_node_port_are_no_load_balancers() -> None:
    assert warnings(observed(service("x", ports=(80, 31000)))) == {
        "x": "Error syncing load balancer: failed to ensure load balancer: "
        "port 31000/TCP is in the range of node ports, 30000-32767"
    }
    assert addresses(observed(service("x", ports=(31000,)), pool=POOL))["x"], "an address of its own has all ports"


@pytest.mark.parametrize(
    ("port", "protocol", "owner"),
    [
        (22, "TCP", "SSH"),
        (10250, "TCP", "the node's agent"),
        (6443, "TCP", "the API server"),
        (4789, "UDP", "the tunnel between nodes"),
    ],
)
def test_ports_that_nodes_need_themselves_stay_theirs(port: int, protocol: str, owner: str) -> None:
    address = {"type": "InternalIP", "address": "192.0.2.1"}
    servers = (server_of({"metadata": {"name": "a"}, "status": {"addresses": [address]}}, [("192.0.2.1", 6443)]),)
    wanting = service("x", "192.0.2.1")
    wanting["spec"]["ports"] = [{"port": port, "protocol": protocol}]
    assert warnings(observed(wanting, servers=servers))["x"].endswith(
        f"port {port}/{protocol} of the nodes is held by {owner}"
    )
    assert addresses(observed(wanting, servers=servers)) == {"x": ()}, "also if it had one"
    assert addresses(observed(wanting, servers=servers, pool=POOL))["x"], "an address of its own has all ports"
    elsewhere = (Server("b", ("192.0.2.2",)),)
    assert addresses(observed(wanting, servers=(*servers, *elsewhere))) == {"x": ("192.0.2.2",)}


@pytest.mark.parametrize(
    "told", ["10.96.0.1", "10.244.3.4", "198.51.100.2", "127.0.0.1", "::1", "fe80::1", "x", "0.0.0.0"]
)
def test_no_balancer_gets_what_a_node_cannot_have(told: str) -> None:
    """It may tell a Service's address, a pod's or everybody's own, and would have their traffic led away."""
    ranges = ServiceRanges(pods=(ip_network("10.244.0.0/16"),), balancers=POOL)
    assert credible(Server("a", (told, "192.0.2.1")), ranges).addresses == ("192.0.2.1",)


def test_the_api_servers_port_is_free_on_nodes_without_one() -> None:
    address = {"type": "InternalIP", "address": "192.0.2.1"}
    node = {"metadata": {"name": "a"}, "status": {"addresses": [address]}}
    slice = {"ports": [{"name": "https", "port": 6443}], "endpoints": [{"addresses": ["192.0.2.9"]}]}
    servers = (server_of(node, api_places(slice)),)
    assert addresses(observed(service("x", ports=(6443,)), servers=servers)) == {"x": ("192.0.2.1",)}


def test_only_nodes_with_endpoints_serve_local_traffic() -> None:
    seen = observed(balanced=(Balanced(service("x"), frozenset({"b"})),))
    assert addresses(seen) == {"x": ("192.0.2.2",)}


def test_ports_of_the_ingress_proxy_are_left_to_it() -> None:
    servers = (Server("a", ("192.0.2.1",), (((80, "TCP"), "the built-in Ingress proxy"),)), B)
    assert addresses(observed(service("x"), servers=servers)) == {"x": ("192.0.2.2",)}
    assert addresses(observed(service("x", ports=(8080,)), servers=servers)) == {"x": ("192.0.2.1", "192.0.2.2")}
    assert "Ingress" in warnings(observed(service("x"), servers=servers[:1]))["x"]


@pytest.mark.parametrize("pool", [NO_POOL, POOL])
@pytest.mark.proves("Service.spec.loadBalancerIP")
def test_an_address_that_was_asked_for_is_given_or_refused(pool: Any) -> None:
    there, elsewhere = ("192.0.2.2", "192.0.2.9") if not pool else ("198.51.100.2", "198.51.100.9")
    assert addresses(observed(service("x", loadBalancerIP=there), pool=pool)) == {"x": (there,)}
    assert elsewhere in warnings(observed(service("x", loadBalancerIP=elsewhere), pool=pool))["x"]


def test_a_pool_gives_each_service_an_address_and_a_node_that_answers() -> None:
    seen = observed(*(service(name) for name in "xyz"), pool=POOL)
    assert sorted(addresses(seen).values()) == [(f"198.51.100.{number}",) for number in (1, 2, 3)]
    announcers = [outcome.announcer for outcome in outcomes_of(seen)]
    assert sorted(announcers) == ["a", "a", "b"]
    first, second = (action for action in decide(seen).actions if isinstance(action, Together))
    assert all(isinstance(one, Write) and not one.subresource for one in first.actions), "announced, then shown"
    assert len(second.actions) == 6


def test_the_pool_is_used_up() -> None:
    seen = observed(*(service(str(number)) for number in range(4)), pool=POOL)
    assert warnings(seen) == {
        "3": "Error syncing load balancer: failed to ensure load balancer: the load balancer pool has no free address"
    }


def test_who_has_an_address_of_the_pool_keeps_it_whoever_comes_first() -> None:
    lost = service("lost", "203.0.113.1", created=1, announcer="a")
    kept = service("kept", "198.51.100.1", created=2, announcer="a")
    assert addresses(observed(lost, kept, pool=POOL)) == {"lost": ("198.51.100.2",), "kept": ("198.51.100.1",)}


def test_the_announcement_moves_when_its_node_is_lost_and_only_then() -> None:
    placed = service("x", "198.51.100.1", announcer="b")
    assert decide(observed(placed, pool=POOL)) is NOTHING
    [write] = writes(decide(observed(placed, servers=(A,), pool=POOL)))
    assert write.merge == {"metadata": {"annotations": {ANNOUNCER: "a"}}}
    nobody = decide(observed(placed, servers=(), pool=POOL))
    assert writes(nobody)[0].merge == {"metadata": {"annotations": {ANNOUNCER: None}}}
    assert reasons(nobody) == ["UnAvailableLoadBalancer"]


def test_a_service_that_is_no_load_balancer_any_more_gives_everything_back() -> None:
    left = service("x", announcer="a", type="ClusterIP")
    assert [write.merge for write in writes(decide(observed(left, pool=POOL)))] == [
        {"metadata": {"annotations": {ANNOUNCER: None}}}
    ]
    going = service("y", "192.0.2.1")
    going["metadata"]["deletionTimestamp"] = "2026-01-01"
    assert [write.replace for write in writes(decide(observed(going)))] == [{"status": {"loadBalancer": {}}}]


@pytest.mark.proves("Service.spec.loadBalancerClass")
def test_a_service_of_another_class_is_left_to_its_controller() -> None:
    assert is_ours({"spec": {"type": "LoadBalancer"}})
    assert not is_ours({"spec": {"type": "LoadBalancer", "loadBalancerClass": "example.com/metal"}})
