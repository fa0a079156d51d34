"""Endpoint choice, rule by rule. Sources: virtual-ips, KEP-1669, KEP-2433, KEP-3015."""

from __future__ import annotations

import pytest

from agent.network.model import Endpoint, SlicePort
from agent.network.services.choice import Choice, choose, count_local
from tests.unit.network.services.records import HTTP, SITE, ending, endpoint, slice

A, B, C = "10.244.1.1", "10.244.2.2", "10.244.2.3"


def targets(*addresses: str) -> tuple[tuple[str, int], ...]:
    return tuple((address, 8080) for address in addresses)


TABLE: list[tuple[str, list[Endpoint], Choice]] = [
    ("nothing", [], Choice()),
    ("ready, here and there", [endpoint(A, "n1"), endpoint(B)], Choice(targets(A, B), targets(A), True, (A,))),
    ("not ready", [endpoint(A, "n1", ready=False)], Choice()),
    ("ending ones only", [ending(A, "n1"), ending(B)], Choice(targets(A, B), targets(A), True, (A,))),
    ("ending beside ready", [ending(A), endpoint(B)], Choice(targets(B), (), True)),
    ("local falls back by itself", [ending(A, "n1"), endpoint(B)], Choice(targets(B), targets(A), True, (A,))),
    ("ending, not serving", [endpoint(A, ready=False, serving=False, terminating=True)], Choice()),
    ("the node's own address is no hairpin", [endpoint("192.0.2.1", "n1")],
     Choice(targets("192.0.2.1"), targets("192.0.2.1"), True)),
    ("zones", [endpoint(A, for_zones=("z2",)), endpoint(B, for_zones=("z1",))], Choice(targets(B), (), True)),
    ("zones, one unhinted", [endpoint(A), endpoint(B, for_zones=("z1",))], Choice(targets(A, B), (), True)),
    ("zones, none for us", [endpoint(A, for_zones=("z2",))], Choice(targets(A), (), True)),
    ("nodes before zones", [endpoint(A, for_nodes=("n1",), for_zones=("z2",)),
                            endpoint(B, for_nodes=("n2",), for_zones=("z1",))], Choice(targets(A), (), True)),
    ("nodes, none for us: zones", [endpoint(A, for_nodes=("n3",), for_zones=("z2",)),
                                   endpoint(B, for_nodes=("n2",), for_zones=("z1",))], Choice(targets(B), (), True)),
    ("hints of endpoints that are not ready do not count",
     [endpoint(A, for_zones=("z1",), ready=False), endpoint(B, for_zones=("z2",))], Choice(targets(B), (), True)),
]  # fmt: skip


@pytest.mark.parametrize(("what", "endpoints", "expected"), TABLE, ids=[row[0] for row in TABLE])
def test_choice(what: str, endpoints: list[Endpoint], expected: Choice) -> None:
    assert choose(HTTP, [slice(*endpoints)], 4, SITE) == expected


def test_an_endpoint_in_two_slices_counts_once_in_its_better_state() -> None:
    twice = [slice(endpoint(A, ready=False)), slice(endpoint(A)), slice(ending(A))]
    assert choose(HTTP, twice, 4, SITE) == Choice(targets(A), (), True)


def test_ports_meet_by_name_and_protocol_and_families_do_not_mix() -> None:
    other = slice(endpoint(A), ports=(SlicePort("http", "UDP", 8080), SlicePort("admin", "TCP", 8080)))
    assert choose(HTTP, [other], 4, SITE) == Choice()
    assert choose(HTTP, [slice(endpoint("fd00:2::1"), address_type="IPv6")], 4, SITE) == Choice()
    assert choose(HTTP, [slice(endpoint("fd00:2::1"), address_type="IPv6")], 6, SITE).somewhere
    assert choose(HTTP, [slice(endpoint("example.org"), address_type="FQDN")], 4, SITE) == Choice()


def test_named_ports_may_differ_from_pod_to_pod() -> None:
    mixed = [slice(endpoint(A)), slice(endpoint(B), port=9090)]
    assert choose(HTTP, mixed, 4, SITE).cluster == ((A, 8080), (B, 9090))


def test_a_health_check_counts_ready_local_addresses_once() -> None:
    slices = [slice(endpoint(A, "n1"), ending(B, "n1"), endpoint(C, "n2")), slice(endpoint(A, "n1"), port=9090)]
    assert count_local(slices, "n1") == 1
