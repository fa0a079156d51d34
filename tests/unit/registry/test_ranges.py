"""The ranges of Services: what may be given, and what is tried first."""

from __future__ import annotations

import itertools
from ipaddress import ip_address, ip_network

import pytest

from controller.registry.ranges import Addresses, Ports, parse_pool, parse_port_range, parse_service_range


def test_the_default_range_holds_all_but_its_first_and_last_address() -> None:
    found = Addresses(ip_network("10.96.0.0/12"))
    assert (found.at(1), found.at(10), found.family) == ("10.96.0.1", "10.96.0.10", "IPv4")
    assert found.holds("10.96.0.1") and found.holds("10.111.255.254")
    assert not any(map(found.holds, ("10.96.0.0", "10.111.255.255", "10.112.0.1", "fd00::1")))


@pytest.mark.parametrize(
    ("cidr", "lowest"),
    [("10.96.0.0/12", 256), ("10.0.0.0/24", 16), ("10.0.0.0/20", 256), ("10.0.0.0/27", 16), ("10.0.0.0/28", 1)],
)
def test_addresses_nobody_asked_for_come_from_the_upper_part_first(cidr: str, lowest: int) -> None:
    """KEP-3070's table of sizes."""
    found = Addresses(ip_network(cidr))
    base = int(found.network.network_address)
    upper = found.size + 1 - lowest
    places = [int(ip_address(text)) - base for text in itertools.islice(found.tries(), min(upper, 5000))]
    assert min(places) >= lowest and max(places) <= found.size


def test_every_address_is_tried_once() -> None:
    found = Addresses(ip_network("10.0.0.0/26"))
    assert sorted(found.tries()) == sorted(str(one) for one in found.network.hosts())
    small = Addresses(ip_network("10.0.0.0/28"))
    assert sorted(small.tries()) == sorted(str(one) for one in small.network.hosts())


def test_a_huge_range_is_tried_without_being_listed() -> None:
    found = Addresses(ip_network("fd00::/64"))
    assert all(map(found.holds, itertools.islice(found.tries(), 100)))


def test_node_ports_come_from_above_30085_first() -> None:
    """KEP-3668: of 2768 ports the lowest 86 are for those who ask by number."""
    tried = list(Ports().tries())
    assert sorted(tried) == list(range(30000, 32768))
    assert min(tried[: 2768 - 86]) == 30086


def test_ranges_are_read_as_kube_apiserver_reads_them() -> None:
    assert parse_port_range("30000-30099") == Ports(30000, 30099) == parse_port_range("30000+100")
    assert parse_port_range("30000") == Ports(30000, 30000)
    assert [one.family for one in parse_service_range("fd00::/112,10.96.0.0/16")] == ["IPv6", "IPv4"]


@pytest.mark.parametrize("text", ["", "x", "200-100", "0-10", "1-70000", "30000+", "a-b"])
def test_bad_port_ranges_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"port range|invalid"):
        parse_port_range(text)


@pytest.mark.parametrize("text", ["", "10.96.0.1/12", "10.0.0.0/8", "10.0.0.0/29", "10.0.0.0/16,10.1.0.0/16", "x"])
def test_bad_service_ranges_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_service_range(text)


def test_a_pool_is_networks_and_spans() -> None:
    pool = parse_pool("192.0.2.0/30, 198.51.100.5-198.51.100.6, fd00::/127")
    assert list(pool.addresses("IPv4")) == ["192.0.2.1", "192.0.2.2", "198.51.100.5", "198.51.100.6"]
    assert list(pool.addresses("IPv6")) == ["fd00::", "fd00::1"]
    assert "192.0.2.2" in pool and "192.0.2.3" not in pool
    assert not parse_pool("")
