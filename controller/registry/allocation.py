"""Addresses and node ports of Services: chosen here, settled by etcd.

Called by create, update and deletion. What a stored Service holds is a pure function of its spec (`claims_of`), and
every write that changes it takes and frees the claims in its own transaction. So no address or port is ever held
twice, and none is lost when a write fails. What is free is read from the cache; who loses a race chooses anew.
Words and order as k8s.io/kubernetes/pkg/registry/core/service/storage/alloc.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

from api.errors import ApiError, InternalError, invalid, invalid_object
from api.objects import Object, clone, name_of, namespace_of
from controller.registry.external_addresses import refusal
from controller.registry.faults import translated
from controller.registry.ranges import ServiceRanges
from controller.registry.revoked_nodes import NODES, claim_of_deletion
from controller.registry.service_fields import (
    HEADLESS,
    claims_of,
    external_places,
    keep_allocated,
    needs_address,
    needs_health_port,
    needs_node_ports,
    node_ports,
    plain_address,
    settle_addresses,
    settle_families,
)
from controller.registry.types import Target
from controller.store import Store
from controller.store.types import Claims, GuardFailed, Key

SERVICES = ("", "services")
Spec = Mapping[str, Any]
_FULL = "range is full"
_NOTHING: nullcontext[None] = nullcontext()


class Allocator:
    """One for each registry."""

    def __init__(self, store: Store, ranges: ServiceRanges) -> None:
        self.store = store
        self.ranges = ranges
        self.pending: set[str] = set()
        """Chosen by writes under way: others of this process choose something else."""

    def reserved(self, address: str) -> str:
        """Why no Service may have this address by externalIPs; "": it may. Nodes are few and this is rare."""
        nodes = (record.parse() for record in self.store.list(("", "nodes")).records)
        return refusal(address, self.ranges, nodes)

    def booking(self, target: Target, old: Object | None, *, dry_run: bool) -> Booking | nullcontext[None]:
        """To be entered for one write. A Booking for a Service; None for every other kind, and for writes that leave
        its spec alone."""
        if target.kind.resource != SERVICES or target.subresource:
            return _NOTHING
        return Booking(self, target, old, dry_run)


def claims_between(target: Target, old: Object | None, new: Object | None) -> Claims | None:
    """What a write has to take and to free besides; None for kinds that hold nothing. The deletion of a Node leaves a
    memory (see revoked_nodes)."""
    if target.kind.resource == NODES and new is None and old is not None:
        return Claims("deletion", (claim_of_deletion(name_of(old)),), ())
    if target.kind.resource != SERVICES:
        return None
    held, wanted = claims_of(old), claims_of(new)
    holder = f"{target.namespace}/{name_of(new or old or {})}"
    return Claims(holder, tuple(sorted(wanted - held)), tuple(sorted(held - wanted)))


class Booking:
    """What one write has chosen. `fill` first; after a lost race `refill`."""

    def __init__(self, allocator: Allocator, target: Target, old: Object | None, dry_run: bool) -> None:
        self._allocator = allocator
        self._target = target
        self._old: Spec | None = (old.get("spec") or {}) if old is not None else None
        self._dry_run = dry_run
        self._asked: Object = {}
        self._taken: set[str] = set()

    def __enter__(self) -> Booking:
        return self

    def __exit__(self, *problem: object) -> None:
        self.release()

    async def fill(self, service: Object) -> None:
        """Completes the spec: families, addresses, ports. Raises Invalid, InternalError (a range is full)."""
        spec = service.setdefault("spec", {})
        if self._old is not None:
            keep_allocated(spec, self._old)
        settle_addresses(spec, self._old)
        errors = settle_families(spec, self._old, self._allocator.ranges.families)
        if errors:
            raise invalid_object("", "Service", name_of(service), errors)
        self._asked = clone(spec)
        try:
            self._choose(service)
        except ApiError:  # never refused on the word of the cache alone
            await self._newest()
            self._again(service)

    async def refill(self, service: Object, failure: GuardFailed) -> bool:
        """Chooses anew when `failure` is a lost race for a claim; False when it is about something else."""
        if self._allocator.store.claims.names(failure.guard) is None:
            return False
        await self._newest()
        self._again(service)
        return True

    def release(self) -> None:
        self._allocator.pending -= self._taken
        self._taken.clear()

    async def _newest(self) -> None:
        with translated(self._target):
            await self._allocator.store.current()

    def _again(self, service: Object) -> None:
        self.release()
        service["spec"] = clone(self._asked)
        self._choose(service)

    def _choose(self, service: Object) -> None:
        spec, name = service["spec"], name_of(service)
        self._choose_addresses(spec, name)
        self._take_externals(spec, name)
        if needs_node_ports(spec):
            if self._old is None:
                self._choose_new_ports(spec, name)
            else:
                self._choose_more_ports(spec, self._old, name)
        if needs_health_port(spec) and not (self._old and needs_health_port(self._old)):
            self._choose_health_port(spec)

    def _choose_addresses(self, spec: Object, name: str) -> None:
        old = self._old if self._old and needs_address(self._old) else {}
        addresses = list(spec.get("clusterIPs") or ())
        held = old.get("clusterIPs") or ()
        if not needs_address(spec) or HEADLESS in (*addresses[:1], *held[:1]):
            return
        for index, family in list(enumerate(spec["ipFamilies"]))[len(held) :]:
            if index < len(addresses):
                self._take_address(addresses, index, family, name)
            else:
                addresses.append(self._free_address(family))
        if addresses:
            spec["clusterIP"], spec["clusterIPs"] = addresses[0], addresses

    def _take_address(self, addresses: list[str], index: int, family: str, name: str) -> None:
        text = addresses[index]
        range_ = self._allocator.ranges.of(family)
        assert range_ is not None, "settle_families refuses families the cluster has not"
        why = ""
        if not range_.holds(text):
            why = f"the provided IP ({text}) is not in the valid range. The range of valid IPs is {range_.network}"
        elif not self._dry_run and not self._take(f"ip/{plain_address(text)}", asked=True):
            why = "provided IP is already allocated"
        if why:
            error = invalid("spec.clusterIPs", addresses, f"failed to allocate IP {text}: {why}")
            raise invalid_object("", "Service", name, [error])

    def _take_externals(self, spec: Object, name: str) -> None:
        """External IPs that are new: none that the cluster needs itself, and no port of one that a Service has."""
        known = {plain_address(text) for text in (self._old or {}).get("externalIPs") or ()}
        held = set(external_places(self._old or {}))
        reserved = self._allocator.reserved
        for index, text in enumerate(spec.get("externalIPs") or ()):
            address = plain_address(text)
            why = reserved(address) if address not in known else ""
            for place in external_places({**spec, "externalIPs": [text]}) if not why else ():
                if place not in held and not self._dry_run and not self._take(f"external/{place}", asked=True):
                    why = _held_externally(place, self._allocator.store.claims.holder(f"external/{place}"))
            if why:
                raise invalid_object("", "Service", name, [invalid(f"spec.externalIPs[{index}]", text, why)])

    def _free_address(self, family: str) -> str:
        range_ = self._allocator.ranges.of(family)
        assert range_ is not None, "settle_families refuses families the cluster has not"
        for text in range_.tries():
            if self._take(f"ip/{text}"):
                return text
        raise InternalError(f"Internal error occurred: failed to allocate a serviceIP: {_FULL}")

    def _choose_new_ports(self, spec: Object, name: str) -> None:
        """One number serves a port of both TCP and UDP."""
        ports: list[Object] = spec.get("ports") or []
        given: dict[Any, int] = {}
        for port in ports:
            if port.get("nodePort"):
                given.setdefault(port.get("port"), port["nodePort"])
        chosen: dict[Any, int] = {}
        for index, port in enumerate(ports):
            number, asked = port.get("port"), port.get("nodePort") or 0
            if not asked and not _gets_node_ports(spec):
                continue
            if number not in chosen:
                wanted = given.get(number)
                if wanted:
                    self._take_port(f"spec.ports[{index}].nodePort", wanted, name)
                chosen[number] = port["nodePort"] = wanted or self._free_port("a nodePort")
            elif not asked:
                port["nodePort"] = chosen[number]
            elif asked != chosen[number]:
                self._take_port(f"spec.ports[{index}].nodePort", asked, name)

    def _choose_more_ports(self, spec: Object, old: Spec, name: str) -> None:
        held = {*node_ports(old)} if needs_node_ports(old) else set()
        for index, port in enumerate(spec.get("ports") or ()):
            asked = port.get("nodePort") or 0
            if asked and asked not in held:
                self._take_port(f"spec.ports[{index}].nodePort", asked, name)
                held.add(asked)
            elif not asked and _gets_node_ports(spec):
                port["nodePort"] = self._free_port("a nodePort")

    def _choose_health_port(self, spec: Object) -> None:
        asked = spec.get("healthCheckNodePort") or 0
        if not asked:
            spec["healthCheckNodePort"] = self._free_port("a HealthCheck NodePort 0")
        elif why := self._refuses_port(asked):
            raise InternalError(
                f"Internal error occurred: failed to allocate requested HealthCheck NodePort {asked}: {why}"
            )

    def _take_port(self, path: str, port: int, name: str) -> None:
        if why := self._refuses_port(port):
            raise invalid_object("", "Service", name, [invalid(path, port, why)])

    def _refuses_port(self, port: int) -> str:
        """Why a port that was asked for cannot be had. A dry run is only refused what it asks for twice."""
        claim = f"port/{port}"
        if self._dry_run:
            twice = claim in self._taken
            self._taken.add(claim)
            return "provided port is already allocated" if twice else ""
        if port not in self._allocator.ranges.ports:
            valid = self._allocator.ranges.ports
            return f"provided port is not in the valid range. The range of valid ports is {valid}"
        return "" if self._take(claim, asked=True) else "provided port is already allocated"

    def _free_port(self, what: str) -> int:
        for port in self._allocator.ranges.ports.tries():
            if self._take(f"port/{port}"):
                return port
        raise InternalError(f"Internal error occurred: failed to allocate {what}: {_FULL}")

    def _take(self, claim: str, *, asked: bool = False) -> bool:
        """Books a claim nobody holds. What was `asked` for may be on its way to somebody else: etcd tells who was
        first."""
        pending = self._allocator.pending
        if claim in self._taken or (claim in pending and not asked) or self._allocator.store.claims.holder(claim):
            return False
        self._taken.add(claim)
        pending.add(claim)
        return True


def _held_externally(place: str, holder: str | None) -> str:
    _, protocol, port = place.split("/")
    return (
        f"port {port}/{protocol} of this address is already held by {f'Service {holder}' if holder else 'this Service'}"
    )


def _gets_node_ports(spec: Spec) -> bool:
    return spec.get("type") == "NodePort" or bool(spec.get("allocateLoadBalancerNodePorts"))


async def take_claim(store: Store, name: str, service: Mapping[str, Any]) -> bool:
    """Claims what a stored Service has and did not claim; False when something changed meanwhile. Raises
    Unavailable."""
    record = store.get(Key(*SERVICES, namespace_of(service), name_of(service)))
    if record is None or str(record.version) != service["metadata"]["resourceVersion"]:
        return False
    return await store.claims.take(name, holder_of(service), record)


def holder_of(service: Mapping[str, Any]) -> str:
    """How a Service calls itself in its claims."""
    return f"{namespace_of(service)}/{name_of(service)}"
