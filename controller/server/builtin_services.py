"""The Services every cluster has: default/kubernetes, the API server itself, and kube-system/kube-dns. And namespaces.

Run by main.py in every controller process, as kube-apiserver does it. The first address of the service range is the
API server's, the tenth DNS's. `kubernetes` has as endpoints all controllers that are alive; DNS is answered on every
node (label `wherry/served-by: node`), so its Service has none. Invariant: what somebody deletes or changes of them is
put back; two processes that do so at once do the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address

import structlog

from api import kinds
from api.errors import AlreadyExists, ApiError, NotFound
from api.kinds import Kind
from api.objects import Object, labels_of, name_of, namespace_of
from controller.admission.types import MASTERS_GROUP, Request, User
from controller.registry import DeleteOptions, Registry
from controller.server.bootstrap import NAMESPACES, ensure_namespaces
from controller.store.types import Event, EventType, Key, StoreError

SERVED_BY = "wherry/served-by"
API_PLACE, DNS_PLACE = 1, 10
FIELD_MANAGER = "wherry"
LOOK_SECONDS = 2.0
"""How often it is looked who is there; changes of the objects are seen at once, but for a short rest."""
REST_SECONDS = 0.1
_SERVICES = kinds.by_resource("", "services")
_ENDPOINTS = kinds.by_resource("", "endpoints")
_SLICES = kinds.by_resource("discovery.k8s.io", "endpointslices")
_KEPT = (_SERVICES, _ENDPOINTS, _SLICES, kinds.by_resource("", "namespaces"))
_SERVICE_NAME = "kubernetes.io/service-name"
_KUBERNETES, _DNS = "kubernetes", "kube-dns"
_USER = User("system:apiserver", groups=(MASTERS_GROUP,))

log = structlog.get_logger()


@dataclass(frozen=True)
class Advertised:
    """Where this controller is reached. `address`: "" when it has none that others could use."""

    identity: str
    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.address} {self.port}"


class BuiltinServices:
    """`ensure` once before the server is ready, then `run`."""

    def __init__(self, registry: Registry, advertised: Advertised) -> None:
        self._registry = registry
        self._store = registry.store
        self._advertised = advertised
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Announces this controller and keeps the objects, until cancelled."""
        stops = [self._store.subscribe(kind.resource, self._on_event) for kind in _KEPT]
        try:
            async with asyncio.TaskGroup() as tasks:
                if self._advertised.address:
                    tasks.create_task(
                        self._store.presence.announce(self._advertised.identity, self._advertised.__str__)
                    )
                tasks.create_task(self._keep())
        finally:
            for stop in stops:
                stop()

    async def ensure(self) -> None:
        """Raises ApiError, StoreError."""
        await ensure_namespaces(self._registry)
        first = self._registry.ranges.addresses[0]
        present = {_parsed(text) for text in self._store.presence.all().values()}
        if self._advertised.address and not present:  # where others are, they would take it out until it is announced
            present.add((self._advertised.address, self._advertised.port))
        port = min((port for _, port in present), default=self._advertised.port)
        for service in (api_service(first.at(API_PLACE), port), dns_service(first.at(DNS_PLACE))):
            await self._ensure_service(service)
        wanted = endpoints_of(sorted(present), first.family)
        for kind, obj in wanted:
            await self._ensure(kind, obj)
        await self._remove_slices({name_of(obj) for _, obj in wanted})

    async def _keep(self) -> None:
        seen: object = None
        while True:
            try:
                present = self._store.presence.all()
                if self._changed.is_set() or present != seen:
                    self._changed.clear()
                    await self.ensure()
                    seen = present
            except (ApiError, StoreError) as error:
                log.warning("a built-in service is not as it should be; trying again", error=str(error))
                await asyncio.sleep(LOOK_SECONDS)
                self._changed.set()
            await asyncio.sleep(REST_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._changed.wait()

    def _on_event(self, event: Event) -> None:
        key = event.record.key
        if (key.namespace, key.name) in (("default", _KUBERNETES), ("kube-system", _DNS)) or (
            event.type is EventType.DELETED and not key.namespace and key.name in NAMESPACES
        ):
            self._changed.set()

    async def _ensure_service(self, wanted: Object) -> None:
        """A Service with another address, of a range that is no longer, is made anew."""
        namespace, name = namespace_of(wanted), name_of(wanted)
        record = self._store.get(Key("", "services", namespace, name))
        if record is not None and record.parse()["spec"].get("clusterIP") not in (None, wanted["spec"]["clusterIP"]):
            with suppress(NotFound):  # another controller was faster
                await self._registry.delete(_request(), _SERVICES, namespace, name, DeleteOptions())
        await self._ensure(_SERVICES, wanted)

    async def _remove_slices(self, wanted: set[str]) -> None:
        """Those of ports that no controller has any more."""
        for record in tuple(self._store.by_index(_SLICES.resource, f"label:{_SERVICE_NAME}", _KUBERNETES)):
            name = record.key.name
            if record.key.namespace == "default" and name.startswith(f"{_KUBERNETES}-") and name not in wanted:
                with suppress(NotFound):
                    await self._registry.delete(_request(), _SLICES, "default", name, DeleteOptions())

    async def _ensure(self, kind: Kind, wanted: Object) -> None:
        namespace, name = namespace_of(wanted), name_of(wanted)
        if self._store.get(Key(*kind.resource, namespace, name)) is None:
            try:
                await self._registry.create(_request(), kind, namespace, wanted)
                return
            except AlreadyExists:
                pass  # another controller was faster
        await self._registry.modify(_request(), kind, namespace, name, _changer(wanted))


def _changer(wanted: Object) -> Callable[[Object], Object | None]:
    """Puts back what differs from `wanted`; what people added (labels, annotations) stays."""

    def change(obj: Object) -> Object | None:
        before = (labels_of(obj), _content(obj))
        obj["metadata"]["labels"] = {**labels_of(obj), **labels_of(wanted)}
        for field, value in wanted.items():
            if field not in ("apiVersion", "kind", "metadata"):
                obj[field] = {**(obj.get(field) or {}), **value} if isinstance(value, dict) else value
        return None if before == (labels_of(obj), _content(obj)) else obj

    return change


def _content(obj: Object) -> Object:
    return {field: value for field, value in obj.items() if field != "metadata"}


def _request() -> Request:
    return Request(_USER, field_manager=FIELD_MANAGER)


def _parsed(text: str) -> tuple[str, int]:
    address, _, port = text.partition(" ")
    return address, int(port)


def api_service(address: str, port: int) -> Object:
    labels = {"component": "apiserver", "provider": "kubernetes"}
    ports = [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}]
    return _service("default", _KUBERNETES, labels, {"clusterIP": address, "ports": ports})


def dns_service(address: str) -> Object:
    """As kubeadm's, but without a selector: every node answers at this address itself."""
    labels = {"k8s-app": _DNS, "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}
    ports = [
        {"name": name, "port": 53, "protocol": protocol, "targetPort": 53}
        for name, protocol in (("dns", "UDP"), ("dns-tcp", "TCP"))
    ]
    return _service("kube-system", _DNS, {**labels, SERVED_BY: "node"}, {"clusterIP": address, "ports": ports})


def _service(namespace: str, name: str, labels: dict[str, str], spec: Object) -> Object:
    metadata = {"namespace": namespace, "name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def endpoints_of(present: Sequence[tuple[str, int]], family: str) -> list[tuple[Kind, Object]]:
    """Endpoints and EndpointSlice `kubernetes`; controllers that share a port share a subset. `present` is sorted."""
    reachable = [(address, port) for address, port in present if f"IPv{ip_address(address).version}" == family]
    subsets: list[Object] = []
    for port in sorted({port for _, port in reachable}):
        addresses = [{"ip": address} for address, used in reachable if used == port]
        subsets.append({"addresses": addresses, "ports": [{"name": "https", "port": port, "protocol": "TCP"}]})
    meta = {"namespace": "default", "name": _KUBERNETES}
    endpoints: Object = {"apiVersion": "v1", "kind": "Endpoints", "subsets": subsets}
    endpoints["metadata"] = {**meta, "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}}
    made = [(_ENDPOINTS, endpoints)]
    for index, subset in enumerate(subsets):
        name = _KUBERNETES if not index else f"{_KUBERNETES}-{subset['ports'][0]['port']}"
        slice_: Object = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family}
        slice_["metadata"] = {**meta, "name": name, "labels": {_SERVICE_NAME: _KUBERNETES}}
        slice_["endpoints"] = [{"addresses": [one["ip"]], "conditions": {"ready": True}} for one in subset["addresses"]]
        slice_["ports"] = subset["ports"]
        made.append((_SLICES, slice_))
    return made
