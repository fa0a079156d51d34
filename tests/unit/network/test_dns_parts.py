"""The small rules of the node's DNS: addresses, resolv.conf, how long answers live, what the kernel and process get."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.network.dns import wire
from agent.network.dns.addresses import default_addresses, served_addresses
from agent.network.dns.cache import Cache, Question, lifetime
from agent.network.dns.feeding import pack_service, pack_slice
from agent.network.dns.link import link_name, render_notrack
from agent.network.dns.records import KnownEndpoint, KnownService, KnownSlice
from agent.network.dns.resolv import parse_nameservers
from agent.network.dns.reverse import ReverseZones, address_of_name, reverse_name
from agent.network.dns.wire import Record, Reply, encode_name, labels_of
from agent.network.model import parse_service, parse_slice
from agent.pods.dns import servers_file

NAME = encode_name("www.example.com")
SOA = Record(encode_name("example.com"), wire.SOA, 60, b"\0\0" + b"\0" * 16 + (7).to_bytes(4, "big"))


def address(ttl: int) -> Record:
    return Record(NAME, wire.A, ttl, b"\1\2\3\4")


def test_dns_has_the_tenth_address_of_each_range() -> None:
    assert default_addresses("10.96.0.0/12") == ("10.96.0.10",)
    assert default_addresses("10.43.0.0/16,fd00:96::/112") == ("10.43.0.10", "fd00:96::a")


def test_given_addresses_are_ours_when_they_can_be_local() -> None:
    given = ("10.96.0.53", "169.254.20.10", "192.0.2.53")
    assert served_addresses("10.96.0.0/12", given) == ("10.96.0.10", "10.96.0.53", "169.254.20.10")


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("", []),
        ("nameserver 192.0.2.1\n", ["192.0.2.1"]),
        ("# nameserver 192.0.2.9\nnameserver\nnameserver x\n nameserver 192.0.2.1 # first\n", ["192.0.2.1"]),
        ("nameserver 10.96.0.10\nnameserver 192.0.2.1\n", ["192.0.2.1"]),
        ("nameserver fe80::1%eth0\nnameserver 2001:db8::1\n", ["fe80::1%eth0", "2001:db8::1"]),
        ("".join(f"nameserver 192.0.2.{n}\n" for n in range(5)), ["192.0.2.0", "192.0.2.1", "192.0.2.2"]),
    ],
)
def test_upstreams_are_the_first_three_servers_but_never_ourselves(text: str, servers: list[str]) -> None:
    assert parse_nameservers(text, ("10.96.0.10",)) == servers


def test_pods_are_not_given_a_loopback_server(tmp_path: Path) -> None:
    stub, real, absent = tmp_path / "stub", tmp_path / "real", tmp_path / "absent"
    stub.write_text("nameserver 127.0.0.53\n")
    real.write_text("nameserver 192.0.2.1\n")
    assert servers_file(stub, real) == real
    assert servers_file(real, stub) == real
    assert servers_file(stub, absent) == stub
    assert servers_file(absent, real) == absent


@pytest.mark.parametrize(
    ("reply", "seconds"),
    [
        (Reply(0, 0, [address(300)]), 30),
        (Reply(0, 0, [address(9), address(4)]), 4),
        (Reply(0, 0, [address(0)]), 0),
        (Reply(wire.NXDOMAIN, 0, [], [SOA]), 7),
        (Reply(0, 0, [], [SOA]), 7),
        (Reply(0, 0, [Record(NAME, wire.CNAME, 3, NAME)], [SOA]), 3),
        (Reply(wire.NXDOMAIN), 0),
        (Reply(0), 0),
        (Reply(wire.SERVFAIL), 1),
    ],
)
def test_answers_live_by_their_ttl_and_denials_by_their_soa(reply: Reply, seconds: int) -> None:
    assert lifetime(reply) == seconds


def test_the_cache_ages_what_it_gives_and_is_bounded() -> None:
    cache = Cache(entries=3, most_bytes=1 << 20)
    questions = [Question(encode_name(f"n{number}.example.com"), wire.A) for number in range(4)]
    for question in questions[:3]:
        cache.put(question, Reply(0, 0, [address(20)]), 100.0)
    assert cache.get(questions[0], 105.0) is not None
    cache.put(questions[3], Reply(0, 0, [address(20)]), 106.0)
    assert [cache.get(question, 106.0) is not None for question in questions] == [True, False, True, True]
    entry = cache.get(questions[0], 107.5)
    assert entry is not None and entry.aged(107.5).answer[0].ttl == 13
    assert not entry.fresh(120.0) and entry.aged(130.0).answer[0].ttl == 5
    assert cache.get(questions[0], 120.0 + 3601) is None


def test_the_cache_is_bounded_by_bytes_too() -> None:
    cache = Cache(entries=1000, most_bytes=10_000)
    for number in range(100):
        cache.put(Question(encode_name(f"n{number}.example.com"), wire.A), Reply(0, 0, [address(20)]), 1.0)
    assert 5 < len(cache) < 30


def test_a_failure_does_not_displace_an_answer() -> None:
    cache, question = Cache(), Question(NAME, wire.A)
    cache.put(question, Reply(0, 0, [address(1)]), 1.0)
    cache.put(question, Reply(wire.SERVFAIL), 10.0)
    entry = cache.get(question, 10.0)
    assert entry is not None and entry.reply.rcode == 0


@pytest.mark.parametrize(
    ("name", "apex"),
    [
        ("10.0.96.10.in-addr.arpa", "96.10.in-addr.arpa"),
        ("1.2.111.10.in-addr.arpa", "111.10.in-addr.arpa"),
        ("1.2.112.10.in-addr.arpa", None),
        ("10.in-addr.arpa", None),
        ("096.10.in-addr.arpa", None),
        ("x.96.10.in-addr.arpa", "96.10.in-addr.arpa"),
        ("1.15.244.10.in-addr.arpa", "15.244.10.in-addr.arpa"),
        ("1.16.244.10.in-addr.arpa", None),
        ("www.example.com", None),
    ],
)
def test_reverse_zones_end_at_labels(name: str, apex: str | None) -> None:
    zones = ReverseZones(["10.96.0.0/12", "10.244.0.0/20", "fd00::/64"])
    assert zones.apex_of(encode_name(name)) == (encode_name(apex) if apex else None)


@pytest.mark.parametrize("ip", ["10.96.0.10", "0.0.0.0", "255.255.255.255", "fd00:96::a", "::1"])
def test_reverse_names_lead_back(ip: str) -> None:
    assert address_of_name(reverse_name(ip)) == ip
    assert address_of_name(encode_name("www.example.com")) is None


def test_names_too_long_for_dns_are_refused() -> None:
    assert labels_of(encode_name("A.b.")) == ["a", "b"] and encode_name(".") == b"\0"
    for text in ("a" * 64, "a..b", ".".join(["a" * 60] * 5)):
        with pytest.raises(wire.Malformed):
            encode_name(text)


def test_the_kernel_does_not_track_queries_nor_replies() -> None:
    text = render_notrack("0123456789", ["10.96.0.10", "fd00::a"])
    assert text.count("ip daddr { 10.96.0.10 } meta l4proto { tcp, udp } th dport 53 notrack") == 2
    assert text.count("ip6 saddr { fd00::a } meta l4proto { tcp, udp } th sport 53 notrack") == 2
    assert len(link_name("0123456789abcdef")) <= 15


def test_the_process_is_told_no_more_than_names_need() -> None:
    ports = [{"name": "HTTP", "port": 80}, {"port": 81}]
    meta = {"namespace": "ns", "name": "x"}
    spec = {"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ports": ports}
    packed = pack_service(parse_service({"metadata": meta, "spec": spec}))
    assert packed == KnownService(("10.96.0.1",), False, "", (("http", "tcp", 80),), False)
    external = {"type": "ExternalName", "externalName": "WWW.Example.com", "clusterIP": "None"}
    assert pack_service(parse_service({"metadata": meta, "spec": external})) == KnownService(
        (), False, "www.example.com", (), False
    )


def test_slices_that_give_no_names_are_not_told() -> None:
    meta = {"namespace": "ns", "name": "x-1", "labels": {"kubernetes.io/service-name": "x"}}
    endpoints = [{"addresses": ["10.244.0.1"], "hostname": "Pet", "conditions": {"ready": False}}]
    told = pack_slice(parse_slice({"metadata": meta, "addressType": "IPv4", "endpoints": endpoints}))
    assert told == KnownSlice("x", (), (KnownEndpoint(("10.244.0.1",), "pet", False),))
    assert pack_slice(parse_slice({"metadata": meta, "addressType": "FQDN"})) is None
    assert pack_slice(parse_slice({"metadata": {**meta, "labels": {}}, "addressType": "IPv4"})) is None
