"""What is legal but unwise: the warnings Kubernetes sends with the answer to a create or an update.

Called by registry.intake once an object is valid. A pod's are told when it or its template is written, not when it is
changed. Sources: k8s.io/kubernetes/pkg/api/{pod,service,persistentvolume,persistentvolumeclaim,node}, pkg/registry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from api.kinds import Kind
from api.names import is_dns_label, is_qualified_name
from api.objects import annotations_of
from api.quantity import canonical, is_whole, parse_quantity
from controller.registry.validation.advice_pods import CONTAINERS, pod_notes
from controller.registry.validation.meta import STANDARD_FINALIZERS
from controller.registry.validation.rules import Value, parse_address, parse_network
from controller.registry.validation.schemas import unrecognized_formats
from controller.registry.validation.service import TOPOLOGY_HINTS

_TOPOLOGY = "deprecated since v1.17; use"
_OLD_LABELS = {
    "beta.kubernetes.io/arch": 'deprecated since v1.14; use "kubernetes.io/arch" instead',
    "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
    "failure-domain.beta.kubernetes.io/region": f'{_TOPOLOGY} "topology.kubernetes.io/region" instead',
    "failure-domain.beta.kubernetes.io/zone": f'{_TOPOLOGY} "topology.kubernetes.io/zone" instead',
    "beta.kubernetes.io/instance-type": f'{_TOPOLOGY} "node.kubernetes.io/instance-type" instead',
}
_OLD_VOLUMES = {
    "photonPersistentDisk": "deprecated in v1.11, non-functional in v1.16+",
    "gitRepo": "deprecated in v1.11, and disabled by default in v1.33+",
    "scaleIO": "deprecated in v1.16, non-functional in v1.22+",
    "flocker": "deprecated in v1.22, non-functional in v1.25+",
    "storageos": "deprecated in v1.22, non-functional in v1.25+",
    "quobyte": "deprecated in v1.22, non-functional in v1.25+",
    "glusterfs": "deprecated in v1.25, non-functional in v1.26+",
    "cephfs": "deprecated in v1.28, non-functional in v1.31+",
    "rbd": "deprecated in v1.28, non-functional in v1.31+",
}
_MOUNTABLE = "kubernetes.io/enforce-mountable-secrets"
_CLASS = "volume.beta.kubernetes.io/storage-class"
_INGRESS_CLASS = "kubernetes.io/ingress.class"
_MOST_COMPLETIONS, _MOST_PARALLEL = 100_000, 10_000
_MATCHES_NONE = "a null labelSelector results in matching no pod"
_SURPRISING = "which can result in surprising behavior; a DNS label is recommended"
_HEADLESS = "is ignored for headless services"

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"

Advice = Iterator[str]
_TEMPLATES = {
    "Deployment": "spec.template",
    "ReplicaSet": "spec.template",
    "ReplicationController": "spec.template",
    "StatefulSet": "spec.template",
    "DaemonSet": "spec.template",
    "Job": "spec.template",
    "CronJob": "spec.jobTemplate.spec.template",
    "PodTemplate": "template",
}
_NAMED = _TEMPLATES.keys() - {"DaemonSet", "PodTemplate"}
"""Kinds whose name becomes that of pods."""


def advice(kind: Kind, obj: Value, old: Value | None) -> list[str]:
    """The warnings about a valid object, in Kubernetes' order."""
    if kind.custom is not None:
        return list(_odd_finalizers(obj["metadata"], old["metadata"] if old else {}))
    if (path := _TEMPLATES.get(kind.kind)) is not None:
        return list(_workload(kind.kind, path, obj, old))
    if kind.kind == "ServiceAccount" and _MOUNTABLE in _new_annotations(obj, old):
        why = "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
        return [f"metadata.annotations[{_MOUNTABLE}]: {why}"]
    if kind.kind == "CustomResourceDefinition":
        known = set(_odd_formats(old) if old else ())
        return [f'unrecognized format "{name}"' for name in _odd_formats(obj) if name not in known]
    told = _ADVICE.get(kind.kind)
    return list(told(obj)) if told is not None and (old is None or kind.kind != "Pod") else []


def _odd_finalizers(metadata: Value, before: Value) -> Advice:
    """Those of custom objects need no domain, but others may take the same name."""
    why = "prefer a domain-qualified finalizer name"
    clash = "to avoid accidental conflicts with other finalizer writers"
    for name in sorted(set(metadata.get("finalizers") or ()) - set(before.get("finalizers") or ())):
        for fault in is_qualified_name(name):
            yield f'metadata.finalizers: "{name}": {fault}'
        if "/" not in name and name not in STANDARD_FINALIZERS:
            path = " including a path (/)" if "." in name else ""
            yield f'metadata.finalizers: "{name}": {why}{path} {clash}'


def _odd_formats(definition: Value) -> list[str]:
    """Those that all versions share are found once, as Kubernetes keeps them once."""
    schemas = [(version.get("schema") or {}).get("openAPIV3Schema") for version in definition["spec"]["versions"]]
    same = all(schema == schemas[0] for schema in schemas)
    return [name for schema in (schemas[:1] if same else schemas) for name in unrecognized_formats(schema)]


def _new_annotations(obj: Value, old: Value | None) -> set[str]:
    return set(annotations_of(obj)) - set(annotations_of(old) if old else ())


def _workload(kind: str, path: str, obj: Value, old: Value | None) -> Advice:
    generation = obj["metadata"].get("generation")
    if old is not None and generation is not None and generation == old["metadata"].get("generation"):
        return
    if old is None and kind in _NAMED and (faults := is_dns_label(obj["metadata"].get("name") or "")):
        yield f"metadata.name: this is used in Pod names and hostnames, {_SURPRISING}: [{' '.join(faults)}]"
    template = obj
    for field in path.split("."):
        template = template.get(field) or {}
    if kind == "Job":
        yield from _many_indexes(obj.get("spec") or {})
    yield from pod_notes(f"{path}.", template.get("metadata") or {}, template.get("spec") or {})
    yield from _pod_spec(f"{path}.spec", template.get("spec") or {})
    for index, claim in enumerate((obj.get("spec") or {}).get("volumeClaimTemplates") or ()):
        yield from _claim_spec(f"spec.volumeClaimTemplates[{index}].spec", claim.get("spec") or {})


def _pod(pod: Value) -> Advice:
    if faults := is_dns_label(pod["metadata"].get("name") or ""):
        yield f"metadata.name: this is used in the Pod's hostname, {_SURPRISING}: [{' '.join(faults)}]"
    yield from pod_notes("", pod["metadata"], pod.get("spec") or {})
    yield from _pod_spec("spec", pod.get("spec") or {})


def _many_indexes(spec: Value) -> Advice:
    many = (spec.get("completions") or 0) > _MOST_COMPLETIONS and (spec.get("parallelism") or 0) > _MOST_PARALLEL
    if many and spec.get("completionMode") == "Indexed":
        large = "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4"
        lost = "Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        yield f"spec: {large}, {lost}"


def _pod_spec(path: str, spec: Value) -> Advice:
    affinity = spec.get("affinity") or {}
    for label in sorted(_OLD_LABELS.keys() & (spec.get("nodeSelector") or {}).keys()):
        yield f"{path}.nodeSelector[{label}]: {_OLD_LABELS[label]}"
    yield from _node_affinity(f"{path}.affinity.nodeAffinity", affinity.get("nodeAffinity") or {})
    for index, constraint in enumerate(spec.get("topologySpreadConstraints") or ()):
        here, key = f"{path}.topologySpreadConstraints[{index}]", constraint.get("topologyKey")
        if key in _OLD_LABELS:
            yield f"{here}.topologyKey: {key} is {_OLD_LABELS[key]}"
        if constraint.get("labelSelector") is None:
            yield f"{here}.labelSelector: {_MATCHES_NONE}"
    for index, volume in enumerate(spec.get("volumes") or ()):
        yield from _old_volumes(f"{path}.volumes[{index}]", volume)
    for field, member in (("hostAliases", "ip"), ("imagePullSecrets", "name")):
        yield from _repeated(f"{path}.{field}", member, spec.get(field) or [])
    for index, secret in enumerate(spec.get("imagePullSecrets") or ()):
        if not secret.get("name"):
            yield f'{path}.imagePullSecrets[{index}].name: invalid empty name ""'
    containers = [
        (f"{path}.{field}[{index}]", container)
        for field in CONTAINERS
        for index, container in enumerate(spec.get(field) or ())
    ]
    for resource in ("memory", "ephemeral-storage"):
        yield from _fraction(f"{path}.overhead", spec.get("overhead"), resource)
    for here, container in containers:
        yield from _container(here, container)
    yield from _ports(containers)
    if (spec.get("terminationGracePeriodSeconds") or 0) < 0:
        why = "must be >= 0; negative values are invalid and will be treated as 1"
        yield f"{path}.terminationGracePeriodSeconds: {why}"
    for field in ("podAffinity", "podAntiAffinity"):
        yield from _pod_affinity(f"{path}.affinity.{field}", affinity.get(field) or {})


def _old_terms(path: str, selector: Value | None) -> Advice:
    for index, term in enumerate((selector or {}).get("nodeSelectorTerms") or ()):
        yield from _old_keys(f"{path}[{index}]", term)


def _old_keys(path: str, term: Value) -> Advice:
    for index, expression in enumerate(term.get("matchExpressions") or ()):
        if (key := expression.get("key")) in _OLD_LABELS:
            yield f"{path}.matchExpressions[{index}].key: {key} is {_OLD_LABELS[key]}"


def _node_affinity(path: str, affinity: Value) -> Advice:
    yield from _old_terms(f"{path}.{_REQUIRED}.nodeSelectorTerms", affinity.get(_REQUIRED))
    for index, term in enumerate(affinity.get(_PREFERRED) or ()):
        yield from _old_keys(f"{path}.{_PREFERRED}[{index}].preference", term.get("preference") or {})


def _pod_affinity(path: str, affinity: Value) -> Advice:
    for index, term in enumerate(affinity.get(_REQUIRED) or ()):
        if term.get("labelSelector") is None:
            yield f"{path}.{_REQUIRED}[{index}].labelSelector: {_MATCHES_NONE}"
    for index, term in enumerate(affinity.get(_PREFERRED) or ()):
        if (term.get("podAffinityTerm") or {}).get("labelSelector") is None:
            yield f"{path}.{_PREFERRED}[{index}].podAffinityTerm.labelSelector: {_MATCHES_NONE}"


def _old_volumes(path: str, volume: Value) -> Advice:
    for field, why in _OLD_VOLUMES.items():
        if volume.get(field) is not None:
            yield f"{path}.{'storageOS' if field == 'storageos' else field}: {why}"
    claim = (volume.get("ephemeral") or {}).get("volumeClaimTemplate") or {}
    yield from _claim_spec(f"{path}.ephemeral.volumeClaimTemplate.spec", claim.get("spec") or {})


def _repeated(path: str, member: str, items: list[Value]) -> Advice:
    seen: set[str] = set()
    for index, item in enumerate(items):
        value = item.get(member) or ""
        if value in seen:
            yield f'{path}[{index}].{member}: duplicate {member} "{value}"'
        seen.add(value)


def _container(path: str, container: Value) -> Advice:
    for resource in ("memory", "ephemeral-storage"):
        for field in ("limits", "requests"):
            yield from _fraction(f"{path}.resources.{field}", (container.get("resources") or {}).get(field), resource)
    seen: set[str] = set()
    for index, variable in enumerate(container.get("env") or ()):
        name, value = variable.get("name") or "", variable.get("value") or ""
        reference = f"$({name})"
        if name in seen and (variable.get("valueFrom") is not None or value == reference or reference not in value):
            yield f'{path}.env[{index}]: hides previous definition of "{name}", which may be dropped when using apply'
        seen.add(name)


def _fraction(path: str, amounts: Value | None, resource: str) -> Advice:
    value = (amounts or {}).get(resource)
    if value is not None and not is_whole(parse_quantity(value)):
        yield f'{path}[{resource}]: fractional byte value "{canonical(value)}" is invalid, must be an integer'


def _ports(containers: list[tuple[str, Value]]) -> Advice:
    known: dict[tuple[int, str], list[tuple[str, Value]]] = {}
    every = [(f"{path}.ports[{i}]", port) for path, one in containers for i, port in enumerate(one.get("ports") or ())]
    for path, port in every:
        others = known.setdefault((port.get("containerPort") or 0, port.get("protocol") or "TCP"), [])
        for other_path, other in others:
            address, number = port.get("hostIP") or "", port.get("hostPort") or 0
            other_address, other_number = other.get("hostIP") or "", other.get("hostPort") or 0
            if (address, number) == (other_address, other_number):
                yield f"{path}: duplicate port definition with {other_path}"
            elif not number or not other_number:
                yield f"{path}: overlapping port definition with {other_path}"
            elif number == other_number and bool(address) != bool(other_address):
                yield f"{path}: dangerously ambiguous port definition with {other_path}"
        others.append((path, port))


def _service(service: Value) -> Advice:
    spec = service.get("spec") or {}
    kind, outside = spec.get("type") or "ClusterIP", spec.get("externalIPs") or []
    headless = kind == "ClusterIP" and spec.get("clusterIP") == "None"
    if TOPOLOGY_HINTS in (service["metadata"].get("annotations") or ()):
        mode = "service.kubernetes.io/topology-mode"
        yield f"annotation {TOPOLOGY_HINTS} is deprecated, please use {mode} instead"
    for index, address in enumerate(spec.get("clusterIPs") or ()):
        yield from _odd_address(f"spec.clusterIPs[{index}]", address)
    if headless:
        if spec.get("loadBalancerIP"):
            yield f"spec.loadBalancerIP {_HEADLESS}"
        if outside:
            yield f"spec.externalIPs {_HEADLESS}"
        if spec.get("sessionAffinity") not in (None, "", "None"):
            yield f"spec.SessionAffinity {_HEADLESS}"
    for index, address in enumerate(outside):
        yield from _odd_address(f"spec.externalIPs[{index}]", address)
    if outside and not headless and kind != "ExternalName":
        yield "spec.externalIPs is deprecated and may no longer be implemented in some clusters"
    yield from _odd_address("spec.loadBalancerIP", spec.get("loadBalancerIP") or "")
    for index, network in enumerate(spec.get("loadBalancerSourceRanges") or ()):
        yield from _odd_network(f"spec.loadBalancerSourceRanges[{index}]", network)
    if kind == "ExternalName" and outside:
        yield 'spec.externalIPs is ignored when spec.type is "ExternalName"'
    if kind != "ExternalName" and spec.get("externalName"):
        yield 'spec.externalName is ignored when spec.type is not "ExternalName"'
    if spec.get("trafficDistribution") == "PreferClose":
        yield 'spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"'


def _odd_address(path: str, text: str) -> Advice:
    """An address that says what it means, but not in one way only."""
    address = parse_address(text)
    mapped = getattr(address, "ipv4_mapped", None)
    if address is None or str(address) == text:
        return
    if address.version == 4 or mapped:
        shown = mapped or address
        why = "will be considered invalid in a future Kubernetes release"
        yield f'{path}: non-standard IP address "{text}" {why}: use "{shown}"'
    else:
        yield f'{path}: IPv6 address "{text}" should be in RFC 5952 canonical format ("{address}")'


def _odd_network(path: str, text: str) -> Advice:
    network = parse_network(text.strip())
    if network is not None and network.version == 6 and str(network) != text:
        yield f'{path}: IPv6 CIDR value "{text}" should be in RFC 5952 canonical format ("{network}")'


def _network_policy(policy: Value) -> Advice:
    spec = policy.get("spec") or {}
    for field, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(field) or ()):
            for place, peer in enumerate(rule.get(peers) or ()):
                path, block = f"spec.{field}[{index}].{peers}[{place}].ipBlock", peer.get("ipBlock") or {}
                yield from _odd_network(f"{path}.cidr", block.get("cidr") or "")
                for hole, network in enumerate(block.get("except") or ()):
                    yield from _odd_network(f"{path}.except[{hole}]", network)


def _node(node: Value) -> Advice:
    spec = node.get("spec") or {}
    if spec.get("configSource") is not None:
        yield "spec.configSource: the feature is removed"
    if spec.get("externalID"):
        yield "spec.externalID: this field is deprecated, and is unused by Kubernetes"


def _runtime_class(runtime_class: Value) -> Advice:
    for label in sorted(
        _OLD_LABELS.keys() & ((runtime_class.get("scheduling") or {}).get("nodeSelector") or {}).keys()
    ):
        yield f"scheduling.nodeSelector: {_OLD_LABELS[label]}"


def _storage_class(storage_class: Value) -> Advice:
    for index, term in enumerate(storage_class.get("allowedTopologies") or ()):
        for place, expression in enumerate(term.get("matchLabelExpressions") or ()):
            if (key := expression.get("key")) in _OLD_LABELS:
                yield f"allowedTopologies[{index}].matchLabelExpressions[{place}].key: {key} is {_OLD_LABELS[key]}"


def _old_class(obj: Value) -> Advice:
    if _CLASS in (obj["metadata"].get("annotations") or ()):
        yield f'metadata.annotations[{_CLASS}]: deprecated since v1.8; use "storageClassName" attribute instead'


def _claim(claim: Value) -> Advice:
    yield from _old_class(claim)
    yield from _claim_spec("spec", claim.get("spec") or {})


def _claim_spec(path: str, spec: Value) -> Advice:
    for field in ("requests", "limits"):
        yield from _fraction(f"{path}.resources.{field}", (spec.get("resources") or {}).get(field), "storage")


def _volume(volume: Value) -> Advice:
    spec = volume.get("spec") or {}
    yield from _old_class(volume)
    if spec.get("persistentVolumeReclaimPolicy") == "Recycle":
        why = "Instead, the recommended approach is to use dynamic provisioning."
        yield f"spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. {why}"
    yield from _old_terms(
        "spec.nodeAffinity.required.nodeSelectorTerms", (spec.get("nodeAffinity") or {}).get("required")
    )
    yield from _old_volumes("spec", spec)
    yield from _fraction("spec.capacity", spec.get("capacity"), "storage")


def _ingress(ingress: Value) -> Advice:
    if _INGRESS_CLASS in (ingress["metadata"].get("annotations") or ()):
        yield f"annotation \"{_INGRESS_CLASS}\" is deprecated, please use 'spec.ingressClassName' instead"


def _slice(slice_: Value) -> Advice:
    if slice_.get("addressType") == "FQDN":
        yield "addressType: FQDN endpoints are deprecated"


_ADVICE: dict[str, Callable[[Value], Advice]] = {
    "Pod": _pod,
    "Service": _service,
    "PersistentVolume": _volume,
    "PersistentVolumeClaim": _claim,
    "Ingress": _ingress,
    "EndpointSlice": _slice,
    "NetworkPolicy": _network_policy,
    "Node": _node,
    "RuntimeClass": _runtime_class,
    "StorageClass": _storage_class,
}
