"""StatefulSet: pods with an identity, made, updated and taken away one after another.

Run by the loop; imports history (ControllerRevisions), statefulset_pods (identity), statefulset_claims (storage).
`decide` is pure and takes one step: first revisions and whose is what, then pods that are missing or broken in rising
order, then pods out of range in falling order, then pods of an old revision in falling order. With OrderedReady nothing
follows a pod that is not available. A pod that may still run keeps its ordinal, wherever it is, so none runs twice.
Rules: k8s.io/kubernetes pkg/controller/statefulset and
https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from api import kinds
from api.objects import Object, is_deleting, metadata, name_of
from controller.reconcilers.actions import Action, Together, Write, put_status
from controller.reconcilers.history import (
    Revision,
    adoptions,
    beyond_history,
    collisions_of,
    find_current,
    revisions_of,
    unsettled,
)
from controller.reconcilers.loop import NOTHING, Decision, Failure
from controller.reconcilers.rollout import share
from controller.reconcilers.statefulset_claims import blocks_creation, claim_names, missing_claims, settle_owners
from controller.reconcilers.statefulset_pods import (
    REVISION_LABEL,
    correct_identity,
    create_pod,
    delete_pod,
    ordinal_of,
    pod_name,
)
from controller.reconcilers.views import PodFacts
from controller.reconcilers.workloads import (
    claim_actions,
    claim_pods,
    is_refusal,
    min_ready_of,
    replicas_of,
    seconds_to_availability,
    with_status,
)

STATEFUL_SETS = kinds.by_resource("apps", "statefulsets")
HASH_LABEL = "controller.kubernetes.io/hash"
_REVISION_FACTS = ("observedGeneration", "currentRevision", "updateRevision", "collisionCount")


@dataclass(frozen=True)
class Observed:
    """`pods`, `revisions`: those it controls; `orphans`, and among the revisions: those of its namespace that nobody
    controls. `claims`: those its pods may use, by name. `occupied`: the next revision's name is somebody else's."""

    stateful_set: Object
    pods: tuple[PodFacts, ...]
    revisions: tuple[Object, ...]
    now: datetime
    orphans: tuple[PodFacts, ...] = ()
    claims: Mapping[str, Object] = field(default_factory=dict)
    occupied: bool = False
    failure: Failure | None = None


@dataclass(frozen=True)
class _Step:
    """What one pod needs. `claims` come before `pods`; `blocks`: with OrderedReady nothing after it may happen."""

    claims: tuple[Action, ...] = ()
    pods: tuple[Action, ...] = ()
    blocks: bool = False


@dataclass(frozen=True)
class _Standing:
    """Where a StatefulSet stands. `update`: the revision of its template; `current`: the one it comes from."""

    observed: Observed
    pods: tuple[PodFacts, ...]
    revisions: tuple[Revision, ...]
    current: Revision
    update: Revision

    @property
    def stateful_set(self) -> Object:
        return self.observed.stateful_set

    @property
    def spec(self) -> Mapping[str, Any]:
        spec: Mapping[str, Any] = self.stateful_set["spec"]
        return spec

    @property
    def ordered(self) -> bool:
        return self.spec.get("podManagementPolicy") != "Parallel"

    @property
    def rolls(self) -> bool:
        return (self.spec.get("updateStrategy") or {}).get("type") != "OnDelete"

    @cached_property
    def range(self) -> range:
        start = int((self.spec.get("ordinals") or {}).get("start") or 0)
        return range(start, start + replicas_of(self.stateful_set))

    @cached_property
    def first_to_update(self) -> int:
        """The ordinal that spec.updateStrategy.rollingUpdate.partition lets the update begin at."""
        return self.range.start + int(_rolling(self.spec).get("partition") or 0)

    @cached_property
    def by_ordinal(self) -> Mapping[int, PodFacts]:
        found = ((ordinal_of(name_of(self.stateful_set), pod.name), pod) for pod in self.pods)
        return {ordinal: pod for ordinal, pod in found if ordinal is not None}

    @cached_property
    def condemned(self) -> Sequence[PodFacts]:
        """Pods out of range, the highest ordinal first."""
        return [self.by_ordinal[one] for one in sorted(self.by_ordinal, reverse=True) if one not in self.range]

    def is_available(self, pod: PodFacts) -> bool:
        now, min_ready = self.observed.now.timestamp(), min_ready_of(self.stateful_set)
        return pod.phase == "Running" and pod.available(min_ready, now)

    def is_away(self, ordinal: int) -> bool:
        pod = self.by_ordinal.get(ordinal)
        return pod is None or pod.deleting or not self.is_available(pod)

    def is_outdated(self, ordinal: int) -> bool:
        """Has a pod that still has to be deleted for the update."""
        pod = self.by_ordinal.get(ordinal)
        return pod is not None and not pod.deleting and revision_of(pod) != self.update.name


def decide(observed: Observed) -> Decision:
    """The next safe step, and the status that tells where the set stands."""
    stateful_set = observed.stateful_set
    own = name_of(stateful_set)
    claims = claim_pods(
        stateful_set, observed.pods, observed.orphans, lambda pod: ordinal_of(own, pod.name) is not None
    )
    revisions = revisions_of(stateful_set, observed.revisions)
    update = find_current(stateful_set["spec"]["template"], revisions)
    if is_deleting(stateful_set) and update is None:
        return NOTHING
    first = (*claim_actions(stateful_set, claims), *adoptions(stateful_set, observed.revisions))
    if first and not is_deleting(stateful_set):
        return Decision(first)  # first settle whose is what
    pending = unsettled(STATEFUL_SETS, stateful_set, revisions, HASH_LABEL, occupied=observed.occupied)
    if update is None or pending is not None:
        return pending or NOTHING
    standing = _Standing(observed, claims.mine, revisions, _current(stateful_set, revisions) or update, update)
    return _decide_pods(standing)


def revision_of(pod: PodFacts) -> str:
    return pod.labels.get(REVISION_LABEL, "")


def _current(stateful_set: Mapping[str, Any], revisions: Sequence[Revision]) -> Revision | None:
    named = (stateful_set.get("status") or {}).get("currentRevision")
    return next((one for one in revisions if one.name == named), None)


def _decide_pods(standing: _Standing) -> Decision:
    actions: tuple[Action, ...] = ()
    if not is_deleting(standing.stateful_set):  # its pods are the garbage collector's then
        actions = (*_next_actions(standing), *_forget_history(standing))
    before, status = standing.stateful_set.get("status") or {}, _status(standing)
    write = put_status(STATEFUL_SETS, standing.stateful_set, status) if status != before else None
    told_first = is_refusal(standing.observed.failure) or any(
        status.get(fact) != before.get(fact) for fact in _REVISION_FACTS
    )
    now, min_ready = standing.observed.now.timestamp(), min_ready_of(standing.stateful_set)
    requeue = seconds_to_availability(standing.pods, min_ready, now)
    return with_status(actions, write, first=told_first, requeue_after_seconds=requeue)


def _next_actions(standing: _Standing) -> tuple[Action, ...]:
    """Living pods come before surplus ones, and both before the update."""
    for stage in (_living, _surplus):
        actions, blocked = _gathered(standing, stage(standing))
        if actions or blocked:
            return actions
    return _update(standing)


def _gathered(standing: _Standing, steps: Iterable[_Step]) -> tuple[tuple[Action, ...], bool]:
    """The actions of all steps, with OrderedReady up to the first that blocks."""
    taken: list[_Step] = []
    for step in steps:
        taken.append(step)
        if step.blocks and standing.ordered:
            break
    blocked = standing.ordered and any(step.blocks for step in taken)
    claims = tuple(action for step in taken for action in step.claims)
    pods = tuple(action for step in taken for action in step.pods)
    return tuple(Together(group) for group in (claims, pods) if group), blocked


def _living(standing: _Standing) -> Iterator[_Step]:
    for ordinal in standing.range:
        pod = standing.by_ordinal.get(ordinal)
        yield _missing(standing, ordinal) if pod is None else _present(standing, ordinal, pod)


def _missing(standing: _Standing, ordinal: int) -> _Step:
    stateful_set, name = standing.stateful_set, pod_name(standing.stateful_set, ordinal)
    known = _claims_of(standing, ordinal)
    if any(blocks_creation(stateful_set, name, claim) for claim in known.values()):
        return _Step(blocks=True)
    claims = tuple(missing_claims(stateful_set, name, ordinal, known))
    return _Step(claims, (create_pod(stateful_set, _revision_for(standing, ordinal), ordinal),), blocks=True)


def _revision_for(standing: _Standing, ordinal: int) -> Revision:
    return standing.current if standing.rolls and ordinal < standing.first_to_update else standing.update


def _present(standing: _Standing, ordinal: int, pod: PodFacts) -> _Step:
    """First match wins."""
    stateful_set, known = standing.stateful_set, _claims_of(standing, ordinal)
    if pod.finished:  # however it ended: it is made anew once it has gone
        return _Step(pods=() if pod.deleting else (delete_pod(stateful_set, pod),), blocks=True)
    if pod.deleting:
        return _Step(blocks=True)
    claims: list[Action] = list(_owned_claims(standing, ordinal, pod))
    if pod.phase == "Pending":
        claims += missing_claims(stateful_set, pod.name, ordinal, known)
    named = correct_identity(stateful_set, pod)
    return _Step(tuple(claims), () if named is None else (named,), blocks=not standing.is_available(pod))


def _surplus(standing: _Standing) -> Iterator[_Step]:
    """Deletes pods out of range. With OrderedReady one at a time, and an unavailable one that has not ended only when
    no pod of a lower ordinal is unavailable, too."""
    by_ordinal = standing.by_ordinal
    lowest = min((one for one in by_ordinal if one not in standing.range and standing.is_away(one)), default=None)
    for pod in standing.condemned:
        ordinal = ordinal_of(name_of(standing.stateful_set), pod.name)
        assert ordinal is not None
        claims = tuple(_owned_claims(standing, ordinal, pod))
        waits = standing.ordered and not (standing.is_available(pod) or pod.finished) and ordinal != lowest
        if pod.deleting or waits:
            yield _Step(claims, blocks=True)
        else:
            yield _Step(claims, (delete_pod(standing.stateful_set, pod),), blocks=True)


def _update(standing: _Standing) -> tuple[Action, ...]:
    """Deletes pods of other revisions from the highest ordinal down to the partition, as many as maxUnavailable leaves
    room for. What is away and need not be deleted takes room; a broken pod of an old revision is in nobody's way."""
    if not standing.rolls:
        return ()
    ordinals = [one for one in reversed(standing.range) if one >= standing.first_to_update]
    away = sum(standing.is_away(one) and not standing.is_outdated(one) for one in ordinals)
    room = max(0, _most_unavailable(standing) - away)
    outdated = [standing.by_ordinal[one] for one in ordinals if standing.is_outdated(one)]
    return tuple(delete_pod(standing.stateful_set, pod) for pod in outdated[:room])


def _most_unavailable(standing: _Standing) -> int:
    """A percentage counts of the replicas, rounded down; never below 1."""
    given = _rolling(standing.spec).get("maxUnavailable")
    return max(1, math.floor(share(1 if given is None else given, len(standing.range))))


def _rolling(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    return (spec.get("updateStrategy") or {}).get("rollingUpdate") or {}


def _claims_of(standing: _Standing, ordinal: int) -> Mapping[str, Object]:
    names = claim_names(standing.stateful_set, ordinal).values()
    return {name: standing.observed.claims[name] for name in names if name in standing.observed.claims}


def _owned_claims(standing: _Standing, ordinal: int, pod: PodFacts) -> Iterator[Write]:
    for claim in _claims_of(standing, ordinal).values():
        settled = settle_owners(standing.stateful_set, pod, claim, in_range=ordinal in standing.range)
        if settled is not None:
            yield settled


def _forget_history(standing: _Standing) -> Iterable[Action]:
    live = {standing.current.name, standing.update.name, *(revision_of(pod) for pod in standing.pods)}
    return beyond_history(standing.revisions, live, standing.spec.get("revisionHistoryLimit"))


def _status(standing: _Standing) -> Object:
    """The whole status; counts of zero are left out as Kubernetes leaves them out."""
    pods = list(standing.by_ordinal.values())
    ready = [pod for pod in pods if pod.phase == "Running" and pod.ready]
    staying = [pod for pod in pods if not pod.deleting]
    updated = sum(revision_of(pod) == standing.update.name for pod in staying)
    counts = {
        "readyReplicas": len(ready),
        "currentReplicas": sum(revision_of(pod) == standing.current.name for pod in staying),
        "updatedReplicas": updated,
    }
    current = standing.current
    if standing.rolls and {updated, len(ready), len(pods)} == {len(standing.range)}:  # the update is complete
        counts["currentReplicas"], current = updated, standing.update
    conditions = (standing.stateful_set.get("status") or {}).get("conditions")
    return {
        "observedGeneration": metadata(standing.stateful_set).get("generation") or 1,
        "replicas": len(pods),
        **{name: count for name, count in counts.items() if count},
        "currentRevision": current.name,
        "updateRevision": standing.update.name,
        "collisionCount": collisions_of(standing.stateful_set),
        **({"conditions": conditions} if conditions else {}),
        "availableReplicas": sum(standing.is_available(pod) for pod in ready),
    }
