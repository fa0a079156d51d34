"""EndpointSlices of Services with a selector: what the slices must hold, and the fewest writes that get there.

`decide` is pure; slices_watch.py observes. Slices are kept per address family and per set of ports, at most 100
endpoints in each. Invariants: slices that are right are not written; an endpoint stays in the slice where it is;
raising comes before lowering (creates, updates that only add, updates that take away, deletes), so no prefix loses an
endpoint that only moves. Rules: k8s.io/endpointslice (reconciler.go, trafficdist).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from api.objects import Object, is_deleting, labels_of, metadata, name_of, uid_of
from controller.reconcilers.actions import Action, Together, namespace_terminating
from controller.reconcilers.endpoints.draft import (
    Draft,
    Marks,
    Ports,
    create,
    delete,
    differs,
    ports_key,
    reuse,
    update,
)
from controller.reconcilers.endpoints.facts import (
    MANAGED_BY,
    SERVICE_NAME,
    TRIGGER_TIME,
    EndpointPod,
    families,
    hostname_for,
    publishes_unready,
    resolved_ports,
    shared_labels,
    target_reference,
    trigger_time,
)
from controller.reconcilers.loop import NOTHING, Decision, Failure

MANAGER = "endpointslice-controller.k8s.io"
MOST_ENDPOINTS = 100
"""In one slice: --max-endpoints-per-slice."""
_CLOSE = ("PreferClose", "PreferSameZone", "PreferSameNode")


@dataclass(frozen=True)
class Observed:
    """`pods`: those the Service selects. `slices`: those this controller keeps for the Service. `zones`: the zone of
    every node (of theirs) that exists, "" for none. `names`: enough unused ones for new slices."""

    service: Object
    pods: tuple[EndpointPod, ...]
    slices: tuple[Object, ...] = ()
    zones: Mapping[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    failure: Failure | None = None


@dataclass
class _Group:
    """All endpoints with the same ports; `endpoints` by the name of their pod."""

    ports: list[Object] = field(default_factory=list)
    endpoints: dict[str, Object] = field(default_factory=dict)


def decide(observed: Observed) -> Decision:
    """What makes the slices hold the Service's endpoints."""
    service = observed.service
    if observed.failure is not None and namespace_terminating(observed.failure.error):
        return NOTHING
    kept: list[Object] = []
    surplus: list[Object] = []  # slices of a former Service of that name, or of a family it has no more
    for one in observed.slices:
        ours = _owned_by(one, uid_of(service)) and one["addressType"] in families(service)
        (kept if ours else surplus).append(one)
    drafts: list[Draft] = []
    for family in families(service):
        mine = [one for one in kept if one["addressType"] == family]
        planned, spare = _plan(family, _groups(observed, family), mine)
        drafts += planned
        surplus += spare
    if is_deleting(service):
        drafts = [draft for draft in drafts if draft.slice is not None]  # the garbage collector is at work
    actions = (*_writes(observed, drafts), *(delete(one) for one in surplus))
    return Decision(actions) if actions else NOTHING


def _owned_by(endpoint_slice: Object, uid: str) -> bool:
    return any(reference["uid"] == uid for reference in metadata(endpoint_slice).get("ownerReferences") or ())


def _groups(observed: Observed, family: str) -> dict[Ports, _Group]:
    """The endpoints that shall be, by their ports."""
    groups: dict[Ports, _Group] = {}
    resolved: dict[Any, tuple[Ports, list[Object]]] = {}
    unready = publishes_unready(observed.service)
    for pod in observed.pods:
        address = pod.address(family) if pod.reachable else ""
        if not address or not (unready or pod.node in observed.zones):
            continue
        if pod.ports not in resolved:
            ports = list(resolved_ports(observed.service, pod.ports))
            resolved[pod.ports] = (ports_key(ports), ports)
        key, ports = resolved[pod.ports]
        groups.setdefault(key, _Group(ports)).endpoints[pod.name] = _endpoint(observed, pod, address)
    return groups


def _endpoint(observed: Observed, pod: EndpointPod, address: str) -> Object:
    service, zone = observed.service, observed.zones.get(pod.node)
    ready = publishes_unready(service) or (pod.serving and not pod.terminating)
    endpoint: Object = {
        "addresses": [address],
        "conditions": {"ready": ready, "serving": pod.serving, "terminating": pod.terminating},
        "targetRef": target_reference(pod),
    }
    hints = _hints(service["spec"].get("trafficDistribution"), pod.node, zone) if ready else {}
    optional = {"hostname": hostname_for(pod, name_of(service)), "nodeName": pod.node, "zone": zone, "hints": hints}
    return endpoint | {name: value for name, value in optional.items() if value}


def _hints(distribution: str | None, node: str, zone: str | None) -> Object:
    if distribution not in _CLOSE:
        return {}
    for_zones: Object = {"forZones": [{"name": zone}]} if zone else {}
    return for_zones | ({"forNodes": [{"name": node}]} if node and distribution == "PreferSameNode" else {})


def _plan(family: str, groups: Mapping[Ports, _Group], slices: Sequence[Object]) -> tuple[list[Draft], list[Object]]:
    """(slices as they shall be, slices that nothing is left for). No endpoints at all: an empty slice says so."""
    drafts: list[Draft] = []
    spare = [one for one in slices if ports_key(one.get("ports")) not in groups]
    for key, group in groups.items():
        same = [one for one in slices if ports_key(one.get("ports")) == key]
        for one, endpoints in fill(group.endpoints, same):
            if endpoints:
                ports = group.ports if one is None else one.get("ports") or []
                drafts.append(Draft(family, ports, endpoints, one))
            elif one is not None:
                spare.append(one)
    if not drafts:
        spare.sort(key=lambda one: bool(one.get("endpoints") or one.get("ports")))
        drafts = [Draft(family, [], [])]
    return reuse(drafts, spare)


def fill(wanted: Mapping[str, Object], slices: Sequence[Object]) -> list[tuple[Object | None, list[Object]]]:
    """(slice, its endpoints) for each present slice and for as few new ones (None) as will do.

    Endpoints stay where they are. New ones go into slices that change anyway, the fullest first; then into the one
    unchanged slice that takes them all and is full soonest; then into new slices.
    """
    left = dict(wanted)
    kept = [[left.pop(name) for name in _pod_names(one) if name in left] for one in slices]
    changed = [index for index, one in enumerate(slices) if kept[index] != (one.get("endpoints") or [])]
    new = list(left.values())
    for index in sorted(changed, key=lambda index: -len(kept[index])):
        room = MOST_ENDPOINTS - len(kept[index])
        kept[index] += new[:room]
        new = new[room:]
    fitting = [i for i in range(len(slices)) if i not in changed and len(kept[i]) + len(new) <= MOST_ENDPOINTS]
    if new and fitting:
        kept[max(fitting, key=lambda index: len(kept[index]))] += new
        new = []
    filled: list[tuple[Object | None, list[Object]]] = list(zip(slices, kept, strict=True))
    return filled + [(None, new[start : start + MOST_ENDPOINTS]) for start in range(0, len(new), MOST_ENDPOINTS)]


def _pod_names(endpoint_slice: Mapping[str, Any]) -> Iterator[str]:
    return (_pod_name(endpoint) for endpoint in endpoint_slice.get("endpoints") or ())


def _pod_name(endpoint: Mapping[str, Any]) -> str:
    return (endpoint.get("targetRef") or {}).get("name") or ""


def _writes(observed: Observed, drafts: Sequence[Draft]) -> Iterator[Action]:
    service = observed.service
    labels = shared_labels(service, {SERVICE_NAME: name_of(service), MANAGED_BY: MANAGER})
    new = [draft for draft in drafts if draft.slice is None]
    present = [(draft.slice, draft) for draft in drafts if draft.slice is not None]
    stale = [(one, draft) for one, draft in present if differs(draft, one) or labels_of(one) != labels]
    if not new and not stale:
        return
    moment = trigger_time(service, first=not observed.slices, changed=_changed_pods(observed, new, stale))
    marks = Marks(labels, {TRIGGER_TIME: moment or None})
    creates = tuple(create(service, *named, marks) for named in zip(observed.names, new, strict=False))
    if creates:
        yield creates[0] if len(creates) == 1 else Together(creates)
    for one, draft in sorted(stale, key=lambda pair: _takes_away(*pair)):
        yield update(one, draft, marks)


def _takes_away(present: Object, draft: Draft) -> bool:
    return not set(_pod_names(present)) <= {_pod_name(endpoint) for endpoint in draft.endpoints}


def _changed_pods(
    observed: Observed, new: Sequence[Draft], stale: Sequence[tuple[Object, Draft]]
) -> Iterator[EndpointPod]:
    """The pods that are written for the first time, or with another readiness."""
    known = {
        _pod_name(endpoint): (endpoint.get("conditions") or {}).get("serving")
        for one in observed.slices
        for endpoint in one.get("endpoints") or ()
    }
    drafts = (*new, *(draft for _, draft in stale))
    written = {_pod_name(endpoint) for draft in drafts for endpoint in draft.endpoints}
    return (pod for pod in observed.pods if pod.name in written and known.get(pod.name) is not pod.serving)
