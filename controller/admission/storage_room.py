"""Nothing is added while the disk under etcd is full: what is left there is kept for what makes room and keeps order.

Plugged into the chain by the server. Deletions and evictions pass, and what nodes and the control plane say of what is
there (status, leases, finalizers); the first rule that matches decides.
"""

from __future__ import annotations

from typing import Protocol

from api.errors import InsufficientStorage, qualified
from controller.admission.attributes import Attributes, Operation

LEASES, EVENTS = ("coordination.k8s.io", "leases"), ("", "events")
NODES, PODS = ("", "nodes"), ("", "pods")
_CONTROL_PLANE = "system:serviceaccounts:kube-system"
_API_SERVER = "system:apiserver"


class Room(Protocol):
    @property
    def shortage(self) -> str:
        """Why nothing may be added, a sentence; "" while there is room."""
        ...


class StorageRoom:
    """Refuses with 507 what adds to a store that has no room."""

    def __init__(self, room: Room) -> None:
        self._room = room

    def __call__(self, attributes: Attributes) -> None:
        """Raises InsufficientStorage."""
        shortage = self._room.shortage
        if shortage and adds(attributes):
            resource = qualified(*attributes.kind.resource)
            named = f'{resource} "{attributes.name}"' if attributes.name else resource
            details = {"name": attributes.name, "group": attributes.kind.group, "kind": attributes.kind.plural}
            kept = {field: value for field, value in details.items() if value}
            raise InsufficientStorage(f"{named} cannot be written: {shortage}", kept)


def adds(attributes: Attributes) -> bool:
    """Whether this write adds to the store, or may, and can wait."""
    request, resource = attributes.request, attributes.kind.resource
    creates = attributes.operation is Operation.CREATE
    if request.dry_run or not (creates or attributes.operation is Operation.UPDATE) or resource == LEASES:
        return False
    if request.user.name == _API_SERVER:
        return False  # its own few objects, without which it does not start
    if request.user.node:
        return creates and resource == EVENTS
    if creates:
        return not attributes.subresource  # eviction, binding and token make no object
    if _CONTROL_PLANE in request.user.groups:
        return False
    if resource == NODES or attributes.subresource == "scale":
        return False  # cordon and scale down: how room is made
    if resource == PODS and attributes.subresource == "status":
        return False  # whose writer does an agent's work
    return not ((attributes.whole or attributes.old or {}).get("metadata") or {}).get("deletionTimestamp")
