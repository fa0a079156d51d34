"""What a service becomes in nftables."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.network.model import ServicePort
from agent.network.services.render import EMPTY, MARK, MOST_RULES, Block, Draw, render
from tests.unit.network.services.records import HTTP, SITE, endpoint, service, slice

A, B = "10.244.1.1", "10.244.2.2"
WEB = "shop/web/tcp/80"


def test_a_cluster_ip_leads_to_a_cascade_of_draws() -> None:
    block = render(service(), [slice(endpoint(A, "n1"), endpoint(B))], 4, SITE)
    assert block == Block(
        {f"cluster/{WEB}": (
            f"numgen random mod 2 < 1 meta l4proto tcp dnat ip to {A}:8080",
            f"meta l4proto tcp dnat ip to {B}:8080",
        )},
        (),
        {
            ("cluster-ips", "10.96.1.1"): "",
            ("hairpins", f"{A} . {A}"): "",
            ("services", "10.96.1.1 . tcp . 80"): f"goto cluster/{WEB}",
        },
    )  # fmt: skip


def test_what_has_no_address_or_another_proxy_needs_nothing() -> None:
    slices = [slice(endpoint(A))]
    assert render(service(ip="", headless=True), slices, 4, SITE) == EMPTY
    assert render(service(ip="", type="ExternalName", external_name="x.org"), slices, 4, SITE) == EMPTY
    assert render(service(served_elsewhere=True), slices, 4, SITE) == EMPTY
    assert render(service(), slices, 6, SITE) == EMPTY


def test_many_endpoints_share_one_draw_for_each_port() -> None:
    some = [f"10.244.3.{number}" for number in range(MOST_RULES)]
    slices = [slice(*(endpoint(address) for address in some)), slice(endpoint(A), port=9090)]
    rules = render(service(), slices, 4, SITE).chains[f"cluster/{WEB}"]
    dnat = "meta l4proto tcp dnat ip to"
    assert rules == (
        Draw((A,), f"numgen random mod 17 < 1 {dnat}", "map @endpoints : 9090"),
        Draw(tuple(sorted(some)), dnat, "map @endpoints : 8080"),
    )


def test_the_family_is_that_of_the_cluster_ip() -> None:
    node_port = replace(HTTP, node_port=30_080)
    six = service(ip="fd00:1::1", type="NodePort", ports=(node_port,), external_local=True)
    block = render(six, [slice(endpoint("fd00:2::1", "n1"), address_type="IPv6")], 6, SITE)
    assert block.chains[f"local/{WEB}"] == ("meta l4proto tcp dnat ip6 to [fd00:2::1]:8080",)
    assert block.chains[f"external/{WEB}"] == (
        f"ip6 saddr fd00:2::/56 goto cluster/{WEB}",
        f"fib saddr type local {MARK}",
        f"fib saddr type local goto cluster/{WEB}",
        f"goto local/{WEB}",
    )
    assert ("node-ports", "tcp . 30080") in block.elements
    assert render(six, [], 4, SITE) == EMPTY


def test_sctp_ports_are_served() -> None:
    block = render(service(ports=(ServicePort("http", "TCP", 80), ServicePort("s", "SCTP", 80))), [], 4, SITE)
    assert block.elements[("services", "10.96.1.1 . sctp . 80")] == "goto refuse"


def test_each_endpoint_has_its_own_set_of_clients() -> None:
    block = render(service(affinity_seconds=60), [slice(endpoint(A), endpoint(B))], 4, SITE)
    first, second = (f"affinity/{WEB}/{address}/8080" for address in (A, B))
    assert block.sets == (first, second)
    rules = block.chains[f"cluster/{WEB}"]
    renew = f"update @{first} {{ ip saddr timeout 60s }} meta l4proto tcp dnat ip to {A}:8080"
    assert rules[0] == f"ip saddr @{first} {renew}"
    assert rules[2] == f"numgen random mod 2 < 1 {renew}"
    assert rules[-1] == f"meta l4proto tcp dnat ip to {B}:8080", "when the sets are full"


def test_where_this_node_is_in_a_source_range_its_own_connections_pass() -> None:
    balanced = service(type="LoadBalancer", balancer_ips=("203.0.113.1",), source_ranges=("192.0.2.0/28",))
    chains = render(balanced, [slice(endpoint(A))], 4, SITE).chains
    assert chains[f"firewall/{WEB}"] == (
        f"ip saddr 192.0.2.0/28 goto external/{WEB}",
        f"ip saddr 203.0.113.1 goto external/{WEB}",
        "drop",
    )


@pytest.mark.parametrize("stolen", ["10.96.0.1", "10.244.2.2", "127.0.0.1"])
def test_no_balanced_address_leads_away_what_is_the_clusters(stolen: str) -> None:
    balanced = service(type="LoadBalancer", balancer_ips=(stolen, "203.0.113.1"))
    led = [key for name, key in render(balanced, [slice(endpoint(A))], 4, SITE).elements if name == "services"]
    assert led == ["10.96.1.1 . tcp . 80", "203.0.113.1 . tcp . 80"]


def test_a_pool_address_is_announced_by_the_node_that_is_named() -> None:
    mine = service(type="LoadBalancer", balancer_ips=("203.0.113.1", "192.0.2.1"), announcer="n1")
    announced = [key for name, key in render(mine, [], 4, SITE).elements if name == "announced"]
    assert announced == ["203.0.113.1"]
    assert not [key for name, key in render(replace(mine, announcer="n2"), [], 4, SITE).elements if name == "announced"]
