"""One message in, one reply out: headers, EDNS, refusals. Names and records are the property tests' matter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import pytest

from agent.network.dns.records import KnownEndpoint, KnownService, KnownSlice
from agent.network.dns.resolver import Resolver
from agent.network.dns.responder import Pending, Responder
from agent.network.dns.upstream import Upstreams
from agent.network.dns.zone import Zone

WEB, PETS = "web.ns.svc.cluster.local", "pets.ns.svc.cluster.local"


@pytest.fixture
async def responder() -> AsyncIterator[Responder]:

    async with asyncio.TaskGroup() as tasks:
        zone = Zone("cluster.local", ["10.96.0.0/12"], ["10.96.0.10"])
        zone.put_namespace("ns", exists=True)
        zone.put_service(("ns", "web"), KnownService(("10.96.0.1",), False, "", (), False))
        zone.put_service(("ns", "pets"), KnownService((), True, "", (), False))
        endpoints = tuple(KnownEndpoint((f"10.244.0.{n}",), f"pet-{n}", True) for n in range(5))
        zone.put_slice(("ns", "pets-1"), KnownSlice("pets", (), endpoints))
        zone.known = True
        yield Responder(zone, Resolver(Upstreams(tasks), tasks))


def ask(responder: Responder, query: dns.message.Message) -> dns.message.Message:
    data = responder.at_once(query.to_wire())
    assert isinstance(data, bytes)
    return dns.message.from_wire(data)


async def test_the_header_says_who_answers(responder: Responder) -> None:
    reply = ask(responder, dns.message.make_query(WEB, "A"))
    assert dns.flags.to_text(reply.flags) == "QR AA RD RA"
    query = dns.message.make_query(WEB, "A", flags=0)
    assert dns.flags.to_text(ask(responder, query).flags) == "QR AA RA"


async def test_who_asks_with_edns_is_answered_with_edns(responder: Responder) -> None:
    assert ask(responder, dns.message.make_query(WEB, "A")).edns == -1
    reply = ask(responder, dns.message.make_query(WEB, "A", want_dnssec=True))
    assert reply.edns == 0 and reply.ednsflags & dns.flags.DO
    assert ask(responder, dns.message.make_query(WEB, "A", use_edns=1)).rcode() == dns.rcode.BADVERS


async def test_what_is_not_served_is_refused_by_its_code(responder: Responder) -> None:
    notify = dns.message.make_query(WEB, "A")
    notify.set_opcode(dns.opcode.NOTIFY)
    assert ask(responder, notify).rcode() == dns.rcode.NOTIMP
    assert ask(responder, dns.message.make_query("cluster.local", "AXFR")).rcode() == dns.rcode.REFUSED
    chaos = dns.message.make_query("version.bind", "TXT", rdclass=dns.rdataclass.CH)
    assert ask(responder, chaos).rcode() == dns.rcode.REFUSED
    none = dns.message.make_query(WEB, "A").to_wire()
    reply = responder.at_once(none[:4] + b"\0\0" + none[6:])
    assert isinstance(reply, bytes) and reply[3] & 15 == dns.rcode.FORMERR


async def test_responses_and_scraps_get_no_reply(responder: Responder) -> None:
    query = dns.message.make_query(WEB, "A")
    assert responder.at_once(dns.message.make_response(query).to_wire()) is None
    assert responder.at_once(query.to_wire()[:11]) is None


async def test_any_gets_all_and_unknown_types_nothing(responder: Responder) -> None:
    apex = ask(responder, dns.message.make_query("cluster.local", "ANY"))
    assert {rrset.rdtype for rrset in apex.answer} == {dns.rdatatype.SOA, dns.rdatatype.NS}
    unknown = ask(responder, dns.message.make_query(WEB, "TYPE65280"))
    assert unknown.rcode() == dns.rcode.NOERROR and not unknown.answer and unknown.authority


async def test_addresses_are_given_in_turn_and_ids_and_case_kept(responder: Responder) -> None:
    firsts = set()
    for _ in range(10):
        query = dns.message.make_query("PeTs.ns.svc.cluster.local", "A")
        reply = ask(responder, query)
        assert reply.id == query.id and str(reply.answer[0].name).startswith("PeTs.")
        firsts.add(str(reply.answer[0][0]))
    assert len(firsts) == 5


async def test_a_change_is_seen_though_replies_were_ready(responder: Responder) -> None:
    query = dns.message.make_query(WEB, "A")
    assert ask(responder, query).answer
    responder.zone.put_service(("ns", "web"), None)
    responder.changed()
    assert ask(responder, query).rcode() == dns.rcode.NXDOMAIN


async def test_before_anything_is_known_nothing_is_denied(responder: Responder) -> None:
    responder.zone = Zone("cluster.local", ["10.96.0.0/12"], ["10.96.0.10"])
    assert ask(responder, dns.message.make_query(WEB, "A")).rcode() == dns.rcode.SERVFAIL


async def test_other_names_are_for_upstream(responder: Responder) -> None:
    for name in ("www.example.com", "cluster.local.example.com", "xcluster.local", "8.8.8.8.in-addr.arpa"):
        assert isinstance(responder.at_once(dns.message.make_query(name, "A").to_wire()), Pending)
