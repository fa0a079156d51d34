"""Slices for the Endpoints that users keep for Services without selector: each subset mirrored into one slice a family.

`decide` is pure; the eyes are below. Slices that users make themselves are theirs. Not mirrored: Endpoints labelled
endpointslice.kubernetes.io/skip-mirror=true, leader locks, Endpoints without Service or of one with a selector. Rules:
k8s.io/kubernetes/pkg/controller/endpointslicemirroring.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.objects import Object, annotations_of, is_deleting, labels_of, name_of
from controller.reconcilers.actions import Action, Note, namespace_terminating
from controller.reconcilers.endpoints.draft import (
    Draft,
    Marks,
    Ports,
    create,
    delete,
    differs,
    free_names,
    ports_key,
    reuse,
    services_of,
    slices_of,
    update,
)
from controller.reconcilers.endpoints.endpoints import LEADER
from controller.reconcilers.endpoints.facts import (
    ENDPOINTS,
    IPV4,
    IPV6,
    MANAGED_BY,
    SERVICE_NAME,
    SERVICES,
    SLICES,
    TRIGGER_TIME,
    canonical,
    family_of,
)
from controller.reconcilers.loop import NOTHING, Decision, Failure, Source, Watch, own_key
from controller.store import Store
from controller.store.types import Key

MANAGER = "endpointslicemirroring-controller.k8s.io"
MOST_ADDRESSES = 1000
"""Of one subset: --mirroring-max-endpoints-per-subset."""
SKIP = "endpointslice.kubernetes.io/skip-mirror"
_NOT_COPIED = (TRIGGER_TIME, "kubectl.kubernetes.io/last-applied-configuration")


@dataclass(frozen=True)
class Observed:
    """`slices`: those this controller keeps for them. `names`: enough unused ones for new slices."""

    endpoints: Object | None
    service: Object | None
    slices: tuple[Object, ...] = ()
    names: tuple[str, ...] = ()
    failure: Failure | None = None


def decide(observed: Observed) -> Decision:
    """What makes the slices mirror the Endpoints."""
    endpoints = observed.endpoints
    if endpoints is None or not _mirrored(endpoints, observed.service):
        gone = tuple(delete(one) for one in observed.slices)
        return Decision(gone) if gone else NOTHING
    if observed.failure is not None and namespace_terminating(observed.failure.error):
        return NOTHING
    drafts: list[Draft] = []
    surplus: list[Object] = []
    for family in (IPV4, IPV6):
        planned, spare = _plan(endpoints, family, observed.slices)
        drafts += planned
        surplus += spare
    writes = tuple(_writes(observed, endpoints, drafts))
    skipped = (_skipped(endpoints),) if writes and _excess(endpoints) else ()
    actions = (*writes, *(delete(one) for one in surplus), *skipped)
    return Decision(actions) if actions else NOTHING


def _mirrored(endpoints: Object, service: Object | None) -> bool:
    if labels_of(endpoints).get(SKIP) == "true" or LEADER in annotations_of(endpoints):
        return False
    return service is not None and not service["spec"].get("selector")


def _plan(endpoints: Object, family: str, slices: Sequence[Object]) -> tuple[list[Draft], list[Object]]:
    """(slices as they shall be, slices that nothing is left for)."""
    present = [one for one in slices if one["addressType"] == family]
    drafts = []
    for ports, found in _by_ports(endpoints, family):
        same = next((one for one in present if ports_key(one.get("ports")) == ports_key(ports)), None)
        drafts.append(Draft(family, ports, found, same))
    taken = [id(draft.slice) for draft in drafts]
    return reuse(drafts, [one for one in present if id(one) not in taken])


def _by_ports(endpoints: Object, family: str) -> list[tuple[list[Object], list[Object]]]:
    """Ports and endpoints of each slice. What stands in them twice is told once, the first time."""
    groups: dict[Ports, tuple[list[Object], dict[tuple[Any, ...], Object]]] = {}
    for subset in endpoints.get("subsets") or ():
        ports = [_port(port) for port in subset.get("ports") or ()]
        for address, ready in _addresses(subset)[:MOST_ADDRESSES]:
            if family_of(address["ip"]) == family:
                found = groups.setdefault(ports_key(ports), (ports, {}))[1]
                found.setdefault(_identity(address), _endpoint(address, ready=ready))
    return [(ports, list(found.values())[:MOST_ADDRESSES]) for ports, found in groups.values()]


def _identity(address: Object) -> tuple[Any, ...]:
    target = address.get("targetRef") or {}
    return (canonical(address["ip"]), address.get("hostname"), target.get("namespace"), target.get("name"))


def _addresses(subset: Mapping[str, Any]) -> list[tuple[Object, bool]]:
    ready = [(address, True) for address in subset.get("addresses") or ()]
    return ready + [(address, False) for address in subset.get("notReadyAddresses") or ()]


def _port(port: Mapping[str, Any]) -> Object:
    copied: Object = {"name": port.get("name") or "", "port": port["port"], "protocol": port.get("protocol") or "TCP"}
    return copied | ({"appProtocol": port["appProtocol"]} if port.get("appProtocol") else {})


def _endpoint(address: Object, *, ready: bool) -> Object:
    copied = {part: address[part] for part in ("hostname", "nodeName", "targetRef") if address.get(part)}
    return {"addresses": [canonical(address["ip"])], "conditions": {"ready": ready}} | copied


def _writes(observed: Observed, endpoints: Object, drafts: Sequence[Draft]) -> Iterator[Action]:
    copied = {key: value for key, value in annotations_of(endpoints).items() if key not in _NOT_COPIED}
    labels = {**labels_of(endpoints), SERVICE_NAME: name_of(endpoints), MANAGED_BY: MANAGER}
    new = [draft for draft in drafts if draft.slice is None]
    if not is_deleting(endpoints):
        for name, draft in zip(observed.names, new, strict=False):
            yield create(endpoints, name, draft, Marks(labels, copied))
    for draft in drafts:
        one = draft.slice
        if one is not None and (differs(draft, one) or labels_of(one) != labels or annotations_of(one) != copied):
            yield update(one, draft, Marks(labels, dict.fromkeys(annotations_of(one)) | copied))


def _excess(endpoints: Object) -> int:
    counts = (len(_addresses(subset)) for subset in endpoints.get("subsets") or ())
    return sum(max(0, count - MOST_ADDRESSES) for count in counts)


def _skipped(endpoints: Object) -> Note:
    text = f"A max of {MOST_ADDRESSES} addresses can be mirrored to EndpointSlices per Endpoints subset."
    message = f"{text} {_excess(endpoints)} addresses were skipped"
    return Note(endpoints, "Warning", "TooManyAddressesToMirror", message)


class EndpointSliceMirror:
    name = "endpointslicemirroring-controller"
    concurrency = 4

    def __init__(self, store: Store) -> None:
        self._store = store

    def sources(self) -> Sequence[Source]:
        on_slice = Watch(SLICES.resource, lambda event: services_of(event, MANAGER))
        return (on_slice, Watch(ENDPOINTS.resource, own_key), Watch(SERVICES.resource, own_key))

    def observe(self, key: tuple[str, str], failure: Failure | None) -> Observed | None:
        endpoints, service = (self._get((*kind.resource, *key)) for kind in (ENDPOINTS, SERVICES))
        slices = slices_of(self._store, key, MANAGER)
        if endpoints is None and not slices:
            return None
        subsets = (endpoints or {}).get("subsets") or ()
        names = free_names(self._store, endpoints, 2 * len(subsets)) if endpoints is not None else ()
        return Observed(endpoints, service, slices, names, failure)

    def decide(self, observed: Observed) -> Decision:
        return decide(observed)

    def _get(self, where: tuple[str, str, str, str]) -> Object | None:
        record = self._store.get(Key(*where))
        return record.parse() if record is not None else None
