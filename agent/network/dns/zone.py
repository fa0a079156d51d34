"""The cluster's own names: which records a name has, out of services, endpoint slices and namespaces.

Pure, in memory; fed by `control`, asked by `responder`. Rules: Kubernetes DNS-Based Service Discovery 1.1.0
(github.com/kubernetes/dns docs/specification.md). Where it leaves a choice, CoreDNS as kubeadm sets it up decides:
endpoints without hostname are called by their address with dashes, endpoints of services with a cluster IP have names,
too, and a pod's name a-b-c-d.NAMESPACE.pod is true for every address (`pods insecure`). The TTL is CoreDNS's 5 s.
Invariant: `find` tells a name that does not exist (None: NXDOMAIN) from one without records (no sets: NODATA), as RFC
8020 has it: what lies above an existing name exists. Records are computed when asked for; little is stored twice.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from struct import pack

from agent.network.dns import wire
from agent.network.dns.records import Key, KnownEndpoint, KnownService, KnownSlice
from agent.network.dns.reverse import ReverseZones, address_of_name, reverse_name
from agent.network.dns.wire import Record, encode_name, labels_of

TTL = 5
SCHEMA_VERSION = b"1.1.0"
_SRV_WEIGHTS = 100
_REMEMBERED = 64
"""So many services' endpoints are kept sorted by name; they are worked out again when that is too few."""
_SERVER = ["ns", "dns"]
"""The name server's own name in the zone, as CoreDNS has it."""

Sets = dict[int, list[bytes]]
"""Record data by type."""


@dataclass(frozen=True, slots=True)
class Found:
    """A name that exists. `extra` may help who asked, in the additional section."""

    sets: Mapping[int, list[bytes]]
    extra: tuple[Record, ...] = ()


@dataclass(slots=True)
class _Named:
    """The endpoints of one service that have names: addresses by hostname, and the named ports of each."""

    addresses: dict[str, list[bytes]] = field(default_factory=dict)
    ports: dict[tuple[str, str], dict[tuple[int, str], None]] = field(default_factory=dict)


class Zone:
    """`domain` is the cluster's; `cidrs` are its services' and pods'; `servers` the addresses of this DNS server."""

    def __init__(self, domain: str, cidrs: Iterable[str], servers: Iterable[str]) -> None:
        self.known = False
        """Whether the cluster's state was told. Before, no name can be said not to exist."""
        self._wire = encode_name(domain)
        self._servers = [packed_address(each) for each in servers]
        self._reverse = ReverseZones(cidrs)
        self._serial = int(time.time())
        self.clear()

    def clear(self) -> None:
        self._namespaces: set[str] = set()
        self._services: dict[Key, KnownService] = {}
        self._slices: dict[Key, KnownSlice] = {}
        self._slices_of: dict[Key, set[Key]] = {}
        self._services_in: Counter[str] = Counter()
        self._users: dict[str, set[tuple[str, str, bool]]] = {}
        """Who has an address: (namespace, name, whether that is a slice)."""
        self._named: dict[Key, _Named] = {}

    def put_namespace(self, name: str, *, exists: bool) -> None:
        (self._namespaces.add if exists else self._namespaces.discard)(name)
        self._touch()

    def put_service(self, key: Key, service: KnownService | None) -> None:
        """The service as it is now; None: it has gone."""
        if (old := self._services.pop(key, None)) is not None:
            self._services_in[key[0]] -= 1
            if not self._services_in[key[0]]:
                del self._services_in[key[0]]
            self._forget(old.ips, (*key, False))
        if service is not None:
            self._services[key] = service
            self._services_in[key[0]] += 1
            self._remember(service.ips, (*key, False))
        self._named.pop(key, None)
        self._touch()

    def put_slice(self, key: Key, piece: KnownSlice | None) -> None:
        """The slice as it is now; None: it has gone, or names nobody any more."""
        if (old := self._slices.pop(key, None)) is not None:
            owner = (key[0], old.service)
            self._slices_of[owner].discard(key)
            if not self._slices_of[owner]:
                del self._slices_of[owner]
            self._named.pop(owner, None)
            self._forget(_addresses(old), (*key, True))
        if piece is not None:
            self._slices[key] = piece
            owner = (key[0], piece.service)
            self._slices_of.setdefault(owner, set()).add(key)
            self._named.pop(owner, None)
            self._remember(_addresses(piece), (*key, True))
        self._touch()

    def _touch(self) -> None:
        self._serial = int(time.time())

    def _remember(self, addresses: Iterable[str], user: tuple[str, str, bool]) -> None:
        for address in addresses:
            self._users.setdefault(address, set()).add(user)

    def _forget(self, addresses: Iterable[str], user: tuple[str, str, bool]) -> None:
        for address in set(addresses):
            users = self._users.get(address, set())
            users.discard(user)
            if not users:
                self._users.pop(address, None)

    def apex_of(self, name: bytes) -> bytes | None:
        """The zone of ours that a name lies in; None when somebody else answers for it.

        An address outside the cluster's ranges is ours as long as it is an endpoint's: it has a name then.
        """
        if _lies_in(name, self._wire):
            return self._wire
        apex = self._reverse.apex_of(name)
        if apex is None and (address := address_of_name(name)) in self._users and address is not None:
            return name if self._pointers(address) else None
        return apex

    def soa(self, apex: bytes) -> Record:
        data = self._name(_SERVER) + self._name(["hostmaster"])
        return Record(apex, wire.SOA, TTL, data + pack("!IIIII", self._serial, 7200, 1800, 86400, TTL))

    def find(self, name: bytes) -> Found | None:
        """What a name in one of our zones has; None when there is no such name."""
        if not _lies_in(name, self._wire):
            return self._find_reverse(name)
        labels = labels_of(name)[: -len(labels_of(self._wire)) or None]
        match labels:
            case []:
                return self._apex(self._wire)
            case ["dns-version"]:
                return Found({wire.TXT: [bytes((len(SCHEMA_VERSION),)) + SCHEMA_VERSION]})
            case ["dns"] | ["svc"] | ["pod"]:
                return Found({})
            case ["ns", "dns"]:
                return Found(_address_sets(self._servers))
            case [namespace, "svc"] | [namespace, "pod"]:
                return Found({}) if self._has_namespace(namespace) else None
            case [pod, namespace, "pod"]:
                return self._find_pod(pod) if self._has_namespace(namespace) else None
            case [*inner, service, namespace, "svc"]:
                return self._find_service(inner, (namespace, service))
        return None

    def _has_namespace(self, name: str) -> bool:
        return name in self._namespaces or self._services_in[name] > 0

    def _apex(self, apex: bytes) -> Found:
        extra = (Record(self._name(_SERVER), *rest) for rest in _records(_address_sets(self._servers)))
        return Found({wire.SOA: [self.soa(apex).data], wire.NS: [self._name(_SERVER)]}, tuple(extra))

    @staticmethod
    def _find_pod(label: str) -> Found | None:
        plain = label.count("-") == 3 and "--" not in label
        try:
            return Found(_address_sets([packed_address(label.replace("-", "." if plain else ":"))]))
        except OSError:
            return None

    def _find_service(self, inner: list[str], key: Key) -> Found | None:
        service = self._services.get(key)
        if service is None or (inner and service.external_name):
            return None
        match inner:
            case []:
                return self._service_itself(key, service)
            case [port, protocol] if port.startswith("_") and protocol.startswith("_"):
                return self._port(key, service, (port[1:], protocol[1:]))
            case [protocol] if protocol.startswith("_"):
                known = {each for _, each in self._port_names(key, service)}
                return Found({}) if protocol[1:] in known else None
            case [hostname]:
                addresses = self._endpoints(key, service).addresses.get(hostname)
                return Found(_address_sets(addresses)) if addresses else None
        return None

    def _service_itself(self, key: Key, service: KnownService) -> Found | None:
        if service.external_name:
            target = external_target(service.external_name)
            return Found({wire.CNAME: [target]}) if target else None
        if not service.headless:
            return Found(_address_sets(packed_address(ip) for ip in service.ips))
        found = self._endpoints(key, service).addresses.values()
        unique = dict.fromkeys(address for each in found for address in each)
        return Found(_address_sets(unique)) if unique else None

    def _port_names(self, key: Key, service: KnownService) -> Iterable[tuple[str, str]]:
        if not service.headless:
            return [(name, protocol) for name, protocol, _ in service.ports]
        return self._endpoints(key, service).ports

    def _port(self, key: Key, service: KnownService, wanted: tuple[str, str]) -> Found | None:
        """SRV records of a port, with the addresses of their targets."""
        if service.headless:
            named = self._endpoints(key, service)
            found = [(number, [hostname, *_inside(key)]) for number, hostname in named.ports.get(wanted, ())]
            sets = {hostname: _address_sets(named.addresses[hostname]) for _, (hostname, *_) in found}
        else:
            found = [(number, _inside(key)) for *port, number in service.ports if tuple(port) == wanted]
            sets = {key[1]: _address_sets(packed_address(ip) for ip in service.ips)}
        if not found:
            return None
        weight = max(1, _SRV_WEIGHTS // len(found))
        data = [pack("!HHH", 0, weight, number) + self._name(target) for number, target in found]
        targets = dict.fromkeys(tuple(target) for _, target in found)
        extra = (Record(self._name(list(each)), *rest) for each in targets for rest in _records(sets[each[0]]))
        return Found({wire.SRV: data}, tuple(extra))

    def _endpoints(self, key: Key, service: KnownService) -> _Named:
        if (known := self._named.get(key)) is not None:
            return known
        if len(self._named) >= _REMEMBERED:
            self._named.clear()
        named = self._named[key] = _Named()
        pieces = [self._slices[each] for each in sorted(self._slices_of.get(key, ()))]
        for piece in pieces:
            for endpoint in piece.endpoints:
                if not (endpoint.ready or service.all_endpoints):
                    continue
                for address in endpoint.addresses:
                    hostname = hostname_of(endpoint, address)
                    addresses = named.addresses.setdefault(hostname, [])
                    if (packed := packed_address(address)) not in addresses:
                        addresses.append(packed)
                    for name, protocol, number in piece.ports:
                        named.ports.setdefault((name, protocol), {})[number, hostname] = None
        return named

    def _find_reverse(self, name: bytes) -> Found | None:
        address = address_of_name(name)
        if address is not None:
            pointers = self._pointers(address)
            return Found({wire.PTR: pointers}) if pointers else None
        if name == self._reverse.apex_of(name):
            return self._apex(name)
        inhabited = any(_lies_in(reverse_name(each), name) and self._pointers(each) for each in list(self._users))
        return Found({}) if inhabited else None

    def _pointers(self, address: str) -> list[bytes]:
        """The names of an address: of the service whose cluster IP it is, else of the endpoints that have it."""
        users = sorted(self._users.get(address, ()))
        services = [_inside((namespace, name)) for namespace, name, is_slice in users if not is_slice]
        if services:
            return [self._name(each) for each in services]
        found: dict[bytes, None] = {}
        for namespace, name, _ in users:
            piece = self._slices[namespace, name]
            service = self._services.get((namespace, piece.service))
            if service is None or service.external_name:
                continue
            for each in piece.endpoints:
                if address in each.addresses and (each.ready or service.all_endpoints):
                    found[self._name([hostname_of(each, address), *_inside((namespace, piece.service))])] = None
        return list(found)

    def _name(self, labels: list[str]) -> bytes:
        encoded = [label.encode("latin-1", "replace")[:63] for label in labels]
        return b"".join(bytes((len(each),)) + each for each in encoded) + self._wire


def packed_address(address: str) -> bytes:
    """OSError when it is none."""
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def hostname_of(endpoint: KnownEndpoint, address: str) -> str:
    return endpoint.hostname or address.replace(".", "-").replace(":", "-").lower()


def external_target(name: str) -> bytes | None:
    """Where an ExternalName points to. None for an address, which no DNS server resolves, or no name."""
    try:
        packed_address(name.rstrip("."))
    except OSError:
        try:
            return encode_name(name)
        except wire.Malformed:
            return None
    return None


def _addresses(piece: KnownSlice) -> Iterator[str]:
    return (address for each in piece.endpoints for address in each.addresses)


def _address_sets(addresses: Iterable[bytes]) -> Sets:
    sets: Sets = {}
    for address in addresses:
        sets.setdefault(wire.A if len(address) == 4 else wire.AAAA, []).append(address)
    return sets


def _records(sets: Sets) -> Iterator[tuple[int, int, bytes]]:
    return ((kind, TTL, data) for kind, each in sets.items() for data in each)


def _inside(key: Key) -> list[str]:
    return [key[1], key[0], "svc"]


def _lies_in(name: bytes, apex: bytes) -> bool:
    """Whether a name is the apex or below it; label boundaries count."""
    if not name.endswith(apex):
        return False
    at, end = 0, len(name) - len(apex)
    while at < end:
        at += 1 + name[at]
    return at == end
