"""The pod network's configuration and what is known about taking it away."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from agent.network.cni import (
    CONFLIST_NAME,
    PodNetwork,
    foreign_config,
    forwarding_comment,
    render_conflist,
    render_masquerade,
)
from agent.network.purge import loopback_result, portmap_deletions

_NETWORK = PodNetwork(
    "0123456789ab", ("10.244.3.0/24",), ("10.244.0.0/16",), Path("/data/cni/addresses"), 1400, ("10.96.0.0/12",)
)
_DUAL = replace(_NETWORK, pod_cidrs=("10.244.3.0/24", "fd00:3::/64"), cluster_cidrs=("10.244.0.0/16", "fd00::/16"))


def test_the_conflist_is_ptp_then_portmap() -> None:
    conflist = render_conflist(_NETWORK)
    ptp, portmap = conflist["plugins"]
    assert conflist["name"] == "wherry-0123456789ab"
    assert (ptp["type"], ptp["mtu"], ptp["ipMasq"]) == ("ptp", 1400, False)
    assert ptp["ipam"]["ranges"] == [[{"subnet": "10.244.3.0/24"}]]
    assert ptp["ipam"]["routes"] == [{"dst": "0.0.0.0/0"}]
    assert ptp["ipam"]["dataDir"] == "/data/cni/addresses"
    assert portmap["capabilities"] == {"portMappings": True}


def test_pods_of_two_families_get_an_address_of_each() -> None:
    ipam = render_conflist(_DUAL)["plugins"][0]["ipam"]
    assert ipam["ranges"] == [[{"subnet": "10.244.3.0/24"}], [{"subnet": "fd00:3::/64"}]]
    assert ipam["routes"] == [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]


def test_two_nodes_of_one_machine_share_no_name() -> None:
    other = replace(_NETWORK, node_id="ba9876543210")
    assert {_NETWORK.name, _NETWORK.table, forwarding_comment(_NETWORK.node_id)}.isdisjoint(
        {other.name, other.table, forwarding_comment(other.node_id)}
    )


@pytest.mark.parametrize("pod_cidr", ["10.244.3.0/31", "10.244.3.1/24", "nonsense", ""])
def test_a_bad_cidr_is_refused(pod_cidr: str) -> None:
    with pytest.raises(ValueError):
        render_conflist(replace(_NETWORK, pod_cidrs=(pod_cidr,)))


def test_only_what_leaves_the_cluster_is_masqueraded() -> None:
    rules = render_masquerade(_NETWORK)
    apart = "{ 10.96.0.0/12, 10.244.0.0/16, 169.254.0.0/16, 224.0.0.0/4 }"
    assert f"ip saddr 10.244.3.0/24 ip daddr != {apart} ip daddr != @nodes masquerade" in rules
    assert "delete" not in rules and "ip6" not in rules


def test_each_family_is_masqueraded_by_itself() -> None:
    rules = render_masquerade(_DUAL)
    assert "ip6 saddr fd00:3::/64 ip6 daddr != { fd00::/16, fe80::/10, ff00::/8 } ip6 daddr != @nodes" in rules
    assert "add set ip6 wherry_0123456789ab nodes { type ipv6_addr; }" in rules


def test_a_configuration_of_the_users_own_is_seen(tmp_path: Path) -> None:
    (tmp_path / CONFLIST_NAME).write_text("{}")
    (tmp_path / "README").write_text("")
    assert foreign_config(tmp_path) is None and foreign_config(tmp_path / "absent") is None
    (tmp_path / "10-mine.conf").write_text("{}")
    assert foreign_config(tmp_path) == tmp_path / "10-mine.conf"


def test_a_cached_host_port_can_be_deleted_again() -> None:
    ports = [{"hostPort": 80, "containerPort": 8080, "protocol": "tcp"}]
    cached = {
        "containerId": "c" * 64,
        "ifName": "eth0",
        "config": base64.b64encode(json.dumps(render_conflist(_NETWORK)).encode()).decode(),
        "capabilityArgs": {"portMappings": ports},
        "result": {"cniVersion": "0.4.0"},
    }
    ((configuration, environment),) = portmap_deletions(cached, "/bin/cni")
    parsed = orjson.loads(configuration)
    assert (parsed["type"], parsed["name"]) == ("portmap", "wherry-0123456789ab")
    assert parsed["runtimeConfig"] == {"portMappings": ports}
    assert (environment["CNI_COMMAND"], environment["CNI_CONTAINERID"]) == ("DEL", "c" * 64)


@pytest.mark.parametrize("cached", [{}, {"config": "%"}, {"config": base64.b64encode(b"{}").decode()}])
def test_a_cache_without_host_ports_needs_no_deletion(cached: dict[str, str]) -> None:
    assert portmap_deletions(cached, "/bin/cni") == []


def test_the_loopback_of_the_same_sandbox_is_found() -> None:
    cached = Path("/var/lib/cni/results/wherry-0123456789ab-abcdef-eth0")
    assert loopback_result(cached, "0123456789ab").name == "cni-loopback-abcdef-lo"
