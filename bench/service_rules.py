"""The same services for several proxies: records for wherry's part, and iptables rules as kube-proxy writes them."""

from __future__ import annotations

from collections.abc import Iterator

from agent.network.model import Endpoint, Service, ServicePort, Slice, SlicePort
from agent.network.services.choice import Site

SITE = Site("node", "", ("192.0.2.1",), ("10.244.0.0/16",), ("10.96.0.0/12",))
PORT = ServicePort("http", "TCP", 80)


def cluster_ip(number: int) -> str:
    return f"10.97.{number >> 8}.{number & 255}"


def addresses_of(number: int, count: int) -> list[str]:
    """Of made-up pods elsewhere."""
    places = range(number * count, number * count + count)
    return [f"10.244.{100 + (place >> 8) % 150}.{place & 255}" for place in places]


def made(number: int, addresses: list[str], port: int = 8080) -> tuple[Service, list[Slice]]:
    """A service's records."""
    name = f"service-{number}"
    service = Service(
        (f"ns-{number % 50}", name), f"uid-{number}", "ClusterIP", (cluster_ip(number),), False, "", (PORT,)
    )
    endpoints = tuple(Endpoint((address,), True, True, False, node="far") for address in addresses)
    return service, [Slice((service.key[0], f"{name}-x"), name, "IPv4", (SlicePort("http", "TCP", port),), endpoints)]


def iptables_restore(services: list[tuple[int, list[str], int]]) -> str:
    """Rules of kube-proxy's iptables mode for (number, endpoints' addresses, their port)."""
    lines = ["*nat", ":KUBE-SERVICES - [0:0]", ":KUBE-MARK-MASQ - [0:0]"]
    lines += [line for service in services for line in _chains(*service)]
    lines += ["-A PREROUTING -j KUBE-SERVICES", "-A OUTPUT -j KUBE-SERVICES"]
    lines += ["-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000"]
    lines += ["-A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE --random-fully"]
    for number, _, _ in services:
        lines.append(f"-A KUBE-SERVICES -d {cluster_ip(number)}/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-{number}")
    lines += [line for service in services for line in _rules(*service)]
    return "\n".join((*lines, "COMMIT", ""))


def iptables_change(number: int, addresses: list[str], port: int) -> str:
    """The partial sync of one service, for `iptables-restore --noflush`."""
    return "\n".join(("*nat", *_chains(number, addresses, port), *_rules(number, addresses, port), "COMMIT", ""))


def _chains(number: int, addresses: list[str], _port: int) -> Iterator[str]:
    yield f":KUBE-SVC-{number} - [0:0]"
    yield from (f":KUBE-SEP-{number}-{place} - [0:0]" for place in range(len(addresses)))


def _rules(number: int, addresses: list[str], port: int) -> Iterator[str]:
    yield f"-A KUBE-SVC-{number} ! -s 10.244.0.0/16 -d {cluster_ip(number)}/32 -p tcp --dport 80 -j KUBE-MARK-MASQ"
    for place, address in enumerate(addresses):
        left = len(addresses) - place
        draw = f"-m statistic --mode random --probability {1 / left:.11f} " if left > 1 else ""
        yield f"-A KUBE-SVC-{number} {draw}-j KUBE-SEP-{number}-{place}"
        yield f"-A KUBE-SEP-{number}-{place} -s {address}/32 -j KUBE-MARK-MASQ"
        yield f"-A KUBE-SEP-{number}-{place} -p tcp -m tcp -j DNAT --to-destination {address}:{port}"
