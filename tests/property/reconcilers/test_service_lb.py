"""Whatever Services and nodes there are: no port or address is given twice, and decisions carried out come to rest."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from api.objects import Object, clone
from controller.reconcilers.actions import Together, Write, changer_of
from controller.reconcilers.loop import Decision
from controller.reconcilers.service_lb import ANNOUNCER, Balanced, Observed, Server, decide
from controller.registry.ranges import NO_POOL, parse_pool

POOL = parse_pool("198.51.100.1-198.51.100.4")
ROUNDS = 8
"""Who waits for what another gives back gets it a round later."""
PROXY = tuple(((port, "TCP"), "the built-in Ingress proxy") for port in (80, 443))
SERVERS = tuple(
    Server(name, (f"192.0.2.{place}",), PROXY if place == 3 else ()) for place, name in enumerate("abcd", 1)
)


@st.composite
def services(draw: st.DrawFn) -> list[Object]:
    found = []
    for number in range(draw(st.integers(0, 6))):
        ports = draw(st.sets(st.sampled_from((80, 443, 8080)), min_size=1))
        shown = draw(st.sets(st.sampled_from(("198.51.100.1", "198.51.100.2", "192.0.2.1", "192.0.2.2"))))
        meta: dict[str, Any] = {"name": f"s{number}", "namespace": "n", "uid": f"u{number}", "resourceVersion": "1"}
        if announcer := draw(st.sampled_from(("", "a", "gone"))):
            meta["annotations"] = {ANNOUNCER: announcer}
        spec: dict[str, Any] = {"type": draw(st.sampled_from(("LoadBalancer", "ClusterIP"))), "ipFamilies": ["IPv4"]}
        spec["ports"] = [{"port": port, "protocol": "TCP"} for port in sorted(ports)]
        if asked := draw(st.sampled_from(("", "198.51.100.2", "192.0.2.2"))):
            spec["loadBalancerIP"] = asked
        status = {"loadBalancer": {"ingress": [{"ip": address, "ipMode": "VIP"} for address in sorted(shown)]}}
        found.append({"metadata": meta, "spec": spec, "status": status})
    return found


def carried_out(decision: Decision, present: list[Object]) -> list[Object]:
    after = {one["metadata"]["uid"]: clone(one) for one in present}
    for action in decision.actions:
        for one in action.actions if isinstance(action, Together) else (action,):
            if isinstance(one, Write):
                changed = changer_of(one)(after[one.uid])
                assert changed is not None
                after[one.uid] = changed
    return list(after.values())


def shown(service: Object) -> list[str]:
    return [one["ip"] for one in service["status"]["loadBalancer"].get("ingress") or ()]


@given(services(), st.booleans(), st.sets(st.sampled_from(SERVERS)))
def test_nothing_is_given_twice_and_all_comes_to_rest(
    present: list[Object], pooled: bool, servers: set[Server]
) -> None:
    def seen(found: list[Object]) -> Observed:
        able = tuple(sorted(servers, key=lambda one: one.name))
        return Observed(POOL if pooled else NO_POOL, able, tuple(map(Balanced, found)))

    after = present
    for _ in range(ROUNDS):
        decision = decide(seen(after))
        if not [action for action in decision.actions if isinstance(action, Together)]:
            break
        after = carried_out(decision, after)
        given = [(address, 0) for one in after for address in shown(one)]
        if not pooled:
            pairs = ((one, port["port"]) for one in after for port in one["spec"]["ports"])
            given = [(address, port) for one, port in pairs for address in shown(one)]
        assert len(given) == len(set(given))
    else:
        raise AssertionError("it never comes to rest")
    for one in after:
        announcer = one["metadata"].get("annotations", {}).get(ANNOUNCER, "")
        assert bool(announcer) == (pooled and bool(shown(one)) and bool(servers))
