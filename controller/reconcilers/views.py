"""What reconcilers read of objects: parsed once a version, shared, frozen.

`Views` remembers the parse of every record it was shown until the object changes or goes. `PodFacts` is what decisions
need to know of a pod; thousands of them are looked at in one decision, so it is small and its fields are plain.
Imports the store's vocabulary and `api`. Invariant: what is handed out is shared and must not be changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import orjson

from api.fencing import FENCED_LABEL
from api.objects import Object, condition_of, parse_time
from controller.store import Store
from controller.store.types import Key, Record

PODS = ("", "pods")
AMBIGUOUS = b"?"
_OWNERS = b'"ownerReferences":[{'
_SWEEP_AT = 2000
_FINISHED = ("Succeeded", "Failed")
_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner reference with `controller: true`."""

    api_version: str
    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class PodFacts:
    """A pod as the workload controllers see it. Times are seconds since the epoch; 0.0 means unknown."""

    namespace: str
    name: str
    uid: str
    version: str
    labels: Mapping[str, str]
    owner: Owner | None = None
    node: str = ""
    phase: str = "Pending"
    ready: bool = False
    ready_since: float = 0.0
    created: float = 0.0
    restarts: int = 0
    deletion_cost: int = 0
    deleting: bool = False
    fenced: bool = False

    @property
    def finished(self) -> bool:
        return self.phase in _FINISHED

    @property
    def active(self) -> bool:
        """Counts as a replica: neither finished nor being deleted (k8s.io/kubernetes controller_utils IsPodActive)."""
        return not self.deleting and self.phase not in _FINISHED

    @property
    def terminating(self) -> bool:
        """Being deleted, its containers perhaps still running."""
        return self.deleting and self.phase not in _FINISHED

    def available(self, min_ready_seconds: int, now: float) -> bool:
        """Ready for at least `min_ready_seconds` (the meaning of minReadySeconds in apps/v1). One that became ready
        further in the future than that is no young pod: a clock was set back."""
        waited = now - self.ready_since
        return self.ready and not -min_ready_seconds <= waited < min_ready_seconds


def pod_facts(pod: Mapping[str, Any]) -> PodFacts:
    """Reads what `PodFacts` holds from a pod object."""
    meta, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    ready = condition_of(status, "Ready") or {}
    labels = meta.get("labels") or {}
    return PodFacts(
        namespace=meta.get("namespace") or "",
        name=meta["name"],
        uid=meta.get("uid") or "",
        version=meta.get("resourceVersion") or "",
        labels=labels,
        owner=_controller(meta.get("ownerReferences") or ()),
        node=spec.get("nodeName") or "",
        phase=status.get("phase") or "Pending",
        ready=ready.get("status") == "True",
        ready_since=seconds_of(ready.get("lastTransitionTime")),
        created=seconds_of(meta.get("creationTimestamp")),
        restarts=_restarts(status),
        deletion_cost=_deletion_cost(meta.get("annotations") or {}),
        deleting="deletionTimestamp" in meta,
        fenced=labels.get(FENCED_LABEL) == "true",
    )


def _controller(references: Iterable[Mapping[str, Any]]) -> Owner | None:
    for reference in references:
        if reference.get("controller"):
            return Owner(reference["apiVersion"], reference["kind"], reference["name"], reference["uid"])
    return None


def seconds_of(text: str | None) -> float:
    """A wire time as seconds since the epoch; 0.0 for none."""
    return parse_time(text).timestamp() if text else 0.0


def moment_of(text: str | None) -> datetime | None:
    return parse_time(text) if text else None


def _restarts(status: Mapping[str, Any]) -> int:
    return max((entry.get("restartCount") or 0 for entry in status.get("containerStatuses") or ()), default=0)


def _deletion_cost(annotations: Mapping[str, str]) -> int:
    """controller.kubernetes.io/pod-deletion-cost: lower goes first; nonsense counts as 0."""
    try:
        return int(annotations.get(_DELETION_COST, "0"))
    except ValueError:
        return 0


def owner_bytes(record: Record) -> bytes:
    """The JSON of the owner references, b"" for none, AMBIGUOUS if a byte search cannot tell which they are.

    Cheap, and different whenever the references are: for deciding whether an event is worth a parse.
    """
    return _owner_text(record.raw) if record.owners else b""


@lru_cache(maxsize=512)
def _owner_text(raw: bytes) -> bytes:
    """Kept for the moment, for many ask about the same change."""
    if raw.count(_OWNERS) != 1:
        return AMBIGUOUS
    start = raw.find(_OWNERS) + len(_OWNERS) - 2
    return raw[start : raw.find(b"}]", start) + 2]


@lru_cache(maxsize=4096)
def _parsed_owners(owners: bytes) -> tuple[Mapping[str, Any], ...] | None:
    """All children of one owner have the same bytes, so one parse serves them all. None: it is no JSON."""
    try:
        return tuple(orjson.loads(owners))
    except orjson.JSONDecodeError:
        return None


def owners_of(record: Record) -> tuple[Mapping[str, Any], ...]:
    """The owner references of a record, shared: without parsing the whole of it where possible."""
    owners = owner_bytes(record)
    if not owners:
        return ()
    parsed = None if owners is AMBIGUOUS else _parsed_owners(owners)
    return parsed if parsed is not None else tuple(record.parse()["metadata"].get("ownerReferences") or ())


def controller_of_record(record: Record) -> Owner | None:
    owners = owner_bytes(record)
    if not owners:
        return None
    found = None if owners is AMBIGUOUS else _parsed_controller(owners)
    return found if found is not None else _controller(owners_of(record))


@lru_cache(maxsize=4096)
def _parsed_controller(owners: bytes) -> Owner | None:
    """None also where the bytes are no JSON."""
    return _controller(_parsed_owners(owners) or ())


class Views:
    """The parses of one process, shared by its reconcilers. What was deleted is swept out when it has grown."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._objects: dict[Key, tuple[int, Object]] = {}
        self._pods: dict[Key, tuple[int, PodFacts]] = {}
        self._sweep_at = _SWEEP_AT

    def object(self, record: Record) -> Object:
        """The parsed record, shared: do not change it."""
        known = self._objects.get(record.key)
        if known is not None and known[0] == record.version:
            return known[1]
        parsed = record.parse()
        self._objects[record.key] = (record.version, parsed)
        self._sweep()
        return parsed

    def pod(self, record: Record) -> PodFacts:
        known = self._pods.get(record.key)
        if known is not None and known[0] == record.version:
            return known[1]
        facts = pod_facts(record.parse())
        self._pods[record.key] = (record.version, facts)
        self._sweep()
        return facts

    def get(self, key: Key) -> Object | None:
        record = self.store.get(key)
        return self.object(record) if record is not None else None

    def pods_of(self, owner_uid: str) -> tuple[PodFacts, ...]:
        """The pods that this owner controls."""
        records = (record for record in self.store.by_owner(owner_uid) if record.key.resource == PODS)
        facts = (self.pod(record) for record in records)
        return tuple(pod for pod in facts if pod.owner is not None and pod.owner.uid == owner_uid)

    def _sweep(self) -> None:
        if len(self._objects) + len(self._pods) < self._sweep_at:
            return
        for key in [key for key in self._objects if self.store.get(key) is None]:
            del self._objects[key]
        for key in [key for key in self._pods if self.store.get(key) is None]:
            del self._pods[key]
        self._sweep_at = _SWEEP_AT + 2 * (len(self._objects) + len(self._pods))
