"""Constraints between pods: affinity, anti-affinity (both directions) and topology spread, counted by domain.

A `TopologyFit` is made for one class from one snapshot and follows the batch: `placed(row)` after each placement. A
domain is the set of nodes with one value of a label. Called by `decide.py`. Pure.

Rules: kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node#inter-pod-affinity-and-anti-affinity and
.../topology-spread-constraints (affinity policy Honor and taint policy Ignore unless the constraint says otherwise).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from controller.scheduler.demand import PodClass
from controller.scheduler.filters import refuse_affinity_mismatch, refuse_untolerated_taint
from controller.scheduler.matching import PodMatcher, pod_matcher
from controller.scheduler.snapshot import Mask, Matrix, Scores, Snapshot

AFFINITY = "node(s) didn't match pod affinity rules"
ANTI_AFFINITY = "node(s) didn't match pod anti-affinity rules"
EXISTING_ANTI_AFFINITY = "node(s) didn't satisfy existing pods anti-affinity rules"
SPREAD = "node(s) didn't match pod topology spread constraints"
SPREAD_LABEL = "node(s) didn't match pod topology spread constraints (missing required label)"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_SOFT_SPREAD_COST = 25.0

Placement = tuple[PodClass, int]
"""A pod of this class on this row."""


@dataclass
class _Counter:
    """How many matching pods each domain of one topology key holds."""

    term: Mapping[str, Any]
    matches: PodMatcher
    domain_of_row: Matrix
    counts: Matrix
    counts_itself: bool
    weight: float = 0.0

    def per_row(self) -> Matrix:
        """Matching pods in each row's domain; 0 where the row has no such label."""
        counted: Matrix = np.where(self.domain_of_row >= 0, self.counts[self.domain_of_row], 0)
        return counted

    def add(self, row: int) -> None:
        if self.domain_of_row[row] >= 0:
            self.counts[self.domain_of_row[row]] += 1


def is_topological(pod_class: PodClass, snapshot: Snapshot) -> bool:
    """True when other pods' places decide: by the class's own constraints or by those of pods already placed."""
    return pod_class.is_topological or any(
        pod_matcher(term, pod.pod_class, snapshot.namespace_labels)(pod_class)
        for pod in snapshot.anti_affine.values()
        for term in pod.pod_class.anti_affinity_terms
    )


class TopologyFit:
    def __init__(self, pod_class: PodClass, snapshot: Snapshot, planned: Iterable[Placement] = ()) -> None:
        """`planned` are placements that the snapshot does not hold yet."""
        self._class = pod_class
        self._snapshot = snapshot
        on_nodes = ((pod.pod_class, snapshot.rows.get(pod.node)) for pod in snapshot.pods.values())
        self._placements = [(other, row) for other, row in on_nodes if row is not None]
        self._placements.extend(planned)
        self._domains: dict[str, tuple[Matrix, int]] = {}
        affinity, anti = pod_class.affinity("podAffinity"), pod_class.affinity("podAntiAffinity")
        self._required = [self._counter(term) for term in affinity.get(_REQUIRED) or ()]
        self._refused = [self._counter(term) for term in anti.get(_REQUIRED) or ()]
        self._soft = [*self._weighted(affinity, 1.0), *self._weighted(anti, -1.0)]
        spread = [(self._counter(term), term) for term in pod_class.spread_constraints]
        self._spread = [counter for counter, term in spread if term.get("whenUnsatisfiable") != "ScheduleAnyway"]
        self._soft_spread = [counter for counter, term in spread if term.get("whenUnsatisfiable") == "ScheduleAnyway"]
        self._eligible = {id(counter): self._eligible_rows(counter.term) for counter in self._spread}
        self._closed = self._closed_by_existing_pods()

    def refusals(self) -> dict[str, Mask]:
        """Reason -> rows it refuses, in kube-scheduler's order (spread first, then pod affinity)."""
        rows = len(self._snapshot.alive)
        refused = {SPREAD_LABEL: np.zeros(rows, dtype=np.bool_), SPREAD: np.zeros(rows, dtype=np.bool_)}
        for counter in self._spread:
            refused[SPREAD_LABEL] |= counter.domain_of_row < 0
            refused[SPREAD] |= self._over_skew(counter)
        refused[AFFINITY] = ~self._affinity_allows()
        refused[ANTI_AFFINITY] = np.zeros(rows, dtype=np.bool_)
        for counter in self._refused:
            refused[ANTI_AFFINITY] |= (counter.domain_of_row >= 0) & (counter.per_row() > 0)
        refused[EXISTING_ANTI_AFFINITY] = self._closed
        return refused

    def scores(self) -> Scores:
        """Preferred terms (weights as given) and soft spread constraints, one number a row."""
        total: Scores = np.zeros(len(self._snapshot.alive), dtype=np.float64)
        for counter in self._soft:
            total += counter.weight * counter.per_row()
        for counter in self._soft_spread:
            total -= _SOFT_SPREAD_COST * counter.per_row()
        return total

    def placed(self, row: int) -> None:
        """Another pod of this class now runs on `row`."""
        for counter in (*self._required, *self._refused, *self._soft, *self._spread, *self._soft_spread):
            if counter.counts_itself:
                counter.add(row)

    def _counter(self, term: Mapping[str, Any], weight: float = 0.0) -> _Counter:
        matches = pod_matcher(term, self._class, self._snapshot.namespace_labels)
        domain_of_row, domains = self._domain(term.get("topologyKey") or "")
        counter = _Counter(
            term, matches, domain_of_row, np.zeros(domains + 1, dtype=np.int64), matches(self._class), weight
        )
        cached: dict[bytes, bool] = {}
        for other, row in self._placements:
            if other.key not in cached:
                cached[other.key] = matches(other)
            if cached[other.key]:
                counter.add(row)
        return counter

    def _weighted(self, affinity: Mapping[str, Any], sign: float) -> list[_Counter]:
        return [
            self._counter(term.get("podAffinityTerm") or {}, sign * (term.get("weight") or 0))
            for term in affinity.get(_PREFERRED) or ()
        ]

    def _domain(self, key: str) -> tuple[Matrix, int]:
        """Row -> number of its domain (-1: no such label), and how many domains there are."""
        if key not in self._domains:
            numbers: dict[str, int] = {}
            domain_of_row = np.full(len(self._snapshot.alive), -1, dtype=np.int64)
            for row, node in self._snapshot.nodes():
                if key in node.labels:
                    domain_of_row[row] = numbers.setdefault(node.labels[key], len(numbers))
            self._domains[key] = (domain_of_row, len(numbers))
        return self._domains[key]

    def _affinity_allows(self) -> Mask:
        allowed: Mask = np.ones(len(self._snapshot.alive), dtype=np.bool_)
        # The first of a group that asks for its own company may start anywhere that has the label.
        starts_group = all(counter.counts_itself and not counter.counts.any() for counter in self._required)
        for counter in self._required:
            allowed &= counter.domain_of_row >= 0
            if not starts_group:
                allowed &= counter.per_row() > 0
        return allowed

    def _eligible_rows(self, term: Mapping[str, Any]) -> Mask:
        """Rows whose domains count for the skew."""
        eligible: Mask = np.zeros(len(self._snapshot.alive), dtype=np.bool_)
        for row, node in self._snapshot.nodes():
            honours_affinity = term.get("nodeAffinityPolicy", "Honor") == "Honor"
            honours_taints = term.get("nodeTaintsPolicy", "Ignore") == "Honor"
            eligible[row] = not (honours_affinity and refuse_affinity_mismatch(self._class, node)) and not (
                honours_taints and refuse_untolerated_taint(self._class, node)
            )
        return eligible

    def _over_skew(self, counter: _Counter) -> Mask:
        domains = np.unique(counter.domain_of_row[self._eligible[id(counter)] & (counter.domain_of_row >= 0)])
        if len(domains) == 0:
            return np.zeros(len(self._snapshot.alive), dtype=np.bool_)
        fewest = int(counter.counts[domains].min())
        if len(domains) < (counter.term.get("minDomains") or 1):
            fewest = 0
        after = counter.per_row() + int(counter.counts_itself)
        over: Mask = (counter.domain_of_row >= 0) & (after - fewest > (counter.term.get("maxSkew") or 1))
        return over

    def _closed_by_existing_pods(self) -> Mask:
        closed: Mask = np.zeros(len(self._snapshot.alive), dtype=np.bool_)
        for other, row in self._placements:
            for term in other.anti_affinity_terms:
                domain_of_row, _count = self._domain(term.get("topologyKey") or "")
                if domain_of_row[row] >= 0 and pod_matcher(term, other, self._snapshot.namespace_labels)(self._class):
                    closed |= domain_of_row == domain_of_row[row]
        return closed
