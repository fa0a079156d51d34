"""The kernel holds what was decided, tells it back as the same records, and is left as it was found."""

from __future__ import annotations

import asyncio
import ctypes
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from agent.network.bridge import bridge_name, retire_bridge
from agent.network.routes.decide import decide_routes
from agent.network.routes.kernel import observe_kernel, remove_all
from agent.network.routes.model import Decision, Kernel, Observed, Peer, settings_of
from agent.network.routes.part import write

pytestmark = pytest.mark.root
_SETTINGS = settings_of("0123456789ab", 4244, 4789)
_ME = Peer("me", ("10.9.0.1", "fd09::1"), ("10.244.0.0/24", "fd44:0:0:1::/64"))
_NEAR = Peer("near", ("10.9.0.2", "fd09::2"), ("10.244.1.0/24", "fd44:0:0:2::/64"))
_FAR = Peer("far", ("10.9.9.3", "fd19::3"), ("10.244.2.0/24", "fd44:0:0:3::/64"))
Result = TypeVar("Result")


class Namespace:
    """A network namespace with one link, and a thread in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._thread = ThreadPoolExecutor(1, initializer=_enter, initargs=(name,))

    def inside(self, function: Callable[[], Result]) -> Result:
        return self._thread.submit(function).result()

    def ip(self, *words: str) -> str:
        command = ["ip", "-n", self.name, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def traces(self) -> list[str]:
        looks = (("link",), ("route", "show", "table", "all"), ("rule",), ("-6", "rule"), ("addr",))
        return [self.ip(*look) for look in looks]

    def close(self) -> None:
        self._thread.shutdown()


def _enter(name: str) -> None:
    with open(f"/run/netns/{name}") as file:
        assert ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0) == 0


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    name = f"wherry-rk{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    made = Namespace(name)
    try:
        made.ip("link", "set", "lo", "up")
        made.ip("link", "add", "up0", "type", "veth", "peer", "name", "up1")
        for link in ("up0", "up1"):
            made.ip("link", "set", link, "addrgenmode", "none", "up")
        made.ip("addr", "add", "10.9.0.1/24", "dev", "up0")
        made.ip("addr", "add", "fd09::1/64", "dev", "up0", "nodad")
        made.ip("route", "add", "default", "via", "10.9.0.254")
        yield made
    finally:
        made.close()
        subprocess.run(["ip", "netns", "del", name], check=True)


def _one_pass(namespace: Namespace, *peers: Peer) -> tuple[Decision, list[str]]:
    def work() -> tuple[Decision, list[str]]:
        kernel = observe_kernel(_SETTINGS)
        decision = decide_routes(Observed(_SETTINGS, _ME, _ME.ips[0], (_ME, *peers), kernel))
        return decision, write(decision, _SETTINGS)

    return namespace.inside(work)


def test_both_families_are_made_once_and_taken_away_whole(namespace: Namespace) -> None:
    before = namespace.traces()
    decision, problems = _one_pass(namespace, _NEAR, _FAR)
    assert problems == [] and len(decision.add) > 10
    assert (decision.direct_peers, decision.tunnel_peers) == (1, 1)
    again, problems = _one_pass(namespace, _NEAR, _FAR)
    assert (again.add, again.remove, problems) == ((), (), []), "what is there is read back as what was wanted"
    namespace.inside(lambda: remove_all(_SETTINGS))
    assert namespace.traces() == before


@pytest.mark.parametrize("lost", ["carrier", "address", "link"])
def test_a_peer_whose_link_goes_is_reached_through_the_tunnel_until_it_is_back(namespace: Namespace, lost: str) -> None:
    _one_pass(namespace, _NEAR)
    namespace.ip("link", "add", "up2", "type", "veth", "peer", "name", "up3")
    namespace.ip("link", "set", "up2", "up")
    namespace.ip("addr", "add", "10.9.7.1/24", "dev", "up2")
    if lost != "carrier":
        namespace.ip("link", "set", "up3", "up")
    moved = replace(_NEAR, ips=("10.9.7.2",), pod_cidrs=_NEAR.pod_cidrs[:1])
    expected = (0, 1) if lost == "carrier" else (1, 0)
    decision, problems = _one_pass(namespace, moved)
    assert problems == [] and (decision.direct_peers, decision.tunnel_peers) == expected
    if lost == "address":
        namespace.ip("addr", "del", "10.9.7.1/24", "dev", "up2")
    elif lost == "link":
        namespace.ip("link", "del", "up2")
    else:
        namespace.ip("link", "set", "up3", "up")
    decision, problems = _one_pass(namespace, moved)
    assert problems == [] and (decision.direct_peers, decision.tunnel_peers) == expected[::-1]
    assert _one_pass(namespace, moved)[0].add == ()


def test_what_others_made_stays(namespace: Namespace) -> None:
    namespace.ip("route", "add", "10.244.1.0/24", "via", "10.9.0.77", "metric", "5")
    namespace.ip("link", "add", "other", "type", "vxlan", "id", "99", "dstport", "4789")
    namespace.ip("rule", "add", "fwmark", "0x1000/0x1000", "lookup", "77")
    before = namespace.traces()
    _one_pass(namespace, _NEAR, _FAR)
    assert "via 10.9.0.77 dev up0 metric 5" in namespace.ip("route")
    namespace.inside(lambda: remove_all(_SETTINGS))
    assert namespace.traces() == before


def test_a_tunnel_that_cannot_be_made_is_told_and_holds_no_direct_route_up(namespace: Namespace) -> None:
    namespace.ip("link", "add", "other", "type", "vxlan", "id", "4244", "dstport", "4789")
    _, problems = _one_pass(namespace, _NEAR, _FAR)
    (problem,) = problems
    assert "no tunnel to 1 nodes" in problem and "--vxlan-id" in problem
    assert "10.244.1.0/24 via 10.9.0.2" in namespace.ip("route")
    namespace.ip("link", "del", "other")
    assert _one_pass(namespace, _NEAR, _FAR)[1] == []


def test_a_bridge_of_former_days_goes_with_its_last_pod(namespace: Namespace) -> None:
    bridge = bridge_name("0123456789ab")
    namespace.ip("link", "add", bridge, "type", "bridge")
    namespace.ip("link", "set", "up1", "master", bridge)

    def retire() -> bool:
        return asyncio.run(retire_bridge("0123456789ab"))

    assert not namespace.inside(retire)
    switch = f"/proc/sys/net/ipv4/conf/{bridge}/proxy_arp"
    assert namespace.inside(lambda: Path(switch).read_text()) == "1\n", "new pods are found by old ones"
    namespace.ip("link", "set", "up1", "nomaster")
    assert namespace.inside(retire) and namespace.inside(retire)
    assert bridge not in namespace.ip("link")


def test_a_thousand_peers_are_routed_in_a_moment(namespace: Namespace) -> None:
    peers = [
        Peer(
            f"n{number}",
            (f"10.9.{number // 250}.{number % 250 + 2}",),
            (f"10.{20 + number // 250}.{number % 250}.0/24",),
        )
        for number in range(1000)
    ]
    started = time.perf_counter()
    decision, problems = _one_pass(namespace, *peers)
    first = time.perf_counter() - started
    assert problems == [] and (decision.direct_peers, decision.tunnel_peers) == (250, 750)
    started = time.perf_counter()
    assert _one_pass(namespace, *peers)[0].add == ()
    second = time.perf_counter() - started
    print(f"1,000 peers: first pass {first:.3f} s, one with nothing to do {second:.3f} s")
    assert first < 3.0 and second < 1.5
    kernel: Kernel = namespace.inside(lambda: observe_kernel(_SETTINGS))
    assert len(kernel.items) > 3 * 750
