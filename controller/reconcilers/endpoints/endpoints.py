"""v1 Endpoints of Services with a selector: one object a Service, for clients that do not read slices yet.

`decide` is pure; the eyes are below. Rules: k8s.io/kubernetes/pkg/controller/endpoint and api/v1/endpoints
(RepackSubsets): addresses that have the same set of ports stand in one subset. At most 1,000 addresses; then the
object says that it was cut (endpoints.kubernetes.io/over-capacity). Endpoints go with their Service.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from api.objects import Object, annotations_of, is_deleting, labels_of, metadata, name_of, namespace_of, uid_of
from controller.reconcilers.actions import Create, Delete, Write, namespace_terminating
from controller.reconcilers.endpoints.facts import (
    ENDPOINTS,
    NO_ADDRESS,
    TRIGGER_TIME,
    EndpointPod,
    families,
    hostname_for,
    publishes_unready,
    resolved_ports,
    selector_of,
    shared_labels,
    target_reference,
    trigger_time,
)
from controller.reconcilers.endpoints.membership import EndpointPods, ServicePods
from controller.reconcilers.loop import NOTHING, Decision, Enqueue, Failure, Source, Watch, own_key
from controller.store import Store
from controller.store.types import Event, EventType, Key

MANAGED_BY, MANAGER = "endpoints.kubernetes.io/managed-by", "endpoint-controller"
OVER_CAPACITY, TRUNCATED = "endpoints.kubernetes.io/over-capacity", "truncated"
LEADER = "control-plane.alpha.kubernetes.io/leader"
MOST_ADDRESSES = 1000


@dataclass(frozen=True)
class Observed:
    """`service`: None once it is gone. `pods`: those it selects."""

    service: Object | None
    endpoints: Object | None = None
    pods: tuple[EndpointPod, ...] = ()
    failure: Failure | None = None


def decide(observed: Observed) -> Decision:
    """What makes the Endpoints tell the Service's pods."""
    service, present = observed.service, observed.endpoints
    if service is None:
        return Decision((_delete(present),)) if present is not None else NOTHING
    if observed.failure is not None and namespace_terminating(observed.failure.error):
        return NOTHING
    subsets, cut = truncated(subsets_of(service, observed.pods))
    labels = shared_labels(service, {MANAGED_BY: MANAGER})
    if present is None:
        return NOTHING if is_deleting(service) else Decision((_create(observed, service, labels, subsets, cut),))
    told = OVER_CAPACITY in annotations_of(present)
    if (present.get("subsets") or [], labels_of(present), told) == (subsets, labels, cut):
        return NOTHING
    moment = trigger_time(service, first=False, changed=_changed_pods(observed.pods, present))
    wanted = {TRIGGER_TIME: moment or None, OVER_CAPACITY: TRUNCATED if cut else None}
    known = annotations_of(present)
    annotations = {key: value for key, value in wanted.items() if value != known.get(key)}
    meta: Object = {"labels": dict.fromkeys(labels_of(present)) | labels}
    meta |= {"annotations": annotations} if annotations else {}
    where = (ENDPOINTS, namespace_of(present), name_of(present), uid_of(present))
    version = metadata(present)["resourceVersion"]
    return Decision((Write(*where, merge={"metadata": meta}, replace={"subsets": subsets}, version=version),))


def _create(
    observed: Observed, service: Object, labels: Mapping[str, str], subsets: Sequence[Object], cut: bool
) -> Create:
    moment = trigger_time(service, first=True, changed=())
    wanted = {TRIGGER_TIME: moment, OVER_CAPACITY: TRUNCATED if cut else ""}
    meta: Object = {"name": name_of(service), "namespace": namespace_of(service), "labels": dict(labels)}
    meta["annotations"] = {key: value for key, value in wanted.items() if value}
    head: Object = {"apiVersion": ENDPOINTS.api_version, "kind": ENDPOINTS.kind, "metadata": meta}
    return Create(ENDPOINTS, head | ({"subsets": list(subsets)} if subsets else {}), trusted=True)


def _delete(present: Object) -> Delete:
    return Delete(ENDPOINTS, namespace_of(present), name_of(present), uid_of(present))


def subsets_of(service: Mapping[str, Any], pods: Iterable[EndpointPod]) -> list[Object]:
    """The subsets, ordered by ports, their addresses by address."""
    family, unready = families(service)[0], publishes_unready(service)
    groups: dict[tuple[Any, ...], tuple[list[Object], list[Object], list[Object]]] = {}
    for pod in pods:
        address = pod.address(family) if pod.reachable and (unready or not pod.terminating) else ""
        ports = _ports(service, pod)
        if address and ports is not None:
            key = tuple(tuple(port.items()) for port in ports)
            ready, waiting, _ = groups.setdefault(key, ([], [], ports))
            (ready if unready or pod.serving else waiting).append(_address(service, pod, address))
    return [_subset(*groups[key]) for key in sorted(groups)]


def _ports(service: Mapping[str, Any], pod: EndpointPod) -> list[Object] | None:
    """Ports without empty names, in order; None: without any, a pod is no endpoint, but of a headless Service."""
    if not service["spec"].get("ports"):
        return [] if service["spec"].get("clusterIP") == NO_ADDRESS else None
    resolved = [{part: value for part, value in port.items() if value} for port in resolved_ports(service, pod.ports)]
    return sorted(resolved, key=lambda port: (port.get("name", ""), port["port"], port["protocol"])) or None


def _address(service: Mapping[str, Any], pod: EndpointPod, address: str) -> Object:
    hostname = hostname_for(pod, name_of(service))
    named: Object = {"hostname": hostname} if hostname else {}
    on_node: Object = {"nodeName": pod.node} if pod.node else {}
    return named | {"ip": address} | on_node | {"targetRef": target_reference(pod)}


def _subset(ready: list[Object], waiting: list[Object], ports: list[Object]) -> Object:
    lists = {"addresses": _sorted(ready), "notReadyAddresses": _sorted(waiting), "ports": ports}
    return {name: entries for name, entries in lists.items() if entries}


def _sorted(addresses: list[Object]) -> list[Object]:
    return sorted(addresses, key=lambda address: (address["ip"], address["targetRef"]["uid"]))


def truncated(subsets: list[Object]) -> tuple[list[Object], bool]:
    """(at most 1,000 addresses, whether some were left out): ready ones first, each subset in proportion."""
    ready, waiting = (sum(len(one.get(part, ())) for one in subsets) for part in ("addresses", "notReadyAddresses"))
    if ready + waiting <= MOST_ADDRESSES:
        return subsets, False
    if ready > MOST_ADDRESSES:
        kept = _proportional([{**one, "notReadyAddresses": []} for one in subsets], "addresses", MOST_ADDRESSES)
    else:
        kept = _proportional(subsets, "notReadyAddresses", MOST_ADDRESSES - ready)
    return [{name: entries for name, entries in one.items() if entries} for one in kept], True


def _proportional(subsets: list[Object], part: str, room: int) -> Iterator[Object]:
    total, left = sum(len(one.get(part, ())) for one in subsets), room
    for one in subsets:
        share = min(left, ceil(len(one.get(part, ())) / total * room))
        left -= share
        yield {**one, part: one.get(part, [])[:share]}


def _changed_pods(pods: Iterable[EndpointPod], present: Mapping[str, Any]) -> Iterator[EndpointPod]:
    """The pods that are told for the first time, or with another readiness."""
    known = {
        (address.get("targetRef") or {}).get("uid"): part == "addresses"
        for subset in present.get("subsets") or ()
        for part in ("addresses", "notReadyAddresses")
        for address in subset.get(part) or ()
    }
    return (pod for pod in pods if pod.reachable and known.get(pod.uid) is not pod.serving)


@dataclass(frozen=True)
class _Leftovers:
    """Endpoints that are there at the start: those whose Service went while nobody looked go, too, but leader locks."""

    def attach(self, store: Store, enqueue: Enqueue) -> Callable[[], None]:
        for record in store.list(ENDPOINTS.resource).records:
            if LEADER not in annotations_of(record.parse()):
                enqueue((record.key.namespace, record.key.name))
        return lambda: None


class EndpointsReconciler:
    name = "endpoint-controller"
    concurrency = 16

    def __init__(self, store: Store, pods: EndpointPods) -> None:
        self._store = store
        self._members = ServicePods(store, pods)

    def sources(self) -> Sequence[Source]:
        return (_Leftovers(), Watch(ENDPOINTS.resource, _on_endpoints), *self._members.watches())

    def observe(self, key: tuple[str, str], failure: Failure | None) -> Observed | None:
        """Endpoints of a Service without selector are their user's."""
        service = self._members.service(key)
        if service is not None and not selector_of(service):
            return None
        record = self._store.get(Key(*ENDPOINTS.resource, *key))
        if service is None and record is None:
            return None
        endpoints = record.parse() if record is not None else None
        pods = self._members.pods_of(service) if service is not None else ()
        return Observed(service, endpoints, pods, failure)

    def decide(self, observed: Observed) -> Decision:
        return decide(observed)


def _on_endpoints(event: Event) -> Iterable[Hashable]:
    """Ours that somebody changes or takes away; a user's may come before their Service."""
    ours = any(one is not None and one.labels.get(MANAGED_BY) == MANAGER for one in (event.record, event.previous))
    return own_key(event) if ours or event.type is EventType.DELETED else ()
