"""Names of the outside, with fake upstream servers in the node's namespace: forwarding, cache, failover, TCP, EDNS."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from agent.network.dns.process import control_path
from tests.integration.dns.conftest import a_service
from tests.integration.dns.scene import SERVER, Scene, Upstream, address_answer, receive_over, send_over, truncating

pytestmark = pytest.mark.root
FIRST, SECOND = "192.0.2.53", "192.0.2.54"
Answer = Callable[[dns.message.Message, bool], Any]


@contextlib.contextmanager
def upstreams(scene: Scene, **answers: Answer | None) -> Iterator[dict[str, Upstream]]:
    """Servers at FIRST, SECOND by the names `first`, `second`; None: nobody is there at all, and packets vanish."""
    places = {"first": FIRST, "second": SECOND}
    running = {name: Upstream(scene, places[name], answer) for name, answer in answers.items() if answer is not None}
    for name in answers.keys() - running.keys():  # a host that does not answer, and does not refuse either
        scene.run("nft", f"add table ip dead; add chain ip dead out {{ type filter hook output priority 0; }}; "
                         f"add rule ip dead out ip daddr {places[name]} drop")  # fmt: skip
        scene.run("ip", "route", "replace", "local", f"{places[name]}/32", "dev", "lo")
    scene.resolv_conf.write_text("".join(f"nameserver {places[name]}\n" for name in answers))
    wanted = [places[name] for name in answers]
    try:
        scene.until(lambda: _servers(scene) == wanted, "the process has the new servers", 8)
        yield running
    finally:
        for each in running.values():
            each.close()


def _servers(scene: Scene) -> list[str]:
    """Who is asked now, by the process's own figures; a new connection gets them at once."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(str(control_path(scene.node_id)))
        text = b""
        while text.count(b"\n") < 2:
            text += asking.recv(65536)
        return [each[0] for each in json.loads(text.splitlines()[1])["figures"]["upstreams"]]


def silent(query: dns.message.Message, stream: bool) -> None:
    return None


def failing(query: dns.message.Message, stream: bool) -> dns.message.Message:
    reply = dns.message.make_response(query)
    reply.set_rcode(dns.rcode.SERVFAIL)
    return reply


def test_names_of_the_outside_are_forwarded_once_and_kept(scene: Scene) -> None:
    with upstreams(scene, first=address_answer("198.51.100.1", ttl=300)) as up:
        reply = scene.query("www.example.com")
        assert reply.flags & dns.flags.RA and not reply.flags & dns.flags.AA
        assert scene.addresses("WWW.example.com") == ["198.51.100.1"]
        assert up["first"].asked == ["www.example.com. A"]
        (rrset,) = scene.query("www.example.com").answer
        assert 25 <= rrset.ttl <= 30, "a long TTL is cut to the cache's 30 s"


def test_the_search_list_of_a_pod_never_leaves_the_node(scene: Scene) -> None:
    with upstreams(scene, first=address_answer("198.51.100.1")) as up:
        for domain in ("default.svc.cluster.local", "svc.cluster.local", "cluster.local"):
            assert scene.query(f"www.example.com.{domain}").rcode() == dns.rcode.NXDOMAIN
        assert scene.query("9.9.244.10.in-addr.arpa", "PTR").rcode() == dns.rcode.NXDOMAIN
        assert up["first"].asked == []


def test_a_dead_server_costs_little_at_first_and_nothing_later(scene: Scene) -> None:
    with upstreams(scene, first=None, second=address_answer("198.51.100.2")):
        took = [_seconds(scene, f"a{number}.example.com") for number in range(5)]
        assert max(took) < 0.25, f"while nothing is known of it: {took}"
        time.sleep(2.2)
        later = [_seconds(scene, f"b{number}.example.com") for number in range(20)]
        assert statistics.median(later) < 0.05 and max(later) < 0.1, later


def test_a_server_that_refuses_or_fails_is_passed_over_at_once(scene: Scene) -> None:
    with upstreams(scene, first=failing, second=address_answer("198.51.100.2")):
        assert _seconds(scene, "a.example.com") < 0.07
        assert scene.addresses("b.example.com") == ["198.51.100.2"]


def test_when_all_fail_the_answer_is_servfail_in_time(scene: Scene) -> None:
    with upstreams(scene, first=failing):
        assert scene.query("a.example.com", seconds=1).rcode() == dns.rcode.SERVFAIL
    with upstreams(scene, second=silent):
        assert scene.query("b.example.com", seconds=4.5).rcode() == dns.rcode.SERVFAIL
    scene.resolv_conf.write_text(f"nameserver {SERVER}\n")  # ourselves: no loop
    scene.until(lambda: _servers(scene) == [], "our own address is left out")
    assert scene.query("c.example.com", seconds=1).rcode() == dns.rcode.SERVFAIL


def test_stale_answers_are_given_when_upstream_is_down(scene: Scene) -> None:
    with upstreams(scene, first=address_answer("198.51.100.1", ttl=1)) as up:
        assert scene.addresses("www.example.com") == ["198.51.100.1"]
        up["first"].answer = silent
        time.sleep(1.1)
        began = time.monotonic()
        assert scene.addresses("www.example.com") == ["198.51.100.1"]
        assert time.monotonic() - began < 1


def test_popular_answers_are_fetched_before_they_end(scene: Scene) -> None:
    with upstreams(scene, first=address_answer("198.51.100.1", ttl=2)) as up:
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            assert scene.addresses("www.example.com") == ["198.51.100.1"]
            time.sleep(0.02)
        assert len(up["first"].asked) == 2


def test_equal_questions_at_a_time_are_asked_once(scene: Scene) -> None:
    def slow(query: dns.message.Message, stream: bool) -> dns.message.Message:
        time.sleep(0.05)
        return address_answer("198.51.100.1")(query, stream)

    with upstreams(scene, first=slow) as up:
        with concurrent.futures.ThreadPoolExecutor(10) as threads:
            found = list(threads.map(scene.addresses, ["www.example.com"] * 10))
        assert found == [["198.51.100.1"]] * 10
        assert len(up["first"].asked) == 1


def test_a_truncated_answer_is_fetched_by_tcp(scene: Scene) -> None:
    def many(query: dns.message.Message, stream: bool) -> dns.message.Message:
        reply = dns.message.make_response(query)
        addresses = [f"198.51.100.{number}" for number in range(200)]
        reply.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", *addresses))
        return reply

    with upstreams(scene, first=truncating(many)):
        cut = scene.query("many.example.com")
        assert cut.flags & dns.flags.TC and 0 < len(cut.answer[0]) < 40
        with scene.tcp() as stream:
            send_over(stream, dns.message.make_query("many.example.com", "A"))
            assert len(receive_over(stream).answer[0]) == 200
        with scene.client() as client:
            client.sendto(
                dns.message.make_query("many.example.com", "A", use_edns=0, payload=4096).to_wire(), (SERVER, 53)
            )
            whole = dns.message.from_wire(client.recv(65535))
        assert not whole.flags & dns.flags.TC and len(whole.answer[0]) == 200 and whole.edns == 0


def test_negative_answers_are_kept_as_long_as_their_soa_says(scene: Scene) -> None:
    def denying(query: dns.message.Message, stream: bool) -> dns.message.Message:
        reply = dns.message.make_response(query)
        reply.set_rcode(dns.rcode.NXDOMAIN)
        soa = "ns.example.com. root.example.com. 1 2 3 4 1"
        reply.authority.append(dns.rrset.from_text("example.com.", 60, "IN", "SOA", soa))
        return reply

    with upstreams(scene, first=denying) as up:
        for _ in range(3):
            reply = scene.query("no.example.com")
            assert reply.rcode() == dns.rcode.NXDOMAIN and reply.authority[0].rdtype == dns.rdatatype.SOA
        assert len(up["first"].asked) == 1
        time.sleep(1.1)
        scene.query("no.example.com")
        assert len(up["first"].asked) == 2


def test_dnssec_is_passed_and_asked_separately(scene: Scene) -> None:
    seen: list[bool] = []

    def signing(query: dns.message.Message, stream: bool) -> dns.message.Message:
        seen.append(bool(query.ednsflags & dns.flags.DO))
        reply = address_answer("198.51.100.1")(query, stream)
        reply.flags |= dns.flags.AD
        return reply

    with upstreams(scene, first=signing):
        assert not scene.query("www.example.com").flags & dns.flags.AD
        with scene.client() as client:
            client.sendto(dns.message.make_query("www.example.com", "A", want_dnssec=True).to_wire(), (SERVER, 53))
            signed = dns.message.from_wire(client.recv(65535))
        assert signed.flags & dns.flags.AD and signed.ednsflags & dns.flags.DO
        assert seen == [False, True]


def test_an_upstream_without_edns_is_asked_without(scene: Scene) -> None:
    def old(query: dns.message.Message, stream: bool) -> dns.message.Message:
        if query.edns >= 0:
            reply = dns.message.make_response(dns.message.make_query(query.question[0].name, "A"))
            reply.id = query.id
            reply.set_rcode(dns.rcode.FORMERR)
            return reply
        return address_answer("198.51.100.1")(query, stream)

    with upstreams(scene, first=old):
        assert scene.addresses("www.example.com") == ["198.51.100.1"]


def test_forged_answers_are_not_taken_and_ports_differ(scene: Scene) -> None:
    def forging(query: dns.message.Message, stream: bool) -> dns.message.Message:
        reply = address_answer("203.0.113.66")(query, stream)
        if not str(query.question[0].name).startswith("good"):
            reply.id ^= 1
        return reply

    with upstreams(scene, first=forging, second=address_answer("198.51.100.2")) as up:
        assert scene.addresses("forged.example.com") == ["198.51.100.2"]
        for number in range(8):
            assert scene.addresses(f"good{number}.example.com") == ["203.0.113.66"]
        assert len(set(up["first"].ports)) == len(up["first"].ports)


@pytest.mark.proves("Service.spec.externalName")
def test_external_names_are_followed_through_upstream(scene: Scene) -> None:
    outside = a_service("outside", type="ExternalName", externalName="www.example.com")
    inside = a_service("inside", type="ExternalName", externalName="web.default.svc.cluster.local")
    loop = a_service("loop", type="ExternalName", externalName="loop.default.svc.cluster.local")
    scene.tell(set={"services": [outside, inside, loop]})
    with upstreams(scene, first=address_answer("198.51.100.1")) as up:
        reply = scene.query("outside.default.svc.cluster.local")
        assert [str(rrset) for rrset in reply.answer] == [
            "outside.default.svc.cluster.local. 5 IN CNAME www.example.com.",
            "www.example.com. 30 IN A 198.51.100.1",
        ]
        assert scene.addresses("inside.default.svc.cluster.local") == ["10.96.0.80"]
        assert len(scene.query("loop.default.svc.cluster.local").answer) == 1
        assert up["first"].asked == ["www.example.com. A"]


def test_new_servers_in_resolv_conf_are_used_within_seconds(scene: Scene) -> None:
    with upstreams(scene, first=address_answer("198.51.100.1")) as up:
        assert scene.addresses("www.example.com") == ["198.51.100.1"]
        asked = len(up["first"].asked)
        with upstreams(scene, second=address_answer("198.51.100.2")):
            assert scene.addresses("www.example.com") == ["198.51.100.2"], "answers of the old servers are forgotten"
            assert len(up["first"].asked) == asked


def _seconds(scene: Scene, name: str) -> float:
    began = time.monotonic()
    assert scene.addresses(name) == ["198.51.100.2"]
    return time.monotonic() - began
