"""DaemonSet: one pod on every node that its template allows, updated node by node.

Run by the loop; imports history (ControllerRevisions) and daemonset_pods (nodes, tolerations). `decide` is pure and
takes one step: first revisions and whose is what, then nodes that lack a pod or have one too many, then the update.
Without maxSurge an old pod goes before its successor comes, as far as maxUnavailable allows; with it the successor
comes first, and the old pod goes once that is available. Rules: k8s.io/kubernetes pkg/controller/daemon and
https://kubernetes.io/docs/tasks/manage-daemon/update-daemon-set/.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from api import kinds
from api.objects import Object, is_deleting, labels_of, metadata, name_of, uid_of
from controller.reconcilers.actions import Action, Delete, Note, Together, put_status
from controller.reconcilers.daemonset_pods import (
    GENERATION_LABEL,
    REVISION_LABEL,
    Fit,
    NodeFacts,
    create_pod,
    fit_of,
    generation_of,
    tolerations_of,
)
from controller.reconcilers.history import Revision, adoptions, beyond_history, find_current, revisions_of, unsettled
from controller.reconcilers.loop import NOTHING, Decision, Failure
from controller.reconcilers.names import child_names
from controller.reconcilers.rollout import share
from controller.reconcilers.views import PodFacts
from controller.reconcilers.workloads import (
    PODS,
    claim_actions,
    claim_pods,
    is_refusal,
    min_ready_of,
    seconds_to_availability,
    with_status,
)

DAEMON_SETS = kinds.by_resource("apps", "daemonsets")
BURST = 250
"""So many pods are created and so many deleted before looking again."""


@dataclass(frozen=True)
class Observed:
    """`pods`, `revisions`: those it controls; `orphans`, and among the revisions: those of its namespace that nobody
    controls. `targets`: the node of each pod that is not bound yet, by uid. `gone`: names of former pods.
    `era`: of their names. `retry_at`: when a failed pod of a node may be replaced. `occupied`: the next revision's name
    is somebody else's."""

    daemon_set: Object
    pods: tuple[PodFacts, ...]
    revisions: tuple[Object, ...]
    nodes: tuple[NodeFacts, ...]
    now: datetime
    orphans: tuple[PodFacts, ...] = ()
    targets: Mapping[str, str] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()
    retry_at: Mapping[str, float] = field(default_factory=dict)
    occupied: bool = False
    failure: Failure | None = None
    era: str = ""


@dataclass(frozen=True)
class _Work:
    """Nodes that need a pod, pods that must go, and what is told of that."""

    nodes: tuple[str, ...] = ()
    pods: tuple[PodFacts, ...] = ()
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class _Pair:
    """The pods of a node that are not being deleted; None instead of a pair if there are more than one of a kind."""

    new: PodFacts | None = None
    old: PodFacts | None = None


@dataclass(frozen=True)
class _Standing:
    """Where a DaemonSet stands. `update`: the revision of its template."""

    observed: Observed
    pods: tuple[PodFacts, ...]
    revisions: tuple[Revision, ...]
    update: Revision

    @property
    def daemon_set(self) -> Object:
        return self.observed.daemon_set

    @property
    def spec(self) -> Mapping[str, Any]:
        spec: Mapping[str, Any] = self.daemon_set["spec"]
        return spec

    @cached_property
    def hash(self) -> str:
        return labels_of(self.update.obj).get(REVISION_LABEL) or self.update.name

    @cached_property
    def fits(self) -> Mapping[str, Fit]:
        spec = self.spec["template"].get("spec") or {}
        tolerations = tolerations_of(spec)
        return {node.name: fit_of(spec, tolerations, node) for node in self.observed.nodes}

    @cached_property
    def wanted(self) -> Sequence[str]:
        """The nodes that a pod belongs on."""
        return sorted(name for name, fit in self.fits.items() if fit.starts)

    @cached_property
    def by_node(self) -> Mapping[str, Sequence[PodFacts]]:
        """The pods of each node that has any, bound and old ones first; ended ones that are going count no more."""
        found: dict[str, list[PodFacts]] = {}
        for pod in sorted(self.pods, key=lambda pod: (not pod.node, pod.created, pod.name)):
            node = pod.node or self.observed.targets.get(pod.uid, "")
            if node and not (pod.deleting and pod.finished):
                found.setdefault(node, []).append(pod)
        return found

    @cached_property
    def surge(self) -> int:
        return self._limit("maxSurge", 0)

    @cached_property
    def unavailable(self) -> int:
        most = self._limit("maxUnavailable", 1)
        return 1 if not most and not self.surge else most

    def _limit(self, name: str, default: int) -> int:
        given = ((self.spec.get("updateStrategy") or {}).get("rollingUpdate") or {}).get(name)
        return math.ceil(share(default if given is None else given, len(self.wanted)))

    @property
    def rolls(self) -> bool:
        return (self.spec.get("updateStrategy") or {}).get("type") != "OnDelete"

    @property
    def allows_surge(self) -> bool:
        given = ((self.spec.get("updateStrategy") or {}).get("rollingUpdate") or {}).get("maxSurge")
        return given not in (None, 0, "0", "0%") and self.rolls

    def is_available(self, pod: PodFacts) -> bool:
        return pod.available(min_ready_of(self.daemon_set), self.observed.now.timestamp())

    def is_updated(self, pod: PodFacts) -> bool:
        generation = generation_of(self.daemon_set)
        same = bool(generation) and pod.labels.get(GENERATION_LABEL) == generation
        return same or pod.labels.get(REVISION_LABEL) == self.hash

    def pair_on(self, node: str) -> _Pair | None:
        staying = [pod for pod in self.by_node.get(node, ()) if not pod.deleting]
        new = [pod for pod in staying if self.is_updated(pod)]
        old = [pod for pod in staying if not self.is_updated(pod)]
        if len(new) > 1 or len(old) > 1:
            return None
        return _Pair(new[0] if new else None, old[0] if old else None)


def decide(observed: Observed) -> Decision:
    """The next safe step, and the status that tells where the set stands."""
    daemon_set = observed.daemon_set
    if is_deleting(daemon_set):
        return NOTHING
    claims = claim_pods(daemon_set, observed.pods, observed.orphans)
    first = (*claim_actions(daemon_set, claims), *adoptions(daemon_set, observed.revisions))
    if first:
        return Decision(first)  # first settle whose is what
    revisions = revisions_of(daemon_set, observed.revisions)
    pending = unsettled(DAEMON_SETS, daemon_set, revisions, REVISION_LABEL, occupied=observed.occupied)
    update = find_current(daemon_set["spec"]["template"], revisions)
    if update is None or pending is not None:
        return pending or NOTHING
    return _decide_pods(_Standing(observed, claims.mine, revisions, update))


def _decide_pods(standing: _Standing) -> Decision:
    work = _manage(standing)
    if not work.nodes and not work.pods and standing.rolls:
        work = _surge(standing) if standing.surge else _replace(standing)
    actions = (*_actions(standing, work), *_forget_history(standing))
    before, status = standing.daemon_set.get("status") or {}, _status(standing)
    write = put_status(DAEMON_SETS, standing.daemon_set, status) if status != before else None
    seen = status["observedGeneration"] == before.get("observedGeneration")
    told_first = is_refusal(standing.observed.failure) or not seen
    return with_status(actions, write, first=told_first, requeue_after_seconds=_next_look(standing))


def _actions(standing: _Standing, work: _Work) -> Iterable[Action]:
    yield from work.notes
    taken = {*standing.observed.gone, *(pod.name for pod in standing.pods)}
    creates, era = [], standing.observed.era
    for node in work.nodes[:BURST]:
        names = child_names(name_of(standing.daemon_set), f"{uid_of(standing.daemon_set)}/{node}", taken, era)
        creates.append(create_pod(standing.daemon_set, node, standing.hash, next(names)))
        taken.add(creates[-1].obj["metadata"]["name"])
    if creates:
        yield Together(tuple(creates))
    if work.pods:
        yield Together(tuple(_deletion(standing.daemon_set, pod) for pod in work.pods[:BURST]))


def _deletion(daemon_set: Object, pod: PodFacts) -> Delete:
    note = Note(daemon_set, "Normal", "SuccessfulDelete", f"Deleted pod: {pod.name}")
    refused = Note(daemon_set, "Warning", "FailedDelete", f'Error deleting pod "{pod.name}": ')
    return Delete(PODS, pod.namespace, pod.name, pod.uid, note=note, refused=refused)


def _manage(standing: _Standing) -> _Work:
    """What each node needs, the update aside; pods that wait for a node that is not there go."""
    found = [_manage_node(standing, name) for name in sorted(standing.fits)]
    homeless = [
        pod
        for node, pods in standing.by_node.items()
        if node not in standing.fits
        for pod in pods
        if not pod.node and not pod.deleting
    ]
    return _Work(
        tuple(node for work in found for node in work.nodes),
        (*(pod for work in found for pod in work.pods), *homeless),
        tuple(note for work in found for note in work.notes),
    )


def _manage_node(standing: _Standing, node: str) -> _Work:
    """First match wins."""
    fit, pods = standing.fits[node], standing.by_node.get(node, ())
    if fit.starts and not pods:
        return _Work((node,))
    staying = [pod for pod in pods if not pod.deleting]
    if not fit.stays:
        return _Work(pods=tuple(staying))
    running = [pod for pod in staying if not pod.finished]
    ended = [pod for pod in staying if pod.finished and _may_retry(standing, node, pod)]
    notes = tuple(_ended_note(standing.daemon_set, node, pod) for pod in ended)
    if not standing.allows_surge:
        return _Work((), (*ended, *running[1:]), notes)  # the oldest stays
    if not staying and fit.starts:
        return _Work((node,), (), notes)
    return _Work((), (*ended, *_excess_while_surging(standing, running)), notes)


def _may_retry(standing: _Standing, node: str, pod: PodFacts) -> bool:
    """A pod that fails on its node again and again is made anew less and less often."""
    return pod.phase != "Failed" or standing.observed.retry_at.get(node, 0.0) <= standing.observed.now.timestamp()


def _ended_note(daemon_set: Object, node: str, pod: PodFacts) -> Note:
    where = f"daemon pod {pod.namespace}/{pod.name} on node {node}"
    if pod.phase == "Failed":
        return Note(daemon_set, "Warning", "FailedDaemonPod", f"Found failed {where}, will try to kill it")
    return Note(daemon_set, "Normal", "SucceededDaemonPod", f"Found succeeded {where}, will try to delete it")


def _excess_while_surging(standing: _Standing, running: Sequence[PodFacts]) -> Iterable[PodFacts]:
    """Two may be on a node, the old one ready and the new one not yet available; all others go."""
    new = [pod for pod in running if standing.is_updated(pod)]
    old = [pod for pod in running if not standing.is_updated(pod)]
    yield from (*new[1:], *old[1:])
    if new and old and (not old[0].ready or standing.is_available(new[0])):
        yield old[0]


def _replace(standing: _Standing) -> _Work:
    """Old pods that may go now: unavailable ones, and as many others as maxUnavailable leaves room for."""
    away, broken, candidates = 0, [], []
    for node in sorted({*standing.by_node, *standing.wanted}):
        pair = standing.pair_on(node)
        if pair is None or (pair.new is None) == (pair.old is None):
            away += 1  # pods are coming, going, or too many
        elif pair.new is not None:
            away += not standing.is_available(pair.new)
        elif pair.old is not None and standing.is_available(pair.old):
            candidates.append(pair.old)
        elif pair.old is not None:
            broken.append(pair.old)
            away += 1
    room = max(0, standing.unavailable - away)
    return _Work(pods=(*broken, *candidates[:room]))


def _surge(standing: _Standing) -> _Work:
    """New pods beside old ones, up to maxSurge beside available ones; old pods go when the new one is available."""
    surging, available = 0, 0
    going: list[PodFacts] = []
    misplaced: list[PodFacts] = []
    broken: list[str] = []
    candidates: list[str] = []
    for node in sorted({*standing.by_node, *standing.wanted}):
        pair = standing.pair_on(node)
        if pair is None:
            surging += 1
            continue
        present = pair.old or pair.new
        is_there = present is not None and standing.is_available(present)
        available += is_there
        if pair.old is None:
            continue
        if pair.new is not None:
            done = standing.is_available(pair.new)
            surging += not done
            going += [pair.old] if done else []
        elif node not in standing.wanted:
            (misplaced if is_there else going).append(pair.old)
        else:
            (candidates if is_there else broken).append(node)
    spare = max(0, available - len(standing.wanted))
    room = max(0, standing.surge - surging)
    return _Work((*broken, *candidates[:room]), (*going, *misplaced[:spare]))


def _forget_history(standing: _Standing) -> Iterable[Action]:
    hashes = {pod.labels.get(REVISION_LABEL) for pod in standing.pods}
    live = {one.name for one in standing.revisions if labels_of(one.obj).get(REVISION_LABEL) in hashes}
    return beyond_history(standing.revisions, {standing.update.name, *live}, standing.spec.get("revisionHistoryLimit"))


def _next_look(standing: _Standing) -> float | None:
    """When a pod becomes available, or a failed one may be replaced."""
    now, min_ready = standing.observed.now.timestamp(), min_ready_of(standing.daemon_set)
    waits = [
        standing.observed.retry_at.get(pod.node, 0.0) - now
        for pod in standing.pods
        if pod.phase == "Failed" and not pod.deleting
    ]
    soon = seconds_to_availability(standing.pods, min_ready, now)
    return min((wait for wait in (*waits, soon) if wait is not None and wait > 0), default=None)


def _status(standing: _Standing) -> Object:
    """The whole status; some counts of zero are left out as Kubernetes leaves them out. A node's oldest pod counts."""
    first = {node: standing.by_node[node][0] for node in standing.wanted if node in standing.by_node}
    available = sum(pod.ready and standing.is_available(pod) for pod in first.values())
    always = {
        "currentNumberScheduled": len(first),
        "numberMisscheduled": len([node for node in standing.by_node if node in standing.fits]) - len(first),
        "desiredNumberScheduled": len(standing.wanted),
        "numberReady": sum(pod.ready for pod in first.values()),
    }
    sometimes = {
        "updatedNumberScheduled": sum(standing.is_updated(pod) for pod in first.values()),
        "numberAvailable": available,
        "numberUnavailable": len(standing.wanted) - available,
    }
    before = standing.daemon_set.get("status") or {}
    kept = {name: before[name] for name in ("collisionCount", "conditions") if before.get(name)}
    status: Object = {**always, **{name: count for name, count in sometimes.items() if count}, **kept}
    status["observedGeneration"] = metadata(standing.daemon_set).get("generation") or 1
    return status
