"""The pod network's configuration and what is known about taking it away."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import orjson
import pytest

from agent.network.cni import CONFLIST_NAME, PodNetwork, foreign_config, render_conflist, render_masquerade
from agent.network.purge import loopback_result, portmap_deletions

_NETWORK = PodNetwork("0123456789ab", "10.244.3.0/24", "10.244.0.0/16", Path("/data/cni/addresses"), 1400)


def test_the_conflist_is_bridge_then_portmap() -> None:
    conflist = render_conflist(_NETWORK)
    bridge, portmap = conflist["plugins"]
    assert conflist["name"] == "wherry-0123456789ab"
    assert (bridge["type"], bridge["mtu"], bridge["hairpinMode"], bridge["isGateway"]) == ("bridge", 1400, True, True)
    assert bridge["ipMasq"] is False and len(bridge["bridge"]) <= 15
    assert bridge["ipam"]["ranges"] == [[{"subnet": "10.244.3.0/24"}]]
    assert bridge["ipam"]["routes"] == [{"dst": "0.0.0.0/0"}]
    assert bridge["ipam"]["dataDir"] == "/data/cni/addresses"
    assert portmap["capabilities"] == {"portMappings": True}


def test_two_nodes_of_one_machine_share_no_name() -> None:
    other = PodNetwork("ba9876543210", "10.244.4.0/24", "10.244.0.0/16", Path("/other"))
    assert {_NETWORK.name, _NETWORK.bridge, _NETWORK.table}.isdisjoint({other.name, other.bridge, other.table})


@pytest.mark.parametrize("pod_cidr", ["10.244.3.0/31", "10.244.3.1/24", "nonsense", ""])
def test_a_bad_cidr_is_refused(pod_cidr: str) -> None:
    with pytest.raises(ValueError):
        render_conflist(PodNetwork("0123456789ab", pod_cidr, "10.244.0.0/16", Path("/x")))


def test_only_what_leaves_the_cluster_is_masqueraded() -> None:
    rules = render_masquerade(_NETWORK)
    assert 'ip saddr 10.244.3.0/24 ip daddr != 10.244.0.0/16 oifname != "wherry-01234567" masquerade' in rules
    assert rules.index("delete table ip wherry_0123456789ab") < rules.index("table ip wherry_0123456789ab {")


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
