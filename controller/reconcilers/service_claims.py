"""Claims of Services, repaired: each address and node port that a Service has is claimed by it, and no other is.

Run by the loop under one key, at the start of a leader and every three minutes as Kubernetes' repair loops. Claims are
taken and freed with the very write that needs it, so there is nothing to do unless somebody wrote to etcd by hand, or
Services were made before there were claims. `decide` is pure; every action compares what it was decided on, in etcd.
Events as k8s.io/kubernetes pkg/registry/core/service/{ipallocator,portallocator}/controller.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from api import kinds
from api.objects import Object, is_deleting, name_of, namespace_of, uid_of
from controller.reconcilers.actions import Action, DropClaim, Note, TakeClaim, Write
from controller.reconcilers.loop import Decision, Failure, Once, Source
from controller.reconcilers.views import Views
from controller.registry.allocation import holder_of
from controller.registry.ranges import ServiceRanges
from controller.registry.revoked_nodes import is_remembered
from controller.registry.service_fields import claims_of, needs_address
from controller.store.claims import Claim

INTERVAL_SECONDS = 180.0
SERVICES = kinds.by_resource("", "services")
_ALL = "claims"


@dataclass(frozen=True)
class Observed:
    """Services and claims of one state of the cache. `told`: uid and text of what was said before."""

    ranges: ServiceRanges
    services: tuple[Object, ...]
    claims: tuple[Claim, ...]
    told: frozenset[tuple[str, str]] = frozenset()


def decide(observed: Observed) -> Decision:
    actions = [*_repairs(observed), *(note for note in _faults(observed) if _told(note) not in observed.told)]
    for service in observed.services:
        if _lacks_address(service):
            actions.append(Write(SERVICES, namespace_of(service), name_of(service), uid_of(service)))
    return Decision(tuple(actions), requeue_after_seconds=INTERVAL_SECONDS)


def _repairs(observed: Observed) -> Iterator[Action]:
    wanted = _holders(observed)
    held = {claim.name: claim.holder for claim in observed.claims}
    for claim in observed.claims:
        if claim.holder not in [holder_of(service) for service in wanted.get(claim.name, ())]:
            yield DropClaim(claim)
    for name, services in wanted.items():
        rightful = _rightful(services, held.get(name))
        if held.get(name) != holder_of(rightful):
            yield TakeClaim(name, rightful)


def _faults(observed: Observed) -> Iterator[Note]:
    held = {claim.name: claim.holder for claim in observed.claims}
    for name, services in _holders(observed).items():
        rightful = _rightful(services, held.get(name))
        yield from (_shared(name, one) for one in services if one is not rightful)
    for service in observed.services:
        yield from _outside(service, observed.ranges)


def _rightful(services: Sequence[Object], holder: str | None) -> Object:
    """Who claimed it; else who was there first."""
    return next((one for one in services if holder_of(one) == holder), services[0])


def _told(note: Note) -> tuple[str, str]:
    return (uid_of(note.regarding), note.message)


def _holders(observed: Observed) -> dict[str, list[Object]]:
    """Who has what, the older Service first."""
    found: dict[str, list[Object]] = {}
    for service in sorted(observed.services, key=_age):
        for name in sorted(claims_of(service)):
            found.setdefault(name, []).append(service)
    return found


def _age(service: Object) -> tuple[str, str, str]:
    return (service["metadata"].get("creationTimestamp") or "", namespace_of(service), name_of(service))


def _lacks_address(service: Object) -> bool:
    """Made before Services got addresses. Writing it as it is gives it one."""
    spec = service.get("spec") or {}
    return needs_address(spec) and not spec.get("clusterIPs") and not is_deleting(service)


def _shared(name: str, service: Object) -> Note:
    sort, _, value = name.partition("/")
    if sort == "ip":
        family = "IPv6" if ":" in value else "IPv4"
        text = f"Cluster IP [{family}]: {value} was assigned to multiple services; please recreate service"
        return Note(service, "Warning", "ClusterIPAlreadyAllocated", text)
    if sort == "external":
        address, protocol, port = value.split("/")
        text = f"Port {port}/{protocol} of external IP {address} is held by an older service, which gets its traffic"
        return Note(service, "Warning", "ExternalIPAlreadyAllocated", text)
    text = f"Port {value} was assigned to multiple services; please recreate service"
    return Note(service, "Warning", "PortAlreadyAllocated", text)


def _outside(service: Object, ranges: ServiceRanges) -> Iterator[Note]:
    for name in sorted(claims_of(service)):
        sort, _, value = name.partition("/")
        if sort == "ip" and not any(one.holds(value) for one in ranges.addresses):
            family = "IPv6" if ":" in value else "IPv4"
            text = f"Cluster IP [{family}]: {value} is not within any configured Service CIDR; please recreate service"
            yield Note(service, "Warning", "ClusterIPOutOfRange", text)
        elif sort == "port" and int(value) not in ranges.ports:
            text = f"Port {value} is not within the port range {ranges.ports}; please recreate service"
            yield Note(service, "Warning", "PortOutOfRange", text)


class ServiceClaims:
    name = "service-claims-controller"
    concurrency = 1

    def __init__(self, views: Views, ranges: ServiceRanges) -> None:
        self._views = views
        self._ranges = ranges
        self._told: frozenset[tuple[str, str]] = frozenset()

    def sources(self) -> Sequence[Source]:
        return (Once(_ALL),)

    def observe(self, key: str, failure: Failure | None) -> Observed | None:
        del key, failure
        store = self._views.store
        services = tuple(self._views.object(record) for record in store.list(SERVICES.resource).records)
        now = time.time()
        claims = tuple(claim for claim in store.claims if not is_remembered(claim.name, now))
        observed = Observed(self._ranges, services, claims, self._told)
        self._told = frozenset(_told(note) for note in _faults(observed))
        return observed

    def decide(self, observed: Observed) -> Decision:
        return decide(observed)
