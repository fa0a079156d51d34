"""Random policies, pods and flows: what the rendered tables do with a packet is what the API's documentation says.

Each example lives through several changes, told to the compiler one at a time and to the kernel as transactions of
changes; after each, the verdicts agree with the reference and the table is the one a whole transaction makes.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.network.model import parse_pod_address
from agent.network.policy.compiler import Compiler, Ruleset
from agent.network.policy.records import parse_policy
from agent.network.policy.transactions import Table, render_changes, render_whole
from tests.property.network.nft_model import Kernel, Packet
from tests.property.network.policy_reference import World, enters, is_allowed, leaves

NODE = "n1"
LOCAL, FAR, OUTSIDE = "10.244.1.", "10.244.2.", ("192.0.2.1", "192.0.2.200", "10.0.0.5")
TABLE = Table("t", 4, ("10.244.1.0/24",))
NAMESPACES = ("a", "b", "c")
LABELS = st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["x", "y"]), max_size=2)
PROTOCOLS = ("TCP", "UDP", "SCTP")
NUMBERS = (80, 81, 443, 53)
FLOWS = [(protocol, port) for protocol in PROTOCOLS[:2] for port in NUMBERS] + [("SCTP", 80), ("ICMP", 0)]


@st.composite
def selectors(draw: st.DrawFn) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if draw(st.booleans()):
        made["matchLabels"] = {draw(st.sampled_from(["app", "tier"])): draw(st.sampled_from(["x", "y"]))}
    if draw(st.integers(0, 5)) == 0:
        operator = draw(st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"]))
        expression: dict[str, Any] = {"key": draw(st.sampled_from(["app", "tier"])), "operator": operator}
        if operator in ("In", "NotIn"):
            expression["values"] = draw(st.lists(st.sampled_from(["x", "y", "z"]), min_size=1, max_size=2))
        made["matchExpressions"] = [expression]
    return made


@st.composite
def peers(draw: st.DrawFn) -> dict[str, Any]:
    if draw(st.integers(0, 3)) == 0:
        excepts = draw(st.lists(st.sampled_from(["192.0.2.128/25", "192.0.2.192/26", "10.244.2.0/28"]), max_size=2))
        return {"ipBlock": {"cidr": draw(st.sampled_from(["0.0.0.0/0", "192.0.2.0/24", "10.244.0.0/16"])),
                            "except": excepts}}  # fmt: skip
    made = {}
    if draw(st.integers(0, 2)):
        made["namespaceSelector"] = draw(selectors())
    if not made or draw(st.booleans()):
        made["podSelector"] = draw(selectors())
    return made


@st.composite
def ports(draw: st.DrawFn) -> dict[str, Any]:
    made: dict[str, Any] = {"protocol": draw(st.sampled_from(PROTOCOLS))}
    match draw(st.sampled_from(["number", "range", "name", "all"])):
        case "number":
            made["port"] = draw(st.sampled_from(NUMBERS))
        case "range":
            made["port"], made["endPort"] = 80, draw(st.sampled_from([80, 81, 500]))
        case "name":
            made["port"] = draw(st.sampled_from(["web", "dns"]))
    return made


@st.composite
def policies(draw: st.DrawFn) -> dict[str, Any]:
    types = draw(st.sampled_from([["Ingress"], ["Egress"], ["Ingress", "Egress"]]))
    spec: dict[str, Any] = {"podSelector": draw(selectors()), "policyTypes": types}
    for field, side in (("ingress", "from"), ("egress", "to")):
        if draw(st.integers(0, 5)):
            rule = st.fixed_dictionaries(
                {}, optional={side: st.lists(peers(), max_size=2), "ports": st.lists(ports(), max_size=3)}
            )
            spec[field] = draw(st.lists(rule, min_size=1, max_size=2))
    return spec


@st.composite
def pods(draw: st.DrawFn, number: int) -> dict[str, Any]:
    local = draw(st.integers(0, 2)) < 2
    named = st.lists(st.sampled_from([("web", "TCP", 80), ("web", "TCP", 81), ("dns", "UDP", 53)]), max_size=2)
    listed = [{"name": n, "protocol": p, "containerPort": c} for n, p, c in draw(named)]
    return {
        "metadata": {"labels": draw(LABELS)},
        "spec": {
            "nodeName": NODE if local else "n2",
            "hostNetwork": draw(st.integers(0, 9)) == 9,
            "containers": [{"ports": listed}],
        },
        "status": {
            "phase": draw(st.sampled_from(["Running", "Running", "Running", "Pending", "Succeeded"])),
            "podIP": f"{LOCAL if local else FAR}{number}",
        },
    }


@st.composite
def changes(draw: st.DrawFn) -> tuple[str, tuple[str, str], Any]:
    """(kind, key, new object or None)."""
    kind = draw(st.sampled_from(["pod", "pod", "policy", "policy", "namespace"]))
    key = (draw(st.sampled_from(NAMESPACES)), f"{kind}-{draw(st.integers(1, 3))}")
    if kind == "namespace":
        return kind, ("", key[0]), draw(LABELS)
    if draw(st.integers(0, 4)) == 0:
        return kind, key, None
    return kind, key, draw(named(kind, key))


@st.composite
def named(draw: st.DrawFn, kind: str, key: tuple[str, str]) -> dict[str, Any]:
    identity = {"namespace": key[0], "name": key[1], "uid": "/".join(key)}
    if kind == "policy":
        return {"metadata": identity, "spec": draw(policies())}
    pod = draw(pods(10 * NAMESPACES.index(key[0]) + int(key[1][-1])))
    pod["metadata"] |= identity
    return pod


@st.composite
def beginnings(draw: st.DrawFn) -> list[tuple[str, tuple[str, str], Any]]:
    """Namespaces with labels, two pods in each, and a policy."""
    made: list[tuple[str, tuple[str, str], Any]] = []
    for namespace in draw(st.permutations(NAMESPACES)):
        made.append(("namespace", ("", namespace), draw(LABELS)))
        for kind, number in (("pod", 1), ("policy", 1), ("pod", 2)):
            key = (namespace, f"{kind}-{number}")
            made.append((kind, key, draw(named(kind, key))))
    return made


class Node:
    """World, compiler and kernel, in step."""

    def __init__(self) -> None:
        self.world = World({}, {}, {})
        self.compiler = Compiler(NODE)
        self.kernel = Kernel()
        self.held: Ruleset | None = None

    def change(self, kind: str, key: tuple[str, str], obj: Any) -> None:
        if kind == "namespace":
            self.world.namespaces[key[1]] = obj
            self.compiler.members.put_namespace(key[1], obj)
            return
        kept = self.world.pods if kind == "pod" else self.world.policies
        kept.pop(key, None)
        if obj is not None:
            kept[key] = obj
        if kind == "pod":
            self.compiler.put_pod(key, parse_pod_address(obj) if obj else None)
        else:
            self.compiler.put_policy(key, parse_policy(obj) if obj else None)

    def tell_kernel(self) -> None:
        desired = self.compiler.compile([4])[4]
        if self.held is None:
            self.kernel.apply(render_whole(TABLE, desired))
        else:
            self.kernel.apply(render_changes(TABLE, self.held, desired))
        self.compiler.members.settle()
        self.held = desired


@settings(max_examples=40, deadline=None)
@given(beginnings(), st.lists(st.lists(changes(), min_size=1, max_size=3), max_size=3))
def test_tables_do_what_the_documentation_says(beginning: list[Any], batches: list[list[Any]]) -> None:
    node = Node()
    for batch in [beginning, *batches]:
        for change in batch:
            node.change(*change)
        node.tell_kernel()
        whole = Kernel()
        whole.apply(render_whole(TABLE, node.compiler.compile([4])[4]))
        assert node.kernel == whole
        assert_agreement(node)


def assert_agreement(node: Node) -> None:
    own = [pod["status"]["podIP"] for pod in node.world.pods.values()]
    known = {ip for ip in own if node.world.owner(ip) is not None or ip.startswith(FAR)}
    for source in sorted({*known, *OUTSIDE}):
        for destination in sorted({*known, *OUTSIDE}):
            for protocol, port in FLOWS:
                packet = Packet(source, destination, protocol.lower(), port)
                flow = (node.world, source, destination, protocol, port)
                assert node.kernel.passes("forward", packet) is expected(flow), (source, destination, protocol, port)
                if source.startswith(LOCAL) and destination in OUTSIDE:
                    assert node.kernel.passes("input", packet) is leaves(*flow)


def expected(flow: tuple[World, str, str, str, int]) -> bool:
    """What this node has to enforce: the halves of its own pods."""
    _, source, destination, *_ = flow
    if source == destination:
        return True
    if source.startswith(LOCAL) and destination.startswith(LOCAL):
        return is_allowed(*flow)
    return (not source.startswith(LOCAL) or leaves(*flow)) and (not destination.startswith(LOCAL) or enters(*flow))
