"""What only pods can be asked: bind to a node.

Called by the Registry: by the scheduler in process and by POST pods/NAME/binding. Rules from
k8s.io/kubernetes/pkg/registry/core/pod/storage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from api.errors import BadRequest, Conflict, conflict, invalid_object, not_supported, required
from api.kinds import Kind, by_resource
from api.objects import Object
from controller.admission.types import Request
from controller.registry.faults import api_error
from controller.registry.ground import RACES, Ground, part_of, unstored
from controller.registry.intake import settle_namespace
from controller.registry.system_fields import timestamp
from controller.registry.types import Target
from controller.store.types import Record, StoreError, VersionMismatch

PODS = by_resource("", "pods")
BINDING = Kind("", "v1", "Binding", "bindings", verbs=())


@dataclass(frozen=True, slots=True)
class Binding:
    """A pod's node; labels and annotations of the Binding are merged into the pod's."""

    node: str
    uid: str = ""
    resource_version: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


def binding_of(name: str, obj: Object) -> Binding:
    """Reads a core/v1 Binding. Raises BadRequest, Invalid."""
    metadata, target = obj.get("metadata") or {}, obj.get("target") or {}
    if (metadata.get("name") or "") != name:
        raise BadRequest("name in URL does not match name in Binding object")
    errors = []
    if target.get("kind") not in (None, "", "Node"):
        errors.append(not_supported("target.kind", target["kind"], ("Node", "<empty>")))
    if not target.get("name"):
        errors.append(required("target.name"))
    if errors:
        raise invalid_object("", "Binding", name, errors)
    return Binding(
        node=target["name"],
        uid=metadata.get("uid") or "",
        resource_version=metadata.get("resourceVersion") or "",
        labels=metadata.get("labels") or {},
        annotations=metadata.get("annotations") or {},
    )


async def bind(ground: Ground, request: Request, target: Target, obj: Object) -> Record:
    """Binds a pod (`target`) to a node, once, as a Binding says. Raises BadRequest, Invalid, NotFound, Conflict (bound,
    deleting, another uid), Forbidden."""
    name = target.name
    settle_namespace(target, obj)
    binding_of(name, obj)
    record = await ground.get(target)
    attributes = part_of(request, target, BINDING, obj, whole=record.parse())
    guards = await ground.admit(attributes)
    binding = binding_of(name, obj)
    await ground.approve(attributes)
    for _ in range(RACES):
        try:
            pod = bound(record.parse(), binding, timestamp(request.now()))
        except Conflict:
            newest = await ground.newest(target)
            if newest.version == record.version:
                raise
            record = newest
            continue
        if request.dry_run:
            return unstored(target, pod, record.version)
        try:
            return await ground.store.update(target.key, pod, record.version, guards)
        except VersionMismatch as error:
            record = error.current or await ground.newest(target)
        except StoreError as error:
            raise api_error(error, target) from error
    raise _refused(name, "the object has been modified; please apply your changes to the latest version and try again")


def bound(pod: Object, binding: Binding, now: str) -> Object:
    """The pod (changed in place) with its node. Raises Conflict when it may not be bound, or not by this binding."""
    metadata, spec = pod["metadata"], pod["spec"]
    name = metadata["name"]
    version = metadata.pop("resourceVersion", "")
    if binding.uid and binding.uid != metadata["uid"]:
        raise _refused(
            name, f"Precondition failed: UID in precondition: {binding.uid}, UID in object meta: {metadata['uid']}"
        )
    if binding.resource_version and binding.resource_version != version:
        raise _refused(name, f"the pod's version is {version}, the binding was made for {binding.resource_version}")
    if metadata.get("deletionTimestamp"):
        raise _refused(name, f"pod {name} is being deleted, cannot be assigned to a host")
    if spec.get("nodeName"):
        raise _refused(name, f'pod {name} is already assigned to node "{spec["nodeName"]}"')
    if spec.get("schedulingGates"):
        raise _refused(name, f"pod {name} has non-empty .spec.schedulingGates")
    spec["nodeName"] = binding.node
    if binding.labels:
        metadata["labels"] = {**(metadata.get("labels") or {}), **binding.labels}
    if binding.annotations:
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **binding.annotations}
    _set_scheduled(pod.setdefault("status", {}), now)
    return pod


def _set_scheduled(status: Object, now: str) -> None:
    status.pop("nominatedNodeName", None)
    condition = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
    others = [each for each in status.get("conditions") or () if each.get("type") != "PodScheduled"]
    status["conditions"] = [*others, condition]


def _refused(name: str, why: str) -> Conflict:
    return conflict("", "pods/binding", name, why)
