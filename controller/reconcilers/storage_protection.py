"""Takes the protecting finalizers away: from a deleted claim that no pod uses, from a deleted volume that is not bound.

Run by the loop, one key a claim or volume. `decide` is pure. Admission gives every claim and volume its finalizer
(controller.admission.storage). Rules: k8s.io/kubernetes pkg/controller/volume/{pvc,pv}protection.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.kinds import Kind, by_resource
from api.objects import Object, is_deleting, name_of, namespace_of, uid_of
from controller.admission.storage import CLAIMS, PROTECTION, VOLUMES
from controller.reconcilers.actions import DropFinalizer
from controller.reconcilers.loop import NOTHING, Decision, Failure, Source, Watch, own_key
from controller.reconcilers.node_lifecycle import PODS
from controller.reconcilers.views import Views
from controller.store import Query
from controller.store.types import Event, Key, Record

_FINISHED = ("Succeeded", "Failed")


@dataclass(frozen=True)
class Observed:
    """A claim or volume, and whether anything still uses it."""

    obj: Object
    used: bool


def decide(kind: Kind, observed: Observed) -> Decision:
    obj = observed.obj
    finalizer = PROTECTION[kind.resource]
    if observed.used or not is_deleting(obj) or finalizer not in (obj["metadata"].get("finalizers") or ()):
        return NOTHING
    return Decision((DropFinalizer(kind, namespace_of(obj), name_of(obj), uid_of(obj), finalizer),))


def claims_of(pod: Mapping[str, Any]) -> set[str]:
    """The claims a pod mounts, those of its ephemeral volumes included."""
    name, found = name_of(pod), set()
    for volume in pod["spec"].get("volumes") or ():
        if claim := volume.get("persistentVolumeClaim"):
            found.add(claim.get("claimName") or "")
        elif "ephemeral" in volume:
            found.add(f"{name}-{volume['name']}")
    return found


class ClaimProtection:
    name = "persistentvolumeclaim-protection-controller"
    concurrency = 4

    def __init__(self, views: Views) -> None:
        self._views = views

    def sources(self) -> Sequence[Source]:
        return (Watch(CLAIMS, own_key), Watch(PODS.resource, self._on_pod))

    def observe(self, key: tuple[str, str], failure: Failure | None) -> Observed | None:
        del failure
        claim = self._views.get(Key(*CLAIMS, *key))
        if claim is None or not is_deleting(claim):
            return None
        pods = self._views.store.list(PODS.resource, Query(namespace=key[0])).records
        users = (record.parse() for record in pods if _mounts(record))
        return Observed(claim, any(_is_live(pod) and key[1] in claims_of(pod) for pod in users))

    def decide(self, observed: Observed) -> Decision:
        return decide(by_resource(*CLAIMS), observed)

    def _on_pod(self, event: Event) -> Iterable[Hashable]:
        if not _mounts(event.record):
            return ()
        pod = event.record.parse()
        return [(event.record.key.namespace, claim) for claim in claims_of(pod)]


def _mounts(record: Record) -> bool:
    """Whether a pod may use a claim, told without reading it whole."""
    return b'"persistentVolumeClaim"' in record.raw or b'"ephemeral"' in record.raw


def _is_live(pod: Mapping[str, Any]) -> bool:
    return (pod.get("status") or {}).get("phase") not in _FINISHED


class VolumeProtection:
    name = "persistentvolume-protection-controller"
    concurrency = 2

    def __init__(self, views: Views) -> None:
        self._views = views

    def sources(self) -> Sequence[Source]:
        return (Watch(VOLUMES, own_key),)

    def observe(self, key: tuple[str, str], failure: Failure | None) -> Observed | None:
        del failure
        volume = self._views.get(Key(*VOLUMES, *key))
        if volume is None:
            return None
        return Observed(volume, (volume.get("status") or {}).get("phase") == "Bound")

    def decide(self, observed: Observed) -> Decision:
        return decide(by_resource(*VOLUMES), observed)
