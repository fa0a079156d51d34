"""Policies as records, rules, and tables: what is rendered, what is shared, and what a change costs."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from agent.network.model import parse_pod_address
from agent.network.policy.compiler import Compiler
from agent.network.policy.part import dns_pod
from agent.network.policy.records import PolicyPort, parse_policy
from agent.network.policy.rules import render_allowances, set_name
from agent.network.policy.transactions import Table, render_changes, render_whole
from tests.property.network.nft_model import Kernel, Packet

TABLE = Table("t", 4, ("10.244.1.0/24",))


def policy(text: str, name: str = "p", namespace: str = "shop") -> Any:
    return parse_policy({"metadata": {"name": name, "namespace": namespace}, "spec": yaml.safe_load(text)})


def pod(name: str, ip: str, node: str = "n1", **labels: str) -> Any:
    return parse_pod_address({
        "metadata": {"name": name, "namespace": "shop", "uid": name, "labels": labels},
        "spec": {"nodeName": node, "containers": []},
        "status": {"phase": "Running", "podIP": ip},
    })  # fmt: skip


def compiler(*records: Any) -> Compiler:
    made = Compiler("n1")
    for record in records:
        (made.put_pod if hasattr(record, "ips") else made.put_policy)(record.key, record)
    return made


def rules(text: str, family: int = 4) -> list[str]:
    """Ingress rules of a policy's text, names of sets as in the API."""
    allowances = policy("{podSelector: {}, ingress: [" + text + "]}").ingress
    assert allowances is not None
    return list(render_allowances(allowances, ingress=True, family=family))


@pytest.mark.proves("NetworkPolicy.spec.policyTypes")
def test_types_that_are_left_out_are_the_apis() -> None:
    assert policy("{podSelector: {}}").ingress == () and policy("{podSelector: {}}").egress is None
    assert policy("{podSelector: {}, egress: [{}]}").ingress == ()
    only = policy("{podSelector: {}, policyTypes: [Egress]}")
    assert only.ingress is None and only.egress == ()


def test_a_string_of_digits_is_a_number_and_protocols_default_to_tcp() -> None:
    parsed = policy("{podSelector: {}, ingress: [{ports: [{port: '80'}, {port: http}, {protocol: UDP}]}]}").ingress
    assert parsed is not None
    assert parsed[0].ports == (PolicyPort("TCP", 80, 80), PolicyPort("TCP", name="http"), PolicyPort("UDP"))


@pytest.mark.proves(
    "NetworkPolicy.spec.ingress.ports.protocol",
    "NetworkPolicy.spec.ingress.from.podSelector",
    "NetworkPolicy.spec.egress.ports",
    "NetworkPolicy.spec.egress.to",
)
def test_rules_say_what_is_allowed() -> None:
    assert rules("{}") == ["accept"]
    assert rules("{ports: [{port: 443}, {port: 80}, {port: 90, endPort: 99}, {protocol: SCTP}]}") == [
        "tcp dport 90-99 accept", "meta l4proto sctp accept", "tcp dport { 80, 443 } accept",
    ]  # fmt: skip
    assert rules("{from: [{ipBlock: {cidr: 10.1.2.3/8, except: [10.1.0.0/16, 10.1.2.0/24]}}]}") == [
        "ip saddr 10.0.0.0/8 ip saddr != 10.1.0.0/16 accept"
    ]
    assert rules("{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}") == ["accept"]


def test_a_block_of_the_other_family_allows_nobody() -> None:
    assert rules("{from: [{ipBlock: {cidr: '::/0'}}]}") == []
    assert rules("{from: [{ipBlock: {cidr: 'fd00::/8'}}]}", family=6) == ["ip6 saddr fd00::/8 accept"]


def test_equal_selectors_share_a_set_and_equal_rules_a_chain() -> None:
    text = "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}]}]}"
    made = compiler(policy(text, "one"), policy(text, "two"), pod("x", "10.244.1.2", app="a"), pod("y", "10.244.1.3"))
    ruleset = made.compile([4])[4]
    assert len(ruleset.sets) == 1 and len(ruleset.chains) == 2
    assert set(ruleset.ingress) == {"10.244.1.2", "10.244.1.3"} and not ruleset.egress


def test_only_pods_of_this_node_get_chains_but_sets_have_everybody() -> None:
    text = "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {}}]}]}"
    made = compiler(policy(text), pod("far", "10.244.2.2", "n2", app="web"))
    assert not made.compile([4])[4].chains and not made.members.elements
    made.put_pod(("shop", "near"), pod("near", "10.244.1.2", app="web"))
    ruleset = made.compile([4])[4]
    assert set(ruleset.ingress) == {"10.244.1.2"} and ruleset.known == {"10.244.1.2"}
    (elements,) = made.members.elements.values()
    assert set(elements) == {"10.244.1.2", "10.244.2.2"}


def test_a_change_of_one_pod_is_one_line_and_no_change_is_none() -> None:
    text = "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}]}]}"
    made = compiler(policy(text), pod("web", "10.244.1.2"), pod("far", "10.244.2.2", "n2"))
    held = made.compile([4])[4]
    made.members.settle()
    assert render_changes(TABLE, held, made.compile([4])[4]) == ""
    made.put_pod(("shop", "far"), pod("far", "10.244.2.2", "n2", app="a"))
    now = made.compile([4])[4]
    name = set_name(next(iter(made.members.elements)))
    assert render_changes(TABLE, held, now) == f"add element ip t {name} {{ 10.244.2.2 }}\n"


def test_unknown_addresses_and_forged_sources_pass_no_hook() -> None:
    kernel = Kernel()
    kernel.apply(render_whole(TABLE, compiler(pod("web", "10.244.1.2")).compile([4])[4]))
    assert kernel.passes("forward", Packet("10.244.1.2", "192.0.2.1", "tcp", 80))
    assert not kernel.passes("forward", Packet("10.244.1.2", "192.0.2.1", "tcp", 80, forged=True))
    for unknown in (Packet("10.244.1.9", "192.0.2.1", "tcp"), Packet("192.0.2.1", "10.244.1.9", "tcp")):
        assert not kernel.passes("forward", unknown)
    assert not kernel.passes("input", Packet("10.244.1.9", "10.96.0.10", "udp", 53))


def test_the_nodes_dns_is_the_pod_that_policies_know_it_by() -> None:
    text = """{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels:
      {kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}],
      ports: [{port: dns, protocol: UDP}]}]}"""
    kernel = Kernel()
    made = compiler(policy(text), pod("web", "10.244.1.2"), dns_pod(["10.96.0.10"]))
    kernel.apply(render_whole(TABLE, made.compile([4])[4]))
    assert kernel.passes("input", Packet("10.244.1.2", "10.96.0.10", "udp", 53))
    assert not kernel.passes("input", Packet("10.244.1.2", "10.96.0.10", "tcp", 53))


def test_both_families_have_tables_of_their_own() -> None:
    two = parse_pod_address({
        "metadata": {"name": "x", "namespace": "shop", "uid": "x"}, "spec": {"nodeName": "n1", "containers": []},
        "status": {"podIPs": [{"ip": "10.244.1.2"}, {"ip": "fd00::2"}]},
    })  # fmt: skip
    made = compiler(policy("{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}"), two)
    six = render_whole(Table("t", 6, ("fd00::/64",)), made.compile([4, 6])[6])
    assert "{ fd00::2 : goto " in six and "10.244.1.2" not in six and "nd-neighbor-solicit" in six
    assert 'iifname "veth*" ip6 saddr != fd00::/64 drop' in six


def test_where_pods_have_no_ipv6_their_link_local_addresses_reach_nothing() -> None:
    """An isolated pod must not reach its node by fe80::...%eth0."""
    made = compiler(policy("{podSelector: {}, policyTypes: [Egress]}"), pod("web", "10.244.1.2"))
    six = render_whole(Table("t", 6, (), "veth0"), made.compile([4, 6])[6]).splitlines()
    own = [line for line in six if line.startswith("add rule ip6 t at_input_own")]
    assert 'iifname "veth*" iifname != "veth0" drop' in own[3] and "nd-neighbor-solicit" in own[2]
