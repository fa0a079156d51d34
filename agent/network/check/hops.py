"""What netcheck says: hops in the order of their dependence, each with what was seen and what to do about it. Pure.

Called by `check` with what it saw, and by the command line, which looks for the first hop that fails. A hop that is ok
and has a `why` is a warning. Invariant: a hop that failed has a `why` and a `do`, in sentences for a person.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

HOPS = (
    "agent", "controller", "kernel", "policy", "node", "route", "attach", "pod-to-node", "pod-to-pod", "service", "dns",
    "upstream", "outside", "ingress",
)  # fmt: skip
"""What a later one needs comes before it."""
PART_HOPS = {"routes": "route", "services": "service"}
"""Where a part's problem is told; its own name is the hop's otherwise."""
MOST_SKEW_SECONDS = 5.0
NO_ADDRESS = errno.EADDRNOTAVAIL
TUNNEL, DIRECT, FOREIGN, NO_WAY = "VXLAN", "direct", "another CNI network", "no route"
_LOCAL_REFUSALS = {
    errno.EINVAL: "a blackhole route swallows them",
    errno.ENETUNREACH: "the kernel has no route",
    errno.EHOSTUNREACH: "the address is unreachable from here",
    errno.EACCES: "a route prohibits them",
    NO_ADDRESS: "it has no address of a family that is used here",
    errno.EPERM: "a firewall rule of this node refuses to send them",
}


@dataclass(frozen=True)
class Answer:
    """What came of asking. `error`: 0, or an errno; ETIMEDOUT is silence. `at_once`: this node itself refused."""

    error: int = 0
    seconds: float = 0.0
    at_once: bool = False
    data: bytes = b""
    mtu: int = 0
    """What the path said that it takes, when it found a packet too large."""

    @property
    def silent(self) -> bool:
        return self.error == errno.ETIMEDOUT

    @property
    def heard(self) -> bool:
        """Somebody answered, be it with a refusal."""
        return self.error in (0, errno.ECONNREFUSED)


@dataclass(frozen=True)
class Hop:
    hop: str
    source: str
    target: str
    ok: bool = True
    seconds: float = 0.0
    why: str = ""
    do: str = ""
    way: str = ""

    def json(self) -> dict[str, Any]:
        shown = {
            "hop": self.hop,
            "from": self.source,
            "to": self.target,
            "ok": self.ok,
            "milliseconds": round(self.seconds * 1000, 2),
        }
        return shown | {key: value for key in ("way", "why", "do") if (value := getattr(self, key))}

    def failed(self, why: str, do: str) -> Hop:
        return replace(self, ok=False, why=why, do=do)

    def warned(self, why: str, do: str) -> Hop:
        return replace(self, why=why, do=do)

    def after(self, seconds: float) -> Hop:
        return replace(self, seconds=seconds)


@dataclass(frozen=True)
class Around:
    """What is known of the node besides: put into the sentences about hops that fail."""

    dropped_by_path_filter: int = 0
    """So many packets this node's reverse-path filter dropped during the check."""
    dropping_chains: tuple[str, ...] = ()
    """Chains of others that drop what is forwarded unless a rule of theirs lets it through."""


@dataclass(frozen=True)
class Echoes:
    """A small packet there and back, then a full one on each way."""

    small: Answer
    out: Answer = Answer()
    back: Answer = Answer()
    size: int = 0
    """Of the full packet, with its headers."""


def in_order(hops: Iterable[Hop]) -> list[Hop]:
    return sorted(hops, key=lambda hop: HOPS.index(hop.hop))


def words(answer: Answer) -> str:
    """What came instead of an answer."""
    if answer.silent:
        return "nothing came back"
    if answer.at_once:
        return _LOCAL_REFUSALS.get(answer.error, _spoken(answer.error))
    if answer.error == errno.ECONNREFUSED:
        return "it was refused: nobody listens there, or a firewall rejects it"
    return f"somebody on the way answered: {_spoken(answer.error)}"


def _spoken(number: int) -> str:
    import os

    return os.strerror(number).lower()


def judge_clock(hop: Hop, skew_seconds: float) -> Hop:
    """`skew_seconds`: how far the controller's clock is ahead of this node's."""
    if abs(skew_seconds) <= MOST_SKEW_SECONDS:
        return hop
    direction = "behind" if skew_seconds > 0 else "ahead of"
    why = f"this node's clock is {abs(skew_seconds):.0f} s {direction} the controller's"
    return hop.warned(why, "Certificates and tokens are judged by the clock: run a time service on both.")


def judge_parts(node: str, problems: Sequence[tuple[str, str]]) -> list[Hop]:
    """`problems`: (part, "" or its problem)."""
    return [
        Hop(PART_HOPS.get(part, part), node, f"{part} on {node}").failed(problem, _about_part(part))
        for part, problem in problems
        if problem
    ]


def judge_addresses(node: str, complaints: Sequence[str]) -> list[Hop]:
    """What the routes part found wrong with the addresses of nodes, pods and services."""
    do = "Addresses of nodes, pods and services must be apart: change one of the two."
    return [Hop("route", node, f"addresses known to {node}").failed(complaint, do) for complaint in complaints]


def _about_part(part: str) -> str:
    if part == "dns":
        return "See network/dns.log in the agent's data directory; the agent starts the process again by itself."
    return "The agent tries again by itself; its log has more."


def judge_forwards(node: str, switched_off: str) -> list[Hop]:
    """`switched_off`: the sysctl that was found off before a pod's network was made, which switches it on."""
    if not switched_off:
        return []
    why = f"this node forwarded no packets before this check: {switched_off} was 0"
    do = "It is on now, as after any new pod; see that no file in /etc/sysctl.d and no program switches it off again."
    return [Hop("kernel", node, "forwarding").failed(why, do)]


def judge_forwarding(hop: Hop, program: str, rules: Sequence[str], mark: str) -> Hop:
    """`rules` of the chain FORWARD as `iptables -S` prints them; ours carry `mark`."""
    do = "Restart the agent, which adds its rules anew; if something takes them away again, let pods through there."
    for rule in rules:
        if mark in rule:
            return hop
        if rule in ("-A FORWARD -j DROP", "-A FORWARD -j REJECT --reject-with icmp-port-unreachable"):
            return hop.failed(f"{program}'s FORWARD chain drops everything before it gets to wherry's rules", do)
    if any(rule in ("-P FORWARD DROP", "-P FORWARD REJECT") for rule in rules):
        why = (
            f"{program}'s FORWARD chain drops by default (Docker and ufw do that), and wherry's rules for pods are gone"
        )
        return hop.failed(why, do)
    return hop


def judge_node(hop: Hop, answer: Answer, address: str) -> Hop:
    hop = hop.after(answer.seconds)
    if answer.heard:
        return hop
    do = f"See that {hop.target} is up and that no firewall, cable or switch between the two stops TCP to {address}."
    return hop.failed(f"{hop.target} does not answer at {address}: {words(answer)}", do)


def judge_route(hop: Hop, echoes: Echoes, node_answers: bool, vxlan_port: int) -> Hop:
    """To a peer's pods: is it the way there, or what the packet meets?"""
    small = echoes.small
    hop = hop.after(small.seconds)
    if not small.error:
        return judge_size(hop, echoes)
    if hop.way == NO_WAY:
        return hop.failed(
            f"there is no route to the pods of {hop.target}",
            f"The agent keeps it by itself: see its log, and that {hop.target} has a podCIDR and an InternalIP.",
        )
    if small.at_once:
        return hop.failed(
            f"packets to the pods of {hop.target} do not leave this node: {words(small)}",
            "Something else has a route or rule that comes before wherry's: `ip route show table all`, `ip rule`.",
        )
    if not node_answers:
        return hop.failed(f"no way to {hop.target} at all: {words(small)}", "Mend the hop `node` first.")
    if hop.way == TUNNEL:
        return hop.failed(
            f"no packet gets through the VXLAN tunnel to {hop.target}, though its own address answers",
            f"Let UDP port {vxlan_port} pass between the two nodes, in both directions.",
        )
    return hop.failed(
        f"no packet gets to the pods of {hop.target} and back, though its own address answers: {words(small)}",
        f"{hop.target} drops what it should forward, or the network between refuses pods' addresses (clouds check the "
        f"source): look for a firewall there, `iptables -S FORWARD`, `nft list ruleset`.",
    )


def judge_size(hop: Hop, echoes: Echoes) -> Hop:
    """Small packets arrive; do full ones? A path that says what it takes is no black hole: senders adapt."""
    for answer, way in ((echoes.out, f"to {hop.target}"), (echoes.back, f"back from {hop.target}")):
        if answer.error:
            return hop.failed(
                f"small packets arrive, but packets of {echoes.size} bytes are lost on the way {way}",
                "A link between the two has a smaller MTU, or something drops large packets or the ICMP messages about "
                "them: give the link the MTU of the others, or the nodes' interfaces the smaller one.",
            )
        if answer.mtu:
            hop = hop.warned(
                f"the path {way} takes only {answer.mtu} bytes; pods' MTU is {echoes.size}", "Senders adapt; slower."
            )
    return hop


def judge_pod_path(hop: Hop, echoes: Echoes, own: str) -> Hop:
    """From pod to pod. `own` is the address that the other end must see."""
    small = echoes.small
    hop = hop.after(small.seconds)
    if small.error:
        return hop.failed(
            f"a pod on {hop.source} does not reach one on {hop.target}: {words(small)}",
            f"If the hop `route` is fine, a firewall of {hop.source} or {hop.target} drops what it should forward: "
            "`iptables -S FORWARD`, `nft list ruleset`.",
        )
    seen = small.data.decode(errors="replace")
    if seen != own:
        return hop.failed(
            f"a pod on {hop.target} sees {seen} instead of the address {own} of a pod on {hop.source}",
            "Something else masquerades packets between pods: `nft list ruleset`, `iptables -t nat -S POSTROUTING`.",
        )
    return judge_size(hop, echoes)


def judge_pod_to_node(hop: Hop, answer: Answer, address: str) -> Hop:
    hop = hop.after(answer.seconds)
    if answer.heard:
        return hop
    return hop.failed(
        f"a pod on {hop.source} does not reach {hop.target} at {address}: {words(answer)}",
        f"A firewall of {hop.source} or {hop.target} drops packets of pods: let the pods' range through to the nodes.",
    )


def judge_service(hop: Hop, answer: Answer, endpoints: Sequence[tuple[str, bool]]) -> Hop:
    """`endpoints`: (address:port, whether a pod reaches it without the service); looked at when there is no answer."""
    hop = hop.after(answer.seconds)
    if not answer.error:
        return hop
    what = f"a pod on {hop.source} does not reach the service {hop.target}: {words(answer)}"
    if not endpoints:
        return hop.failed(f"{what}; it has no endpoint", "`kubectl get endpointslices -n default` should show some.")
    dead = [address for address, reached in endpoints if not reached]
    if dead:
        return hop.failed(
            f"{what}; its endpoint {dead[0]} cannot be reached from pods",
            "See that no firewall there stops packets of this node, as which pods appear outside the cluster.",
        )
    return hop.failed(
        f"{what}, though its endpoint {endpoints[0][0]} answers a pod: the service's rules are wrong or missing",
        "Look for another program that changes nftables or iptables; restarting the agent writes the rules anew.",
    )


def judge_dns(hop: Hop, answer: Answer, said: tuple[int, bool], processes: Sequence[int]) -> Hop:
    """`said`: the reply's code, and whether it has the expected address."""
    hop = hop.after(answer.seconds)
    code, right = said
    if answer.error:
        if not processes:
            return hop.failed(
                f"DNS does not answer on {hop.source}: its process does not run",
                "The agent starts it again by itself; if it does not: see network/dns.log in its data directory.",
            )
        return hop.failed(
            f"DNS does not answer on {hop.source}: {words(answer)}, though its process {processes[0]} is there",
            f"End it (`kill -9 {processes[0]}` on the node): the agent starts another at once.",
        )
    if not right:
        return hop.failed(
            f"DNS on {hop.source} answers with code {code} and without the address of the service kubernetes",
            "See that the Service default/kubernetes exists; the agent's log says if the DNS process was not told.",
        )
    return hop


def judge_upstream(hop: Hop, answers: Sequence[tuple[str, Answer]]) -> Hop:
    if not answers:
        return hop.warned("no upstream server is configured", "Names outside the cluster need one in resolv.conf.")
    dead = [server for server, answer in answers if answer.error]
    hop = hop.after(min(answer.seconds for _, answer in answers))
    if not dead:
        return hop
    what = f"upstream DNS server {', '.join(dead)} does not answer {hop.source}: {words(dict(answers)[dead[0]])}"
    do = "Put servers that answer into the node's resolv.conf."
    return hop.failed(what, do) if len(dead) == len(answers) else hop.warned(what, do)


def judge_outside(hop: Hop, gateway: str, asked: Sequence[tuple[str, bool, bool]]) -> Hop:
    """`asked`: (address, whether it answers a pod, whether it answers the node)."""
    if not gateway:
        return hop.warned("no way out of this network: the node has no default route", "Nothing, if that is intended.")
    if any(pod for _, pod, _ in asked):
        return hop
    reached = [address for address, _, node in asked if node]
    if not reached:
        names = ", ".join(address for address, _, _ in asked)
        return hop.warned(f"nothing outside that was asked answers, nor does it answer the node: {names}", "")
    return hop.failed(
        f"{reached[0]} answers the node {hop.source}, but none of its pods",
        "Pods' packets are not masqueraded or not forwarded: `nft list ruleset` must show wherry's postrouting chain; "
        "restarting the agent writes it anew.",
    )


def explain(hop: Hop, around: Around) -> Hop:
    """Adds to what to do what else was seen, if the hop failed."""
    if hop.ok:
        return hop
    do = hop.do
    if around.dropping_chains:
        do += f" Here these chains drop by default what is forwarded: {', '.join(around.dropping_chains)}."
    if around.dropped_by_path_filter:
        do += (
            f" The reverse-path filter of this node dropped {around.dropped_by_path_filter} packets meanwhile: "
            "set net.ipv4.conf.*.rp_filter to 2."
        )
    return replace(hop, do=do)
