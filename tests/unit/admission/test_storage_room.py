"""Which writes pass while the disk under etcd is full."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from api import kinds
from api.errors import InsufficientStorage
from api.objects import Object
from controller.admission.attributes import Attributes, Operation
from controller.admission.storage_room import StorageRoom
from controller.admission.types import MASTERS_GROUP, NODES_GROUP, Request, User

ADMIN = User("admin", groups=(MASTERS_GROUP,))
NODE = User("system:node:a", groups=(NODES_GROUP,))
CONTROLLER = User(
    "system:serviceaccount:kube-system:deployment-controller", groups=("system:serviceaccounts:kube-system",)
)
DELETED: Object = {"metadata": {"name": "x", "deletionTimestamp": "2026-01-01T00:00:00Z"}}
PRESENT: Object = {"metadata": {"name": "x"}}
CREATE, UPDATE, DELETE = Operation.CREATE, Operation.UPDATE, Operation.DELETE


@dataclass
class Disk:
    shortage: str = "the disk is full"


def write(user: User, operation: Operation, resource: tuple[str, str], subresource: str = "") -> Attributes:
    old = None if operation is CREATE else PRESENT
    request = Request(user)
    return Attributes(request, operation, kinds.by_resource(*resource), "d", "x", PRESENT, old, subresource)


PODS, MAPS, NODES, EVENTS = ("", "pods"), ("", "configmaps"), ("", "nodes"), ("", "events")
DEPLOYMENTS, LEASES = ("apps", "deployments"), ("coordination.k8s.io", "leases")


@pytest.mark.parametrize(
    "refused",
    [
        write(ADMIN, CREATE, MAPS),
        write(ADMIN, UPDATE, MAPS),
        write(ADMIN, UPDATE, DEPLOYMENTS, "status"),
        write(CONTROLLER, CREATE, PODS),
        write(CONTROLLER, CREATE, EVENTS),
        write(NODE, CREATE, EVENTS),
    ],
)
def test_what_adds_and_can_wait_is_refused_with_the_reason(refused: Attributes) -> None:
    with pytest.raises(InsufficientStorage, match=r'"x" cannot be written: the disk is full') as told:
        StorageRoom(Disk())(refused)
    assert told.value.code == 507
    StorageRoom(Disk(""))(refused)


@pytest.mark.parametrize(
    "passed",
    [
        write(ADMIN, DELETE, MAPS),
        write(ADMIN, CREATE, PODS, "eviction"),
        write(ADMIN, UPDATE, NODES),
        write(ADMIN, UPDATE, DEPLOYMENTS, "scale"),
        write(ADMIN, CREATE, LEASES),
        write(ADMIN, UPDATE, LEASES),
        write(NODE, UPDATE, PODS, "status"),
        write(NODE, CREATE, NODES),
        write(User("system:apiserver", groups=(MASTERS_GROUP,)), CREATE, MAPS),
        write(CONTROLLER, UPDATE, DEPLOYMENTS, "status"),
        Attributes(Request(ADMIN), UPDATE, kinds.by_resource(*MAPS), "d", "x", PRESENT, DELETED),
        Attributes(Request(ADMIN, dry_run=True), CREATE, kinds.by_resource(*MAPS), "d", "x", PRESENT),
    ],
)
def test_what_makes_room_and_keeps_order_passes(passed: Attributes) -> None:
    StorageRoom(Disk())(passed)
