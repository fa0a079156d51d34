"""What `kubectl get` shows of Services and what stands around them, and of storage.

Read by `columns`. Pure. The rules are those of k8s.io/kubernetes/pkg/printers/internalversion.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from api.printing import (
    AGE,
    NAME,
    NONE,
    Column,
    Printer,
    View,
    age_of,
    joined,
    labels_text,
    meta_of,
    name_of,
    selector_text,
    spec_of,
    status_of,
    wide,
)

_SHOWN_ENDPOINTS = 3
_UNSET = "<unset>"
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_OLD_CLASS = "volume.beta.kubernetes.io/storage-class"
_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}
_VOLUME_MODE = wide("VolumeMode", "Filesystem or Block.")
_CLASSES = (
    Column("StorageClass", "The class it belongs to."),
    Column("VolumeAttributesClass", "The class of its attributes."),
)


def _service(obj: View, now: datetime) -> list[Any]:
    spec = spec_of(obj)
    kind = spec.get("type") or ""
    address = NONE if kind == "ExternalName" else spec.get("clusterIP") or NONE
    ports = joined(_port(port) for port in spec.get("ports") or ()) or NONE
    shown = [kind, address, _external(obj, kind), ports, age_of(obj, now)]
    return [name_of(obj), *shown, labels_text(spec.get("selector"))]


def _port(port: View) -> str:
    outside = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port.get('port')}{outside}/{port.get('protocol') or ''}"


def _external(obj: View, kind: str) -> str:
    spec = spec_of(obj)
    if kind == "ExternalName":
        return spec.get("externalName") or ""
    given = joined(spec.get("externalIPs") or ())
    if kind != "LoadBalancer":
        return given or NONE
    return joined(one for one in (_balanced(obj), given) if one) or "<pending>"


def _balanced(obj: View) -> str:
    ingress = (status_of(obj).get("loadBalancer") or {}).get("ingress") or ()
    return joined(sorted({one.get("ip") or one.get("hostname") or "" for one in ingress} - {""}))


def _first(texts: Iterable[str]) -> str:
    """The first three, and how many more there are."""
    found = list(texts)
    more = f" + {len(found) - _SHOWN_ENDPOINTS} more..." if len(found) > _SHOWN_ENDPOINTS else ""
    return joined(found[:_SHOWN_ENDPOINTS]) + more


def _endpoints(obj: View, now: datetime) -> list[Any]:
    found = []
    for subset in obj.get("subsets") or ():
        given = [address.get("ip") or "" for address in subset.get("addresses") or ()]
        hosts = [f"[{host}]" if ":" in host and subset.get("ports") else host for host in given]
        ports = [f":{port.get('port')}" for port in subset.get("ports") or ()] or [""]
        found += [host + port for port in ports for host in hosts]
    return [name_of(obj), _first(found) or NONE, age_of(obj, now)]


def _slice(obj: View, now: datetime) -> list[Any]:
    ports = [str(port.get("port") or port.get("name") or "*") for port in obj.get("ports") or ()]
    addresses = [address for endpoint in obj.get("endpoints") or () for address in endpoint.get("addresses") or ()]
    shown = [obj.get("addressType") or "", _first(ports) or _UNSET, _first(addresses) or _UNSET]
    return [name_of(obj), *shown, age_of(obj, now)]


def _hosts(rules: list[View]) -> str:
    """The first three hosts, and how many more rules there are."""
    named = [index for index, rule in enumerate(rules) if rule.get("host")][:_SHOWN_ENDPOINTS]
    shown = joined(rules[index]["host"] for index in named) or "*"
    full = len(named) == _SHOWN_ENDPOINTS and named[-1] < len(rules) - 1
    return f"{shown} + {len(rules) - _SHOWN_ENDPOINTS} more..." if full else shown


def _ingress(obj: View, now: datetime) -> list[Any]:
    spec = spec_of(obj)
    ports = "80, 443" if spec.get("tls") else "80"
    shown = [spec.get("ingressClassName") or NONE, _hosts(spec.get("rules") or []), _balanced(obj), ports]
    return [name_of(obj), *shown, age_of(obj, now)]


def _ingress_class(obj: View, now: datetime) -> list[Any]:
    spec = spec_of(obj)
    found, shown = spec.get("parameters"), NONE
    if found:
        group = f".{found['apiGroup']}" if found.get("apiGroup") else ""
        shown = f"{found.get('kind')}{group}/{found.get('name')}"
    return [name_of(obj), spec.get("controller") or "", shown, age_of(obj, now)]


def _network_policy(obj: View, now: datetime) -> list[Any]:
    return [name_of(obj), selector_text(spec_of(obj).get("podSelector") or {}), age_of(obj, now)]


def _phase(obj: View) -> str:
    return "Terminating" if meta_of(obj).get("deletionTimestamp") else status_of(obj).get("phase") or ""


def _modes(modes: Iterable[str] | None) -> str:
    given = set(modes or ())
    return joined(short for mode, short in _MODES.items() if mode in given)


def _class(obj: View) -> str:
    return (meta_of(obj).get("annotations") or {}).get(_OLD_CLASS) or spec_of(obj).get("storageClassName") or ""


def _volume(obj: View, now: datetime) -> list[Any]:
    spec, claim = spec_of(obj), spec_of(obj).get("claimRef")
    shown = [(spec.get("capacity") or {}).get("storage") or "0", _modes(spec.get("accessModes"))]
    shown += [spec.get("persistentVolumeReclaimPolicy") or "", _phase(obj)]
    shown += [f"{claim.get('namespace')}/{claim.get('name')}" if claim else "", _class(obj)]
    shown += [spec.get("volumeAttributesClassName") or _UNSET, status_of(obj).get("reason") or ""]
    return [name_of(obj), *shown, age_of(obj, now), spec.get("volumeMode") or _UNSET]


def _claim(obj: View, now: datetime) -> list[Any]:
    spec, status = spec_of(obj), status_of(obj)
    bound = spec.get("volumeName") or ""
    size = ((status.get("capacity") or {}).get("storage") or "0") if bound else ""
    shown = [_phase(obj), bound, size, _modes(status.get("accessModes")) if bound else ""]
    shown += [_class(obj), spec.get("volumeAttributesClassName") or _UNSET]
    return [name_of(obj), *shown, age_of(obj, now), spec.get("volumeMode") or _UNSET]


def _storage_class(obj: View, now: datetime) -> list[Any]:
    name = name_of(obj)
    if (meta_of(obj).get("annotations") or {}).get(_DEFAULT_CLASS) == "true":
        name += " (default)"
    shown = [obj.get("provisioner") or "", obj.get("reclaimPolicy") or "Delete", obj.get("volumeBindingMode") or ""]
    return [name, *shown, bool(obj.get("allowVolumeExpansion")), age_of(obj, now)]


_SERVICE_COLUMNS = (
    NAME,
    Column("Type", "How it is reached."),
    Column("Cluster-IP", "Its address inside the cluster."),
    Column("External-IP", "Its addresses outside."),
    Column("Port(s)", "Its ports."),
    AGE,
    wide("Selector", "Labels of the pods behind it."),
)
_VOLUME_COLUMNS = (
    NAME,
    Column("Capacity", "How much it holds."),
    Column("Access Modes", "Who may use it at once."),
    Column("Reclaim Policy", "What becomes of it when its claim goes."),
    Column("Status", "Whether it is bound."),
    Column("Claim", "The claim it is bound to."),
    *_CLASSES,
    Column("Reason", "Why it failed."),
    AGE,
    _VOLUME_MODE,
)
_CLAIM_COLUMNS = (
    NAME,
    Column("Status", "Whether it is bound."),
    Column("Volume", "The volume it is bound to."),
    Column("Capacity", "How much that holds."),
    Column("Access Modes", "Who may use it at once."),
    *_CLASSES,
    AGE,
    _VOLUME_MODE,
)
_STORAGE_CLASS_COLUMNS = (
    NAME,
    Column("Provisioner", "Who makes its volumes."),
    Column("ReclaimPolicy", "What becomes of a volume when its claim goes."),
    Column("VolumeBindingMode", "When a volume is bound."),
    Column("AllowVolumeExpansion", "Whether volumes may grow."),
    AGE,
)
_INGRESS_COLUMNS = (
    NAME,
    Column("Class", "Who lets the traffic in."),
    Column("Hosts", "Host names it is for."),
    Column("Address", "Where it is reached."),
    Column("Ports", "Ports that are open."),
    AGE,
)
_ADDRESSES = Column("Endpoints", "Addresses traffic goes to.")
SERVICE_PRINTERS: dict[tuple[str, str], Printer] = {
    ("", "Service"): (_SERVICE_COLUMNS, _service),
    ("", "Endpoints"): ((NAME, _ADDRESSES, AGE), _endpoints),
    ("discovery.k8s.io", "EndpointSlice"): (
        (NAME, Column("AddressType", "IPv4, IPv6 or FQDN."), Column("Ports", "Ports they listen on."), _ADDRESSES, AGE),
        _slice,
    ),
    ("networking.k8s.io", "Ingress"): (_INGRESS_COLUMNS, _ingress),
    ("networking.k8s.io", "IngressClass"): (
        (NAME, Column("Controller", "Who acts on it."), Column("Parameters", "Where its settings are."), AGE),
        _ingress_class,
    ),
    ("networking.k8s.io", "NetworkPolicy"): (
        (NAME, Column("Pod-Selector", "Labels of the pods it is for."), AGE),
        _network_policy,
    ),
    ("", "PersistentVolume"): (_VOLUME_COLUMNS, _volume),
    ("", "PersistentVolumeClaim"): (_CLAIM_COLUMNS, _claim),
    ("storage.k8s.io", "StorageClass"): (_STORAGE_CLASS_COLUMNS, _storage_class),
}
