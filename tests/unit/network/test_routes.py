"""Which way leads to each peer's pods."""

from __future__ import annotations

import errno
import ipaddress
from dataclasses import replace

import pytest

from agent.network.model import NodeAddress, parse_node
from agent.network.routes.decide import decide_routes, tunnel_gateway, tunnel_mac
from agent.network.routes.model import (
    Decision,
    Device,
    Forward,
    Item,
    Kernel,
    Neighbour,
    Observed,
    Path,
    Peer,
    Route,
    Rule,
    settings_of,
)
from agent.network.routes.part import explain, peer_of, render_set

_SETTINGS = settings_of("0123456789ab", 4244, 4789)
_ME = Peer("me", ("10.0.0.1",), ("10.244.0.0/24",))
_NEAR = Peer("near", ("10.0.0.2",), ("10.244.1.0/24",))
_FAR = Peer("far", ("10.0.9.3",), ("10.244.2.0/24",))
_PATHS = (
    Path("0.0.0.0/0", "eth0", False),
    Path("10.0.0.0/24", "eth0", True),
    Path("fd00::/64", "eth0", True),
)
_BLANK = Observed(_SETTINGS, _ME, "10.0.0.1", (_ME, _NEAR, _FAR), Kernel(paths=_PATHS, addresses={"10.0.0.1": 1500}))
_UNREACHABLE = Route("10.244.0.0/24")
_DIRECT = Route("10.244.1.0/24", "eth0", "10.0.0.2", "10.0.0.1")
_DEVICE = Device(
    _SETTINGS.device, 4244, 4789, "10.0.0.1", tunnel_mac("me"), 1450, frozenset({"10.244.0.0"}), ready=True
)
_TUNNEL: tuple[Item, ...] = (
    _DEVICE,
    Neighbour("10.244.2.0", tunnel_mac("far")),
    Forward(tunnel_mac("far"), "10.0.9.3"),
    Rule("10.244.0.0/24", _SETTINGS.table),
    Route("10.0.9.3/32", _SETTINGS.device, "10.244.2.0", table=_SETTINGS.table),
    Route("10.244.2.0/24", _SETTINGS.device, "10.244.2.0", "10.0.0.1"),
)


def _with(*items: Item, **changes: object) -> Observed:
    kernel = replace(_BLANK.kernel, items=frozenset(items))
    return replace(_BLANK, kernel=kernel, **changes)  # type: ignore[arg-type]


def test_a_peer_on_the_link_is_reached_directly_and_one_behind_a_router_through_the_tunnel() -> None:
    decision = decide_routes(_BLANK)
    assert set(decision.add) == {_UNREACHABLE, _DIRECT, *_TUNNEL} and decision.remove == ()
    assert decision.nodes == {"10.0.0.2", "10.0.9.3"} and decision.tunnelled == {"10.0.9.3"}
    assert (decision.direct_peers, decision.tunnel_peers, decision.complaints) == (1, 1, ())
    kinds = [type(item) for item in decision.add]
    assert kinds == [Device, Neighbour, Forward, Rule, Route, Route, Route, Route], "what a later one needs comes first"


def test_what_is_right_is_left_alone() -> None:
    decision = decide_routes(_with(_UNREACHABLE, _DIRECT, *_TUNNEL))
    assert decision.add == () and decision.remove == ()


def test_without_anybody_behind_a_router_there_is_no_tunnel() -> None:
    decision = decide_routes(_with(_UNREACHABLE, _DIRECT, *_TUNNEL, peers=(_ME, _NEAR)))
    assert decision.add == ()
    assert set(decision.remove) == set(_TUNNEL) and decision.remove[-1] == _DEVICE


def test_a_lost_link_moves_its_peers_into_the_tunnel_without_a_gap() -> None:
    observed = _with(_UNREACHABLE, _DIRECT, *_TUNNEL)
    away = replace(observed, kernel=replace(observed.kernel, paths=_PATHS[:1]))
    decision = decide_routes(away)
    assert Route("10.244.1.0/24", _SETTINGS.device, "10.244.1.0", "10.0.0.1") in decision.add
    assert decision.remove == (), "a route is replaced, not removed"
    assert decision.tunnelled == {"10.0.0.2", "10.0.9.3"}


def test_a_peer_that_moved_gets_its_new_way_and_loses_the_old() -> None:
    moved = replace(_NEAR, ips=("10.0.0.7",), pod_cidrs=("10.244.5.0/24",))
    decision = decide_routes(_with(_UNREACHABLE, _DIRECT, *_TUNNEL, peers=(_ME, moved, _FAR)))
    assert decision.add == (Route("10.244.5.0/24", "eth0", "10.0.0.7", "10.0.0.1"),)
    assert decision.remove == (_DIRECT,)


@pytest.mark.parametrize("change", [{"vni": 5}, {"mtu": 1400}, {"ready": False}, {"addresses": frozenset()}])
def test_a_wrong_device_is_made_anew_with_all_that_hangs_on_it(change: dict[str, object]) -> None:
    wrong = replace(_DEVICE, **change)  # type: ignore[arg-type]
    decision = decide_routes(_with(_UNREACHABLE, _DIRECT, wrong, *_TUNNEL[1:]))
    assert set(decision.add) == {item for item in _TUNNEL if not isinstance(item, Rule)}
    assert decision.remove == ()


def test_a_more_specific_or_cheaper_route_of_somebody_else_decides() -> None:
    paths = (*_PATHS, Path("10.0.0.2/32", "eth1", False), Path("10.0.9.0/24", "eth2", True, 50))
    dearer = (*paths, Path("10.0.9.0/24", "eth3", False, 100))
    decision = decide_routes(replace(_BLANK, kernel=replace(_BLANK.kernel, paths=dearer)))
    assert decision.tunnelled == {"10.0.0.2"}
    assert Route("10.244.2.0/24", "eth2", "10.0.9.3", "10.0.0.1") in decision.add


@pytest.mark.parametrize(
    ("peer", "words"),
    [
        (replace(_NEAR, pod_cidrs=("10.244.0.128/25",)), "overlaps this node's own"),
        (replace(_NEAR, pod_cidrs=("10.0.0.0/8",)), "contains addresses of nodes"),
        (replace(_NEAR, pod_cidrs=_FAR.pod_cidrs), "nodes far and near have the same podCIDR"),
        (replace(_NEAR, ips=("fd01::2",)), "has no address of the family"),
    ],
)
def test_a_peer_that_would_harm_others_is_left_out_and_named(peer: Peer, words: str) -> None:
    decision = decide_routes(replace(_BLANK, peers=(_ME, peer, _FAR)))
    assert words in " ".join(decision.complaints) and peer.name in " ".join(decision.complaints)
    assert {_UNREACHABLE, *_TUNNEL} == set(decision.add)


@pytest.mark.parametrize("taken", ["10.244.2.0/24", "10.244.2.128/25", "10.244.2.0/23"])
def test_of_two_nodes_whose_pods_overlap_the_older_keeps_them_whatever_they_are_called(taken: str) -> None:
    older = replace(_FAR, created="2026-01-01T00:00:00Z")
    younger = Peer("a-thief", _NEAR.ips, (taken,), "2026-01-02T00:00:00Z")
    decision = decide_routes(replace(_BLANK, peers=(_ME, younger, older)))
    assert set(decision.add) == {_UNREACHABLE, *_TUNNEL}
    assert len(decision.complaints) == 1 and "nodes far and a-thief" in decision.complaints[0]
    node = {"metadata": {"name": "n", "creationTimestamp": "2026-01-02T00:00:00Z"}}
    assert peer_of(parse_node(node)).created == "2026-01-02T00:00:00Z"


@pytest.mark.parametrize("cidr", ["192.0.2.2/32", "8.8.8.8/32", "10.244.2.128/25", "10.244.2.0/23"])
def test_only_what_the_cluster_gives_and_nobody_else_has_is_routed(cidr: str) -> None:
    """A node cannot take half of a neighbour's pods, nor an address outside."""
    ranges = (("pods", "10.244.0.0/16"), ("services", "10.96.0.0/12"))
    peers = (_ME, _FAR, replace(_NEAR, name="thief", pod_cidrs=(cidr,)))
    decision = decide_routes(replace(_BLANK, peers=peers, ranges=ranges))
    assert set(decision.add) == {_UNREACHABLE, *_TUNNEL}
    assert len(decision.complaints) == 1 and "thief" in decision.complaints[0]


def test_peers_without_address_or_pods_and_agents_beside_us_need_no_route() -> None:
    peers = (_ME, replace(_NEAR, ips=()), replace(_FAR, pod_cidrs=()), Peer("twin", _ME.ips, ("10.244.8.0/24",)))
    assert decide_routes(replace(_BLANK, peers=peers)) == Decision(add=(_UNREACHABLE,))


def test_each_family_goes_its_own_way() -> None:
    near = replace(_NEAR, ips=("10.0.0.2", "fd00::2"), pod_cidrs=("10.244.1.0/24", "fd44:1::/64"))
    far = replace(_FAR, pod_cidrs=("10.244.2.0/24", "fd44:2::/64"))
    me = replace(_ME, pod_cidrs=("10.244.0.0/24", "fd44::/64"))
    added = decide_routes(replace(_BLANK, me=me, peers=(me, near, far))).add
    link_local = tunnel_gateway("fd44:2::/64", tunnel_mac("far"))
    assert Route("fd44:1::/64", "eth0", "fd00::2") in added
    assert Route("fd44:2::/64", _SETTINGS.device, link_local) in added
    assert Neighbour(link_local, tunnel_mac("far")) in added
    assert Route("fd44::/64") in added


def test_a_tunnel_over_ipv6_leaves_more_room() -> None:
    me, far = replace(_ME, ips=("fd00::1",)), replace(_FAR, ips=("fd09::3",))
    kernel = replace(_BLANK.kernel, addresses={"fd00::1": 9000})
    added = decide_routes(replace(_BLANK, me=me, address="fd00::1", peers=(me, far), kernel=kernel)).add
    (device,) = (item for item in added if isinstance(item, Device))
    assert (device.local, device.mtu) == ("fd00::1", 8930)
    assert Forward(tunnel_mac("far"), "fd09::3") in added


def test_the_order_of_peers_decides_nothing() -> None:
    assert decide_routes(_BLANK) == decide_routes(replace(_BLANK, peers=tuple(reversed(_BLANK.peers))))


def test_link_layer_addresses_are_unicast_local_and_differ() -> None:
    macs = {tunnel_mac(f"node-{number}") for number in range(5000)}
    assert len(macs) == 5000 and all(int(mac[:2], 16) & 3 == 2 for mac in macs)
    gateway = ipaddress.IPv6Address(tunnel_gateway("fd44::/64", "02:00:00:00:00:01"))
    assert gateway.is_link_local and str(gateway) == "fe80::ff:fe00:1"


def test_two_nodes_of_one_machine_share_no_mark() -> None:
    other = settings_of("ba9876543210", 4244, 4789)
    assert len(_SETTINGS.device) <= 15
    assert (_SETTINGS.device, _SETTINGS.metric, _SETTINGS.table) != (other.device, other.metric, other.table)


def test_addresses_are_compared_as_the_kernel_writes_them() -> None:
    record = NodeAddress("n", ("fd00:0::1", "junk", "10.0.0.9"), ("10.244.3.7/24", "x/y"), {}, {})
    assert peer_of(record) == Peer("n", ("fd00::1", "10.0.0.9"), ("10.244.3.0/24",))


def test_what_fails_says_what_to_do() -> None:
    words = explain(_DEVICE, OSError(errno.EOPNOTSUPP, "Operation not supported"), 2)
    assert words == "no tunnel to 2 nodes that are not on a link of this one: the kernel has no VXLAN: " + (
        "load its module (modprobe vxlan)"
    )
    assert "--vxlan-id" in explain(_DEVICE, OSError(errno.EEXIST, ""), 1)
    assert "10.244.1.0/24" in explain(_DIRECT, OSError(errno.ENETUNREACH, "Network is unreachable"), 0)


def test_a_set_is_replaced_by_the_addresses_of_its_family() -> None:
    text = render_set("ip t nodes", 4, {"10.0.0.3", "fd00::1", "10.0.0.2"})
    assert text == "flush set ip t nodes\nadd element ip t nodes { 10.0.0.2, 10.0.0.3 }\n"
    assert render_set("ip t nodes", 4, ()) == "flush set ip t nodes\n"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (
            Path("10.97.0.0/16", "eth1", False),
            "route to 10.97.0.0/16 on eth1 lies in the range of services, 10.96.0.0/12",
        ),
        (Path("10.244.128.0/17", "eth1", True), "lies in the range of pods, 10.244.0.0/16"),
        (Path("10.0.0.0/8", "eth1", True), "route to 10.0.0.0/8 on eth1 covers the range of pods"),
        (Path("10.0.0.0/8", "eth1", False), ""),
        (Path("0.0.0.0/0", "ppp0", True), ""),
        (Path("10.244.0.7/32", "veth1", True), ""),
        (Path("10.244.9.0/24", "eth0", False, _SETTINGS.metric), ""),
        (Path("fd00:1::/64", "eth0", True), ""),
    ],
)
def test_a_network_of_the_nodes_that_collides_with_the_clusters_is_told(path: Path, words: str) -> None:
    ranges = (("pods", "10.244.0.0/16"), ("services", "10.96.0.0/12"))
    kernel = replace(_BLANK.kernel, paths=(*_PATHS, path))
    told = decide_routes(replace(_BLANK, kernel=kernel, ranges=ranges)).complaints
    assert words in " ".join(told)
    assert bool(told) == bool(words)


def test_a_node_in_the_range_of_services_is_told() -> None:
    me = replace(_ME, ips=("10.100.0.1",))
    [told] = decide_routes(replace(_BLANK, me=me, peers=(me,), ranges=(("services", "10.96.0.0/12"),))).complaints
    assert told.startswith("this node's address 10.100.0.1 lies in the range of services, 10.96.0.0/12: choose another")
