"""DNS: our answers, parsed by dnspython, equal a reference written from the specification; nonsense does no harm.

Reference: Kubernetes DNS-Based Service Discovery 1.1.0 (github.com/kubernetes/dns docs/specification.md). It makes a
list of all records that shall exist, with dnspython's names and data, and answers by RFC 1034: a name with records of
the type has them, a name that exists or has something below it has none, any other does not exist.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
from collections.abc import Iterable
from dataclasses import dataclass

import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.reversename
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.network.dns.records import KnownEndpoint, KnownService, KnownSlice
from agent.network.dns.resolver import Resolver
from agent.network.dns.responder import Pending, Responder
from agent.network.dns.upstream import Upstreams
from agent.network.dns.wire import Malformed, parse_query, parse_response
from agent.network.dns.zone import Zone

ZONE, SERVER = "cluster.local.", "10.96.0.10"
CIDRS = ("10.96.0.0/12", "10.244.0.0/20", "fd00:96::/112", "fd00:10::/62")
Key = tuple[str, str]
Records = dict[dns.name.Name, dict[str, set[str]]]


@dataclass(frozen=True)
class World:
    namespaces: frozenset[str]
    services: dict[Key, KnownService]
    slices: dict[Key, KnownSlice]


names = st.sampled_from(["a", "b", "web", "my-app"])
hostnames = st.sampled_from(["", "", "web-0", "web-1"])
port_names = st.sampled_from(["http", "dns", "x"])
protocols = st.sampled_from(["tcp", "udp", "sctp"])
ports = st.lists(st.tuples(port_names, protocols, st.integers(1, 65535)), max_size=3, unique_by=lambda p: p[:2])
pod_ips = st.integers(1, 12).map(lambda n: f"10.244.1.{n}") | st.integers(1, 12).map(lambda n: f"fd00:10::{n:x}")
outside_ips = st.integers(1, 3).map(lambda n: f"192.0.2.{n}")


@st.composite
def worlds(draw: st.DrawFn) -> World:
    namespaces = draw(st.frozensets(names, min_size=1))
    keys = draw(st.lists(st.tuples(st.sampled_from(sorted(namespaces)), names), max_size=5, unique=True))
    services = {}
    for number, key in enumerate(keys):
        kind = draw(st.sampled_from(["cluster", "dual", "headless", "external"]))
        ips = {"cluster": (f"10.96.1.{number}",), "dual": (f"10.96.1.{number}", f"fd00:96::{number + 1:x}")}
        target = draw(st.sampled_from(["www.example.com", "192.0.2.9"])) if kind == "external" else ""
        services[key] = KnownService(
            ips.get(kind, ()), kind == "headless", target, tuple(draw(ports)), draw(st.booleans())
        )
    slices = {}
    for number, key in enumerate(draw(st.lists(st.sampled_from(keys), max_size=6)) if keys else ()):
        endpoints = st.builds(
            KnownEndpoint, st.lists(pod_ips | outside_ips, min_size=1, max_size=2).map(tuple), hostnames, st.booleans()
        )
        pieces = draw(st.lists(endpoints, max_size=4))
        slices[key[0], f"{key[1]}-{number}"] = KnownSlice(key[1], tuple(draw(ports)), tuple(pieces))
    return World(namespaces, services, slices)


def reference(world: World) -> Records:
    """Every record that the specification asks for, by name; a name with no record is there for what lies below."""
    found: Records = {}

    def add(name: str | dns.name.Name, kind: str = "", data: str = "") -> None:
        owner = dns.name.from_text(name) if isinstance(name, str) else name
        sets = found.setdefault(owner, {})
        if kind:
            sets.setdefault(kind, set()).add(data)

    add(f"dns-version.{ZONE}", "TXT", '"1.1.0"')  # 2.2
    add(ZONE, "NS", f"ns.dns.{ZONE}")
    add(f"ns.dns.{ZONE}", "A", SERVER)
    for domain in ("svc", "pod"):
        add(f"{domain}.{ZONE}")
    for namespace in world.namespaces:
        add(f"{namespace}.svc.{ZONE}")
        add(f"{namespace}.pod.{ZONE}")
    for key, service in world.services.items():
        name = f"{key[1]}.{key[0]}.svc.{ZONE}"
        if service.external_name:  # 2.5; an address is no name
            if service.external_name != "192.0.2.9":
                add(name, "CNAME", service.external_name + ".")
            continue
        for ip in service.ips:  # 2.3.1, 2.3.3
            add(name, _family(ip), ip)
            add(dns.reversename.from_address(ip), "PTR", name)
        if not service.headless:
            add(name)
            for port, protocol, number in service.ports:  # 2.3.2
                add(f"_{port}._{protocol}.{name}", "SRV", f"{number} {name}")
        for piece in (each for at, each in world.slices.items() if (at[0], each.service) == key):
            for endpoint in piece.endpoints:
                if endpoint.ready or service.all_endpoints:
                    for ip in endpoint.addresses:  # 2.4
                        inner = f"{endpoint.hostname or ip.replace('.', '-').replace(':', '-')}.{name}"
                        add(inner, _family(ip), ip)
                        add(dns.reversename.from_address(ip), "PTR", inner)
                        if service.headless:
                            add(name, _family(ip), ip)
                            for port, protocol, number in piece.ports:
                                add(f"_{port}._{protocol}.{name}", "SRV", f"{number} {inner}")
    return found


def expected(found: Records, name: dns.name.Name, kind: str) -> tuple[str, set[str]]:
    """The response code and the data, by RFC 1034, 4.3.2."""
    lower = dns.name.from_text(str(name).lower())
    if lower in found:
        return "NOERROR", found[lower].get(kind, found[lower].get("CNAME", set()))
    below = any(other.is_subdomain(lower) for other in found)
    return ("NOERROR" if below else "NXDOMAIN"), set()


def _family(ip: str) -> str:
    return "AAAA" if ipaddress.ip_address(ip).version == 6 else "A"


def questions(world: World, found: Records) -> Iterable[str]:
    """All names there are, the names above, and near misses, in the case of nobody."""
    yield from (str(name) for name in found)
    yield from (str(name.parent()) for name in found if len(name) > 4)
    for namespace in (*world.namespaces, "nowhere"):
        yield f"no.{namespace}.svc.{ZONE}"
        yield f"no.such.{namespace}.svc.{ZONE}"
        for service in ("a", "web"):
            yield from (f"{label}.{service}.{namespace}.svc.{ZONE}" for label in ("*", "_tcp", "web-0", "x._y._tcp"))
    yield from (f"nothing.{ZONE}", f"svc.svc.{ZONE}", "9.9.0.244.10.in-addr.arpa.", "9.0.244.10.in-addr.arpa.")


def loaded(world: World, tasks: asyncio.TaskGroup) -> Responder:
    zone = Zone("cluster.local", CIDRS, [SERVER])
    for namespace in world.namespaces:
        zone.put_namespace(namespace, exists=True)
    for key, service in world.services.items():
        zone.put_service(key, service)
    for key, piece in world.slices.items():
        zone.put_slice(key, piece)
    zone.known = True
    return Responder(zone, Resolver(Upstreams(tasks), tasks))


def shown(reply: dns.message.Message) -> set[str]:
    """The answer's data; SRV without priority and weight, which the specification leaves open."""
    texts = {str(data) for rrset in reply.answer for data in rrset}
    srv = any(rrset.rdtype == dns.rdatatype.SRV for rrset in reply.answer)
    return {text.split(" ", 2)[2] for text in texts} if srv else texts


@settings(max_examples=25, deadline=None)
@given(worlds(), st.randoms(use_true_random=False))
def test_answers_are_those_of_the_specification(world: World, rng: random.Random) -> None:
    async def check() -> None:
        async with asyncio.TaskGroup() as tasks:
            responder, found = loaded(world, tasks), reference(world)
            for text in dict.fromkeys(questions(world, found)):
                name = dns.name.from_text("".join(rng.choice((c.upper(), c)) for c in text))
                for kind in ("A", "AAAA", "SRV", "PTR", "TXT", "CNAME", "MX"):
                    query = dns.message.make_query(name, kind, use_edns=0, payload=4096)
                    data = responder.at_once(query.to_wire())
                    if isinstance(data, Pending):
                        assert expected(found, name, "CNAME")[1] or not _ours(name)
                        continue
                    assert data is not None
                    reply = dns.message.from_wire(data)
                    rcode, records = expected(found, name, kind)
                    assert (dns.rcode.to_text(reply.rcode()), shown(reply)) == (rcode, records), f"{name} {kind}"
                    assert str(reply.question[0].name) == str(name), "the case that was asked"
                    soa = [rrset for rrset in reply.authority if rrset.rdtype == dns.rdatatype.SOA]
                    assert bool(soa) == (not records) and all(name.is_subdomain(each.name) for each in soa)

    asyncio.run(check())


def _ours(name: dns.name.Name) -> bool:
    lower = str(name).lower()
    inside = any(lower.endswith(end) for end in (ZONE, "244.10.in-addr.arpa.", "96.10.in-addr.arpa."))
    return (inside and not lower.endswith(("in-addr.arpa.",))) or "1.244.10" in lower or ".96.10." in lower


@settings(max_examples=40, deadline=None)
@given(worlds(), worlds())
def test_a_changed_zone_answers_like_a_new_one(before: World, after: World) -> None:
    async def check() -> None:
        async with asyncio.TaskGroup() as tasks:
            changed, fresh = loaded(before, tasks), loaded(after, tasks)
            for name in before.namespaces | after.namespaces:
                changed.zone.put_namespace(name, exists=name in after.namespaces)
            for key in before.services.keys() | after.services.keys():
                changed.zone.put_service(key, after.services.get(key))
            for key in before.slices.keys() | after.slices.keys():
                changed.zone.put_slice(key, after.slices.get(key))
            for owner in {*reference(before), *reference(after)}:
                wire = owner.to_wire()
                assert wire is not None
                assert _sets(changed.zone, wire) == _sets(fresh.zone, wire), owner

    asyncio.run(check())


def _sets(zone: Zone, name: bytes) -> object:
    found = zone.find(name) if zone.apex_of(name) is not None else "outside"
    if found is None or isinstance(found, str):
        return found
    return {kind: sorted(data) for kind, data in found.sets.items() if kind != dns.rdatatype.SOA}


@settings(max_examples=300, deadline=None)
@given(
    st.binary(min_size=12, max_size=300)
    | st.builds(lambda n, s: n + s, st.just(b"\0\1\1\0\0\1\0\0\0\0\0\1"), st.binary())
)
def test_whatever_comes_in_is_read_or_refused(data: bytes) -> None:
    for parse in (parse_query, parse_response):
        with contextlib.suppress(Malformed):
            parse(data)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=6))
def test_every_message_gets_a_reply_that_can_be_read_or_none(noise: bytes, changes: list[tuple[int, int]]) -> None:
    good = bytearray(dns.message.make_query("web.a.svc.cluster.local", "A", use_edns=0).to_wire())
    for at, value in changes:
        good[at % len(good)] = value

    async def check() -> None:
        async with asyncio.TaskGroup() as tasks:
            responder = loaded(World(frozenset("a"), {}, {}), tasks)
            for data in (bytes(good), noise, bytes(good) + noise):
                reply = responder.at_once(data)
                if isinstance(reply, bytes):
                    assert reply[:2] == data[:2] and reply[2] & 0x80
                    dns.message.from_wire(reply, ignore_trailing=True)

    asyncio.run(check())


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(512, 4096), st.booleans())
def test_replies_fit_and_say_when_they_were_cut(count: int, size: int, edns: bool) -> None:
    ips = [f"10.244.{n // 250}.{n % 250}" for n in range(count)]
    piece = KnownSlice("web", (("http", "tcp", 80),), tuple(KnownEndpoint((ip,), "", True) for ip in ips))
    world = World(frozenset("a"), {("a", "web"): KnownService((), True, "", (), False)}, {("a", "web-1"): piece})

    async def check() -> None:
        async with asyncio.TaskGroup() as tasks:
            responder = loaded(world, tasks)
            for name, kind in (("web.a.svc.cluster.local", "A"), ("_http._tcp.web.a.svc.cluster.local", "SRV")):
                query = dns.message.make_query(name, kind, use_edns=0 if edns else -1, payload=size)
                wire = query.to_wire()
                data, whole = responder.at_once(wire), responder.at_once(wire, stream=True)
                assert isinstance(data, bytes) and isinstance(whole, bytes)
                assert len(data) <= (size if edns else 512)
                got = [len(dns.message.from_wire(each).answer[0]) for each in (data, whole)]
                assert got[1] == count
                assert (got[0] < count) == bool(data[2] & 2), "TC"

    asyncio.run(check())
