"""Which conntrack entries of UDP services are stale, and what health checks and announcements say."""

from __future__ import annotations

from agent.network.conntrack import Flow
from agent.network.model import ServicePort
from agent.network.services.announce import gratuitous_arp, ways_to
from agent.network.services.flows import is_stale, routes_of
from agent.network.services.health import Check, render_answer
from tests.unit.network.services.records import SITE, endpoint, service, slice

DNS = ServicePort("http", "UDP", 53, node_port=30_053)
A, B = ("10.244.1.1", 8080), ("10.244.1.2", 8080)
OWN = ("192.0.2.1",)


def test_routes_are_those_of_udp_ports() -> None:
    slices = [slice(endpoint(A[0]), ports=(slice().ports[0].__class__("http", "UDP", 8080),))]
    routes = routes_of(service(ports=(DNS,), external_ips=("203.0.113.9",)), slices, SITE)
    to = frozenset((A,))
    assert routes == {("10.96.1.1", 53): to, ("203.0.113.9", 53): to, ("", 30_053): to}
    assert routes_of(service(), slices, SITE) == {}


def test_a_flow_is_stale_when_it_leads_to_no_endpoint() -> None:
    routes = {("10.96.1.1", 53): frozenset((A,)), ("", 30_053): frozenset((A,))}
    assert not is_stale(Flow(("10.96.1.1", 53), A), routes, OWN)
    assert is_stale(Flow(("10.96.1.1", 53), B), routes, OWN)
    assert is_stale(Flow(("10.96.1.1", 53), ("10.96.1.1", 53)), routes, OWN), "made before there were endpoints"
    assert not is_stale(Flow(("10.96.1.2", 53), B), routes, OWN)


def test_a_node_port_counts_on_our_own_addresses_only() -> None:
    routes = {("", 30_053): frozenset((A,))}
    assert is_stale(Flow(("192.0.2.1", 30_053), ("192.0.2.1", 30_053)), routes, OWN)
    assert is_stale(Flow(("192.0.2.7", 30_053), B), routes, OWN), "translated here"
    assert not is_stale(Flow(("192.0.2.2", 30_053), ("192.0.2.2", 30_053)), routes, OWN), "on its way to another node"


def test_a_health_answer_is_kube_proxys() -> None:
    answer = render_answer(Check(("shop", "web"), 2), True)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"X-Load-Balancing-Endpoint-Weight: 2" in head
    assert b"X-Content-Type-Options: nosniff" in head
    expected = '{\n\t"service": {\n\t\t"namespace": "shop",\n\t\t"name": "web"\n\t},\n'
    assert body.decode() == expected + '\t"localEndpoints": 2,\n\t"serviceProxyHealthy": true\n}'
    assert render_answer(Check(("shop", "web"), 0), True).startswith(b"HTTP/1.1 503 ")
    assert render_answer(Check(("shop", "web"), 1), False).startswith(b"HTTP/1.1 503 ")


def test_neighbours_are_told_on_the_links_towards_the_address() -> None:
    def link(name: str, address: str, prefix: int) -> dict[str, object]:
        inet = {"family": "inet", "local": address, "prefixlen": prefix}
        return {"ifname": name, "link_type": "ether", "address": "02:00:00:00:00:01", "addr_info": [inet]}

    links = [link("eth0", "192.0.2.1", 24), link("eth1", "198.51.100.1", 24)]
    assert [name for name, _ in ways_to("198.51.100.9", links, "192.0.2.1")] == ["eth1"]
    assert [name for name, _ in ways_to("203.0.113.9", links, "192.0.2.1")] == ["eth0"]
    frame = gratuitous_arp("203.0.113.9", bytes(6))
    assert (len(frame), frame[28:32], frame[38:42]) == (42, bytes((203, 0, 113, 9)), bytes((203, 0, 113, 9)))
