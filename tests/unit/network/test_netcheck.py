"""What netcheck says of what it saw."""

from __future__ import annotations

import errno

import pytest

from agent.network.check import hops
from agent.network.check.asking import MAGIC, reply_to
from agent.network.check.hops import Answer, Around, Echoes, Hop
from agent.network.check.watch import WATCHED, followers, is_up
from agent.network.model import NodeAddress, PodAddress
from agent.network.policy.compiler import Compiler
from agent.network.policy.records import parse_policy

SILENCE = Answer(errno.ETIMEDOUT, 1.0)
FINE = Answer(seconds=0.001, data=b"10.244.1.9")
REFUSED = Answer(errno.ECONNREFUSED, 0.001)


def hop(name: str, way: str = "") -> Hop:
    return Hop(name, "a", "b", way=way)


def route(way: str, echoes: Echoes, *, node_answers: bool = True) -> Hop:
    return hops.judge_route(hop("route", way), echoes, node_answers, 4789)


def test_a_refusal_shows_that_a_node_is_there() -> None:
    assert hops.judge_node(hop("node"), REFUSED, "10.0.0.2").ok
    failed = hops.judge_node(hop("node"), SILENCE, "10.0.0.2")
    assert not failed.ok
    assert failed.why == "b does not answer at 10.0.0.2: nothing came back"


@pytest.mark.parametrize(
    ("way", "small", "node_answers", "why"),
    [
        (hops.TUNNEL, SILENCE, True, "VXLAN tunnel"),
        (hops.DIRECT, SILENCE, True, "though its own address answers"),
        (hops.DIRECT, SILENCE, False, "no way to b at all"),
        (hops.NO_WAY, SILENCE, True, "there is no route"),
        (hops.TUNNEL, Answer(errno.EINVAL, at_once=True), True, "a blackhole route swallows them"),
        (hops.DIRECT, Answer(errno.EPERM, at_once=True), True, "a firewall rule of this node"),
        (hops.DIRECT, Answer(errno.EHOSTUNREACH), True, "somebody on the way answered: no route to host"),
    ],
)
def test_a_route_fails_by_its_way(way: str, small: Answer, node_answers: bool, why: str) -> None:
    failed = route(way, Echoes(small), node_answers=node_answers)
    assert not failed.ok and failed.do
    assert why in failed.why


def test_large_packets_are_judged_by_direction() -> None:
    assert route(hops.DIRECT, Echoes(FINE, FINE, FINE, 1450)).ok
    assert "on the way to b" in route(hops.DIRECT, Echoes(FINE, SILENCE, FINE, 1450)).why
    assert "on the way back from b" in route(hops.DIRECT, Echoes(FINE, FINE, SILENCE, 1450)).why


def test_a_path_that_says_its_size_is_a_warning() -> None:
    told = route(hops.DIRECT, Echoes(FINE, Answer(mtu=1400), FINE, 1450))
    assert told.ok and "only 1400 bytes" in told.why


def test_a_pods_own_address_must_be_seen() -> None:
    echoes = Echoes(FINE, FINE, FINE, 1450)
    assert hops.judge_pod_path(hop("pod-to-pod"), echoes, "10.244.1.9").ok
    failed = hops.judge_pod_path(hop("pod-to-pod"), echoes, "10.244.1.10")
    assert "sees 10.244.1.9 instead of the address 10.244.1.10" in failed.why


@pytest.mark.parametrize(
    ("endpoints", "why"),
    [
        ([], "it has no endpoint"),
        ([("10.0.0.1:6443", False)], "its endpoint 10.0.0.1:6443 cannot be reached from pods"),
        ([("10.0.0.1:6443", True)], "the service's rules are wrong or missing"),
    ],
)
def test_a_service_fails_by_its_endpoints(endpoints: list[tuple[str, bool]], why: str) -> None:
    assert hops.judge_service(hop("service"), FINE, []).ok
    assert why in hops.judge_service(hop("service"), REFUSED, endpoints).why


def test_dns_fails_by_its_process() -> None:
    assert hops.judge_dns(hop("dns"), FINE, (0, True), ()).ok
    assert "its process does not run" in hops.judge_dns(hop("dns"), SILENCE, (0, False), ()).why
    assert "process 7 is there" in hops.judge_dns(hop("dns"), SILENCE, (0, False), (7,)).why
    assert "code 3" in hops.judge_dns(hop("dns"), FINE, (3, False), ()).why


def test_one_dead_upstream_server_is_a_warning_all_are_a_failure() -> None:
    assert hops.judge_upstream(hop("upstream"), [("1.1.1.1", FINE)]).why == ""
    some = hops.judge_upstream(hop("upstream"), [("1.1.1.1", FINE), ("9.9.9.9", SILENCE)])
    assert some.ok and "9.9.9.9" in some.why
    assert not hops.judge_upstream(hop("upstream"), [("9.9.9.9", SILENCE)]).ok
    assert hops.judge_upstream(hop("upstream"), []).ok


@pytest.mark.parametrize(
    ("gateway", "asked", "ok", "why"),
    [
        ("", [], True, "no way out of this network"),
        ("10.0.0.1", [("10.0.0.1", True, True)], True, ""),
        ("10.0.0.1", [("10.0.0.1", False, False), ("9.9.9.9", True, True)], True, ""),
        ("10.0.0.1", [("10.0.0.1", False, False)], True, "nothing outside that was asked answers"),
        ("10.0.0.1", [("10.0.0.1", False, True)], False, "answers the node a, but none of its pods"),
    ],
)
def test_the_outside_is_judged_beside_the_node(
    gateway: str, asked: list[tuple[str, bool, bool]], ok: bool, why: str
) -> None:
    judged = hops.judge_outside(hop("outside"), gateway, asked)
    assert (judged.ok, why in judged.why) == (ok, True)
    assert why or not judged.why


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        (["-P FORWARD ACCEPT"], ""),
        (["-P FORWARD DROP", '-A FORWARD -s 10.244.0.0/16 -m comment --comment "wherry pods x" -j ACCEPT'], ""),
        (["-P FORWARD DROP", "-A FORWARD -i docker0 -j ACCEPT"], "drops by default"),
        (
            ["-P FORWARD ACCEPT", "-A FORWARD -j DROP", '-A FORWARD --comment "wherry pods x"'],
            "drops everything before",
        ),
    ],
)
def test_a_chain_that_forwards_nothing(rules: list[str], why: str) -> None:
    judged = hops.judge_forwarding(hop("kernel"), "iptables", rules, "wherry pods x")
    assert judged.ok is not bool(why) and why in judged.why


def test_parts_problems_are_told_where_they_matter() -> None:
    found = hops.judge_parts("a", [("dns", "no socket"), ("routes", "no VXLAN"), ("policy", "")])
    assert [(each.hop, each.why) for each in found] == [("dns", "no socket"), ("route", "no VXLAN")]
    assert [each.hop for each in hops.in_order(reversed(found))] == ["route", "dns"]


def test_a_clock_that_is_off_is_a_warning() -> None:
    assert hops.judge_clock(hop("controller"), 1.4).why == ""
    assert "60 s behind" in hops.judge_clock(hop("controller"), 60.0).why


def test_what_else_was_seen_is_added_to_failures_only() -> None:
    around = Around(dropped_by_path_filter=3, dropping_chains=("inet filter forward",))
    assert hops.explain(hop("node"), around).do == ""
    told = hops.explain(hop("node").failed("x", "Do."), around).do
    assert "3 packets" in told and "inet filter forward" in told


def test_an_echo_says_whom_it_saw_and_is_as_long_as_wished() -> None:
    assert reply_to(MAGIC + b"\x00\x00", "10.0.0.9") == MAGIC + b"\x0810.0.0.9"
    assert len(reply_to(MAGIC + b"\x05\x00", "10.0.0.9")) == 0x500
    assert reply_to(b"something else", "10.0.0.9") == b""


def test_an_unused_address_answers_for_a_peers_pods_if_the_peer_does() -> None:
    unused = Answer(errno.EHOSTUNREACH)
    assert is_up({("node", "b"): REFUSED, ("pods", "b"): unused}, ("pods", "b"))
    assert not is_up({("node", "b"): SILENCE, ("pods", "b"): unused}, ("pods", "b"))
    assert not is_up({("node", "b"): FINE, ("pods", "b"): SILENCE}, ("pods", "b"))


def test_everybody_is_watched_by_as_many() -> None:
    names = [f"n{number:03}" for number in range(100)]
    watched = [name for each in names for name in followers(each, [n for n in names if n != each])]
    assert {watched.count(name) for name in names} == {WATCHED}
    assert followers("b", ["a", "c"]) == ["c", "a"]


def test_a_peer_says_its_agents_port() -> None:
    assert NodeAddress("b", (), (), {}, {}).agent_port == 10250


def test_policies_that_select_everybody_let_a_probe_through() -> None:
    deny = {"metadata": {"name": "deny"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}}
    compiler = Compiler("a")
    for namespace in ("default", "kube-system"):
        obj = {**deny, "metadata": {"name": "deny", "namespace": namespace}}
        compiler.put_policy((namespace, "deny"), parse_policy(obj))
    probe = PodAddress(("", "netcheck"), "u", {}, "a", ("10.244.1.9",), (), host_network=False, ended=False)
    compiler.put_pod(probe.key, probe)
    ruleset = compiler.compile([4])[4]
    assert "10.244.1.9" in ruleset.known
    assert "10.244.1.9" not in ruleset.ingress and "10.244.1.9" not in ruleset.egress
